//! More trainings than may run at once: the others wait, and have their turn.

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use vigia_crds::{RunPhase, TrainingRun};

use crate::objects::SYSTEM;
use crate::training::{NS, report, samples, shop};
use crate::world::{World, eventually};

/// Names of the runs that have a Job.
async fn train(world: &World) -> Result<BTreeSet<String>> {
    let api: Api<Job> = Api::namespaced(world.client.clone(), SYSTEM);
    let jobs = api.list(&ListParams::default()).await?.items;
    let run = |job: &Job| job.metadata.labels.as_ref()?.get("vigia.dev/run-name").cloned();
    Ok(jobs.iter().filter_map(run).collect())
}

async fn wait_for(world: &World, trains: &str, queued: &[&str]) -> Result<()> {
    let runs: Api<TrainingRun> = Api::namespaced(world.client.clone(), NS);
    eventually("one trains and the others wait", || async {
        let mut said = vec![];
        for name in queued.iter().copied() {
            let status = runs.get(name).await?.status.unwrap_or_default();
            let ready = vigia_crds::conditions::find(&status.conditions, "Ready");
            let is_queued = ready.is_some_and(|ready| ready.reason == "Queued");
            said.push((name, is_queued && status.phase == Some(RunPhase::Queued)));
        }
        let there = train(world).await?;
        Ok(
            if there == BTreeSet::from([trains.to_owned()]) && said.iter().all(|(_, is_queued)| *is_queued) {
                Ok(())
            } else {
                Err(format!("{there:?} train; queued: {said:?}"))
            },
        )
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_train_than_may_and_who_waits_has_its_turn() -> Result<()> {
    let mut world = World::with(&["n1"], &["--max-trainings", "1"]).await?;
    shop(&world).await?;
    report(&world, 1, &samples(240)).await?;
    wait_for(&world, "p-1", &[]).await?;
    let runs: Api<TrainingRun> = Api::namespaced(world.client.clone(), NS);
    for name in ["a-second", "b-third"] {
        let run: TrainingRun = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"namespace": NS, "name": name},
            "spec": {"modelRef": {"name": "m"}, "data": {"minWindows": 50}, "workers": 1}}))?;
        runs.create(&PostParams::default(), &run).await?;
        wait_for(&world, "p-1", &[name]).await?;
    }
    // A killed operator takes nobody's place away, and gives none too many.
    world.kill().await;
    world.start().await?;
    wait_for(&world, "p-1", &["a-second", "b-third"]).await?;
    runs.delete("p-1", &DeleteParams::default()).await?;
    wait_for(&world, "a-second", &["b-third"]).await?;
    runs.delete("a-second", &DeleteParams::default()).await?;
    wait_for(&world, "b-third", &[]).await
}
