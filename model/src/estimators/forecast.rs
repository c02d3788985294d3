//! Direct forecasts of a series by its own recent levels.
//!
//! The forecast of the value `h` steps ahead is the last value plus a weighted sum of how far other views of
//! the past lie from it: the values before it, and the means over windows that double from a quarter of an
//! hour to a day at five-minute steps. The weights are fitted for each horizon, so that nothing is iterated
//! and errors do not build up (direct forecasting; a mean over a window is Corsi's heterogeneous
//! autoregression, J. Financial Econometrics 7, 2009). Weights that sum freely around the last value follow
//! a level that moved, where an intercept would draw the forecast back to the training data's mean.

use super::{Refused, rule};
use crate::bounded;
use serde::{Deserialize, Serialize};

/// Values before the last that are features.
pub const LAGS: usize = 5;
/// Windows, in steps, whose means are features.
pub const WINDOWS: [usize; 7] = [3, 6, 12, 24, 48, 96, 288];
/// Features of a forecast.
pub const FEATURES: usize = LAGS + WINDOWS.len();
/// Steps remembered.
pub const MEMORY: usize = 288;
/// Most horizons in one model.
pub const MAX_HORIZONS: usize = 64;

const NAME: &str = "forecaster";

/// Weights for one horizon.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Horizon {
    /// Steps ahead.
    pub steps: u32,
    /// Weight of each feature.
    pub weights: [f64; FEATURES],
}

/// A trained forecaster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecaster {
    /// One for each horizon.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_HORIZONS>")]
    pub horizons: Vec<Horizon>,
}

/// The last values of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    values: [f64; MEMORY],
    seen: usize,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            values: [0.0; MEMORY],
            seen: 0,
        }
    }
}

impl Past {
    /// Adds the next value. One that is not finite counts as the last one again.
    pub fn push(&mut self, value: f64) {
        let value = if value.is_finite() { value } else { self.back(0) };
        self.values[self.seen % MEMORY] = value;
        self.seen += 1;
    }

    /// The value `steps` before the last; the oldest held where the past is shorter, 0 where there is none.
    pub fn back(&self, steps: usize) -> f64 {
        let held = self.seen.min(MEMORY);
        if held == 0 {
            return 0.0;
        }
        self.values[(self.seen - 1 - steps.min(held - 1)) % MEMORY]
    }

    /// The features: distances from the last value.
    pub fn features(&self) -> [f64; FEATURES] {
        let last = self.back(0);
        let mut features = [0.0; FEATURES];
        for (lag, f) in (1..).zip(&mut features[..LAGS]) {
            *f = self.back(lag) - last;
        }
        let held = self.seen.min(MEMORY);
        let (mut sum, mut from) = (0.0, 0);
        for (window, f) in WINDOWS.into_iter().zip(&mut features[LAGS..]) {
            let window = window.min(held);
            while from < window {
                // Sums of differences keep their digits where the level is large.
                sum += self.back(from) - last;
                from += 1;
            }
            *f = if window == 0 { 0.0 } else { sum / window as f64 };
        }
        features
    }
}

impl Forecaster {
    /// Checks sizes and ranges, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        rule(
            (1..=MAX_HORIZONS).contains(&self.horizons.len()),
            NAME,
            "1 to 64 horizons",
        )?;
        rule(
            self.horizons
                .iter()
                .all(|h| h.steps > 0 && h.weights.iter().all(|w| w.is_finite())),
            NAME,
            "steps above 0 and weights finite",
        )
    }

    /// The value `steps` ahead; the last value where no weights were fitted for that horizon.
    pub fn forecast(&self, past: &Past, steps: u32) -> f64 {
        let last = past.back(0);
        let Some(horizon) = self.horizons.iter().find(|h| h.steps == steps) else {
            return last;
        };
        let moved: f64 = past
            .features()
            .iter()
            .zip(&horizon.weights)
            .map(|(f, w)| f * w)
            .sum();
        if moved.is_finite() { last + moved } else { last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn past(values: &[f64]) -> Past {
        let mut past = Past::default();
        for &v in values {
            past.push(v);
        }
        past
    }

    fn forecaster(weights: [f64; FEATURES]) -> Forecaster {
        Forecaster {
            horizons: vec![Horizon { steps: 1, weights }],
        }
    }

    #[test]
    fn features_by_hand() {
        let f = past(&[1.0, 2.0, 3.0, 6.0]).features();
        assert_eq!(f[..LAGS], [-3.0, -4.0, -5.0, -5.0, -5.0]);
        // Means of the last 3, and of all 4, less 6.
        assert!((f[LAGS] - (11.0 / 3.0 - 6.0)).abs() < 1e-12);
        assert!((f[LAGS + 1] + 3.0).abs() < 1e-12);
        assert_eq!(f[LAGS + 1], f[LAGS + 6]);
    }

    #[test]
    fn an_unknown_horizon_is_the_last_value() {
        assert_eq!(forecaster([1.0; FEATURES]).forecast(&past(&[1.0, 5.0]), 7), 5.0);
        assert!(Forecaster { horizons: vec![] }.check().is_err());
        assert!(forecaster([f64::NAN; FEATURES]).check().is_err());
        assert!(forecaster([0.1; FEATURES]).check().is_ok());
    }

    proptest! {
        #[test]
        fn a_constant_series_is_forecast_as_itself(level in -1e6..1e6f64, n in 1usize..400, weights in prop::array::uniform12(-2.0..2.0f64)) {
            let p = past(&vec![level; n]);
            prop_assert!((forecaster(weights).forecast(&p, 1) - level).abs() <= 1e-9 * level.abs().max(1.0));
        }

        #[test]
        fn a_shift_of_the_series_shifts_the_forecast(values in prop::collection::vec(-10.0..10.0f64, 1..400), by in -100.0..100.0f64, weights in prop::array::uniform12(-1.0..1.0f64)) {
            let f = forecaster(weights);
            let shifted: Vec<f64> = values.iter().map(|v| v + by).collect();
            prop_assert!((f.forecast(&past(&values), 1) + by - f.forecast(&past(&shifted), 1)).abs() < 1e-8);
        }

        #[test]
        fn a_scale_of_the_series_scales_the_forecast(values in prop::collection::vec(-10.0..10.0f64, 1..400), by in 0.1..100.0f64, weights in prop::array::uniform12(-1.0..1.0f64)) {
            let f = forecaster(weights);
            let scaled: Vec<f64> = values.iter().map(|v| v * by).collect();
            prop_assert!((f.forecast(&past(&values), 1) * by - f.forecast(&past(&scaled), 1)).abs() < 1e-7);
        }

        #[test]
        fn only_the_last_288_steps_matter(old in prop::collection::vec(-10.0..10.0f64, 0..400), values in prop::collection::vec(-10.0..10.0f64, MEMORY)) {
            let long: Vec<f64> = old.iter().chain(&values).copied().collect();
            prop_assert_eq!(past(&long).features(), past(&values).features());
        }

        #[test]
        fn any_series_gives_a_finite_forecast(values in prop::collection::vec(any::<f64>(), 0..300), weights in prop::array::uniform12(any::<f64>())) {
            prop_assert!(forecaster(weights).forecast(&past(&values), 1).is_finite());
        }
    }
}
