//! Versions whose bytes are lost, that are too many, and statuses that another hand wrote.

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tonic::Code;
use vigia_crds::conditions::{READY, STALLED};
use vigia_crds::{Model, ModelVersion, RetrainingPolicy, RolloutPhase, VersionMode, VersionState};

use crate::artifact;
use crate::objects;
use crate::rollouts::{condition, phase};
use crate::training::{fetch, report, samples};
use crate::world::{World, eventually};

const NS: &str = "shop";

/// A namespace with a Model that promotes by itself and a profile for it; pods come later.
async fn shop(client: &Client, spec: Value) -> Result<()> {
    objects::namespace(client, NS).await?;
    let mut whole = json!({"promotion": {"mode": "Auto"},
        "rollout": {"steps": [{"nodes": "100%", "mode": "Active"}], "gates": []}});
    if let (Some(to), Value::Object(from)) = (whole.as_object_mut(), spec) {
        to.extend(from);
    }
    let params = PostParams::default();
    let models: Api<Model> = Api::namespaced(client.clone(), NS);
    models.create(&params, &objects::model(NS, "m", whole)?).await?;
    let profiles = Api::namespaced(client.clone(), NS);
    profiles
        .create(&params, &objects::profile(NS, "web", "web", &["m"])?)
        .await?;
    Ok(())
}

async fn web(client: &Client, node: &str) -> Result<()> {
    let name = format!("web-{node}");
    objects::pod(client, NS, &name, node, "default", &[("app", "web")], &["app"]).await?;
    Ok(())
}

async fn of_model(world: &World) -> Result<Vec<Condition>> {
    Ok(world.model(NS, "m").await?.status.unwrap_or_default().conditions)
}

/// The volume is lost, and with it the artifacts of these versions, whose sources are gone too.
async fn lose(world: &mut World, names: &[&str]) -> Result<()> {
    world.kill().await;
    let sources: Api<ConfigMap> = Api::namespaced(world.client.clone(), NS);
    for name in names {
        sources.delete(name, &DeleteParams::default()).await?;
    }
    world.empty_store()?;
    world.start().await?;
    for name in names {
        condition(name, ("Stored", "False", "NotInStore"), async || {
            let version = world.version(NS, name).await?;
            Ok(version.status.unwrap_or_default().conditions)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_version_that_no_node_can_get_is_said_and_replaced() -> Result<()> {
    let mut world = World::new(&["n1", "n2"]).await?;
    shop(&world.client, json!({})).await?;
    for node in ["n1", "n2"] {
        world
            .habits
            .lock()
            .expect("no panic")
            .silent
            .insert(node.to_owned());
        web(&world.client, node).await?;
    }
    let v1 = artifact::signed(1);
    objects::version(&world.client, NS, "m", "m-v1", &v1, &artifact::digest(&v1)).await?;
    phase(&world, NS, "m-v1", RolloutPhase::Progressing).await?;

    lose(&mut world, &["m-v1"]).await?;
    world.habits.lock().expect("no panic").silent.clear();
    for expected in [
        (READY, "False", "NotInStore"),
        (STALLED, "True", "NotInStore"),
        ("ArtifactsStored", "False", "ArtifactLost"),
    ] {
        condition("m", expected, async || of_model(&world).await).await?;
    }
    let said = of_model(&world).await?;
    let ready = vigia_crds::conditions::find(&said, READY).expect("Ready");
    for part in ["m-v1", "n1", "n2", "spec.source"] {
        assert!(ready.message.contains(part), "{}", ready.message);
    }
    // Nobody waits for it to be promoted: another one would be trained.
    let policy: RetrainingPolicy = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "RetrainingPolicy",
        "metadata": {"namespace": NS, "name": "p"}, "spec": {"modelRef": {"name": "m"}, "coldStart": {}}}))?;
    let policies: Api<RetrainingPolicy> = Api::namespaced(world.client.clone(), NS);
    policies.create(&PostParams::default(), &policy).await?;
    condition("p", (READY, "True", "Collecting"), async || {
        Ok(policies.get("p").await?.status.unwrap_or_default().conditions)
    })
    .await?;

    // The bytes come back: what waited goes on.
    objects::version(&world.client, NS, "m", "m-v1-again", &v1, &artifact::digest(&v1)).await?;
    eventually("it serves", || async {
        let status = world.model(NS, "m").await?.status.unwrap_or_default();
        Ok(match status.serving {
            Some(v) if v.digest == artifact::digest(&v1) => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    condition("m", ("ArtifactsStored", "True", "Stored"), async || {
        of_model(&world).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_that_is_damaged_under_the_operator_is_said_once_and_replaced() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world.client, json!({})).await?;
    web(&world.client, "n1").await?;
    let v1 = artifact::signed(1);
    let digest = artifact::digest(&v1);
    objects::version(&world.client, NS, "m", "m-v1", &v1, &digest).await?;
    phase(&world, NS, "m-v1", RolloutPhase::Complete).await?;
    let policy: RetrainingPolicy = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "RetrainingPolicy", "metadata": {"namespace": NS, "name": "p"},
        "spec": {"modelRef": {"name": "m"}, "coldStart": {"minWindows": 200},
            "training": {"data": {"minWindows": 200}}}}))?;
    let policies: Api<RetrainingPolicy> = Api::namespaced(world.client.clone(), NS);
    policies.create(&PostParams::default(), &policy).await?;
    let mut windows = samples(240);
    windows.iter_mut().for_each(|w| w.profile = "web".to_owned());
    report(&world, 1, &windows).await?;
    let of_version = async || -> Result<_> {
        let status = world.version(NS, "m-v1").await?.status.unwrap_or_default();
        Ok(status.conditions)
    };
    assert_eq!(fetch(&world, &digest).await?, None);

    // While its source is there, it is taken from there again, and nothing was lost.
    world.damage(&digest)?;
    assert_eq!(fetch(&world, &digest).await?, Some(Code::DataLoss));
    eventually("it is whole again", || async {
        let refused = fetch(&world, &digest).await?;
        Ok(refused.map_or(Ok(()), |code| Err(format!("{code:?}"))))
    })
    .await?;
    condition("m-v1", ("Stored", "True", "Stored"), of_version).await?;

    let sources: Api<ConfigMap> = Api::namespaced(world.client.clone(), NS);
    sources.delete("m-v1", &DeleteParams::default()).await?;
    world.damage(&digest)?;
    for _ in 0..10 {
        assert_eq!(fetch(&world, &digest).await?, Some(Code::DataLoss));
    }
    condition("m-v1", ("Stored", "False", "NotInStore"), of_version).await?;
    condition("m-v1", (READY, "True", "Verified"), of_version).await?;
    condition("m", ("ArtifactsStored", "False", "ArtifactLost"), async || {
        of_model(&world).await
    })
    .await?;
    eventually("another one is trained", || async {
        let status = policies.get("p").await?.status.unwrap_or_default();
        Ok(match status.last_run {
            Some(run) if run.reason == "ArtifactLost" => Ok(()),
            _ => Err(format!("{:?}", status.conditions)),
        })
    })
    .await?;
    for _ in 0..10 {
        assert_eq!(fetch(&world, &digest).await?, Some(Code::DataLoss));
    }
    // What is known to be lost is forgotten, so that no node that asks for it has anything looked at again.
    assert!(world.operator().artifacts.validation(&digest).is_none());
    for about in ["m-v1", "m"] {
        let told = world.events(NS, about, "ArtifactLost").await?;
        assert_eq!(told.len(), 1, "{about}: {told:?}");
        assert!(!told[0].contains("a TrainingRun's"), "{told:?}");
    }

    // The bytes come back: both are whole.
    objects::version(&world.client, NS, "m", "m-v1-again", &v1, &digest).await?;
    condition("m-v1", ("Stored", "True", "Stored"), of_version).await?;
    assert_eq!(fetch(&world, &digest).await?, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_put_right_is_taken_and_said() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world.client, json!({})).await?;
    web(&world.client, "n1").await?;
    let of_version = async || -> Result<_> {
        let status = world.version(NS, "m-v1").await?.status.unwrap_or_default();
        Ok(status.conditions)
    };
    let (wrong, right) = (artifact::signed(2), artifact::signed(1));
    objects::version(&world.client, NS, "m", "m-v1", &wrong, &artifact::digest(&right)).await?;
    condition("m-v1", (READY, "False", "DigestMismatch"), of_version).await?;
    let refused = world.events(NS, "m-v1", "ArtifactRefused").await?;
    assert_eq!(refused.len(), 1, "{refused:?}");

    let sources: Api<ConfigMap> = Api::namespaced(world.client.clone(), NS);
    let mut source = sources.get("m-v1").await?;
    source.binary_data = Some([("model.apr".to_owned(), ByteString(right))].into());
    sources.replace("m-v1", &PostParams::default(), &source).await?;
    condition("m-v1", (READY, "True", "Verified"), of_version).await?;
    for about in ["m-v1", "m"] {
        let told = world.events(NS, about, "ArtifactVerified").await?;
        assert_eq!(told.len(), 1, "{about}: {told:?}");
    }
    phase(&world, NS, "m-v1", RolloutPhase::Complete).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_served_before_and_is_lost_is_asked_of_no_node_that_lacks_it() -> Result<()> {
    let mut world = World::new(&["n1", "n2"]).await?;
    shop(&world.client, json!({})).await?;
    web(&world.client, "n1").await?;
    let (v1, v2) = (artifact::signed(1), artifact::signed(2));
    for (name, bytes) in [("m-v1", &v1), ("m-v2", &v2)] {
        objects::version(&world.client, NS, "m", name, bytes, &artifact::digest(bytes)).await?;
        phase(&world, NS, name, RolloutPhase::Complete).await?;
    }
    lose(&mut world, &["m-v1", "m-v2"]).await?;
    objects::version(&world.client, NS, "m", "m-v2-again", &v2, &artifact::digest(&v2)).await?;
    condition("m-v2", ("Stored", "True", "Stored"), async || {
        Ok(world
            .version(NS, "m-v2")
            .await?
            .status
            .unwrap_or_default()
            .conditions)
    })
    .await?;
    condition("m", ("ArtifactsStored", "False", "ArtifactLost"), async || {
        of_model(&world).await
    })
    .await?;

    // A node that comes later holds what it can have, and waits for nothing.
    web(&world.client, "n2").await?;
    eventually("n2 serves and fetches nothing", || async {
        let Ok(plan) = world.plan("n2").await else {
            return Ok(Err("no plan yet".to_owned()));
        };
        let states = plan.status.unwrap_or_default().versions;
        let states: Vec<_> = states.iter().map(|v| (v.digest.clone(), v.state)).collect();
        Ok(if states == [(artifact::digest(&v2), VersionState::Active)] {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        })
    })
    .await?;
    let modes: Vec<_> = world.planned("n1", "m").await?.iter().map(|v| v.mode).collect();
    assert_eq!(
        modes,
        [VersionMode::Active, VersionMode::Prefetch],
        "n1 holds both"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_nobody_needs_go_and_forged_statuses_are_put_right() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    shop(&world.client, json!({"historyLimit": 1})).await?;
    web(&world.client, "n1").await?;
    let client = || world.client.clone();
    let v1 = artifact::signed(1);
    objects::version(&world.client, NS, "m", "m-v1", &v1, &artifact::digest(&v1)).await?;
    phase(&world, NS, "m-v1", RolloutPhase::Complete).await?;

    // As trainings make them; the highest number is remembered when they are gone.
    let versions: Api<ModelVersion> = Api::namespaced(client(), NS);
    for n in 2..6 {
        let version: ModelVersion = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
            "metadata": {"namespace": NS, "name": format!("m-v{n}"),
                "labels": {"vigia.dev/run-uid": format!("run-{n}"), "vigia.dev/sequence": n.to_string()}},
            "spec": {"modelRef": {"name": "m"}, "digest": format!("sha256:{n:064}")}}))?;
        versions.create(&PostParams::default(), &version).await?;
    }
    eventually("what serves and the newest are left", || async {
        let left = versions.list(&ListParams::default()).await?;
        let names: Vec<_> = left.iter().map(|v| v.name_any()).collect();
        Ok(if names == ["m-v1", "m-v5"] {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        })
    })
    .await?;
    versions.delete("m-v5", &DeleteParams::default()).await?;
    eventually("only people's is left", || async {
        let left = versions.list(&ListParams::default()).await?.items.len();
        Ok(if left == 1 { Ok(()) } else { Err(left.to_string()) })
    })
    .await?;
    assert_eq!(
        world
            .model(NS, "m")
            .await?
            .status
            .unwrap_or_default()
            .last_sequence,
        5
    );

    // Another hand says that what serves is on its way back.
    let models: Api<Model> = Api::namespaced(client(), NS);
    for forged in ["RollingBack", "RolledBack", "Progressing"] {
        let patch = json!({"status": {"rollout": {"phase": forged, "message": "forged"}}});
        models
            .patch_status("m", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        phase(&world, NS, "m-v1", RolloutPhase::Complete).await?;
        assert_eq!(world.active("n1", "m").await?.as_deref(), Some("m-v1"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_of_another_length_or_of_other_calls_than_the_data_are_said() -> Result<()> {
    let world = World::new(&["n1"]).await?;
    let v1 = artifact::signed(1);
    shop(&world.client, json!({})).await?;
    web(&world.client, "n1").await?;
    let sources: Api<ConfigMap> = Api::namespaced(world.client.clone(), NS);
    let mut source: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m-v1"}}))?;
    source.binary_data = Some([("model.apr".to_owned(), k8s_openapi::ByteString(v1.clone()))].into());
    sources.create(&PostParams::default(), &source).await?;
    let version: ModelVersion = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion", "metadata": {"namespace": NS, "name": "m-v1"},
        "spec": {"modelRef": {"name": "m"}, "digest": artifact::digest(&v1), "source": {"configMap": {"name": "m-v1"}},
            "provenance": {"trainingRun": "r", "dataDigest": "d", "samples": 1, "windowMs": [10_000],
                "captures": ["all"]}}}))?;
    let versions: Api<ModelVersion> = Api::namespaced(world.client.clone(), NS);
    versions.create(&PostParams::default(), &version).await?;
    condition("m", ("WindowsFit", "False", "OtherLength"), async || {
        of_model(&world).await
    })
    .await?;
    let window = json!({"spec": {"window": "10s"}});
    world.merge::<vigia_crds::TraceProfile>(NS, "web", window).await?;
    condition("m", ("WindowsFit", "True", "AsTrained"), async || {
        of_model(&world).await
    })
    .await?;
    for (exclude, said) in [
        (json!([]), ("CaptureFits", "True", "AsTrained")),
        (json!(["futex"]), ("CaptureFits", "False", "OtherCapture")),
        (json!([]), ("CaptureFits", "True", "AsTrained")),
    ] {
        let filter = json!({"spec": {"capture": {"syscalls": {"exclude": exclude}}}});
        world.merge::<vigia_crds::TraceProfile>(NS, "web", filter).await?;
        condition("m", said, async || of_model(&world).await).await?;
    }
    // A profile of another filter that comes later and gets nothing changes nothing; one that gets something does.
    let mut other = objects::profile(NS, "younger", "web", &["m"])?;
    other.spec.window = std::time::Duration::from_secs(10).into();
    other.spec.capture.syscalls.exclude = vec!["futex".to_owned()];
    let profiles: Api<vigia_crds::TraceProfile> = Api::namespaced(world.client.clone(), NS);
    profiles.create(&PostParams::default(), &other).await?;
    condition("younger", (READY, "False", "Overlaps"), async || {
        let status = world.profile(NS, "younger").await?.status.unwrap_or_default();
        Ok(status.conditions)
    })
    .await?;
    let since = async || -> Result<_> {
        let said = of_model(&world).await?;
        let fits = vigia_crds::conditions::find(&said, "CaptureFits").expect("is there");
        Ok((fits.status.clone(), fits.last_transition_time.clone()))
    };
    let (before, events) = (since().await?, world.events(NS, "m", "CaptureChanged").await?);
    assert_eq!((before.0.as_str(), events.len()), ("True", 1), "{events:?}");
    // The Model is looked at again: its generation is another one.
    world
        .merge::<Model>(
            NS,
            "m",
            json!({"spec": {"rollout": {"steps": [{"nodes": "100%", "mode": "Active", "hold": "1s"}]}}}),
        )
        .await?;
    eventually("the Model has been looked at", || async {
        let model = world.model(NS, "m").await?;
        let seen = model.status.as_ref().map(|status| status.observed_generation);
        Ok(if seen == model.metadata.generation {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        })
    })
    .await?;
    assert_eq!(since().await?, before);

    // Each change is told.
    let filter = json!({"spec": {"capture": {"syscalls": {"exclude": ["futex"]}}}});
    world.merge::<vigia_crds::TraceProfile>(NS, "web", filter).await?;
    eventually("the second change is told", || async {
        let events = world.events(NS, "m", "CaptureChanged").await?;
        Ok(if events.len() == 2 {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        })
    })
    .await
}
