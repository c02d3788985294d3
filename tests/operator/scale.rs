//! Five thousand nodes that only exist in the API: how long a plan takes to reach them all.
//!
//! `cargo test -p vigia-tests --test operator --release -- --ignored scale --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use vigia_crds::{
    Model, NodePlan, NodePlanStatus, ProfileOnNode, RolloutPhase, VersionMode, VersionOnNode, VersionState,
};
use vigia_operator::context::Context;

use crate::artifact;
use crate::objects;
use crate::world::World;

const NODES: usize = 5000;
const AT_ONCE: usize = 64;
/// Generous: the machine builds beside.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes and 2 GiB"]
async fn five_thousand_nodes_get_their_plans_and_a_version() -> Result<()> {
    let world = World::new(&[]).await?;
    let ns = "shop";
    objects::namespace(&world.client, ns).await?;
    let names: Vec<String> = (0..NODES).map(|n| format!("node-{n:04}")).collect();
    let (started, client) = (Instant::now(), &world.client);
    stream::iter(&names)
        .map(|name| async move {
            objects::node(client, name).await?;
            let pod = format!("web-{name}");
            objects::pod(client, ns, &pod, name, "default", &[("app", "web")], &["app"]).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    println!(
        "{NODES} nodes and {} pods made in {:?}",
        2 * NODES,
        started.elapsed()
    );

    let v1 = artifact::signed(1);
    let steps = json!([{"nodes": 1, "mode": "Shadow"}, {"nodes": "10%", "mode": "Active"}, {"nodes": "100%", "mode": "Active"}]);
    let models: Api<Model> = Api::namespaced(world.client.clone(), ns);
    let spec = json!({"promotion": {"mode": "Auto"}, "rollout": {"steps": steps, "gates": []}});
    models
        .create(&PostParams::default(), &objects::model(ns, "m", spec)?)
        .await?;

    let operator = world.operator();
    let cpu = processor_seconds();
    let started = Instant::now();
    let profiles = Api::namespaced(world.client.clone(), ns);
    profiles
        .create(
            &PostParams::default(),
            &objects::profile(ns, "web", "web", &["m"])?,
        )
        .await?;
    until("all plans are there", || operator.caches.plans.len() == NODES).await;
    let written = started.elapsed();
    println!(
        "all {NODES} plans written {written:?} after the profile, {:.1} s of CPU",
        processor_seconds() - cpu
    );
    assert!(written < Duration::from_secs(120), "{written:?}");

    let cpu = processor_seconds();
    let started = Instant::now();
    let agents = tokio::spawn(agents(world.client.clone(), operator.clone()));
    objects::version(&world.client, ns, "m", "m-v1", &v1, &artifact::digest(&v1)).await?;
    until("the rollout is complete", || {
        let model = operator.caches.model(ns, "m");
        let status = model.and_then(|m| m.status.clone()).unwrap_or_default();
        status.rollout.is_some_and(|r| r.phase == RolloutPhase::Complete)
    })
    .await;
    println!(
        "a version in three steps on all {NODES} nodes in {:?}, {:.1} s of CPU with agents and test",
        started.elapsed(),
        processor_seconds() - cpu
    );
    agents.abort();
    let model = world.model(ns, "m").await?;
    let size = serde_json::to_vec(&model.status)?.len();
    println!(
        "status of the Model: {size} bytes; resident: {} MiB",
        resident_mib()
    );
    assert!(size < 16 << 10);
    Ok(())
}

/// All agents in one: each does at once what its plan says.
async fn agents(client: Client, operator: Arc<Context>) {
    let api: Api<NodePlan> = Api::all(client);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let behind = operator.caches.plans.state().into_iter().filter(|plan| {
            let observed = plan.status.as_ref().map_or(0, |s| s.observed_generation);
            plan.metadata.generation != Some(observed)
        });
        stream::iter(behind)
            .for_each_concurrent(AT_ONCE, |plan| {
                let api = api.clone();
                async move {
                    let body = json!({"apiVersion": "vigia.dev/v1alpha1", "kind": "NodePlan", "status": answer(&plan)});
                    let params = PatchParams::apply("vigia-agent").force();
                    // What fails is behind at the next tick too.
                    let _ = api.patch_status(&plan.name_any(), &params, &Patch::Apply(&body)).await;
                }
            })
            .await;
    }
}

fn answer(plan: &NodePlan) -> NodePlanStatus {
    let since = Time(Timestamp::from_second(Timestamp::now().as_second()).expect("now"));
    let versions = plan.spec.models.iter().flat_map(|model| {
        model.versions.iter().map(|version| VersionOnNode {
            namespace: model.namespace.clone(),
            model: model.name.clone(),
            digest: version.digest.clone(),
            state: match version.mode {
                VersionMode::Prefetch => VersionState::Prefetched,
                VersionMode::Shadow => VersionState::Shadow,
                VersionMode::Active => VersionState::Active,
            },
            reason: String::new(),
            message: String::new(),
            since: since.clone(),
        })
    });
    NodePlanStatus {
        observed_generation: plan.metadata.generation.unwrap_or(0),
        profiles: plan
            .spec
            .profiles
            .iter()
            .map(|p| ProfileOnNode {
                namespace: p.namespace.clone(),
                name: p.name.clone(),
                containers: 1,
                ..ProfileOnNode::default()
            })
            .collect(),
        versions: versions.collect(),
        ..NodePlanStatus::default()
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while !done() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tick.tick().await;
    }
}

/// Processor time of this process: operator, agents and test together.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<f64>().ok())
        .sum();
    // USER_HZ is 100 on every architecture that we build for.
    ticks / 100.0
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .unwrap_or_default();
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    kib / 1024
}
