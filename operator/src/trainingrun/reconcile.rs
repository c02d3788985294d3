//! The effects of a run: read what is there, ask [`super::plan`], do it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use vigia_crds::{Model, RunPhase, Task, TrainingRun, TrainingRunStatus};
use vigia_model::artifact;
use vigia_model::schema::Schema;

use super::data::{HOLDOUT, Prepared, shard_name};
use super::plan::{self, JobView, Next, Observed};
use super::sign::sign;
use super::windows::{self, Newest, Selection};
use super::{identity, job, lost, silent, status, trace, words};
use crate::context::Context;
use crate::controller::Error;
use crate::events::{Note, Severity, counted, listed};
use crate::store::{Output, StoreError};
use crate::telemetry::TraceParent;

/// One run is prepared at a time; the others whose turn it is ask again after this.
const TURN: Duration = Duration::from_secs(1);
/// Whose turn it is not asks again after this, if no other run's end asks for it before.
pub(super) const ASK: Duration = Duration::from_secs(10);
/// Holds a TrainingRun that is under way until its Job and its files are gone. One that is over is not held:
/// nothing of it runs, and its namespace must be deletable where there is no operator any more.
pub(super) const FINALIZER: &str = "vigia.dev/training";

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
    let job = job.map(|job| JobView::of(&job));
    let last_words = match &job {
        Some(job) if plan::wants_words(&run.spec, &status, job, Timestamp::now()) => {
            words::last(&uid, &context).await?
        }
        _ => None,
    };
    let record = store
        .run_json::<Prepared>(&uid, Prepared::NAME)
        .await
        .map_err(failing)?;
    let is_early = matches!(status.phase, None | Some(RunPhase::Queued | RunPhase::Preparing));
    let waits = is_early && record.is_none() && !is_due(&uid, &context);
    let observed = Observed {
        record,
        waits_for: waits.then_some(context.config.max_trainings),
        account,
        job,
        last_words,
        logs: job::logs(&run, &context.config),
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
        Next::Queue => Ok(Some(ASK)),
        Next::Prepare => {
            // Each holds its windows in memory.
            let Ok(_one) = context.preparing.try_acquire() else {
                return Ok(Some(TURN));
            };
            // Another one may have been chosen since it was asked for.
            if !is_due(&uid, &context) {
                return Ok(Some(TURN));
            }
            let runs = context.caches.runs.state();
            let place = context.turns.begin(&uid, &runs, Timestamp::now());
            match prepare(&run, &uid, &context).await {
                Ok(Ok(())) => {
                    place.keep();
                    Ok(Some(Duration::ZERO))
                }
                Ok(Err((reason, message))) => fail(&run, &status, reason, &message, &context).await,
                Err(error) if plan::is_overdue(&run.spec, &status, Timestamp::now()) => {
                    let message = format!("its windows could not be chosen within its timeout: {error}");
                    fail(&run, &status, "StoreFailed", &message, &context).await
                }
                Err(error) => {
                    // On a full volume a part of them would only be in the way.
                    store.delete_run_data(&uid).await.map_err(failing)?;
                    Err(error)
                }
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
        Next::Over { end_job, again } => {
            if end_job {
                remove_job(&run, &context).await?;
            }
            // The record and the output's digest stay: a worker that comes late is told that all is done.
            store.delete_run_data(&uid).await.map_err(failing)?;
            Ok(again)
        }
    }
}

fn is_due(uid: &str, context: &Context) -> bool {
    let most = usize::from(context.config.max_trainings);
    let runs = context.caches.runs.state();
    context.turns.is_due(uid, &runs, most, Timestamp::now())
}

pub(super) fn failing(error: StoreError) -> Error {
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
pub(super) async fn write(
    run: &TrainingRun,
    from: &TrainingRunStatus,
    mut to: TrainingRunStatus,
    context: &Context,
) -> Result<(), Error> {
    let is_traced = context.telemetry.is_on();
    let spans = trace::note(run, from, &mut to, is_traced, Timestamp::now());
    context.telemetry.spans(spans);
    if let (true, None, Err(none)) = (is_traced, from.phase, TraceParent::annotated(run)) {
        let note = none.note(run, "the run", "Train", "traceparent".to_owned());
        context.events.mention(&run.object_ref(&()), &note).await;
    }
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
    let note = Note {
        severity,
        reason,
        action: "Train",
        note: message.clone(),
        key: reason.to_owned(),
    };
    // Before the status, so that a kill in between leaves nothing unsaid; said twice, they are one. Where
    // nobody can be told (a quota of Events, a webhook), the run goes on all the same.
    context.events.mention(&run.object_ref(&()), &note).await;
    context.door.status(run, to).await?;
    // After it: what was looked at in a cache that lags is refused there, and would be recorded twice.
    tracing::info!(target: "audit", namespace = run.namespace(), run = run.name_any(), model = run.spec.model_ref.name, reason, message, "training");
    Ok(())
}

pub(super) async fn fail(
    run: &TrainingRun,
    status: &TrainingRunStatus,
    reason: &'static str,
    message: &str,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let generation = run.metadata.generation.unwrap_or(0);
    let to = status::failed(status, reason, message, generation, Timestamp::now());
    write(run, status, to, context).await?;
    Ok(Some(Duration::ZERO))
}

pub(super) fn model_of(run: &TrainingRun, context: &Context) -> Option<Arc<Model>> {
    let namespace = run.namespace().unwrap_or_default();
    context.caches.model(&namespace, &run.spec.model_ref.name)
}

pub(super) fn task_of(task: Task) -> artifact::Task {
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
        let selection = Selection::of(profile, run.spec.data.include_alerted);
        let name = profile.name_any();
        let rows = context
            .store
            .each_row(&namespace, &name, between, |row| newest.take(&selection, row));
        rows.await.map_err(failing)?;
    }
    let (left_out, (rows, is_full)) = (newest.left_out, newest.finish());
    let wanted = windows::wanted(run.spec.data.min_windows, run.spec.workers);
    if rows.len() < wanted && is_full {
        let message = format!(
            "{} are all that the operator has room for, with their sequences of calls, and {wanted} are wanted; lower spec.data.minWindows or leave {} out of spec.estimator.types in another run",
            counted(rows.len() as u64, "window"),
            listed(&windows::of_order(run).collect::<Vec<_>>())
        );
        return Ok(Err(("TooFewWindows", message)));
    }
    if rows.len() < wanted {
        let message = format!(
            "a run can take {}, and {wanted} are wanted ({left_out} more raised an alert, have another feature schema, another length than their profile's spec.window, other system calls than its spec.capture.syscalls, or numbers that no window can have); wait for more, widen spec.data, or lower spec.data.minWindows in another run",
            counted(rows.len() as u64, "window")
        );
        return Ok(Err(("TooFewWindows", message)));
    }
    let task = task_of(found.spec.task).to_string();
    let digest = windows::digest(&rows);
    let schema = Schema::syscalls_v1().hash().to_string();
    let record = Prepared {
        unscored: rows.iter().filter(|row| row.unscored).count() as u64,
        captures: windows::captures(&rows),
        window_ms: windows::lengths(&rows, profiles.iter().map(|p| &**p)),
        ..Prepared::new(run, &task, &schema, &digest, rows.len() as u64)
    };
    let division = windows::divide(rows, record.workers, record.seed);
    let named: Vec<String> = profiles.iter().map(|profile| profile.name_any()).collect();
    if let Some((reason, message)) = silent::why(&run.spec.estimator.types, &division.holdout, &named) {
        return Ok(Err((reason, message)));
    }
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

/// Makes the Job, then what its pods need and it owns, and lets them go.
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
    if let Some(begun) = job::begun(&made) {
        context.door.object(None, &begun).await?;
    }
    Ok(())
}
