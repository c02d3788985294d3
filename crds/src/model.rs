//! Model: a task, the version that should serve it, and how a new version reaches the nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What should serve, and how a new version is rolled out.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "vigia.dev",
    version = "v1alpha1",
    kind = "Model",
    plural = "models",
    shortname = "vm",
    category = "vigia",
    namespaced,
    status = "ModelStatus",
    derive = "PartialEq",
    doc = "Model is a task, the version that should serve it, and how a new version is rolled out.",
    printcolumn(name = "Task", type_ = "string", json_path = ".spec.task"),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.serving.name"),
    printcolumn(name = "Rollout", type_ = "string", json_path = ".status.rollout.version.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.rollout.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.rollout.progress"),
    printcolumn(name = "Drift", type_ = "string", json_path = ".status.drift.value"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!(self.spec.promotion.mode == 'Auto' && has(self.spec.version))")
        .message("with promotion.mode Auto the operator chooses the version: remove spec.version, or set promotion.mode: GitOps"),
    validation = Rule::new("size(self.metadata.name) <= 52")
        .message("the name of a Model may have 52 characters, since its versions are named after it: write a shorter one")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// What the model is for.
    pub task: Task,

    /// The version to serve, with promotion.mode GitOps. Git owns this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionRef>,

    /// Who chooses the version.
    #[serde(default)]
    pub promotion: Promotion,

    /// How a new version reaches the nodes.
    #[serde(default)]
    pub rollout: Rollout,

    /// Whose signatures are good, beside the operator's own.
    #[serde(default)]
    pub trust: Trust,

    /// ModelVersions of trainings that are kept beside the one that serves, the one before it, what is rolled out or
    /// named by spec.version and what a node holds: so many, the newest. Older ones are deleted; those that people
    /// made stay. Between 1 and 100.
    #[serde(default = "default_history")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: i32,
}

fn default_history() -> i32 {
    5
}

/// What a model is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Task {
    /// Is this window of system calls like the container's normal ones?
    #[default]
    Anomaly,
}

/// A version, by the digest of its artifact.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionRef {
    /// `sha256:` and 64 hexadecimal digits: the digest of a ModelVersion of this Model.
    #[schemars(length(max = 71))]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')")
        .message("digest must be sha256: and 64 lower-case hexadecimal digits; take it from kubectl get modelversions"))]
    pub digest: String,
}

/// Who chooses the version that serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Promotion {
    /// GitOps: `spec.version`. Auto: the newest verified ModelVersion that has not failed a gate.
    pub mode: PromotionMode,
}

/// Who chooses the version that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PromotionMode {
    /// `spec.version`, written by people or by Git.
    #[default]
    GitOps,
    /// The newest ModelVersion of this Model that is verified, not revoked, and has not failed.
    Auto,
}

/// How a new version reaches the nodes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Steps, in order. The last one must be Active on 100 % of the nodes. A step takes no node from the version that the
    /// one before it with the same mode gave it: after "50%" of ten nodes, a step of 2 stays on five. After a Shadow on
    /// all nodes it may be Active on few.
    #[serde(default = "default_steps")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = Rule::new("size(self) > 0")
        .message("steps has none: write at least {nodes: \"100%\", mode: Active}, or leave steps out for a shadow on one node, then one, then all"))]
    #[x_kube(validation = Rule::new("[0, 1, 2, 3, 4, 5, 6, 7, 8].all(i, i + 1 >= size(self) || self[i].mode != self[i+1].mode || (type(self[i].nodes) == int ? type(self[i+1].nodes) != int || int(self[i].nodes) <= int(self[i+1].nodes) : type(self[i+1].nodes) != string || size(string(self[i].nodes)) < size(string(self[i+1].nodes)) || size(string(self[i].nodes)) == size(string(self[i+1].nodes)) && string(self[i].nodes) <= string(self[i+1].nodes)))")
        .message("steps of one mode must not shrink: write each step for as many nodes as the one before it, or more"))]
    #[x_kube(validation = Rule::new("[0, 1, 2, 3, 4, 5, 6, 7, 8].all(i, i + 1 >= size(self) || self[i].mode != 'Active' || self[i+1].mode == 'Active')")
        .message("a step that is Shadow comes after one that is Active, and would take the version back: write the Shadow steps first"))]
    #[x_kube(validation = Rule::new("[0, 1, 2, 3, 4, 5, 6, 7, 8].all(i, i + 1 >= size(self) || self[i].nodes != '100%' || self[i].mode != self[i+1].mode)")
        .message("after a step on 100% of the nodes there is no other of its mode: write the steps on fewer nodes before it"))]
    #[x_kube(validation = Rule::new("size(self) == 0 || self[size(self)-1].mode == 'Active' && self[size(self)-1].nodes == '100%' || self[size(self)-1].mode == 'Shadow' && self.exists(s, s.mode == 'Active')")
        .message("the last step must be {nodes: \"100%\", mode: Active}, or the rollout would never end"))]
    pub steps: Vec<RolloutStep>,

    /// What must hold for a step to be left; a gate that fails rolls back. Where it is absent: no more than
    /// twice the alerts of the version that serves. `[]` lets every version through that nodes accept.
    #[serde(default = "default_gates")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(g, self.exists_one(h, h.metric == g.metric))")
        .message("gates names a metric twice: write one gate for each metric"))]
    pub gates: Vec<RolloutGate>,

    /// Stop where it is until this is false again. Rollback by a failed gate still happens.
    #[serde(default)]
    pub paused: bool,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            gates: default_gates(),
            paused: false,
        }
    }
}

fn default_steps() -> Vec<RolloutStep> {
    let step = |nodes, mode, minutes: u64| RolloutStep {
        nodes,
        mode,
        hold: std::time::Duration::from_secs(60 * minutes).into(),
    };
    vec![
        step(IntOrString::Int(1), StepMode::Shadow, 10),
        step(IntOrString::Int(1), StepMode::Active, 10),
        step(IntOrString::String("100%".to_owned()), StepMode::Active, 0),
    ]
}

fn default_gates() -> Vec<RolloutGate> {
    vec![RolloutGate {
        metric: GateMetric::AlertRate,
        at_most: "2x".to_owned(),
        min_samples: default_min_samples(),
        on_no_data: OnNoData::default(),
    }]
}

/// One step of a rollout.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStep {
    /// How many of the nodes that run traced pods: a number from 1 to 100000, or a percentage such as "10%"
    /// (rounded up).
    #[schemars(extend("maxLength" = 8))]
    #[x_kube(validation = Rule::new("type(self) == int ? int(self) >= 1 && int(self) <= 100000 : string(self).matches('^([1-9]|[1-9][0-9]|100)%$')")
        .message("nodes must be a number from 1 to 100000, or a percentage from \"1%\" to \"100%\""))]
    pub nodes: IntOrString,
    /// Shadow: score and report, beside the serving version. Active: serve.
    pub mode: StepMode,
    /// How long the gates must hold before the next step. A Go duration of at most 168h.
    #[serde(default = "no_hold")]
    #[schemars(schema_with = "crate::traceprofile::duration_schema")]
    #[x_kube(validation = crate::traceprofile::between("0s", "168h")
        .message("hold must be a duration of at most 168h, for example 10m"))]
    pub hold: Duration,
}

fn no_hold() -> Duration {
    std::time::Duration::ZERO.into()
}

/// What a version does on the nodes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum StepMode {
    /// Scores are reported and raise no alert; the serving version goes on.
    Shadow,
    /// The version serves.
    Active,
}

/// A bound on what agents report of the new version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.metric == 'AlertRate' || !self.atMost.endsWith('x')")
    .message("a multiple such as \"2x\" is for AlertRate alone: give ScoreDrift a decimal such as \"0.1\""))]
#[x_kube(validation = Rule::new("!self.atMost.matches('^[0-9]+([.][0-9]+)?$') || double(self.atMost) < 1.0")
    .message("no gate of 1 or more can fail: AlertRate and ScoreDrift lie between 0 and 1, so write for example \"0.05\", or for AlertRate a multiple such as \"2x\""))]
#[x_kube(validation = Rule::new("!self.atMost.matches('^[0.]+x$')")
    .message("a multiple of nothing lets no version through: write for example \"2x\", or \"0\" for none at all"))]
#[x_kube(validation = Rule::new("!self.atMost.matches('^[0-9]+([.][0-9]+)?x$') || double(self.atMost.replace('x', '')) < 100.0")
    .message("a multiple of a hundred and more is as good as no gate, since it is of 0.01 at least: write for example \"2x\""))]
#[serde(rename_all = "camelCase")]
pub struct RolloutGate {
    /// What is measured.
    pub metric: GateMetric,
    /// A decimal such as "0.05"; for AlertRate also a multiple of the serving version's, such as "2x", which
    /// is never less than so many times what the alert budget allows, or 0.01 where that is less. Of a multiple that
    /// comes to more than 0.99, no more than that counts.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+([.][0-9]+)?x?$')")
        .message("atMost must be a decimal in quotes such as \"0.05\", or for AlertRate a multiple of the serving version's such as \"2x\""))]
    pub at_most: String,
    /// Windows scored by the new version in this step before the gate decides.
    #[serde(default = "default_min_samples")]
    #[schemars(range(min = 1, max = 1000000))]
    pub min_samples: i32,
    /// What to do when the hold is over and there are too few samples.
    #[serde(default)]
    pub on_no_data: OnNoData,
}

fn default_min_samples() -> i32 {
    100
}

/// What a rollout gate measures, over the windows that the new version scored in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum GateMetric {
    /// Share of windows above the alert threshold.
    AlertRate,
    /// Jensen-Shannon divergence (base 2, 0..1) between the scores seen and those of validation.
    ScoreDrift,
}

/// What a gate does without enough samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OnNoData {
    /// Wait for more.
    #[default]
    Hold,
    /// Go on as if it held.
    Pass,
    /// Roll back.
    Fail,
}

/// Whose signatures are good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Ed25519 public keys, base64 of 32 bytes each, beside the operator's own key. `vigia keygen`
    /// prints one.
    #[serde(default)]
    #[schemars(length(max = 8), inner(length(max = 44)))]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[A-Za-z0-9+/]{43}=$'))")
        .message("publicKeys are Ed25519 public keys: base64 of 32 bytes, 44 characters that end in '='"))]
    #[x_kube(validation = small_order())]
    #[x_kube(validation = Rule::new("self.all(k, self.exists_one(h, h == k))")
        .message("publicKeys has a key twice: write each key once"))]
    pub public_keys: Vec<String>,
}

/// The keys that are a point of small order, in each of its encodings: by one of them anybody can sign anything.
/// RFC 8032, section 5.1.3, says what an encoding is; some of these are not canonical. A test holds the list against
/// ed25519-dalek's `VerifyingKey::is_weak`.
pub const SMALL_ORDER: [&str; 14] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA=",
    "7P///////////////////////////////////////38=",
    "7P////////////////////////////////////////8=",
    "7f///////////////////////////////////////38=",
    "7f////////////////////////////////////////8=",
    "7v///////////////////////////////////////38=",
    "7v////////////////////////////////////////8=",
    "JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/AU=",
    "JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/IU=",
    "xxdqcD1N2E+6PAt2DRBnDyogU/osOczGTsf9d5KsA3o=",
    "xxdqcD1N2E+6PAt2DRBnDyogU/osOczGTsf9d5KsA/o=",
];

fn small_order() -> kube::core::Rule {
    let list = SMALL_ORDER.map(|key| format!("'{key}'")).join(", ");
    kube::core::Rule::new(format!("!self.exists(k, k in [{list}])")).message(
        "publicKeys has one of small order, for which anybody can sign: take the key that vigia keygen prints",
    )
}

/// What serves, what is on its way, and how well it still fits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// The version that serves on every node that is not ahead in a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ServedVersion>,
    /// The version that served before; nodes keep its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ServedVersion>,
    /// The rollout under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Versions that failed a gate or were refused by a node, newest last; they are not tried again
    /// until the spec changes.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub failed: Vec<FailedVersion>,
    /// Digests of the versions that were revoked, oldest first, the last 256 of them: no ModelVersion of
    /// these runs again, also where the one that was revoked is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 71)))]
    pub revoked: Vec<String>,
    /// The largest number that a version of this Model ever had: a training's next one is larger, also where that one
    /// is deleted, so that a name never stands for two artifacts. What a name ends with and is more than a million above
    /// the number before it, such as a date, is no number.
    #[serde(default)]
    pub last_sequence: i64,
    /// How far the serving version's scores have moved from those of its validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,
    /// `Ready`, `Reconciling`, `Stalled`, `Drifted`, `ArtifactVerified`, `ArtifactsStored`, `WindowsFit`,
    /// `CaptureFits`, `KeysUsable`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A version by name and digest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServedVersion {
    /// Name of the ModelVersion.
    pub name: String,
    /// Digest of its artifact.
    pub digest: String,
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The version that is rolled out.
    pub version: ServedVersion,
    /// Where it is.
    pub phase: RolloutPhase,
    /// Index of the step, from 0.
    pub step: i32,
    /// For people: step of steps, mode, nodes done of nodes.
    pub progress: String,
    /// When the rollout began.
    pub started_at: Time,
    /// When the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_began_at: Option<MicroTime>,
    /// When every node of the step had done what the step says; gates count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_ready_at: Option<Time>,
    /// Why it waits, or why it was rolled back.
    #[serde(default)]
    pub message: String,
    /// The rollout's span as W3C trace context, where the operator has an OTLP endpoint: its second part is the trace to
    /// look for. It is that of the TrainingRun that made the version, or of the ModelVersion's annotation
    /// vigia.dev/traceparent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RolloutPhase {
    /// Nodes are being moved to the step, or its hold and gates are awaited.
    Progressing,
    /// `spec.rollout.paused` is true.
    Paused,
    /// A gate failed or a node refused: the nodes are on their way back to the serving version.
    RollingBack,
    /// Every node serves the former version again.
    RolledBack,
    /// Every node serves the version.
    Complete,
}

/// A version that will not be tried again by itself: a change of the spec, of its gates for example, may.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedVersion {
    /// Digest of the version.
    pub digest: String,
    /// One CamelCase word.
    pub reason: String,
    /// The generation of the spec under which it failed.
    #[serde(default)]
    pub generation: i64,
}

/// How far scores have moved.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// Digest of the version whose scores these are.
    pub digest: String,
    /// By the `metric` of the RetrainingPolicy that acts for the Model, two decimals: the Jensen-Shannon
    /// divergence (base 2, 0..1), also where there is no policy, or the population stability index (from 0).
    pub value: String,
    /// Windows that it was computed from, rounded down to a power of two so that a status does
    /// not change with each window.
    pub samples: i64,
}
