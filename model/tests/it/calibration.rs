//! Calibration: p-values that hold, keep their order, and err to the safe side where little is known.

use crate::support::Random;
use proptest::prelude::*;
use vigia_model::calibration::{
    AlertBudget, Calibration, CalibrationError, HIGH, LOW, MAX_KNOTS, MEDIUM, MIN_P, MIN_SAMPLES, Severity,
    calibrated, p_of,
};

fn finite() -> impl Strategy<Value = f32> {
    (-1e6f32..1e6).prop_filter("finite", |x| x.is_finite())
}

fn scores() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        prop::collection::vec(finite(), MIN_SAMPLES..300),
        // Few different values: ties, or all alike.
        prop::collection::vec((0i8..4).prop_map(f32::from), MIN_SAMPLES..300),
    ]
}

proptest! {
    #[test]
    fn p_values_fall_as_scores_rise(scores in scores(), mut at in prop::collection::vec(finite(), 2..50)) {
        let calibration = Calibration::fit(&scores, 1.0).expect("fits");
        at.extend_from_slice(&scores);
        at.sort_unstable_by(f32::total_cmp);
        let p: Vec<f64> = at.iter().map(|&s| calibration.p_value(s)).collect();
        prop_assert!(p.windows(2).all(|p| p[0] >= p[1]));
        prop_assert!(p.iter().all(|p| (MIN_P..=1.0).contains(p)));
    }

    #[test]
    fn what_is_fitted_passes_the_check_for_models_from_outside(scores in scores(), scale in 1e-3f32..10.0) {
        let calibration = Calibration::fit(&scores, scale).expect("fits");
        prop_assert_eq!(calibration.check(), Ok(()));
        prop_assert!(calibration.knots.len() <= MAX_KNOTS);
        prop_assert!(calibration.scale >= scale);
    }

    #[test]
    fn the_order_of_scores_does_not_matter(mut scores in scores()) {
        let first = Calibration::fit(&scores, 1.0);
        scores.reverse();
        prop_assert_eq!(first, Calibration::fit(&scores, 1.0));
    }

    #[test]
    fn a_held_out_score_has_at_least_its_conformal_p_value_up_to_the_tail(scores in scores()) {
        let calibration = Calibration::fit(&scores, 1.0).expect("fits");
        let n = scores.len();
        let tail = calibration.knots.last().expect("a knot");
        for &s in scores.iter().filter(|&&s| s <= tail.score) {
            let conformal = (1 + scores.iter().filter(|&&other| other >= s).count()) as f64 / (n + 1) as f64;
            // Between knots the curve is straight: off by no more than the ranks between two of them.
            let slack = (n as f64 / (MAX_KNOTS - 1) as f64 + 1.0) / (n + 1) as f64;
            prop_assert!((calibration.p_value(s) - conformal).abs() <= slack + 1e-6);
        }
    }

    #[test]
    fn scaling_the_scores_scales_the_calibration(scores in prop::collection::vec(-100f32..100.0, 50..200), factor in 0.5f32..4.0, at in -200f32..400.0) {
        let scaled: Vec<f32> = scores.iter().map(|s| s * factor).collect();
        let a = Calibration::fit(&scores, 1e-6).expect("fits").p_value(at);
        let b = Calibration::fit(&scaled, 1e-6).expect("fits").p_value(at * factor);
        prop_assert!((a.ln() - b.ln()).abs() < 1e-2, "{a} {b}");
    }

    #[test]
    fn calibrated_scores_keep_the_order_of_p_and_go_back(p in MIN_P..1.0f64, q in MIN_P..1.0f64) {
        prop_assert!((p < q) == (calibrated(p) > calibrated(q)) || calibrated(p) == calibrated(q));
        prop_assert!((p_of(calibrated(p)) / p - 1.0).abs() < 1e-3);
    }

    #[test]
    fn a_smaller_budget_never_lowers_the_threshold(
        count in 0.01f64..100.0, window in 1.0f64..60.0, m in 1u32..6, dependence in 0f32..=1.0,
    ) {
        let threshold = |count, containers, m, dependence| {
            AlertBudget { count, period_s: 86_400.0, containers }.threshold(window, m, dependence)
        };
        let base = threshold(count, 1.0, m, dependence);
        prop_assert!((0.0..1.0).contains(&base));
        prop_assert!(threshold(count / 2.0, 1.0, m, dependence) >= base);
        prop_assert!(threshold(count, 10.0, m, dependence) >= base);
        prop_assert!(threshold(count, 1.0, m + 1, dependence) <= base);
        prop_assert!(threshold(count, 1.0, m, 1.0) >= base);
    }
}

/// Share of fresh scores at or below `p`, over that of the budget, when calibrated on `n` scores.
fn realised(draw: impl Fn(&mut Random) -> f64, n: usize, p: f64, repeats: usize) -> f64 {
    let mut random = Random(n as u64);
    let fresh = 5_000;
    let mut hits = 0usize;
    for _ in 0..repeats {
        let held_out: Vec<f32> = (0..n).map(|_| draw(&mut random) as f32).collect();
        let calibration = Calibration::fit(&held_out, 1e-3).expect("fits");
        hits += (0..fresh)
            .filter(|_| calibration.p_value(draw(&mut random) as f32) <= p)
            .count();
    }
    hits as f64 / (fresh * repeats) as f64 / p
}

fn exponential(random: &mut Random) -> f64 {
    -(1.0 - random.unit()).ln()
}

#[test]
fn p_values_are_those_of_fresh_scores() {
    for p in [0.5, 0.1, 0.01, 1e-3] {
        for (what, ratio) in [
            ("exponential", realised(exponential, 2000, p, 20)),
            ("normal", realised(Random::normal, 2000, p, 20)),
            ("uniform", realised(Random::unit, 2000, p, 20)),
            ("pareto", realised(|r| (0.2 * exponential(r)).exp(), 2000, p, 20)),
        ] {
            assert!(ratio < 2.0, "{what} at {p}: {ratio} times as many");
            // A bounded or thin tail is taken for an exponential one, so its far end comes out rare.
            assert!(
                ratio >= if p < 0.05 { 0.0 } else { 0.8 },
                "{what} at {p}: {ratio} times as many"
            );
        }
    }
    assert!(realised(exponential, 2000, 1e-3, 20) > 0.5);
}

#[test]
fn few_held_out_scores_give_cautious_p_values() {
    for n in [MIN_SAMPLES, 60, 200] {
        for p in [0.1, 0.01, 1e-3] {
            let ratio = realised(exponential, n, p, 100);
            assert!(ratio < 2.0, "{n} scores, p {p}: {ratio} times as many");
        }
    }
}

#[test]
fn constant_scores_leave_room_of_the_least_scale() {
    let calibration = Calibration::fit(&[3.0; 100], 1.0).expect("fits");
    assert_eq!(calibration.p_value(3.0), 1.0);
    assert!(calibration.p_value(3.5) > 0.5);
    assert!(calibration.p_value(30.0) < 1e-9);
}

#[test]
fn what_gives_no_calibration_is_refused() {
    assert_eq!(
        Calibration::fit(&[1.0; 19], 1.0),
        Err(CalibrationError::TooFew(19))
    );
    let mut scores = vec![1.0; 30];
    scores[4] = f32::NAN;
    assert_eq!(
        Calibration::fit(&scores, 1.0),
        Err(CalibrationError::NotFinite(4))
    );
}

#[test]
fn models_from_outside_are_checked() {
    let good = Calibration::fit(&(0..100u8).map(f32::from).collect::<Vec<_>>(), 1.0).expect("fits");
    let broken = |change: fn(&mut Calibration)| {
        let mut calibration = good.clone();
        change(&mut calibration);
        calibration.check().is_err()
    };
    assert!(broken(|c| c.knots.clear()));
    assert!(broken(|c| c.knots.swap(0, 1)));
    assert!(broken(|c| c.knots[0].p = 0.0));
    assert!(broken(|c| c.knots[0].p = 1.5));
    assert!(broken(|c| c.knots[1].score = f32::NAN));
    assert!(broken(|c| c.knots[3].p = 1.0));
    assert!(broken(|c| c.shape = -0.1));
    assert!(broken(|c| c.shape = f32::NAN));
    assert!(broken(|c| c.scale = 0.0));
    assert!(broken(|c| c.scale = f32::INFINITY));
    assert!(broken(|c| c.knots = vec![c.knots[0]; MAX_KNOTS + 1]));
}

#[test]
fn p_values_of_extreme_knots_stay_above_zero() {
    let knot = |score, p| vigia_model::calibration::Knot { score, p };
    let knots = vec![knot(-3e38, 1.0), knot(3e38, f32::from_bits(1))];
    let calibration = Calibration {
        samples: 20,
        knots,
        shape: 0.0,
        scale: f32::MIN_POSITIVE,
    };
    assert_eq!(calibration.check(), Ok(()));
    for score in [-3e38, 0.0, 3e38, f32::MAX, f32::INFINITY] {
        assert!((MIN_P..=1.0).contains(&calibration.p_value(score)), "{score}");
    }
}

#[test]
fn nan_raises_no_alarm() {
    let calibration = Calibration::fit(&[1.0; 50], 1.0).expect("fits");
    assert_eq!(calibration.p_value(f32::NAN), 1.0);
}

#[test]
fn severities_start_at_their_scores() {
    let at = |score| Severity::of(score);
    assert_eq!(
        [at(0.0), at(LOW.next_down()), at(LOW)],
        [Severity::None, Severity::None, Severity::Low]
    );
    assert_eq!(
        [at(MEDIUM), at(HIGH), at(1.0)],
        [Severity::Medium, Severity::High, Severity::High]
    );
    assert!((p_of(HIGH) / 1e-6 - 1.0).abs() < 1e-3);
    assert!(Severity::High > Severity::Low);
}

#[test]
fn a_budget_turns_into_the_p_value_that_spends_it() {
    let a_day = |m, dependence| {
        let budget = AlertBudget {
            count: 1.0,
            period_s: 86_400.0,
            containers: 1.0,
        };
        p_of(budget.threshold(10.0, m, dependence))
    };
    assert!((a_day(1, 0.0) * 8640.0 - 1.0).abs() < 1e-3);
    assert!((a_day(2, 1.0) * 8640.0 - 1.0).abs() < 1e-3);
    // Two independent windows in a row.
    assert!((a_day(2, 0.0).powi(2) * 8640.0 - 1.0).abs() < 1e-2);
}

#[test]
fn one_window_is_enough_where_it_is_ten_times_rarer_than_the_budget() {
    let budget = AlertBudget {
        count: 1.0,
        period_s: 86_400.0,
        containers: 1.0,
    };
    assert!((p_of(budget.at_once(10.0)) * 86_400.0 - 1.0).abs() < 1e-3);
    assert!(budget.at_once(10.0) > budget.threshold(10.0, 1, 1.0));
    assert_eq!(
        AlertBudget { count: 0.0, ..budget }.at_once(10.0),
        calibrated(MIN_P)
    );
}

#[test]
fn nonsense_budgets_are_strict() {
    for (count, period_s) in [
        (0.0, 60.0),
        (1.0, 0.0),
        (f64::NAN, 60.0),
        (-1.0, 60.0),
        (1.0, f64::INFINITY),
    ] {
        let threshold = AlertBudget {
            count,
            period_s,
            containers: 1.0,
        }
        .threshold(10.0, 2, 0.5);
        assert_eq!(threshold, calibrated(MIN_P), "{count} in {period_s} s");
    }
}
