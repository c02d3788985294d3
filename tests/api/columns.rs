//! What `kubectl get` shows, and how kinds are named and split into spec and status.

use http::Request;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use vigia_crds::{Model, TraceProfile};
use vigia_tests::{apply, parse, server};

const PATH: &str = "/apis/vigia.dev/v1alpha1";

async fn get(client: &Client, path: &str, accept: &str) -> Value {
    let request = Request::get(path)
        .header("accept", accept)
        .body(Vec::new())
        .unwrap();
    client.request(request).await.unwrap()
}

/// The columns that kubectl prints, without those for `-o wide`.
fn columns(table: &Value) -> Vec<&str> {
    table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|column| column["priority"] == 0)
        .map(|column| column["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn kinds_have_short_names_a_category_columns_and_a_status() {
    let (_server, client) = server().await.unwrap();
    let discovered = get(&client, PATH, "application/json").await;
    let resources = discovered["resources"].as_array().unwrap();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (plural, short, namespaced, expected) in [
        (
            "traceprofiles",
            "tp",
            true,
            &["Name", "Pods", "Containers", "Nodes", "Models", "Ready", "Age"][..],
        ),
        (
            "models",
            "vm",
            true,
            &[
                "Name", "Task", "Serving", "Rollout", "Phase", "Step", "Drift", "Ready", "Age",
            ],
        ),
        (
            "modelversions",
            "mv",
            true,
            &["Name", "Model", "Samples", "Signer", "Verified", "Reason", "Age"],
        ),
        (
            "retrainingpolicies",
            "rp",
            true,
            &["Name", "Model", "Windows", "Last-Run", "Reason", "Ready", "Age"],
        ),
        (
            "trainingruns",
            "tr",
            true,
            &[
                "Name", "Model", "Reason", "Phase", "Windows", "Workers", "Version", "Age",
            ],
        ),
        (
            "nodeplans",
            "np",
            false,
            &["Name", "Targets", "Models", "Ready", "Reason", "Age"],
        ),
    ] {
        let resource = resources.iter().find(|r| r["name"] == plural).unwrap();
        assert_eq!(resource["shortNames"], json!([short]), "{plural}");
        assert_eq!(resource["categories"], json!(["vigia"]), "{plural}");
        assert_eq!(resource["namespaced"], namespaced, "{plural}");
        assert!(
            resources.iter().any(|r| r["name"] == format!("{plural}/status")),
            "{plural} has no status"
        );
        let table = get(&client, &format!("{PATH}/{plural}"), table).await;
        assert_eq!(columns(&table), expected, "{plural}");
    }
}

const MODEL: &str = "
apiVersion: vigia.dev/v1alpha1
kind: Model
metadata: {name: redis}
spec: {task: Anomaly}
";

#[tokio::test]
async fn spec_and_status_are_written_apart_and_only_a_spec_makes_a_generation() {
    let (_server, client) = server().await.unwrap();
    let mut model = parse(MODEL).unwrap().remove(0);
    model.data["status"] = json!({"observedGeneration": 7});
    let written = apply(&client, &model).await.unwrap();
    assert_eq!(
        written.data.get("status"),
        None,
        "a status came in by the spec's door"
    );

    let api: Api<Model> = Api::default_namespaced(client.clone());
    let status = json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "Model",
        "spec": {"task": "Anomaly", "rollout": {"paused": true}},
        "status": {"observedGeneration": 1, "serving": {"name": "redis-v1", "digest": "sha256:0"}},
    });
    let params = PatchParams::apply("vigia-operator").force();
    let written = api
        .patch_status("redis", &params, &Patch::Apply(status))
        .await
        .unwrap();
    assert!(
        !written.spec.rollout.paused,
        "a spec came in by the status's door"
    );
    assert_eq!(written.metadata.generation, Some(1));
    assert_eq!(written.status.unwrap().serving.unwrap().name, "redis-v1");
}

#[tokio::test]
async fn what_is_left_out_has_the_documented_default() {
    let (_server, client) = server().await.unwrap();
    let text = "
apiVersion: vigia.dev/v1alpha1
kind: TraceProfile
metadata: {name: all}
spec: {podSelector: {}}
";
    apply(&client, &parse(text).unwrap()[0]).await.unwrap();
    let api: Api<TraceProfile> = Api::default_namespaced(client);
    let spec = api.get("all").await.unwrap().spec;
    assert_eq!(spec.containers, ["*"]);
    assert_eq!(spec.window, std::time::Duration::from_secs(10));
    assert_eq!(spec.detection, vigia_crds::Detection::default());
    assert!(spec.outputs.events);
}
