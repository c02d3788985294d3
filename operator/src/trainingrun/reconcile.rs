//! The effects of a run: read what is there, ask [`super::plan`], do it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use vigia_crds::{
    LocalRef, Model, ModelVersion, ModelVersionSpec, Provenance, RunPhase, Task, TrainingRun,
    TrainingRunStatus,
};
use vigia_model::artifact;
use vigia_model::schema::Schema;

use super::data::{HOLDOUT, Prepared, shard_name};
use super::plan::{self, JobView, Next, Observed};
use super::windows::{self, Newest, Selection};
use super::{RUN_UID, identity, job, lost};
use crate::apply;
use crate::context::Context;
use crate::controller::Error;
use crate::events::{Note, Severity, counted};
use crate::metrics::ReasonLabels;
use crate::model::version::{self, MODEL_LABEL, SEQUENCE_LABEL};
use crate::store::{Output, StoreError};

/// One run is prepared at a time; the others ask again after this.
const TURN: Duration = Duration::from_secs(1);
/// Holds a TrainingRun that is under way until its Job and its files are gone. One that is over is not held:
/// nothing of it runs, and its namespace must be deletable where there is no operator any more.
const FINALIZER: &str = "vigia.dev/training";

/// Names of versions that are tried one after the other, where those of other Models have them.
const MAX_TAKEN: u32 = 100;

/// Brings a run one step further.
pub(super) async fn reconcile(
    run: Arc<TrainingRun>,
    context: Arc<Context>,
) -> Result<Option<Duration>, Error> {
    let uid = run.uid().unwrap_or_default();
    if run.metadata.deletion_timestamp.is_some() {
        return end(&run, &uid, &context).await;
    }
    let status = run.status.clone().unwrap_or_default();
    let is_over = matches!(status.phase, Some(RunPhase::Succeeded | RunPhase::Failed));
    context.door.finalizer(&*run, FINALIZER, !is_over).await?;
    let generation = run.metadata.generation.unwrap_or(0);
    let store = &context.store;
    let job = cached_job(&run, &context);
    let account = match &job {
        Some(_) if status.phase == Some(RunPhase::Training) => account(&context).await?,
        _ => None,
    };
    let observed = Observed {
        record: store
            .run_json::<Prepared>(&uid, Prepared::NAME)
            .await
            .map_err(failing)?,
        account,
        job: job.map(|job| JobView::of(&job)),
        output: store
            .run_json::<Output>(&uid, Output::NAME)
            .await
            .map_err(failing)?
            .map(|output| (output.digest, output.metrics)),
    };
    let (to, next) = plan::next(&run.spec, &status, generation, &observed, Timestamp::now());
    write(&run, &status, to, &context).await?;
    match next {
        Next::Report => Ok(Some(Duration::ZERO)),
        Next::Prepare => {
            // Each holds its windows in memory.
            let Ok(_turn) = context.preparing.try_acquire() else {
                return Ok(Some(TURN));
            };
            match prepare(&run, &uid, &context).await {
                Ok(Ok(())) => Ok(Some(Duration::ZERO)),
                Ok(Err((reason, message))) => fail(&run, &status, reason, &message, &context).await,
                Err(error) if plan::is_overdue(&run.spec, &status, Timestamp::now()) => {
                    let message = format!("its windows could not be chosen within its timeout: {error}");
                    fail(&run, &status, "StoreFailed", &message, &context).await
                }
                Err(error) => Err(error),
            }
        }
        Next::Train => {
            train(&run, &context).await?;
            Ok(Some(Duration::from_secs(2)))
        }
        Next::Restart => {
            remove_job(&run, &context).await?;
            Ok(Some(Duration::from_secs(2)))
        }
        Next::Wait(after) => {
            // Killed after the Job was made, the operator still owes its pods the Service and the Secret.
            train(&run, &context).await?;
            lost::remove_pods(&uid, &context, Timestamp::now()).await?;
            Ok(Some(after))
        }
        Next::Sign { output } => sign(&run, &uid, &status, &output, &context).await,
        Next::Over => {
            // The record and the output's digest stay: a worker that comes late is told that all is done.
            store.delete_run_data(&uid).await.map_err(failing)?;
            Ok(None)
        }
    }
}

fn failing(error: StoreError) -> Error {
    Error::Other(error.to_string())
}

fn encoding(error: serde_json::Error) -> Error {
    Error::Other(format!("build an object of the training Job: {error}"))
}

fn cached_job(run: &TrainingRun, context: &Context) -> Option<Arc<Job>> {
    let key = ObjectRef::new(&job::name(run)).within(&context.config.namespace);
    context.caches.jobs.get(&key)
}

/// UID of the account that trainers run as, where there is one.
async fn account(context: &Context) -> Result<Option<String>, Error> {
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), &context.config.namespace);
    let account = api.get_opt(&context.config.trainer_service_account).await?;
    Ok(account.and_then(|account| account.uid()))
}

/// Service and Secret are owned by the Job and go with it. By its name: one that was made a moment ago is in no
/// cache yet.
async fn remove_job(run: &TrainingRun, context: &Context) -> Result<(), Error> {
    let job = Job {
        metadata: ObjectMeta {
            name: Some(job::name(run)),
            namespace: Some(context.config.namespace.clone()),
            ..ObjectMeta::default()
        },
        ..Job::default()
    };
    context.door.delete(&job).await?;
    Ok(())
}

async fn end(run: &TrainingRun, uid: &str, context: &Context) -> Result<Option<Duration>, Error> {
    if !run.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(None);
    }
    remove_job(run, context).await?;
    context.store.delete_run(uid).await.map_err(failing)?;
    context.door.finalizer(run, FINALIZER, false).await?;
    Ok(None)
}

/// Writes a status, and says so where the phase changed.
async fn write(
    run: &TrainingRun,
    from: &TrainingRunStatus,
    to: TrainingRunStatus,
    context: &Context,
) -> Result<(), Error> {
    let phase = (from.phase != to.phase).then_some(to.phase).flatten();
    let message = vigia_crds::conditions::find(&to.conditions, vigia_crds::conditions::READY)
        .map(|c| c.message.clone())
        .unwrap_or_default();
    let (severity, reason) = match phase {
        Some(vigia_crds::RunPhase::Training) => (Severity::Normal, "TrainingStarted"),
        Some(vigia_crds::RunPhase::Succeeded) => (Severity::Normal, "TrainingSucceeded"),
        Some(vigia_crds::RunPhase::Failed) => (Severity::Warning, "TrainingFailed"),
        _ => {
            context.door.status(run, to).await?;
            return Ok(());
        }
    };
    tracing::info!(target: "audit", namespace = run.namespace(), run = run.name_any(), model = run.spec.model_ref.name, reason, message, "training");
    let note = Note {
        severity,
        reason,
        action: "Train",
        note: message,
        key: reason.to_owned(),
    };
    // Before the status, so that a kill in between leaves nothing unsaid; said twice, they are one. Where
    // nobody can be told (a quota of Events, a webhook), the run goes on all the same.
    context.events.mention(&run.object_ref(&()), &note).await;
    context.door.status(run, to).await?;
    Ok(())
}

async fn fail(
    run: &TrainingRun,
    status: &TrainingRunStatus,
    reason: &'static str,
    message: &str,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let generation = run.metadata.generation.unwrap_or(0);
    let to = plan::failed(status, reason, message, generation, Timestamp::now());
    write(run, status, to, context).await?;
    Ok(Some(Duration::ZERO))
}

fn model_of(run: &TrainingRun, context: &Context) -> Option<Arc<Model>> {
    let namespace = run.namespace().unwrap_or_default();
    context.caches.model(&namespace, &run.spec.model_ref.name)
}

fn task_of(task: Task) -> artifact::Task {
    match task {
        Task::Anomaly => artifact::Task::Anomaly,
    }
}

/// Chooses windows and writes the shards, the held-out part, and last the record. The inner error
/// is one that the user must mend.
async fn prepare(
    run: &TrainingRun,
    uid: &str,
    context: &Context,
) -> Result<Result<(), (&'static str, String)>, Error> {
    let namespace = run.namespace().unwrap_or_default();
    let model = &run.spec.model_ref.name;
    let Some(found) = model_of(run, context) else {
        let message =
            format!("there is no Model {model} in namespace {namespace}; create it and start another run");
        return Ok(Err(("ModelNotFound", message)));
    };
    let mut newest = Newest::new(run);
    let ms = |at: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>, open: i64| {
        at.as_ref().map_or(open, |at| at.0.as_millisecond())
    };
    let between = (
        ms(&run.spec.data.since, i64::MIN),
        ms(&run.spec.data.until, i64::MAX),
    );
    let profiles = context.caches.profiles_naming(&namespace, model);
    for profile in &profiles {
        let selection = Selection::new(profile.spec.window.into(), run.spec.data.include_alerted);
        let name = profile.name_any();
        let rows = context
            .store
            .each_row(&namespace, &name, between, |row| newest.take(&selection, row));
        rows.await.map_err(failing)?;
    }
    let (left_out, rows) = (newest.left_out, newest.finish());
    let wanted = windows::wanted(run.spec.data.min_windows, run.spec.workers);
    if rows.len() < wanted {
        let message = format!(
            "a run can take {}, and {wanted} are wanted ({left_out} more raised an alert, or have another feature schema or another length than their profile's spec.window); wait for more, widen spec.data, or lower spec.data.minWindows in another run",
            counted(rows.len() as u64, "window")
        );
        return Ok(Err(("TooFewWindows", message)));
    }
    let task = task_of(found.spec.task).to_string();
    let digest = windows::digest(&rows);
    let schema = Schema::syscalls_v1().hash().to_string();
    let record = Prepared {
        window_ms: windows::lengths(&rows, profiles.iter().map(|p| &**p)),
        ..Prepared::new(run, &task, &schema, &digest, rows.len() as u64)
    };
    let division = windows::divide(rows, record.workers, record.seed);
    let store = &context.store;
    for (rank, rows) in (0..).zip(division.shards) {
        store
            .put_run_rows(uid, &shard_name(rank), rows)
            .await
            .map_err(failing)?;
    }
    store
        .put_run_rows(uid, HOLDOUT, division.holdout)
        .await
        .map_err(failing)?;
    store
        .put_run_json(uid, Prepared::NAME, &record)
        .await
        .map_err(failing)?;
    Ok(Ok(()))
}

/// Makes the Job, then what its pods wait for.
async fn train(run: &TrainingRun, context: &Context) -> Result<(), Error> {
    let (config, client) = (&context.config, &context.client);
    let (name, namespace) = (job::name(run), config.namespace.as_str());
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let made = match jobs.get_opt(&name).await? {
        Some(job) => job,
        // A former Job's are about to be collected, with which the new one's workers would begin and not end.
        None if secrets.get_opt(&name).await?.is_some() || services.get_opt(&name).await?.is_some() => {
            return Ok(());
        }
        None => {
            let account = account(context).await?;
            let job = job::job(run, config, account.as_deref()).map_err(encoding)?;
            context.door.object(None, &job).await?;
            jobs.get(&name).await?
        }
    };
    if services.get_opt(&name).await?.is_none() {
        let service = job::service(run, config, &made).map_err(encoding)?;
        context.door.object(None, &service).await?;
    }
    // A second identity would part the workers that hold the first from those that come later.
    if secrets.get_opt(&name).await?.is_none() {
        let identity = identity::make(job::names(run, config))
            .map_err(|error| Error::Other(format!("make the workers' certificate: {error}")))?;
        context
            .door
            .object(None, &job::secret(run, config, &made, identity))
            .await?;
    }
    Ok(())
}

/// Checks, signs and stores the output, and makes the ModelVersion.
async fn sign(
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
    let version = make_version(run, uid, status, &digest, samples, context).await?;
    tracing::info!(target: "audit", namespace = run.namespace(), version, digest, run = run.name_any(), "signed");
    let generation = run.metadata.generation.unwrap_or(0);
    let to = plan::succeeded(status, &version, generation, Timestamp::now());
    write(run, status, to, context).await?;
    Ok(Some(Duration::ZERO))
}

/// The run's ModelVersion, made if it is not there. Answers its name.
async fn make_version(
    run: &TrainingRun,
    uid: &str,
    status: &TrainingRunStatus,
    digest: &str,
    samples: u64,
    context: &Context,
) -> Result<String, Error> {
    let namespace = run.namespace().unwrap_or_default();
    let model = &run.spec.model_ref.name;
    // Not the cache: a version that was made a moment ago must not be made twice.
    let api: Api<ModelVersion> = Api::namespaced(context.client.clone(), &namespace);
    let all = api
        .list(&ListParams::default().fields(&format!("spec.modelRef.name={model}")))
        .await?;
    let mine = |v: &&ModelVersion| v.labels().get(RUN_UID).is_some_and(|of| of == uid);
    if let Some(version) = all.iter().find(mine) {
        return Ok(version.name_any());
    }
    // Nor one of a name that is remembered: what it stood for may have been deleted since.
    let models: Api<Model> = Api::namespaced(context.client.clone(), &namespace);
    let now = models.get(model).await?;
    let largest = all.iter().filter_map(version::sequence).max().unwrap_or(0);
    let remembered = now.status.as_ref().map_or(0, |s| s.last_sequence);
    let first = 1 + largest.max(u32::try_from(remembered).unwrap_or(0));
    let window_ms = context
        .store
        .run_json::<Prepared>(uid, Prepared::NAME)
        .await
        .map_err(failing)?
        .map_or(vec![], |record| record.window_ms);
    let provenance = Provenance {
        training_run: run.name_any(),
        data_digest: status.data_digest.clone().unwrap_or_default(),
        samples: i64::try_from(samples).unwrap_or(i64::MAX),
        window_ms,
        metrics: status.metrics.clone(),
    };
    for sequence in first..first.saturating_add(MAX_TAKEN) {
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
                return Ok(version.name_any());
            }
            // The name is taken, as by a version of another Model. It is left alone.
            Err(apply::Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Other(format!(
        "the names {model}-v{first} and the {MAX_TAKEN} after it are taken in namespace {namespace}"
    )))
}

/// Writes the number down at once, lest the version be deleted before its Model is looked at. The Model's own
/// reconcile does it too, so one that was faster is no loss.
async fn remember(model: &Model, sequence: u32, context: &Context) {
    let mut status = model.status.clone().unwrap_or_default();
    status.last_sequence = status.last_sequence.max(i64::from(sequence));
    if let Err(error) = context.door.status(model, status).await {
        tracing::debug!(model = model.name_any(), %error, "the number of a version is left to its Model to remember");
    }
}
