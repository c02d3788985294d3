//! Objects that the API server has and the operator cannot read, as a former version of the API let them in: they keep
//! nobody from anything.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use vigia_crds::conditions::READY;
use vigia_crds::{TraceProfile, TrainingRun};

use crate::objects;
use crate::rollouts::condition;
use crate::world::{World, eventually};

const NS: &str = "shop";

/// What the operator says, as its log would have it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, with: &[&str]) -> usize {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .filter(|line| with.iter().all(|part| line.contains(part)))
            .count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A schema without what it refuses.
fn loosen(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for refusal in ["x-kubernetes-validations", "pattern", "minimum", "maximum"] {
                // A property may have such a name; its schema is no list, number or text.
                if map.get(refusal).is_some_and(|value| !value.is_object()) {
                    map.remove(refusal);
                }
            }
            map.values_mut().for_each(loosen);
        }
        Value::Array(values) => values.iter_mut().for_each(loosen),
        _ => {}
    }
}

/// Lets the API server have our kinds with or without their rules.
async fn serve(client: &Client, loose: bool) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in vigia_crds::all() {
        let mut body = serde_json::to_value(&crd)?;
        if loose {
            loosen(&mut body);
        }
        let name = crd.name_any();
        body["metadata"]["resourceVersion"] = json!(api.get(&name).await?.resource_version());
        api.replace(&name, &PostParams::default(), &serde_json::from_value(body)?)
            .await?;
    }
    Ok(())
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("vigia.dev", "v1alpha1", kind);
    Api::namespaced_with(client.clone(), NS, &ApiResource::from_gvk(&kind))
}

fn wrong(kind: &str, name: &str, spec: Value) -> Result<DynamicObject> {
    serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": kind,
        "metadata": {"namespace": NS, "name": name}, "spec": spec,
    }))
    .context("an object")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_keeps_the_operator_from_nothing() -> Result<()> {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_writer(move || writer.clone())
        .init();
    let mut world = World::new(&["n1"]).await?;
    objects::namespace(&world.client, NS).await?;
    world.kill().await;

    serve(&world.client, true).await?;
    let far = |time: &str| json!({"modelRef": {"name": "m"}, "data": {"since": time}});
    let steps = json!([{"nodes": 2_147_483_648_i64, "mode": "Active", "hold": "0s"}]);
    let objects = [
        wrong("TrainingRun", "far", far("9999-12-31T23:59:59Z"))?,
        wrong(
            "TrainingRun",
            "fine-grained",
            far("2026-01-01T00:00:00.123456789012Z"),
        )?,
        wrong(
            "Model",
            "steps",
            json!({"task": "Anomaly", "rollout": {"steps": steps}}),
        )?,
    ];
    for object in &objects {
        let kind = object.types.as_ref().map_or("", |types| &types.kind);
        eventually(&format!("{kind} {} is taken", object.name_any()), || async {
            match api(&world.client, kind)
                .create(&PostParams::default(), object)
                .await
            {
                Ok(_) => Ok(Ok(())),
                // The API server has not seen yet that the rules are gone.
                Err(kube::Error::Api(status)) if status.code == 422 => Ok(Err(status.message)),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
    }
    serve(&world.client, false).await?;
    let again = wrong("TrainingRun", "again", far("9999-12-31T23:59:59Z"))?;
    eventually("the rules are there again", || async {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        match api(&world.client, "TrainingRun").create(&params, &again).await {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(Ok(())),
            other => Ok(Err(format!("{other:?}"))),
        }
    })
    .await?;

    // It starts, and does its work beside them.
    world.start().await?;
    let profiles: Api<TraceProfile> = Api::namespaced(world.client.clone(), NS);
    profiles
        .create(
            &PostParams::default(),
            &objects::profile(NS, "web", "web", &["m"])?,
        )
        .await?;
    profiles
        .create(
            &PostParams::default(),
            &objects::profile(NS, "of-steps", "other", &["steps"])?,
        )
        .await?;
    let of_steps = async || {
        let status = world.profile(NS, "of-steps").await?.status.unwrap_or_default();
        Ok(status.conditions)
    };
    condition("of-steps", (READY, "False", "ModelUnreadable"), of_steps).await?;
    let models: Api<vigia_crds::Model> = Api::namespaced(world.client.clone(), NS);
    models
        .create(&PostParams::default(), &objects::model(NS, "m", json!({}))?)
        .await?;
    objects::pod(
        &world.client,
        NS,
        "web-1",
        "n1",
        "default",
        &[("app", "web")],
        &["app"],
    )
    .await?;
    condition("web", (READY, "True", "Traced"), async || {
        let status = world.profile(NS, "web").await?.status.unwrap_or_default();
        Ok(status.conditions)
    })
    .await?;
    // Written again and again, and then a good one, which the operator sees after them.
    for round in 0..3 {
        let patch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        let runs = api(&world.client, "TrainingRun");
        runs.patch("far", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
    }
    let runs: Api<TrainingRun> = Api::namespaced(world.client.clone(), NS);
    let good = wrong("TrainingRun", "good", far("2026-01-01T00:00:00Z"))?;
    api(&world.client, "TrainingRun")
        .create(&PostParams::default(), &good)
        .await?;
    eventually("a good run is decided on", || async {
        let phase = runs.get("good").await?.status.and_then(|status| status.phase);
        Ok(phase.map(|_| ()).ok_or_else(|| "no phase".to_owned()))
    })
    .await?;

    // Each is named once; the author finds it at the object.
    eventually("an Event says it", || async {
        let events = world.events(NS, "steps", "Unreadable").await?;
        Ok(if events.len() == 1 {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        })
    })
    .await?;
    let text = world.operator().metrics.text();
    assert!(
        text.contains("objects_unreadable{kind=\"TrainingRun\"} 2"),
        "{text}"
    );
    for (kind, name) in [
        ("TrainingRun", "far"),
        ("TrainingRun", "fine-grained"),
        ("Model", "steps"),
    ] {
        let lines = log.lines(&["cannot be read", kind, &format!("name=\"{name}\"")]);
        assert_eq!(lines, 1, "lines about {kind} {name}");
    }

    // They can go, and what was in the way of nothing is gone from the count.
    for object in &objects {
        let kind = object.types.as_ref().map_or("", |types| &types.kind);
        api(&world.client, kind)
            .delete(&object.name_any(), &DeleteParams::default())
            .await?;
    }
    eventually("nothing is unreadable", || async {
        let text = world.operator().metrics.text();
        let none = ["TrainingRun", "Model"].map(|kind| format!("objects_unreadable{{kind=\"{kind}\"}} 0"));
        Ok(if none.iter().all(|line| text.contains(line)) {
            Ok(())
        } else {
            Err(text)
        })
    })
    .await?;
    Ok(())
}

/// Whoever may write the status of pods may write a time there that the API server can tell and this process cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_a_time_that_cannot_be_told_hides_no_other() -> Result<()> {
    let mut world = World::new(&["n1"]).await?;
    objects::namespace(&world.client, NS).await?;
    objects::pod(
        &world.client,
        NS,
        "old",
        "n1",
        "default",
        &[("app", "web")],
        &["app"],
    )
    .await?;
    let request = Request::patch(format!("/api/v1/namespaces/{NS}/pods/old/status"))
        .header(CONTENT_TYPE, "application/merge-patch+json")
        .body(serde_json::to_vec(
            &json!({"status": {"startTime": "9999-12-31T23:59:59Z"}}),
        )?)?;
    let told = world.client.request::<Value>(request).await?;
    let read = serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(told);
    assert!(read.is_err(), "it can be read: {read:?}");
    world.kill().await;
    world.start().await?;
    objects::pod(
        &world.client,
        NS,
        "new",
        "n1",
        "default",
        &[("app", "web")],
        &["app"],
    )
    .await?;
    let profiles: Api<TraceProfile> = Api::namespaced(world.client.clone(), NS);
    profiles
        .create(&PostParams::default(), &objects::profile(NS, "web", "web", &[])?)
        .await?;
    eventually("both are traced", || async {
        let status = world.profile(NS, "web").await?.status.unwrap_or_default();
        Ok(if status.matched_pods == 2 {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        })
    })
    .await?;
    Ok(())
}
