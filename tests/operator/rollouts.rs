//! Versions on their way over three nodes: forward, refused, back.

use anyhow::Result;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use vigia_crds::conditions::{self, READY, STALLED};
use vigia_crds::{Model, ModelVersion, PlannedVersion, RolloutPhase, VersionMode};

use crate::artifact;
use crate::objects;
use crate::world::{World, eventually};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// A namespace with a web pod on each node, a profile for them and a Model.
pub async fn shop(world: &World, namespace: &str, spec: serde_json::Value) -> Result<()> {
    objects::namespace(&world.client, namespace).await?;
    for node in NODES {
        let name = format!("web-{node}");
        objects::pod(
            &world.client,
            namespace,
            &name,
            node,
            "default",
            &[("app", "web")],
            &["app"],
        )
        .await?;
    }
    let models: Api<Model> = Api::namespaced(world.client.clone(), namespace);
    models
        .create(&PostParams::default(), &objects::model(namespace, "m", spec)?)
        .await?;
    let profiles = Api::namespaced(world.client.clone(), namespace);
    profiles
        .create(
            &PostParams::default(),
            &objects::profile(namespace, "web", "web", &["m"])?,
        )
        .await?;
    Ok(())
}

/// The rollout's phase, or what is instead.
pub async fn phase(world: &World, namespace: &str, version: &str, phase: RolloutPhase) -> Result<()> {
    eventually(&format!("{version} is {phase:?}"), || async {
        let status = world.model(namespace, "m").await?.status.unwrap_or_default();
        Ok(match &status.rollout {
            Some(r) if r.version.name == version && r.phase == phase => Ok(()),
            _ => Err(format!("{status:?}")),
        })
    })
    .await
}

/// A condition's status and reason.
pub async fn condition(
    what: &str,
    expected: (&str, &str, &str),
    read: impl AsyncFn() -> Result<Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>>,
) -> Result<()> {
    let (type_, status, reason) = expected;
    eventually(&format!("{what} has {type_}={status}, {reason}"), || async {
        let conditions = read().await?;
        Ok(match conditions::find(&conditions, type_) {
            Some(c) if c.status == status && c.reason == reason => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await
}

async fn of_version(
    world: &World,
    namespace: &str,
    name: &str,
) -> Result<Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>> {
    Ok(world
        .version(namespace, name)
        .await?
        .status
        .unwrap_or_default()
        .conditions)
}

async fn of_model(
    world: &World,
    namespace: &str,
) -> Result<Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>> {
    Ok(world
        .model(namespace, "m")
        .await?
        .status
        .unwrap_or_default()
        .conditions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_go_forward_through_gates_and_back() -> Result<()> {
    let mut world = World::new(&NODES).await?;
    let ns = "shop";
    let v1 = artifact::signed(1);
    let steps = json!([
        {"nodes": 1, "mode": "Shadow", "hold": "1s"},
        {"nodes": 1, "mode": "Active", "hold": "1s"},
        {"nodes": "100%", "mode": "Active"}]);
    let gates = json!([{"metric": "AlertRate", "atMost": "0.05", "minSamples": 20},
                       {"metric": "ScoreDrift", "atMost": "0.2", "minSamples": 100}]);
    shop(
        &world,
        ns,
        json!({
            "version": {"digest": artifact::digest(&v1)}, "rollout": {"steps": steps, "gates": gates},
        }),
    )
    .await?;

    // Named before it is there: said, and put right by itself.
    condition("m", (STALLED, "True", "VersionNotFound"), async || {
        of_model(&world, ns).await
    })
    .await?;
    objects::version(&world.client, ns, "m", "m-v1", &v1, &artifact::digest(&v1)).await?;
    phase(&world, ns, "m-v1", RolloutPhase::Complete).await?;
    for node in NODES {
        let planned = world.planned(node, "m").await?;
        assert_eq!(planned.len(), 1, "{planned:?}");
        assert_eq!(
            (planned[0].name.as_str(), planned[0].mode),
            ("m-v1", VersionMode::Active)
        );
        assert_eq!(planned[0].size_bytes, v1.len() as i64);
    }
    condition("m", (READY, "True", "Serving"), async || {
        of_model(&world, ns).await
    })
    .await?;
    condition("m", (STALLED, "False", "Settled"), async || {
        of_model(&world, ns).await
    })
    .await?;
    for reason in ["RolloutStarted", "RolloutStepDone", "RolloutComplete"] {
        assert!(
            !world.events(ns, "m", reason).await?.is_empty(),
            "no Event {reason}"
        );
    }

    // Tampered: refused where it came in, visible on the Model, and on no node.
    let mut v2 = artifact::signed(2);
    let middle = v2.len() / 2;
    v2[middle] ^= 1;
    objects::version(&world.client, ns, "m", "m-v2", &v2, &artifact::digest(&v2)).await?;
    eventually("m-v2 is refused", || async {
        let conditions = of_version(&world, ns, "m-v2").await?;
        Ok(if conditions::is_true(&conditions, STALLED) {
            Ok(())
        } else {
            Err(format!("{conditions:?}"))
        })
    })
    .await?;
    eventually("the Model says that an artifact was refused", || async {
        let conditions = of_model(&world, ns).await?;
        Ok(match conditions::find(&conditions, "ArtifactVerified") {
            Some(c) if c.status == "False" && c.message.contains("m-v2") => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    assert_eq!(world.events(ns, "m", "ArtifactRefused").await?.len(), 1);
    world
        .merge::<Model>(
            ns,
            "m",
            json!({"spec": {"version": {"digest": artifact::digest(&v2)}}}),
        )
        .await?;
    eventually("the Model is stalled on it", || async {
        let conditions = of_model(&world, ns).await?;
        Ok(if conditions::is_true(&conditions, STALLED) {
            Ok(())
        } else {
            Err(format!("{conditions:?}"))
        })
    })
    .await?;
    assert_eq!(world.active("n1", "m").await?.as_deref(), Some("m-v1"));

    // Validly signed, but it raises alerts: the gate rolls it back before it serves anywhere.
    let v3 = artifact::signed(3);
    world
        .habits
        .lock()
        .expect("no panic")
        .noisy
        .insert(artifact::digest(&v3));
    objects::version(&world.client, ns, "m", "m-v3", &v3, &artifact::digest(&v3)).await?;
    world
        .merge::<Model>(
            ns,
            "m",
            json!({"spec": {"version": {"digest": artifact::digest(&v3)}}}),
        )
        .await?;
    eventually("m-v3 is a shadow on one node", || async {
        let mut shadows = 0;
        for node in NODES {
            let planned = world.planned(node, "m").await?;
            assert_eq!(
                planned
                    .iter()
                    .find(|v| v.mode == VersionMode::Active)
                    .map(|v| v.name.as_str()),
                Some("m-v1")
            );
            shadows += planned
                .iter()
                .filter(|v| v.name == "m-v3" && v.mode == VersionMode::Shadow)
                .count();
        }
        Ok(if shadows == 1 {
            Ok(())
        } else {
            Err(format!("{shadows} shadows"))
        })
    })
    .await?;
    phase(&world, ns, "m-v3", RolloutPhase::RolledBack).await?;
    let status = world.model(ns, "m").await?.status.unwrap_or_default();
    assert_eq!(status.serving.map(|s| s.name).as_deref(), Some("m-v1"));
    assert_eq!(status.failed[0].digest, artifact::digest(&v3));
    condition("m", (STALLED, "True", "RolledBack"), async || {
        of_model(&world, ns).await
    })
    .await?;
    for node in NODES {
        assert!(world.planned(node, "m").await?.iter().all(|v| v.name == "m-v1"));
    }

    // A good one again; then it is revoked, and nodes go back without a rollout.
    let v4 = artifact::signed(4);
    objects::version(&world.client, ns, "m", "m-v4", &v4, &artifact::digest(&v4)).await?;
    world
        .merge::<Model>(
            ns,
            "m",
            json!({"spec": {"version": {"digest": artifact::digest(&v4)}}}),
        )
        .await?;
    phase(&world, ns, "m-v4", RolloutPhase::Complete).await?;
    let planned = world.planned("n2", "m").await?;
    let listed: Vec<_> = planned.iter().map(|v| (v.name.as_str(), v.mode)).collect();
    assert_eq!(
        listed,
        [("m-v4", VersionMode::Active), ("m-v1", VersionMode::Prefetch)]
    );
    world
        .merge::<ModelVersion>(ns, "m-v4", json!({"spec": {"revoked": true}}))
        .await?;
    phase(&world, ns, "m-v4", RolloutPhase::RolledBack).await?;
    for node in NODES {
        assert_eq!(world.active(node, "m").await?.as_deref(), Some("m-v1"));
    }
    condition("m-v4", (READY, "False", "Revoked"), async || {
        of_version(&world, ns, "m-v4").await
    })
    .await?;

    // Deleted and created again under another name, it is revoked still, for this operator and the next.
    let versions: Api<ModelVersion> = Api::namespaced(world.client.clone(), ns);
    versions
        .delete("m-v4", &kube::api::DeleteParams::default())
        .await?;
    objects::version(&world.client, ns, "m", "m-v4-again", &v4, &artifact::digest(&v4)).await?;
    condition("m-v4-again", (READY, "False", "Revoked"), async || {
        of_version(&world, ns, "m-v4-again").await
    })
    .await?;
    world.kill().await;
    world.start().await?;
    objects::version(&world.client, ns, "m", "m-v4-more", &v4, &artifact::digest(&v4)).await?;
    condition("m-v4-more", (READY, "False", "Revoked"), async || {
        of_version(&world, ns, "m-v4-more").await
    })
    .await?;
    for node in NODES {
        assert_eq!(world.active(node, "m").await?.as_deref(), Some("m-v1"));
    }
    Ok(())
}

/// What every node is told.
async fn told(world: &World) -> Result<Vec<Vec<PlannedVersion>>> {
    let mut told = vec![];
    for node in NODES {
        told.push(world.planned(node, "m").await?);
    }
    Ok(told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_its_artifacts_takes_nothing_from_the_nodes() -> Result<()> {
    let mut world = World::new(&NODES).await?;
    let ns = "shop";
    let steps = json!([{"nodes": "100%", "mode": "Active"}]);
    let (v1, v2) = (artifact::signed(1), artifact::signed(2));
    let rollout = json!({"steps": steps, "gates": []});
    shop(
        &world,
        ns,
        json!({"version": {"digest": artifact::digest(&v1)}, "rollout": rollout}),
    )
    .await?;
    for (name, bytes) in [("m-v1", &v1), ("m-v2", &v2)] {
        let digest = artifact::digest(bytes);
        objects::version(&world.client, ns, "m", name, bytes, &digest).await?;
        let target = json!({"spec": {"version": {"digest": digest}}});
        world.merge::<Model>(ns, "m", target).await?;
        phase(&world, ns, name, RolloutPhase::Complete).await?;
        condition(name, ("Stored", "True", "Stored"), async || {
            of_version(&world, ns, name).await
        })
        .await?;
    }
    let before = told(&world).await?;

    // An empty volume, and nobody has the bytes: what nodes hold is all there is.
    world.kill().await;
    for name in ["m-v1", "m-v2"] {
        let sources: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(world.client.clone(), ns);
        sources.delete(name, &kube::api::DeleteParams::default()).await?;
    }
    world.empty_store()?;
    world.start().await?;
    for name in ["m-v1", "m-v2"] {
        condition(name, ("Stored", "False", "NotInStore"), async || {
            of_version(&world, ns, name).await
        })
        .await?;
        condition(name, (READY, "True", "Verified"), async || {
            of_version(&world, ns, name).await
        })
        .await?;
    }
    assert_eq!(world.events(ns, "m-v2", "ArtifactLost").await?.len(), 1);
    // A change of the Model has everything looked at again.
    let keys = json!([artifact::public_key(), artifact::stranger().1.to_base64()]);
    let trust = json!({"spec": {"trust": {"publicKeys": keys}}});
    world.merge::<Model>(ns, "m", trust).await?;
    eventually("the Model was looked at", || async {
        let model = world.model(ns, "m").await?;
        let status = model.status.unwrap_or_default();
        Ok(if Some(status.observed_generation) == model.metadata.generation {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        })
    })
    .await?;
    assert_eq!(told(&world).await?, before);
    let status = world.model(ns, "m").await?.status.unwrap_or_default();
    let names = [status.serving, status.previous].map(|v| v.map(|v| v.name));
    assert_eq!(names, [Some("m-v2".to_owned()), Some("m-v1".to_owned())]);

    // The bytes come back under another name: the version is whole again.
    objects::version(&world.client, ns, "m", "m-v2-again", &v2, &artifact::digest(&v2)).await?;
    condition("m-v2", ("Stored", "True", "Stored"), async || {
        of_version(&world, ns, "m-v2").await
    })
    .await?;

    // A node whose agent does not answer is no node that serves.
    for node in NODES {
        objects::set_ready(&world.client, node, false).await?;
    }
    condition("m", (READY, "False", "NotServing"), async || {
        of_model(&world, ns).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusing_node_turns_a_rollout_back_and_a_pause_holds_it() -> Result<()> {
    let world = World::new(&NODES).await?;
    let ns = "shop";
    let steps = json!([{"nodes": 1, "mode": "Active"}, {"nodes": "100%", "mode": "Active"}]);
    shop(
        &world,
        ns,
        json!({"promotion": {"mode": "Auto"}, "rollout": {"steps": steps}}),
    )
    .await?;
    condition("m", (READY, "False", "NoVersion"), async || {
        of_model(&world, ns).await
    })
    .await?;
    let v1 = artifact::signed(1);
    objects::version(&world.client, ns, "m", "m-v1", &v1, &artifact::digest(&v1)).await?;
    phase(&world, ns, "m-v1", RolloutPhase::Complete).await?;

    // It came through the gate that is there where none is named.
    let gates = world.model(ns, "m").await?.spec.rollout.gates;
    assert_eq!(
        gates.iter().map(|g| g.at_most.as_str()).collect::<Vec<_>>(),
        ["2x"]
    );

    // One node cannot use it.
    let v2 = artifact::signed(2);
    let broken = "n2".to_owned();
    world
        .habits
        .lock()
        .expect("no panic")
        .refusing
        .insert(broken, artifact::digest(&v2));
    objects::version(&world.client, ns, "m", "m-v2", &v2, &artifact::digest(&v2)).await?;
    phase(&world, ns, "m-v2", RolloutPhase::RolledBack).await?;
    let status = world.model(ns, "m").await?.status.unwrap_or_default();
    let rollout = status.rollout.expect("a rollout");
    assert!(
        rollout.message.contains("n2") && rollout.message.contains("InvalidModel"),
        "{}",
        rollout.message
    );
    assert_eq!(status.serving.map(|s| s.name).as_deref(), Some("m-v1"));

    // Signed by nobody whom the Model trusts.
    let (key, public) = artifact::stranger();
    let v3 = artifact::signed_by(3, &key);
    objects::version(&world.client, ns, "m", "m-v3", &v3, &artifact::digest(&v3)).await?;
    condition("m-v3", (READY, "False", "UntrustedKey"), async || {
        of_version(&world, ns, "m-v3").await
    })
    .await?;

    // Paused from the start; then the key is trusted, and still nothing moves until the pause is over.
    let keys = json!([artifact::public_key(), public.to_base64()]);
    world
        .merge::<Model>(
            ns,
            "m",
            json!({"spec": {"rollout": {"paused": true}, "trust": {"publicKeys": keys}}}),
        )
        .await?;
    condition("m-v3", (READY, "True", "Verified"), async || {
        of_version(&world, ns, "m-v3").await
    })
    .await?;
    phase(&world, ns, "m-v3", RolloutPhase::Paused).await?;
    eventually("the paused step is ready", || async {
        let status = world.model(ns, "m").await?.status.unwrap_or_default();
        let rollout = status.rollout.expect("a rollout");
        assert_eq!(rollout.step, 0, "a paused rollout went on");
        Ok(if rollout.message.contains("paused") {
            Ok(())
        } else {
            Err(rollout.message)
        })
    })
    .await?;
    world
        .merge::<Model>(ns, "m", json!({"spec": {"rollout": {"paused": false}}}))
        .await?;
    phase(&world, ns, "m-v3", RolloutPhase::Complete).await?;

    eventually("its drift is said", || async {
        let conditions = of_model(&world, ns).await?;
        Ok(match conditions::find(&conditions, "Drifted") {
            Some(c) if c.message.contains("m-v3") => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;

    // At rest, whatever asks again, nothing is written.
    let before = world.writes(ns).await?;
    let operator = world.operator();
    let reconciled = |controller: &'static str| {
        let labels = vigia_operator::metrics::ControllerLabels {
            controller,
            result: "ok",
        };
        operator.metrics.reconciles.get_or_create(&labels).get()
    };
    let counts = || {
        [
            reconciled("model"),
            reconciled("modelversion"),
            reconciled("traceprofile"),
            reconciled("nodeplan"),
        ]
    };
    let start = counts();
    eventually("each controller looked again three times", || async {
        operator.triggers.models.namespaced(ns, "m");
        operator.triggers.versions.namespaced(ns, "m-v3");
        operator.triggers.profiles.namespaced(ns, "web");
        operator.triggers.nodes.cluster("n1");
        let done = counts().iter().zip(start).all(|(now, then)| *now >= then + 3);
        Ok(if done {
            Ok(())
        } else {
            Err(format!("{:?}", counts()))
        })
    })
    .await?;
    assert_eq!(
        before,
        world.writes(ns).await?,
        "a reconcile with nothing to do wrote something"
    );
    Ok(())
}
