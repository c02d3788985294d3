//! Each estimator beside scikit-learn's on the same rows. Tolerances are relative, or absolute below 1.

use crate::support::{
    CLUSTERS, ROWS, answers, assert_close, fitted, moments, numbers, settings, train_and_probes,
};
use vigia_model::estimators::vector::{Staged, VectorEstimator};
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::estimators::kmeans;
use vigia_trainer::estimators::scaling::{Components, scaler};

/// What `f32` costs where sums are the same.
const ROUNDING: f64 = 1e-4;
/// Where two iterations stop at slightly different places.
const ITERATED: f64 = 5e-3;

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
    assert_eq!(centres.centres.len(), CLUSTERS);
    assert_close(
        "distance",
        &scores(&model),
        &numbers(&answers["distances"]),
        ITERATED,
    );
    let behind = scores(&staged(EstimatorKind::KMeans, Some(4)));
    assert_close("behind PCA", &behind, &numbers(&answers["behind_pca"]), ITERATED);
    let (rows, _) = train_and_probes();
    let found = kmeans::fit(&model.front.table(&rows), CLUSTERS, 1).expect("fits");
    assert_close(
        "inertia",
        &[found.inertia],
        &[answers["inertia"].as_f64().expect("a number")],
        ITERATED,
    );
}

#[test]
fn silhouettes_are_the_same_and_choose_the_same_k() {
    let (rows, _) = train_and_probes();
    let answers = &answers()["kmeans"];
    let scaled = scaler(&moments(&rows), 0.0).expect("rows").table(&rows);
    let truth: Vec<usize> = (0..ROWS).map(|i| i % CLUSTERS).collect();
    let ours = kmeans::silhouette(&scaled, &truth, 1);
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
