//! Fits forecasts of rates to windows that know the windows before them.
//!
//! Every window is an example of its own: its rate, and the rates before it. So examples may be drawn, sharded and
//! mixed like any others, where series would have to be whole.

use nalgebra::{Cholesky, DMatrix, DVector};
use vigia_model::context::MAX_PAST;
use vigia_model::estimators::rate::{Arima, Ets, Forecast, MAX_CONSTANT, MAX_LAGS, MAX_WEIGHT};
use vigia_model::estimators::table::Table;

use super::EstimatorError;
use crate::data::Rows;

/// Values of an example: a rate, and those before it, the latest first.
pub const EXAMPLE: usize = 1 + MAX_PAST;
/// Fewest examples.
pub const LEAST: usize = 50;
/// Examples that smoothing is fitted to: it is tried with hundreds of parameters.
const TRIED: usize = 2_048;
/// By how much the likelihood of an autoregression of rates must exceed that of one of their changes, which is the same with
/// a root of one (twice its logarithm): in one of twenty series that wander it does so by chance (Dickey and Fuller, JASA
/// 74, 1979: 2.86 squared).
const UNIT_ROOT: f64 = 8.2;
/// Ridge, as a share of the mean square of what is regressed on.
const RIDGE: f64 = 1e-9;

/// The windows before which enough others are known.
pub fn examples(rows: &Rows) -> Table {
    let total = rows.schema().total();
    let mut values = Vec::new();
    for (i, context) in rows.contexts().iter().enumerate() {
        if context.past().len() == MAX_PAST {
            values.push(rows.row(i)[total]);
            values.extend_from_slice(context.past());
        }
    }
    Table::new(EXAMPLE, values)
}

fn enough(estimator: &'static str, examples: &Table) -> Result<(), EstimatorError> {
    if examples.width() != EXAMPLE || examples.values().iter().any(|x| !x.is_finite()) {
        return Err(EstimatorError::Shape(estimator));
    }
    if examples.len() < LEAST {
        return Err(EstimatorError::TooFew {
            estimator,
            least: LEAST,
            unit: "windows of containers that ran for 32 windows before",
            got: examples.len(),
        });
    }
    Ok(())
}

/// Sum of squared errors.
fn loss<'a>(forecast: &Forecast, examples: impl Iterator<Item = &'a [f32]>) -> f64 {
    examples
        .map(|example| {
            let expected = forecast.next(&example[1..]).unwrap_or(example[1]);
            f64::from(example[0] - expected).powi(2)
        })
        .sum()
}

/// Smoothing with the least squared error: the best of a grid, and from there in steps that halve.
///
/// # Errors
/// Too few examples, or of another shape.
pub fn ets(examples: &Table) -> Result<Ets, EstimatorError> {
    enough(Ets::NAME, examples)?;
    // Evenly spread, so that no container is left out.
    let step = examples.len().div_ceil(TRIED);
    let of = |[level, share, damping]: [f32; 3]| Ets {
        level,
        trend: level * share,
        damping,
    };
    // Smoothing moves with the level: measured from one of the values, rounding is the same wherever that is.
    let base = examples.row(0)[0];
    let width = examples.width();
    let tried = examples.rows().step_by(step).flatten().map(|x| x - base);
    let tried = Table::new(width, tried.collect());
    let loss = |at| loss(&Forecast::Ets(of(at)), tried.rows());
    let mut best = ([1.0, 0.0, 0.0], f64::INFINITY);
    for level in [0.05, 0.15, 0.3, 0.5, 0.75, 1.0] {
        for (share, damping) in [
            (0.0, 0.0),
            (0.05, 0.8),
            (0.05, 0.95),
            (0.3, 0.8),
            (0.3, 0.95),
            (1.0, 0.9),
        ] {
            let at = [level, share, damping];
            let loss = loss(at);
            if loss < best.1 {
                best = (at, loss);
            }
        }
    }
    let mut by = 0.1;
    while by > 1e-3 {
        let before = best.1;
        for place in 0..3 {
            for step in [by, -by] {
                let mut at = best.0;
                at[place] = (at[place] + step).clamp(0.0, 1.0);
                let loss = loss(at);
                if loss < best.1 {
                    best = (at, loss);
                }
            }
        }
        if best.1 >= before {
            by /= 2.0;
        }
    }
    Ok(of(best.0))
}

/// The autoregression, of rates or of their changes, with the least of Akaike's criterion (IEEE Trans. Automatic
/// Control 19, 1974), by conditional least squares. What one lag more may cost is another thing between the two: rates that
/// wander are forecast from a level that they have left long ago otherwise.
///
/// # Errors
/// Too few examples, or of another shape.
pub fn arima(examples: &Table) -> Result<Arima, EstimatorError> {
    enough(Arima::NAME, examples)?;
    let count = examples.len() as f64;
    let mut best: Option<(f64, Arima)> = None;
    for differenced in [true, false] {
        for lags in 0..=MAX_LAGS {
            let Some(model) = regression(examples, differenced, lags) else {
                continue;
            };
            let loss = loss(&Forecast::Arima(model.clone()), examples.rows());
            // A change takes one lag more of the rates than there are of changes.
            let penalty = if differenced { 2.0 } else { UNIT_ROOT };
            let criterion = count * (loss / count).max(1e-12).ln() + 2.0 * (lags + 1) as f64 + penalty;
            if best.as_ref().is_none_or(|(least, _)| criterion < *least) {
                best = Some((criterion, model));
            }
        }
    }
    best.map(|(_, model)| model)
        .ok_or(EstimatorError::Singular(Arima::NAME))
}

/// The regression with so many lags.
pub fn regression(examples: &Table, differenced: bool, lags: usize) -> Option<Arima> {
    let terms = |example: &[f32]| -> (f64, Vec<f64>) {
        let at = |i: usize| f64::from(example[i]);
        if differenced {
            let changes = (0..lags).map(|lag| at(lag + 1) - at(lag + 2));
            (at(0) - at(1), changes.collect())
        } else {
            (at(0), (0..lags).map(|lag| at(lag + 1)).collect())
        }
    };
    let count = examples.len() as f64;
    let mut means = DVector::zeros(lags);
    let mut mean = 0.0;
    for (y, x) in examples.rows().map(terms) {
        mean += y / count;
        means += DVector::from_vec(x) / count;
    }
    let mut gram = DMatrix::zeros(lags, lags);
    let mut moment = DVector::zeros(lags);
    for (y, x) in examples.rows().map(terms) {
        let x = DVector::from_vec(x) - &means;
        gram.syger(1.0, &x, &x, 1.0);
        moment.axpy(y - mean, &x, 1.0);
    }
    let ridge = RIDGE * gram.trace() / lags.max(1) as f64 + f64::MIN_POSITIVE;
    for i in 0..lags {
        gram[(i, i)] += ridge;
    }
    let weights = Cholesky::new(gram)?.solve(&moment);
    let constant = mean - weights.dot(&means);
    let single = |x: f64, bound: f32| (x as f32).clamp(-bound, bound);
    let finite = constant.is_finite() && weights.iter().all(|w| w.is_finite());
    finite.then(|| Arima {
        differenced,
        constant: single(constant, MAX_CONSTANT),
        weights: weights.iter().map(|&x| single(x, MAX_WEIGHT)).collect(),
    })
}
