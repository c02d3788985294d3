//! What the scorer makes of windows, without a kernel: which versions score those of a profile's filter.

use std::collections::BTreeMap;
use std::time::Duration;

use vigia_agent::containers::ContainerId;
use vigia_agent::node::desired::{Desired, Key};
use vigia_agent::node::models::load::{Pinned, load};
use vigia_agent::node::models::shelf::{Shelf, Step};
use vigia_agent::node::report::Findings;
use vigia_agent::node::score::{Scored, Scorer, WindowKey};
use vigia_agent::probe::Sequence;
use vigia_agent::window::{Closed, Detail, New, Sequences};
use vigia_crds::{
    NodePlanSpec, PlannedContainer, PlannedModel, PlannedPod, PlannedProfile, PlannedVersion, Task,
    VersionMode,
};
use vigia_model::context::{Context, Past};
use vigia_model::pipeline::EstimatorKind;
use vigia_model::schema::Schema;
use vigia_model::syscalls::{ALL_CALLS, Arch, Filter, number};
use vigia_model::window::{Calls, Window};
use vigia_proto::v1;

use crate::model::{Signed, key, quiet, signed_of, signed_stide};
use crate::planned::id;

const UID: &str = "0f3c2b1a-90ab-4cde-8f01-000000000000";

fn plan(exclude: &[&str], versions: &[(&Signed, VersionMode)]) -> NodePlanSpec {
    let mut profile = PlannedProfile {
        namespace: "shop".to_owned(),
        name: "checkout".to_owned(),
        window_ms: 1000,
        consecutive_windows: 2,
        alerts_per_hour: "0.05".to_owned(),
        sample_per_mille: 1000,
        models: vec!["m".to_owned()],
        pods: vec![PlannedPod {
            name: "pod-0".to_owned(),
            uid: UID.to_owned(),
            containers: vec![PlannedContainer {
                name: "app".to_owned(),
                id: id(),
            }],
        }],
        ..PlannedProfile::default()
    };
    profile.capture.syscalls.exclude = exclude.iter().map(|name| (*name).to_owned()).collect();
    let version = |(signed, mode): &(&Signed, VersionMode)| PlannedVersion {
        traceparent: None,
        name: "v".to_owned(),
        digest: signed.digest.clone(),
        size_bytes: i64::try_from(signed.bytes.len()).expect("small"),
        mode: *mode,
    };
    NodePlanSpec {
        profiles: vec![profile],
        models: vec![PlannedModel {
            namespace: "shop".to_owned(),
            name: "m".to_owned(),
            task: Task::Anomaly,
            versions: versions.iter().map(version).collect(),
            trusted_keys: vec![key().public().to_base64()],
        }],
    }
}

fn window(age: u32) -> Closed<WindowKey> {
    let call = |nr| Calls {
        nr,
        count: 7,
        errors: 0,
    };
    Closed {
        key: WindowKey {
            container: ContainerId {
                pod_uid: UID.to_owned(),
                id: id(),
            },
            profile: Key {
                namespace: "shop".to_owned(),
                name: "checkout".to_owned(),
            },
        },
        window: Window::new(Arch::X86_64, 0, 1000, [call(0), call(1)]),
        detail: Detail::default(),
        partial: false,
        age,
        last: false,
    }
}

struct Node {
    scorer: Scorer,
    age: u32,
}

impl Node {
    fn new() -> Self {
        Self {
            scorer: Scorer::new([1; 32], 42),
            age: 0,
        }
    }

    /// What is made of the next window, in which these sequences of calls came.
    fn judge(
        &mut self,
        exclude: &[&str],
        versions: &[(&Signed, VersionMode)],
        sequences: &Sequences,
    ) -> (Findings, Vec<Scored>) {
        let desired = Desired::parse(&plan(exclude, versions), 1);
        assert!(desired.problems.is_empty(), "{:?}", desired.problems);
        let trusted = Pinned::default()
            .admit(&[key().public().to_base64()])
            .expect("a key");
        let mut shelf = Shelf::new(BTreeMap::new());
        for step in shelf.want(&desired.models) {
            let Step::Obtain(version, _) = step else { continue };
            let signed = versions
                .iter()
                .find(|(signed, _)| signed.digest == version.digest);
            let (signed, _) = signed.expect("one of them");
            shelf.obtained(
                &version,
                load(&signed.bytes, &signed.digest, &trusted, Task::Anomaly),
            );
        }
        shelf.swap(&desired.models);
        self.scorer.retain(&desired, Duration::ZERO);
        self.age += 1;
        let mut closed = window(self.age);
        closed.detail.sequences.clone_from(sequences);
        self.scorer.score(&[closed], &[New::default()], &desired, &shelf)
    }

    /// By which versions the next window was scored, and its sample.
    fn next(
        &mut self,
        exclude: &[&str],
        versions: &[(&Signed, VersionMode)],
    ) -> (Vec<VersionMode>, v1::Sample) {
        let (findings, scored) = self.judge(exclude, versions, &Sequences::new());
        assert_eq!(
            findings.scores.len(),
            scored.len(),
            "what does not score counts nothing"
        );
        let modes = scored.iter().map(|scored| scored.mode).collect();
        let sample = findings
            .samples
            .into_iter()
            .next()
            .expect("every window is sampled");
        (modes, sample)
    }
}

#[test]
fn a_version_scores_windows_of_its_filter_alone_and_all_where_it_does_not_say() {
    let other = Filter::fingerprint(&[], &["futex"]).expect("a name");
    let version = |name: &str, captures: &[&str]| signed_of(name, &quiet(), &key(), captures);
    let unsaid = version("unsaid", &[]);
    let all = version("all", &[ALL_CALLS]);
    let filtered = version("filtered", &[&other]);
    let both = version("both", &[ALL_CALLS, &other]);
    let mut node = Node::new();
    let (active, shadow) = (VersionMode::Active, VersionMode::Shadow);
    for (exclude, scores) in [
        (&[][..], [true, true, false, true]),
        (&["futex"][..], [true, false, true, true]),
        (&["read"][..], [true, false, false, false]),
    ] {
        let windows = Filter::fingerprint(&[], exclude).expect("names");
        for (signed, scores) in [&unsaid, &all, &filtered, &both].into_iter().zip(scores) {
            let (modes, sample) = node.next(exclude, &[(signed, active)]);
            assert_eq!(modes, if scores { vec![active] } else { vec![] }, "{exclude:?}");
            assert_eq!(sample.capture, windows);
        }
    }
    // While it is rolled out, the new one scores beside what no longer does.
    let (modes, _) = node.next(&["futex"], &[(&all, active), (&filtered, shadow)]);
    assert_eq!(modes, [shadow]);
    let (modes, _) = node.next(&[], &[(&all, active), (&filtered, shadow)]);
    assert_eq!(modes, [active]);
}

#[test]
fn windows_before_a_change_of_the_filter_are_no_past_of_those_after_it() {
    let mut node = Node::new();
    let pasts = [&[][..], &[], &[], &["futex"], &["futex"], &["futex"], &[]];
    let pasts = pasts.map(|exclude| node.next(exclude, &[]).1.past.len());
    assert_eq!(pasts, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn an_alert_of_sequences_says_who_spoke_and_of_which() {
    let run = |calls: &[&str]| {
        let number = |name| number(Arch::X86_64, name).expect("a call");
        let calls = calls.iter().map(|name| number(name));
        calls.fold(Sequence::default(), Sequence::then)
    };
    let usual = Sequences::from([(run(&["read", "write"]), 9000), (run(&["write", "read"]), 9000)]);
    let mut normal = Context::default();
    let counted = usual.iter().map(|(sequence, count)| (sequence.numbers(), *count));
    normal.observe(Schema::syscalls_v1(), Arch::X86_64, counted, &Past::default());
    let model = signed_stide("m", &normal, &key());
    let versions = [(&model, VersionMode::Active)];
    let mut node = Node::new();
    for _ in 0..3 {
        let (findings, scored) = node.judge(&[], &versions, &usual);
        assert_eq!(findings.alerts, [], "{scored:?}");
    }
    let mut odd = usual.clone();
    odd.insert(run(&["clone", "execve", "brk"]), 4);
    let (findings, scored) = node.judge(&[], &versions, &odd);
    assert_eq!(scored[0].estimator, EstimatorKind::Stide);
    assert_eq!(findings.alerts.len(), 1, "{scored:?}");
    let alert = &findings.alerts[0];
    assert_eq!(alert.estimator, "STIDE");
    let calls = ["clone", "execve", "brk"].map(str::to_owned);
    let told = v1::Sequence {
        calls: calls.into(),
        times: 4,
        seen: false,
        surprise: None,
    };
    assert_eq!(alert.sequences, [told]);
    assert!(!alert.drivers.iter().any(|driver| driver.syscall.contains('>')));
}
