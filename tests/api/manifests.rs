//! Good manifests are taken, and wrong ones refused with a sentence that says what to write instead.
//!
//! `tests/manifests` holds wrong ones. Their first lines say with what they must be refused; where a file
//! holds several documents, only the last one is wrong.

use std::collections::BTreeSet;
use std::path::Path;

use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::Status;
use kube::{Client, Error};
use serde_json::{Value, json};
use vigia_tests::{api_of, apply, apply_classic, documents, server, yaml_files};

async fn namespace(client: &Client, name: &str) {
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// What a wrong manifest says it must be refused with.
fn expectations(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("# refused: "))
        .map(str::to_owned)
        .collect()
}

/// How many things the API server says are wrong, beside that it looked no further.
fn sentences(status: &Status) -> usize {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .filter(|cause| !cause.message.contains("some validation rules were not checked"))
        .count()
}

/// What is wrong with how a file was answered; nothing when all was as it says.
async fn check(client: &Client, path: &Path) -> Option<String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let expected = expectations(path);
    if expected.is_empty() {
        return Some(format!("{name}: says not with what it must be refused"));
    }
    let mut objects = documents(path).unwrap();
    let wrong = objects.pop().unwrap();
    for object in &objects {
        if let Err(error) = apply_classic(client, object).await {
            return Some(format!("{name}: an earlier document is refused: {error}"));
        }
    }
    let answer = apply_classic(client, &wrong).await;
    let api = api_of(client, &wrong).unwrap();
    let _ = api
        .delete(&wrong.metadata.name.clone().unwrap(), &DeleteParams::default())
        .await;
    match answer {
        Ok(_) => Some(format!("{name}: is taken")),
        Err(Error::Api(status)) => {
            let missing: Vec<_> = expected.iter().filter(|e| !status.message.contains(*e)).collect();
            let sentences = sentences(&status);
            // One mistake has one sentence.
            (!missing.is_empty() || sentences > expected.len()).then(|| {
                format!(
                    "{name}: refused without {missing:?}, or with {sentences} sentences: {}",
                    status.message
                )
            })
        }
        Err(error) => Some(format!("{name}: {error}")),
    }
}

#[tokio::test]
async fn wrong_manifests_are_refused_with_a_sentence_that_helps() {
    let (_server, client) = server().await.unwrap();
    let files = yaml_files("tests/manifests").unwrap();
    assert!(files.len() >= 40, "only {} wrong manifests", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        wrong.extend(check(&client, file).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every message of a rule below a schema.
fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for rule in map
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                found.extend(rule["message"].as_str().map(str::to_owned));
            }
            map.values().for_each(|value| messages(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}

#[test]
fn every_rule_has_a_manifest_that_breaks_it() {
    let mut rules = BTreeSet::new();
    for crd in vigia_crds::all() {
        messages(&serde_json::to_value(crd).unwrap(), &mut rules);
    }
    for file in yaml_files("tests/manifests").unwrap() {
        for expected in expectations(&file) {
            rules.remove(&expected);
        }
    }
    assert!(
        rules.is_empty(),
        "no manifest of tests/manifests breaks these rules: {rules:#?}"
    );
}

#[tokio::test]
async fn examples_are_taken_by_both_kinds_of_apply() {
    let (_server, client) = server().await.unwrap();
    namespace(&client, "shop").await;
    let mut files = yaml_files("examples").unwrap();
    files.extend(yaml_files("examples/demo").unwrap());
    for file in files {
        for object in documents(&file).unwrap() {
            let ours = object
                .types
                .as_ref()
                .is_some_and(|t| t.api_version.starts_with("vigia.dev/"));
            if !ours {
                continue;
            }
            let name = format!("{} in {}", object.metadata.name.clone().unwrap(), file.display());
            apply_classic(&client, &object)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let taken: DynamicObject = apply(&client, &object)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let version = taken.metadata.resource_version.clone();
            let again = apply(&client, &object).await.unwrap();
            assert_eq!(
                again.metadata.resource_version, version,
                "{name}: applied twice, written twice"
            );
        }
    }
}

#[tokio::test]
async fn a_shadow_on_all_nodes_may_be_followed_by_a_canary_on_few() {
    let (_server, client) = server().await.unwrap();
    namespace(&client, "shop").await;
    let model: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "Model",
        "metadata": {"name": "m", "namespace": "shop"},
        "spec": {"task": "Anomaly", "rollout": {"steps": [
            {"nodes": "100%", "mode": "Shadow"},
            {"nodes": "10%", "mode": "Active"},
            {"nodes": "100%", "mode": "Active"},
        ]}},
    }))
    .unwrap();
    apply_classic(&client, &model).await.unwrap();
}
