//! How far the serving version's scores have moved from those of its validation.
//!
//! Derived from what was observed, each time anew: nothing has to be remembered between two evaluations, so
//! a restart between them changes nothing. Time is cut into spans of the trigger's length; spans are put
//! together until there are enough windows, and each such piece is one evaluation. What is compared are
//! effect sizes, which do not grow with the number of windows.

use jiff::{SignedDuration, Timestamp};
use vigia_crds::{DriftMetric, DriftTrigger, RetrainingPolicy, decimal};
use vigia_model::histogram::{MIN_SAMPLES, ScoreHistogram};

use super::Observations;

/// A span is evaluated so long after its end: reports come a few seconds late.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// When scores have moved, in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What is compared.
    pub metric: DriftMetric,
    /// Moved above this.
    pub above: f64,
    /// Windows of one evaluation.
    pub min_samples: u64,
    /// Evaluations in a row.
    pub consecutive: u32,
    /// Length of one evaluation.
    pub every: SignedDuration,
}

impl Threshold {
    /// Of a policy's trigger; `None` where the text of `above` is no decimal, which the API server refuses.
    pub fn of(trigger: &DriftTrigger) -> Option<Self> {
        Some(Self {
            metric: trigger.metric,
            above: decimal(&trigger.above).ok()?,
            min_samples: u64::try_from(trigger.min_samples).unwrap_or(0).max(MIN_SAMPLES),
            consecutive: u32::try_from(trigger.consecutive).unwrap_or(1).max(1),
            every: SignedDuration::try_from(std::time::Duration::from(trigger.every)).ok()?,
        })
    }

    /// Of the policies of a Model, the one that acts first: the first that has a trigger, or the API's
    /// defaults, so that drift is seen also where nothing is done about it.
    pub fn of_policies<'a>(policies: impl IntoIterator<Item = &'a RetrainingPolicy>) -> Self {
        let mut policies = policies.into_iter();
        policies
            .find_map(|policy| Self::of(policy.spec.drift.as_ref()?))
            .unwrap_or_default()
    }

    fn distance(&self, validation: &ScoreHistogram, seen: &ScoreHistogram) -> Option<f64> {
        match self.metric {
            DriftMetric::JensenShannon => validation.jensen_shannon(seen),
            DriftMetric::PopulationStability => validation.psi(seen),
        }
    }
}

impl Default for Threshold {
    /// As the API's defaults.
    fn default() -> Self {
        Self {
            metric: DriftMetric::JensenShannon,
            above: 0.1,
            min_samples: 500,
            consecutive: 3,
            every: SignedDuration::from_mins(10),
        }
    }
}

/// One evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// When its first span began.
    pub start: Timestamp,
    /// Windows.
    pub samples: u64,
    /// The effect size.
    pub value: f64,
}

/// What the evaluations say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// The last one.
    pub last: Evaluation,
    /// Evaluations above the threshold without one below between them, up to now.
    pub row: u32,
    /// When the first of them began.
    pub since: Option<Timestamp>,
    /// There are as many as it takes.
    pub drifted: bool,
}

/// Evaluates a series of (start of span, scores), of spans that are over.
pub fn evaluate(
    series: &[(Timestamp, ScoreHistogram)],
    validation: &ScoreHistogram,
    threshold: &Threshold,
) -> Option<Drift> {
    let mut evaluations: Vec<Evaluation> = vec![];
    let mut gathered: Option<(Timestamp, ScoreHistogram)> = None;
    for (start, scores) in series {
        let (first, sum) = gathered.get_or_insert_with(|| (*start, ScoreHistogram::default()));
        sum.merge(scores);
        if sum.total() < threshold.min_samples {
            continue;
        }
        if let Some(value) = threshold.distance(validation, sum) {
            evaluations.push(Evaluation {
                start: *first,
                samples: sum.total(),
                value,
            });
        }
        gathered = None;
    }
    let last = *evaluations.last()?;
    let row: Vec<&Evaluation> = evaluations
        .iter()
        .rev()
        .take_while(|e| e.value > threshold.above)
        .collect();
    let count = u32::try_from(row.len()).unwrap_or(u32::MAX);
    Some(Drift {
        last,
        row: count,
        since: row.last().map(|e| e.start),
        drifted: count >= threshold.consecutive,
    })
}

/// Drift of a version, from its observed scores and the histogram of its validation
/// ([`vigia_model::pipeline::Pipeline::reference`]). `None` until there are enough windows.
pub fn of(
    observations: &Observations,
    (namespace, model, digest): (&str, &str, &str),
    validation: &ScoreHistogram,
    threshold: &Threshold,
    now: Timestamp,
) -> Option<Drift> {
    let every_ms = i64::try_from(threshold.every.as_millis()).ok()?.max(1);
    let over = now.checked_sub(SETTLE).ok()?.as_millisecond();
    let series: Vec<_> = observations
        .series(namespace, model, digest, every_ms)
        .into_iter()
        .filter(|(start, _)| start.saturating_add(every_ms) <= over)
        .filter_map(|(start, merged)| Some((Timestamp::from_millisecond(start).ok()?, merged.histogram)))
        .collect();
    evaluate(&series, validation, threshold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vigia_model::histogram::BINS;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number is a timestamp")
    }

    fn threshold() -> Threshold {
        Threshold {
            every: SignedDuration::from_secs(10),
            min_samples: 200,
            consecutive: 3,
            ..Threshold::default()
        }
    }

    fn flat(n: u64) -> ScoreHistogram {
        let mut h = ScoreHistogram::default();
        h.counts[..10].fill(n / 10);
        h
    }

    fn high(n: u64) -> ScoreHistogram {
        let mut h = ScoreHistogram::default();
        h.counts[BINS - 1] = n;
        h
    }

    fn run(spans: &[ScoreHistogram]) -> Option<Drift> {
        let series: Vec<_> = (0..).zip(spans).map(|(i, h)| (at(10 * i), h.clone())).collect();
        evaluate(&series, &flat(1000), &threshold())
    }

    #[test]
    fn it_takes_a_row_of_evaluations() {
        assert_eq!(run(&[]), None);
        let calm = run(&[flat(200), flat(200), flat(200)]).unwrap();
        assert_eq!((calm.row, calm.since, calm.drifted), (0, None, false));
        let two = run(&[flat(200), high(200), high(200)]).unwrap();
        assert_eq!((two.row, two.since, two.drifted), (2, Some(at(10)), false));
        let three = run(&[flat(200), high(200), high(200), high(200)]).unwrap();
        assert_eq!((three.row, three.since, three.drifted), (3, Some(at(10)), true));
        assert!(three.last.value > 0.9);
        let back = run(&[high(200), high(200), high(200), flat(200)]).unwrap();
        assert_eq!((back.row, back.drifted), (0, false));
    }

    #[test]
    fn few_windows_are_gathered_until_they_are_enough() {
        let drift = run(&[flat(200), high(90), high(90), high(90), high(90)]).unwrap();
        assert_eq!(
            (drift.row, drift.last.samples, drift.since),
            (1, 270, Some(at(10)))
        );
        assert_eq!(run(&[high(90)]), None);
    }

    #[test]
    fn a_span_counts_when_it_is_over_and_settled() {
        let observed = Observations::default();
        for start in [0i64, 10, 20, 30] {
            let summary = crate::store::Summary {
                namespace: "shop".into(),
                model: "m".into(),
                digest: "d".into(),
                node: "n".into(),
                start_ms: start * 1000,
                last_ms: start * 1000,
                windows: 200,
                above_threshold: 0,
                histogram: high(200).counts.to_vec(),
            };
            observed.add(&summary, at(40));
        }
        let row = |now| {
            let version = ("shop", "m", "d");
            of(&observed, version, &flat(1000), &threshold(), at(now)).map(|d| (d.row, d.drifted))
        };
        assert_eq!(row(14), None);
        assert_eq!(row(15), Some((1, false)));
        assert_eq!(row(44), Some((3, true)));
        assert_eq!(row(45), Some((4, true)));
    }

    proptest! {
        /// However often it is evaluated, and whatever came before: the row is that of the end.
        #[test]
        fn the_row_is_that_of_the_end(spans in prop::collection::vec(any::<bool>(), 1..30)) {
            let histograms: Vec<_> = spans.iter().map(|&up| if up { high(200) } else { flat(200) }).collect();
            let drift = run(&histograms).unwrap();
            let row = spans.iter().rev().take_while(|&&up| up).count();
            prop_assert_eq!(drift.row as usize, row);
            prop_assert_eq!(drift.drifted, row >= 3);
            prop_assert_eq!(drift.since.is_some(), row > 0);
        }
    }
}
