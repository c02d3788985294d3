//! What holds for every vector estimator, whatever it was trained on.

use crate::support::{blobs, fitted, is_slow, kinds, moments, settings, table};
use proptest::prelude::*;
use std::sync::OnceLock;
use vigia_model::estimators::table::Table;
use vigia_model::estimators::vector::Staged;
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::estimators::EstimatorError;
use vigia_trainer::estimators::vectors::{Settings, fit};

const WIDTH: usize = 5;

/// Few cases where each trains every kind.
fn few() -> ProptestConfig {
    ProptestConfig::with_cases(6)
}

fn random(seed: u64, rows: usize) -> Vec<Vec<f32>> {
    blobs(seed, rows, WIDTH, 2, 1.0)
}

fn all(rows: &Table, settings: &Settings) -> Vec<(EstimatorKind, Staged)> {
    of(kinds(), rows, settings)
}

/// Those that are trained at once, so that many can be.
fn quick(rows: &Table, settings: &Settings) -> Vec<(EstimatorKind, Staged)> {
    of(kinds().filter(|&kind| !is_slow(kind)), rows, settings)
}

fn of(
    kinds: impl Iterator<Item = EstimatorKind>,
    rows: &Table,
    settings: &Settings,
) -> Vec<(EstimatorKind, Staged)> {
    kinds
        .map(|kind| {
            (
                kind,
                fitted(kind, rows, settings)
                    .unwrap_or_else(|e| panic!("{kind}: {e}"))
                    .staged,
            )
        })
        .collect()
}

/// One trained estimator of each kind, without and with components in front.
fn trained() -> &'static [(EstimatorKind, Staged)] {
    static TRAINED: OnceLock<Vec<(EstimatorKind, Staged)>> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let rows = table(&random(3, 120));
        [all(&rows, &settings(None)), all(&rows, &settings(Some(3)))].concat()
    })
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn the_order_of_rows_does_not_matter(seed: u64, by in 1usize..79) {
        let mut rows = random(seed, 80);
        let first = quick(&table(&rows), &settings(Some(2)));
        rows.rotate_left(by);
        rows.swap(3, 60);
        // Sums are the same up to their order, which is the operator's to fix.
        let sums = moments(&table(&random(seed, 80)));
        for (kind, staged) in first {
            let again = fit(kind, &table(&rows), &[], &sums, &settings(Some(2))).expect("fits");
            prop_assert_eq!(&staged, &again.staged, "{}", kind);
        }
    }

    #[test]
    fn constant_columns_and_equal_rows_are_no_trouble(value in -50f32..50.0, count in 2usize..60) {
        let mut rows = random(1, count);
        rows.iter_mut().for_each(|row| row[2] = value);
        let same = vec![vec![value; WIDTH]; count];
        for rows in [rows, same] {
            for components in [None, Some(2)] {
                for (kind, staged) in quick(&table(&rows), &Settings { floor: 0.4, ..settings(components) }) {
                    let (near, far) = (staged.score(&rows[0]), staged.score(&[value + 9.0; WIDTH]));
                    prop_assert!(near.is_finite() && far.is_finite(), "{}: {} {}", kind, near, far);
                    staged.check(WIDTH).unwrap_or_else(|e| panic!("{kind}: {e}"));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_finite_vector_has_a_finite_score_twice_the_same(
        x in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL, WIDTH),
    ) {
        for (kind, staged) in trained() {
            let score = staged.score(&x);
            prop_assert!(score.is_finite(), "{}: {}", kind, score);
            prop_assert_eq!(score.to_bits(), staged.score(&x).to_bits());
        }
    }

    #[test]
    fn what_lies_far_outside_is_odder_than_what_was_trained_on(row in 0usize..120, far in 30f32..1e4) {
        let x = &random(3, 120)[row];
        // Far from all it was taught with, a network is a straight line, and that may lead to any class.
        for (kind, staged) in trained().iter().filter(|(kind, _)| *kind != EstimatorKind::MlpClassifier) {
            let away: Vec<f32> = x.iter().enumerate().map(|(j, v)| v + if j % 2 == 0 { far } else { -far }).collect();
            // Components that explain all leave rounding.
            prop_assert!(staged.score(&away) + 1e-6 * far >= staged.score(x), "{}", kind);
        }
    }

    #[test]
    fn what_was_encoded_scores_the_same_bits(row in 0usize..120) {
        let x = &random(3, 120)[row];
        for (kind, staged) in trained() {
            let bytes = bincode::serialize(staged).expect("encodes");
            let again: Staged = bincode::deserialize(&bytes).expect("decodes");
            prop_assert_eq!(staged.score(x).to_bits(), again.score(x).to_bits(), "{}", kind);
        }
    }

    #[test]
    fn bytes_that_were_tampered_with_are_refused_or_score_finite(at: prop::sample::Index, by in 1u8..=255, far in -1e9f32..1e9) {
        for (_, staged) in trained() {
            let mut bytes = bincode::serialize(staged).expect("encodes");
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            use bincode::Options;
            let options = bincode::DefaultOptions::new().with_fixint_encoding().with_limit(1 << 20);
            if let Ok(staged) = options.deserialize::<Staged>(&bytes)
                && staged.check(WIDTH).is_ok()
            {
                prop_assert!(staged.score(&[far; WIDTH]).is_finite());
                prop_assert!(staged.score(&[0.0; WIDTH]).is_finite());
            }
        }
    }
}

#[test]
fn every_estimator_bears_its_kinds_name_and_passes_its_own_check() {
    for (kind, staged) in trained() {
        assert_eq!(staged.name(), kind.as_str());
        assert_eq!(staged.check(WIDTH), Ok(()));
        assert!(staged.check(WIDTH + 1).is_err());
    }
}

#[test]
fn too_few_rows_and_rows_that_are_not_finite_are_refused_with_a_reason() {
    for kind in kinds() {
        for rows in 0..2 {
            let data = table(&random(1, rows));
            let sums = moments(&table(&random(1, 9)));
            let error = fit(kind, &data, &[], &sums, &settings(None)).expect_err("refused");
            assert!(
                matches!(error, EstimatorError::TooFew { got, .. } if got == rows),
                "{kind}: {error}"
            );
        }
        let good = random(1, 9);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut rows = good.clone();
            rows[4][1] = bad;
            let error = fit(kind, &table(&rows), &[], &moments(&table(&good)), &settings(None));
            assert_eq!(error, Err(EstimatorError::Shape(kind.as_str())));
        }
        let other = table(&blobs(1, 9, WIDTH + 1, 1, 1.0));
        assert!(
            fit(kind, &other, &[], &moments(&table(&good)), &settings(None)).is_err(),
            "{kind}"
        );
        for components in [0, WIDTH + 1] {
            let wrong = fitted(kind, &table(&good), &settings(Some(components)));
            assert!(matches!(wrong, Err(EstimatorError::Setting(_))), "{kind}");
        }
    }
    let rows = table(&random(1, 9));
    assert!(fitted(EstimatorKind::Deviation, &rows, &settings(None)).is_err());
}

#[test]
fn networks_do_not_mind_the_order_of_rows_nor_columns_that_never_change() {
    let mut rows = random(5, 60);
    rows.iter_mut().for_each(|row| row[2] = 4.0);
    let sums = moments(&table(&rows));
    let settings = Settings::windows(7, None);
    for kind in kinds().filter(|&kind| is_slow(kind)) {
        let first = fit(kind, &table(&rows), &[], &sums, &settings)
            .expect("fits")
            .staged;
        rows.reverse();
        let again = fit(kind, &table(&rows), &[], &sums, &settings)
            .expect("fits")
            .staged;
        assert_eq!(first, again, "{kind}");
        assert!(first.score(&[1e30; WIDTH]).is_finite());
    }
}
