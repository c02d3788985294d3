//! Forecasts of rates beside statsmodels' on the same series. Tolerances are relative, or absolute below 1.

use crate::support::{MADE, Random, answers, assert_close, numbers};
use vigia_model::context::MAX_PAST;
use vigia_model::estimators::rate::{Arima, Ets, Forecast};
use vigia_model::estimators::table::Table;
use vigia_trainer::estimators::EstimatorError;
use vigia_trainer::estimators::rate::{EXAMPLE, LEAST, arima, ets, regression};

/// `rates` of `make.py`.
fn series(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random(seed);
    let (mut level, mut rate) = (6.0, 6.0);
    (0..count)
        .map(|_| {
            level += 0.02 * random.normal();
            rate = level + 0.6 * (rate - level) + 0.2 * random.normal();
            rate as f32
        })
        .collect()
}

/// Each value that 32 others come before, and those, the latest first.
fn examples(series: &[f32]) -> Table {
    let windows = series.windows(EXAMPLE);
    Table::new(EXAMPLE, windows.flat_map(|w| w.iter().rev().copied()).collect())
}

fn loss(forecast: &Forecast, examples: &Table) -> f64 {
    let errors = examples.rows().map(|example| {
        let expected = forecast.next(&example[1..]).expect("enough");
        f64::from(example[0] - expected).powi(2)
    });
    errors.sum()
}

fn of(parameters: &[f64]) -> Forecast {
    // statsmodels' trend is a share of what the level follows.
    Forecast::Ets(Ets {
        level: parameters[0] as f32,
        trend: (parameters[0] * parameters[1]) as f32,
        damping: parameters[2] as f32,
    })
}

#[test]
fn smoothing_with_given_parameters_forecasts_the_same() {
    let (series, answers) = (series(MADE.seed(4), 800), &answers()["ets"]);
    let forecasts = answers["forecasts"].as_array().expect("lists");
    for (given, theirs) in answers["given"].as_array().expect("lists").iter().zip(forecasts) {
        let forecast = of(&numbers(given));
        let ours: Vec<f64> = (MAX_PAST..MAX_PAST + 20)
            .map(|t| {
                let past: Vec<f32> = series[t - MAX_PAST..t].iter().rev().copied().collect();
                f64::from(forecast.next(&past).expect("enough"))
            })
            .collect();
        assert_close("forecast", &ours, &numbers(theirs), 1e-5);
    }
}

#[test]
fn smoothing_fitted_here_errs_no_more_than_smoothing_fitted_there() {
    let examples = examples(&series(MADE.seed(4), 800));
    let theirs = of(&numbers(&answers()["ets"]["fitted"]));
    let ours = Forecast::Ets(ets(&examples).expect("fits"));
    let (ours, theirs) = (loss(&ours, &examples), loss(&theirs, &examples));
    assert!(ours <= 1.005 * theirs, "{ours} and {theirs}");
}

#[test]
fn regressions_on_rates_and_on_changes_have_the_same_weights() {
    let examples = examples(&series(MADE.seed(4), 800));
    for (name, differenced, lags) in [("rates", false, 3), ("changes", true, 2)] {
        let model = regression(&examples, differenced, lags).expect("fits");
        let ours: Vec<f64> = std::iter::once(model.constant)
            .chain(model.weights)
            .map(f64::from)
            .collect();
        assert_close(name, &ours, &numbers(&answers()["arima"][name]), 1e-3);
    }
}

#[test]
fn forecasts_of_what_returns_to_a_level_are_better_than_the_last_value() {
    let (past, next) = (examples(&series(5, 800)), examples(&series(6, 400)));
    let last = Forecast::Ets(Ets {
        level: 1.0,
        trend: 0.0,
        damping: 0.0,
    });
    let last = loss(&last, &next);
    let smoothed = Forecast::Ets(ets(&past).expect("fits"));
    let regressed = Forecast::Arima(arima(&past).expect("fits"));
    assert!(loss(&smoothed, &next) < 0.95 * last);
    assert!(loss(&regressed, &next) < 0.95 * last);
}

#[test]
fn what_depends_on_nothing_before_is_forecast_as_its_mean_however_busy_it_is() {
    let mut random = Random(8);
    let busy: Vec<f32> = (0..600).map(|_| (14.0 + 0.3 * random.normal()) as f32).collect();
    let examples = examples(&busy);
    let model = arima(&examples).expect("fits");
    let mean = Forecast::Arima(Arima {
        differenced: false,
        constant: 14.0,
        weights: vec![],
    });
    assert!(loss(&Forecast::Arima(model.clone()), &examples) <= loss(&mean, &examples));
    assert!(!model.differenced && model.check().is_ok(), "{model:?}");
}

#[test]
fn rates_that_wander_are_forecast_by_their_changes() {
    let wander = |seed, start: f64, count: usize| -> Vec<f32> {
        let (mut random, mut rate) = (Random(seed), start);
        let mut next = || {
            rate += 0.02 * random.normal();
            rate as f32
        };
        (0..count).map(|_| next()).collect()
    };
    let by_changes = (0..20).filter(|&seed| {
        let model = arima(&examples(&wander(seed, 6.0, 200))).expect("fits");
        model.differenced
    });
    // Levels look better by chance in one of twenty.
    assert!(by_changes.count() >= 17);
    // And what returns to a level is known to.
    assert!(!arima(&examples(&series(5, 400))).expect("fits").differenced);
}

#[test]
fn rates_that_never_move_and_too_few_of_them() {
    let still = examples(&[3.5; 100]);
    let past = vec![3.5; MAX_PAST];
    for forecast in [
        Forecast::Ets(ets(&still).expect("fits")),
        Forecast::Arima(arima(&still).expect("fits")),
    ] {
        let next = forecast.next(&past).expect("enough");
        assert!((next - 3.5).abs() < 1e-3, "{forecast:?}: {next}");
    }
    let few = examples(&series(1, MAX_PAST + LEAST - 1));
    let too_few = |got| matches!(got, EstimatorError::TooFew { got, .. } if got == LEAST - 1);
    assert!(too_few(ets(&few).expect_err("refused")) && too_few(arima(&few).expect_err("refused")));
    let narrow = Table::new(5, vec![0.0; 500]);
    assert!(ets(&narrow).is_err() && arima(&narrow).is_err());
}
