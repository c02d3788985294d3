//! What makes each estimator the one that it is called, on whatever rows.

use crate::support::{blobs, fitted, moments, settings, table};
use proptest::prelude::*;
use vigia_model::estimators::mlp::{Head, Layer, Mlp};
use vigia_model::estimators::table::{Table, squared_distance};
use vigia_model::estimators::trees::CLASSES;
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::estimators::folds::folds;
use vigia_trainer::estimators::kmeans::Distances;
use vigia_trainer::estimators::scaling::{Components, scaler};
use vigia_trainer::estimators::trees::{self, Growth};
use vigia_trainer::estimators::{dbscan, gaussian, kmeans, lof, rate};

const WIDTH: usize = 4;

fn rows(seed: u64, count: usize, clusters: usize) -> Table {
    table(&blobs(seed, count, WIDTH, clusters, 2.0))
}

/// Of numbers that single precision adds without rounding.
fn coarse(rows: &Table, by: f32) -> Table {
    let values = rows.values().iter().map(|x| (x * 64.0).round() / 64.0 + by);
    Table::new(rows.width(), values.collect())
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    f64::from(squared_distance(a, b)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn kmeans_gives_each_row_to_the_nearest_centre_and_each_centre_the_mean_of_its_rows(seed: u64, count in 2usize..90, k in 2usize..6) {
        let rows = rows(seed, count, 3);
        let found = kmeans::fit(&rows, k, seed).expect("fits");
        let mut inertia = 0.0;
        for (row, &label) in rows.rows().zip(&found.labels) {
            let least = found.model.centres.rows().map(|centre| distance(row, centre)).fold(f64::MAX, f64::min);
            prop_assert!((distance(row, found.model.centres.row(label)) - least).abs() < 1e-6);
            inertia += least * least;
        }
        prop_assert!((found.inertia - inertia).abs() <= 1e-5 * inertia.max(1.0), "{} {}", found.inertia, inertia);
        for (cluster, centre) in found.model.centres.rows().enumerate() {
            let own: Vec<&[f32]> = rows.rows().zip(&found.labels).filter(|(_, label)| **label == cluster).map(|(row, _)| row).collect();
            prop_assert!(!own.is_empty());
            for (j, x) in centre.iter().enumerate() {
                let mean = own.iter().map(|row| f64::from(row[j])).sum::<f64>() / own.len() as f64;
                prop_assert!((f64::from(*x) - mean).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_silhouette_is_within_its_bounds_and_knows_no_unit_and_no_names(seed: u64, count in 4usize..60) {
        let rows = rows(seed, count, 3);
        let labels: Vec<usize> = (0..count).map(|i| i % 3).collect();
        let silhouette = Distances::of(&rows).silhouette(&labels);
        prop_assert!((-1.0..=1.0).contains(&silhouette));
        let larger = Table::new(WIDTH, rows.values().iter().map(|x| x * 1024.0).collect());
        prop_assert!((Distances::of(&larger).silhouette(&labels) - silhouette).abs() < 1e-9);
        let renamed: Vec<usize> = labels.iter().map(|label| (label + 1) % 3).collect();
        prop_assert!((Distances::of(&rows).silhouette(&renamed) - silhouette).abs() < 1e-9);
    }

    #[test]
    fn a_mixture_of_one_is_the_gaussian_of_mean_and_covariance(seed: u64, count in 8usize..60, at in prop::collection::vec(-4f32..4.0, WIDTH)) {
        const REGULAR: f64 = 1e-2;
        let rows = rows(seed, count, 1);
        let (model, _) = gaussian::fit(&rows, 1, REGULAR, seed).expect("fits");
        let mut sums = [0.0; WIDTH];
        rows.rows().for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x)));
        let mean = nalgebra::SVector::<f64, WIDTH>::from(sums) / count as f64;
        let mut covariance = nalgebra::SMatrix::<f64, WIDTH, WIDTH>::identity() * REGULAR;
        for row in rows.rows() {
            let far = nalgebra::SVector::<f64, WIDTH>::from_fn(|i, _| f64::from(row[i])) - mean;
            covariance += far * far.transpose() / count as f64;
        }
        let far = nalgebra::SVector::<f64, WIDTH>::from_fn(|i, _| f64::from(at[i])) - mean;
        let inverse = covariance.try_inverse().expect("regular");
        let squares = (far.transpose() * inverse * far)[0];
        let expected = -0.5 * (squares + covariance.determinant().ln() + WIDTH as f64 * std::f64::consts::TAU.ln());
        let ours = f64::from(model.log_density(&at, &mut []));
        prop_assert!((ours - expected).abs() <= 1e-3 * expected.abs().max(1.0), "{} {}", ours, expected);
    }

    #[test]
    fn memberships_of_a_mixture_are_shares_of_one(seed: u64, k in 1usize..5, at in prop::collection::vec(-1e3f32..1e3, WIDTH)) {
        let (model, _) = gaussian::fit(&rows(seed, 60, 3), k, 1e-3, seed).expect("fits");
        let mut shares = vec![0.0; model.components.len()];
        model.log_density(&at, &mut shares);
        prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        prop_assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_local_outlier_factor_knows_no_unit_and_no_origin(seed: u64, count in 3usize..60, by in -8i8..8) {
        let near = coarse(&rows(seed, count, 2), 0.0);
        let moved = coarse(&near, f32::from(by));
        let larger = Table::new(WIDTH, near.values().iter().map(|x| x * 1024.0).collect());
        let factors = |rows: &Table, smoothing: f32| -> Vec<f32> {
            let model = lof::fit(rows, 5, smoothing, 1).expect("fits");
            model.density
        };
        let densities = factors(&near, 0.125);
        prop_assert_eq!(&factors(&moved, 0.125), &densities);
        for (large, small) in factors(&larger, 128.0).iter().zip(&densities) {
            prop_assert_eq!(*large, small / 1024.0);
        }
    }

    #[test]
    fn dbscan_joins_core_rows_that_are_near_and_leaves_out_what_is_near_none(seed: u64, count in 2usize..80, eps in 0.5f32..4.0, least in 2usize..8) {
        let rows = rows(seed, count, 3);
        let found = dbscan::find(&rows, eps, least);
        let near = |i: usize, j: usize| squared_distance(rows.row(i), rows.row(j)) <= eps * eps;
        for i in 0..count {
            let is_core = (0..count).filter(|&j| near(i, j)).count() >= least;
            prop_assert_eq!(found.core.contains(&i), is_core);
            let of: Vec<Option<usize>> = found.core.iter().filter(|&&j| near(i, j)).map(|&j| found.labels[j]).collect();
            match found.labels[i] {
                None => prop_assert!(of.is_empty()),
                Some(label) => {
                    prop_assert!(label < found.clusters && of.contains(&Some(label)));
                    prop_assert!(!is_core || of.iter().all(|other| *other == Some(label)));
                }
            }
        }
    }

    #[test]
    fn principal_components_are_orthogonal_and_each_explains_what_is_left(seed: u64, count in 6usize..60) {
        let rows = rows(seed, count, 2);
        let front = scaler(&moments(&rows), 0.0).expect("rows");
        let scaled = front.table(&rows);
        let found = Components::of(&scaled);
        prop_assert!(found.variances.is_sorted_by(|a, b| a >= b));
        let axes = found.table(WIDTH, WIDTH);
        for (i, a) in axes.rows().enumerate() {
            for (j, b) in axes.rows().enumerate() {
                let product: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
                prop_assert!((product - f32::from(u8::from(i == j))).abs() < 1e-5);
            }
        }
        // What so many components leave unexplained of the rows is the variance along the others.
        for kept in 1..=axes.len() {
            let model = fitted(EstimatorKind::Pca, &rows, &settings(Some(kept))).expect("fits").staged;
            let left: f64 = rows.rows().map(|row| f64::from(model.score(row)).powi(2)).sum::<f64>() / count as f64;
            let others: f64 = found.variances[kept..].iter().sum();
            prop_assert!((left - others).abs() < 1e-4, "{} {}", left, others);
        }
    }

    #[test]
    fn scaled_rows_have_mean_0_and_deviation_1_and_a_z_score_is_the_largest_of_a_row(
        seed: u64, count in 2usize..60, unit in -5i32..6,
    ) {
        let unit = 10f32.powi(unit);
        let rows = Table::new(WIDTH, rows(seed, count, 2).values().iter().map(|x| x * unit).collect());
        let scaled = scaler(&moments(&rows), 0.0).expect("rows").table(&rows);
        for j in 0..WIDTH {
            let column = || scaled.rows().map(|row| f64::from(row[j]));
            let mean = column().sum::<f64>() / count as f64;
            let square = column().map(|x| x * x).sum::<f64>() / count as f64;
            prop_assert!(mean.abs() < 1e-4 && (square - 1.0).abs() < 1e-4, "{} {}", mean, square);
        }
        let model = fitted(EstimatorKind::ZScore, &rows, &settings(None)).expect("fits").staged;
        for (row, scaled) in rows.rows().zip(scaled.rows()) {
            let most = scaled.iter().fold(0f32, |most, x| most.max(x.abs()));
            prop_assert_eq!(model.score(row), most);
        }
    }

    #[test]
    fn a_forest_of_trees_gives_shares_of_one_and_knows_no_names_of_classes(seed: u64, count in 4usize..80) {
        let rows = rows(seed, count, 3);
        let classes: Vec<u8> = (0..count).map(|i| ((i * 7 + i / 3) % 3) as u8).collect();
        let renamed: Vec<u8> = classes.iter().map(|class| (class + 1) % 3).collect();
        let growth = Growth { trees: 9, depth: 6, leaf: 2, seed };
        let forest = trees::grow(&rows, &classes, growth).expect("grows");
        let other = trees::grow(&rows, &renamed, growth).expect("grows");
        for row in rows.rows() {
            let (shares, theirs) = (forest.classes(row), other.classes(row));
            prop_assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            for class in 0..CLASSES {
                prop_assert_eq!(shares[class], theirs[(class + 1) % CLASSES]);
            }
        }
    }

    #[test]
    fn a_network_gives_what_its_layers_say(
        weights in prop::collection::vec(-2f32..2.0, 5 * 19 + 19 * 3),
        bias in prop::collection::vec(-1f32..1.0, 19 + 3),
        x in prop::collection::vec(-4f32..4.0, 5),
        more in -8f32..8.0,
    ) {
        let (first, second) = weights.split_at(5 * 19);
        let layer = |weights: &[f32], bias: &[f32]| Layer { weights: weights.to_vec(), bias: bias.to_vec() };
        let network = Mlp { layers: vec![layer(first, &bias[..19]), layer(second, &bias[19..])], head: Head::Classes };
        let hidden: Vec<f64> = (0..19)
            .map(|o| (0..5).map(|i| f64::from(x[i]) * f64::from(first[i * 19 + o])).sum::<f64>() + f64::from(bias[o]))
            .map(|sum| sum.max(0.0))
            .collect();
        let powers: Vec<f64> = (0..3)
            .map(|o| (0..19).map(|i| hidden[i] * f64::from(second[i * 3 + o])).sum::<f64>() + f64::from(bias[19 + o]))
            .map(f64::exp)
            .collect();
        let whole: f64 = powers.iter().sum();
        let shares = network.classes(&x);
        for (share, power) in shares.iter().zip(&powers) {
            prop_assert!((f64::from(*share) - power / whole).abs() < 1e-4);
        }
        prop_assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        // Only differences of logits count.
        let raised: Vec<f32> = bias[19..].iter().map(|b| b + more).collect();
        let raised = Mlp { layers: vec![layer(first, &bias[..19]), layer(second, &raised)], head: Head::Classes };
        for (a, b) in shares.iter().zip(raised.classes(&x)) {
            prop_assert!((a - b).abs() < 1e-4);
        }
    }

    #[test]
    fn each_row_is_tested_once_by_what_the_others_taught(rows in 0usize..200, parts in 1usize..12, seed: u64) {
        let all = folds(rows, parts, seed);
        prop_assert_eq!(all.len(), parts.min(rows));
        let mut tested: Vec<usize> = all.iter().flat_map(|(_, test)| test.iter().copied()).collect();
        tested.sort_unstable();
        prop_assert_eq!(tested, (0..rows).collect::<Vec<_>>());
        for (train, test) in &all {
            let mut both = [&train[..], test].concat();
            both.sort_unstable();
            prop_assert_eq!(both, (0..rows).collect::<Vec<_>>());
            prop_assert!(test.len() * all.len() < rows + all.len());
        }
    }
}

/// Rates that move, each with the 32 before it.
fn examples(seed: u64, by: f32) -> Table {
    let series: Vec<f32> = blobs(seed, 120, 1, 1, 0.0)
        .concat()
        .iter()
        .map(|x| ((x + 6.0) * 64.0).round() / 64.0 + by)
        .collect();
    let windows = series.windows(rate::EXAMPLE);
    Table::new(
        rate::EXAMPLE,
        windows.flat_map(|w| w.iter().rev().copied()).collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_regression_on_rates_that_are_all_higher_has_the_same_weights(seed: u64, by in 0u8..20, lags in 0usize..8, differenced: bool) {
        let by = f32::from(by);
        let low = rate::regression(&examples(seed, 0.0), differenced, lags).expect("fits");
        let high = rate::regression(&examples(seed, by), differenced, lags).expect("fits");
        for (a, b) in low.weights.iter().zip(&high.weights) {
            prop_assert!((a - b).abs() < 1e-4);
        }
        // What is added to all rates is added to the forecast.
        let kept: f32 = if differenced { 1.0 } else { low.weights.iter().sum() };
        let expected = low.constant + by * (1.0 - kept);
        prop_assert!((high.constant - expected).abs() < 1e-2, "{} {}", high.constant, expected);
    }

    #[test]
    fn smoothing_is_fitted_alike_wherever_the_level_is(seed: u64, by in 0u8..20) {
        let (low, high) = (rate::ets(&examples(seed, 0.0)).expect("fits"), rate::ets(&examples(seed, f32::from(by))).expect("fits"));
        for (a, b) in [(low.level, high.level), (low.trend, high.trend)] {
            prop_assert!((a - b).abs() < 0.02, "{:?} {:?}", low, high);
        }
    }
}
