//! Objects for the tests of the pure parts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use vigia_crds::{Model, TraceProfile};

use crate::pods::PodView;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number is a timestamp")
}

/// A profile that selects every pod of its namespace.
pub fn profile(namespace: &str, name: &str, created: i64) -> TraceProfile {
    serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "TraceProfile",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"),
                     "generation": 1, "creationTimestamp": Time(at(created))},
        "spec": {"podSelector": {}},
    }))
    .expect("a profile")
}

pub fn model(namespace: &str, name: &str, spec: serde_json::Value) -> Model {
    serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "Model",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"), "generation": 1},
        "spec": spec,
    }))
    .expect("a Model")
}

pub fn pod(namespace: &str, name: &str, node: &str, containers: &[&str]) -> PodView {
    PodView {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        cgroup_uid: format!("uid-{name}"),
        node: node.to_owned(),
        service_account: "default".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        containers: containers
            .iter()
            .map(|c| ((*c).to_owned(), format!("id-{name}-{c}")))
            .collect(),
        declared: containers.iter().map(|c| (*c).to_owned()).collect(),
        ended: false,
    }
}
