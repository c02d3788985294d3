//! RetrainingPolicy: what counts as degradation, and how to train when it is seen.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Estimator, LocalRef, TrainingGate};

/// When to train a Model again, and how.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "vigia.dev",
    version = "v1alpha1",
    kind = "RetrainingPolicy",
    plural = "retrainingpolicies",
    shortname = "rp",
    category = "vigia",
    namespaced,
    status = "RetrainingPolicyStatus",
    derive = "PartialEq",
    doc = "RetrainingPolicy says what counts as degradation of a Model and how to train it again.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Windows", type_ = "integer", json_path = ".status.windows"),
    printcolumn(name = "Last-Run", type_ = "string", json_path = ".status.lastRun.name"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.lastRun.reason"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 52")
        .message("the name of a RetrainingPolicy may have 52 characters, since its runs are named after it: write a shorter one")
)]
#[serde(rename_all = "camelCase")]
pub struct RetrainingPolicySpec {
    /// The Model to train.
    pub model_ref: LocalRef,

    /// Train a first version once there are enough windows. Absent: never by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,

    /// Train when the serving version's scores have moved. Absent: never for that reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftTrigger>,

    /// Least time between the starts of two runs; a failed one doubles it, up to 24 hours. Not waited for once: where the
    /// artifact of the version that serves is lost, where that version scores no window since spec.capture was changed, and
    /// where a first version failed and there are twice the windows that it had: one such try between two cooldowns, and
    /// with historyLimit 1 one until a run succeeds. A Go duration between 10s and 720h.
    #[serde(default = "default_cooldown")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("10s", "720h")
        .message("cooldown must be a duration between 10s and 720h, for example 1h"))]
    pub cooldown: Duration,

    /// Start nothing while true.
    #[serde(default)]
    pub suspend: bool,

    /// Runs of this policy that are kept once they are over: so many of those that succeeded and of those that
    /// failed, the newest. Older ones are deleted; the ModelVersions that they made go by the Model's historyLimit.
    /// Between 1 and 100.
    #[serde(default = "default_history")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: i32,

    /// How to train.
    #[serde(default)]
    pub training: TrainingTemplate,
}

fn default_history() -> i32 {
    3
}

fn default_cooldown() -> Duration {
    std::time::Duration::from_secs(3600).into()
}

/// When there is enough for a first version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ColdStart {
    /// Windows collected before the first training, or training.data.minWindows where that is more. Between 50 and
    /// 1000000.
    #[serde(default = "default_min_windows")]
    #[schemars(range(min = 50, max = 1000000))]
    pub min_windows: i32,
}

fn default_min_windows() -> i32 {
    2000
}

/// When scores have moved far enough, for long enough.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.metric != 'JensenShannon' || !self.above.matches('^[0-9]+([.][0-9]+)?$') || double(self.above) < 1.0")
    .message("above must be below 1 for JensenShannon, which is never more: write for example \"0.1\""))]
#[serde(rename_all = "camelCase")]
pub struct DriftTrigger {
    /// The effect size that is compared.
    #[serde(default)]
    pub metric: DriftMetric,
    /// Drifted above this. A decimal above 0, such as "0.1".
    #[serde(default = "default_drift")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+([.][0-9]+)?$')")
        .message("above must be a decimal in quotes, for example \"0.1\""))]
    #[x_kube(validation = Rule::new("!self.matches('^[0.]+$')")
        .message("above must be more than 0, since no two samples of scores are quite alike: write for example \"0.1\""))]
    pub above: String,
    /// Windows in one evaluation before it decides.
    #[serde(default = "default_drift_samples")]
    #[schemars(range(min = 20, max = 1000000))]
    pub min_samples: i32,
    /// Evaluations in a row that must be above.
    #[serde(default = "default_consecutive")]
    #[schemars(range(min = 1, max = 100))]
    pub consecutive: i32,
    /// Length of one evaluation. A Go duration between 5s and 24h.
    #[serde(default = "default_every")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("5s", "24h")
        .message("every must be a duration between 5s and 24h, for example 10m"))]
    pub every: Duration,
}

fn default_drift() -> String {
    "0.1".to_owned()
}

fn default_drift_samples() -> i32 {
    500
}

fn default_consecutive() -> i32 {
    3
}

fn default_every() -> Duration {
    std::time::Duration::from_secs(600).into()
}

/// An effect size between two distributions of scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DriftMetric {
    /// Jensen-Shannon divergence, base 2: 0 is alike, 1 is disjoint.
    #[default]
    JensenShannon,
    /// Population stability index: .1 is small, .25 is large.
    PopulationStability,
}

/// How to train; copied into each TrainingRun.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = crate::trainingrun::sees_injected())]
#[x_kube(validation = crate::trainingrun::enough_windows())]
#[serde(rename_all = "camelCase")]
pub struct TrainingTemplate {
    /// What is fitted.
    #[serde(default)]
    pub estimator: Estimator,
    /// Worker pods, each with a shard of the windows of its own. Between 1 and 16.
    #[serde(default = "crate::trainingrun::default_workers")]
    #[schemars(range(min = 1, max = 16))]
    pub workers: i32,
    /// Windows to train on.
    #[serde(default)]
    pub data: TemplateData,
    /// What must hold for the result to be signed.
    #[serde(default = "crate::default_gates")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(g, self.exists_one(h, h.metric == g.metric && has(h.atMost) == has(g.atMost)))")
        .message("gates bounds a metric twice on the same side: write one gate for each bound"))]
    #[x_kube(validation = crate::trainingrun::bounds_meet())]
    pub gates: Vec<TrainingGate>,
    /// A run has failed when its training takes longer, and half a minute more in which what is done may
    /// still be handed over. A Go duration between 30s and 24h.
    #[serde(default = "crate::trainingrun::default_timeout")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("30s", "24h")
        .message("timeout must be a duration between 30s and 24h, for example 30m"))]
    pub timeout: Duration,
}

impl Default for TrainingTemplate {
    fn default() -> Self {
        Self {
            estimator: Estimator::default(),
            workers: crate::trainingrun::default_workers(),
            data: TemplateData::default(),
            gates: crate::default_gates(),
            timeout: crate::trainingrun::default_timeout(),
        }
    }
}

/// Which windows a policy's runs train on. After drift, only those since it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.minWindows <= self.maxWindows")
    .message("data.minWindows is above data.maxWindows: raise the latter"))]
#[serde(rename_all = "camelCase")]
pub struct TemplateData {
    /// Not older than this. A Go duration between 1m and 2160h.
    #[serde(default = "default_lookback")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("1m", "2160h")
        .message("lookback must be a duration between 1m and 2160h, for example 168h"))]
    pub lookback: Duration,
    /// At least so many, or the run waits. Between 50 and 200000.
    #[serde(default = "default_template_min")]
    #[schemars(range(min = 50, max = 200000))]
    pub min_windows: i32,
    /// At most so many, the newest. Between 50 and 200000.
    #[serde(default = "default_template_max")]
    #[schemars(range(min = 50))]
    #[x_kube(validation = Rule::new("self <= 200000")
        .message("maxWindows must be at most 200000: the operator holds all of them in memory"))]
    pub max_windows: i32,
}

impl Default for TemplateData {
    fn default() -> Self {
        Self {
            lookback: default_lookback(),
            min_windows: default_template_min(),
            max_windows: default_template_max(),
        }
    }
}

fn default_lookback() -> Duration {
    std::time::Duration::from_secs(7 * 86_400).into()
}

fn default_template_min() -> i32 {
    500
}

fn default_template_max() -> i32 {
    100_000
}

/// What the policy has seen and started.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrainingPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Windows kept for the next run, which leaves out those that raised an alert or have another length than the
    /// profile's present one; rounded down to two digits so that a status does not change with each window.
    #[serde(default)]
    pub windows: i64,
    /// The last run that this policy started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// When the first of the present row of drifted evaluations began; a run trains on what came
    /// after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drifted_since: Option<Time>,
    /// Evaluations in a row above the threshold.
    #[serde(default)]
    pub drifted_evaluations: i32,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A run that a policy started.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Name of the TrainingRun.
    pub name: String,
    /// Why: `ColdStart`, `Drift`, `ArtifactLost` or `CaptureChanged`.
    pub reason: String,
    /// When it was started.
    pub started_at: Time,
}
