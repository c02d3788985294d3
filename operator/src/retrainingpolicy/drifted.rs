//! Drift as a Model's status shows it. Pure.
//!
//! The Model's controller owns the rest of that status; here only `drift` and the condition `Drifted` change.

use jiff::Timestamp;
use vigia_crds::conditions::{self, Wanted};
use vigia_crds::{DriftStatus, Model, ModelStatus};

use crate::observed::drift::{Drift, Threshold};

/// The condition.
pub const DRIFTED: &str = "Drifted";

/// The next status of a Model whose serving version drifts so, and whether that is news to people. `lost`:
/// the store has lost the version's artifact, and with it the scores of its validation.
pub fn status(
    model: &Model,
    drift: Option<&Drift>,
    lost: bool,
    threshold: &Threshold,
    now: Timestamp,
) -> (ModelStatus, Option<String>) {
    let current = model.status.clone().unwrap_or_default();
    let Some(serving) = current.serving.clone() else {
        return (current, None);
    };
    let mut next = current.clone();
    let wanted = match drift {
        None => {
            // Of another version: it says nothing of this one.
            next.drift = current.drift.clone().filter(|d| d.digest == serving.digest);
            if lost {
                let message = format!(
                    "the store has lost the artifact of {}, and with it the scores of its validation",
                    serving.name
                );
                Wanted::unknown(DRIFTED, "ArtifactLost", message)
            } else {
                let message = format!(
                    "{} has scored too few windows for an evaluation (at least {} each)",
                    serving.name, threshold.min_samples
                );
                Wanted::unknown(DRIFTED, "TooFewWindows", message)
            }
        }
        Some(drift) => {
            next.drift = Some(DriftStatus {
                digest: serving.digest.clone(),
                value: format!("{:.2}", drift.last.value),
                samples: power_of_two(drift.last.samples),
            });
            let numbers = format!(
                "{:?} {:.2}, threshold {}",
                threshold.metric, drift.last.value, threshold.above
            );
            if drift.drifted {
                let since = drift.since.map(|t| t.to_string()).unwrap_or_default();
                let message = format!(
                    "scores of {} have moved from those of its validation since {since} ({numbers})",
                    serving.name
                );
                Wanted::new(DRIFTED, true, "ScoresMoved", message)
            } else {
                Wanted::new(
                    DRIFTED,
                    false,
                    "ScoresAsValidated",
                    format!("{numbers}, {} in a row above", drift.row),
                )
            }
        }
    };
    let before = conditions::is_true(&current.conditions, DRIFTED);
    let news = (wanted.status == Some(true) && !before).then(|| wanted.message.clone());
    let generation = model.metadata.generation.unwrap_or(0);
    next.conditions = conditions::apply(&next.conditions, &[wanted], generation, now);
    (next, news)
}

fn power_of_two(n: u64) -> i64 {
    n.checked_ilog2().map_or(0, |log| 1i64 << log.min(62))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::drift::Evaluation;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn model() -> Model {
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "Model",
            "metadata": {"name": "m", "namespace": "shop", "generation": 3},
            "spec": {"task": "Anomaly"},
            "status": {"serving": {"name": "m-v1", "digest": "sha256:aa"}},
        }))
        .expect("a Model")
    }

    fn drift(value: f64, drifted: bool) -> Drift {
        Drift {
            last: Evaluation {
                start: at(50),
                samples: 700,
                value,
            },
            row: u32::from(drifted) * 3,
            since: drifted.then(|| at(40)),
            drifted,
        }
    }

    #[test]
    fn the_turn_is_news_once() {
        let threshold = Threshold::default();
        let mut model = model();
        let (calm, news) = status(&model, Some(&drift(0.02, false)), false, &threshold, at(100));
        assert_eq!(news, None);
        let seen = calm.drift.clone().expect("a value");
        assert_eq!((seen.value.as_str(), seen.samples), ("0.02", 512));
        model.status = Some(calm);
        let (moved, news) = status(&model, Some(&drift(0.6, true)), false, &threshold, at(110));
        assert!(news.is_some_and(|text| text.contains("since 1970")));
        assert!(conditions::is_true(&moved.conditions, DRIFTED));
        model.status = Some(moved.clone());
        assert_eq!(
            status(&model, Some(&drift(0.6, true)), false, &threshold, at(120)),
            (moved, None)
        );
    }

    #[test]
    fn a_new_version_begins_without_a_value() {
        let mut model = model();
        let (moved, _) = status(
            &model,
            Some(&drift(0.6, true)),
            false,
            &Threshold::default(),
            at(100),
        );
        model.status = Some(moved);
        model.status.as_mut().unwrap().serving.as_mut().unwrap().digest = "sha256:bb".into();
        let (fresh, _) = status(&model, None, false, &Threshold::default(), at(110));
        assert_eq!(fresh.drift, None);
        let (lost, _) = status(&model, None, true, &Threshold::default(), at(110));
        assert_eq!(
            conditions::find(&lost.conditions, DRIFTED).unwrap().reason,
            "ArtifactLost"
        );
        assert!(!conditions::is_true(&fresh.conditions, DRIFTED));
    }

    #[test]
    fn without_a_serving_version_nothing_is_said() {
        let mut model = model();
        model.status = None;
        assert_eq!(
            status(&model, None, false, &Threshold::default(), at(1)),
            (ModelStatus::default(), None)
        );
    }
}
