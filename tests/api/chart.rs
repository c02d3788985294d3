//! The chart as Helm renders it: a real API server takes it with every switch, and what it grants is little.

use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use vigia_tests::{apply, helm_template, server};

/// Values that turn on what is off by default and does not need another operator's kinds.
const ALL: &[&str] = &[
    "networkPolicy.enabled=true",
    "operator.store.existingClaim=shared",
    "agent.cache.type=emptyDir",
    "monitoring.dashboard=true",
    "operator.otlp.endpoint=https://otel-collector.telemetry:4317",
    "operator.otlp.caSecret=otel-ca",
];

#[tokio::test]
async fn an_api_server_takes_the_chart() {
    let (_server, client) = server().await.unwrap();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "vigia-system"}})).unwrap();
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    for values in [&[][..], ALL] {
        for object in helm_template(values).unwrap() {
            let name = object.metadata.name.clone().unwrap_or_default();
            let kind = object.types.as_ref().unwrap().kind.clone();
            apply(&client, &object)
                .await
                .unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        }
    }
}

#[test]
fn wrong_values_are_refused() {
    for (value, path) in [
        ("operator.replicas=3", "replicas"),
        ("agent.cache.type=tmpfs", "cache"),
        ("images.pullPolicy=Sometimes", "pullPolicy"),
        ("operator.store.type=nfs", "store"),
        ("operator.retention=5", "retention"),
        ("operator.maxTrainings=0", "maxTrainings"),
        ("agent.log=verbose", "/agent/log"),
        ("operator.log=info\\,nonsense", "/operator/log"),
        ("agent.resources.limits.memory=lots", "memory"),
        ("agent.nodeSelector.pool=3", "nodeSelector"),
        ("trainer.tolerations[0].operator=Maybe", "tolerations"),
        ("operator.store.size=much", "size"),
        ("agent.cache.path=/var/../etc", "path"),
        ("images.tag=a/b", "tag"),
        ("operator.otlp.endpoint=collector:4317", "otlp"),
        ("operator.otlp.endpoint=https://collector:4317", "otlp"),
        ("operator.otlp.caSecret=otel-ca", "otlp"),
        ("operator.otlp.endpoint=http://collector:99999", "otlp"),
        ("operator.otlp.endpoint=http://collector:0", "otlp"),
        ("operator.otlp.endpoint=http://me@collector:4317", "otlp"),
        (
            "operator.store.size=1Mi",
            "operator.store.size is 1Mi: write at least 256Mi",
        ),
        ("operator.store.size=255.9Mi", "write at least 256Mi"),
        ("images.registry=https://registry.example.com/vigia", "registry"),
        ("images.registry=registry.example.com:65536/vigia", "registry"),
        ("images.registry=registry.example.com/vigia/", "registry"),
    ] {
        let error = helm_template(&[value]).expect_err(value).to_string();
        assert!(error.contains(path), "{value}: {error}");
    }
    for value in [
        "agent.log=info\\,vigia_agent=debug",
        "trainer.resources.limits.memory=4Gi",
        "operator.otlp.endpoint=http://collector:4317",
        "operator.otlp.endpoint=http://[fd00::1]:65535",
        "operator.store.size=256Mi",
        "images.registry=127.0.0.1:5000/a/b-c",
    ] {
        helm_template(&[value]).expect(value);
    }
}

/// The pod template of a Deployment or DaemonSet of the chart.
fn pod(name: &str) -> Value {
    let objects = helm_template(&[]).unwrap();
    let object = objects
        .into_iter()
        .find(|o| o.metadata.name.as_deref() == Some(name) && o.data.pointer("/spec/template/spec").is_some())
        .unwrap();
    object.data["spec"]["template"]["spec"].clone()
}

#[test]
fn the_agent_has_two_capabilities_and_no_namespace_of_the_host() {
    let pod = pod("vigia-agent");
    for host in ["hostPID", "hostNetwork", "hostIPC"] {
        assert_eq!(pod.get(host), None, "{host}");
    }
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON"]},
        })
    );
    for mount in container["volumeMounts"].as_array().unwrap() {
        let path = mount["mountPath"].as_str().unwrap();
        assert!(
            mount["readOnly"] == true || path == "/var/lib/vigia",
            "{path} is writable"
        );
    }
}

#[test]
fn the_operator_meets_the_restricted_pod_security_standard() {
    let pod = pod("vigia-operator");
    let of_pod = &pod["securityContext"];
    assert_eq!(of_pod["runAsNonRoot"], true);
    assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault");
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(context["readOnlyRootFilesystem"], true);
    for volume in pod["volumes"].as_array().unwrap() {
        assert_eq!(volume.get("hostPath"), None);
    }
}
