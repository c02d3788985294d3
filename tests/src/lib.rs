//! What the tests of the API share: an API server with our CRDs, and manifests as people write them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::Value;
use vigia_e2e::{ApiServer, ApiServerOptions, Parts};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An API server that knows our kinds, and a client with all rights on it.
pub async fn server() -> Result<(ApiServer, Client)> {
    let server = ApiServer::up(ApiServerOptions::default()).await?;
    let client = server.client().await?;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in vigia_crds::all() {
        api.create(&PostParams::default(), &crd)
            .await
            .context("the CRDs")?;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    for crd in vigia_crds::all() {
        let name = format!("{}.vigia.dev", crd.spec.names.plural);
        let established = kube::runtime::wait::conditions::is_crd_established();
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::timeout(
            left,
            kube::runtime::wait::await_condition(api.clone(), &name, established),
        )
        .await
        .with_context(|| format!("{name} is not established"))??;
    }
    Ok((server, client))
}

/// The documents of a YAML file.
pub fn documents(path: &Path) -> Result<Vec<DynamicObject>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let documents = parse(&text).with_context(|| path.display().to_string())?;
    ensure!(!documents.is_empty(), "{} holds no document", path.display());
    Ok(documents)
}

/// The documents of a YAML text.
pub fn parse(text: &str) -> Result<Vec<DynamicObject>> {
    use serde::Deserialize as _;
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document)?;
        if !value.is_null() {
            objects.push(serde_json::from_value(value)?);
        }
    }
    Ok(objects)
}

/// Every YAML file of a folder of the repository, in order.
pub fn yaml_files(folder: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join(folder))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "{folder} holds no manifest");
    Ok(files)
}

/// The API of one of the kinds that our manifests hold.
pub fn api_of(client: &Client, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    let types = object.types.as_ref().context("a document without kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    let cluster_scoped = [
        "NodePlan",
        "Namespace",
        "Node",
        "ClusterRole",
        "ClusterRoleBinding",
    ]
    .contains(&types.kind.as_str())
        || types.kind.starts_with("ValidatingAdmissionPolicy");
    Ok(match &object.metadata.namespace {
        _ if cluster_scoped => Api::all_with(client.clone(), &resource),
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::namespaced_with(client.clone(), "default", &resource),
    })
}

/// What `kubectl apply --server-side --validate=strict` does.
///
/// # Errors
/// The API server's refusal, as [`Error::Api`].
pub async fn apply(client: &Client, object: &DynamicObject) -> Result<DynamicObject, Error> {
    let api = api_of(client, object).map_err(|error| Error::Service(error.into()))?;
    let params = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply("person").force()
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    api.patch(&name, &params, &Patch::Apply(object)).await
}

/// What `kubectl apply --validate=strict` does: creates the object, or patches the one that there is.
///
/// # Errors
/// The API server's refusal, as [`Error::Api`].
pub async fn apply_classic(client: &Client, object: &DynamicObject) -> Result<DynamicObject, Error> {
    let api = api_of(client, object).map_err(|error| Error::Service(error.into()))?;
    let name = object.metadata.name.clone().unwrap_or_default();
    let (method, url, kind) = if api.get_opt(&name).await?.is_some() {
        (
            Method::PATCH,
            format!("{}/{name}", api.resource_url()),
            "application/merge-patch+json",
        )
    } else {
        (Method::POST, api.resource_url().to_owned(), "application/json")
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{url}?fieldValidation=Strict"))
        .header(CONTENT_TYPE, kind)
        .body(serde_json::to_vec(object).map_err(Error::SerdeError)?)
        .map_err(Error::HttpError)?;
    client.request(request).await
}

/// The chart's objects as `helm template` renders them into the namespace vigia-system.
///
/// # Errors
/// What Helm says when it refuses a value.
pub fn helm_template(values: &[&str]) -> Result<Vec<DynamicObject>> {
    let helm = Parts::find(&["kubernetes"])?.program("helm")?;
    let mut command = Command::new(helm);
    command
        .args(["template", "vigia", "charts/vigia", "--namespace", "vigia-system"])
        .current_dir(root());
    for value in values {
        command.args(["--set", value]);
    }
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    parse(&String::from_utf8(output.stdout)?)
}
