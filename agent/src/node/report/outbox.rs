//! Delivers what waits: one batch at a time, again until the operator has stored it.
//!
//! While it cannot, alerts are kept on disk too, and at an orderly end everything: the agent's next life delivers them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use vigia_proto::v1::ReportBatch;

use super::client::Operator;
use super::queue::{Findings, Limits, Queue};
use crate::node::metrics::Metrics;
use crate::node::state::State;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What waits for the operator, shared between who fills it and who empties it.
pub struct Outbox {
    queue: Mutex<Waiting>,
    /// An alert waits, or the agent ends: no reason to gather more.
    urgent: Notify,
    ending: watch::Sender<bool>,
    empty: Notify,
    interval: Duration,
    state: State,
    writing: tokio::sync::Mutex<()>,
}

struct Waiting {
    queue: Queue,
    lost_calls: u64,
    /// The queue's revision that the file is of; `None` where there is no file.
    on_disk: Option<u64>,
}

impl Outbox {
    /// One with what a former life left in `state`; without an alert, batches are gathered for `interval`.
    #[must_use]
    pub fn new(instance: String, limits: Limits, interval: Duration, state: State) -> Self {
        let mut queue = Queue::new(instance, limits);
        let left = state.reports();
        if !left.is_empty() {
            tracing::info!(batches = left.len(), "taking up reports of a former life");
        }
        let there = !left.is_empty();
        queue.restore(left);
        let on_disk = there.then(|| queue.revision());
        Self {
            queue: Mutex::new(Waiting {
                queue,
                lost_calls: 0,
                on_disk,
            }),
            urgent: Notify::new(),
            ending: watch::Sender::new(false),
            empty: Notify::new(),
            interval,
            state,
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Takes in what a drain gave.
    pub fn push(&self, findings: Findings, lost_calls: u64) {
        let urgent = !findings.alerts.is_empty();
        self.with(|waiting| {
            waiting.queue.push(findings);
            waiting.lost_calls = lost_calls;
        });
        if urgent {
            self.urgent.notify_one();
        }
    }

    /// Sends what waits now, for at most `patience`; what is left is kept for the next life.
    pub async fn finish(&self, patience: Duration) {
        self.ending.send_replace(true);
        self.urgent.notify_one();
        let drained = async {
            while !self.with(|waiting| waiting.queue.is_empty()) {
                self.empty.notified().await;
            }
        };
        if timeout(patience, drained).await.is_err() {
            let left = self.with(|waiting| {
                waiting.queue.seal(now_ms(), waiting.lost_calls);
                waiting.queue.len()
            });
            tracing::warn!(
                batches = left,
                "the operator could not be told everything before the end; the rest is kept for the next start"
            );
            self.keep().await;
        }
    }

    /// Makes the file that the next life reads say what should outlive this one.
    async fn keep(&self) {
        // The delivery and the end may both come here: the later one writes what is newer.
        let _writing = self.writing.lock().await;
        let wanted = self.with(|waiting| {
            let kept = waiting.queue.kept();
            let wanted = (!kept.is_empty()).then(|| waiting.queue.revision());
            (waiting.on_disk != wanted).then_some((kept, wanted))
        });
        let Some((kept, wanted)) = wanted else { return };
        let state = self.state.clone();
        match tokio::task::spawn_blocking(move || state.keep_reports(&kept)).await {
            Ok(Ok(())) => self.with(|waiting| waiting.on_disk = wanted),
            Ok(Err(error)) => tracing::warn!(%error, "reports cannot be kept for a restart"),
            Err(error) => tracing::warn!(%error, "the writer of reports did not end"),
        }
    }

    /// Delivers until the process ends.
    pub async fn deliver(self: Arc<Self>, mut operator: Operator, metrics: Arc<Metrics>) {
        let mut pause = FIRST_PAUSE;
        let mut next = Instant::now() + self.interval;
        loop {
            if !*self.ending.borrow() {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    () = self.urgent.notified() => {}
                }
            }
            next = Instant::now() + self.interval;
            while let Some(batch) = self.front() {
                let sequence = batch.sequence;
                match operator.report(batch).await {
                    Ok(answer) => {
                        pause = FIRST_PAUSE;
                        // An operator that has heard less than this batch has not stored it.
                        self.with(|waiting| waiting.queue.acknowledge(answer.sequence.min(sequence)));
                        if answer.sequence < sequence {
                            tracing::warn!(
                                sequence,
                                stored = answer.sequence,
                                "the operator has not stored a batch"
                            );
                            sleep(pause).await;
                        }
                    }
                    Err(error) if error.is_final() => {
                        tracing::error!(%error, sequence, "the operator will never take this batch; it is given up");
                        self.with(|waiting| waiting.queue.give_up(sequence));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot report; it is tried again");
                        metrics.report_errors.inc();
                        self.keep().await;
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                self.tell(&metrics);
            }
            self.keep().await;
            self.empty.notify_one();
            if *self.ending.borrow() {
                return;
            }
        }
    }

    fn tell(&self, metrics: &Metrics) {
        let (waiting, dropped, samples) = self.with(|waiting| {
            let queue = &waiting.queue;
            (queue.len(), queue.dropped(), queue.dropped_samples())
        });
        metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        metrics.dropped.set(i64::try_from(dropped).unwrap_or(i64::MAX));
        metrics
            .dropped_samples
            .set(i64::try_from(samples).unwrap_or(i64::MAX));
    }

    fn front(&self) -> Option<ReportBatch> {
        self.with(|waiting| waiting.queue.front(now_ms(), waiting.lost_calls).cloned())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        // A queue is whole between any two of its calls, so a poisoned lock hides nothing.
        act(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
