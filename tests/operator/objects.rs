//! Objects as people and kubelets write them.

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use vigia_crds::{Model, ModelVersion, TraceProfile};

use crate::artifact;

/// The operator's namespace.
pub const SYSTEM: &str = "vigia-system";
/// Service account of the agents.
pub const AGENT: &str = "vigia-agent";

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Result<K> {
    serde_json::from_value(value).context("an object of a test")
}

/// A namespace with the service accounts that pods of these tests use: there is no controller that makes them.
pub async fn namespace(client: &Client, name: &str) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(
        &PostParams::default(),
        &object(json!({"metadata": {"name": name}}))?,
    )
    .await?;
    for account in ["default", AGENT] {
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        let account = object(json!({"metadata": {"name": account}}))?;
        api.create(&PostParams::default(), &account).await?;
    }
    Ok(())
}

/// A node; it is Ready once [`set_ready`] says so.
pub async fn node(client: &Client, name: &str) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    api.create(
        &PostParams::default(),
        &object(json!({"metadata": {"name": name}}))?,
    )
    .await?;
    set_ready(client, name, true).await?;
    pod(
        client,
        SYSTEM,
        &format!("agent-{name}"),
        name,
        AGENT,
        &[("app", "vigia-agent")],
        &["agent"],
    )
    .await?;
    Ok(())
}

/// What a kubelet, or the node controller in its place, says.
pub async fn set_ready(client: &Client, name: &str, ready: bool) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let condition = json!({"type": "Ready", "status": if ready { "True" } else { "Unknown" }, "reason": "Test",
                           "lastHeartbeatTime": null, "lastTransitionTime": null});
    let patch = json!({"status": {"conditions": [condition]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await?;
    Ok(())
}

/// A pod whose containers run.
pub async fn pod(
    client: &Client,
    namespace: &str,
    name: &str,
    node: &str,
    account: &str,
    labels: &[(&str, &str)],
    containers: &[&str],
) -> Result<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let labels: Value = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), json!(v)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let specs: Vec<Value> = containers
        .iter()
        .map(|c| json!({"name": c, "image": "none"}))
        .collect();
    let pod = object(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false, "containers": specs},
    }))?;
    let pod = api.create(&PostParams::default(), &pod).await?;
    run_containers(client, &pod, "c").await
}

/// What the kubelet says once the containers of a pod run; `ids` begins their ids.
pub async fn run_containers(client: &Client, pod: &Pod, ids: &str) -> Result<Pod> {
    let namespace = pod.namespace().context("a pod has a namespace")?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let name = pod.name_any();
    let containers = pod
        .spec
        .as_ref()
        .map(|s| s.containers.clone())
        .unwrap_or_default();
    let statuses: Vec<Value> = containers
        .iter()
        .map(|c| {
            json!({"name": c.name, "containerID": format!("containerd://{ids}-{namespace}-{name}-{}", c.name), "image": "none",
                   "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": null}}})
        })
        .collect();
    let patch = json!({"status": {"phase": "Running", "containerStatuses": statuses}});
    Ok(api
        .patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await?)
}

/// A profile that selects `app` and is scored by one Model, or by none.
pub fn profile(namespace: &str, name: &str, app: &str, models: &[&str]) -> Result<TraceProfile> {
    let models: Vec<Value> = models.iter().map(|m| json!({"name": m})).collect();
    object(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "TraceProfile",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "window": "2s", "models": models},
    }))
}

/// A Model that trusts [`artifact::key`].
pub fn model(namespace: &str, name: &str, spec: Value) -> Result<Model> {
    let mut value = json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "Model",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"task": "Anomaly", "trust": {"publicKeys": [artifact::public_key()]}},
    });
    if let (Some(to), Value::Object(from)) = (value["spec"].as_object_mut(), spec) {
        to.extend(from);
    }
    object(value)
}

/// A version whose bytes are in a ConfigMap of its name; the digest is that of `claimed`.
pub async fn version(
    client: &Client,
    namespace: &str,
    model: &str,
    name: &str,
    bytes: &[u8],
    claimed: &str,
) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut source: ConfigMap = object(json!({"metadata": {"name": name}}))?;
    source.binary_data = Some([("model.apr".to_owned(), ByteString(bytes.to_vec()))].into());
    api.create(&PostParams::default(), &source).await?;
    let api: Api<ModelVersion> = Api::namespaced(client.clone(), namespace);
    let version = object(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"modelRef": {"name": model}, "digest": claimed, "source": {"configMap": {"name": name}}},
    }))?;
    api.create(&PostParams::default(), &version).await?;
    Ok(())
}
