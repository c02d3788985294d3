//! Delivers what waits: one batch at a time, again until the operator has stored it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::client::Operator;
use super::queue::{Findings, Limits, Queue};
use crate::node::metrics::Metrics;

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
}

struct Waiting {
    queue: Queue,
    lost_calls: u64,
}

impl Outbox {
    /// An empty one; without an alert, batches are gathered for `interval`.
    #[must_use]
    pub fn new(instance: String, limits: Limits, interval: Duration) -> Self {
        Self {
            queue: Mutex::new(Waiting {
                queue: Queue::new(instance, limits),
                lost_calls: 0,
            }),
            urgent: Notify::new(),
            ending: watch::Sender::new(false),
            empty: Notify::new(),
            interval,
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

    /// Sends what waits now, for at most `patience`.
    pub async fn finish(&self, patience: Duration) {
        self.ending.send_replace(true);
        self.urgent.notify_one();
        let drained = async {
            while !self.with(|waiting| waiting.queue.is_empty()) {
                self.empty.notified().await;
            }
        };
        if timeout(patience, drained).await.is_err() {
            let left = self.with(|waiting| waiting.queue.len());
            tracing::warn!(
                batches = left,
                "the operator could not be told everything before the end"
            );
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
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                self.tell(&metrics);
            }
            self.empty.notify_one();
            if *self.ending.borrow() {
                return;
            }
        }
    }

    fn tell(&self, metrics: &Metrics) {
        let (waiting, dropped) = self.with(|waiting| (waiting.queue.len(), waiting.queue.dropped()));
        metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        metrics.dropped.set(i64::try_from(dropped).unwrap_or(i64::MAX));
    }

    fn front(&self) -> Option<vigia_proto::v1::ReportBatch> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        self.with(|waiting| waiting.queue.front(now_ms, waiting.lost_calls).cloned())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        // A queue is whole between any two of its calls, so a poisoned lock hides nothing.
        act(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
