//! The gate before both services: who calls is known before a byte of what it says is read.
//!
//! A call's headers come first. From them alone the caller is identified, and its place taken: a caller has few
//! calls under way, and few reports are decoded at once, however many connections there are. What a stranger
//! sends is never decoded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::accounts::Identity;
use super::auth::Authenticator;
use super::metrics::IngestMetrics;
use super::server::Peer;

/// Calls of one caller at once; an agent has one report and a few artifacts under way.
const CALLS: usize = 8;
/// Reports that are read and decoded at once.
const DECODING: usize = 32;
/// A report that is not answered after this is given up: its caller sends too slowly, or the store is stuck.
const REPORT_TIME: Duration = Duration::from_secs(60);

/// The gate.
pub struct Gate {
    auth: Arc<Authenticator>,
    metrics: IngestMetrics,
    callers: Arc<Callers>,
    decoding: Arc<Semaphore>,
}

/// Calls under way, by caller.
#[derive(Default)]
struct Callers(Mutex<HashMap<String, usize>>);

/// A caller's place, given back when it is dropped.
struct Place {
    callers: Arc<Callers>,
    caller: String,
}

impl Callers {
    fn enter(self: &Arc<Self>, caller: &str) -> Option<Place> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = callers.entry(caller.to_owned()).or_insert(0);
        if *calls >= CALLS {
            return None;
        }
        *calls += 1;
        Some(Place {
            callers: self.clone(),
            caller: caller.to_owned(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.callers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = callers.get_mut(&self.caller) {
            *calls -= 1;
            if *calls == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

/// The right to decode a report, held until what was decoded is counted.
#[derive(Clone)]
pub(super) struct Decoding {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// A method, by what it is called in metrics.
fn method(path: &str) -> Option<&'static str> {
    let methods = ["Report", "Fetch", "Plan", "Shard", "Holdout", "Submit", "Trace"];
    let name = path
        .strip_prefix("/vigia.v1.Node/")
        .or_else(|| path.strip_prefix("/vigia.v1.Training/"))?;
    methods.into_iter().find(|method| *method == name)
}

impl Gate {
    /// A gate that asks `auth`.
    pub fn new(auth: Arc<Authenticator>, metrics: IngestMetrics) -> Arc<Self> {
        Arc::new(Self {
            auth,
            metrics,
            callers: Arc::default(),
            decoding: Arc::new(Semaphore::new(DECODING)),
        })
    }

    /// Who calls, where it may call this.
    async fn identify(&self, head: &Parts) -> Result<Identity, Status> {
        let peer: Option<IpAddr> = head.extensions.get::<Peer>().map(|peer| peer.0);
        let identity = self.auth.identify(&head.headers, peer).await?;
        if head.uri.path().starts_with("/vigia.v1.Node/") {
            identity.agent()?;
        } else {
            identity.trainer()?;
        }
        Ok(identity)
    }

    async fn pass(&self, request: Request, next: Next) -> Result<Response, Status> {
        let (mut head, body) = request.into_parts();
        let identity = self.identify(&head).await?;
        let _place = self
            .callers
            .enter(identity.key())
            .ok_or_else(|| Status::resource_exhausted("too many calls at once; wait for the answers"))?;
        head.extensions.insert(identity);
        if !head.uri.path().ends_with("/Report") {
            return Ok(next.run(Request::from_parts(head, body)).await);
        }
        let answered = tokio::time::timeout(REPORT_TIME, async {
            let permit = self
                .decoding
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| Status::unavailable("the operator is ending"))?;
            head.extensions.insert(Decoding {
                _permit: Arc::new(permit),
            });
            Ok(next.run(Request::from_parts(head, body)).await)
        });
        answered.await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the report took too long; send it again",
            ))
        })
    }
}

/// Lets a call through, or answers it here.
pub(super) async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let Some(method) = method(request.uri().path()) else {
        return Status::unimplemented("there is no such method").into_http();
    };
    match gate.pass(request, next).await {
        Ok(answer) => answer,
        Err(refused) => {
            gate.metrics.answered::<()>(method, &Err(refused.clone()));
            refused.into_http()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_calls_and_no_other_callers_places() {
        let callers: Arc<Callers> = Arc::default();
        let places: Vec<_> = (0..CALLS).filter_map(|_| callers.enter("n1")).collect();
        assert_eq!(places.len(), CALLS);
        assert!(callers.enter("n1").is_none());
        assert!(callers.enter("n2").is_some());
        drop(places);
        assert!(callers.0.lock().unwrap().is_empty());
    }
}
