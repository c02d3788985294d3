//! Getting a version's bytes: from the cache, else from the operator, again and again.
//!
//! A connection that fails is tried again for as long as the version is wanted. Bytes that do not hold are not: after
//! a few tries the version is refused, because what a store has under a digest does not mend by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use vigia_crds::Task;
use vigia_model::keys::TrustedKeys;

use super::desired::{Model, Version};
use super::models::cache::{Cache, CacheError};
use super::models::load::{Loaded, Pinned, load, refusal};
use super::models::shelf::{Refusal, VersionKey};
use super::report::client::{Operator, OperatorError};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Times that wrong bytes may come before a version is refused.
const TRIES: u32 = 3;

/// A version that was obtained, or why not.
pub type Obtained = (VersionKey, Result<Arc<Loaded>, Refusal>);

/// Fetches versions beside the engine.
pub struct Fetcher {
    cache: Arc<Cache>,
    pinned: Pinned,
    operator: Operator,
    done: mpsc::Sender<Obtained>,
    running: BTreeMap<VersionKey, AbortHandle>,
}

impl Fetcher {
    /// A fetcher that tells `done` how it went.
    #[must_use]
    pub fn new(cache: Arc<Cache>, pinned: Pinned, operator: Operator, done: mpsc::Sender<Obtained>) -> Self {
        Self {
            cache,
            pinned,
            operator,
            done,
            running: BTreeMap::new(),
        }
    }

    /// Obtains a version: at once where the bytes are here, which is what makes a rollback and a restart need no
    /// network; else none is given, and `done` is told later.
    pub fn obtain(
        &mut self,
        key: &VersionKey,
        version: &Version,
        model: &Model,
    ) -> Option<Result<Arc<Loaded>, Refusal>> {
        self.forget(key);
        let trusted = match self.pinned.admit(&model.keys) {
            Ok(trusted) => trusted,
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Some(bytes) = self.cache.get(&version.digest, version.size) {
            return Some(load(&bytes, &version.digest, &trusted, model.task));
        }
        let job = Job {
            cache: self.cache.clone(),
            operator: self.operator.clone(),
            version: version.clone(),
            trusted,
            task: model.task,
        };
        let (key, done) = (key.clone(), self.done.clone());
        let task = tokio::spawn({
            let key = key.clone();
            async move {
                let result = job.run().await;
                // The receiver is gone when the agent ends.
                let _ = done.send((key, result)).await;
            }
        });
        self.running.insert(key, task.abort_handle());
        None
    }

    /// Ceases to fetch a version.
    pub fn forget(&mut self, key: &VersionKey) {
        if let Some(task) = self.running.remove(key) {
            task.abort();
        }
    }
}

struct Job {
    cache: Arc<Cache>,
    operator: Operator,
    version: Version,
    trusted: TrustedKeys,
    task: Task,
}

impl Job {
    async fn run(mut self) -> Result<Arc<Loaded>, Refusal> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        loop {
            let wrong = match self.operator.fetch(&self.version.digest, self.version.size).await {
                Ok(bytes) => match self.cache.put(&self.version.digest, &bytes) {
                    Ok(()) => return load(&bytes, &self.version.digest, &self.trusted, self.task),
                    Err(CacheError::Io { folder, source }) => {
                        // Scoring matters more than a later rollback without network.
                        tracing::error!(folder, %source, "an artifact cannot be kept; it is used without");
                        return load(&bytes, &self.version.digest, &self.trusted, self.task);
                    }
                    Err(error @ CacheError::NotADigest(_)) => {
                        return Err(refusal("BadDigest", error.to_string()));
                    }
                    Err(error @ CacheError::DigestMismatch { .. }) => {
                        refusal("DigestMismatch", error.to_string())
                    }
                },
                Err(error @ OperatorError::TooLarge(_)) => refusal("TooLarge", error.to_string()),
                Err(error) => {
                    tracing::warn!(digest = self.version.digest, %error, "cannot fetch an artifact; it is tried again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            tries += 1;
            if tries >= TRIES {
                return Err(wrong);
            }
            sleep(pause).await;
        }
    }
}
