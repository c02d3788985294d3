//! Effects of ModelVersion: read the source, verify, store, say so.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Resource, ResourceExt};
use vigia_crds::{Model, ModelVersion, Task};
use vigia_model::artifact::{self, Artifact};
use vigia_model::histogram::ScoreHistogram;
use vigia_model::keys::{PublicKey, TrustedKeys};

use super::plan::{Finding, is_in_use, is_news, status, verify, without_bytes};
use crate::context::Context;
use crate::controller::{self, Error};
use crate::events::{Note, Severity};
use crate::metrics::ReasonLabels;
use crate::model::{silent, trust};
use crate::trainingrun::RUN_UID;

/// A source that has other bytes than it should is looked at again this often: it may be put right.
const SOURCE_AGAIN: Duration = Duration::from_secs(30);
/// What is not there yet is looked for this often. ConfigMaps are not watched: there may be many,
/// and only few are artifacts.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What is kept in memory of the artifacts that held, by digest.
#[derive(Debug, Default)]
pub struct Artifacts(RwLock<HashMap<String, Known>>);

#[derive(Debug)]
struct Known {
    validation: Arc<ScoreHistogram>,
    of_order: Vec<&'static str>,
}

impl Artifacts {
    /// The scores of an artifact's validation, where it was verified since the start.
    pub fn validation(&self, digest: &str) -> Option<Arc<ScoreHistogram>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(digest).map(|known| known.validation.clone())
    }

    /// The members of an artifact that look at which calls come after which, where it was verified since the start.
    pub fn of_order(&self, digest: &str) -> Option<Vec<&'static str>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(digest).map(|known| known.of_order.clone())
    }

    /// Forgets what does not hold any more; says whether it was known, which it is not again until its bytes are back.
    pub fn forget(&self, digest: &str) -> bool {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(digest).is_some()
    }

    /// Takes in what holds; says whether it was not known.
    fn put(&self, digest: &str, artifact: &Artifact) -> bool {
        let known = Known {
            validation: Arc::new(artifact.pipeline.reference().clone()),
            of_order: silent::of_order(&artifact.pipeline),
        };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(digest.to_owned(), known).is_none()
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    let (versions, trigger) = (context.caches.versions.clone(), context.triggers.versions.clone());
    controller::run("modelversion", context, versions, trigger, reconcile).await;
}

async fn reconcile(version: Arc<ModelVersion>, context: Arc<Context>) -> Result<Option<Duration>, Error> {
    if version.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let finding = look(&version, &context).await?;
    let next = status(&version, &finding, Timestamp::now());
    let news = is_news(version.status.as_ref(), &next);
    // Before the write, so that a kill after it leaves nothing unsaid; said twice, they are one.
    if news {
        tell(&version, &finding, &context).await;
    }
    context.door.status(&*version, next).await?;
    // After it: what was looked at in a cache that lags is refused there, and would be recorded twice.
    if news {
        audit(&version, &finding, &context);
    }
    Ok(match finding {
        Finding::Waiting { .. } | Finding::Unstored { .. } => Some(LOOK_AGAIN),
        Finding::Refused { .. } => version.spec.source.as_ref().map(|_| SOURCE_AGAIN),
        Finding::Verified { .. } | Finding::Revoked => None,
    })
}

async fn look(version: &ModelVersion, context: &Arc<Context>) -> Result<Finding, Error> {
    if version.spec.revoked {
        return Ok(Finding::Revoked);
    }
    let namespace = version.namespace().unwrap_or_default();
    let Some(model) = context.caches.model(&namespace, &version.spec.model_ref.name) else {
        return Ok(Finding::Waiting {
            reason: "ModelNotFound",
            message: format!(
                "there is no Model {} in namespace {namespace}: create it, or name another one in spec.modelRef",
                version.spec.model_ref.name
            ),
        });
    };
    let digest = version.spec.digest.clone();
    let revoked = context
        .revocations
        .with(model.status.as_ref(), &namespace, &model.name_any());
    if revoked.contains(&digest) {
        return Ok(Finding::Revoked);
    }
    let trusted = trusted(&model, &context.key.public());
    let without = |reason, message| {
        let keys = trusted.iter().map(|key| key.id().to_string());
        without_bytes(version.status.as_ref(), keys, reason, message)
    };
    let (bytes, is_new) = match context.store.get_artifact(&digest).await {
        Ok(bytes) => (bytes, false),
        Err(missing) if missing.is_loss() => {
            context.artifacts.forget(&digest);
            match import(version, &namespace, context).await? {
                Ok(bytes) => (bytes, true),
                // Taken from nowhere: it waits for the store.
                Err(None) => {
                    let step = match version.labels().contains_key(RUN_UID) {
                        true => "start another TrainingRun",
                        false => {
                            "a ModelVersion of other bytes than a TrainingRun's names a ConfigMap in spec.source"
                        }
                    };
                    return Ok(without("NotInStore", missing.to_string()).to_go_on(step));
                }
                Err(Some(message)) => return Ok(without("SourceNotFound", message)),
            }
        }
        // A volume that cannot be read now says nothing about the artifact.
        Err(error) => return Err(Error::Other(format!("read {digest}: {error}"))),
    };
    let task = match model.spec.task {
        Task::Anomaly => artifact::Task::Anomaly,
    };
    let size_bytes = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    // Decompressing and checking a large artifact takes milliseconds that belong to no executor.
    let checked = {
        let (bytes, digest) = (bytes.clone(), digest.clone());
        tokio::task::spawn_blocking(move || verify(&bytes, &digest, &trusted, task))
            .await
            .map_err(|panic| {
                Error::Other(format!("verify {digest}: {panic}", digest = version.spec.digest))
            })?
    };
    let artifact = match checked {
        Ok(artifact) => artifact,
        Err(finding) => return Ok(finding),
    };
    if is_new {
        let stored = context.store.put_artifact(bytes).await;
        stored.map_err(|e| Error::Other(format!("store {digest}: {e}")))?;
    }
    if context.artifacts.put(&digest, &artifact) {
        // Its Model and profiles say which of its members are silent.
        let name = model.name_any();
        context.triggers.models.namespaced(&namespace, &name);
        for profile in context.caches.profiles_naming(&namespace, &name) {
            context
                .triggers
                .profiles
                .namespaced(&namespace, &profile.name_any());
        }
    }
    Ok(Finding::Verified {
        size_bytes,
        signer: artifact.signed_by.map(|k| k.to_string()).unwrap_or_default(),
    })
}

/// The bytes of the version's source; `Err(None)` where it names none, else what is missing of it.
async fn import(
    version: &ModelVersion,
    namespace: &str,
    context: &Context,
) -> Result<Result<Bytes, Option<String>>, Error> {
    let Some(source) = &version.spec.source else {
        return Ok(Err(None));
    };
    let (name, key) = (&source.config_map.name, &source.config_map.key);
    let waiting = |message: String| Ok(Err(Some(message)));
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let Some(mut source) = api.get_opt(name).await? else {
        return waiting(format!(
            "there is no ConfigMap {name} in namespace {namespace}: kubectl create configmap {name} --from-file={key}"
        ));
    };
    // kubectl puts what happens to be UTF-8 into data.
    let binary = source.binary_data.as_mut().and_then(|data| data.remove(key));
    let text = source.data.as_mut().and_then(|data| data.remove(key));
    match (binary, text) {
        (Some(bytes), _) => Ok(Ok(bytes.0.into())),
        (None, Some(text)) => Ok(Ok(text.into_bytes().into())),
        (None, None) => waiting(format!(
            "ConfigMap {name} has no key {key}: name its key in spec.source.configMap.key"
        )),
    }
}

/// The keys whose signatures are good for a Model. The Model's own status names those that are none.
fn trusted(model: &Model, operator: &PublicKey) -> TrustedKeys {
    let mut trusted = TrustedKeys::new([*operator]);
    trusted.extend(trust::usable(&model.spec.trust).map(|(_, key)| key));
    trusted
}

fn audit(version: &ModelVersion, finding: &Finding, context: &Context) {
    let namespace = version.namespace().unwrap_or_default();
    let (version, digest, model) = (
        version.name_any(),
        &version.spec.digest,
        &version.spec.model_ref.name,
    );
    match finding {
        Finding::Waiting { .. } => {}
        Finding::Verified { signer, .. } => {
            tracing::info!(target: "audit", action = "verified", namespace, model, version, digest, signer);
        }
        Finding::Unstored { message, .. } => {
            tracing::warn!(target: "audit", action = "lost", namespace, model, version, digest, message);
        }
        Finding::Revoked => {
            tracing::info!(target: "audit", action = "revoked", namespace, model, version, digest);
        }
        Finding::Refused { reason, message } => {
            tracing::warn!(target: "audit", action = "refused", namespace, model, version, digest, reason, message);
            let reason = (*reason).to_owned();
            let refused = &context.metrics.refused;
            refused.get_or_create(&ReasonLabels { reason }).inc();
        }
    }
}

async fn tell(version: &ModelVersion, finding: &Finding, context: &Context) {
    let namespace = version.namespace().unwrap_or_default();
    let (name, digest) = (version.name_any(), &version.spec.digest);
    let model = &version.spec.model_ref.name;
    let (severity, reason, sentence) = match finding {
        Finding::Waiting { .. } => return,
        Finding::Verified { signer, .. } => (
            Severity::Normal,
            "ArtifactVerified",
            format!("{name} is verified, signed by key {signer}"),
        ),
        Finding::Unstored { message, .. } => (
            Severity::Warning,
            "ArtifactLost",
            format!("{name} stays verified, but its bytes cannot be given to nodes: {message}"),
        ),
        Finding::Revoked => (
            Severity::Warning,
            "ArtifactRevoked",
            format!("{name} is revoked and runs nowhere"),
        ),
        Finding::Refused { reason, message } => (
            Severity::Warning,
            "ArtifactRefused",
            format!("{name} is refused ({reason}): {message}"),
        ),
    };
    let note = Note {
        severity,
        reason,
        action: "Verify",
        note: sentence,
        key: format!("{digest}/{}", finding.refusal().map_or("", |(reason, _)| reason)),
    };
    context.events.mention(&version.object_ref(&()), &note).await;
    let model = context.caches.model(&namespace, model);
    // What a store has lost of former versions is missed by nobody.
    let is_lost = matches!(finding, Finding::Unstored { .. });
    if let Some(model) = model.filter(|model| !is_lost || is_in_use(model, digest)) {
        context.events.mention(&model.object_ref(&()), &note).await;
    }
}
