//! TrainingRun: one training, from the choice of windows to a signed ModelVersion.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::LocalRef;

/// One training. Its spec cannot be changed.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "vigia.dev",
    version = "v1alpha1",
    kind = "TrainingRun",
    plural = "trainingruns",
    shortname = "tr",
    category = "vigia",
    namespaced,
    status = "TrainingRunStatus",
    derive = "PartialEq",
    doc = "TrainingRun is one training of a Model: windows, workers, gates, and the ModelVersion it made.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Windows", type_ = "integer", json_path = ".status.windows"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.modelVersion"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("a TrainingRun's name labels its Job: write at most 63 characters")
)]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("a TrainingRun cannot be changed: create another one"))]
#[x_kube(validation = sees_injected())]
#[x_kube(validation = enough_windows())]
#[serde(rename_all = "camelCase")]
pub struct TrainingRunSpec {
    /// The Model to train.
    pub model_ref: LocalRef,
    /// Why it was started: one CamelCase word. A policy writes ColdStart or Drift.
    #[serde(default = "manual")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Z][A-Za-z0-9]*$')")
        .message("reason is one word for people and scripts: write letters and digits after a capital, for example BlackFriday"))]
    pub reason: String,
    /// What is fitted.
    #[serde(default)]
    pub estimator: Estimator,
    /// Worker pods, each with a shard of its own. Between 1 and 16.
    #[serde(default = "default_workers")]
    #[schemars(range(min = 1, max = 16))]
    pub workers: i32,
    /// Which windows.
    #[serde(default)]
    pub data: DataWindow,
    /// What must hold for the result to be signed.
    #[serde(default = "crate::default_gates")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(g, self.exists_one(h, h.metric == g.metric && has(h.atMost) == has(g.atMost)))")
        .message("gates bounds a metric twice on the same side: write one gate for each bound"))]
    #[x_kube(validation = bounds_meet())]
    pub gates: Vec<TrainingGate>,
    /// It has failed when its training takes longer, and half a minute more in which what is done may
    /// still be handed over. A Go duration between 30s and 24h.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("30s", "24h")
        .message("timeout must be a duration between 30s and 24h, for example 30m"))]
    pub timeout: Duration,
}

fn manual() -> String {
    "Manual".to_owned()
}

pub(crate) fn default_workers() -> i32 {
    2
}

pub(crate) fn default_timeout() -> Duration {
    std::time::Duration::from_secs(1800).into()
}

/// What is fitted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.components) || size(self.types) == 0 || self.types.exists(t, !(t in ['Deviation', 'IsolationForest', 'Novelty', 'ZScore', 'NGram', 'NGramPeak', 'STIDE', 'ETS', 'ARIMA']))")
    .message("estimator.components stand in front of estimators that measure distances: name one in types, for example KMeans or PCA"))]
#[serde(rename_all = "camelCase")]
pub struct Estimator {
    /// The estimators of the model, each once; several make an ensemble. Between 1 and 8.
    #[serde(default = "default_types")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("size(self) > 0")
        .message("types names no estimator: write for example [Deviation, IsolationForest], or leave types out"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub types: Vec<EstimatorType>,
    /// Principal components in front of the estimators that measure distances, and those that PCA
    /// keeps. Behind the components, the distance from their plane is one more value: what training never saw has no
    /// part in any. Absent: no projection, and PCA keeps what explains 95 % of the variance. Between 1 and 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub components: Option<i32>,
    /// Trees of the whole isolation forest; workers share them evenly. Between 10 and 500.
    #[serde(default = "default_trees")]
    #[schemars(range(min = 10, max = 500))]
    pub trees: i32,
    /// Windows that each tree of it sees (ψ of Liu, Ting and Zhou 2008). Between 16 and 256.
    #[serde(default = "default_sample_size")]
    #[schemars(range(min = 16, max = 256))]
    pub sample_size: i32,
    /// The same data and seed give the same bytes.
    #[serde(default = "default_seed")]
    pub seed: i64,
}

fn default_types() -> Vec<EstimatorType> {
    vec![
        EstimatorType::Deviation,
        EstimatorType::IsolationForest,
        EstimatorType::Novelty,
    ]
}

fn default_trees() -> i32 {
    100
}

fn default_sample_size() -> i32 {
    256
}

fn default_seed() -> i64 {
    42
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            types: default_types(),
            components: None,
            trees: default_trees(),
            sample_size: default_sample_size(),
            seed: default_seed(),
        }
    }
}

/// The kinds of estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum EstimatorType {
    /// Surprise of each system call on its own; sees what training never saw.
    Deviation,
    /// Isolation forest.
    IsolationForest,
    /// Largest standardised deviation of one feature.
    ZScore,
    /// Distance from the plane of the principal components.
    #[serde(rename = "PCA")]
    Pca,
    /// Distance to the nearest cluster's centre; as many clusters as have the best silhouette.
    KMeans,
    /// Density under Gaussians with full covariances; as many as cross-validation finds best.
    GaussianMixture,
    /// Local outlier factor among up to 512 remembered windows.
    #[serde(rename = "LOF")]
    Lof,
    /// Distance to the nearest core point of DBSCAN's clusters.
    #[serde(rename = "DBSCAN")]
    Dbscan,
    /// Classification trees, taught with windows that are made from normal ones to be suspicious
    /// and malicious.
    RandomForest,
    /// Error of a network that learnt to give back normal windows.
    Autoencoder,
    /// A network taught as the random forest is.
    #[serde(rename = "MLPClassifier")]
    MlpClassifier,
    /// Surprise of which calls come right after which; of windows in capture modes Sampled and Full.
    #[serde(rename = "NGram")]
    Ngram,
    /// Surprise of a window's forty oddest calls alone, by the same model: sees what somebody does inside a busy process, and
    /// what a program does rarely; likewise.
    #[serde(rename = "NGramPeak")]
    NgramPeak,
    /// Share of a window's sequences of calls that training never saw; likewise.
    #[serde(rename = "STIDE")]
    Stide,
    /// Error of a forecast of the rate of calls by exponential smoothing with a damped trend.
    #[serde(rename = "ETS")]
    Ets,
    /// Error of a forecast of the rate of calls by an autoregression of it, or of its changes.
    #[serde(rename = "ARIMA")]
    Arima,
    /// How many kinds of calls a window shows that training never saw, whatever the rates of the others are.
    Novelty,
}

/// What is asked of gates: that a value can hold both bounds of a metric. What is no decimal is refused by itself.
pub(crate) fn bounds_meet() -> kube::core::Rule {
    kube::core::Rule::new(
        "self.all(g, !has(g.atMost) || !g.atMost.matches('^[0-9]+([.][0-9]+)?$') || self.all(h, h.metric != g.metric || !has(h.atLeast) || !h.atLeast.matches('^[0-9]+([.][0-9]+)?$') || double(h.atLeast) <= double(g.atMost)))",
    )
    .message("gates bounds a metric by an atLeast above its atMost, which no value holds: lower atLeast, or raise atMost")
}

/// What is asked of a spec that has estimators and gates.
pub(crate) fn sees_injected() -> kube::core::Rule {
    kube::core::Rule::new(
        "size(self.estimator.types) == 0 || self.estimator.types.exists(t, !(t in ['IsolationForest', 'ETS', 'ARIMA'])) || !self.gates.exists(g, g.metric == 'InjectionRecall')",
    )
    .message(
        "IsolationForest, ETS and ARIMA alone see none of the new calls that InjectionRecall injects: add Novelty to estimator.types, or write gates without InjectionRecall",
    )
}

/// Windows that are held out from training, at least.
pub const HOLDOUT_WINDOWS: u32 = 30;
/// Windows of each worker's shard, at least.
pub const SHARD_WINDOWS: u32 = 8;

/// What is asked of a spec that has workers and data: that a run may take as many windows as it needs.
pub(crate) fn enough_windows() -> kube::core::Rule {
    kube::core::Rule::new(format!(
        "self.data.maxWindows >= {HOLDOUT_WINDOWS} + {SHARD_WINDOWS} * self.workers"
    ))
    .message(
        format!("data.maxWindows is too few for so many workers, who need {HOLDOUT_WINDOWS} and {SHARD_WINDOWS} for each of them: raise it, or lower workers").as_str(),
    )
}

/// A time as RFC 3339 has it, with its letters in upper case.
const TIME: &str =
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";

/// Which windows a run trains on: those of the Model's profiles that raised no alert.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.minWindows <= self.maxWindows")
    .message("data.minWindows is above data.maxWindows: raise the latter"))]
#[x_kube(validation = Rule::new("!has(self.since) || !has(self.until) || self.since < self.until")
    .message("data.since must be before data.until"))]
#[x_kube(validation = Rule::new("(!has(self.since) || self.since < timestamp('2200-01-01T00:00:00Z')) && (!has(self.until) || self.until < timestamp('2200-01-01T00:00:00Z'))")
    .message("data.since and data.until must be before the year 2200: leave them out for no bound"))]
#[serde(rename_all = "camelCase")]
pub struct DataWindow {
    /// Not before. As 2026-01-31T08:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = TIME))]
    pub since: Option<Time>,
    /// Not after. As 2026-01-31T08:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = TIME))]
    pub until: Option<Time>,
    /// At least so many, or the run fails. Between 50 and 200000.
    #[serde(default = "default_min_windows")]
    #[schemars(range(min = 50, max = 200000))]
    pub min_windows: i32,
    /// At most so many, the newest. Between 50 and 200000.
    #[serde(default = "default_max_windows")]
    #[schemars(range(min = 50))]
    #[x_kube(validation = Rule::new("self <= 200000")
        .message("maxWindows must be at most 200000: the operator holds all of them in memory"))]
    pub max_windows: i32,
    /// Train also on windows that raised an alert: after drift they are the new normal.
    #[serde(default)]
    pub include_alerted: bool,
}

fn default_min_windows() -> i32 {
    500
}

fn default_max_windows() -> i32 {
    100_000
}

impl Default for DataWindow {
    fn default() -> Self {
        Self {
            since: None,
            until: None,
            min_windows: default_min_windows(),
            max_windows: default_max_windows(),
            include_alerted: false,
        }
    }
}

/// A bound on a metric of validation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.atMost) != has(self.atLeast)")
    .message("a gate has one bound: write either atMost or atLeast"))]
#[x_kube(validation = Rule::new("(!has(self.atMost) || !self.atMost.matches('^[0-9]+([.][0-9]+)?$') || double(self.atMost) < 1.0) && (!has(self.atLeast) || !self.atLeast.matches('^[0-9]+([.][0-9]+)?$') || double(self.atLeast) > 0.0 && double(self.atLeast) <= 1.0)")
    .message("HoldoutExceedance and InjectionRecall are shares, and a gate must be able to fail: write atMost from \"0\" to below \"1\", or atLeast above \"0\" and up to \"1\", for example \"0.9\""))]
#[serde(rename_all = "camelCase")]
pub struct TrainingGate {
    /// What is measured, on windows held out from training.
    pub metric: TrainingMetric,
    /// Fails above. A decimal such as "0.05".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+([.][0-9]+)?$')")
        .message("atMost must be a decimal in quotes, for example \"0.05\""))]
    pub at_most: Option<String>,
    /// Fails below. A decimal such as "0.9".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+([.][0-9]+)?$')")
        .message("atLeast must be a decimal in quotes, for example \"0.9\""))]
    pub at_least: Option<String>,
}

/// What validation measures on held-out windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum TrainingMetric {
    /// Share of held-out windows with a p-value below .01; about .01 when calibration holds.
    HoldoutExceedance,
    /// Share of held-out windows that are flagged (p-value below .01) after a few system calls
    /// that training never saw are added to them.
    InjectionRecall,
}

/// The gates of a run that names none.
pub fn default_gates() -> Vec<TrainingGate> {
    vec![
        TrainingGate {
            metric: TrainingMetric::HoldoutExceedance,
            at_most: Some("0.1".to_owned()),
            at_least: None,
        },
        TrainingGate {
            metric: TrainingMetric::InjectionRecall,
            at_most: None,
            at_least: Some("0.9".to_owned()),
        },
    ]
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingRunStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RunPhase>,
    /// Windows chosen.
    #[serde(default)]
    pub windows: i64,
    /// Digest of the windows chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_digest: Option<String>,
    /// Workers done of workers, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<String>,
    /// Digest of the trainer's unsigned output, as it was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_digest: Option<String>,
    /// Metrics of validation, decimals as text.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub metrics: BTreeMap<String, String>,
    /// Name of the ModelVersion that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_version: Option<String>,
    /// When the Job was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it succeeded or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// When each phase began, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub phases: Vec<PhaseBegun>,
    /// The run's span as W3C trace context, where the operator has an OTLP endpoint: its second part is the trace to
    /// look for. A run with the annotation vigia.dev/traceparent is a part of that trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`, `WindowsScored`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// When a run came to a phase.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseBegun {
    /// The phase.
    pub phase: RunPhase,
    /// When it began.
    pub at: MicroTime,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RunPhase {
    /// It waits for its turn; the `Ready` condition says for what.
    Queued,
    /// Windows are chosen and written as shards.
    Preparing,
    /// The Job's workers train.
    Training,
    /// The output is checked against the gates.
    Validating,
    /// The output is signed and stored, and the ModelVersion created.
    Signing,
    /// There is a ModelVersion.
    Succeeded,
    /// It ended without one; the `Ready` condition says why.
    Failed,
}
