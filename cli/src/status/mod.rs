//! `kubectl vigia status`: what goes on in a cluster, on one screen. Only reads.
//!
//! Each list is asked for by itself, so that somebody who may see Models but no nodes sees the Models, and why there are
//! no nodes. An object that cannot be read is named, and hides no other.

mod text;
mod view;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use vigia_crds::{Model, ModelVersion, NodePlan, TraceProfile, TrainingRun};

use crate::args::{Format, Status};
use crate::error::Failure;
use crate::say::{self, Out};
use view::Overview;

/// Objects asked for at once.
const PAGE: u32 = 500;
/// Pages of one kind that are read: ten thousand objects are a cluster of the size that Kubernetes is made for.
const PAGES: usize = 20;
/// How much is said of why an object cannot be read.
const WHY: usize = 200;
/// Reason of an alert's Event.
const ALERT: &str = "SyscallAnomaly";

/// Objects of one kind, or why they cannot be seen.
type Seen<K> = Result<Listed<K>, String>;

/// Objects of one kind.
struct Listed<K> {
    objects: Vec<K>,
    /// Those that cannot be read: which, and why.
    unreadable: Vec<String>,
}

impl<K> Listed<K> {
    const fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.unreadable.is_empty()
    }
}

/// Everything that is looked at.
struct Cluster {
    models: Seen<Model>,
    versions: Seen<ModelVersion>,
    profiles: Seen<TraceProfile>,
    runs: Seen<TrainingRun>,
    nodes: Seen<NodePlan>,
    alerts: Seen<Event>,
}

/// Asks the cluster, and says what it says.
pub fn run(args: &Status) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::input)?;
    let overview = Overview::of(&runtime.block_on(ask(args))?);
    match args.format {
        Format::Json => say::json(&overview),
        Format::Text => overview.lines().iter().for_each(|line| Out::Stdout.line(line)),
    }
    Ok(0)
}

async fn ask(args: &Status) -> Result<Cluster, Failure> {
    // Somebody else may have installed one in this process, which is then as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.map_err(|error| {
        Failure::input(format!("no cluster to ask: {error}"))
            .next("set KUBECONFIG, or kubectl config use-context")
    })?;
    let namespace = args.namespace.as_deref();
    let models = list(namespaced(&client, namespace), "").await;
    if let Err(Asked::Unreachable(error)) = &models {
        return Err(Failure::input(format!("the API server cannot be asked: {error}"))
            .next("see whether kubectl get nodes works"));
    }
    if let Err(Asked::NotInstalled) = &models {
        return Err(Failure::input("this cluster has no kind Model of vigia.dev")
            .next("install Vigía: helm install vigia charts/vigia -n vigia-system --create-namespace"));
    }
    if let (Some(name), Ok(listed)) = (namespace, &models)
        && listed.is_empty()
        && is_missing(&client, name).await
    {
        return Err(Failure::input(format!("the cluster has no namespace {name}"))
            .next("kubectl get namespaces lists those that there are"));
    }
    let alerts = format!("reason={ALERT}");
    Ok(Cluster {
        models: seen(models),
        versions: seen(list(namespaced(&client, namespace), "").await),
        profiles: seen(list(namespaced(&client, namespace), "").await),
        runs: seen(list(namespaced(&client, namespace), "").await),
        nodes: seen(list(Api::all(client.clone()), "").await),
        alerts: seen(list(namespaced(&client, namespace), &alerts).await),
    })
}

/// Whether a namespace is not there. Who may not ask is told nothing of it.
async fn is_missing(client: &Client, namespace: &str) -> bool {
    let api: Api<Namespace> = Api::all(client.clone());
    matches!(api.get_metadata_opt(namespace).await, Ok(None))
}

fn namespaced<K>(client: &Client, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Why a list is not there.
enum Asked {
    /// The API server has no such kind.
    NotInstalled,
    /// It says no, or something else.
    Refused(String),
    /// It says nothing.
    Unreachable(String),
}

async fn list<K>(api: Api<DeserializeGuard<K>>, fields: &str) -> Result<Listed<K>, Asked>
where
    K: Clone + DeserializeOwned + std::fmt::Debug + Resource,
{
    let mut params = ListParams::default().limit(PAGE).fields(fields);
    let mut all = Listed {
        objects: Vec::new(),
        unreadable: Vec::new(),
    };
    for _ in 0..PAGES {
        let page = api.list(&params).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => Asked::NotInstalled,
            kube::Error::Api(status) => Asked::Refused(status.message),
            kube::Error::SerdeError(error) => Asked::Refused(error.to_string()),
            other => Asked::Unreachable(other.to_string()),
        })?;
        for item in page.items {
            let name = item.name_any();
            let name = item
                .namespace()
                .map_or_else(|| name.clone(), |of| format!("{of}/{name}"));
            match item.0 {
                Ok(object) => all.objects.push(object),
                Err(invalid) => {
                    let why: String = invalid.error.chars().take(WHY).collect();
                    all.unreadable.push(format!("{name}: {why}"));
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(all)
}

fn seen<K>(asked: Result<Listed<K>, Asked>) -> Seen<K> {
    asked.map_err(|why| match why {
        Asked::NotInstalled => "the cluster has no such kind".to_owned(),
        Asked::Refused(why) | Asked::Unreachable(why) => why,
    })
}
