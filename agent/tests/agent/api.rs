//! As much of an API server as an agent sees: one NodePlan to list, watch, and write the status of.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use vigia_crds::{NodePlan, NodePlanSpec, NodePlanStatus};

/// Name of the node.
pub const NODE: &str = "node-a";

#[derive(Clone)]
struct Store {
    plan: NodePlan,
    version: u64,
    /// Answers nothing but errors.
    away: bool,
    writes: usize,
}

/// A server on loopback; it ends with the test's runtime.
#[derive(Clone)]
pub struct Api {
    store: Arc<watch::Sender<Store>>,
    pub kubeconfig: PathBuf,
}

type Body = BoxBody<Bytes, Infallible>;

impl Api {
    pub async fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let kubeconfig = folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).expect("written");

        let mut plan = NodePlan::new(NODE, NodePlanSpec::default());
        plan.metadata.uid = Some("uid".to_owned());
        let store = Store {
            plan,
            version: 1,
            away: false,
            writes: 0,
        };
        let api = Self {
            store: Arc::new(watch::Sender::new(store)),
            kubeconfig,
        };
        let shared = api.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let api = shared.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let api = api.clone();
                        async move { Ok::<_, Infallible>(api.answer(request).await) }
                    });
                    // A client may leave at any time.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        api
    }

    /// Writes a spec, as the operator does.
    pub fn plan(&self, spec: NodePlanSpec) {
        self.store.send_modify(|store| {
            store.plan.spec = spec;
            store.version += 1;
            store.plan.metadata.generation = Some(store.plan.metadata.generation.unwrap_or(0) + 1);
        });
    }

    /// Forgets what was said, so that what is said next is news.
    pub fn forget_status(&self) {
        self.store.send_modify(|store| {
            store.plan.status = None;
            store.version += 1;
        });
    }

    pub fn away(&self, away: bool) {
        self.store.send_modify(|store| store.away = away);
    }

    pub fn status(&self) -> NodePlanStatus {
        self.store.borrow().plan.status.clone().unwrap_or_default()
    }

    /// Writes of the status so far.
    pub fn writes(&self) -> usize {
        self.store.borrow().writes
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if self.store.borrow().away {
            return whole(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"kind": "Status", "code": 503}),
            );
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path = request.uri().path().to_owned();
        match *request.method() {
            Method::GET if query.contains("watch=true") => self.watch(&query),
            Method::GET if path.ends_with("/nodeplans") => {
                // Its RBAC allows the agent no other object.
                assert!(query.contains(&format!("metadata.name%3D{NODE}")), "{query}");
                let store = self.store.borrow().clone();
                let list = json!({
                    "apiVersion": "vigia.dev/v1alpha1", "kind": "NodePlanList",
                    "metadata": {"resourceVersion": store.version.to_string()}, "items": [store.object()],
                });
                whole(StatusCode::OK, &list)
            }
            Method::PATCH if path.ends_with(&format!("/nodeplans/{NODE}/status")) => {
                assert!(query.contains("fieldManager=vigia-agent"), "{query}");
                let bytes = request.into_body().collect().await.expect("a body").to_bytes();
                self.write(serde_json::from_slice(&bytes).expect("an object"))
            }
            _ => whole(StatusCode::NOT_FOUND, &json!({"kind": "Status", "code": 404})),
        }
    }

    fn write(&self, patch: Value) -> Response<Body> {
        assert!(patch.get("spec").is_none(), "the spec is the operator's: {patch}");
        let status = serde_json::from_value(patch["status"].clone()).expect("a status");
        self.store.send_modify(|store| {
            store.plan.status = Some(status);
            store.version += 1;
            store.writes += 1;
        });
        whole(StatusCode::OK, &self.store.borrow().object())
    }

    fn watch(&self, query: &str) -> Response<Body> {
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        let mut seen = parameter("resourceVersion").unwrap_or(0);
        let events = WatchStream::new(self.store.subscribe())
            .take_while(|store| std::future::ready(!store.away))
            .filter_map(move |store| {
                let news = store.version > seen;
                seen = seen.max(store.version);
                std::future::ready(news.then(|| json!({"type": "MODIFIED", "object": store.object()})))
            })
            .map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(BodyExt::boxed(StreamBody::new(events)))
    }
}

impl Store {
    fn object(&self) -> Value {
        let mut plan = self.plan.clone();
        plan.metadata.resource_version = Some(self.version.to_string());
        serde_json::to_value(plan).expect("an object")
    }
}

fn whole(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *response.status_mut() = status;
    response
}
