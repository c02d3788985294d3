//! Files that are made from the API's types: the chart's CRDs and the API reference.
//!
//! They are committed, because people read them and Helm installs them; a test compares them byte
//! for byte with what these functions return.

mod reference;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// Path below the repository's root, and text, of every generated file.
pub fn files() -> Vec<(String, String)> {
    let crds = crate::all();
    let mut files: Vec<_> = crds
        .iter()
        .map(|crd| {
            (
                format!("charts/vigia/crds/{}.yaml", crd.spec.names.plural),
                yaml(crd),
            )
        })
        .collect();
    files.push(("docs/api.md".to_owned(), reference::markdown(&crds)));
    files
}

fn yaml(crd: &CustomResourceDefinition) -> String {
    let body = serde_yaml_ng::to_string(crd).expect("a CRD's keys are strings");
    format!("# Made by `make generate` from the types in crds/src; do not edit.\n{body}")
}
