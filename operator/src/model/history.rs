//! Versions that trainings made and nobody needs any more: the newest are kept, the others deleted. What people brought
//! is theirs to delete.

use std::collections::{BTreeSet, HashSet};

use kube::ResourceExt;
use vigia_crds::{Model, ModelStatus, ModelVersion, RunPhase};

use super::version::VersionView;
use crate::context::Context;
use crate::controller::Error;
use crate::trainingrun::RUN_UID;

/// Versions that are too many: of those that a training made, all but the newest `spec.historyLimit`, beside what is
/// `held` (by a node, or by a training that is under way) and what the Model itself names. Pure.
fn surplus<'a>(
    model: &Model,
    status: &ModelStatus,
    versions: impl IntoIterator<Item = &'a ModelVersion>,
    is_held: impl Fn(&ModelVersion) -> bool,
) -> Vec<&'a ModelVersion> {
    let rolled = status.rollout.as_ref().map(|r| &r.version);
    let served = status.serving.iter().chain(&status.previous).chain(rolled);
    let named: BTreeSet<&str> = served
        .map(|v| v.digest.as_str())
        .chain(model.spec.version.iter().map(|v| v.digest.as_str()))
        .collect();
    let mut loose: Vec<&ModelVersion> = versions
        .into_iter()
        .filter(|v| v.labels().contains_key(RUN_UID) && v.spec.source.is_none())
        .filter(|v| v.metadata.deletion_timestamp.is_none() && !named.contains(v.spec.digest.as_str()))
        .collect();
    loose.sort_by_cached_key(|v| std::cmp::Reverse(VersionView::of(v).age));
    let keep = usize::try_from(model.spec.history_limit).unwrap_or(0).max(1);
    loose.into_iter().skip(keep).filter(|v| !is_held(v)).collect()
}

/// Deletes the versions that are too many.
///
/// # Errors
/// The API server.
pub(super) async fn tidy(model: &Model, status: &ModelStatus, context: &Context) -> Result<(), Error> {
    let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
    let versions = context.caches.versions_of(&namespace, &name);
    let limit = usize::try_from(model.spec.history_limit).unwrap_or(0);
    if versions.len() <= limit {
        return Ok(());
    }
    let (held, busy) = (held(&namespace, &name, context), busy(context));
    let is_held = |version: &ModelVersion| {
        let run = version.labels().get(RUN_UID);
        held.contains(&version.spec.digest) || run.is_some_and(|uid| busy.contains(uid))
    };
    for version in surplus(model, status, versions.iter().map(|v| &**v), is_held) {
        context.door.delete(version).await?;
        let digest = &version.spec.digest;
        tracing::info!(target: "audit", namespace, model = name, version = version.name_any(), digest, "a version beyond spec.historyLimit is deleted");
    }
    Ok(())
}

/// Digests of a Model that nodes are told to hold, or say that they do.
fn held(namespace: &str, name: &str, context: &Context) -> HashSet<String> {
    let mut held = HashSet::new();
    for plan in context.caches.plans.state() {
        let models = plan.spec.models.iter();
        let planned = models.filter(|m| m.namespace == namespace && m.name == name);
        held.extend(planned.flat_map(|m| &m.versions).map(|v| v.digest.clone()));
        let said = plan.status.iter().flat_map(|s| &s.versions);
        let said = said.filter(|v| v.namespace == namespace && v.model == name);
        held.extend(said.map(|v| v.digest.clone()));
    }
    held
}

/// Runs that are not over: what they made is looked for by them.
fn busy(context: &Context) -> HashSet<String> {
    let runs = context.caches.runs.state();
    let busy = runs.iter().filter(|run| {
        let phase = run.status.as_ref().and_then(|s| s.phase);
        !matches!(phase, Some(RunPhase::Succeeded | RunPhase::Failed))
    });
    busy.filter_map(|run| run.uid()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::model;
    use crate::model::version::SEQUENCE_LABEL;
    use serde_json::json;
    use vigia_crds::ServedVersion;

    fn version(n: u32, trained: bool) -> ModelVersion {
        let mut labels = json!({SEQUENCE_LABEL: n.to_string()});
        if trained {
            labels[RUN_UID] = json!(format!("run-{n}"));
        }
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
            "metadata": {"name": format!("m-v{n}"), "namespace": "shop", "labels": labels},
            "spec": {"modelRef": {"name": "m"}, "digest": format!("d{n}")},
        }))
        .expect("a ModelVersion")
    }

    fn names(spec: serde_json::Value, versions: &[ModelVersion], held: &[&str]) -> Vec<String> {
        let served = |n: u32| ServedVersion {
            name: format!("m-v{n}"),
            digest: format!("d{n}"),
        };
        let status = ModelStatus {
            serving: Some(served(3)),
            previous: Some(served(1)),
            ..ModelStatus::default()
        };
        let is_held = |v: &ModelVersion| held.contains(&v.spec.digest.as_str());
        let gone = surplus(&model("shop", "m", spec), &status, versions, is_held);
        gone.iter().map(|v| v.name_any()).collect()
    }

    #[test]
    fn what_nobody_needs_goes_and_the_newest_stay() {
        let spec = json!({"task": "Anomaly", "historyLimit": 2});
        let versions: Vec<_> = (1..=12).map(|n| version(n, true)).collect();
        let gone = ["m-v10", "m-v9", "m-v8", "m-v7", "m-v6", "m-v5", "m-v4", "m-v2"];
        assert_eq!(names(spec.clone(), &versions, &[]), gone);
        // Those that a node holds, and the one that Git names, are not among them.
        let mut named = spec.clone();
        named["version"] = json!({"digest": "d5"});
        let gone = ["m-v10", "m-v9", "m-v8", "m-v7", "m-v6", "m-v4"];
        assert_eq!(names(named, &versions, &["d2"]), gone);
        assert!(names(json!({"task": "Anomaly"}), &versions[..7], &[]).is_empty());
    }

    #[test]
    fn what_people_brought_stays() {
        let versions: Vec<_> = (1..=12).map(|n| version(n, false)).collect();
        assert!(names(json!({"task": "Anomaly", "historyLimit": 1}), &versions, &[]).is_empty());
    }
}
