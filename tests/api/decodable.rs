//! What the API server takes, our programs can read: of each field of each kind that people write, values at the edge of
//! what there is are tried on a real API server, and what it takes is decoded.

use futures::StreamExt as _;
use kube::api::{DynamicObject, PostParams};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vigia_crds::{Model, ModelVersion, RetrainingPolicy, TraceProfile, TrainingRun};
use vigia_tests::{api_of, server};

/// An object of each kind in which every field is set.
fn whole() -> [Value; 5] {
    let digest = format!("sha256:{}", "0".repeat(64));
    let gates = json!([{"metric": "HoldoutExceedance", "atMost": "0.1"}, {"metric": "InjectionRecall", "atLeast": "0.9"}]);
    let estimator =
        json!({"types": ["KMeans"], "components": 4, "trees": 100, "sampleSize": 256, "seed": 42});
    let object = |kind: &str, spec: Value| json!({"apiVersion": "vigia.dev/v1alpha1", "kind": kind, "metadata": {"name": "whole", "namespace": "default"}, "spec": spec});
    [
        object(
            "TraceProfile",
            json!({
                "podSelector": {
                    "matchLabels": {"app": "web"},
                    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}],
                },
                "containers": ["app"], "window": "10s",
                "capture": {"mode": "Sampled", "sampleOneIn": 16, "signals": ["Resources"],
                            "syscalls": {"include": ["network"], "exclude": ["futex"]}},
                "models": [{"name": "m"}],
                "detection": {"alertBudget": {"count": 1, "per": "Pod", "every": "24h"}, "consecutiveWindows": 2},
                "outputs": {"events": true},
                "budget": {"cpu": "10m", "onExceed": "Degrade"},
            }),
        ),
        object(
            "Model",
            json!({
                "task": "Anomaly", "version": {"digest": digest}, "promotion": {"mode": "GitOps"}, "historyLimit": 5,
                "rollout": {
                    "steps": [{"nodes": 1, "mode": "Shadow", "hold": "10m"}, {"nodes": "100%", "mode": "Active", "hold": "0s"}],
                    "gates": [{"metric": "AlertRate", "atMost": "2x", "minSamples": 100, "onNoData": "Hold"}],
                    "paused": false,
                },
                "trust": {"publicKeys": ["Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]},
            }),
        ),
        object(
            "ModelVersion",
            json!({
                "modelRef": {"name": "m"}, "digest": digest, "source": {"configMap": {"name": "c", "key": "model.apr"}},
                "provenance": {"trainingRun": "r", "dataDigest": digest, "samples": 100, "windowMs": [10000], "captures": ["all"], "metrics": {"a": "1"}},
                "revoked": false,
            }),
        ),
        object(
            "RetrainingPolicy",
            json!({
                "modelRef": {"name": "m"}, "suspend": false, "historyLimit": 3, "cooldown": "10m",
                "coldStart": {"minWindows": 500},
                "drift": {"metric": "JensenShannon", "above": "0.2", "every": "10m", "minSamples": 100, "consecutive": 3},
                "training": {"estimator": estimator, "workers": 2, "timeout": "30m", "gates": gates,
                             "data": {"lookback": "168h", "minWindows": 500, "maxWindows": 1000}},
            }),
        ),
        object(
            "TrainingRun",
            json!({
                "modelRef": {"name": "m"}, "reason": "Manual", "estimator": estimator, "workers": 2, "gates": gates, "timeout": "30m",
                "data": {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "minWindows": 500, "maxWindows": 1000,
                         "includeAlerted": true},
            }),
        ),
    ]
}

/// Values at the edge of what there is.
fn edges() -> Vec<Value> {
    let texts = [
        "",
        "0",
        "-1",
        "1e999",
        "NaN",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-12:00",
        "0000-01-01T00:00:00Z",
        "2199-12-31t23:59:59z",
        "2026-01-01T00:00:00.123456789012Z",
        "2026-12-31T23:59:60Z",
        "2026-02-30T00:00:00Z",
        "0.000000001ns",
        "9223372036854775807ns",
        "2562047h47m16.854775807s",
        "1h1h1h",
        "1µs",
        "100%",
        "1%",
        "9999999999%",
        "0.1111111111",
        "99999999999999",
        "1x",
        "99999999999999x",
        "é\u{0}",
        "*",
    ];
    let numbers = [
        "0",
        "-1",
        "1",
        "2",
        "1.0",
        "1.5",
        "1e3",
        "1e30",
        "-1e30",
        "2147483647",
        "2147483648",
        "-2147483649",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
    ];
    let numbers = numbers.iter().map(|text| serde_json::from_str(text).unwrap());
    let others = [
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!("9".repeat(300)),
    ];
    texts
        .iter()
        .map(|text| json!(text))
        .chain(numbers)
        .chain(others)
        .collect()
}

/// Pointers to everything below a value, and to itself.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, value)| pointers(value, &format!("{at}/{i}"), found)),
        _ => {}
    }
}

/// Fields of a schema that the value at its place does not set.
fn unset(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match value.get(name) {
            Some(value) => unset(property, value, &at, found),
            None => found.push(at),
        }
    }
    if let Some(items) = schema.get("items") {
        let values = value.as_array().map_or(&[][..], Vec::as_slice);
        let mut missing: Vec<Vec<String>> = Vec::new();
        for value in values {
            let mut of_one = Vec::new();
            unset(items, value, at, &mut of_one);
            missing.push(of_one);
        }
        // What one item of the list sets is set.
        let (first, others) = missing.split_first().expect("a list with an item");
        found.extend(
            first
                .iter()
                .filter(|name| others.iter().all(|other| other.contains(name)))
                .cloned(),
        );
    }
}

fn read<K: DeserializeOwned>(object: &Value) -> Result<(), String> {
    serde_json::from_value::<K>(object.clone())
        .map(drop)
        .map_err(|error| error.to_string())
}

fn decode(object: &Value) -> Result<(), String> {
    match object["kind"].as_str().unwrap_or_default() {
        "TraceProfile" => read::<TraceProfile>(object),
        "Model" => read::<Model>(object),
        "ModelVersion" => read::<ModelVersion>(object),
        "RetrainingPolicy" => read::<RetrainingPolicy>(object),
        "TrainingRun" => read::<TrainingRun>(object),
        other => Err(format!("kind {other}")),
    }
}

/// Whether the API server takes it, or what it says; what it takes and we cannot read is an error.
async fn attempt(client: &Client, object: Value) -> Result<Answer, String> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let dynamic: DynamicObject = serde_json::from_value(object).unwrap();
    let api = api_of(client, &dynamic).unwrap();
    match api.create(&params, &dynamic).await {
        Ok(taken) => decode(&serde_json::to_value(taken).unwrap()).map(|()| Answer::Taken),
        Err(Error::Api(status)) => Ok(Answer::Refused(status.message)),
        Err(error) => Err(error.to_string()),
    }
}

/// What became of an object.
#[derive(Debug, PartialEq)]
enum Answer {
    Taken,
    Refused(String),
}

#[test]
fn every_field_is_set() {
    for crd in vigia_crds::all() {
        let kind = crd.spec.names.kind.clone();
        let Some(object) = whole().into_iter().find(|object| object["kind"] == kind.as_str()) else {
            assert_eq!(kind, "NodePlan", "people write no NodePlan");
            continue;
        };
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut missing = Vec::new();
        unset(schema, &object["spec"], &kind, &mut missing);
        assert!(missing.is_empty(), "set these in `whole`: {missing:?}");
    }
}

#[tokio::test]
async fn what_the_api_server_takes_can_be_read() {
    let (_server, client) = server().await.unwrap();
    let mut cases = Vec::new();
    for object in whole() {
        assert_eq!(attempt(&client, object.clone()).await, Ok(Answer::Taken));
        let mut places = Vec::new();
        pointers(&object["spec"], "/spec", &mut places);
        for place in places {
            for edge in edges() {
                let mut bent = object.clone();
                *bent.pointer_mut(&place).unwrap() = edge.clone();
                cases.push((format!("{} {place} {edge}", object["kind"]), bent));
            }
        }
    }
    let tried = cases.len();
    let client = &client;
    let answers = futures::stream::iter(cases)
        .map(|(name, object)| async move { (name, attempt(client, object).await) })
        .buffer_unordered(16);
    let answers: Vec<_> = answers.collect().await;
    let taken = answers
        .iter()
        .filter(|(_, answer)| *answer == Ok(Answer::Taken))
        .count();
    let wrong: Vec<String> = answers
        .into_iter()
        .filter_map(|(name, answer)| Some(format!("{name}: {}", answer.err()?)))
        .collect();
    assert!(
        wrong.is_empty(),
        "taken, and not to be read:\n{}",
        wrong.join("\n")
    );
    assert!(
        taken * 50 > tried,
        "only {taken} of {tried} are taken: is anything tried?"
    );
}
