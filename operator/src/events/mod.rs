//! What is said to people: Kubernetes Events (events.k8s.io/v1), said once.
//!
//! kube's own recorder tells Events apart by reason alone and keeps the first note, so two
//! different alerts of one pod would be one. Here the caller gives the key. An Event's name is
//! derived from what it regards and its key: what was said before a restart is not said again, and
//! a thing that goes on is one Event with a series. One noisy object cannot fill etcd: each has a
//! budget of new Events, and a series is written at most every ten seconds. What an object has no
//! room for is counted in an Event that says so.
//!
//! The first time of a thing is written before its caller hears that all is well. What a series has
//! come to may wait for ten seconds, which an operator that is told to end does not wait out. One
//! that is killed loses that count, and so does one to which the API server does not answer for
//! five minutes: never an alert, whose Event is there. What was said again while the first time was being written is not
//! counted either where that came to nothing.

mod counted;
mod ledger;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::counted::{counted, listed};
pub(crate) use self::ledger::ONGOING;
use self::ledger::{BURST, Decision, Key, Ledger, SERIES_WRITES, beyond, goes_on};
use crate::apply::FIELD_MANAGER;
use crate::metrics::{Metrics, ReasonLabels};

/// What reports the Events.
const CONTROLLER: &str = "vigia.dev/operator";
/// Longest note that the API server takes.
const NOTE_MAX: usize = 1024;
/// Longest note that is whole also where [`beyond_words`] come before it.
pub(crate) const NOTE_ROOM: usize = NOTE_MAX - 192;
/// What could not be written later is tried again so often: the API server may be away for some minutes.
const LATE_TRIES: usize = 30;

/// Whether an Event is good or bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Things go their way.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Good or bad news.
    pub severity: Severity,
    /// One CamelCase word, such as `RolloutStarted`.
    pub reason: &'static str,
    /// What was done, one CamelCase word.
    pub action: &'static str,
    /// One sentence.
    pub note: String,
    /// What makes it a thing of its own: the same object, reason and key is the same thing.
    pub key: String,
}

/// The way to say it.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
    metrics: Arc<Metrics>,
    ledger: Arc<Mutex<Ledger>>,
    /// The series that are to be written later.
    waiting: TaskTracker,
    /// Cancelled when they may wait no more.
    ending: CancellationToken,
}

impl Events {
    /// `instance` is the pod's name.
    pub fn new(client: Client, instance: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            instance: instance.to_owned(),
            metrics,
            ledger: Arc::default(),
            waiting: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }

    /// Says it, unless it was said before, by this process or one before it.
    ///
    /// # Errors
    /// The API server refused, or could not be reached.
    pub async fn publish(&self, regarding: &ObjectReference, note: &Note) -> kube::Result<()> {
        let now = Timestamp::now();
        let uid = regarding.uid.clone().unwrap_or_default();
        let key = (uid, note.reason, note.key.clone());
        let decision = self.ledger().decide(&key, now);
        if decision != Decision::Suppress {
            return self.carry_out(decision, regarding, note, key, now).await;
        }
        self.metrics.events_suppressed.inc();
        tracing::warn!(
            namespace = regarding.namespace,
            kind = regarding.kind,
            name = regarding.name,
            reason = note.reason,
            note = note.note,
            "Event not published: too many of one object"
        );
        if !goes_on(&key) {
            return Ok(());
        }
        let key = beyond(&key, now);
        let note = Note {
            note: beyond_words(&note.note),
            ..note.clone()
        };
        let decision = self.ledger().count(&key, now);
        self.carry_out(decision, regarding, &note, key, now).await
    }

    async fn carry_out(
        &self,
        decision: Decision,
        regarding: &ObjectReference,
        note: &Note,
        key: Key,
        now: Timestamp,
    ) -> kube::Result<()> {
        let result = match decision {
            Decision::Hold | Decision::Suppress => return Ok(()),
            Decision::Later { after } => {
                let later = self.clone().later(regarding.clone(), note.clone(), key, after);
                self.waiting.spawn(later);
                return Ok(());
            }
            Decision::Create => self.create(regarding, note, &key, now).await,
            Decision::Continue { count } => self.go_on(regarding, note, &key, count, now).await,
        };
        match result {
            Ok(()) => {
                let reason = note.reason.to_owned();
                self.metrics.events.get_or_create(&ReasonLabels { reason }).inc();
                Ok(())
            }
            Err(error) => {
                self.ledger().undo(&key, decision);
                Err(error)
            }
        }
    }

    /// Writes what a series has come to after a while, such that the last times of it are not lost.
    async fn later(self, regarding: ObjectReference, note: Note, key: Key, mut after: SignedDuration) {
        for _ in 0..LATE_TRIES {
            let is_last = tokio::select! {
                () = tokio::time::sleep(after.unsigned_abs()) => false,
                () = self.ending.cancelled() => true,
            };
            let now = Timestamp::now();
            let Some(count) = self.ledger().settle(&key, now) else {
                return;
            };
            match self.go_on(&regarding, &note, &key, count, now).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(reason = note.reason, note = note.note, count, %error, "series of an Event not written");
                }
            }
            if is_last {
                return;
            }
            after = SERIES_WRITES;
        }
    }

    /// Writes what waits, at the process's end; what that takes longer than `patience` for is lost.
    pub async fn finish(&self, patience: Duration) {
        self.ending.cancel();
        self.waiting.close();
        if tokio::time::timeout(patience, self.waiting.wait()).await.is_err() {
            let series = self.waiting.len();
            tracing::warn!(
                series,
                "the last counts of these Events are lost: the API server did not take them in time"
            );
        }
    }

    /// The same, where a thing must go on even if nobody can be told: a failure is a log line.
    pub async fn mention(&self, regarding: &ObjectReference, note: &Note) {
        if let Err(error) = self.publish(regarding, note).await {
            tracing::warn!(reason = note.reason, note = note.note, %error, "Event not published");
        }
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, regarding: &ObjectReference) -> (Api<Event>, String) {
        let namespace = regarding
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        (Api::namespaced(self.client.clone(), &namespace), namespace)
    }

    async fn create(
        &self,
        regarding: &ObjectReference,
        note: &Note,
        key: &Key,
        now: Timestamp,
    ) -> kube::Result<()> {
        let (api, namespace) = self.api(regarding);
        let name = event_name(regarding, key);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            action: Some(note.action.to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(cut(&note.note)),
            reason: Some(note.reason.to_owned()),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(format!("{:?}", note.severity)),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Err(kube::Error::Api(status)) if status.code == 409 && goes_on(key) => {
                // A patch of nothing reads what is there, and the operator needs no right to read all Events.
                let nothing: Patch<&serde_json::Value> = Patch::Merge(&json!({}));
                let there = api.patch(&name, &PatchParams::default(), &nothing).await?;
                let told = there.series.map_or(1, |series| series.count);
                let count = self.ledger().resume(key, told);
                match count {
                    Some(count) => write_series(&api, &name, count, now).await,
                    None => Ok(()),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn go_on(
        &self,
        regarding: &ObjectReference,
        note: &Note,
        key: &Key,
        count: i32,
        now: Timestamp,
    ) -> kube::Result<()> {
        let (api, _) = self.api(regarding);
        match write_series(&api, &event_name(regarding, key), count, now).await {
            // It outlived its time to live: say it anew.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.create(regarding, note, key, now).await
            }
            other => other,
        }
    }
}

async fn write_series(api: &Api<Event>, name: &str, count: i32, now: Timestamp) -> kube::Result<()> {
    let series = EventSeries {
        count,
        last_observed_time: MicroTime(now),
    };
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"series": series}));
    api.patch(name, &params, &patch).await.map(|_| ())
}

fn event_name(regarding: &ObjectReference, (uid, reason, key): &Key) -> String {
    let mut hash = Sha256::new();
    for part in [uid.as_str(), reason, key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hex: String = hash
        .finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    let name = regarding.name.as_deref().unwrap_or("vigia");
    // Names are ASCII: at most 253 characters, of which the hash has 17.
    let kept: String = name.chars().take(230).collect();
    format!("{}.{hex}", kept.trim_end_matches(['.', '-']))
}

/// The words of an Event that counts what an object has no room for.
fn beyond_words(first: &str) -> String {
    format!(
        "more of these than are told one by one ({BURST} at once, then one a minute): this Event counts the others of its \
         ten minutes, of which the first was: {first}"
    )
}

fn cut(note: &str) -> String {
    if note.len() <= NOTE_MAX {
        return note.to_owned();
    }
    let end = (0..=NOTE_MAX - 3)
        .rev()
        .find(|&i| note.is_char_boundary(i))
        .unwrap_or(0);
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uid: &str, key: &str) -> Key {
        (uid.to_owned(), "SyscallAnomaly", key.to_owned())
    }

    #[test]
    fn names_differ_by_every_part_and_are_valid() {
        let pod = ObjectReference {
            name: Some("a".repeat(253)),
            ..ObjectReference::default()
        };
        let name = event_name(&pod, &key("u", "k"));
        assert!(name.len() <= 253 && !name.contains(".."));
        assert_eq!(name, event_name(&pod, &key("u", "k")));
        assert_ne!(name, event_name(&pod, &key("u", "l")));
        assert_ne!(name, event_name(&pod, &key("v", "k")));
        assert!(cut(&"é".repeat(2000)).len() <= NOTE_MAX);
    }

    #[test]
    fn what_is_counted_is_told_whole() {
        let counted = beyond_words(&"x".repeat(NOTE_ROOM));
        assert_eq!(cut(&counted), counted);
    }
}
