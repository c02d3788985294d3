//! Who may do what, once the chart is installed: asked of the API server itself, and tried.

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Config, Error};
use serde_json::{Value, json};
use vigia_crds::NodePlan;
use vigia_e2e::ApiServer;
use vigia_tests::{apply, helm_template, parse, server};

const AGENT: &str = "system:serviceaccount:vigia-system:vigia-agent";
const OPERATOR: &str = "system:serviceaccount:vigia-system:vigia-operator";
const TRAINER: &str = "system:serviceaccount:vigia-system:vigia-trainer";

/// An API server with the chart's rights and admission policy.
async fn installed() -> (ApiServer, Client) {
    let (server, client) = server().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["vigia-system", "shop"] {
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &object).await.unwrap();
    }
    for object in helm_template(&[]).unwrap() {
        let kind = object.types.as_ref().unwrap().kind.as_str();
        if kind.contains("Role") || kind.contains("Admission") || kind == "ServiceAccount" {
            apply(&client, &object).await.unwrap();
        }
    }
    (server, client)
}

/// Whether a user may; `resource` is `group/resource[/subresource]`.
async fn may(client: &Client, user: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    let mut parts = resource.split('/');
    let group = parts.next().unwrap_or_default();
    let (resource, sub) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let namespace_of_user = user.split(':').nth(2).unwrap_or_default();
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "metadata": {},
        "spec": {
            "user": user,
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace_of_user}"), "system:authenticated"],
            "resourceAttributes": {
                "group": group, "resource": resource, "subresource": sub, "verb": verb, "namespace": namespace,
            },
        },
    }))
    .unwrap();
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    api.create(&PostParams::default(), &review)
        .await
        .unwrap()
        .status
        .unwrap()
        .allowed
}

#[tokio::test]
async fn each_part_may_do_its_work_and_nothing_else() {
    let (_server, client) = installed().await;
    let cases: &[(&str, &str, &str, &str, bool)] = &[
        (AGENT, "get", "vigia.dev/nodeplans", "", true),
        (AGENT, "watch", "vigia.dev/nodeplans", "", true),
        (AGENT, "patch", "vigia.dev/nodeplans/status", "", true),
        (AGENT, "patch", "vigia.dev/nodeplans", "", false),
        (AGENT, "create", "vigia.dev/nodeplans", "", false),
        (AGENT, "delete", "vigia.dev/nodeplans", "", false),
        (AGENT, "get", "vigia.dev/models", "shop", false),
        (AGENT, "get", "vigia.dev/modelversions", "shop", false),
        (AGENT, "list", "/pods", "", false),
        (AGENT, "get", "/secrets", "vigia-system", false),
        (AGENT, "get", "/configmaps", "vigia-system", false),
        (AGENT, "get", "/nodes", "", false),
        (AGENT, "create", "/events", "shop", false),
        (AGENT, "create", "authentication.k8s.io/tokenreviews", "", false),
        (TRAINER, "get", "/secrets", "vigia-system", false),
        (TRAINER, "get", "/configmaps", "vigia-system", false),
        (TRAINER, "get", "/pods", "vigia-system", false),
        (TRAINER, "get", "vigia.dev/trainingruns", "shop", false),
        (TRAINER, "create", "vigia.dev/modelversions", "shop", false),
        (TRAINER, "get", "vigia.dev/nodeplans", "", false),
        (OPERATOR, "patch", "vigia.dev/nodeplans", "", true),
        (OPERATOR, "create", "vigia.dev/modelversions", "shop", true),
        (OPERATOR, "create", "vigia.dev/trainingruns", "shop", true),
        (OPERATOR, "delete", "vigia.dev/trainingruns", "shop", true),
        (OPERATOR, "delete", "vigia.dev/modelversions", "shop", true),
        (OPERATOR, "delete", "vigia.dev/models", "shop", false),
        (OPERATOR, "list", "/serviceaccounts", "vigia-system", false),
        (OPERATOR, "get", "/serviceaccounts", "shop", false),
        (OPERATOR, "patch", "vigia.dev/models/status", "shop", true),
        (OPERATOR, "create", "authentication.k8s.io/tokenreviews", "", true),
        (OPERATOR, "watch", "/pods", "", true),
        (OPERATOR, "create", "events.k8s.io/events", "shop", true),
        (OPERATOR, "get", "/secrets", "vigia-system", true),
        (OPERATOR, "create", "batch/jobs", "vigia-system", true),
        // What Git owns is not the operator's to write.
        (OPERATOR, "patch", "vigia.dev/models", "shop", false),
        (OPERATOR, "patch", "vigia.dev/traceprofiles", "shop", false),
        (OPERATOR, "patch", "vigia.dev/retrainingpolicies", "shop", false),
        (OPERATOR, "get", "/secrets", "shop", false),
        (OPERATOR, "list", "/secrets", "vigia-system", false),
        (OPERATOR, "delete", "/secrets", "vigia-system", false),
        (OPERATOR, "delete", "vigia.dev/nodeplans", "", false),
        (OPERATOR, "get", "/secrets", "kube-system", false),
        (OPERATOR, "create", "batch/jobs", "shop", false),
        (OPERATOR, "create", "/pods", "vigia-system", false),
        (OPERATOR, "create", "/pods/exec", "shop", false),
        (OPERATOR, "delete", "/pods", "shop", false),
        (OPERATOR, "patch", "/nodes", "", false),
        (
            OPERATOR,
            "create",
            "rbac.authorization.k8s.io/clusterroles",
            "",
            false,
        ),
    ];
    let mut wrong = Vec::new();
    for &(user, verb, resource, namespace, expected) in cases {
        if may(&client, user, verb, resource, namespace).await != expected {
            let should = if expected { "may not" } else { "may" };
            wrong.push(format!("{user} {should} {verb} {resource} in {namespace:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A client that acts as the agent of a node, as its projected token would make the API server see it.
async fn agent_of(server: &ApiServer, node: Option<&str>) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .unwrap();
    let mut header = |name: &'static str, value: &str| {
        config.headers.push((
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        ));
    };
    header("impersonate-user", AGENT);
    if let Some(node) = node {
        header("impersonate-extra-authentication.kubernetes.io%2fnode-name", node);
    }
    Client::try_from(config).unwrap()
}

async fn report(client: &Client, plan: &str) -> Result<NodePlan, Error> {
    let status: Value = json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "NodePlan", "status": {"targets": 3},
    });
    let api: Api<NodePlan> = Api::all(client.clone());
    api.patch_status(
        plan,
        &PatchParams::apply("vigia-agent").force(),
        &Patch::Apply(status),
    )
    .await
}

#[tokio::test]
async fn an_agent_writes_the_status_of_its_own_nodeplan_only() {
    let (server, client) = installed().await;
    for name in ["node-1", "node-2"] {
        let text = format!(
            "{{apiVersion: vigia.dev/v1alpha1, kind: NodePlan, metadata: {{name: {name}}}, spec: {{}}}}"
        );
        apply(&client, &parse(&text).unwrap()[0]).await.unwrap();
    }
    let first = agent_of(&server, Some("node-1")).await;
    // A new policy is compiled and watched by the API server some time after it is written.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let refusal = loop {
        match report(&first, "node-2").await {
            Err(Error::Api(status)) => break status,
            other => assert!(std::time::Instant::now() < deadline, "never refused: {other:?}"),
        }
    };
    assert_eq!(refusal.code, 403);
    let sentence =
        "the agent of node node-1 may write the status of its own NodePlan only, not that of node-2";
    assert!(refusal.message.contains(sentence), "{}", refusal.message);

    assert_eq!(report(&first, "node-1").await.unwrap().status.unwrap().targets, 3);

    let stolen = agent_of(&server, None).await;
    let Err(Error::Api(refusal)) = report(&stolen, "node-1").await else {
        panic!("a token of no node is taken")
    };
    assert!(
        refusal.message.contains("the agent's token names no node"),
        "{}",
        refusal.message
    );
}
