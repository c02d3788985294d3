//! Normals: learnt by sums that merge, robust where little was seen, loud where something is new.

use crate::support::Random;
use proptest::prelude::*;
use vigia_model::deviation::{Deviation, DeviationError, FLOOR, Moments, REST};

fn learn<'a>(width: usize, rows: impl IntoIterator<Item = &'a [f32]>) -> Moments {
    let mut moments = Moments::new(width);
    rows.into_iter().for_each(|row| moments.add(row).expect("finite"));
    moments
}

fn random_rows(seed: u64, count: usize, width: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count * width)
        .map(|i| {
            if i % width == 0 || random.unit() < 0.7 {
                (5.0 + random.normal()).max(0.1) as f32
            } else {
                0.0
            }
        })
        .collect()
}

proptest! {
    #[test]
    fn surprises_and_scores_are_finite_and_not_negative(seed: u64, count in 1usize..60, x in prop::collection::vec(0f32..60.0, 6)) {
        let model = Deviation::from_moments(&learn(6, random_rows(seed, count, 6).chunks(6))).expect("rows");
        prop_assert_eq!(model.check(), Ok(()));
        for (i, &x) in x.iter().enumerate() {
            prop_assert!(model.surprise(i, x) >= 0.0 && model.surprise(i, x).is_finite());
        }
        prop_assert!(model.score(&x) >= 0.0 && model.score(&x).is_finite());
    }

    #[test]
    fn sums_of_parts_are_the_sums_of_the_whole(seed: u64, cut in 1usize..49) {
        let rows = random_rows(seed, 50, 4);
        let whole = learn(4, rows.chunks(4));
        let (head, tail) = rows.split_at(cut * 4);
        let mut parts = learn(4, head.chunks(4));
        parts.merge(&learn(4, tail.chunks(4))).expect("one width");
        prop_assert_eq!((&whole.rows, &whole.present), (&parts.rows, &parts.present));
        for (a, b) in whole.sum.iter().chain(&whole.squares).zip(parts.sum.iter().chain(&parts.squares)) {
            prop_assert!((a - b).abs() <= 1e-9 * a.abs());
        }
    }

    #[test]
    fn a_vector_left_out_is_scored_by_all_others(seed: u64, count in 3usize..60, which in any::<prop::sample::Index>()) {
        let rows = random_rows(seed, count, 5);
        let which = which.index(count);
        let others = rows.chunks(5).enumerate().filter(|(i, _)| *i != which).map(|(_, row)| row);
        let row = &rows[which * 5..][..5];
        let expected = Deviation::from_moments(&learn(5, others)).expect("rows").score(row);
        let left_out = Deviation::left_out(&learn(5, rows.chunks(5)), row).expect("finite");
        prop_assert!((left_out - expected).abs() <= 1e-3 * expected.max(1.0), "{} {}", left_out, expected);
    }

    #[test]
    fn farther_from_the_mean_is_never_less_surprising(seed: u64, near in 0f32..10.0, more in 0f32..10.0) {
        let model = Deviation::from_moments(&learn(2, random_rows(seed, 40, 2).chunks(2))).expect("rows");
        let mean = model.normals[0].mean;
        prop_assert!(model.surprise(0, mean + near) <= model.surprise(0, mean + near + more) + 1e-4);
    }

    #[test]
    fn the_rarer_a_call_was_the_more_surprising_it_is(n in 20u64..2000, seen in 1u64..10) {
        let with = |present: u64| {
            let mut moments = Moments::new(1);
            moments.rows = n;
            moments.present[0] = present;
            moments.sum[0] = present as f64;
            moments.squares[0] = present as f64;
            moments.rates[0] = present as f64;
            Deviation::from_moments(&moments).expect("rows")
        };
        prop_assert!(with(0).surprise(0, 1.0) > with(seen).surprise(0, 1.0));
        prop_assert!(with(seen).surprise(0, 1.0) > with(seen + 1).surprise(0, 1.0));
        prop_assert!(with(0).surprise(0, 0.0) < 0.1);
    }

    #[test]
    fn spreads_never_fall_below_the_floor(value in 0.1f32..20.0, count in 1usize..500) {
        let rows = vec![value; count];
        let model = Deviation::from_moments(&learn(1, rows.chunks(1))).expect("rows");
        prop_assert!(model.normals[0].spread >= FLOOR);
        prop_assert!((model.normals[0].mean - value).abs() < 1e-3);
    }
}

#[test]
fn rest_is_mild_and_more_is_not() {
    let rows: Vec<f32> = (0..500).map(|i| 10.0 + 0.1 * (i % 3) as f32).collect();
    let model = Deviation::from_moments(&learn(1, rows.chunks(1))).expect("rows");
    for less in [0.0, 0.1, 3.0] {
        assert!(model.surprise(0, less) < REST + 0.01, "{less}");
    }
    assert!(model.surprise(0, 17.0) > 10.0 * REST);
}

#[test]
fn one_new_call_counts_less_than_two_and_many_calls_of_it_count_nevertheless() {
    let model = Deviation::from_moments(&learn(3, [1.0f32, 0.0, 0.0].repeat(100).chunks(3))).expect("rows");
    let (none, once, often, two) = (
        model.score(&[1.0, 0.0, 0.0]),
        model.score(&[1.0, 1.1, 0.0]),
        model.score(&[1.0, 8.0, 0.0]),
        model.score(&[1.0, 1.1, 1.1]),
    );
    assert!(once - none < 8.0, "{none} {once}");
    assert!(two - none > 2.0 * (once - none), "{none} {once} {two}");
    assert!(often - none > 20.0, "{none} {often}");
    let mut former = none;
    for tenth in 1..200 {
        let score = model.score(&[1.0, tenth as f32 / 10.0, 0.0]);
        assert!(score >= former, "the more calls, the odder");
        former = score;
    }
}

#[test]
fn a_settled_repertoire_is_more_surprised_by_something_new_than_one_that_keeps_changing() {
    let surprise = |ones: usize| {
        let mut moments = Moments::new(100);
        moments.rows = 500;
        for i in 0..50 {
            moments.present[i] = if i < ones { 1 } else { 400 };
            moments.sum[i] = moments.present[i] as f64;
            moments.squares[i] = moments.present[i] as f64;
        }
        Deviation::from_moments(&moments).expect("rows").surprise(99, 0.7)
    };
    assert!(surprise(0) > surprise(5) && surprise(5) > surprise(30));
}

#[test]
fn what_teaches_nothing_is_refused() {
    let mut moments = Moments::new(2);
    assert_eq!(Deviation::from_moments(&moments), Err(DeviationError::Empty));
    assert_eq!(moments.add(&[1.0]), Err(DeviationError::Width(2, 1)));
    assert_eq!(moments.add(&[1.0, f32::NAN]), Err(DeviationError::NotFinite(1)));
    assert_eq!(moments.rows, 0);
    assert_eq!(moments.merge(&Moments::new(3)), Err(DeviationError::Width(2, 3)));
    moments.add(&[1.0, 2.0]).expect("finite");
    assert_eq!(
        Deviation::left_out(&moments, &[1.0]),
        Err(DeviationError::Width(2, 1))
    );
    assert_eq!(
        Deviation::left_out(&moments, &[1.0, 2.0]),
        Err(DeviationError::Empty)
    );
    moments.sum[1] = f64::NAN;
    assert_eq!(Deviation::from_moments(&moments), Err(DeviationError::Range(1)));
}
