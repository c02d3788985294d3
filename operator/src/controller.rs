//! How every controller runs: triggers are gathered, reconciles are bounded, errors back off.
//!
//! The loop itself is kube's `applier`, which never reconciles one object twice at the same time.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::Resource;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::Notify;

use crate::apply;
use crate::context::Context;
use crate::metrics::{ControllerLabels, DurationLabels};

/// A conflict is not an error: the cache has not caught up. It is tried again after this.
const CONFLICT_RETRY: Duration = Duration::from_millis(200);
/// First and longest wait after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write failed.
    #[error(transparent)]
    Write(#[from] apply::Error),
    /// A read or an Event failed.
    #[error("API server: {0}")]
    Api(#[from] Box<kube::Error>),
    /// Something else that may pass.
    #[error("{0}")]
    Other(String),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Objects that should be reconciled. An object that is triggered many times before it is taken is
/// taken once, so it holds at most one entry for each object.
#[derive(Debug)]
pub struct Trigger<K: Resource<DynamicType = ()>> {
    pending: Mutex<HashSet<ObjectRef<K>>>,
    notify: Notify,
}

impl<K: Resource<DynamicType = ()>> Default for Trigger<K> {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            notify: Notify::new(),
        }
    }
}

impl<K: Resource<DynamicType = ()>> Trigger<K> {
    /// Asks for a reconcile of the object in a namespace.
    pub fn namespaced(&self, namespace: &str, name: &str) {
        self.object(ObjectRef::new(name).within(namespace));
    }

    /// Asks for a reconcile of the object of the cluster.
    pub fn cluster(&self, name: &str) {
        self.object(ObjectRef::new(name));
    }

    /// Asks for a reconcile.
    pub fn object(&self, object: ObjectRef<K>) {
        self.lock().insert(object);
        self.notify.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<ObjectRef<K>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is pending, `gather` after the first of it was asked for.
    async fn take(&self, gather: Duration) -> Vec<ObjectRef<K>> {
        loop {
            self.notify.notified().await;
            tokio::time::sleep(gather).await;
            let taken: Vec<_> = self.lock().drain().collect();
            if !taken.is_empty() {
                return taken;
            }
        }
    }

    fn stream(self: Arc<Self>, gather: Duration) -> impl Stream<Item = ObjectRef<K>> + Send
    where
        K: Send + Sync + 'static,
    {
        stream::unfold(self, move |trigger| async move {
            let taken = trigger.take(gather).await;
            Some((stream::iter(taken), trigger))
        })
        .flatten()
    }
}

/// Runs a controller until the context's shutdown; a reconcile under way is finished.
///
/// `reconcile` answers when the object wants to be looked at again, if nothing changes before.
pub async fn run<K, F>(
    name: &'static str,
    context: Arc<Context>,
    store: Store<K>,
    trigger: Arc<Trigger<K>>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F + Send + Sync + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Option<Duration>, Error>> + Send + 'static,
{
    let failures: Arc<Mutex<HashMap<ObjectRef<K>, u32>>> = Arc::default();
    let queue = trigger
        .stream(context.config.debounce())
        .map(Ok::<_, std::convert::Infallible>)
        .take_until(context.shutdown.clone().cancelled_owned());
    let settled = failures.clone();
    let observed = context.clone();
    let reconciler = move |object: Arc<K>, context: Arc<Context>| {
        let started = Instant::now();
        let future = reconcile(object.clone(), context.clone());
        let settled = settled.clone();
        Box::pin(async move {
            // One object that trips over a bug must not stop all others.
            let result = AssertUnwindSafe(future)
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| {
                    let said = panic.downcast_ref::<String>().map(String::as_str);
                    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
                    Err(Error::Other(format!(
                        "a bug: reconcile panicked: {}",
                        said.unwrap_or("without a word")
                    )))
                });
            let label = match &result {
                Ok(_) => "ok",
                Err(Error::Write(apply::Error::Conflict(_))) => "retry",
                Err(_) => "error",
            };
            context
                .metrics
                .reconciles
                .get_or_create(&ControllerLabels {
                    controller: name,
                    result: label,
                })
                .inc();
            context
                .metrics
                .reconcile_seconds
                .get_or_create(&DurationLabels { controller: name })
                .observe(started.elapsed().as_secs_f64());
            if result.is_ok() {
                lock(&settled).remove(&ObjectRef::from_obj(&*object));
            }
            result.map(|again| again.map_or_else(Action::await_change, Action::requeue))
        })
    };
    let error_policy = move |object: Arc<K>, error: &Error, _: Arc<Context>| {
        let object = ObjectRef::from_obj(&*object);
        match error {
            Error::Write(apply::Error::Conflict(_)) => {
                Action::requeue(jitter(CONFLICT_RETRY, rand::random()))
            }
            // A newer object of the same name triggers by itself.
            Error::Write(apply::Error::Gone(_)) => Action::await_change(),
            _ => {
                let mut failures = lock(&failures);
                let attempts = failures.entry(object.clone()).or_insert(0);
                *attempts = attempts.saturating_add(1);
                let wait = jitter(backoff(*attempts), rand::random());
                tracing::warn!(controller = name, %object, %error, attempts = *attempts, ?wait, "reconcile failed; it is tried again");
                Action::requeue(wait)
            }
        }
    };
    controller::applier(
        reconciler,
        error_policy,
        observed.clone(),
        store,
        queue,
        controller::Config::default().concurrency(observed.config.concurrency),
    )
    .for_each(|_| async {})
    .await;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Twice as long after each failure, within [`BACKOFF`].
fn backoff(attempts: u32) -> Duration {
    BACKOFF
        .0
        .saturating_mul(1 << attempts.saturating_sub(1).min(16))
        .min(BACKOFF.1)
}

/// Between half and the whole of a wait, so that what failed together is not tried together.
fn jitter(wait: Duration, random: u16) -> Duration {
    wait.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_crds::NodePlan;

    #[test]
    fn waits_grow_to_a_limit_and_are_spread() {
        assert_eq!(backoff(1), BACKOFF.0);
        assert_eq!(backoff(3), BACKOFF.0 * 4);
        assert_eq!(backoff(u32::MAX), BACKOFF.1);
        assert_eq!(jitter(BACKOFF.1, 0), BACKOFF.1 / 2);
        assert_eq!(jitter(BACKOFF.1, u16::MAX), BACKOFF.1);
    }

    #[tokio::test]
    async fn many_triggers_of_one_object_are_one() {
        let trigger: Arc<Trigger<NodePlan>> = Arc::default();
        for _ in 0..100 {
            trigger.cluster("a");
        }
        trigger.cluster("b");
        let mut taken = trigger.take(Duration::ZERO).await;
        taken.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(taken.len(), 2);
        assert!(trigger.lock().is_empty());
    }
}
