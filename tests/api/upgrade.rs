//! Objects from before a rule: the API server lets be what it would refuse today, as long as that part stays as it is. So
//! the operator can still write their status, and people can change what such a rule does not look at, after an upgrade of the CRDs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use vigia_tests::{api_of, server};

/// One of each kind with all that was once taken, and a change of its spec beside that, where it has one.
fn former() -> Vec<(Value, Option<Value>)> {
    let object = |kind: &str, spec: Value| json!({"apiVersion": "vigia.dev/v1alpha1", "kind": kind, "metadata": {"name": "former", "namespace": "default"}, "spec": spec});
    let gates = json!([{"metric": "HoldoutExceedance", "atMost": "1"}, {"metric": "InjectionRecall", "atLeast": "0"}]);
    let training = json!({"workers": 16, "data": {"minWindows": 50, "maxWindows": 100}, "gates": gates});
    let mut run = training.clone();
    run["modelRef"] = json!({"name": "m"});
    vec![
        (
            object(
                "TraceProfile",
                json!({
                    "podSelector": {}, "containers": ["a", "a"], "window": "5m",
                    "capture": {"syscalls": {"include": ["read", "read"], "exclude": ["read", "futex", "futex"]}},
                    "detection": {"alertBudget": {"count": 1000, "every": "24h"}},
                }),
            ),
            None,
        ),
        (
            object(
                "Model",
                json!({"task": "Anomaly", "rollout": {"gates": [
                    {"metric": "AlertRate", "atMost": "200x"}, {"metric": "ScoreDrift", "atMost": "1"},
                ]}}),
            ),
            Some(json!({"spec": {"rollout": {"paused": true}}})),
        ),
        (
            object(
                "RetrainingPolicy",
                json!({"modelRef": {"name": "m"}, "drift": {"above": "0.0"}, "training": training}),
            ),
            Some(json!({"spec": {"suspend": true}})),
        ),
        (object("TrainingRun", run), None),
    ]
}

/// Takes the rules out of a schema.
fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("x-kubernetes-validations");
            map.values_mut().for_each(without_rules);
        }
        Value::Array(values) => values.iter_mut().for_each(without_rules),
        _ => {}
    }
}

async fn replace(client: &Client, crds: Vec<CustomResourceDefinition>) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for mut crd in crds {
        let name = crd.name_any();
        crd.metadata.resource_version = api.get(&name).await?.resource_version();
        api.replace(&name, &PostParams::default(), &crd).await?;
    }
    Ok(())
}

/// Waits until each of these is taken, or is not, which the API server says without keeping it.
async fn until_taken(client: &Client, objects: &[DynamicObject], taken: bool) -> Result<()> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for object in objects {
        let mut probe = object.clone();
        probe.metadata.name = Some("probe".to_owned());
        let api = api_of(client, &probe)?;
        let mut often = tokio::time::interval(Duration::from_millis(200));
        let answered = async {
            while api.create(&params, &probe).await.is_ok() != taken {
                often.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answered)
            .await
            .with_context(|| format!("the API server has the other CRDs: taken is {taken} of {probe:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_refused_today_and_was_taken_before_can_still_be_worked_with() -> Result<()> {
    let (_server, client) = server().await?;
    let mut old = Vec::new();
    for crd in vigia_crds::all() {
        let mut crd = serde_json::to_value(crd)?;
        without_rules(&mut crd);
        old.push(serde_json::from_value(crd)?);
    }
    replace(&client, old).await?;
    let all = former();
    let objects: Vec<DynamicObject> = all
        .iter()
        .map(|(object, _)| serde_json::from_value(object.clone()))
        .collect::<Result<_, _>>()?;
    until_taken(&client, &objects, true).await?;
    for object in &objects {
        api_of(&client, object)?
            .create(&PostParams::default(), object)
            .await?;
    }
    replace(&client, vigia_crds::all()).await?;
    until_taken(&client, &objects, false).await?;

    let params = PatchParams::default();
    for ((_, change), object) in all.iter().zip(&objects) {
        let api = api_of(&client, object)?;
        let label = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["vigia.dev/test"]}});
        let labelled = api.patch("former", &params, &Patch::Merge(&label)).await?;
        ensure!(labelled.labels().len() == 1, "{labelled:?}");
        let status = json!({"status": {"observedGeneration": 1}});
        let told = api
            .patch_status("former", &params, &Patch::Merge(&status))
            .await?;
        ensure!(told.data["status"]["observedGeneration"] == 1, "{told:?}");
        let Some(change) = change else { continue };
        let changed = api.patch("former", &params, &Patch::Merge(change)).await?;
        ensure!(changed.metadata.generation == Some(2), "{changed:?}");
    }
    Ok(())
}
