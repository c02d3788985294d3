//! What is said to people: Kubernetes Events (events.k8s.io/v1), said once.
//!
//! kube's own recorder tells Events apart by reason alone and keeps the first note, so two
//! different alerts of one pod would be one. Here the caller gives the key. An Event's name is
//! derived from what it regards and its key: what was said before a restart is not said again, and
//! a thing that goes on is one Event with a series. One noisy object cannot fill etcd: each has a
//! budget of new Events, and a series is written at most every ten seconds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::apply::FIELD_MANAGER;
use crate::metrics::{Metrics, ReasonLabels};

/// What reports the Events.
const CONTROLLER: &str = "vigia.dev/operator";
/// A thing that is not repeated for so long has ended; the next time it is a new Event.
const SERIES_ENDS: SignedDuration = SignedDuration::from_mins(10);
/// A series is written at most so often.
const SERIES_WRITES: SignedDuration = SignedDuration::from_secs(10);
/// New Events of one object: so many at once, and one more in each period after.
const BURST: f64 = 10.0;
const REFILL: SignedDuration = SignedDuration::from_secs(60);
/// Objects and series that are remembered.
const REMEMBERED: usize = 20_000;
/// Longest note that the API server takes.
const NOTE_MAX: usize = 1024;

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
}

impl Events {
    /// `instance` is the pod's name.
    pub fn new(client: Client, instance: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            instance: instance.to_owned(),
            metrics,
            ledger: Arc::default(),
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
        let result = match &decision {
            Decision::Hold => return Ok(()),
            Decision::Suppress => {
                self.metrics.events_suppressed.inc();
                tracing::warn!(
                    reason = note.reason,
                    note = note.note,
                    "Event not published: too many of one object"
                );
                return Ok(());
            }
            Decision::Create { since } => self.create(regarding, note, &key, *since).await,
            Decision::Continue { since, count } => {
                self.go_on(regarding, note, &key, *since, *count, now).await
            }
        };
        match result {
            Ok(()) => {
                let reason = note.reason.to_owned();
                self.metrics.events.get_or_create(&ReasonLabels { reason }).inc();
                Ok(())
            }
            Err(error) => {
                self.ledger().forget(&key);
                Err(error)
            }
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
        since: Option<Timestamp>,
    ) -> kube::Result<()> {
        let (api, namespace) = self.api(regarding);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(regarding, key, since)),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            action: Some(note.action.to_owned()),
            event_time: Some(MicroTime(since.unwrap_or_else(Timestamp::now))),
            note: Some(cut(&note.note)),
            reason: Some(note.reason.to_owned()),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(format!("{:?}", note.severity)),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn go_on(
        &self,
        regarding: &ObjectReference,
        note: &Note,
        key: &Key,
        since: Option<Timestamp>,
        count: i32,
        now: Timestamp,
    ) -> kube::Result<()> {
        let (api, _) = self.api(regarding);
        let series = EventSeries {
            count,
            last_observed_time: MicroTime(now),
        };
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"series": series}));
        match api
            .patch(&event_name(regarding, key, since), &params, &patch)
            .await
        {
            // It outlived its time to live: say it anew.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.create(regarding, note, key, since).await
            }
            other => other.map(|_| ()),
        }
    }
}

/// UID of what it regards, reason, key.
type Key = (String, &'static str, String);

/// Keys that start with this are alerts: they may go on, and begin anew when they have ended.
pub(crate) const ONGOING: &str = "ongoing:";

fn event_name(regarding: &ObjectReference, (uid, reason, key): &Key, since: Option<Timestamp>) -> String {
    let mut hash = Sha256::new();
    for part in [uid.as_str(), reason, key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    if let Some(since) = since {
        hash.update(since.as_millisecond().to_le_bytes());
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

/// What to do with something that is said.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Decision {
    /// It is new. `since` is a part of its name where it may begin anew.
    Create { since: Option<Timestamp> },
    /// It goes on, and is worth a write.
    Continue { since: Option<Timestamp>, count: i32 },
    /// It goes on, but was written a moment ago, or is said for ever.
    Hold,
    /// The object's budget is used up.
    Suppress,
}

#[derive(Debug)]
struct Series {
    since: Option<Timestamp>,
    last: Timestamp,
    written: Timestamp,
    count: i32,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

/// What was said, and how much each object may still say. Pure: time comes from outside.
#[derive(Debug, Default)]
struct Ledger {
    series: HashMap<Key, Series>,
    budgets: BTreeMap<String, Budget>,
}

impl Ledger {
    fn decide(&mut self, key: &Key, now: Timestamp) -> Decision {
        let ongoing = key.2.starts_with(ONGOING);
        if let Some(series) = self.series.get_mut(key) {
            if !ongoing {
                return Decision::Hold;
            }
            if now.duration_since(series.last) < SERIES_ENDS {
                series.count = series.count.saturating_add(1);
                series.last = now;
                if now.duration_since(series.written) < SERIES_WRITES {
                    return Decision::Hold;
                }
                series.written = now;
                return Decision::Continue {
                    since: series.since,
                    count: series.count,
                };
            }
        }
        if !self.spend(&key.0, now) {
            return Decision::Suppress;
        }
        self.make_room(now);
        let since = ongoing.then_some(now);
        self.series.insert(
            key.clone(),
            Series {
                since,
                last: now,
                written: now,
                count: 1,
            },
        );
        Decision::Create { since }
    }

    fn spend(&mut self, uid: &str, now: Timestamp) -> bool {
        let budget = self.budgets.entry(uid.to_owned()).or_insert(Budget {
            tokens: BURST,
            at: now,
        });
        let refill = now.duration_since(budget.at).as_secs_f64() / REFILL.as_secs_f64();
        budget.tokens = (budget.tokens + refill.max(0.0)).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    fn forget(&mut self, key: &Key) {
        self.series.remove(key);
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.series.len() >= REMEMBERED {
            self.series
                .retain(|_, s| now.duration_since(s.last) < SERIES_ENDS);
        }
        if self.series.len() >= REMEMBERED {
            self.series.clear();
        }
        if self.budgets.len() >= REMEMBERED {
            let full = SignedDuration::from_secs(REFILL.as_secs() * BURST as i64);
            self.budgets.retain(|_, b| now.duration_since(b.at) < full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number is a timestamp")
    }

    fn key(uid: &str, key: &str) -> Key {
        (uid.to_owned(), "SyscallAnomaly", key.to_owned())
    }

    #[test]
    fn a_thing_that_happened_is_said_once() {
        let mut ledger = Ledger::default();
        assert_eq!(
            ledger.decide(&key("u", "v1"), at(0)),
            Decision::Create { since: None }
        );
        assert_eq!(ledger.decide(&key("u", "v1"), at(100_000)), Decision::Hold);
        assert_eq!(
            ledger.decide(&key("u", "v2"), at(100_001)),
            Decision::Create { since: None }
        );
    }

    #[test]
    fn a_thing_that_goes_on_is_a_series_and_begins_anew_after_its_end() {
        let mut ledger = Ledger::default();
        let alert = key("u", "ongoing:app");
        let since = Some(at(0));
        assert_eq!(ledger.decide(&alert, at(0)), Decision::Create { since });
        assert_eq!(ledger.decide(&alert, at(2)), Decision::Hold);
        assert_eq!(
            ledger.decide(&alert, at(12)),
            Decision::Continue { since, count: 3 }
        );
        assert_eq!(ledger.decide(&alert, at(14)), Decision::Hold);
        let later = at(14 + SERIES_ENDS.as_secs());
        assert_eq!(
            ledger.decide(&alert, later),
            Decision::Create { since: Some(later) }
        );
    }

    #[test]
    fn one_noisy_object_is_held_back_and_others_are_not() {
        let mut ledger = Ledger::default();
        for i in 0..10 {
            assert!(matches!(
                ledger.decide(&key("noisy", &i.to_string()), at(0)),
                Decision::Create { .. }
            ));
        }
        assert_eq!(ledger.decide(&key("noisy", "11"), at(0)), Decision::Suppress);
        assert!(matches!(
            ledger.decide(&key("quiet", "1"), at(0)),
            Decision::Create { .. }
        ));
        assert!(matches!(
            ledger.decide(&key("noisy", "11"), at(61)),
            Decision::Create { .. }
        ));
        assert_eq!(ledger.decide(&key("noisy", "12"), at(62)), Decision::Suppress);
    }

    #[test]
    fn what_failed_to_be_said_may_be_said_again() {
        let mut ledger = Ledger::default();
        ledger.decide(&key("u", "v1"), at(0));
        ledger.forget(&key("u", "v1"));
        assert_eq!(
            ledger.decide(&key("u", "v1"), at(1)),
            Decision::Create { since: None }
        );
    }

    #[test]
    fn names_differ_by_every_part_and_are_valid() {
        let pod = ObjectReference {
            name: Some("a".repeat(253)),
            ..ObjectReference::default()
        };
        let name = event_name(&pod, &key("u", "k"), None);
        assert!(name.len() <= 253 && !name.contains(".."));
        assert_eq!(name, event_name(&pod, &key("u", "k"), None));
        assert_ne!(name, event_name(&pod, &key("u", "l"), None));
        assert_ne!(name, event_name(&pod, &key("v", "k"), None));
        assert_ne!(name, event_name(&pod, &key("u", "k"), Some(at(1))));
        assert!(cut(&"é".repeat(2000)).len() <= NOTE_MAX);
    }
}
