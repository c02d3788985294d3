//! An agent's alert as an Event on the pod.
//!
//! Agents may create no Events: what a compromised one could do with that right is worse than what
//! it can do here, where it can only speak of pods of its own node: of any other, only its own NodePlan says what it tells.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use vigia_model::estimators::trees;
use vigia_model::pipeline::{EstimatorKind, ToldSequence};
use vigia_proto::v1::{Driver, Sequence, Severity as Grade, Verdict};

use crate::context::Context;
use crate::events::{NOTE_ROOM, Note, ONGOING, Severity, counted};
use crate::pods::PodView;

/// Reason of the Events.
pub const REASON: &str = "SyscallAnomaly";
/// Reason of the Events on a node's plan, of alerts whose pod is not there.
pub const UNKNOWN: &str = "AnomalyOfUnknownPod";
/// System calls that are named, and sequences of them.
const DRIVERS: usize = 3;
/// Calls of a sequence that are named.
const CALLS: usize = 6;
/// Longest name of a system call; the longest of Linux has 23 characters.
const NAME_MAX: usize = 32;

/// Why an alert is no Event.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The node has, and lately had, no such pod.
    #[error("node {node} has no pod {namespace}/{pod} with UID {uid}")]
    NotOnNode {
        /// The node that the agent's token names.
        node: String,
        /// Namespace in the alert.
        namespace: String,
        /// Pod in the alert.
        pod: String,
        /// UID in the alert.
        uid: String,
    },
    /// The pod has no such container.
    #[error("pod {namespace}/{pod} has no container {container:?}")]
    NoContainer {
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// Container in the alert.
        container: String,
    },
    /// The API server refused, or could not be reached: it may be tried again.
    #[error("Event: {0}")]
    Api(#[from] kube::Error),
}

/// Publishes an alert of the agent of `node`: as an Event, unless the profile wants none, and to the collector.
///
/// # Errors
/// [`Refused`]; all but [`Refused::Api`] are worth an audit record.
pub async fn publish(context: &Context, verdict: &Verdict, node: &str) -> Result<(), Refused> {
    let profile = context
        .caches
        .profiles_in(&verdict.namespace)
        .into_iter()
        .find(|p| p.metadata.name.as_deref() == Some(verdict.profile.as_str()));
    let silent = profile.is_some_and(|p| !p.spec.outputs.events);
    let pod = match pod_of(context, verdict, node) {
        Err(refused @ Refused::NotOnNode { .. }) => {
            of_no_pod(context, verdict, node, silent, &refused).await?;
            return Err(refused);
        }
        other => other?,
    };
    let version = context
        .caches
        .versions_of(&pod.namespace, &verdict.model)
        .into_iter()
        .find(|v| v.spec.digest == verdict.digest)
        .and_then(|v| v.metadata.name.clone());
    let model = plain(&verdict.model, 253);
    let version = version.unwrap_or_else(|| model.clone());
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        field_path: Some(format!("spec.containers{{{}}}", verdict.container)),
        ..ObjectReference::default()
    };
    let note = note(verdict, &scored_by(&model, &version));
    if silent {
        context.telemetry.alert(verdict, &pod, &version, &note.note);
        return Ok(());
    }
    let published = context.events.publish(&regarding, &note).await;
    if !comes_again(&published) {
        context.telemetry.alert(verdict, &pod, &version, &note.note);
    }
    match published {
        // A namespace that is being deleted takes no Events any more, and never will: an agent that
        // tried it again for ever would deliver nothing else.
        Err(kube::Error::Api(status)) if is_final(status.code) => {
            tracing::warn!(namespace = pod.namespace, pod = pod.name, note = note.note, error = %status, "Event refused");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// An alert of a pod that the node does not have: one that ended while no operator was there to know it, which must not
/// pass unseen, or an invention. The node answers for it with its own plan, which people read as what an agent says.
async fn of_no_pod(
    context: &Context,
    verdict: &Verdict,
    node: &str,
    silent: bool,
    refused: &Refused,
) -> Result<(), Refused> {
    let said = Verdict {
        container: plain(&verdict.container, 63),
        ..verdict.clone()
    };
    let model = plain(&verdict.model, 253);
    let note = note_after(
        format!("{refused} now, and its agent tells of one: "),
        &said,
        &model,
    );
    let note = Note {
        reason: UNKNOWN,
        key: format!("{}/{}", note.key, plain(&verdict.pod_uid, 64)),
        ..note
    };
    let plan = context.caches.plan(node).filter(|_| !silent);
    let published = match plan {
        Some(plan) => context.events.publish(&plan.object_ref(&()), &note).await,
        None => Ok(()),
    };
    if !comes_again(&published) {
        context
            .telemetry
            .alert_of_no_pod(verdict, node, &model, &note.note);
    }
    match published {
        Err(kube::Error::Api(status)) if is_final(status.code) => Ok(()),
        other => Ok(other?),
    }
}

/// What the API server did not take now comes again, and is told then.
fn comes_again<T>(published: &Result<T, kube::Error>) -> bool {
    match published {
        Ok(_) => false,
        Err(kube::Error::Api(status)) => !is_final(status.code),
        Err(_) => true,
    }
}

/// The API server will say the same again.
fn is_final(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 408 | 409 | 429)
}

fn pod_of(context: &Context, verdict: &Verdict, node: &str) -> Result<Arc<PodView>, Refused> {
    let pods = &context.caches.pods;
    let named = |pod: &Arc<PodView>| {
        (pod.cgroup_uid == verdict.pod_uid || pod.uid == verdict.pod_uid)
            && pod.namespace == verdict.namespace
    };
    let found = pods.on_node(node).into_iter().find(named);
    // A report may come minutes after the pod has gone.
    let pod = found.or_else(|| pods.departed(node).into_iter().find(named));
    let pod = pod.ok_or_else(|| Refused::NotOnNode {
        node: node.to_owned(),
        namespace: plain(&verdict.namespace, 63),
        pod: plain(&verdict.pod, 253),
        uid: plain(&verdict.pod_uid, 64),
    })?;
    if pod.declared.contains(&verdict.container) {
        Ok(pod)
    } else {
        Err(Refused::NoContainer {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            container: plain(&verdict.container, 63),
        })
    }
}

/// What scored, such that the alerts of a container's Models are told apart: the version, and where its name does not
/// begin with its Model's, as those of trainings do, the Model.
fn scored_by(model: &str, version: &str) -> String {
    match version.strip_prefix(model) {
        Some(rest) if rest.is_empty() || rest.starts_with('-') => version.to_owned(),
        _ => format!("{version} (Model {model})"),
    }
}

/// The words of an alert; `by` names the version that scored.
fn note(verdict: &Verdict, by: &str) -> Note {
    note_after(String::new(), verdict, by)
}

/// The same after others, which take of the room for causes.
fn note_after(mut words: String, verdict: &Verdict, by: &str) -> Note {
    let grade = match verdict.severity() {
        Grade::High => "high",
        Grade::Medium => "medium",
        Grade::Low | Grade::Unspecified => "low",
    };
    // Windows end some milliseconds early or late; that says nothing to people.
    let seconds = (verdict.window_ms.max(0) as f64 / 100.0).round() / 10.0;
    let by = match plain(&verdict.estimator, NAME_MAX) {
        // Of an agent of before it said so.
        estimator if estimator.is_empty() => by.to_owned(),
        estimator => match class(verdict) {
            "" => format!("{estimator} of {by}"),
            class => format!("{estimator} ({class}) of {by}"),
        },
    };
    words.push_str(&format!(
        "container {} behaves unusually: score {:.3} ({grade}) by {by} in {} of {seconds} s; ",
        verdict.container,
        verdict.score,
        counted(verdict.consecutive.max(1), "window"),
    ));
    Note {
        severity: Severity::Warning,
        reason: REASON,
        action: "Scored",
        note: with_causes(words, verdict),
        // Each alert is told in its own words, and again where it is graver or less so. Which call stands out most varies
        // from window to window: were that in the key, one intruder would be ten Events, and use up the pod's.
        key: format!(
            "{ONGOING}{}/{}/{}/{grade}",
            verdict.container,
            verdict.model,
            began(verdict)
        ),
    }
}

/// The words with as many causes as an Event has room for, each of them whole: sequences of calls, which are what an
/// estimator of order spoke of, before rates.
fn with_causes(mut words: String, verdict: &Verdict) -> String {
    let sequences = verdict.sequences.iter().take(DRIVERS);
    let sequences = sequences.map(|one| sequence(one).to_string());
    let drivers = verdict.drivers.iter().take(DRIVERS).map(|d| {
        format!(
            "{}{} {}/s ({} {}/s)",
            if d.failed { "failing " } else { "" },
            syscall(d),
            rate(d.observed_per_second),
            if d.forecast { "forecast" } else { "expected" },
            rate(d.expected_per_second)
        )
    });
    let head = words.len();
    let mut causes = sequences.chain(drivers).peekable();
    if causes.peek().is_none() {
        words.push_str("no single system call stands out");
    }
    for cause in causes {
        let between = if words.len() > head { ", " } else { "" };
        if words.len() + between.len() + cause.len() <= NOTE_ROOM {
            words.push_str(between);
            words.push_str(&cause);
        }
    }
    words
}

/// A sequence of calls that an agent sent.
pub fn sequence(sent: &Sequence) -> ToldSequence {
    let names = sent.calls.iter().take(CALLS);
    ToldSequence {
        calls: names.map(|name| plain(name, NAME_MAX).into()).collect(),
        times: sent.times,
        seen: sent.seen,
        surprise: sent.surprise.map(|nats| nats as f32),
    }
}

/// The estimator that an agent names, in the words of the API; a metric has no others.
pub fn estimator(verdict: &Verdict) -> &'static str {
    EstimatorKind::by_api_name(&verdict.estimator).map_or("unknown", EstimatorKind::api_name)
}

/// The class that a classifier found, where one spoke: in no other words than it has.
pub fn class(verdict: &Verdict) -> &'static str {
    let known = trees::NAMES.into_iter().find(|name| *name == verdict.class);
    known.unwrap_or_default()
}

/// What tells an alert apart from the others of its container and Model. An agent of a version that does not say it has
/// each of its windows told.
const fn began(verdict: &Verdict) -> i64 {
    match verdict.began_unix_ms {
        0 => verdict.window_start_unix_ms,
        began => began,
    }
}

/// The name of a system call that an agent sent.
pub fn syscall(driver: &Driver) -> String {
    plain(&driver.syscall, NAME_MAX)
}

/// Letters that an agent sent, as far as they are harmless in a terminal.
pub(crate) fn plain(text: &str, max: usize) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(max).collect()
}

/// A rate with as many digits as people read.
fn rate(per_second: f64) -> String {
    match per_second {
        r if !r.is_finite() => "?".to_owned(),
        0.0 => "0".to_owned(),
        r if r.abs() < 0.01 => "<0.01".to_owned(),
        r if r.abs() < 10.0 => format!("{r:.2}"),
        r => format!("{r:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict() -> Verdict {
        let driver = |syscall: &str, observed, expected| Driver {
            syscall: syscall.to_owned(),
            observed_per_second: observed,
            expected_per_second: expected,
            ..Driver::default()
        };
        Verdict {
            namespace: "shop".to_owned(),
            model: "m".to_owned(),
            container: "app".to_owned(),
            window_ms: 10_000,
            score: 0.9712,
            severity: Grade::High.into(),
            consecutive: 2,
            drivers: vec![
                driver("openat", 120.4, 3.25),
                driver("connect", 45.0, 0.0),
                driver("execve", 0.5, 0.001),
                driver("read", 1.0, 1.0),
            ],
            ..Verdict::default()
        }
    }

    #[test]
    fn an_alert_is_one_sentence_with_its_three_causes() {
        assert_eq!(
            note(&verdict(), "m-v2").note,
            "container app behaves unusually: score 0.971 (high) by m-v2 in 2 windows of 10 s; \
             openat 120/s (expected 3.25/s), connect 45/s (expected 0/s), execve 0.50/s (expected <0.01/s)"
        );
    }

    #[test]
    fn a_forecast_and_what_a_classifier_found_are_said_as_such() {
        let mut verdict = Verdict {
            estimator: "ETS".to_owned(),
            ..verdict()
        };
        verdict.drivers.truncate(1);
        verdict.drivers[0] = Driver {
            syscall: "calls".to_owned(),
            observed_per_second: 872.0,
            expected_per_second: 2331.0,
            forecast: true,
            ..Driver::default()
        };
        let said = note(&verdict, "m-v2").note;
        assert!(said.contains("(high) by ETS of m-v2 in"), "{said}");
        assert!(said.ends_with("; calls 872/s (forecast 2331/s)"), "{said}");
        verdict.estimator = "RandomForest".to_owned();
        verdict.class = "malicious".to_owned();
        let said = note(&verdict, "m-v2").note;
        assert!(said.contains("by RandomForest (malicious) of m-v2"), "{said}");
        verdict.class = "harmless".to_owned();
        let said = note(&verdict, "m-v2").note;
        assert!(said.contains("by RandomForest of m-v2"), "{said}");
    }

    #[test]
    fn alerts_of_two_models_are_told_apart() {
        assert_eq!(scored_by("web", "web-v2"), "web-v2");
        assert_eq!(scored_by("strict", "web-v2"), "web-v2 (Model strict)");
        assert_eq!(scored_by("web", "website-1"), "website-1 (Model web)");
        assert_eq!(scored_by("web", "web"), "web", "its version is not known");
    }

    fn of_sequences(calls: &[&str], seen: bool) -> Sequence {
        Sequence {
            calls: calls.iter().map(|name| (*name).to_owned()).collect(),
            times: 4,
            seen,
            surprise: Some(8.25),
        }
    }

    #[test]
    fn who_spoke_is_named_and_sequences_come_before_rates() {
        let mut verdict = Verdict {
            estimator: "Novelty".to_owned(),
            ..verdict()
        };
        let said = note(&verdict, "m-v2").note;
        assert!(said.contains("(high) by Novelty of m-v2 in 2 windows"), "{said}");
        verdict.estimator = "STIDE".to_owned();
        verdict.drivers.truncate(1);
        verdict.sequences = vec![
            of_sequences(&["clone", "execve", "brk"], false),
            of_sequences(&["read", "write"], true),
        ];
        assert_eq!(
            note(&verdict, "m-v2").note,
            "container app behaves unusually: score 0.971 (high) by STIDE of m-v2 in 2 windows of 10 s; \
             clone → execve → brk (never seen, 4 times), read → write (surprise 8.2, 4 times), \
             openat 120/s (expected 3.25/s)"
        );
        verdict.drivers.clear();
        verdict.sequences.clear();
        assert!(
            note(&verdict, "m")
                .note
                .ends_with("; no single system call stands out")
        );
    }

    #[test]
    fn a_metric_knows_the_estimators_that_there_are() {
        let named = |estimator: &str| {
            super::estimator(&Verdict {
                estimator: estimator.to_owned(),
                ..verdict()
            })
        };
        assert_eq!(
            ["NGram", "", "Oracle"].map(named),
            ["NGram", "unknown", "unknown"]
        );
    }

    #[test]
    fn causes_that_find_no_room_are_left_out_whole() {
        let long = of_sequences(&["x".repeat(500).as_str(); 6], false);
        let verdict = Verdict {
            container: "c".repeat(63),
            estimator: "e".repeat(500),
            sequences: vec![long; 3],
            ..verdict()
        };
        let said = note(&verdict, &"v".repeat(253)).note;
        assert!(said.len() <= NOTE_ROOM && said.ends_with(')'), "{said}");
        assert!(said.contains("never seen"), "{said}");
    }

    #[test]
    fn causes_are_whole_behind_the_words_of_a_pod_that_is_not_known() {
        let of = |before: usize| {
            let verdict = Verdict {
                container: "c".repeat(63),
                estimator: "STIDE".to_owned(),
                sequences: vec![of_sequences(&["x".repeat(20).as_str(); 6], false); 3],
                ..verdict()
            };
            note_after("r".repeat(before), &verdict, "m-v2").note
        };
        let all = of(0);
        let (head, _) = all.split_once("; ").expect("causes");
        for before in [0, 100, 300, 500] {
            let said = of(before);
            assert!(said.len() <= NOTE_ROOM, "{said}");
            let causes = &said[before + head.len()..];
            assert!(causes.ends_with(')') && causes.len() > 2, "{said}");
        }
    }

    proptest! {
        #[test]
        fn whatever_an_agent_sends_an_event_takes_it(
            estimator in any::<String>(),
            sequences in prop::collection::vec((prop::collection::vec(any::<String>(), 0..20), any::<u32>(), any::<bool>(), any::<Option<f64>>()), 0..8),
            rates in prop::collection::vec((any::<String>(), any::<f64>(), any::<f64>()), 0..8),
        ) {
            let sequences = sequences.into_iter().map(|(calls, times, seen, surprise)| Sequence { calls, times, seen, surprise });
            let drivers = rates.into_iter().map(|(syscall, observed_per_second, expected_per_second)| Driver {
                syscall,
                observed_per_second,
                expected_per_second,
                failed: observed_per_second > 1.0,
                forecast: expected_per_second > 1.0,
            });
            let hostile = Verdict {
                estimator,
                sequences: sequences.collect(),
                drivers: drivers.collect(),
                ..verdict()
            };
            let said = note(&hostile, "m-v2").note;
            prop_assert!(said.len() <= NOTE_ROOM);
            prop_assert!(said.chars().all(|c| c == '→' || c == ' ' || c.is_ascii_graphic()));
        }
    }

    #[test]
    fn an_alert_that_goes_on_is_one_whatever_it_is_about_at_the_moment() {
        let mut other = verdict();
        other.drivers.truncate(2);
        other.score = 0.99;
        assert_eq!(note(&verdict(), "a").key, note(&other, "b").key);
        other.window_start_unix_ms += 10_000;
        other.began_unix_ms = 7;
        let first = Verdict {
            began_unix_ms: 7,
            ..verdict()
        };
        assert_eq!(note(&first, "a").key, note(&other, "b").key, "it goes on");
        other.began_unix_ms = 8;
        assert_ne!(
            note(&first, "a").key,
            note(&other, "b").key,
            "the next alert has words of its own"
        );
        other.began_unix_ms = 7;
        other.drivers[0].syscall = "ptrace".to_owned();
        assert_eq!(note(&first, "a").key, note(&other, "b").key);
        other.severity = Grade::Low.into();
        assert_ne!(note(&first, "a").key, note(&other, "b").key, "it is less grave");
    }

    #[test]
    fn what_an_agent_sends_cannot_paint_a_terminal() {
        let mut hostile = verdict();
        hostile.drivers[0].syscall = format!("\u{1b}[2J{}", "x".repeat(500));
        hostile.drivers[1].observed_per_second = f64::NAN;
        hostile.window_ms = i64::MIN;
        let note = note(&hostile, "m").note;
        assert!(!note.contains('\u{1b}') && note.len() < 400, "{note}");
    }
}
