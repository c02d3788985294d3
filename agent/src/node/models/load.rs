//! From bytes and pinned keys to something that scores, or to the reason why not.

use std::path::Path;
use std::sync::Arc;

use vigia_crds::Task;
use vigia_model::artifact::{self, Metadata};
use vigia_model::keys::{PublicKey, TrustedKeys};
use vigia_model::pipeline::Pipeline;

use super::shelf::Refusal;

/// A verified model.
#[derive(Debug)]
pub struct Loaded {
    /// Digest of its artifact.
    pub digest: String,
    /// What scores.
    pub pipeline: Pipeline,
    /// What is said about it.
    pub metadata: Metadata,
}

/// Keys that the node's administrator pins by a mounted file: where there are any, a plan can name no others, so
/// that whoever can write plans cannot make a node run what they signed themselves.
#[derive(Debug, Clone, Default)]
pub struct Pinned(Option<TrustedKeys>);

impl Pinned {
    /// Reads the file, where one is configured.
    ///
    /// # Errors
    ///
    /// A sentence that names the file and what is wrong in it.
    pub fn read(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self(None)) };
        let bytes = artifact::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        TrustedKeys::parse(&text)
            .map(|keys| Self(Some(keys)))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The keys of a plan that count.
    ///
    /// # Errors
    ///
    /// When one of the plan's is no key: a set that shrinks silently would refuse models for no visible reason.
    pub fn admit(&self, planned: &[String]) -> Result<TrustedKeys, Refusal> {
        let keys = planned
            .iter()
            .map(|key| PublicKey::parse(key))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| {
                refusal(
                    "BadTrustedKey",
                    format!("the plan names a trusted key that is none: {error}"),
                )
            })?;
        Ok(match &self.0 {
            None => TrustedKeys::new(keys),
            Some(pinned) => TrustedKeys::new(
                keys.into_iter()
                    .filter(|key| pinned.iter().any(|pin| pin.as_bytes() == key.as_bytes())),
            ),
        })
    }
}

/// Verifies an artifact and makes it ready to score.
///
/// # Errors
///
/// Why it must not be used.
pub fn load(bytes: &[u8], digest: &str, trusted: &TrustedKeys, task: Task) -> Result<Arc<Loaded>, Refusal> {
    let opened = artifact::open(bytes, trusted, model_task(task))
        .map_err(|error| refusal(error.reason(), error.to_string()))?;
    let got = opened.digest.to_string();
    if got != digest {
        return Err(refusal(
            "DigestMismatch",
            format!("the bytes have digest {got}, {digest} was asked for"),
        ));
    }
    Ok(Arc::new(Loaded {
        digest: got,
        pipeline: opened.pipeline,
        metadata: opened.metadata,
    }))
}

/// A reason and a sentence.
pub fn refusal(reason: impl Into<String>, message: impl Into<String>) -> Refusal {
    Refusal {
        reason: reason.into(),
        message: message.into(),
    }
}

fn model_task(task: Task) -> artifact::Task {
    match task {
        Task::Anomaly => artifact::Task::Anomaly,
    }
}
