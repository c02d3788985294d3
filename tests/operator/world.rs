//! One API server, its nodes with their agents, and an operator that can be killed.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use http::{HeaderName, HeaderValue};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vigia_crds::{Model, ModelVersion, NodePlan, PlannedVersion, TraceProfile, VersionMode};
use vigia_e2e::ApiServer;
use vigia_operator::config::Config;
use vigia_operator::context::Context;
use vigia_operator::run;

use crate::agent::{FakeAgent, Habits, Line};
use crate::objects;

/// How long anything may take. The machine may be busy with others' builds.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The operator's service account.
const OPERATOR: &str = "system:serviceaccount:vigia-system:vigia-operator";

/// A client with the rights of a user.
async fn impersonate(server: &ApiServer, user: &str) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(server.kubeconfig())?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    config.headers.push((
        HeaderName::from_static("impersonate-user"),
        HeaderValue::from_str(user)?,
    ));
    Ok(Client::try_from(config)?)
}

/// All of it.
pub struct World {
    pub client: Client,
    pub habits: Arc<Mutex<Habits>>,
    operator: Client,
    line: Line,
    tasks: JoinSet<()>,
    _agents: Vec<FakeAgent>,
    flags: Vec<String>,
    store: tempfile::TempDir,
    /// Port of the operator's gRPC server; the same after a restart.
    port: u16,
    _server: ApiServer,
}

impl World {
    /// A cluster of these nodes with a running operator.
    pub async fn new(nodes: &[&str]) -> Result<Self> {
        Self::with(nodes, &[]).await
    }

    /// The same, with an operator that is told more.
    pub async fn with(nodes: &[&str], flags: &[&str]) -> Result<Self> {
        // A second test of the process finds the provider installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (server, client) = vigia_tests::server().await?;
        objects::namespace(&client, objects::SYSTEM).await?;
        // The operator has the chart's rights, and no others.
        for object in vigia_tests::helm_template(&[])? {
            if object.types.as_ref().is_some_and(|t| t.kind.contains("Role")) {
                vigia_tests::apply(&client, &object).await?;
            }
        }
        let operator = impersonate(&server, OPERATOR).await?;
        let line = Line::default();
        let habits: Arc<Mutex<Habits>> = Arc::default();
        let mut agents = Vec::new();
        for node in nodes {
            objects::node(&client, node).await?;
            agents.push(FakeAgent::start(
                client.clone(),
                node,
                line.clone(),
                habits.clone(),
            ));
        }
        let mut world = Self {
            client,
            operator,
            habits,
            line,
            tasks: JoinSet::new(),
            _agents: agents,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            store: tempfile::tempdir()?,
            port: std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            _server: server,
        };
        world.start().await?;
        Ok(world)
    }

    /// Starts an operator on what a former one left.
    pub async fn start(&mut self) -> Result<()> {
        let store = self.store.path().display().to_string();
        let grpc = format!("127.0.0.1:{}", self.port);
        let flags = [
            "vigia-operator",
            "--store",
            &store,
            "--grpc-listen",
            &grpc,
            "--debounce-ms",
            "10",
        ];
        let more = self.flags.iter().map(String::as_str);
        let config = Config::try_parse_from(flags.into_iter().chain(more))?;
        let shutdown = CancellationToken::new();
        let (context, writers) = run::assemble(
            config,
            self.operator.clone(),
            Arc::default(),
            Arc::default(),
            shutdown,
        )
        .await?;
        self.tasks = run::start(&context, writers).await?;
        *self.line.write().expect("no panic") = Some(context);
        Ok(())
    }

    /// Ends the operator where it stands, between whichever two writes.
    pub async fn kill(&mut self) {
        let context = self.line.write().expect("no panic").take();
        self.tasks.shutdown().await;
        if let Some(context) = context {
            context.shutdown.cancel();
        }
    }

    /// Ends the operator as SIGTERM does.
    pub async fn end(&mut self) {
        let context = self.line.write().expect("no panic").take();
        if let Some(context) = context {
            run::end(&context, &mut self.tasks, true).await;
        }
    }

    /// The volume is lost: the next operator finds nothing on it.
    pub fn empty_store(&mut self) -> Result<()> {
        self.store = tempfile::tempdir()?;
        Ok(())
    }

    /// One byte of an artifact on the volume is another one, under the running operator.
    pub fn damage(&self, digest: &str) -> Result<()> {
        let hex = digest.strip_prefix("sha256:").context("a digest")?;
        let path = self.store.path().join("blobs/sha256").join(hex);
        let mut bytes = std::fs::read(&path)?;
        *bytes.last_mut().context("an artifact")? ^= 1;
        Ok(std::fs::write(path, bytes)?)
    }

    /// Address of the operator's gRPC server.
    pub fn grpc(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The running operator.
    pub fn operator(&self) -> Arc<Context> {
        self.line
            .read()
            .expect("no panic")
            .clone()
            .expect("the operator runs")
    }

    pub async fn model(&self, namespace: &str, name: &str) -> Result<Model> {
        Ok(Api::namespaced(self.client.clone(), namespace).get(name).await?)
    }

    pub async fn version(&self, namespace: &str, name: &str) -> Result<ModelVersion> {
        Ok(Api::namespaced(self.client.clone(), namespace).get(name).await?)
    }

    pub async fn profile(&self, namespace: &str, name: &str) -> Result<TraceProfile> {
        Ok(Api::namespaced(self.client.clone(), namespace).get(name).await?)
    }

    pub async fn plan(&self, node: &str) -> Result<NodePlan> {
        Ok(Api::all(self.client.clone()).get(node).await?)
    }

    /// What a node is told of a Model.
    pub async fn planned(&self, node: &str, model: &str) -> Result<Vec<PlannedVersion>> {
        let plan = self.plan(node).await?;
        let models = plan.spec.models.into_iter();
        Ok(models
            .filter(|m| m.name == model)
            .flat_map(|m| m.versions)
            .collect())
    }

    /// The name of the version that a node is told to serve.
    pub async fn active(&self, node: &str, model: &str) -> Result<Option<String>> {
        let versions = self.planned(node, model).await?;
        let active = versions.into_iter().find(|v| v.mode == VersionMode::Active);
        Ok(active.map(|v| v.name))
    }

    pub async fn merge<K>(&self, namespace: &str, name: &str, patch: Value) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// Notes of the Events of a reason about an object.
    pub async fn events(&self, namespace: &str, about: &str, reason: &str) -> Result<Vec<String>> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let events = api.list(&ListParams::default()).await?;
        let matching = events.into_iter().filter(|e| {
            e.reason.as_deref() == Some(reason)
                && e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(about)
        });
        Ok(matching.filter_map(|e| e.note).collect())
    }

    /// Resource versions of all that the operator writes.
    pub async fn writes(&self, namespace: &str) -> Result<Vec<(String, Option<String>)>> {
        let client = || self.client.clone();
        let list = ListParams::default();
        let mut all = Vec::new();
        let plans: Api<NodePlan> = Api::all(client());
        all.extend(
            plans
                .list(&list)
                .await?
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        let models: Api<Model> = Api::namespaced(client(), namespace);
        all.extend(
            models
                .list(&list)
                .await?
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        let versions: Api<ModelVersion> = Api::namespaced(client(), namespace);
        all.extend(
            versions
                .list(&list)
                .await?
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        let profiles: Api<TraceProfile> = Api::namespaced(client(), namespace);
        all.extend(
            profiles
                .list(&list)
                .await?
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        Ok(all)
    }
}

/// Waits until `check` gives a value; says at the deadline what it said last.
pub async fn eventually<T, F>(what: &str, mut check: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<std::result::Result<T, String>>>,
{
    let deadline = Instant::now() + DEADLINE;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut last = String::new();
    while Instant::now() < deadline {
        tick.tick().await;
        match check().await.with_context(|| what.to_owned())? {
            Ok(value) => return Ok(value),
            Err(why) => last = why,
        }
    }
    bail!("not within {DEADLINE:?}: {what}; last: {last}")
}
