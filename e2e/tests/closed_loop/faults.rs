//! Faults on a real cluster: whatever dies, the loop ends where it should, and no node is left on bytes that
//! nobody signed.
//!
//! One cluster bears them all, one after another, because each needs what the one before ended in.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::world::{SHOP, SYSTEM, World};

/// How long a node is cut off, and the API server away.
const AWAY: Duration = Duration::from_secs(120);
/// A volume of the operator's own, which outlives its pod.
const VOLUME: &[&str] = &[
    "operator.store.type=persistentVolumeClaim",
    "operator.store.storageClassName=node-disk",
    "operator.store.size=1Gi",
];

#[tokio::test]
async fn the_loop_ends_where_it_should_whatever_dies() -> Result<()> {
    let world = World::install(3, VOLUME).await?;
    world.start_demo()?;
    operator_and_worker_die_in_training(&world)?;
    operator_agent_and_node_die_in_a_rollout(&world)?;
    api_server_is_away(&world).await?;
    a_node_is_cut_off(&world)?;
    Ok(())
}

/// Kills a pod at once, as a crash of its machine's kernel would.
fn kill(world: &World, selector: &str) -> Result<()> {
    world.kubectl(&[
        "-n",
        SYSTEM,
        "delete",
        "pod",
        "-l",
        selector,
        "--grace-period=0",
        "--force",
        "--wait=false",
        "--ignore-not-found",
    ])?;
    Ok(())
}

const OPERATOR: &str = "app.kubernetes.io/component=operator";

/// Lets time pass in which the system does something that cannot be seen from here.
fn let_pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// A moment within a span that differs from call to call and run to run.
fn some_time(most: Duration) -> Duration {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::hash::RandomState::new().build_hasher().finish();
    most.mul_f64((random % 1000) as f64 / 1000.0)
}

fn phase(world: &World, run: &str) -> Result<Value> {
    Ok(world.get("trainingrun", run)?["status"]["phase"].clone())
}

/// The workers of redis-1 that there are: name, and whether it has yet to end.
fn workers(world: &World) -> Result<Vec<(String, String, bool)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = world.list(SYSTEM, "pods")?.into_iter();
    Ok(pods
        .filter(|pod| pod["metadata"]["labels"]["vigia.dev/run-name"] == "redis-1")
        .map(|pod| {
            let metadata = &pod["metadata"];
            let index = text(&metadata["labels"]["batch.kubernetes.io/job-completion-index"]);
            let goes_on =
                ["Pending", "Running"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
            (
                text(&metadata["name"]),
                index,
                goes_on && metadata["deletionTimestamp"].is_null(),
            )
        })
        .collect())
}

fn operator_and_worker_die_in_training(world: &World) -> Result<()> {
    let at_work = || Ok(workers(world)?.into_iter().find(|(_, _, goes_on)| *goes_on));
    world.until("a worker of the first training", 300, || {
        at_work().map(|it| it.is_some())
    })?;
    let (worker, index, _) = at_work()?.context("the worker had ended before it could be killed")?;
    world.kubectl(&[
        "-n",
        SYSTEM,
        "delete",
        "pod",
        &worker,
        "--grace-period=0",
        "--force",
    ])?;
    // Were it not so, the worker would have ended by itself and the test would have killed nothing.
    world.until("another worker in its place", 60, || {
        Ok(workers(world)?
            .iter()
            .any(|(name, place, _)| *place == index && *name != worker))
    })?;
    for _ in 0..3 {
        let_pass(some_time(Duration::from_secs(6)));
        kill(world, OPERATOR)?;
    }
    world.until("redis-1 to succeed", 300, || {
        Ok(phase(world, "redis-1")? == "Succeeded")
    })?;
    let versions = world.list(SHOP, "modelversions")?;
    world.ensure(versions.len() == 1, "one training makes one version")?;
    world.ensure(
        world.list(SHOP, "trainingruns")?.len() == 1,
        "one cold start makes one training",
    )
}

fn operator_agent_and_node_die_in_a_rollout(world: &World) -> Result<()> {
    let under_way = || {
        let rollout = world.get("model", "redis")?["status"]["rollout"].clone();
        Ok(rollout["version"]["name"] == "redis-v1" && rollout["phase"] == "Progressing")
    };
    world.until("a rollout of redis-v1", 120, under_way)?;
    // The operator's volume is on one node's disk: another node loses its power.
    let home = world
        .list(SYSTEM, "pods")?
        .iter()
        .find(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "operator")
        .and_then(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned));
    let mut victim = None;
    for number in 1..=world.cluster.size() {
        let node = world.cluster.node(number)?;
        if Some(node.name()) != home.as_deref() {
            victim = Some(number);
        }
    }
    let victim = world
        .cluster
        .node(victim.context("every node is the operator's")?)?;
    victim.power_off()?;
    world.ensure(
        under_way()?,
        "the rollout had ended before the node's power was cut",
    )?;
    for _ in 0..3 {
        let_pass(some_time(Duration::from_secs(8)));
        kill(world, OPERATOR)?;
        kill(world, "app.kubernetes.io/component=agent")?;
    }
    victim.power_on()?;
    settled(world, "redis-v1", 300)
}

/// The version serves, every node says so, and none holds anything else or refused it.
fn settled(world: &World, version: &str, seconds: u64) -> Result<()> {
    world.until(&format!("{version} to serve"), seconds, || world.serves(version))?;
    let digest = world.get("modelversion", version)?["spec"]["digest"].clone();
    world.until(&format!("three nodes that serve {version}"), seconds, || {
        let served = world.served_on_nodes()?;
        Ok(served.len() == 3 && served.iter().all(|(_, served)| digest == *served))
    })?;
    for plan in world.list(SHOP, "nodeplans")? {
        for held in plan["status"]["versions"].as_array().into_iter().flatten() {
            ensure!(
                held["state"] != "Refused",
                "{} refused {held}",
                plan["metadata"]["name"]
            );
        }
    }
    world.until("six traced containers", 120, || {
        Ok(world.get("traceprofile", "redis")?["status"]["tracedContainers"] == 6)
    })
}

/// A number of an agent's metrics, summed over all agents.
fn metric(world: &World, name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for pod in world.list(SYSTEM, "pods")? {
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "agent" {
            continue;
        }
        let pod = pod["metadata"]["name"].as_str().context("a pod without name")?;
        let text = world.kubectl(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}:9464/proxy/metrics"),
        ])?;
        let line = text
            .lines()
            .find(|line| line.split([' ', '{']).next() == Some(name));
        let line = line.with_context(|| format!("{pod} has no metric {name}"))?;
        sum += line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(sum)
}

/// Agents went on without what was away, and delivered all of it afterwards.
fn nothing_was_lost(world: &World, windows_before: f64, least: f64) -> Result<()> {
    world.until("every report to be delivered", 120, || {
        Ok(metric(world, "vigia_agent_report_waiting_batches")? <= 3.0)
    })?;
    let dropped = metric(world, "vigia_agent_report_dropped_batches")?;
    world.ensure(dropped == 0.0, &format!("{dropped} batches were dropped"))?;
    let windows = metric(world, "vigia_agent_windows_total")? - windows_before;
    world.ensure(
        windows >= least,
        &format!("only {windows} windows were closed in the time"),
    )
}

async fn api_server_is_away(world: &World) -> Result<()> {
    let windows = metric(world, "vigia_agent_windows_total")?;
    world.cluster.stop_api_server()?;
    let_pass(AWAY);
    world.cluster.start_api_server()?;
    world
        .cluster
        .wait_until_ready(Instant::now() + Duration::from_secs(120))
        .await?;
    settled(world, "redis-v1", 180)?;
    // Three windows a second over the nodes; half of them allow for a machine that is busy.
    nothing_was_lost(world, windows, AWAY.as_secs_f64() * 1.5)
}

fn a_node_is_cut_off(world: &World) -> Result<()> {
    let windows = metric(world, "vigia_agent_windows_total")?;
    let node = world.cluster.node(3)?;
    node.partition()?;
    let_pass(AWAY);
    node.heal()?;
    settled(world, "redis-v1", 180)?;
    nothing_was_lost(world, windows, AWAY.as_secs_f64() * 1.5)
}
