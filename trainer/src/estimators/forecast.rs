//! Fits the direct forecaster by least absolute deviations.
//!
//! Forecasts of load are judged by their mean absolute error, which the conditional median makes smallest;
//! and bursts of load, which least squares would chase, have a bounded pull. The fit is iteratively
//! reweighted least squares (Schlossmacher, JASA 68, 1973).

use nalgebra::{Cholesky, SMatrix, SVector};
use vigia_model::estimators::forecast::{FEATURES, Forecaster, Horizon, MAX_HORIZONS, Past};

use super::EstimatorError;

const NAME: &str = "forecaster";
/// Values left out at the beginning, where the windows are not filled.
const WARM_UP: usize = 24;
/// Fewest examples for each horizon.
pub const MIN_EXAMPLES: usize = 10 * FEATURES;
const ROUNDS: usize = 40;
/// Ridge, as a share of the features' mean square.
const RIDGE: f64 = 1e-9;
/// Residuals below this share of the mean absolute one count as that, or they would weigh infinitely.
const LEAST_RESIDUAL: f64 = 1e-3;

/// Fits one set of weights for each horizon to a series, in time order. Values that are not finite count as
/// the last one again.
///
/// # Errors
/// Too short a series, or horizons out of range.
pub fn fit(values: &[f64], horizons: &[u32]) -> Result<Forecaster, EstimatorError> {
    fit_from(values, WARM_UP, horizons)
}

/// As [`fit`], to forecasts that are made at the `from`th value or later; they look back as far as there are values.
///
/// # Errors
/// As [`fit`].
pub fn fit_from(values: &[f64], from: usize, horizons: &[u32]) -> Result<Forecaster, EstimatorError> {
    if horizons.is_empty() || horizons.len() > MAX_HORIZONS || horizons.contains(&0) {
        return Err(EstimatorError::Setting(
            "forecaster: write 1 to 64 horizons above 0",
        ));
    }
    let from = from.max(WARM_UP);
    let mut past = Past::default();
    let examples: Vec<(f64, SVector<f64, FEATURES>)> = values
        .iter()
        .map(|&v| {
            past.push(v);
            (past.back(0), SVector::from(past.features()))
        })
        .collect();
    let horizons = horizons
        .iter()
        .map(|&steps| {
            let weights = horizon(&examples, from, steps as usize)?;
            Ok(Horizon { steps, weights })
        })
        .collect::<Result<_, _>>()?;
    Ok(Forecaster { horizons })
}

fn horizon(
    examples: &[(f64, SVector<f64, FEATURES>)],
    from: usize,
    steps: usize,
) -> Result<[f64; FEATURES], EstimatorError> {
    let usable = examples.len().saturating_sub(from.saturating_add(steps));
    if usable < MIN_EXAMPLES {
        return Err(EstimatorError::TooFew {
            estimator: NAME,
            least: from.saturating_add(MIN_EXAMPLES + steps),
            unit: "values",
            got: examples.len(),
        });
    }
    let pairs = || {
        examples[from..from + usable]
            .iter()
            .zip(&examples[from + steps..])
            .map(|((now, features), (then, _))| (features, then - now))
    };
    let spread = pairs().map(|(_, y)| y.abs()).sum::<f64>() / usable as f64;
    let least = (LEAST_RESIDUAL * spread).max(f64::MIN_POSITIVE);
    let mut weights = SVector::<f64, FEATURES>::zeros();
    for round in 0..ROUNDS {
        let mut gram = SMatrix::<f64, FEATURES, FEATURES>::zeros();
        let mut moment = SVector::<f64, FEATURES>::zeros();
        for (x, y) in pairs() {
            // The first round is plain least squares.
            let weight = if round == 0 {
                1.0
            } else {
                1.0 / (y - x.dot(&weights)).abs().max(least)
            };
            gram.syger(weight, x, x, 1.0);
            moment.axpy(weight * y, x, 1.0);
        }
        let ridge = RIDGE * gram.trace() / FEATURES as f64 + f64::MIN_POSITIVE;
        for j in 0..FEATURES {
            gram[(j, j)] += ridge;
        }
        let Some(solved) = Cholesky::new(gram).map(|c| c.solve(&moment)) else {
            // A constant series has nothing to solve: it is forecast as its last value.
            break;
        };
        if !solved.iter().all(|w| w.is_finite()) {
            break;
        }
        let moved = (solved - weights).amax();
        weights = solved;
        if moved < 1e-7 {
            break;
        }
    }
    Ok(weights.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(i: usize) -> f64 {
        ((i * 7919 + i * i * 31) % 1009) as f64 / 1009.0 - 0.5
    }

    fn error(forecaster: &Forecaster, series: &[f64], steps: u32, from: usize) -> (f64, f64) {
        let (mut past, mut ours, mut last, mut n) = (Past::default(), 0.0, 0.0, 0.0);
        for (i, &v) in series.iter().enumerate() {
            past.push(v);
            if let Some(then) = series.get(i + steps as usize).filter(|_| i >= from) {
                ours += (forecaster.forecast(&past, steps) - then).abs();
                last += (v - then).abs();
                n += 1.0;
            }
        }
        (ours / n, last / n)
    }

    #[test]
    fn a_mean_reverting_series_is_forecast_better_than_by_its_last_value() {
        let mut series = vec![0.0];
        for i in 1..4000 {
            series.push(0.5 * series[i - 1] + noise(i));
        }
        let f = fit(&series[..3000], &[1, 12]).expect("long enough");
        assert_eq!(f.check(), Ok(()));
        for steps in [1, 12] {
            let (ours, last) = error(&f, &series, steps, 3000);
            assert!(ours < 0.9 * last, "{steps}: {ours} {last}");
        }
    }

    #[test]
    fn a_fit_to_the_end_of_a_series_is_the_better_one_there() {
        let mut series = vec![0.0];
        for i in 1..4000 {
            let weight = if i < 3000 { 0.2 } else { 0.9 };
            series.push(weight * series[i - 1] + noise(i));
        }
        let all = error(&fit(&series, &[1]).expect("long enough"), &series, 1, 3000).0;
        let end = error(
            &fit_from(&series, 3000, &[1]).expect("long enough"),
            &series,
            1,
            3000,
        )
        .0;
        assert!(end < all, "{end} {all}");
        assert_eq!(fit_from(&series, 0, &[1]), fit(&series, &[1]));
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(fit(&[1.0; 100], &[1]).is_err());
        assert!(fit(&[1.0; 1000], &[]).is_err());
        assert!(fit(&[1.0; 1000], &[0]).is_err());
        assert!(fit(&[1.0; 1000], &[999]).is_err());
        assert!(fit_from(&[1.0; 1000], usize::MAX, &[1]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn constants_are_forecast_as_themselves(level in -1e6..1e6f64) {
            let f = fit(&vec![level; 400], &[1, 5]).expect("long enough");
            prop_assert_eq!(f.check(), Ok(()));
            let mut past = Past::default();
            past.push(level);
            prop_assert_eq!(f.forecast(&past, 5), level);
        }

        #[test]
        fn any_series_makes_a_valid_forecaster(values in prop::collection::vec(any::<f64>(), 300)) {
            let f = fit(&values, &[1, 3]).expect("long enough");
            prop_assert_eq!(f.check(), Ok(()));
        }

        #[test]
        fn never_much_worse_than_the_last_value_on_what_it_was_fitted_to(seed in 0usize..1000) {
            let mut series = vec![0.0];
            for i in 1..600 {
                series.push(series[i - 1] + noise(i + seed * 601));
            }
            let f = fit(&series, &[1]).expect("long enough");
            let (ours, last) = error(&f, &series, 1, WARM_UP);
            prop_assert!(ours <= 1.01 * last, "{} {}", ours, last);
        }

        #[test]
        fn the_unit_does_not_matter(by in 0.01..100.0f64) {
            let series: Vec<f64> = (0..500).map(|i| (i as f64 * 0.3).sin() + noise(i)).collect();
            let scaled: Vec<f64> = series.iter().map(|v| v * by).collect();
            let (a, b) = (fit(&series, &[2]).expect("long"), fit(&scaled, &[2]).expect("long"));
            let (a, b) = (error(&a, &series, 2, 24).0 * by, error(&b, &scaled, 2, 24).0);
            prop_assert!((a - b).abs() < 1e-3 * a, "{} {}", a, b);
        }

        #[test]
        fn the_same_series_makes_the_same_weights(n in 200usize..400) {
            let series: Vec<f64> = (0..n).map(noise).collect();
            prop_assert_eq!(fit(&series, &[1]).expect("long"), fit(&series, &[1]).expect("long"));
        }
    }
}
