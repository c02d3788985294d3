//! NodePlan: what one node should trace and run, and what it does.
//!
//! The operator writes the spec, the node's agent the status. The agent can read no other object,
//! so all it needs is here: the pods of its node by UID, the artifacts by digest, the keys.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Capture, Task, TraceBudget};

/// What one node should trace and run. The object's name is the node's.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "vigia.dev",
    version = "v1alpha1",
    kind = "NodePlan",
    plural = "nodeplans",
    shortname = "np",
    category = "vigia",
    status = "NodePlanStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "NodePlan is what one node should trace and run (written by the operator) and what it does (written by its agent).",
    printcolumn(name = "Targets", type_ = "integer", json_path = ".status.targets"),
    printcolumn(name = "Models", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.lost", priority = 1),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodePlanSpec {
    /// Profiles with pods on this node, sorted by namespace and name.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub profiles: Vec<PlannedProfile>,
    /// Models that those profiles name, sorted by namespace and name.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub models: Vec<PlannedModel>,
}

/// A TraceProfile with what it selects on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedProfile {
    /// Namespace of the TraceProfile.
    pub namespace: String,
    /// Name of the TraceProfile.
    pub name: String,
    /// Length of a window in milliseconds.
    pub window_ms: i64,
    /// An alert needs this many windows in a row, or one that is ten times rarer than the budget asks for.
    pub consecutive_windows: i32,
    /// Alerts that one container may raise by chance in an hour, as a decimal: the alert budget,
    /// shared out. The agent turns it into a threshold by the model's calibration.
    pub alerts_per_hour: String,
    /// Share of windows whose feature vector is sent for training, in per mille.
    pub sample_per_mille: i32,
    /// What is seen of system calls, and of which.
    #[serde(default, skip_serializing_if = "Capture::is_default")]
    pub capture: Capture,
    /// What tracing may cost on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<TraceBudget>,
    /// Names of the Models, of the profile's namespace.
    pub models: Vec<String>,
    /// Pods, sorted by UID.
    #[schemars(length(max = 512))]
    pub pods: Vec<PlannedPod>,
}

/// A pod to trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedPod {
    /// Name of the pod.
    pub name: String,
    /// UID of the pod: the cgroup's folder is named after it (for static pods, after the
    /// `kubernetes.io/config.hash` annotation, which is then here).
    pub uid: String,
    /// Containers to trace.
    #[schemars(length(max = 32))]
    pub containers: Vec<PlannedContainer>,
}

/// A container to trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedContainer {
    /// Name of the container.
    pub name: String,
    /// Id as the runtime names it, without the `containerd://` part.
    pub id: String,
}

/// A Model with the versions that this node should hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedModel {
    /// Namespace of the Model.
    pub namespace: String,
    /// Name of the Model.
    pub name: String,
    /// The task that an artifact must be for.
    pub task: Task,
    /// At most one Active, one Shadow, and any that should be at hand. The former serving
    /// version stays listed as Prefetch, so that a rollback needs no network.
    #[schemars(length(max = 4))]
    pub versions: Vec<PlannedVersion>,
    /// Ed25519 public keys (base64 of 32 bytes) whose signatures are good for this Model.
    #[schemars(length(max = 16))]
    pub trusted_keys: Vec<String>,
}

/// A version that a node should hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedVersion {
    /// Name of the ModelVersion.
    pub name: String,
    /// Digest of its artifact.
    pub digest: String,
    /// Size of its artifact; an agent reads no more.
    pub size_bytes: i64,
    /// What to do with it.
    pub mode: VersionMode,
    /// While it is rolled out: the span of the step that told the node so, as W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
}

/// What a node does with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum VersionMode {
    /// Fetch, verify and keep the bytes.
    Prefetch,
    /// Score and report beside the Active version; raise no alert.
    Shadow,
    /// Serve.
    Active,
}

/// What a node does. Written by its agent alone.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePlanStatus {
    /// The generation of the spec that the agent has carried out.
    #[serde(default)]
    pub observed_generation: i64,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Containers that are traced now.
    #[serde(default)]
    pub targets: i32,
    /// The same by profile.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub profiles: Vec<ProfileOnNode>,
    /// For people: each Model with the version it serves.
    #[serde(default)]
    pub summary: String,
    /// What the node did with each version that it should hold.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub versions: Vec<VersionOnNode>,
    /// System calls that were not counted because a kernel map was full, since the agent started;
    /// rounded up to a power of two so that a status does not change with each window.
    #[serde(default)]
    pub lost: i64,
    /// `Ready`, `Reconciling`, `Stalled`, `ProbeReady`, `CaptureReady`, `SignalsReady`, `CountsComplete`,
    /// `WithinBudget`, `ModelsFit`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Containers traced for a profile on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileOnNode {
    /// Namespace of the TraceProfile.
    pub namespace: String,
    /// Name of the TraceProfile.
    pub name: String,
    /// Containers traced.
    pub containers: i32,
    /// How much is kept of their calls.
    #[serde(default)]
    pub mode: KeptMode,
    /// That is less than the profile wants, because it would cost more than its budget.
    #[serde(default)]
    pub over_budget: bool,
    /// Processor time that the probe takes for them, in millionths of a core; of 1, 2 and 5 and their
    /// multiples by ten the next one up, so that a status changes seldom.
    #[serde(default)]
    pub overhead_micro_cores: i64,
    /// System calls of them that were not counted, since the agent started; rounded up to a power of two.
    #[serde(default)]
    pub lost: i64,
    /// Windows of them that would have been told as alerts, had the alert budget not been spent, of each Model;
    /// rounded up to a power of two. It is 0 again an hour after the last one; until then a profile that has no
    /// container here any more is still listed.
    #[serde(default)]
    pub alerts_withheld: i64,
    /// One of these windows, no more than half an hour older than the last. The agent's log has what drove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld_alert: Option<WithheldAlert>,
}

/// A window that would have been told as an alert, had the alert budget not been spent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WithheldAlert {
    /// When it started.
    pub at: Time,
    /// Name of the pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Name of the container.
    #[schemars(length(max = 63))]
    pub container: String,
    /// Name of the Model.
    #[schemars(length(max = 253))]
    pub model: String,
    /// The estimator that was the most surprised.
    #[schemars(length(max = 32))]
    pub estimator: String,
}

/// How much a node keeps of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum KeptMode {
    /// Nothing; the containers are not counted.
    Suspended,
    /// As the capture mode Counts.
    #[default]
    Counts,
    /// As the capture mode Sampled.
    Sampled,
    /// As the capture mode Full.
    Full,
}

impl KeptMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::Counts => "Counts",
            Self::Sampled => "Sampled",
            Self::Full => "Full",
        }
    }
}

/// A version on a node.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionOnNode {
    /// Namespace of the Model.
    pub namespace: String,
    /// Name of the Model.
    pub model: String,
    /// Digest of the artifact.
    pub digest: String,
    /// What the node does with it.
    pub state: VersionState,
    /// For Refused: one CamelCase word, such as SignatureInvalid, DigestMismatch, SchemaMismatch.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For Refused: a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when.
    pub since: Time,
}

/// What a node does with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum VersionState {
    /// The bytes are being fetched, or fetching is being tried again.
    Fetching,
    /// Verified, on disk.
    Prefetched,
    /// Scores beside the Active version.
    Shadow,
    /// Serves.
    Active,
    /// Not used, and not tried again; `reason` says why.
    Refused,
}
