//! Group commit: what comes within a second is stored by one synced write, and acknowledged after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::validate::Report;
use crate::observed::Observations;
use crate::store::{Mark, Row, Segment, Store, StoreError};

/// A group is written at the latest so long after its first report came …
const WAIT: Duration = Duration::from_millis(1000);
/// … or when its rows take so many bytes of memory …
const HELD: usize = 32 << 20;
/// … or there are so many reports. An agent sends its next batch after the answer to the one before, so 5,000 nodes make groups
/// of at most 5,000.
const REPORTS: usize = 2_000;

/// A report that waits for its group.
struct Pending {
    node: String,
    report: Report,
    reply: oneshot::Sender<Result<u64, Arc<StoreError>>>,
}

/// The way into the store.
#[derive(Clone)]
pub struct Committer(mpsc::Sender<Pending>);

impl Committer {
    /// A committer, and the work that has to run for it: until `shutdown`, and then for what was handed over.
    pub fn new(
        store: Arc<Store>,
        observations: Arc<Observations>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(REPORTS);
        (Self(sender), work(store, observations, receiver, shutdown))
    }

    /// Stores a report; answers with the highest number of its instance that is stored.
    ///
    /// # Errors
    /// It is not stored.
    pub async fn store(&self, node: String, report: Report) -> Result<u64, Arc<StoreError>> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { node, report, reply };
        let ended = || Arc::new(StoreError::Rows("the operator is ending".to_owned()));
        self.0.send(pending).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

async fn work(
    store: Arc<Store>,
    observations: Arc<Observations>,
    mut receiver: mpsc::Receiver<Pending>,
    shutdown: CancellationToken,
) {
    loop {
        let first = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            first = receiver.recv() => first,
        };
        let Some(first) = first else { break };
        let until = Instant::now() + WAIT;
        let mut held = held(&first.report);
        let mut group = vec![first];
        while group.len() < REPORTS && held < HELD {
            let more = tokio::select! {
                biased;
                () = shutdown.cancelled() => None,
                more = tokio::time::timeout_at(until, receiver.recv()) => more.ok().flatten(),
            };
            match more {
                Some(pending) => {
                    held += self::held(&pending.report);
                    group.push(pending);
                }
                None => break,
            }
        }
        commit(&store, &observations, group).await;
    }
    // Who waits for an answer gets one.
    receiver.close();
    let (mut rest, mut held) = (vec![], 0);
    while let Some(pending) = receiver.recv().await {
        held += self::held(&pending.report);
        rest.push(pending);
        if held >= HELD {
            commit(&store, &observations, std::mem::take(&mut rest)).await;
            held = 0;
        }
    }
    if !rest.is_empty() {
        commit(&store, &observations, rest).await;
    }
}

/// Bytes that a report's rows take.
fn held(report: &Report) -> usize {
    report.rows.iter().map(Row::held).sum()
}

async fn commit(store: &Store, observations: &Observations, group: Vec<Pending>) {
    let now = Timestamp::now();
    let mut marks: HashMap<(String, String), u64> = HashMap::new();
    let mut segment = Segment::default();
    let mut replies = vec![];
    for Pending { node, report, reply } in group {
        let key = (node, report.instance);
        let mark = marks
            .entry(key.clone())
            .or_insert_with(|| store.mark(&key.0, &key.1));
        // Sent again, because its answer was lost or is still on its way: it is stored once.
        if report.sequence > *mark {
            *mark = report.sequence;
            segment.rows.extend(report.rows);
            segment.summaries.extend(report.summaries);
        }
        replies.push((*mark, reply));
    }
    segment.marks = marks
        .into_iter()
        .filter(|((node, instance), sequence)| store.mark(node, instance) < *sequence)
        .map(|((node, instance), sequence)| Mark {
            node,
            instance,
            sequence,
            seen_ms: now.as_millisecond(),
        })
        .collect();
    // Sorted, so that the same reports make the same file.
    segment
        .marks
        .sort_by(|a, b| (&a.node, &a.instance).cmp(&(&b.node, &b.instance)));
    let result = if segment.marks.is_empty() {
        Ok(())
    } else {
        let summaries = segment.summaries.clone();
        let stored = store.commit(segment).await;
        if stored.is_ok() {
            for summary in &summaries {
                if observations.has_room_for(&summary.namespace, &summary.model, &summary.digest) {
                    observations.add(summary, now);
                }
            }
        }
        stored
    };
    let result = result.map_err(Arc::new);
    for (mark, reply) in replies {
        // The caller may have gone; then it asks again.
        let _ = reply.send(result.clone().map(|()| mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::allowed::Allowed;
    use crate::ingest::validate::check;
    use crate::ingest::validate::tests::{NOW, batch, plan};
    use crate::store::Options;
    use vigia_model::context::{Context, Gram, MAX_GRAMS, PLACES};

    fn report(sequence: u64) -> Report {
        let mut allowed = Allowed::default();
        allowed.refresh(&plan(), NOW);
        check(batch(sequence), "n1", &allowed, NOW).unwrap()
    }

    async fn open(folder: &std::path::Path, reserve: u64) -> Arc<Store> {
        let options = Options {
            reserve,
            ..Options::default()
        };
        Arc::new(Store::open(folder, options).await.unwrap())
    }

    fn rows(store: &Store) -> u64 {
        store.count("shop", "redis", (i64::MIN, i64::MAX), |_, _| true)
    }

    #[tokio::test]
    async fn a_batch_that_is_sent_again_is_stored_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), 0).await;
        let observations = Arc::new(Observations::default());
        let shutdown = CancellationToken::new();
        let (committer, work) = Committer::new(store.clone(), observations.clone(), shutdown.clone());
        let work = tokio::spawn(work);
        let send = |sequence| {
            let committer = committer.clone();
            async move { committer.store("n1".into(), report(sequence)).await.unwrap() }
        };
        // Together, in one group, and again later, and after a restart.
        assert_eq!(tokio::join!(send(1), send(1), send(2)), (1, 1, 2));
        assert_eq!(rows(&store), 4);
        assert_eq!(send(1).await, 2);
        assert_eq!(rows(&store), 4);
        shutdown.cancel();
        work.await.unwrap();
        drop(committer);
        drop(store);

        let store = open(folder.path(), 0).await;
        let (committer, work) = Committer::new(store.clone(), observations.clone(), CancellationToken::new());
        let work = tokio::spawn(work);
        assert_eq!(committer.store("n1".into(), report(2)).await.unwrap(), 2);
        assert_eq!(committer.store("n1".into(), report(3)).await.unwrap(), 3);
        // Another node with the same instance is another one.
        assert_eq!(committer.store("n2".into(), report(1)).await.unwrap(), 1);
        assert_eq!(rows(&store), 8);
        drop(committer);
        work.await.unwrap();
    }

    #[tokio::test]
    async fn a_group_takes_no_more_memory_than_it_may_however_many_rows_that_are() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), 0).await;
        let (committer, work) = Committer::new(store.clone(), Arc::default(), CancellationToken::new());
        let heavy = |sequence| {
            let mut report = report(sequence);
            let grams = (0..MAX_GRAMS).map(|i| Gram {
                id: Gram::id_of([i % PLACES, i / PLACES]),
                count: 1,
            });
            let mut grams: Vec<Gram> = grams.collect();
            grams.sort_unstable();
            report.rows[0].context = Context::new(grams, vec![]).unwrap();
            report.rows = vec![report.rows[0].clone(); 2000];
            report
        };
        assert!(
            (HELD / 2 + 1..HELD).contains(&held(&heavy(1))),
            "{}",
            held(&heavy(1))
        );
        // All of them are there before the first is looked at.
        let sent = (1..=6).map(|node| {
            let committer = committer.clone();
            async move { committer.store(format!("n{node}"), heavy(1)).await.unwrap() }
        });
        let sent = futures::future::join_all(sent);
        drop(committer);
        assert_eq!(tokio::join!(sent, work).0, [1; 6]);
        let stats = store.stats().unwrap();
        assert_eq!((stats.rows, stats.files), (12_000, 3), "two reports each");
    }

    #[tokio::test]
    async fn nothing_is_acknowledged_on_a_full_volume() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), u64::MAX).await;
        let observations = Arc::new(Observations::default());
        let (committer, work) = Committer::new(store.clone(), observations.clone(), CancellationToken::new());
        let work = tokio::spawn(work);
        let error = committer.store("n1".into(), report(1)).await.unwrap_err();
        assert!(matches!(*error, StoreError::Full(_)), "{error}");
        assert_eq!((store.mark("n1", "a1"), observations.size()), (0, (0, 0)));
        drop(committer);
        work.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_handed_over_is_answered_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), 0).await;
        let shutdown = CancellationToken::new();
        let (committer, work) = Committer::new(store.clone(), Arc::default(), shutdown.clone());
        shutdown.cancel();
        let handed = tokio::spawn({
            let committer = committer.clone();
            async move { committer.store("n1".into(), report(1)).await }
        });
        drop(committer);
        work.await;
        // Stored, or told that it is not: never left without an answer.
        match handed.await.unwrap() {
            Ok(mark) => assert_eq!((mark, rows(&store)), (1, 2)),
            Err(error) => assert!(matches!(*error, StoreError::Rows(_))),
        }
    }
}
