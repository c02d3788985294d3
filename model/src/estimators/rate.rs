//! Forecasts of a container's rate of system calls from the windows before, and how far a window lies from them.
//!
//! The rate is the logarithm that features have (see [`crate::schema`]), so that an error is a factor. A forecast is a
//! function of the past alone, which every window carries ([`crate::context`]): nothing is kept between two windows, so
//! a model that is swapped, or a gap, leaves no state behind.
//!
//! A window before which fewer than [`LEAST_PAST`] others are known has no score.

use super::{Refused, rule};
use crate::bounded;
use crate::context::{Context, MAX_PAST};
use serde::{Deserialize, Serialize};

/// Fewest windows that anything is forecast from.
pub const LEAST_PAST: usize = 8;
/// Most lags of an autoregression: with a difference, it takes no more than [`LEAST_PAST`] windows.
pub const MAX_LAGS: usize = LEAST_PAST - 1;
/// Largest weight of a lag.
pub const MAX_WEIGHT: f32 = 10.0;
/// Largest constant: that of rates which do not depend on those before is the rate itself, and weights that swing take it
/// further.
pub const MAX_CONSTANT: f32 = 1e3;
/// A forecast leaves the range of what was seen by so much at most, in logarithms.
const MARGIN: f32 = 1.0;

/// Exponential smoothing with a damped trend: ETS(A, Ad, N) of Hyndman, Koehler, Ord and Snyder (2008), of which ETS(A,
/// N, N) is the case without a trend. It begins at the oldest window known, without a trend.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ets {
    /// Share of an error that the level follows, in [0, 1].
    pub level: f32,
    /// Share of an error that the trend follows, in [0, level].
    pub trend: f32,
    /// Share of the trend that lasts into the next window, in [0, 1].
    pub damping: f32,
}

/// ARIMA(p, d, 0) of Box and Jenkins (1970), d being 0 or 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arima {
    /// Changes are forecast from changes, and not rates from rates.
    pub differenced: bool,
    /// Constant.
    pub constant: f32,
    /// Weights, of the latest window first.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LAGS>")]
    pub weights: Vec<f32>,
}

impl Ets {
    /// The model's name.
    pub const NAME: &str = "ets";

    /// Checks ranges, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        rule((0.0..=1.0).contains(&self.level), Self::NAME, "level in [0, 1]")?;
        rule(
            (0.0..=self.level).contains(&self.trend),
            Self::NAME,
            "trend in [0, level]",
        )?;
        rule(
            (0.0..=1.0).contains(&self.damping),
            Self::NAME,
            "damping in [0, 1]",
        )
    }

    fn next(&self, past: &[f32]) -> f32 {
        let mut oldest_first = past.iter().rev();
        let mut level = oldest_first.next().copied().unwrap_or(0.0);
        let mut trend = 0.0;
        for &rate in oldest_first {
            let expected = level + self.damping * trend;
            let error = rate - expected;
            level = expected + self.level * error;
            trend = self.damping * trend + self.trend * error;
        }
        level + self.damping * trend
    }
}

impl Arima {
    /// The model's name.
    pub const NAME: &str = "arima";

    /// Checks sizes and ranges, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        rule(self.weights.len() <= MAX_LAGS, Self::NAME, "at most 7 lags")?;
        let within = self.weights.iter().all(|weight| weight.abs() <= MAX_WEIGHT);
        rule(
            within && self.constant.abs() <= MAX_CONSTANT,
            Self::NAME,
            "a weight is out of range",
        )
    }

    fn next(&self, past: &[f32]) -> f32 {
        let at = |lag: usize| past.get(lag).copied().unwrap_or(0.0);
        let lags = self.weights.iter().enumerate();
        if self.differenced {
            let moved: f32 = lags.map(|(lag, weight)| weight * (at(lag) - at(lag + 1))).sum();
            at(0) + self.constant + moved
        } else {
            let sum: f32 = lags.map(|(lag, weight)| weight * at(lag)).sum();
            self.constant + sum
        }
    }
}

/// A forecaster of rates.
#[derive(Debug, Clone, PartialEq)]
pub enum Forecast {
    /// Exponential smoothing.
    Ets(Ets),
    /// Autoregression.
    Arima(Arima),
}

impl Forecast {
    /// Smallest scale of the calibrated tail: a rate that is steady to the last call must be able to go up by half.
    pub(crate) const LEAST_SCALE: f32 = 0.1;

    /// The rate that comes next, from those before, the latest first: finite. None where too few are known.
    pub fn next(&self, past: &[f32]) -> Option<f32> {
        let past = &past[..past.len().min(MAX_PAST)];
        if past.len() < LEAST_PAST {
            return None;
        }
        let next = match self {
            Self::Ets(ets) => ets.next(past),
            Self::Arima(arima) => arima.next(past),
        };
        let (least, most) = past.iter().fold((f32::MAX, 0.0f32), |(least, most), &rate| {
            (least.min(rate), most.max(rate))
        });
        // Weights that explode on what they were not fitted to must not.
        let next = if next.is_nan() { past[0] } else { next };
        // A margin is less than what numbers near the largest differ by, so that this is finite there too.
        Some(next.clamp((least - MARGIN).max(0.0), most + MARGIN))
    }

    /// How far the rate lies from what was expected, as a difference of logarithms; none where too little is known.
    pub fn score(&self, rate: f32, context: &Context) -> Option<f32> {
        self.next(context.past()).map(|expected| (rate - expected).abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ets() -> impl Strategy<Value = Ets> {
        (0f32..=1.0, 0f32..=1.0, 0f32..=1.0).prop_map(|(level, share, damping)| Ets {
            level,
            trend: level * share,
            damping,
        })
    }

    fn arima() -> impl Strategy<Value = Arima> {
        (
            any::<bool>(),
            -1f32..1.0,
            prop::collection::vec(-MAX_WEIGHT..MAX_WEIGHT, 0..=MAX_LAGS),
        )
            .prop_map(|(differenced, constant, weights)| Arima {
                differenced,
                constant,
                weights,
            })
    }

    fn any_forecast() -> impl Strategy<Value = Forecast> {
        prop_oneof![ets().prop_map(Forecast::Ets), arima().prop_map(Forecast::Arima)]
    }

    #[test]
    fn smoothing_by_hand() {
        // From 1 on, half of each error: 1, 1.5, 2.25 and then 2.625.
        let simple = Ets {
            level: 0.5,
            trend: 0.0,
            damping: 0.0,
        };
        assert_eq!(simple.next(&[3.0, 3.0, 2.0, 1.0]), 2.625);
        // A trend that is followed whole goes on.
        let trend = Ets {
            level: 1.0,
            trend: 1.0,
            damping: 1.0,
        };
        assert_eq!(trend.next(&[4.0, 3.0, 2.0, 1.0]), 5.0);
    }

    #[test]
    fn autoregression_by_hand() {
        let arima = |differenced| Arima {
            differenced,
            constant: 0.25,
            weights: vec![0.5, 0.25],
        };
        assert_eq!(arima(false).next(&[4.0, 2.0, 1.0]), 2.75);
        assert_eq!(arima(true).next(&[4.0, 2.0, 1.0]), 5.5);
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let good = Ets {
            level: 0.5,
            trend: 0.1,
            damping: 0.9,
        };
        assert_eq!(good.check(), Ok(()));
        for bad in [
            Ets { level: 1.1, ..good },
            Ets { trend: 0.6, ..good },
            Ets {
                damping: f32::NAN,
                ..good
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let arima = |constant, weights| Arima {
            differenced: true,
            constant,
            weights,
        };
        assert_eq!(arima(0.0, vec![0.5; 7]).check(), Ok(()));
        for bad in [
            arima(0.0, vec![0.1; 8]),
            arima(f32::NAN, vec![]),
            arima(0.0, vec![11.0]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rates_at_the_edge_of_numbers_are_forecast() {
        let ets = Forecast::Ets(Ets {
            level: 0.0,
            trend: 0.0,
            damping: 0.0,
        });
        for rate in [0.0, f32::MAX / 1.5, f32::MAX] {
            assert_eq!(ets.next(&[rate; LEAST_PAST]), Some(rate));
        }
    }

    proptest! {
        #[test]
        fn a_forecast_is_finite_whatever_came_before(
            forecast in any_forecast(),
            past in prop::collection::vec(0f32..=f32::MAX, 0..40),
        ) {
            match forecast.next(&past) {
                Some(next) => prop_assert!(next.is_finite() && next >= 0.0),
                None => prop_assert!(past.len() < LEAST_PAST),
            }
        }

        #[test]
        fn a_rate_that_never_moves_is_forecast_as_itself(ets in ets(), rate in 0f32..20.0, count in LEAST_PAST..40) {
            let next = Forecast::Ets(ets).next(&vec![rate; count]).expect("enough");
            prop_assert!((next - rate).abs() < 1e-4);
        }

        #[test]
        fn what_is_as_forecast_is_not_odd_and_what_is_farther_is_odder(
            forecast in any_forecast(),
            past in prop::collection::vec(0f32..20.0, LEAST_PAST..=MAX_PAST),
            by in 0f32..5.0,
        ) {
            let next = forecast.next(&past).expect("enough");
            let context = Context::new(vec![], past).expect("a context");
            prop_assert_eq!(forecast.score(next, &context), Some(0.0));
            let (near, far) = (forecast.score(next + by, &context), forecast.score(next + 2.0 * by, &context));
            prop_assert!(near <= far);
        }

        #[test]
        fn a_forecast_stays_near_what_was_seen(forecast in any_forecast(), past in prop::collection::vec(0f32..20.0, LEAST_PAST..=MAX_PAST)) {
            let next = forecast.next(&past).expect("enough");
            let most = past.iter().copied().fold(0.0, f32::max);
            let least = past.iter().copied().fold(f32::MAX, f32::min);
            prop_assert!(next <= most + MARGIN && next >= least - MARGIN);
        }

        #[test]
        fn what_is_older_than_what_is_known_does_not_matter(
            forecast in any_forecast(),
            past in prop::collection::vec(0f32..20.0, MAX_PAST),
            older in prop::collection::vec(0f32..20.0, 0..9),
        ) {
            let longer: Vec<f32> = past.iter().chain(&older).copied().collect();
            prop_assert_eq!(forecast.next(&past), forecast.next(&longer));
        }
    }
}
