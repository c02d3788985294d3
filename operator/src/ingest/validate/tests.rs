use super::*;
use crate::ingest::allowed::GRACE_MS;
use proptest::prelude::*;
use prost::Message;
use vigia_crds::{NodePlanSpec, PlannedModel, PlannedProfile, PlannedVersion, Task, VersionMode};
use vigia_model::syscalls::Filter;
use vigia_proto::v1::{Driver, Sequence, VersionState};

pub(crate) const NOW: i64 = 1_800_000_000_000;

pub(crate) fn digest() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

pub(crate) fn plan() -> NodePlanSpec {
    NodePlanSpec {
        profiles: vec![PlannedProfile {
            namespace: "shop".into(),
            name: "redis".into(),
            ..PlannedProfile::default()
        }],
        models: vec![PlannedModel {
            namespace: "shop".into(),
            name: "m".into(),
            task: Task::Anomaly,
            versions: vec![PlannedVersion {
                name: "m-v1".into(),
                digest: digest(),
                size_bytes: 10,
                mode: VersionMode::Active,
                traceparent: None,
            }],
            trusted_keys: vec![],
        }],
    }
}

fn allowed() -> Allowed {
    let mut allowed = Allowed::default();
    allowed.refresh(&plan(), NOW);
    allowed
}

pub(crate) fn sample(start_ms: i64) -> Sample {
    let schema = Schema::syscalls_v1();
    Sample {
        namespace: "shop".into(),
        profile: "redis".into(),
        source: 7,
        window_start_unix_ms: start_ms,
        window_ms: 2000,
        schema: schema.hash().to_string(),
        features: vec![0.5; schema.width()],
        above_threshold: false,
        sequences: vec![0x0203, 0x010203],
        sequence_counts: vec![9, 1],
        past: vec![1.5; 4],
        capture: String::new(),
        unscored: false,
    }
}

pub(crate) fn scores(start_ms: i64) -> ScoreSummary {
    let mut histogram = vec![0; BINS];
    histogram[2] = 5;
    ScoreSummary {
        namespace: "shop".into(),
        profile: "redis".into(),
        model: "m".into(),
        digest: digest(),
        mode: 2,
        windows: 5,
        above_threshold: 1,
        histogram,
        first_window_unix_ms: start_ms,
        last_window_unix_ms: start_ms + 1,
        max_latency_us: 9,
    }
}

pub(crate) fn alert() -> Verdict {
    Verdict {
        namespace: "shop".into(),
        profile: "redis".into(),
        model: "m".into(),
        digest: digest(),
        pod: "redis-0".into(),
        pod_uid: "u-1".into(),
        container: "redis".into(),
        window_start_unix_ms: NOW - 5000,
        window_ms: 2000,
        score: 0.9,
        p_value: 1e-6,
        threshold: 0.7,
        severity: 3,
        drivers: vec![Driver {
            syscall: "execve".into(),
            observed_per_second: 3.0,
            expected_per_second: 0.0,
            ..Driver::default()
        }],
        consecutive: 2,
        began_unix_ms: 0,
        estimator: "STIDE".into(),
        class: "suspicious".into(),
        sequences: vec![Sequence {
            calls: vec!["clone".into(), "execve".into()],
            times: 4,
            seen: false,
            surprise: None,
        }],
    }
}

pub(crate) fn batch(sequence: u64) -> ReportBatch {
    ReportBatch {
        instance: "a1".into(),
        sequence,
        sent_unix_ms: NOW,
        alerts: vec![alert()],
        scores: vec![scores(NOW - 5000)],
        samples: vec![sample(NOW - 5000), sample(NOW - 3000)],
        dropped_batches: 0,
        lost_calls: 0,
        versions: vec![],
    }
}

fn checked(batch: ReportBatch) -> Report {
    check(batch, "n1", &allowed(), NOW).unwrap()
}

#[test]
fn what_made_an_alert_is_left_out_where_it_does_not_hold_and_the_alert_is_not() {
    let kept = |change: fn(&mut Verdict)| {
        let mut sent = batch(1);
        change(&mut sent.alerts[0]);
        let report = checked(sent);
        assert_eq!(report.alerts.len(), 1);
        let alert = report.alerts.into_iter().next().expect("one");
        (alert.estimator, alert.sequences.len())
    };
    let whole = ("STIDE".to_owned(), 1);
    assert_eq!(kept(|_| {}), whole);
    for change in [
        (|a| a.sequences[0].times = 0) as fn(&mut Verdict),
        |a| a.sequences[0].calls.truncate(1),
        |a| a.sequences[0].calls.resize(7, "read".into()),
        |a| a.sequences[0].calls[1] = "ex\u{1b}ecve".into(),
        |a| a.sequences[0].calls[1].clear(),
        |a| a.sequences[0].surprise = Some(f64::NAN),
    ] {
        assert_eq!(kept(change).1, 0);
    }
    let many = kept(|a| a.sequences = vec![a.sequences[0].clone(); 9]);
    assert_eq!(many.1, 3);
    assert_eq!(kept(|a| a.estimator = "a b".into()).0, "");
    assert_eq!(kept(|a| a.estimator = "x".repeat(65)).0, "");
    for (class, told) in [("suspicious", "suspicious"), ("normal", ""), ("\u{1b}[2J", "")] {
        let mut sent = batch(1);
        sent.alerts[0].class = class.to_owned();
        assert_eq!(checked(sent).alerts[0].class, told);
    }
}

#[test]
fn a_good_batch_is_taken_whole() {
    let report = checked(batch(1));
    assert!(report.left_out.is_empty(), "{:?}", report.left_out);
    assert_eq!(
        (report.alerts.len(), report.summaries.len(), report.rows.len()),
        (1, 1, 2)
    );
    assert_eq!(report.summaries[0].node, "n1");
    assert_eq!(report.skew_ms, None);
}

#[test]
fn one_bad_item_is_left_out_and_the_others_stay() {
    type Spoil = fn(&mut ReportBatch);
    let bad: [(Reason, Spoil); 20] = [
        ("NotPlanned", |b| b.samples[0].profile = "other".into()),
        ("NotPlanned", |b| b.samples[0].namespace = "../x".into()),
        ("NotPlanned", |b| b.scores[0].model = "other".into()),
        ("NotPlanned", |b| b.alerts[0].digest = "sha256:00".into()),
        ("UnknownSchema", |b| b.samples[0].schema = "00".repeat(32)),
        ("BadWidth", |b| b.samples[0].features.push(0.0)),
        ("BadNumber", |b| b.samples[0].features[3] = f32::NAN),
        ("BadNumber", |b| b.samples[0].features[3] = f32::INFINITY),
        ("BadNumber", |b| b.samples[0].features[3] = -5.0),
        ("BadNumber", |b| b.samples[0].features[3] = 1000.0),
        ("BadContext", |b| b.samples[0].past = vec![1000.0]),
        ("BadNumber", |b| b.alerts[0].score = f64::NAN),
        ("BadWindow", |b| b.samples[0].window_ms = 0),
        ("BadContext", |b| b.samples[0].sequences = vec![0x0203]),
        ("BadContext", |b| {
            b.samples[0].sequences = vec![0x0203; 2];
            b.samples[0].sequence_counts = vec![1, 1];
        }),
        ("BadContext", |b| b.samples[0].past = vec![f32::NAN]),
        ("BadHistogram", |b| b.scores[0].histogram.push(0)),
        ("BadHistogram", |b| b.scores[0].above_threshold = 6),
        ("BadHistogram", |b| b.scores[0].histogram = vec![u64::MAX; BINS]),
        ("BadName", |b| b.alerts[0].pod = "a\nb".into()),
    ];
    for (reason, spoil) in bad {
        let mut spoilt = batch(1);
        spoil(&mut spoilt);
        let report = checked(spoilt);
        assert_eq!(report.left_out, BTreeMap::from([(reason, 1)]));
        assert_eq!(
            report.alerts.len() + report.summaries.len() + report.rows.len(),
            3,
            "{reason}"
        );
    }
}

#[test]
fn a_batch_without_a_key_is_refused() {
    let refused = |spoil: fn(&mut ReportBatch)| {
        let mut spoilt = batch(1);
        spoil(&mut spoilt);
        check(spoilt, "n1", &allowed(), NOW)
    };
    assert_eq!(refused(|b| b.instance.clear()), Err(Refused::Instance));
    assert_eq!(refused(|b| b.instance = "x".repeat(65)), Err(Refused::Instance));
    assert_eq!(refused(|b| b.sequence = 0), Err(Refused::Sequence));
    assert_eq!(
        refused(|b| b.alerts = vec![alert(); MAX_ALERTS + 1]),
        Err(Refused::Size)
    );
}

#[test]
fn a_clock_five_minutes_off_is_corrected() {
    for ahead in [300_000, -300_000] {
        let mut off = batch(1);
        off.sent_unix_ms += ahead;
        off.samples = vec![sample(NOW + ahead - 4000)];
        off.scores = vec![scores(NOW + ahead - 4000)];
        let report = checked(off);
        assert_eq!(report.skew_ms, Some(ahead));
        assert_eq!(report.rows[0].start_ms, NOW - 4000);
        assert_eq!(report.summaries[0].start_ms, NOW - 4000);
    }
    // A little off is left as it is, but never in the future.
    let mut off = batch(1);
    off.sent_unix_ms += MAX_SKEW_MS;
    off.samples = vec![sample(NOW + 9_000)];
    let report = checked(off);
    assert_eq!((report.skew_ms, report.rows[0].start_ms), (None, NOW));
}

#[test]
fn what_a_plan_named_of_late_may_still_be_delivered() {
    let mut allowed = allowed();
    allowed.refresh(&NodePlanSpec::default(), NOW + 3_600_000);
    assert!(check(batch(1), "n1", &allowed, NOW).unwrap().left_out.is_empty());
    allowed.refresh(&NodePlanSpec::default(), NOW + GRACE_MS);
    assert!(allowed.is_over(NOW + GRACE_MS) && !self::allowed().is_over(NOW));
    assert_eq!(
        check(batch(1), "n1", &allowed, NOW).unwrap().left_out["NotPlanned"],
        4
    );
}

prop_compose! {
    fn any_sample()(
        known in any::<bool>(), namespace in ".{0,8}", start in any::<i64>(), window_ms in any::<i64>(),
        features in prop::collection::vec(any::<f32>(), 0..140), schema in any::<bool>(),
        sequences in prop::collection::vec(any::<u64>(), 0..4), sequence_counts in prop::collection::vec(any::<u32>(), 0..4),
        past in prop::collection::vec(any::<f32>(), 0..40),
    ) -> Sample {
        let good = sample(start);
        Sample {
            namespace: if known { good.namespace } else { namespace },
            schema: if schema { good.schema } else { "x".into() },
            window_ms, features, sequences, sequence_counts, past, ..good
        }
    }
}

prop_compose! {
    fn any_scores()(
        windows in any::<u64>(), above in any::<u64>(), histogram in prop::collection::vec(any::<u64>(), 0..30),
        first in any::<i64>(), last in any::<i64>(),
    ) -> ScoreSummary {
        ScoreSummary {
            windows, above_threshold: above, histogram, first_window_unix_ms: first, last_window_unix_ms: last,
            ..scores(0)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever an agent says, what comes out holds, and every item is taken or counted.
    #[test]
    fn what_is_taken_holds(
        instance in "[a-z0-9-]{1,10}", sequence in 1u64.., sent in any::<i64>(),
        samples in prop::collection::vec(any_sample(), 0..5),
        scores in prop::collection::vec(any_scores(), 0..5),
    ) {
        let items = (samples.len() + scores.len()) as u64;
        let batch = ReportBatch { instance, sequence, sent_unix_ms: sent, samples, scores, ..ReportBatch::default() };
        let report = checked(batch);
        let taken = (report.rows.len() + report.summaries.len()) as u64;
        prop_assert_eq!(taken + report.left_out.values().sum::<u64>(), items);
        let present = NOW - MAX_AGE_MS..=NOW;
        for row in &report.rows {
            prop_assert!(present.contains(&row.start_ms));
            prop_assert!(row.features.iter().all(|f| f.is_finite()));
            prop_assert_eq!(row.features.len(), Schema::syscalls_v1().width());
        }
        for summary in &report.summaries {
            prop_assert!(present.contains(&summary.start_ms) && present.contains(&summary.last_ms));
            prop_assert_eq!(summary.histogram.iter().sum::<u64>(), summary.windows);
        }
    }

    /// Bytes from anywhere are a batch or an error, and a batch is checked without a panic.
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(batch) = ReportBatch::decode(bytes.as_slice()) {
            let _ = check(batch, "n1", &allowed(), NOW);
        }
    }

    /// The same, near to good bytes: flipped, cut, doubled.
    #[test]
    fn bent_batches_do_not_panic(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
        let mut bytes = batch(1).encode_to_vec();
        let i = at.index(bytes.len());
        bytes[i] ^= flip;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(batch) = ReportBatch::decode(bytes.as_slice()) {
            let _ = check(batch, "n1", &allowed(), NOW);
        }
    }
}

#[test]
fn windows_are_of_the_filter_that_was_planned_or_of_none() {
    let of = |exclude: &[&str]| Filter::fingerprint(&[], exclude).expect("names");
    let mut plan = plan();
    let told = |allowed: &Allowed, capture: String| {
        let mut batch = batch(1);
        batch.samples = vec![Sample {
            capture,
            ..sample(NOW - 4000)
        }];
        let report = check(batch, "n1", allowed, NOW).expect("a batch");
        let rows = report.rows.iter();
        (
            rows.map(|row| row.capture.to_string()).collect::<Vec<_>>(),
            report.left_out,
        )
    };
    let left = |reason| BTreeMap::from([(reason, 1)]);
    let mut allowed = allowed();
    assert_eq!(told(&allowed, String::new()).0, [ALL_CALLS]);
    assert_eq!(told(&allowed, of(&["futex"])), (vec![], left("NotPlanned")));
    assert_eq!(told(&allowed, "futex".to_owned()), (vec![], left("BadCapture")));
    for exclude in ["futex", "read"] {
        plan.profiles[0].capture.syscalls.exclude = vec![exclude.to_owned()];
        allowed.refresh(&plan, NOW);
        assert_eq!(told(&allowed, of(&[exclude])).0, [of(&[exclude])]);
        // An agent that has not heard of it yet, or does not know what to say.
        assert_eq!(told(&allowed, ALL_CALLS.to_owned()).0, [ALL_CALLS]);
        assert_eq!(told(&allowed, String::new()).0, [ALL_CALLS]);
        assert_eq!(told(&allowed, of(&["futex", "read"])).1, left("NotPlanned"));
    }
    assert_eq!(told(&allowed, of(&["futex"])).1, left("NotPlanned"));
    // A pod that is gone: its last windows may come yet.
    allowed.refresh(&NodePlanSpec::default(), NOW + 1);
    assert_eq!(told(&allowed, of(&["read"])).0, [of(&["read"])]);
}

#[test]
fn what_a_node_did_with_a_version_is_read_once() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let good = VersionSpan {
        namespace: "shop".into(),
        model: "m".into(),
        digest: digest(),
        traceparent: parent.into(),
        state: VersionState::Active.into(),
        start_unix_us: NOW * 1000 - 2_000_001,
        end_unix_us: NOW * 1000 - 1,
        ..VersionSpan::default()
    };
    let told = |said: VersionSpan| {
        let report = checked(ReportBatch {
            versions: vec![said],
            ..batch(1)
        });
        (report.versions, report.left_out.into_keys().next())
    };
    let (done, left) = told(good.clone());
    let [done] = done.as_slice() else {
        panic!("{left:?}")
    };
    assert_eq!((left, done.parent.to_string().as_str()), (None, parent));
    assert_eq!(done.state, VersionState::Active);
    assert_eq!(
        [done.start, done.end].map(|t| t.as_microsecond()),
        [good.start_unix_us, good.end_unix_us]
    );
    // What a later agent calls a state is not known here, and who tells it leaves it aside.
    let unknown = VersionSpan {
        state: 99,
        ..good.clone()
    };
    assert_eq!(told(unknown).0[0].state, VersionState::Unspecified);
    for (bad, reason) in [
        (
            VersionSpan {
                traceparent: parent.replace("-01", "-x1"),
                ..good.clone()
            },
            "BadTrace",
        ),
        (
            VersionSpan {
                reason: "two words".into(),
                ..good.clone()
            },
            "BadName",
        ),
        (
            VersionSpan {
                start_unix_us: i64::MIN,
                ..good.clone()
            },
            "TooOld",
        ),
        (
            VersionSpan {
                digest: "sha256:0".into(),
                ..good
            },
            "NotPlanned",
        ),
    ] {
        assert_eq!(told(bad), (vec![], Some(reason)));
    }
}
