//! A pod as the API server sends it: only what is looked at is decoded.
//!
//! What is not decoded costs nothing, and cannot be wrong. A whole Pod holds times that whoever may write its status sets,
//! and one that the API server can tell and no clock here can would stop the watch of all pods.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::PodView;

/// Annotation of a static pod's mirror: the UID that the kubelet runs it under.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";
/// Annotation of each mirror. A kubelet never runs a pod that has it as what it is, only the static pod that
/// it stands for; so nobody can hide a pod of their own by writing it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod of a list or a watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct WatchedPod {
    /// Its name, namespace, UID and resource version.
    meta: ObjectMeta,
    view: Option<PodView>,
}

impl WatchedPod {
    /// The pod cut down; `None` without a name or UID.
    pub fn view(&self) -> Option<&PodView> {
        self.view.as_ref()
    }
}

impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    init_containers: Option<Vec<Declared>>,
    containers: Option<Vec<Declared>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    name: String,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    id: Option<String>,
    state: Option<State>,
}

#[derive(Deserialize)]
struct State {
    running: Option<IgnoredAny>,
}

impl ContainerStatus {
    fn runs(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.running.is_some())
    }
}

impl From<Wire> for WatchedPod {
    fn from(pod: Wire) -> Self {
        let meta = ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            ..ObjectMeta::default()
        };
        Self {
            meta,
            view: view(pod),
        }
    }
}

fn view(pod: Wire) -> Option<PodView> {
    let Wire {
        metadata,
        spec,
        status,
    } = pod;
    let uid = metadata.uid?;
    let status = status.unwrap_or_default();
    let of_init = status.init_container_statuses.unwrap_or_default();
    let of_app = status.container_statuses.unwrap_or_default();
    // A pod that is being deleted is traced until its last container has stopped.
    let stopped = !of_app.iter().any(ContainerStatus::runs);
    let mut containers: Vec<(String, String)> = of_init
        .into_iter()
        .chain(of_app)
        .filter(ContainerStatus::runs)
        .filter_map(|container| {
            let (_, id) = container.id.as_deref()?.split_once("://")?;
            (!id.is_empty()).then(|| (container.name.clone(), id.to_owned()))
        })
        .collect();
    containers.sort();
    let (node, service_account, declared) = spec.map_or_else(Default::default, |spec| {
        let init = spec.init_containers.into_iter().flatten();
        // Of the init containers only sidecars go on running.
        let sidecars = init.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let declared = sidecars.chain(spec.containers.into_iter().flatten());
        (
            spec.node_name.unwrap_or_default(),
            spec.service_account_name.unwrap_or_default(),
            declared.map(|c| c.name).collect(),
        )
    });
    Some(PodView {
        namespace: metadata.namespace?,
        name: metadata.name?,
        cgroup_uid: metadata
            .annotations
            .filter(|a| a.contains_key(MIRROR))
            .and_then(|mut a| a.remove(STATIC_POD_UID))
            .unwrap_or_else(|| uid.clone()),
        uid,
        node,
        service_account,
        labels: metadata.labels.unwrap_or_default(),
        containers,
        declared,
        ended: metadata.deletion_timestamp.is_some() && stopped
            || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_that_nobody_can_tell_is_no_matter() {
        let pod: WatchedPod = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "a", "uid": "u", "resourceVersion": "7",
                         "creationTimestamp": "never", "deletionTimestamp": "9999-12-31T23:59:59Z"},
            "spec": {"containers": [{"name": "app"}]},
            "status": {"startTime": "9999-12-31T23:59:59Z", "containerStatuses": null},
        }))
        .expect("a pod");
        assert_eq!(pod.meta().resource_version.as_deref(), Some("7"));
        assert!(pod.view().is_some_and(|view| view.ended));
    }
}
