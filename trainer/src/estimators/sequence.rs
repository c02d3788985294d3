//! Fits the n-gram model, the repertoire, and both as one model, to runs of system calls.

use std::collections::{BTreeSet, HashMap, HashSet};

use vigia_model::estimators::ngram::{Call, Context, EMPTY, Gram, MAX_ORDER, NgramModel, followed, further};
use vigia_model::estimators::repertoire::{CALLS, CallSet, Repertoire};
use vigia_model::estimators::sequence::{Run, Scale, SequenceModel};

use super::EstimatorError;

/// Order of the n-gram model where none is asked for.
pub const ORDER: usize = 16;
/// Folds that the scales are measured over.
pub const FOLDS: usize = 10;
/// Smallest standard deviation of a view, so that runs that are all alike make a scale: a hundredth of a nat,
/// of a distance.
const LEAST_DEVIATION: f64 = 0.01;

/// Counts the n-grams of runs.
///
/// # Errors
/// An order outside 1 to [`MAX_ORDER`].
pub fn ngram<R: AsRef<[Call]>>(runs: &[R], order: usize) -> Result<NgramModel, EstimatorError> {
    if !(1..=MAX_ORDER).contains(&order) {
        return Err(EstimatorError::Setting(
            "order of the n-gram model: write 1 to 16",
        ));
    }
    let mut grams: HashMap<u64, u32> = HashMap::new();
    let mut contexts: HashMap<u64, (u32, u32)> = HashMap::new();
    let mut alphabet: HashSet<Call> = HashSet::new();
    for run in runs {
        let run = run.as_ref();
        for (i, &call) in run.iter().enumerate() {
            alphabet.insert(call);
            let mut key = EMPTY;
            for depth in 0..order.min(i + 1) {
                if depth > 0 {
                    key = further(key, run[i - depth]);
                }
                let count = grams.entry(followed(key, call)).or_default();
                let (total, distinct) = contexts.entry(key).or_default();
                *distinct += u32::from(*count == 0);
                *total = total.saturating_add(1);
                *count = count.saturating_add(1);
            }
        }
    }
    let mut contexts: Vec<Context> = contexts
        .into_iter()
        .map(|(key, (total, distinct))| Context { key, total, distinct })
        .collect();
    contexts.sort_unstable_by_key(|c| c.key);
    let mut grams: Vec<Gram> = grams
        .into_iter()
        .map(|(key, count)| Gram { key, count })
        .collect();
    grams.sort_unstable_by_key(|g| g.key);
    Ok(NgramModel {
        order: order as u32,
        alphabet: u32::try_from(alphabet.len()).unwrap_or(u32::MAX).max(1),
        contexts,
        grams,
    })
}

/// The distinct sets of calls of runs, in order, and how rare each call is: ln((n + 1) / (n of it + 1)) + 1 over n runs.
pub fn repertoire<R: AsRef<[Call]>>(runs: &[R]) -> Repertoire {
    let sets: Vec<CallSet> = runs
        .iter()
        .map(|r| r.as_ref().iter().copied().collect::<CallSet>())
        .filter(|s| !s.is_empty())
        .collect();
    let mut with = [0u32; CALLS];
    for call in sets.iter().flat_map(CallSet::calls) {
        with[call] += 1;
    }
    let all = sets.len() as f64 + 1.0;
    Repertoire {
        weights: with
            .iter()
            .map(|&n| (all / f64::from(n + 1)).ln() + 1.0)
            .collect(),
        sets: sets.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
    }
}

/// A model, and the scores of the training runs by models that had not seen them.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The model of all runs.
    pub model: SequenceModel,
    /// For each run its score by the model of the other folds: what to calibrate on.
    pub held_out: Vec<f64>,
}

/// Fits both views and their scales.
///
/// The scales come from [`FOLDS`] contiguous folds, not from random ones: runs that follow each other are
/// often of the same program, and a model that has seen the neighbour has seen too much.
///
/// # Errors
/// Fewer than two runs with calls in each fold, or an order out of range.
pub fn fit<R: AsRef<[Call]>>(runs: &[R], order: usize) -> Result<Fitted, EstimatorError> {
    let runs: Vec<&[Call]> = runs.iter().map(AsRef::as_ref).filter(|r| !r.is_empty()).collect();
    if runs.len() < 2 * FOLDS {
        return Err(EstimatorError::TooFew {
            estimator: "sequence model",
            least: 2 * FOLDS,
            unit: "runs",
            got: runs.len(),
        });
    }
    let (mut surprises, mut distances) = (Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let (from, to) = (runs.len() * fold / FOLDS, runs.len() * (fold + 1) / FOLDS);
        let others: Vec<&[Call]> = runs[..from].iter().chain(&runs[to..]).copied().collect();
        let model = unscaled(&others, order)?;
        for run in &runs[from..to] {
            let mut state = Run::default();
            for &call in *run {
                model.push(&mut state, call);
            }
            surprises.push(state.mean_surprise());
            distances.push(model.repertoire.distance(state.calls()));
        }
    }
    let (surprise, distance) = (scale(&surprises), scale(&distances));
    let held_out = surprises
        .iter()
        .zip(&distances)
        .map(|(&s, &d)| SequenceModel::both(&surprise, s, &distance, d))
        .collect();
    let model = SequenceModel {
        surprise,
        distance,
        ..unscaled(&runs, order)?
    };
    Ok(Fitted { model, held_out })
}

fn unscaled(runs: &[&[Call]], order: usize) -> Result<SequenceModel, EstimatorError> {
    let unit = Scale {
        mean: 0.0,
        deviation: 1.0,
    };
    Ok(SequenceModel {
        ngram: ngram(runs, order)?,
        repertoire: repertoire(runs),
        surprise: unit,
        distance: unit,
    })
}

fn scale(values: &[f64]) -> Scale {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    Scale {
        mean,
        deviation: variance.sqrt().max(LEAST_DEVIATION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs() -> impl Strategy<Value = Vec<Vec<Call>>> {
        prop::collection::vec(prop::collection::vec(0u16..8, 1..30), 20..40)
    }

    #[test]
    fn a_run_in_wrong_order_scores_higher_than_one_in_order() {
        let cycle = |n: usize| (0..n).map(|i| (i % 5) as Call).collect::<Vec<_>>();
        let normal: Vec<Vec<Call>> = (0..40).map(|i| cycle(50 + i)).collect();
        let fitted = fit(&normal, 6).expect("enough runs");
        assert_eq!(fitted.model.check(), Ok(()));
        let mut shuffled = cycle(60);
        for i in 0..59 {
            shuffled.swap(i, (i * 37 + 11) % 60);
        }
        assert!(fitted.model.score_run(&shuffled) > fitted.model.score_run(&cycle(60)) + 1.0);
        let strange: Vec<Call> = (100..160).collect();
        assert!(fitted.model.score_run(&strange) > fitted.model.score_run(&shuffled));
    }

    #[test]
    fn a_loop_that_training_never_saw_surprises_once() {
        let normal: Vec<Vec<Call>> = (0..40).map(|i| (0..50 + i).map(|c| c % 5).collect()).collect();
        let model = fit(&normal, 6).expect("enough runs").model;
        let surprise = |times: usize| {
            let mut run = Run::default();
            let odd = [4, 2, 0, 9, 1, 3, 1];
            odd.repeat(times)
                .iter()
                .map(|&call| model.push(&mut run, call))
                .sum::<f64>()
        };
        assert!(surprise(1) > 1.0);
        assert!(
            surprise(5) > surprise(1),
            "the way from its end to its start is new, too"
        );
        assert_eq!(surprise(5), surprise(50));
    }

    #[test]
    fn too_few_runs_are_refused() {
        assert!(fit(&vec![vec![1u16]; 19], 3).is_err());
        assert!(fit(&vec![vec![]; 100] as &[Vec<Call>], 3).is_err());
        assert!(fit(&vec![vec![1u16]; 30], 0).is_err());
        assert!(fit(&vec![vec![1u16]; 30], 17).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_fitted_passes_its_own_check(runs in runs(), order in 1usize..6) {
            let fitted = fit(&runs, order).expect("enough runs");
            prop_assert_eq!(fitted.model.check(), Ok(()));
            prop_assert!(fitted.held_out.iter().all(|s| s.is_finite()));
        }

        #[test]
        fn counts_add_up(runs in runs(), order in 1usize..6) {
            let model = ngram(&runs, order).expect("order in range");
            let calls: usize = runs.iter().map(Vec::len).sum();
            let empty = model.contexts.iter().find(|c| c.key == EMPTY).expect("some calls");
            prop_assert_eq!(empty.total as usize, calls);
            prop_assert_eq!(empty.distinct, model.alphabet);
            let totals: u64 = model.contexts.iter().map(|c| u64::from(c.total)).sum();
            let counts: u64 = model.grams.iter().map(|g| u64::from(g.count)).sum();
            prop_assert_eq!(totals, counts);
        }

        #[test]
        fn the_order_of_runs_does_not_matter_to_the_counts(mut runs in runs()) {
            let forth = ngram(&runs, 4);
            runs.reverse();
            prop_assert_eq!(forth, ngram(&runs, 4));
        }

        #[test]
        fn training_runs_surprise_less_than_unseen_calls(runs in runs(), pick in any::<prop::sample::Index>()) {
            let model = fit(&runs, 4).expect("enough runs").model;
            let run = pick.get(&runs);
            let moved: Vec<Call> = run.iter().map(|c| c + 50).collect();
            prop_assert!(model.score_run(run) < model.score_run(&moved));
        }

        #[test]
        fn a_streamed_run_scores_like_a_whole_one(runs in runs(), pick in any::<prop::sample::Index>()) {
            let model = fit(&runs, 4).expect("enough runs").model;
            let run = pick.get(&runs);
            let mut state = Run::default();
            for &c in run {
                model.push(&mut state, c);
            }
            prop_assert_eq!(model.score(&state), model.score_run(run));
        }
    }
}
