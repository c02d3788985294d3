//! Effects of RetrainingPolicy: start a run, say why or why not; and drift on the Models.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use vigia_crds::{
    Model, RetrainingPolicy, RetrainingPolicyStatus, RunPhase, TraceProfile, TrainingRun, conditions,
};

use super::drifted;
use super::history;
use super::plan::{
    COLD_START, DRIFT, ModelView, Observed, RunView, Unscored, after_change, includes_alerted, plan, untried,
};
use super::refused;
use crate::apply;
use crate::context::Context;
use crate::controller::Error;
use crate::events::{Note, Severity};
use crate::model::choose;
use crate::model::revoked;
use crate::model::version::{Verdict, VersionView};
use crate::model::windows as model_windows;
use crate::modelversion::STORED;
use crate::observed::drift::{self, Drift, Threshold};
use crate::store::Kind;
use crate::trainingrun::windows::Selection;

/// Windows come all the time, so a policy is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A run that was refused is tried again after this, or when its policy is changed: the API server's rules may be others
/// by then.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);
/// Drift of all Models is looked at this often.
const DRIFT_EVERY: Duration = Duration::from_secs(5);

/// One reconcile.
pub async fn reconcile(
    policy: Arc<RetrainingPolicy>,
    context: Arc<Context>,
) -> Result<Option<Duration>, Error> {
    if policy.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let now = Timestamp::now();
    let model_name = &policy.spec.model_ref.name;
    let model = context.caches.model(&namespace, model_name);
    let threshold = policy.spec.drift.as_ref().and_then(Threshold::of);
    let drift = model
        .as_ref()
        .zip(threshold)
        .and_then(|(model, threshold)| drift_of(model, &threshold, &context, now));
    let lookback = SignedDuration::try_from(Duration::from(policy.spec.training.data.lookback))
        .unwrap_or(SignedDuration::MAX);
    let since = now.checked_sub(lookback).unwrap_or(Timestamp::UNIX_EPOCH);
    let windows = |reason, since| windows(&context, &namespace, model_name, reason, (since, now));
    let drifted = drift
        .and_then(|d| d.since)
        .map(|since| windows(DRIFT, after_change(since, &policy.spec)));
    let status = policy.status.clone().unwrap_or_default();
    let (profiles, _) = context.caches.profiles_of(&namespace, model_name);
    let plan = plan(&Observed {
        name: &name,
        generation: policy.metadata.generation.unwrap_or(0),
        spec: &policy.spec,
        status: &status,
        model: model.as_deref().map(|m| view(m, &namespace, &profiles, &context)),
        runs: &runs(&context, &namespace, model_name),
        taken: &taken(&context, &namespace),
        older: policies(&context, &namespace, model_name)
            .first()
            .filter(|first| first.name_any() != name)
            .map(|first| first.name_any()),
        windows: windows(COLD_START, since),
        unscored: unscored(&context, &namespace, model_name, &profiles, &status, (since, now)),
        drift,
        windows_since_drift: drifted.unwrap_or(0),
        store_full: context.store.health().borrow().full.clone(),
        now,
    });
    if let Some((run, spec)) = plan.start {
        // The run first: a kill before the status is written finds it again by its name.
        let run = TrainingRun {
            metadata: ObjectMeta {
                name: Some(run),
                namespace: Some(namespace.clone()),
                owner_references: policy.controller_owner_ref(&()).map(|owner| {
                    vec![OwnerReference {
                        block_owner_deletion: Some(false),
                        ..owner
                    }]
                }),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        };
        match context.door.create(&run).await {
            Ok(()) => {}
            // Made before a kill, where the cache does not have it yet; or another's, which is left alone.
            Err(conflict @ apply::Error::Conflict(_)) => {
                let api: Api<TrainingRun> = Api::namespaced(context.client.clone(), &namespace);
                let there = api.get_metadata_opt(&run.name_any()).await?;
                if there.is_none_or(|there| {
                    !there
                        .owner_references()
                        .iter()
                        .any(|o| Some(&o.uid) == policy.uid().as_ref())
                }) {
                    return Err(conflict.into());
                }
            }
            Err(error) => {
                let Some(why) = error.invalid() else {
                    return Err(error.into());
                };
                let status = refused::status(&status, plan.status, why, now);
                context.door.status(&*policy, status).await?;
                history::tidy(&policy, &context).await?;
                return Ok(Some(REFUSED_AGAIN));
            }
        }
        tracing::info!(target: "audit", namespace, policy = name, run = run.name_any(), reason = run.spec.reason, "a policy started a training");
    }
    context.door.status(&*policy, plan.status).await?;
    history::tidy(&policy, &context).await?;
    Ok(Some(LOOK_AGAIN))
}

/// Windows that a run of a policy would take if it were started for this reason.
fn windows(
    context: &Context,
    namespace: &str,
    model: &str,
    reason: &str,
    (since, until): (Timestamp, Timestamp),
) -> u64 {
    let between = (since.as_millisecond(), until.as_millisecond());
    let profiles = context.caches.profiles_naming(namespace, model);
    let counts = profiles
        .iter()
        .map(|profile| windows_of(context, namespace, profile, reason, between));
    counts.sum()
}

fn windows_of(
    context: &Context,
    namespace: &str,
    profile: &TraceProfile,
    reason: &str,
    between: (i64, i64),
) -> u64 {
    let selection = Selection::of(profile, includes_alerted(reason));
    let takes = |kind: Kind<'_>, alerted| selection.takes(kind, alerted);
    context
        .store
        .count(namespace, &profile.name_any(), between, takes)
}

/// Profiles whose windows the serving version does not score, with how many of these a run would take.
fn unscored(
    context: &Context,
    namespace: &str,
    model: &str,
    profiles: &[Arc<TraceProfile>],
    status: &RetrainingPolicyStatus,
    (since, now): (Timestamp, Timestamp),
) -> Unscored {
    let serving = context.caches.model(namespace, model);
    let serving = serving.and_then(|m| Some(m.status.as_ref()?.serving.as_ref()?.digest.clone()));
    let versions = context.caches.versions_of(namespace, model);
    let serving = versions.iter().find(|v| Some(&v.spec.digest) == serving.as_ref());
    let others = serving.map_or(vec![], |v| model_windows::other_capture(v, profiles));
    let names: Vec<String> = others.into_iter().map(|(name, _)| name).collect();
    let since = untried(status, since);
    let between = (since.as_millisecond(), now.as_millisecond());
    let of = profiles.iter().filter(|p| names.contains(&p.name_any()));
    let windows = of
        .map(|p| windows_of(context, namespace, p, COLD_START, between))
        .max();
    Unscored {
        all: names.len() == profiles.len(),
        profiles: names,
        windows: windows.unwrap_or(0),
    }
}

fn runs(context: &Context, namespace: &str, model: &str) -> Vec<RunView> {
    let all = context.caches.runs.state();
    let of_model = all
        .iter()
        .filter(|r| r.spec.model_ref.name == model && r.namespace().as_deref() == Some(namespace));
    of_model
        .map(|run| RunView {
            name: run.name_any(),
            finished: matches!(
                run.status.as_ref().and_then(|s| s.phase),
                Some(RunPhase::Succeeded | RunPhase::Failed)
            ),
            failed: run.status.as_ref().and_then(|s| s.phase) == Some(RunPhase::Failed),
            reason: run.spec.reason.clone(),
            created: run.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            windows: run
                .status
                .as_ref()
                .map_or(0, |s| u64::try_from(s.windows).unwrap_or(0)),
        })
        .collect()
}

/// Names of all runs of a namespace, also of those that cannot be read.
fn taken(context: &Context, namespace: &str) -> Vec<String> {
    let all = context.caches.runs.state();
    let here = all.iter().filter(|r| r.namespace().as_deref() == Some(namespace));
    let unreadable = context.unreadable.names(&TrainingRun::kind(&()), namespace);
    here.map(|run| run.name_any()).chain(unreadable).collect()
}

/// The policies of a Model, the one that acts first: the oldest.
fn policies(context: &Context, namespace: &str, model: &str) -> Vec<Arc<RetrainingPolicy>> {
    let caches = &context.caches;
    let names = caches.policy_names.of(namespace, model);
    let mut policies: Vec<Arc<RetrainingPolicy>> = names
        .iter()
        .filter_map(|name| caches.policies.get(&ObjectRef::new(name).within(namespace)))
        .filter(|policy| policy.metadata.deletion_timestamp.is_none())
        .collect();
    policies.sort_by_key(|policy| (policy.creation_timestamp(), policy.name_any()));
    policies
}

fn view(model: &Model, namespace: &str, profiles: &[Arc<TraceProfile>], context: &Context) -> ModelView {
    let status = model.status.clone().unwrap_or_default();
    let versions = context.caches.versions_of(namespace, &model.name_any());
    let mut views: Vec<VersionView> = versions.iter().map(|v| VersionView::of(v)).collect();
    let revoked = context
        .revocations
        .with(Some(&status), namespace, &model.name_any());
    revoked::latch(&mut views, &revoked);
    model_windows::mark(&mut views, &versions, profiles);
    views.sort_by(|a, b| a.age.cmp(&b.age));
    let serving = status.serving.as_ref();
    let place = serving.and_then(|s| views.iter().position(|v| v.digest == s.digest));
    let mut newer = views.iter().skip(place.map_or(0, |i| i + 1));
    let generation = model.metadata.generation.unwrap_or(0);
    let failed = |digest: &String| choose::is_out(&status.failed, digest, generation);
    let could = |v: &&VersionView| !matches!(v.verdict, Verdict::Bad { .. }) && !failed(&v.digest);
    // What the store has lost will not come to serve by itself, nor what would score nothing since a filter changed.
    let candidate = newer
        .clone()
        .rfind(|v| could(v) && v.stored && !v.silent)
        .map(|v| v.name.clone());
    let lost = match serving {
        Some(serving) => is_lost(model, context).then(|| serving.name.clone()),
        None => newer.rfind(|v| could(v) && !v.stored).map(|v| v.name.clone()),
    };
    ModelView {
        serving: serving.map(|s| s.name.clone()),
        candidate,
        lost,
    }
}

/// Whether the store has lost the artifact of the version that serves. That it was not read yet is no loss.
fn is_lost(model: &Model, context: &Context) -> bool {
    let Some(serving) = model.status.as_ref().and_then(|s| s.serving.as_ref()) else {
        return false;
    };
    let namespace = model.namespace().unwrap_or_default();
    let versions = context.caches.versions_of(&namespace, &model.name_any());
    let says = |status: &str| {
        versions.iter().any(|v| {
            let conditions = v.status.as_ref().map(|s| s.conditions.as_slice());
            let stored = conditions.and_then(|c| conditions::find(c, STORED));
            v.spec.digest == serving.digest && stored.is_some_and(|c| c.status == status)
        })
    };
    says("False") && !says("True")
}

/// Drift of a Model's serving version, where there is one whose validation is known.
fn drift_of(model: &Model, threshold: &Threshold, context: &Context, now: Timestamp) -> Option<Drift> {
    let serving = model.status.as_ref()?.serving.as_ref()?;
    let validation = context.artifacts.validation(&serving.digest)?;
    let namespace = model.namespace().unwrap_or_default();
    let version = (namespace.as_str(), &*model.name_any(), serving.digest.as_str());
    drift::of(&context.observations, version, &validation, threshold, now)
}

/// Shows the drift of every Model's serving version in its status, until the context's shutdown.
pub async fn show_drift(context: Arc<Context>) {
    let shutdown = context.shutdown.clone();
    while shutdown
        .run_until_cancelled(tokio::time::sleep(DRIFT_EVERY))
        .await
        .is_some()
    {
        for model in context.caches.models.state() {
            match show(&model, &context).await {
                // The other owner of the status was faster; the next round derives it again.
                Ok(()) | Err(Error::Write(apply::Error::Conflict(_) | apply::Error::Gone(_))) => {}
                Err(error) => {
                    tracing::warn!(model = model.name_any(), %error, "drift could not be shown; it is tried again")
                }
            }
        }
    }
}

async fn show(model: &Model, context: &Context) -> Result<(), Error> {
    let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
    if model.status.as_ref().is_none_or(|s| s.serving.is_none()) {
        return Ok(());
    }
    let policies = policies(context, &namespace, &name);
    let threshold = Threshold::of_policies(policies.iter().map(|p| &**p));
    let now = Timestamp::now();
    let drift = drift_of(model, &threshold, context, now);
    let (status, news) = drifted::status(model, drift.as_ref(), is_lost(model, context), &threshold, now);
    if let Some(text) = news {
        tracing::info!(target: "audit", namespace, model = name, text, "drift was detected");
        let since = drift
            .and_then(|d| d.since)
            .map(|t| t.to_string())
            .unwrap_or_default();
        let note = Note {
            severity: Severity::Warning,
            reason: "DriftDetected",
            action: "Watch",
            note: text,
            key: since,
        };
        context.events.mention(&model.object_ref(&()), &note).await;
    }
    context.door.status(model, status).await?;
    Ok(())
}
