//! Runs of a policy that are over: the newest are kept, the others deleted. What they made stays.

use kube::{Resource, ResourceExt};
use vigia_crds::{RetrainingPolicy, RunPhase, TrainingRun};

use super::pace::number;
use crate::context::Context;
use crate::controller::Error;

/// Runs that are too many, of those that this policy started. Pure.
fn surplus<'a>(
    policy: &RetrainingPolicy,
    runs: impl IntoIterator<Item = &'a TrainingRun>,
) -> Vec<&'a TrainingRun> {
    let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
    let owned = |run: &TrainingRun| {
        let mut owners = run.owner_references().iter();
        owners.any(|owner| owner.uid == uid && owner.kind == RetrainingPolicy::kind(&()))
    };
    let mut over: Vec<(u64, RunPhase, &TrainingRun)> = runs
        .into_iter()
        .filter(|run| run.metadata.deletion_timestamp.is_none() && owned(run))
        .filter_map(|run| {
            let phase = run.status.as_ref()?.phase?;
            let is_over = matches!(phase, RunPhase::Succeeded | RunPhase::Failed);
            is_over.then_some((number(&name, &run.name_any())?, phase, run))
        })
        .collect();
    over.sort_by_key(|(number, ..)| std::cmp::Reverse(*number));
    let keep = usize::try_from(policy.spec.history_limit).unwrap_or(0).max(1);
    let of = |wanted: RunPhase| {
        let of_phase = over.iter().filter(move |(_, phase, _)| *phase == wanted);
        of_phase.skip(keep).map(|(.., run)| *run)
    };
    of(RunPhase::Succeeded).chain(of(RunPhase::Failed)).collect()
}

/// Deletes the runs that are too many.
///
/// # Errors
/// The API server.
pub(super) async fn tidy(policy: &RetrainingPolicy, context: &Context) -> Result<(), Error> {
    let namespace = policy.namespace();
    let runs = context.caches.runs.state();
    let here = runs.iter().filter(|run| run.namespace() == namespace);
    for run in surplus(policy, here.map(|run| &**run)) {
        context.door.delete(run).await?;
        tracing::info!(target: "audit", namespace, policy = policy.name_any(), run = run.name_any(), "a run beyond spec.historyLimit is deleted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(name: &str, phase: Option<&str>, owner: &str) -> TrainingRun {
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": name, "namespace": "shop", "ownerReferences": [
                {"apiVersion": "vigia.dev/v1alpha1", "kind": "RetrainingPolicy", "name": "p", "uid": owner}]},
            "spec": {"modelRef": {"name": "m"}},
            "status": phase.map(|phase| json!({"phase": phase})),
        }))
        .expect("a TrainingRun")
    }

    #[test]
    fn the_newest_of_each_outcome_are_kept() {
        let policy: RetrainingPolicy = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "RetrainingPolicy",
            "metadata": {"name": "p", "namespace": "shop", "uid": "u"},
            "spec": {"modelRef": {"name": "m"}, "historyLimit": 2},
        }))
        .expect("a policy");
        let runs = [
            run("p-1", Some("Succeeded"), "u"),
            run("p-2", Some("Failed"), "u"),
            run("p-3", Some("Failed"), "u"),
            run("p-9", Some("Succeeded"), "u"),
            run("p-10", Some("Succeeded"), "u"),
            run("p-11", Some("Failed"), "u"),
            // Under way; of another policy of this name; made by a person.
            run("p-4", Some("Training"), "u"),
            run("p-5", None, "u"),
            run("p-6", Some("Failed"), "former"),
            run("mine", Some("Failed"), "u"),
        ];
        let names: Vec<String> = surplus(&policy, &runs).iter().map(|r| r.name_any()).collect();
        assert_eq!(names, ["p-1", "p-2"]);
    }
}
