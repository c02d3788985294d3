//! Each estimator beside scikit-learn's on the same rows. Tolerances are relative, or absolute below 1.

use crate::support::{
    MADE, answers, assert_close, blobs, fitted, moments, numbers, settings, table, train_and_probes,
};
use vigia_model::estimators::dbscan::Dbscan;
use vigia_model::estimators::front::Front;
use vigia_model::estimators::mlp::{Head, Layer, Mlp};
use vigia_model::estimators::table::Table;
use vigia_model::estimators::trees::{ClassTrees, TreeNode};
use vigia_model::estimators::vector::{Staged, VectorEstimator};
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::estimators::scaling::{Components, scaler};
use vigia_trainer::estimators::trees::{self, Growth};
use vigia_trainer::estimators::{dbscan, gaussian, kmeans, lof, mlp};

/// What `f32` costs where sums are the same.
const ROUNDING: f64 = 1e-4;
/// Where two iterations stop at slightly different places.
const ITERATED: f64 = 5e-3;
/// Nats by which the mean likelihood of rows may be less than the best of scikit-learn's ten starts.
const HILL: f64 = 0.5;

fn staged(kind: EstimatorKind, components: Option<usize>) -> Staged {
    let (rows, _) = train_and_probes();
    fitted(kind, &rows, &settings(components)).expect("fits").staged
}

fn scores(staged: &Staged) -> Vec<f64> {
    let (_, probes) = train_and_probes();
    probes.iter().map(|p| f64::from(staged.score(p))).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[test]
fn scaler_and_z_score() {
    let front = staged(EstimatorKind::ZScore, None).front;
    let answers = answers();
    assert_close(
        "mean",
        &wide(&front.mean),
        &numbers(&answers["scaler"]["mean"]),
        ROUNDING,
    );
    assert_close(
        "scale",
        &wide(&front.scale),
        &numbers(&answers["scaler"]["scale"]),
        ROUNDING,
    );
    let ours = scores(&staged(EstimatorKind::ZScore, None));
    assert_close("z", &ours, &numbers(&answers["z_score"]), ROUNDING);
}

#[test]
fn columns_of_any_unit_are_scaled_alike() {
    let (rows, _) = train_and_probes();
    let step = 50.0 / (MADE.width - 1) as f64;
    let unit = |j: usize| 2f32.powi((-20.0 + step * j as f64).round_ties_even() as i32);
    let values = rows
        .rows()
        .flat_map(|row| row.iter().enumerate().map(|(j, x)| x * unit(j)));
    let rows = Table::new(MADE.width, values.collect());
    let front = scaler(&moments(&rows), 0.0).expect("rows");
    assert_eq!(front.check(), Ok(()));
    let ours: Vec<f64> = front.table(&rows).rows().take(40).flat_map(wide).collect();
    let answers = answers();
    let theirs = answers["scaler_units"].as_array().expect("rows");
    let theirs: Vec<f64> = theirs.iter().flat_map(numbers).collect();
    assert_close("scaled", &ours, &theirs, ROUNDING);
}

#[test]
fn principal_components_and_reconstruction() {
    let (rows, _) = train_and_probes();
    let answers = answers();
    let scaled = scaler(&moments(&rows), 0.0).expect("rows").table(&rows);
    let found = Components::of(&scaled);
    let theirs = numbers(&answers["pca"]["variances"]);
    assert_close("variance", &found.variances[..4], &theirs, ROUNDING);
    for (ours, theirs) in found
        .table(rows.width(), 4)
        .rows()
        .zip(answers["pca"]["components"].as_array().expect("rows"))
    {
        // An axis has no direction.
        let theirs = numbers(theirs);
        let along: f64 = ours.iter().zip(&theirs).map(|(a, b)| f64::from(*a) * b).sum();
        assert!((along.abs() - 1.0).abs() < ROUNDING, "{along}");
    }
    let ours = scores(&staged(EstimatorKind::Pca, Some(4)));
    assert_close("error", &ours, &numbers(&answers["pca"]["errors"]), ROUNDING);
}

#[test]
fn k_means_finds_the_same_clusters() {
    let answers = &answers()["kmeans"];
    let model = staged(EstimatorKind::KMeans, None);
    let VectorEstimator::KMeans(centres) = &model.estimator else {
        panic!("{model:?}")
    };
    assert_eq!(centres.centres.len(), MADE.clusters);
    assert_close(
        "distance",
        &scores(&model),
        &numbers(&answers["distances"]),
        ITERATED,
    );
    let behind = scores(&staged(EstimatorKind::KMeans, Some(4)));
    assert_close("behind PCA", &behind, &numbers(&answers["behind_pca"]), ITERATED);
    let (rows, _) = train_and_probes();
    let found = kmeans::fit(&model.front.table(&rows), MADE.clusters, 1).expect("fits");
    assert_close(
        "inertia",
        &[found.inertia],
        &[answers["inertia"].as_f64().expect("a number")],
        ITERATED,
    );
}

fn scaled(rows: &Table) -> Table {
    scaler(&moments(rows), 0.0).expect("rows").table(rows)
}

#[test]
fn many_clusters_are_found_as_well() {
    let rows = scaled(&table(&blobs(MADE.seed(5), 600, 8, 10, 4.0)));
    let theirs = answers()["kmeans_many"].as_f64().expect("a number");
    // Whatever is drawn.
    for seed in 0..8 {
        let found = kmeans::fit(&rows, 10, seed).expect("fits");
        assert_close("inertia", &[found.inertia], &[theirs], ITERATED);
    }
}

#[test]
fn of_rows_with_long_tails_a_mixture_is_as_likely() {
    let rows = blobs(MADE.seed(6), 300, 8, 1, 0.0);
    let tails = |row: &Vec<f32>| row.iter().map(|&x| f64::from(x).powi(5) as f32).collect();
    let rows = table(&rows.iter().map(tails).collect::<Vec<_>>());
    let (_, likelihood) = gaussian::fit(&scaled(&rows), 3, 1e-3, 1).expect("fits");
    let theirs = answers()["gaussian_mixture_tails"].as_f64().expect("a number");
    // Where components lie is chance, with them as with us: theirs is the best of ten starts.
    assert!(likelihood > theirs - HILL, "{likelihood} and {theirs}");
}

#[test]
fn silhouettes_are_the_same_and_choose_the_same_k() {
    let (rows, _) = train_and_probes();
    let answers = &answers()["kmeans"];
    let scaled = scaler(&moments(&rows), 0.0).expect("rows").table(&rows);
    let truth: Vec<usize> = (0..MADE.rows).map(|i| i % MADE.clusters).collect();
    let ours = kmeans::Distances::of(&scaled).silhouette(&truth);
    assert_close(
        "truth",
        &[ours],
        &[answers["silhouette_of_truth"].as_f64().expect("a number")],
        ROUNDING,
    );
    let theirs = numbers(&answers["silhouettes"]);
    let most = (0..theirs.len())
        .max_by(|&a, &b| theirs[a].total_cmp(&theirs[b]))
        .expect("some");
    let (best, silhouette) = kmeans::best(&scaled, 1).expect("fits");
    assert_eq!(best.model.centres.len(), most + 2);
    assert_close("silhouette", &[silhouette], &[theirs[most]], ITERATED);
}

#[test]
fn gaussian_mixtures_have_the_same_likelihood_and_memberships() {
    let (rows, probes) = train_and_probes();
    let wide_rows = blobs(MADE.seed(2), 400, 40, 2, 1.5);
    let (wide_train, wide_probes) = wide_rows.split_at(380);
    let answers = answers();
    for (name, rows, probes, k) in [
        ("gaussian_mixture", rows, probes, MADE.clusters),
        (
            "gaussian_mixture_wide",
            table(wide_train),
            wide_probes.to_vec(),
            2,
        ),
    ] {
        let theirs = &answers[name];
        let front = scaler(&moments(&rows), 0.0).expect("rows");
        let (model, likelihood) = gaussian::fit(&front.table(&rows), k, 1e-3, 1).expect("fits");
        let expected = theirs["log_likelihood"].as_f64().expect("a number");
        // Theirs is the best of ten starts. Of other data either may end on another hill.
        assert!(
            likelihood > expected - HILL,
            "{name}: {likelihood} and {expected}"
        );
        if (likelihood - expected).abs() > 1e-3 {
            assert!(!MADE.is_usual(), "{name}: {likelihood} and {expected}");
            continue;
        }
        let (mut logs, mut memberships) = (vec![], vec![]);
        for probe in front.table(&table(&probes)).rows() {
            let mut shares = vec![0.0; k];
            logs.push(f64::from(model.log_density(probe, &mut shares)));
            shares.sort_by(f32::total_cmp);
            memberships.extend(wide(&shares));
        }
        assert_close(name, &logs, &numbers(&theirs["scores"]), ITERATED);
        let shares = theirs["memberships"].as_array().expect("rows");
        let shares: Vec<f64> = shares.iter().flat_map(numbers).collect();
        assert_close(name, &memberships, &shares, 0.01);
    }
}

#[test]
fn cross_validation_chooses_as_many_gaussians_as_made_the_rows() {
    let (rows, _) = train_and_probes();
    let model = staged(EstimatorKind::GaussianMixture, Some(4));
    let VectorEstimator::GaussianMixture(mixture) = &model.estimator else {
        panic!("{model:?}")
    };
    // No more than four are tried.
    assert_eq!(mixture.components.len(), MADE.clusters.min(4));
    assert_eq!(rows.len(), MADE.rows);
}

#[test]
fn local_outlier_factors_of_new_rows() {
    let (rows, probes) = train_and_probes();
    let front = scaler(&moments(&rows), 0.0).expect("rows");
    let model = lof::fit(&front.table(&rows), 20, 1e-10, 1).expect("fits");
    let staged = Staged {
        front,
        estimator: VectorEstimator::Lof(model),
    };
    let ours: Vec<f64> = probes.iter().map(|p| f64::from(staged.score(p))).collect();
    assert_close("factor", &ours, &numbers(&answers()["lof"]), ROUNDING);
}

#[test]
fn dbscan_finds_the_same_core_and_the_same_clusters() {
    let (rows, probes) = train_and_probes();
    let answers = &answers()["dbscan"];
    let front = scaler(&moments(&rows), 0.0).expect("rows");
    let scaled = front.table(&rows);
    let eps = answers["eps"].as_f64().expect("a number") as f32;
    let found = dbscan::find(&scaled, eps, 10);
    let whole = |values: Vec<f64>| values.into_iter().map(|x| x as i64).collect::<Vec<_>>();
    let core: Vec<i64> = found.core.iter().map(|&i| i as i64).collect();
    assert_eq!(core, whole(numbers(&answers["core"])));
    let labels: Vec<i64> = found
        .labels
        .iter()
        .map(|label| label.map_or(-1, |l| l as i64))
        .collect();
    assert_eq!(labels, whole(numbers(&answers["labels"])));
    let points = found.core.iter().flat_map(|&i| scaled.row(i)).copied().collect();
    let staged = Staged {
        front,
        estimator: VectorEstimator::Dbscan(Dbscan {
            core: Table::new(rows.width(), points),
            eps,
        }),
    };
    let ours: Vec<f64> = probes.iter().map(|p| f64::from(eps * staged.score(p))).collect();
    assert_close("distance", &ours, &numbers(&answers["distances"]), ROUNDING);
}

/// Three classes that overlap, as in `make.py`.
fn noisy() -> (Vec<Vec<f32>>, Vec<u8>) {
    let rows = blobs(MADE.seed(3), MADE.rows + 40, MADE.width, 3, 0.6);
    let classes = (0..rows.len()).map(|i| (i % 3) as u8).collect();
    (rows, classes)
}

#[test]
fn a_forest_of_scikit_learns_scores_the_same_here() {
    let answers = &answers()["random_forest"];
    let mut forest = ClassTrees {
        roots: vec![],
        nodes: vec![],
    };
    for tree in answers["trees"].as_array().expect("trees") {
        let first = forest.nodes.len();
        forest.roots.push(first as u32);
        let lists = ["feature", "threshold", "left", "right"].map(|key| numbers(&tree[key]));
        for (i, shares) in tree["value"].as_array().expect("rows").iter().enumerate() {
            let [feature, threshold, left, right] = [0, 1, 2, 3].map(|list: usize| lists[list][i]);
            forest.nodes.push(if left < 0.0 {
                let shares = numbers(shares);
                TreeNode::Leaf([shares[0] as f32, shares[1] as f32, shares[2] as f32])
            } else {
                TreeNode::Split {
                    feature: feature as u16,
                    threshold: threshold as f32,
                    left: (first + left as usize) as u32,
                    right: (first + right as usize) as u32,
                }
            });
        }
    }
    let (rows, _) = noisy();
    let ours: Vec<f64> = rows[MADE.rows..]
        .iter()
        .flat_map(|row| wide(&forest.classes(row)))
        .collect();
    let theirs = answers["small"].as_array().expect("rows");
    let theirs: Vec<f64> = theirs.iter().flat_map(numbers).collect();
    assert_close("probability", &ours, &theirs, ROUNDING);
    let staged = Staged {
        front: Front {
            mean: vec![0.0; MADE.width],
            scale: vec![1.0; MADE.width],
            projection: None,
        },
        estimator: VectorEstimator::RandomForest(forest),
    };
    assert_eq!(staged.check(MADE.width), Ok(()));
}

#[test]
fn a_forest_grown_here_gives_the_probabilities_of_one_grown_there() {
    let (rows, classes) = noisy();
    let growth = Growth {
        trees: 500,
        depth: 12,
        leaf: 1,
        seed: 1,
    };
    let forest = trees::grow(&table(&rows[..MADE.rows]), &classes[..MADE.rows], growth).expect("grows");
    let theirs = &answers()["random_forest"]["large"];
    let (mut apart, mut count) = (0.0, 0.0);
    for (row, theirs) in rows[MADE.rows..].iter().zip(theirs.as_array().expect("rows")) {
        for (ours, theirs) in wide(&forest.classes(row)).iter().zip(numbers(theirs)) {
            // Two of scikit-learn's own forests of 500 trees with different seeds differ by up to .11.
            assert!((ours - theirs).abs() < 0.13, "{ours} and {theirs}");
            apart += (ours - theirs).abs();
            count += 1.0;
        }
    }
    // And by .02 in the mean.
    assert!(apart / count < 0.03, "{}", apart / count);
}

fn layers(value: &serde_json::Value) -> Vec<Layer> {
    let list = |value| numbers(value).into_iter().map(|x| x as f32).collect();
    let layers = value["layers"].as_array().expect("layers");
    layers
        .iter()
        .map(|layer| Layer {
            weights: list(&layer["weights"]),
            bias: list(&layer["bias"]),
        })
        .collect()
}

#[test]
fn an_autoencoder_of_scikit_learns_scores_the_same_here() {
    let (rows, probes) = train_and_probes();
    let answers = &answers()["autoencoder"];
    let front = scaler(&moments(&rows), 0.0).expect("rows");
    let of = |model| Staged {
        front: front.clone(),
        estimator: VectorEstimator::Mlp(model),
    };
    let theirs = of(Mlp {
        layers: layers(answers),
        head: Head::Reconstruction,
    });
    assert_eq!(theirs.check(MADE.width), Ok(()));
    let scored: Vec<f64> = probes.iter().map(|p| f64::from(theirs.score(p))).collect();
    assert_close("error", &scored, &numbers(&answers["errors"]), ROUNDING);
}

#[test]
fn a_classifying_network_of_scikit_learns_gives_the_same_here() {
    let (rows, _) = noisy();
    let answers = &answers()["mlp_classifier"];
    let train = table(&rows[..MADE.rows]);
    let front = scaler(&moments(&train), 0.0).expect("rows");
    let probes = front.table(&table(&rows[MADE.rows..]));
    let theirs = Mlp {
        layers: layers(answers),
        head: Head::Classes,
    };
    let given: Vec<f64> = probes.rows().flat_map(|row| wide(&theirs.classes(row))).collect();
    let expected = answers["probabilities"].as_array().expect("rows");
    let expected: Vec<f64> = expected.iter().flat_map(numbers).collect();
    assert_close("probability", &given, &expected, ROUNDING);
}

#[test]
fn networks_trained_here_are_as_good_as_those_trained_there() {
    let (rows, _) = train_and_probes();
    let front = scaler(&moments(&rows), 0.0).expect("rows");
    let model = mlp::autoencoder(&front.table(&rows), 1).expect("trains");
    let ours = Staged {
        front,
        estimator: VectorEstimator::Mlp(model),
    };
    let error: f64 = rows.rows().map(|row| f64::from(ours.score(row))).sum::<f64>() / MADE.rows as f64;
    let theirs = answers()["autoencoder"]["training_error"]
        .as_f64()
        .expect("a number");
    assert!(error < 1.15 * theirs, "{error} and {theirs}");

    let (rows, classes) = noisy();
    let train = table(&rows[..MADE.rows]);
    let front = scaler(&moments(&train), 0.0).expect("rows");
    let model = mlp::classifier(&front.table(&train), &classes[..MADE.rows], 1).expect("trains");
    let probes = front.table(&table(&rows[MADE.rows..]));
    let right = probes.rows().zip(&classes[MADE.rows..]).filter(|(row, class)| {
        let shares = model.classes(row);
        (0..3).all(|c| shares[c] <= shares[usize::from(**class)])
    });
    let accuracy = right.count() as f64 / 40.0;
    let theirs = answers()["mlp_classifier"]["accuracy"]
        .as_f64()
        .expect("a number");
    assert!(accuracy > theirs - 0.1, "{accuracy} and {theirs}");
}
