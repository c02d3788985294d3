//! The last step of a run: what a trainer handed over is checked, signed and stored, and becomes a ModelVersion.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, ResourceExt};
use vigia_crds::{
    LocalRef, Model, ModelVersion, ModelVersionSpec, Provenance, TRACEPARENT, TrainingRun, TrainingRunStatus,
};
use vigia_model::artifact;

use super::data::Prepared;
use super::reconcile::{fail, failing, model_of, task_of, write};
use super::{RUN_UID, status, trace};
use crate::apply;
use crate::context::Context;
use crate::controller::Error;
use crate::metrics::ReasonLabels;
use crate::model::version::{self, MAX_SEQUENCE, MODEL_LABEL, SEQUENCE_LABEL};
use crate::store::StoreError;

/// Names of versions that are tried one after the other, where those of other Models have them.
const MAX_TAKEN: usize = 100;

/// Checks, signs and stores the output, and makes the ModelVersion.
pub(super) async fn sign(
    run: &TrainingRun,
    uid: &str,
    status: &TrainingRunStatus,
    output: &str,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let (submitted, bytes) = match context.store.output(uid).await {
        Ok(Some(output)) => output,
        Ok(None) => return Err(Error::Other("the output is gone from the store".to_owned())),
        Err(error) if error.is_damage() || matches!(error, StoreError::NotFound(_)) => {
            let message = format!("{error}; start another run");
            return fail(run, status, "OutputLost", &message, context).await;
        }
        Err(error) => return Err(failing(error)),
    };
    let Some(model) = model_of(run, context) else {
        return fail(
            run,
            status,
            "ModelNotFound",
            "the Model was deleted while this run trained",
            context,
        )
        .await;
    };
    // Gates were passed by these bytes and no others; what they say of themselves must fit the run.
    let checked = artifact::open_unsigned(&bytes, task_of(model.spec.task));
    let refused = match &checked {
        Err(error) => Some((error.reason(), error.to_string())),
        Ok(_) if submitted.digest != output => {
            Some(("OutputChanged", "the output changed after validation".to_owned()))
        }
        Ok(artifact) if status.data_digest.as_deref() != Some(artifact.metadata.data_digest.as_str()) => {
            Some((
                "ProvenanceMismatch",
                format!(
                    "the output says it was trained on {}",
                    artifact.metadata.data_digest
                ),
            ))
        }
        Ok(_) => None,
    };
    if let Some((reason, message)) = refused {
        let label = ReasonLabels {
            reason: reason.to_owned(),
        };
        context.metrics.refused.get_or_create(&label).inc();
        tracing::warn!(target: "audit", namespace = run.namespace(), run = run.name_any(), reason, message, "trainer's output refused");
        let message = format!("the trainer's output is refused ({reason}): {message}");
        return fail(run, status, "OutputRefused", &message, context).await;
    }
    let signed = context
        .key
        .sign(&bytes)
        .map_err(|error| Error::Other(format!("sign the output: {error}")))?;
    let digest = context.store.put_artifact(signed).await.map_err(failing)?;
    let samples = checked.map_or(0, |artifact| artifact.metadata.samples);
    let began = Timestamp::now();
    let version = match make_version(run, uid, status, &digest, samples, context).await? {
        Ok(version) => version,
        Err(message) => return fail(run, status, "NameTaken", &message, context).await,
    };
    let times = (began, Timestamp::now());
    context
        .telemetry
        .spans(trace::version_made(run, status, (&version, &digest), times));
    tracing::info!(target: "audit", namespace = run.namespace(), version, digest, run = run.name_any(), "signed");
    let generation = run.metadata.generation.unwrap_or(0);
    let to = status::succeeded(status, &version, generation, Timestamp::now());
    write(run, status, to, context).await?;
    Ok(Some(Duration::ZERO))
}

/// The run's ModelVersion, made if it is not there. Answers its name; the inner error is one that the user must mend.
async fn make_version(
    run: &TrainingRun,
    uid: &str,
    status: &TrainingRunStatus,
    digest: &str,
    samples: u64,
    context: &Context,
) -> Result<Result<String, String>, Error> {
    let namespace = run.namespace().unwrap_or_default();
    let model = &run.spec.model_ref.name;
    // Not the cache: a version that was made a moment ago must not be made twice. Names and labels alone, which can be
    // read also where a version's spec cannot.
    let api: Api<ModelVersion> = Api::namespaced(context.client.clone(), &namespace);
    let all = api
        .list_metadata(&ListParams::default().fields(&format!("spec.modelRef.name={model}")))
        .await?;
    let mine = |v: &&PartialObjectMeta<ModelVersion>| v.labels().get(RUN_UID).is_some_and(|of| of == uid);
    if let Some(version) = all.iter().find(mine) {
        return Ok(Ok(version.name_any()));
    }
    // Nor one of a name that is remembered: what it stood for may have been deleted since.
    let models: Api<Model> = Api::namespaced(context.client.clone(), &namespace);
    let now = models.get(model).await?;
    let remembered = now.status.as_ref().map_or(0, |s| s.last_sequence);
    let last = version::last_sequence(remembered, all.iter().filter_map(version::sequence));
    let record = context.store.run_json::<Prepared>(uid, Prepared::NAME).await;
    let (window_ms, captures) = record
        .map_err(failing)?
        .map(|record| (record.window_ms, record.captures))
        .unwrap_or_default();
    let provenance = Provenance {
        training_run: run.name_any(),
        data_digest: status.data_digest.clone().unwrap_or_default(),
        samples: i64::try_from(samples).unwrap_or(i64::MAX),
        window_ms,
        captures,
        metrics: status.metrics.clone(),
    };
    for sequence in (last + 1..=MAX_SEQUENCE).take(MAX_TAKEN) {
        let mut version = ModelVersion::new(
            &format!("{model}-v{sequence}"),
            ModelVersionSpec {
                model_ref: LocalRef { name: model.clone() },
                digest: digest.to_owned(),
                source: None,
                provenance: Some(provenance.clone()),
                revoked: false,
            },
        );
        version.metadata.namespace = Some(namespace.clone());
        // So that its rollout is a part of the same trace.
        version.metadata.annotations = status
            .traceparent
            .clone()
            .map(|traceparent| [(TRACEPARENT.to_owned(), traceparent)].into());
        version.metadata.labels = Some(
            [
                (MODEL_LABEL, model.clone()),
                (SEQUENCE_LABEL, sequence.to_string()),
                (RUN_UID, uid.to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        );
        match context.door.create(&version).await {
            Ok(()) => {
                remember(&now, sequence, context).await;
                return Ok(Ok(version.name_any()));
            }
            // The name is taken, as by a version of another Model. It is left alone.
            Err(apply::Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Err(format!(
        "there is no name for the ModelVersion: {MAX_TAKEN} names after {model}-v{last} are taken in namespace \
         {namespace}, or {MAX_SEQUENCE} is reached, after which there are none; delete ModelVersions of such names, or \
         train a Model of another name"
    )))
}

/// Writes the number down at once, lest the version be deleted before its Model is looked at. The Model's own
/// reconcile does it too, so one that was faster is no loss.
async fn remember(model: &Model, sequence: u32, context: &Context) {
    let mut status = model.status.clone().unwrap_or_default();
    status.last_sequence = i64::from(version::last_sequence(status.last_sequence, [sequence]));
    if let Err(error) = context.door.status(model, status).await {
        tracing::debug!(model = model.name_any(), %error, "the number of a version is left to its Model to remember");
    }
}
