//! What an artifact says about itself, in the places where aprender's own tools look.

use super::{ArtifactError, MAX_METADATA, PAYLOAD_VERSION};
use crate::schema::{Schema, SchemaHash};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Task {
    /// Is this window unlike the workload's normal ones?
    Anomaly,
    /// Is this window like an attack?
    Threat,
    /// Is the workload about to fail?
    Failure,
    /// How will the workload's load develop?
    Workload,
    /// How will the workload's memory develop?
    Memory,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 5] = [
        Self::Anomaly,
        Self::Threat,
        Self::Failure,
        Self::Workload,
        Self::Memory,
    ];

    /// The task's name, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anomaly => "Anomaly",
            Self::Threat => "Threat",
            Self::Failure => "Failure",
            Self::Workload => "Workload",
            Self::Memory => "Memory",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown task {0:?}; tasks are Anomaly, Threat, Failure, Workload and Memory")]
pub struct UnknownTask(pub String);

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(text: &str) -> Result<Self, UnknownTask> {
        Self::ALL
            .into_iter()
            .find(|t| t.as_str() == text)
            .ok_or_else(|| UnknownTask(text.to_owned()))
    }
}

/// Who made a model, when, from what, and how well it did. Covered by the signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// The model's name.
    pub name: String,
    /// What it is for.
    pub task: Task,
    /// Name of the feature schema it was trained on.
    pub schema: String,
    /// Hash of that schema.
    pub schema_hash: SchemaHash,
    /// When, as RFC 3339. Given by whoever trains, who may take it from the data so that bytes repeat.
    pub created_at: String,
    /// Digest of the training data.
    pub data_digest: String,
    /// Seed of the training.
    pub seed: u64,
    /// Windows trained on.
    pub samples: u64,
    /// Programs that made it, with versions.
    pub made_by: String,
    /// Settings of the training.
    pub hyperparameters: BTreeMap<String, String>,
    /// Results of the validation; finite.
    pub metrics: BTreeMap<String, f64>,
    /// Anything else, by keys that do not start with `vigia.`.
    pub labels: BTreeMap<String, String>,
}

impl Metadata {
    /// Metadata of a model called `name` on `schema`'s vectors, the rest empty.
    pub fn new(name: impl Into<String>, task: Task, schema: &Schema) -> Self {
        Self {
            name: name.into(),
            task,
            schema: schema.name().to_owned(),
            schema_hash: schema.hash(),
            created_at: String::new(),
            data_digest: String::new(),
            seed: 0,
            samples: 0,
            made_by: concat!("vigia-model/", env!("CARGO_PKG_VERSION")).to_owned(),
            hyperparameters: BTreeMap::new(),
            metrics: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Fingerprints of the filters by which the windows were made that it was trained on, as
    /// [`crate::syscalls::Filter::fingerprint`] gives them; none where it does not say.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        let said = self.labels.get(CAPTURES).map(String::as_str).unwrap_or_default();
        said.split(' ').filter(|text| !text.is_empty())
    }

    /// Whether windows made by a filter of this fingerprint are like those that it was trained on, as far as it says.
    pub fn fits(&self, capture: &str) -> bool {
        let mut captures = self.captures().peekable();
        captures.peek().is_none() || captures.any(|of| of == capture)
    }

    /// Says what [`Self::captures`] gives.
    pub fn set_captures<S: AsRef<str>>(&mut self, captures: &[S]) {
        if !captures.is_empty() {
            let captures: Vec<&str> = captures.iter().map(AsRef::as_ref).collect();
            self.labels.insert(CAPTURES.to_owned(), captures.join(" "));
        }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, ArtifactError> {
        let refuse = |why: String| Err(ArtifactError::Encode(why));
        if let Some((key, _)) = self.metrics.iter().find(|(_, v)| !v.is_finite()) {
            return refuse(format!("metric {key} is not finite"));
        }
        if let Some(key) = self.labels.keys().find(|k| k.starts_with(OWN)) {
            return refuse(format!("label {key} starts with {OWN}"));
        }
        let mut custom = self.labels.clone();
        let mut own = |key: &str, value: String| custom.insert(format!("{OWN}{key}"), value);
        own("task", self.task.to_string());
        own("schema", self.schema.clone());
        own("schemaSha256", self.schema_hash.to_string());
        own("dataDigest", self.data_digest.clone());
        own("seed", self.seed.to_string());
        own("payloadVersion", PAYLOAD_VERSION.to_string());
        let wire = Wire {
            created_at: self.created_at.clone(),
            aprender_version: self.made_by.clone(),
            model_name: self.name.clone(),
            training: Training {
                samples: self.samples,
            },
            hyperparameters: self.hyperparameters.clone(),
            metrics: self.metrics.clone(),
            custom,
        };
        rmp_serde::to_vec_named(&wire).map_err(|e| ArtifactError::Encode(e.to_string()))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ArtifactError> {
        debug_assert!(bytes.len() <= MAX_METADATA);
        let bad = |why: String| ArtifactError::Metadata(why);
        let mut decoder = rmp_serde::Deserializer::new(bytes);
        // Maps in maps is all there is to it.
        decoder.set_max_depth(8);
        let wire = Wire::deserialize(&mut decoder).map_err(|e| bad(e.to_string()))?;
        if !decoder.into_inner().is_empty() {
            return Err(bad("trailing bytes".to_owned()));
        }
        let (own, labels): (BTreeMap<_, _>, BTreeMap<_, _>) =
            wire.custom.into_iter().partition(|(key, _)| key.starts_with(OWN));
        let get = |key: &str| {
            own.get(&format!("{OWN}{key}"))
                .map(String::as_str)
                .ok_or_else(|| bad(format!("no {OWN}{key}")))
        };
        let version = get("payloadVersion")?
            .parse()
            .map_err(|_| bad(format!("bad {OWN}payloadVersion")))?;
        if version != PAYLOAD_VERSION {
            return Err(ArtifactError::PayloadVersion(version));
        }
        let task = get("task")?
            .parse()
            .map_err(|e: UnknownTask| bad(e.to_string()))?;
        let hash = hex32(get("schemaSha256")?).ok_or_else(|| bad(format!("bad {OWN}schemaSha256")))?;
        let seed = get("seed")?.parse().map_err(|_| bad(format!("bad {OWN}seed")))?;
        if wire.metrics.values().any(|v| !v.is_finite()) {
            return Err(bad("a metric is not finite".to_owned()));
        }
        Ok(Self {
            name: wire.model_name,
            task,
            schema: get("schema")?.to_owned(),
            schema_hash: SchemaHash(hash),
            created_at: wire.created_at,
            data_digest: get("dataDigest")?.to_owned(),
            seed,
            samples: wire.training.samples,
            made_by: wire.aprender_version,
            hyperparameters: wire.hyperparameters,
            metrics: wire.metrics,
            labels,
        })
    }
}

/// Label of the filters by which windows were made. A label, so that what reads older artifacts reads these.
const CAPTURES: &str = "captures";

/// Prefix of our own keys among aprender's custom ones.
const OWN: &str = "vigia.";

/// `apr_format::Metadata` with sorted maps, so that bytes repeat.
#[derive(Serialize, Deserialize)]
struct Wire {
    created_at: String,
    aprender_version: String,
    model_name: String,
    training: Training,
    #[serde(default)]
    hyperparameters: BTreeMap<String, String>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
    #[serde(default)]
    custom: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Training {
    samples: u64,
}

pub(super) fn hex32(text: &str) -> Option<[u8; 32]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}
