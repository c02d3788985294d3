//! The operator killed at random moments, nodes lost and returned, and all of it ends well.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use rand::RngExt;
use serde_json::json;
use vigia_crds::{Model, RolloutPhase, VersionMode};

use crate::artifact;
use crate::objects;
use crate::rollouts::{phase, shop};
use crate::world::{DEADLINE, World, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_survives_an_operator_that_is_killed_again_and_again() -> Result<()> {
    let mut world = World::new(&["n1", "n2", "n3"]).await?;
    let ns = "shop";
    let v1 = artifact::signed(1);
    let v2 = artifact::signed(2);
    let steps = json!([
        {"nodes": 1, "mode": "Shadow"}, {"nodes": 1, "mode": "Active"}, {"nodes": 2, "mode": "Active"},
        {"nodes": "100%", "mode": "Active"}]);
    shop(
        &world,
        ns,
        json!({"version": {"digest": artifact::digest(&v1)}, "rollout": {"steps": steps, "gates": []}}),
    )
    .await?;
    objects::version(&world.client, ns, "m", "m-v1", &v1, &artifact::digest(&v1)).await?;
    objects::version(&world.client, ns, "m", "m-v2", &v2, &artifact::digest(&v2)).await?;
    phase(&world, ns, "m-v1", RolloutPhase::Complete).await?;
    world
        .merge::<Model>(
            ns,
            "m",
            json!({"spec": {"version": {"digest": artifact::digest(&v2)}}}),
        )
        .await?;

    let kills = kill_until(&mut world, ns, "m-v2", RolloutPhase::Complete, "m-v1").await?;
    assert!(kills > 0);
    for node in ["n1", "n2", "n3"] {
        eventually("every node serves m-v2", || async {
            let active = world.active(node, "m").await?;
            Ok(if active.as_deref() == Some("m-v2") {
                Ok(())
            } else {
                Err(format!("{active:?}"))
            })
        })
        .await?;
    }

    // The same on the way back: one node refuses the next one.
    let v3 = artifact::signed(3);
    let digest = artifact::digest(&v3);
    let refusing = ("n3".to_owned(), digest.clone());
    world.habits.lock().expect("no panic").refusing.extend([refusing]);
    world
        .merge::<Model>(ns, "m", json!({"spec": {"version": {"digest": digest}}}))
        .await?;
    objects::version(&world.client, ns, "m", "m-v3", &v3, &digest).await?;
    kill_until(&mut world, ns, "m-v3", RolloutPhase::RolledBack, "m-v2").await?;
    let status = world.model(ns, "m").await?.status.unwrap_or_default();
    assert_eq!(status.serving.map(|s| s.name).as_deref(), Some("m-v2"));
    assert_eq!(status.failed.len(), 1);
    for node in ["n1", "n2", "n3"] {
        eventually("every node serves m-v2 and holds no m-v3", || async {
            let planned = world.planned(node, "m").await?;
            let serves = planned
                .iter()
                .any(|v| v.name == "m-v2" && v.mode == VersionMode::Active);
            let holds = planned.iter().any(|v| v.name == "m-v3");
            Ok(if serves && !holds {
                Ok(())
            } else {
                Err(format!("{planned:?}"))
            })
        })
        .await?;
    }

    // What was said is said once, however often it was decided.
    let said = [("RolloutStarted", 3), ("RolloutComplete", 2), ("RolledBack", 1)];
    for (reason, times) in said {
        let notes = world.events(ns, "m", reason).await?;
        assert_eq!(notes.len(), times, "{reason}: {notes:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_lost_under_way_follows_when_it_returns() -> Result<()> {
    let world = World::new(&["n1", "n2", "n3"]).await?;
    let ns = "shop";
    let v1 = artifact::signed(1);
    let v2 = artifact::signed(2);
    let steps = json!([{"nodes": 1, "mode": "Shadow"}, {"nodes": "100%", "mode": "Active"}]);
    shop(
        &world,
        ns,
        json!({"version": {"digest": artifact::digest(&v1)}, "rollout": {"steps": steps, "gates": []}}),
    )
    .await?;
    objects::version(&world.client, ns, "m", "m-v1", &v1, &artifact::digest(&v1)).await?;
    objects::version(&world.client, ns, "m", "m-v2", &v2, &artifact::digest(&v2)).await?;
    phase(&world, ns, "m-v1", RolloutPhase::Complete).await?;

    world
        .habits
        .lock()
        .expect("no panic")
        .silent
        .insert("n2".to_owned());
    objects::set_ready(&world.client, "n2", false).await?;
    eventually("the operator knows that n2 is away", || async {
        let node = world
            .operator()
            .caches
            .nodes
            .get(&kube::runtime::reflector::ObjectRef::<Node>::new("n2"));
        let away = node.is_some_and(|n| {
            let conditions = n.status.as_ref().and_then(|s| s.conditions.as_ref());
            conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status != "True"))
        });
        Ok(if away { Ok(()) } else { Err("Ready".to_owned()) })
    })
    .await?;
    world
        .merge::<Model>(
            ns,
            "m",
            json!({"spec": {"version": {"digest": artifact::digest(&v2)}}}),
        )
        .await?;
    phase(&world, ns, "m-v2", RolloutPhase::Complete).await?;

    // It was away all the time, and is told all the same.
    assert_eq!(world.active("n2", "m").await?.as_deref(), Some("m-v2"));
    let reported = |plan: vigia_crds::NodePlan| plan.status.unwrap_or_default().versions;
    let digest = artifact::digest(&v2);
    let serves = |versions: &[vigia_crds::VersionOnNode]| {
        versions
            .iter()
            .any(|v| v.digest == digest && v.state == vigia_crds::VersionState::Active)
    };
    assert!(!serves(&reported(world.plan("n2").await?)));
    world.habits.lock().expect("no panic").silent.clear();
    objects::set_ready(&world.client, "n2", true).await?;
    eventually("n2 serves m-v2", || async {
        let versions = reported(world.plan("n2").await?);
        Ok(if serves(&versions) {
            Ok(())
        } else {
            Err(format!("{versions:?}"))
        })
    })
    .await?;

    // A node that leaves the cluster is forgotten.
    let nodes: Api<Node> = Api::all(world.client.clone());
    nodes.delete("n3", &kube::api::DeleteParams::default()).await?;
    let v3 = artifact::signed(3);
    let digest = artifact::digest(&v3);
    objects::version(&world.client, ns, "m", "m-v3", &v3, &digest).await?;
    world
        .merge::<Model>(ns, "m", json!({"spec": {"version": {"digest": digest}}}))
        .await?;
    phase(&world, ns, "m-v3", RolloutPhase::Complete).await?;
    for node in ["n1", "n2"] {
        assert_eq!(world.active(node, "m").await?.as_deref(), Some("m-v3"));
    }
    let planned = world.planned("n3", "m").await?;
    assert!(planned.iter().all(|v| v.name != "m-v3"), "{planned:?}");
    Ok(())
}

/// Kills and starts the operator until the rollout of a version has come to a phase; says how often.
/// `served` is the version that serves before it.
async fn kill_until(
    world: &mut World,
    ns: &str,
    version: &str,
    phase: RolloutPhase,
    served: &str,
) -> Result<usize> {
    let deadline = std::time::Instant::now() + DEADLINE;
    let mut kills = 0;
    let mut seen = BTreeSet::new();
    loop {
        let status = world.model(ns, "m").await?.status.unwrap_or_default();
        let rollout = status.rollout.expect("a rollout");
        if rollout.version.name == version {
            seen.insert((rollout.step, format!("{:?}", rollout.phase)));
            if rollout.phase == phase {
                println!("{version}: {kills} kills; seen: {seen:?}");
                return Ok(kills);
            }
        }
        assert!(
            std::time::Instant::now() < deadline,
            "not {phase:?} after {kills} kills: {rollout:?}"
        );
        // Long enough for some writes, not for all: a kill comes at any of them.
        let life = Duration::from_millis(rand::rng().random_range(0..120));
        tokio::time::timeout(life, std::future::pending::<()>())
            .await
            .expect_err("pending never ends");
        world.kill().await;
        kills += 1;
        // What a node holds at the moment of a kill is always whole.
        for node in ["n1", "n2", "n3"] {
            let planned = world.planned(node, "m").await?;
            let active: Vec<_> = planned.iter().filter(|v| v.mode == VersionMode::Active).collect();
            assert_eq!(active.len(), 1, "{planned:?}");
            assert!(planned.iter().any(|v| v.name == served), "{planned:?}");
        }
        world.start().await?;
    }
}
