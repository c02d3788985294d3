//! Artifacts on their way to nodes. A version that is rolled out is asked for by every node at once: all of them get
//! parts of one buffer, so many at a time, and one that does not read gives its place up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use vigia_proto::MAX_CHUNK;
use vigia_proto::v1::Chunk;

use super::node::refuse;
use crate::store::{Store, StoreError};

/// Streams at once.
const STREAMS: usize = 128;
/// How long a node waits for its turn before it is told to come again.
const TURN: Duration = Duration::from_secs(20);
/// Time for one stream: the largest artifact, at half a megabyte a second.
const PATIENCE: Duration = Duration::from_secs(128);

/// What a stream is made of.
pub(super) type Chunks = BoxStream<'static, Result<Chunk, Status>>;

/// Why an artifact is not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    /// No stream is free.
    #[error("too many nodes fetch artifacts at once; try again")]
    Busy,
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Unsent> for Status {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Busy => Self::unavailable(unsent.to_string()),
            Unsent::Store(error) => refuse(&error),
        }
    }
}

/// Artifacts that are being sent.
#[derive(Debug)]
pub(super) struct Sending {
    streams: Arc<Semaphore>,
    turn: Duration,
    patience: Duration,
    /// The bytes of each that some stream holds, by digest.
    held: Mutex<HashMap<String, Weak<OnceCell<Bytes>>>>,
}

impl Default for Sending {
    fn default() -> Self {
        Self::new(STREAMS, TURN, PATIENCE)
    }
}

impl Sending {
    fn new(streams: usize, turn: Duration, patience: Duration) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(streams)),
            turn,
            patience,
            held: Mutex::default(),
        }
    }

    /// The artifact as a stream.
    ///
    /// # Errors
    /// The store has no such bytes, or too many streams are on.
    pub async fn stream(&self, store: &Store, digest: &str) -> Result<Chunks, Unsent> {
        let turn = tokio::time::timeout(self.turn, self.streams.clone().acquire_owned());
        let Ok(Ok(permit)) = turn.await else {
            return Err(Unsent::Busy);
        };
        let held = self.hold(digest);
        let bytes = held.get_or_try_init(|| store.get_artifact(digest)).await?;
        let bytes = bytes.clone();
        Ok(send(bytes, (permit, held), self.patience))
    }

    /// The place of an artifact's bytes, which is the same for all that ask while one of them has it.
    fn hold(&self, digest: &str) -> Arc<OnceCell<Bytes>> {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, held| held.strong_count() > 0);
        let there = all.get(digest).and_then(Weak::upgrade);
        there.unwrap_or_else(|| {
            let fresh = Arc::default();
            all.insert(digest.to_owned(), Arc::downgrade(&fresh));
            fresh
        })
    }
}

/// Sends bytes from a task of their own, which holds what they need for as long as it may take.
fn send(bytes: Bytes, held: (OwnedSemaphorePermit, Arc<OnceCell<Bytes>>), patience: Duration) -> Chunks {
    let (to, from) = mpsc::channel(2);
    let whole = Arc::new(AtomicBool::new(false));
    let done = whole.clone();
    tokio::spawn(async move {
        let all = async {
            for part in parts(&bytes) {
                if to.send(Ok(Chunk { data: part })).await.is_err() {
                    return;
                }
            }
            done.store(true, Ordering::Release);
        };
        // Whether it took too long is said by the end of the stream.
        let _ = tokio::time::timeout(patience, all).await;
        drop(held);
    });
    // Else a node would take the part that it got for the whole.
    let end = stream::once(async move {
        let cut = !whole.load(Ordering::Acquire);
        cut.then(|| {
            Err(Status::deadline_exceeded(
                "the artifact was not read in time; fetch it again",
            ))
        })
    });
    ReceiverStream::new(from)
        .chain(end.filter_map(std::future::ready))
        .boxed()
}

fn parts(bytes: &Bytes) -> Vec<Bytes> {
    let starts = (0..bytes.len()).step_by(MAX_CHUNK);
    starts
        .map(|at| bytes.slice(at..bytes.len().min(at + MAX_CHUNK)))
        .collect()
}

/// Bytes as a stream of chunks.
pub(super) fn chunks(bytes: &Bytes) -> Chunks {
    let parts = parts(bytes).into_iter();
    stream::iter(parts.map(|data| Ok(Chunk { data }))).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    async fn store() -> (tempfile::TempDir, Store, String) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).await.unwrap();
        let bytes = Bytes::from(vec![7u8; 5 * MAX_CHUNK + 1]);
        let digest = store.put_artifact(bytes).await.unwrap();
        (folder, store, digest)
    }

    #[tokio::test]
    async fn all_nodes_get_parts_of_one_buffer() {
        let (_folder, store, digest) = store().await;
        let sending = Sending::default();
        let mut streams = vec![];
        for _ in 0..20 {
            streams.push(sending.stream(&store, &digest).await.unwrap());
        }
        let mut first = vec![];
        for stream in &mut streams {
            first.push(stream.next().await.unwrap().unwrap().data);
        }
        assert!(first.iter().all(|data| data.as_ptr() == first[0].as_ptr()));
        for stream in streams {
            let rest: Vec<_> = stream.collect().await;
            let bytes: usize = rest.iter().map(|c| c.as_ref().unwrap().data.len()).sum();
            assert_eq!(bytes, 4 * MAX_CHUNK + 1);
        }
        tokio::time::timeout(Duration::from_secs(30), async {
            while sending.streams.available_permits() < STREAMS {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("every place is given back");
        assert!(sending.hold("other").get().is_none());
        assert_eq!(
            sending.held.lock().unwrap().len(),
            1,
            "what nobody sends is not held"
        );
    }

    #[tokio::test]
    async fn a_node_that_does_not_read_gives_its_place_up() {
        let (_folder, store, digest) = store().await;
        let sending = Sending::new(1, TURN, Duration::from_millis(50));
        let idle = sending.stream(&store, &digest).await.unwrap();
        // The next one waits until the first one's time is over.
        let next = sending.stream(&store, &digest).await.unwrap();
        let read: Vec<_> = next.collect().await;
        assert!(read.iter().all(Result::is_ok) && read.len() == 6);
        let cut: Vec<_> = idle.collect().await;
        let code = cut.last().unwrap().as_ref().unwrap_err().code();
        assert_eq!(
            code,
            tonic::Code::DeadlineExceeded,
            "a part is not taken for the whole"
        );
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_to_come_again() {
        let (_folder, store, digest) = store().await;
        let sending = Sending::new(1, Duration::from_millis(20), PATIENCE);
        let _idle = sending.stream(&store, &digest).await.unwrap();
        let refused = sending.stream(&store, &digest).await.err().unwrap();
        assert_eq!(Status::from(refused).code(), tonic::Code::Unavailable);
    }
}
