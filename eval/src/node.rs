//! What a node would say: the evaluation data as windows, a model trained and written as the product does it, and the
//! agents' rule over what its pipeline scores.
//!
//! Nothing is chosen here: trees, seed, share held out and windows in a row are the product's defaults. The data has no
//! clock where its calls have an order, so a call is taken to come every hundredth of a second, which makes a window of the
//! default length hold 1,000 of them: most traces of programs are one window then, as most programs are over in ten seconds.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use vigia_model::artifact::{Reader, Task};
use vigia_model::calibration::MIN_HOLDOUT;
use vigia_model::context::{Context, ORDER, Past};
use vigia_model::estimators::ngram::Call;
use vigia_model::estimators::rate::{Arima, Ets, Forecast};
use vigia_model::pipeline::{EstimatorKind, EstimatorSpec, MemberSpec, Pipeline, Scratch};
use vigia_model::schema::{Schema, to_rate};
use vigia_model::syscalls::{Arch, IA32};
use vigia_model::window::{Calls, Window};
use vigia_trainer::data::{About, Rows};
use vigia_trainer::fit::{self, Params};

/// Length of a window where a profile says nothing.
const WINDOW_MS: u32 = 10_000;
/// Calls in a window of that length.
const CALLS: usize = 1000;
const MS_A_CALL: u32 = WINDOW_MS / CALLS as u32;
/// How much rarer than the budget a window must be that is told alone.
const ALONE: f64 = 10.0;
/// Share of the windows that is held out of training.
const HELD_OUT: f64 = 0.2;

/// A window and what else is known of it.
pub type Observed = (Window, Context);

/// The windows of a run of i386 calls, all about equally long.
pub fn windows(calls: &[Call]) -> Vec<Observed> {
    let parts = (calls.len() / CALLS).max(1);
    let number = |call: &Call| IA32 | u32::from(*call);
    let part = |i: usize| {
        let (start, end) = (calls.len() * i / parts, calls.len() * (i + 1) / parts);
        let counted = calls[start..end].iter().map(|call| Calls {
            nr: number(call),
            count: 1,
            errors: 0,
        });
        let window = Window::new(Arch::X86_64, 0, (end - start) as u32 * MS_A_CALL, counted);
        // The first call of a window follows the last of the one before.
        let sequences = (start.max(1)..end).map(|last| {
            let calls = &calls[(last + 1).saturating_sub(ORDER)..=last];
            (calls.iter().map(number), 1)
        });
        let mut context = Context::default();
        context.observe(Schema::syscalls_v1(), Arch::X86_64, sequences, &Past::default());
        (window, context)
    };
    (0..parts)
        .map(part)
        .filter(|(window, _)| window.duration_ms > 0)
        .collect()
}

/// No sequences.
const NONE: [([u32; 0], u64); 0] = [];
/// Calls that a load of 1 is taken to be: so many that what is rounded is nothing.
const FULL_LOAD: f64 = 1e6;

/// A series of loads as the windows of a container whose rate of calls they are.
pub fn loads(series: &[f64]) -> Vec<Observed> {
    let mut past = Past::default();
    let schema = Schema::syscalls_v1();
    let window = |load: &f64| {
        let calls = Calls {
            nr: 0,
            count: (load * FULL_LOAD) as u64,
            errors: 0,
        };
        let window = Window::new(Arch::X86_64, 0, WINDOW_MS, [calls]);
        let mut context = Context::default();
        context.observe(schema, Arch::X86_64, NONE, &past);
        past.push(&window);
        (window, context)
    };
    series.iter().map(window).collect()
}

/// The load of a window as an artifact's forecaster expects it from the windows before.
pub fn expected_load(forecast: &Forecast, context: &Context) -> Option<f64> {
    let rate = to_rate(forecast.next(context.past())?);
    Some(rate * f64::from(WINDOW_MS) / 1000.0 / FULL_LOAD)
}

/// A model of windows in the order of time, written as an artifact and read again.
pub struct Model {
    bytes: Vec<u8>,
}

impl Model {
    /// Trains `kinds`.
    ///
    /// # Errors
    /// Windows that make no model.
    pub fn train(windows: impl IntoIterator<Item = Observed>, kinds: &[EstimatorKind]) -> Result<Self> {
        let schema = Schema::syscalls_v1();
        let mut rows = Rows::new(schema);
        let mut vector = vec![0.0; schema.width()];
        for (started_ms, (window, context)) in (0..).step_by(WINDOW_MS as usize).zip(windows) {
            schema.vector(&window, &mut vector)?;
            let about = About {
                started_ms,
                window_ms: window.duration_ms,
                ..About::default()
            };
            rows.push_within(&vector, about, context)?;
        }
        let params = Params {
            name: "eval".to_owned(),
            estimators: kinds.to_vec(),
            components: None,
            trees: 100,
            sample_size: 256,
            seed: 42,
            workers: 1,
            created_at: "1970-01-01T00:00:00Z".to_owned(),
            data_digest: String::new(),
            captures: vec![],
        };
        let held = ((rows.len() as f64 * HELD_OUT) as usize).max(MIN_HOLDOUT);
        anyhow::ensure!(
            rows.len() >= 2 * held,
            "{} windows are too few to train on",
            rows.len()
        );
        let (shard, holdout) = rows.hold_out(held, params.seed);
        let part = fit::fit(&shard, &params, 0)?;
        let trained = fit::combine(vec![part], &params, &holdout, &[])?;
        Ok(Self {
            bytes: trained.artifact,
        })
    }

    /// What a node scores with.
    ///
    /// # Errors
    /// What was written cannot be read.
    pub fn pipeline(&self) -> Result<Pipeline> {
        let artifact = Reader::unsigned().open(&self.bytes, Task::Anomaly);
        Ok(artifact.context("opening the artifact just made")?.pipeline)
    }

    /// The forecasters that the artifact carries, by name.
    ///
    /// # Errors
    /// What was written cannot be read.
    pub fn forecasters(&self) -> Result<BTreeMap<&'static str, Forecast>> {
        let read = Reader::unsigned().spec(&self.bytes, Task::Anomaly);
        let (_, spec) = read.context("reading the artifact just made")?;
        let forecaster = |member: MemberSpec| match member.estimator {
            EstimatorSpec::Ets(ets) => Some((Ets::NAME, Forecast::Ets(ets))),
            EstimatorSpec::Arima(arima) => Some((Arima::NAME, Forecast::Arima(arima))),
            _ => None,
        };
        Ok(spec.members.into_iter().filter_map(forecaster).collect())
    }
}

/// How rare a run is by the agents' rule: −ln of the smallest share of normal windows that an alert budget must allow
/// for it to be told of. That is two windows in a row within the share, or one ten times rarer. A share above 1 is no budget,
/// but ranks runs that no budget tells of.
///
/// # Errors
/// A window that cannot be scored.
pub fn rarity(pipeline: &Pipeline, run: &[Observed]) -> Result<f64> {
    Ok(-told_from(&p_values(pipeline, run)?).ln())
}

/// How rare each of these windows is.
///
/// # Errors
/// A window that cannot be scored.
pub fn p_values(
    pipeline: &Pipeline,
    windows: impl IntoIterator<Item = impl std::borrow::Borrow<Observed>>,
) -> Result<Vec<f64>> {
    let mut scratch = Scratch::default();
    let mut p_value = |observed: &Observed| {
        let (window, context) = observed;
        Ok(pipeline.score_within(window, context, &mut scratch)?.p_value)
    };
    windows.into_iter().map(|one| p_value(one.borrow())).collect()
}

fn told_from(p_values: &[f64]) -> f64 {
    let alone = p_values.iter().map(|p| p * ALONE);
    let in_a_row = p_values.windows(2).map(|two| two[0].max(two[1]));
    alone.chain(in_a_row).fold(ALONE, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_model::budget::{Pool, Rule, Scored, Stream};
    use vigia_model::calibration::{AlertBudget, calibrated};

    #[test]
    fn windows_share_out_all_calls_and_sequences() {
        for n in [0usize, 1, 999, 1000, 2500, 10_000] {
            let calls: Vec<Call> = (0..n).map(|i| (3 + i % 3) as Call).collect();
            let windows = windows(&calls);
            let sum: u64 = windows.iter().map(|(window, _)| window.total()).sum();
            assert_eq!(sum, n as u64);
            let sequences = windows.iter().flat_map(|(_, context)| context.grams());
            assert_eq!(
                sequences.map(|s| s.count as usize).sum::<usize>(),
                n.saturating_sub(1)
            );
            assert!(
                windows
                    .iter()
                    .all(|(window, _)| n < CALLS || window.total() >= CALLS as u64)
            );
        }
    }

    #[test]
    fn a_run_is_told_from_the_share_on_that_the_agents_rule_tells_it() {
        for p_values in [
            vec![1e-3, 0.5, 2e-2, 3e-2, 0.9],
            vec![1e-4, 0.5, 2e-2, 3e-2, 0.9],
            vec![0.04],
            vec![0.02, 0.01, 0.3],
        ] {
            let from = told_from(&p_values);
            for (share, told) in [(from * 1.01, true), (from * 0.99, false)] {
                let budget = AlertBudget {
                    count: share,
                    period_s: 1.0,
                    containers: 1.0,
                };
                let rule = Rule::new(&budget, 1.0, 2);
                let (mut stream, mut pool) = (Stream::fresh(&rule), Pool::new(1));
                let alert = p_values.iter().any(|&p| {
                    let window = Scored {
                        p,
                        score: calibrated(p),
                        counts: true,
                        settled: true,
                        started_ms: 0,
                    };
                    stream.window(&rule, &mut pool, &window).is_alert()
                });
                assert_eq!(alert, told, "{p_values:?} at {share}");
            }
        }
    }

    #[test]
    fn a_steady_load_is_expected_as_it_is() {
        let series: Vec<f64> = (0..300).map(|i| 0.4 + f64::from(i % 2) * 1e-3).collect();
        let kinds = [EstimatorKind::Ets, EstimatorKind::Arima];
        let model = Model::train(loads(&series), &kinds).expect("trains");
        let forecasters = model.forecasters().expect("reads");
        assert_eq!(forecasters.len(), 2);
        let windows = loads(&series);
        for forecast in forecasters.values() {
            let load = expected_load(forecast, &windows[299].1).expect("enough came before");
            assert!((load - 0.4).abs() < 2e-3, "{load}");
            assert_eq!(expected_load(forecast, &windows[3].1), None);
        }
    }

    #[test]
    fn what_training_never_saw_is_rarer_than_what_it_saw() {
        let run = |of: [Call; 3], n: usize| -> Vec<Call> { (0..n).map(|i| of[(i + i / 7) % 3]).collect() };
        let normal = (0..60).flat_map(|i| windows(&run([3, 4, 5], 3000 + 100 * i)));
        let kinds = [EstimatorKind::Novelty, EstimatorKind::Ngram, EstimatorKind::Stide];
        let pipeline = Model::train(normal, &kinds)
            .expect("trains")
            .pipeline()
            .expect("opens");
        let rarity = |of| rarity(&pipeline, &windows(&run(of, 4000))).expect("scores");
        assert!(rarity([11, 102, 63]) > rarity([3, 4, 5]) + 1.0);
        assert!(Model::train(windows(&run([3, 4, 5], 9000)), &kinds).is_err());
    }
}
