//! What a run trains on and how: fixed before its Job starts, and what its workers are told.

use serde::{Deserialize, Serialize};
use vigia_crds::{EstimatorType, LocalRef, TrainingRun};
use vigia_model::pipeline::EstimatorKind;
use vigia_proto::v1::RunPlan;

/// Name of the held-out windows among the run's files in the store.
pub const HOLDOUT: &str = "holdout";

/// Name of a worker's shard among the run's files in the store.
pub fn shard_name(rank: u32) -> String {
    format!("shard-{rank}")
}

/// A prepared run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Name of the Model.
    pub model: String,
    /// The Model's task, as artifacts name it.
    pub task: String,
    /// Workers, each with a shard.
    pub workers: u32,
    /// Kinds of estimator, as artifacts name them; none in a run from before there was a choice.
    #[serde(default)]
    pub estimators: Vec<String>,
    /// Principal components in front of them; 0 for none.
    #[serde(default)]
    pub components: u32,
    /// Trees of the whole forest.
    pub trees: u32,
    /// Windows that each tree sees.
    pub sample_size: u32,
    /// Seed of the fit.
    pub seed: u64,
    /// Hash of the feature schema of all windows.
    pub schema: String,
    /// Digest of all windows, shards and held-out part.
    pub data_digest: String,
    /// Number of all windows.
    pub windows: u64,
    /// How many of them no version had scored, when they came.
    #[serde(default)]
    pub unscored: u64,
    /// Lengths of the windows, as their profiles have them; none in a run from before they were kept.
    #[serde(default)]
    pub window_ms: Vec<i64>,
    /// By which filters the windows were made; none in a run from before that was kept.
    #[serde(default)]
    pub captures: Vec<String>,
    /// When the run was created; goes into the artifact.
    pub created_unix_ms: i64,
}

/// The API's name of an estimator, as trainers and artifacts have it.
pub(super) const fn kind_of(kind: EstimatorType) -> EstimatorKind {
    match kind {
        EstimatorType::Deviation => EstimatorKind::Deviation,
        EstimatorType::IsolationForest => EstimatorKind::IsolationForest,
        EstimatorType::ZScore => EstimatorKind::ZScore,
        EstimatorType::Pca => EstimatorKind::Pca,
        EstimatorType::KMeans => EstimatorKind::KMeans,
        EstimatorType::GaussianMixture => EstimatorKind::GaussianMixture,
        EstimatorType::Lof => EstimatorKind::Lof,
        EstimatorType::Dbscan => EstimatorKind::Dbscan,
        EstimatorType::RandomForest => EstimatorKind::RandomForest,
        EstimatorType::Autoencoder => EstimatorKind::Autoencoder,
        EstimatorType::MlpClassifier => EstimatorKind::MlpClassifier,
        EstimatorType::Ngram => EstimatorKind::Ngram,
        EstimatorType::NgramPeak => EstimatorKind::NgramPeak,
        EstimatorType::Stide => EstimatorKind::Stide,
        EstimatorType::Ets => EstimatorKind::Ets,
        EstimatorType::Arima => EstimatorKind::Arima,
        EstimatorType::Novelty => EstimatorKind::Novelty,
    }
}

impl Prepared {
    /// Its name among the run's documents in the store. It is written last of what a run is
    /// prepared with, so where it is, the shards are whole.
    pub const NAME: &str = "plan";

    /// What a run over these windows is told.
    pub fn new(run: &TrainingRun, task: &str, schema: &str, data_digest: &str, windows: u64) -> Self {
        let LocalRef { name: model } = run.spec.model_ref.clone();
        let estimator = &run.spec.estimator;
        // The API server holds these within their ranges; a value from before a rule is taken as its least.
        let at_least_one = |n: i32| u32::try_from(n).unwrap_or(1).max(1);
        Self {
            model,
            task: task.to_owned(),
            workers: at_least_one(run.spec.workers),
            estimators: estimator
                .types
                .iter()
                .map(|&kind| kind_of(kind).to_string())
                .collect(),
            components: estimator.components.map_or(0, at_least_one),
            trees: at_least_one(estimator.trees),
            sample_size: at_least_one(estimator.sample_size),
            seed: estimator.seed.unsigned_abs(),
            schema: schema.to_owned(),
            data_digest: data_digest.to_owned(),
            windows,
            unscored: 0,
            window_ms: vec![],
            captures: vec![],
            created_unix_ms: run
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |at| at.0.as_millisecond()),
        }
    }

    /// What a worker of the run is told; that there is no output yet.
    pub fn plan(&self, namespace: &str, run: &str) -> RunPlan {
        RunPlan {
            namespace: namespace.to_owned(),
            run: run.to_owned(),
            model: self.model.clone(),
            task: self.task.clone(),
            workers: self.workers,
            trees: self.trees,
            sample_size: self.sample_size,
            seed: self.seed,
            schema: self.schema.clone(),
            data_digest: self.data_digest.clone(),
            windows: self.windows,
            created_unix_ms: self.created_unix_ms,
            submitted: false,
            estimators: self.estimators.clone(),
            components: self.components,
            captures: self.captures.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(estimator: serde_json::Value) -> RunPlan {
        let run: TrainingRun = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"modelRef": {"name": "m"}, "estimator": estimator},
        }))
        .expect("a TrainingRun");
        Prepared::new(&run, "Anomaly", "s", "d", 9).plan("shop", "r")
    }

    #[test]
    fn workers_are_told_which_estimators_to_train() {
        let usual = plan(json!({}));
        assert_eq!(usual.estimators, ["deviation", "isolation-forest", "novelty"]);
        assert_eq!((usual.components, usual.trees), (0, 100));
        let types = [
            "Deviation",
            "IsolationForest",
            "ZScore",
            "PCA",
            "KMeans",
            "GaussianMixture",
            "LOF",
            "DBSCAN",
            "RandomForest",
            "Autoencoder",
            "MLPClassifier",
            "NGram",
            "NGramPeak",
            "STIDE",
            "ETS",
            "ARIMA",
            "Novelty",
        ];
        let all = plan(json!({"types": types, "components": 8}));
        assert_eq!(all.estimators, EstimatorKind::ALL.map(|kind| kind.to_string()));
        assert_eq!(types, EstimatorKind::ALL.map(EstimatorKind::api_name));
        assert_eq!(all.components, 8);
    }

    #[test]
    fn a_run_prepared_before_there_was_a_choice_is_still_read() {
        let prepared: Prepared = serde_json::from_value(json!({
            "model": "m", "task": "Anomaly", "workers": 2, "trees": 10, "sample_size": 16, "seed": 1,
            "schema": "s", "data_digest": "d", "windows": 9, "created_unix_ms": 0,
        }))
        .expect("a plan");
        assert!(prepared.plan("shop", "r").estimators.is_empty());
    }
}
