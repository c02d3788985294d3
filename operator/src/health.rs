//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Ready means leader with full caches: the gRPC Service routes by readiness, and only the leader
//! may take reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Whether the operator may be given work.
#[derive(Debug, Default)]
pub struct Health {
    leader: AtomicBool,
    serving: AtomicBool,
}

impl Health {
    /// This process holds the Lease.
    pub fn set_leader(&self, leader: bool) {
        self.leader.store(leader, Ordering::Release);
    }

    /// Caches are full and the gRPC server listens.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Release);
    }

    /// Why it is not ready, or nothing.
    pub fn not_ready(&self) -> Option<&'static str> {
        if !self.leader.load(Ordering::Acquire) {
            Some("not the leader")
        } else if !self.serving.load(Ordering::Acquire) {
            Some("caches are being filled")
        } else {
            None
        }
    }
}

/// Serves until `shutdown`.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(health)
        .route("/metrics", get(text))
        .with_state(metrics);
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.not_ready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        metrics.text(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_the_lease_and_full_caches() {
        let health = Health::default();
        assert!(health.not_ready().is_some());
        health.set_serving(true);
        assert_eq!(health.not_ready(), Some("not the leader"));
        health.set_leader(true);
        assert_eq!(health.not_ready(), None);
        health.set_serving(false);
        assert!(health.not_ready().is_some());
    }
}
