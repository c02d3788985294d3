//! Odd windows are found as well as by scikit-learn's estimators.

use crate::support::{MADE, answers, blobs, fitted, kinds, settings, table};
use vigia_model::estimators::table::Table;
use vigia_model::pipeline::EstimatorKind;

/// By how much the area under a ROC curve may be smaller.
const SHORT: f64 = 0.02;

const ACTIVE: usize = 12;
const NEVER: usize = 24;
const WIDTH: usize = ACTIVE + NEVER;

/// `planted` of `make.py`: windows to train on, normal ones, and odd ones.
fn planted() -> (Table, Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut rows = blobs(MADE.seed(7), 700, ACTIVE, 3, 2.0);
    for row in &mut rows {
        row.iter_mut().for_each(|x| *x += 8.0);
        row.resize(WIDTH, 0.0);
    }
    let mixed = (500..600).map(|i| (0..WIDTH).map(|j| rows[(i + 7 * j) % 700][j]).collect());
    let new = (0..100).map(|i| {
        let mut row = rows[600 + i].clone();
        (0..4).for_each(|j| row[ACTIVE + (i + 5 * j) % NEVER] = 1.0 + (i % 3) as f32);
        row
    });
    (
        table(&rows[..400]),
        rows[400..500].to_vec(),
        mixed.chain(new).collect(),
    )
}

/// Area under the ROC curve, ties counted half.
fn auc(normal: &[f32], odd: &[f32]) -> f64 {
    let pairs = odd.iter().flat_map(|o| normal.iter().map(move |n| (o, n)));
    let wins = pairs.map(|(o, n)| f64::from(u8::from(o > n)) + 0.5 * f64::from(u8::from(o == n)));
    wins.sum::<f64>() / (normal.len() * odd.len()) as f64
}

#[test]
fn each_estimator_finds_odd_windows_as_well() {
    let ((train, normal, odd), answers) = (planted(), answers());
    for kind in kinds() {
        let staged = fitted(kind, &train, &settings(None)).expect("fits").staged;
        let scores = |rows: &[Vec<f32>]| rows.iter().map(|row| staged.score(row)).collect::<Vec<f32>>();
        let ours = auc(&scores(&normal), &scores(&odd));
        let theirs = answers["planted"][kind.as_str()].as_f64().expect("a number");
        assert!(ours >= theirs - SHORT, "{kind}: {ours}, scikit-learn's {theirs}");
    }
}

#[test]
fn a_network_that_is_narrow_learns_all_the_same() {
    for width in 2..9 {
        for seed in 0..3 {
            let rows = table(&blobs(MADE.seed(seed), 80, width, 2, 3.0));
            let staged = fitted(EstimatorKind::Autoencoder, &rows, &settings(None))
                .expect("fits")
                .staged;
            let error = rows.rows().map(|row| staged.score(row)).sum::<f32>() / rows.len() as f32;
            // Of scaled rows, 1 is what a network has that always gives back their mean.
            assert!(error < 0.8, "{width}, {seed}: {error}");
        }
    }
}
