//! ModelVersion: one immutable, signed artifact.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::LocalRef;

/// One artifact of a Model. Nothing of it changes but `revoked`, once.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "vigia.dev",
    version = "v1alpha1",
    kind = "ModelVersion",
    plural = "modelversions",
    shortname = "mv",
    category = "vigia",
    namespaced,
    status = "ModelVersionStatus",
    derive = "PartialEq",
    doc = "ModelVersion is one immutable signed artifact of a Model, by digest.",
    selectable = ".spec.modelRef.name",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.digest", priority = 1),
    printcolumn(name = "Samples", type_ = "integer", json_path = ".spec.provenance.samples"),
    printcolumn(name = "Signer", type_ = "string", json_path = ".status.signer"),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Revoked",
        type_ = "boolean",
        json_path = ".spec.revoked",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self.modelRef == oldSelf.modelRef && self.digest == oldSelf.digest && has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source) && has(self.provenance) == has(oldSelf.provenance) && (!has(self.provenance) || self.provenance == oldSelf.provenance)")
    .message("a ModelVersion is immutable: create another one for another artifact (only revoked may be set)"))]
#[x_kube(validation = Rule::new("!oldSelf.revoked || self.revoked")
    .message("revoked cannot be taken back, and holds for the digest: if the artifact is good after all, train it anew or sign it with another key, and create a ModelVersion of the digest that it then has"))]
#[serde(rename_all = "camelCase")]
pub struct ModelVersionSpec {
    /// The Model that this is a version of.
    pub model_ref: LocalRef,

    /// `sha256:` and 64 hexadecimal digits of the signed artifact's bytes.
    #[schemars(length(max = 71))]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')")
        .message("digest must be sha256: and the artifact's 64 lower-case hexadecimal digits (sha256sum model.apr)"))]
    pub digest: String,

    /// Where the operator takes the bytes from. Absent: they are in its store already, as those of
    /// a TrainingRun are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ArtifactSource>,

    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,

    /// Set it to withdraw the version: nodes go back to the one before. It cannot be taken back, and the Model
    /// remembers the digest: another ModelVersion of it is revoked too.
    #[serde(default)]
    pub revoked: bool,
}

/// Where an artifact's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSource {
    /// A ConfigMap of this namespace: `kubectl create configmap NAME --from-file=model.apr`.
    pub config_map: ConfigMapKey,
}

/// A key of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::shared::object_name())]
    pub name: String,
    /// Key in its binaryData.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')")
        .message("no ConfigMap can have this key: write letters, digits, '-', '_' and '.', and not '.' or '..' alone or '..' in front"))]
    pub key: String,
}

fn default_key() -> String {
    "model.apr".to_owned()
}

/// What an artifact was made from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// Name of the TrainingRun.
    #[schemars(length(max = 253))]
    pub training_run: String,
    /// Digest of the training data.
    #[schemars(length(max = 71))]
    pub data_digest: String,
    /// Windows that it was trained and calibrated on.
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self <= 1000000000000")
        .message("provenance.samples counts windows: write at most 1000000000000"))]
    pub samples: i64,
    /// How long the windows were, in milliseconds: as spec.window of the TraceProfiles that they are of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(w, w >= 1000 && w <= 300000)")
        .message("provenance.windowMs lists lengths of windows in milliseconds: write numbers from 1000 to 300000"))]
    pub window_ms: Vec<i64>,
    /// Which system calls the windows were made of: fingerprints of the filters of those TraceProfiles, `all` where
    /// nothing was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 32)))]
    pub captures: Vec<String>,
    /// Metrics by name, decimals as text.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub metrics: BTreeMap<String, String>,
}

/// Whether the artifact is there and good.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelVersionStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Size of the artifact.
    #[serde(default)]
    pub size_bytes: i64,
    /// Id of the key that signed it: the first 16 hexadecimal digits of the public key's SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// `Ready` (verified), `Stored` (the operator has the bytes to give them to nodes), `Reconciling`,
    /// `Stalled`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
