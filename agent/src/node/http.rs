//! `/metrics`, `/healthz` and `/readyz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::metrics::Metrics;

/// The loop must have turned this recently.
const ALIVE: Duration = Duration::from_secs(60);
/// Connections at once.
const CONNECTIONS: usize = 16;
/// A request's head must have come by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the probes of the kubelet ask about.
#[derive(Debug)]
pub struct Health {
    start: Instant,
    turned_ms: AtomicU64,
    ready: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            turned_ms: AtomicU64::new(0),
            ready: AtomicBool::new(false),
        }
    }
}

impl Health {
    /// The loop has turned once more.
    pub fn turned(&self) {
        self.turned_ms.store(self.now_ms(), Ordering::Relaxed);
        self.ready.store(true, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn alive(&self) -> bool {
        let ago = self
            .now_ms()
            .saturating_sub(self.turned_ms.load(Ordering::Relaxed));
        Duration::from_millis(ago) < ALIVE
    }
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, health: Arc<Health>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (metrics, health) = (metrics.clone(), health.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &metrics, &health));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    metrics: &Metrics,
    health: &Health,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics.text(),
        ),
        (&Method::GET, "/healthz") if health.alive() => (StatusCode::OK, plain, "ok\n".to_owned()),
        (&Method::GET, "/healthz") => (
            StatusCode::SERVICE_UNAVAILABLE,
            plain,
            "the agent's loop has not turned for a minute\n".to_owned(),
        ),
        (&Method::GET, "/readyz") if health.ready.load(Ordering::Relaxed) => {
            (StatusCode::OK, plain, "ok\n".to_owned())
        }
        (&Method::GET, "/readyz") => (StatusCode::SERVICE_UNAVAILABLE, plain, "starting\n".to_owned()),
        _ => (
            StatusCode::NOT_FOUND,
            plain,
            "there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        kind.parse().expect("a constant that is a header value"),
    );
    Ok(response)
}
