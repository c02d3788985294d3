//! Whether windows carry what a run's estimators look at, asked before there is a Job: what fails for want of it would
//! fail in a pod whatever is tried again. Pure.

use vigia_crds::EstimatorType;
use vigia_model::calibration::MIN_HOLDOUT;
use vigia_model::context::Context;
use vigia_model::estimators::rate::LEAST_PAST;

use super::data::kind_of;
use crate::store::Row;

/// Why an estimator of these cannot be trained: a reason and a sentence.
pub(super) fn why(
    types: &[EstimatorType],
    holdout: &[Row],
    profiles: &[String],
) -> Option<(&'static str, String)> {
    types.iter().find_map(|kind| {
        let carries: fn(&Context) -> bool = match kind_of(*kind) {
            kind if kind.is_order() => |context| !context.grams().is_empty(),
            kind if kind.is_rate() => |context| context.past().len() >= LEAST_PAST,
            _ => return None,
        };
        let known = holdout.iter().filter(|row| carries(&row.context)).count();
        (known < MIN_HOLDOUT).then(|| said(*kind, known, holdout.len(), profiles))
    })
}

fn said(kind: EstimatorType, known: usize, of: usize, profiles: &[String]) -> (&'static str, String) {
    let named = profiles.join(", ");
    let kind = kind_of(kind);
    let name = kind.api_name();
    let (reason, what, more) = if kind.is_order() {
        (
            "TooFewSequences",
            "which call follows which".to_owned(),
            format!(
                "write capture.mode Sampled or Full in TraceProfile {named} and start another run once windows were counted so"
            ),
        )
    } else {
        (
            "TooFewPastWindows",
            format!("the {LEAST_PAST} windows before each"),
            format!("start another run once containers of TraceProfile {named} have run for longer"),
        )
    };
    let message = format!(
        "{name} looks at {what}; {known} of the {of} windows held out carry that, and {MIN_HOLDOUT} must: {more}, or leave {name} out of spec.estimator.types"
    );
    (reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_model::context::{Gram, MAX_PAST};

    fn rows(with_grams: usize, with_past: usize, of: usize) -> Vec<Row> {
        let row = |i: usize| Row {
            namespace: "shop".into(),
            profile: "redis".into(),
            source: 1,
            start_ms: i as i64,
            window_ms: 2000,
            schema: "s".into(),
            features: vec![],
            above_threshold: false,
            unscored: false,
            capture: "all".into(),
            context: {
                let grams = (i < with_grams).then_some(Gram { id: 0x0203, count: 1 });
                let past = vec![1.0; if i < with_past { MAX_PAST } else { LEAST_PAST - 1 }];
                Context::new(grams.into_iter().collect(), past).expect("a context")
            },
        };
        (0..of).map(row).collect()
    }

    fn said(types: &[EstimatorType], rows: &[Row]) -> Option<(&'static str, String)> {
        why(types, rows, &["redis".to_owned(), "web".to_owned()])
    }

    #[test]
    fn who_looks_at_what_no_window_carries_is_named_with_what_to_do() {
        use EstimatorType::{Arima, Deviation, Ets, Ngram, Stide};
        let (reason, message) = said(&[Deviation, Stide, Ngram], &rows(24, 40, 40)).expect("refused");
        assert_eq!(reason, "TooFewSequences");
        assert_eq!(
            message,
            "STIDE looks at which call follows which; 24 of the 40 windows held out carry that, and 25 must: write \
             capture.mode Sampled or Full in TraceProfile redis, web and start another run once windows were counted \
             so, or leave STIDE out of spec.estimator.types"
        );
        assert_eq!(said(&[Deviation, Stide, Ngram], &rows(25, 0, 40)), None);
        for kind in [Ets, Arima] {
            let (reason, message) = said(&[kind], &rows(40, 3, 40)).expect("refused");
            assert_eq!(reason, "TooFewPastWindows");
            assert!(
                message.contains("the 8 windows before each; 3 of the 40"),
                "{message}"
            );
            assert_eq!(said(&[kind], &rows(0, 25, 40)), None);
        }
    }

    #[test]
    fn who_looks_at_counts_alone_is_never_refused() {
        let all = [
            EstimatorType::Deviation,
            EstimatorType::Novelty,
            EstimatorType::Autoencoder,
        ];
        assert_eq!(said(&all, &rows(0, 0, 40)), None);
        assert_eq!(said(&[], &[]), None);
    }
}
