//! Objects that the API server has and this operator cannot read: said once, counted, and in the way of nothing else.
//!
//! What passes the API server's validation and not ours is such a one, as is what a former version of the API let in.
//! It stays as it was last read, or unseen; it can be corrected and it can go.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use crate::context::Context;
use crate::events::{Note, Severity};

/// Events that are written at once. More objects than that at one time are in the log alone: whoever writes ten thousand
/// wrong objects gets no ten thousand Events.
const TELLING: usize = 8;
/// How much of the reason is said.
const WHY: usize = 200;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Debug)]
struct Entry {
    uid: Option<String>,
    /// It was in the list that is under way, or in the last one.
    listed: bool,
}

/// Kind, namespace, name.
type Key = (String, Option<String>, String);

/// Which ones.
#[derive(Debug)]
pub struct Unreadable {
    known: Mutex<BTreeMap<Key, Entry>>,
    counts: Family<KindLabels, Gauge>,
    telling: Arc<Semaphore>,
}

impl Default for Unreadable {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            counts: Family::default(),
            telling: Arc::new(Semaphore::new(TELLING)),
        }
    }
}

impl Unreadable {
    /// Puts the count of each kind into the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "objects_unreadable",
            "Objects that the operator cannot read and leaves out",
            self.counts.clone(),
        );
    }

    /// Names of a kind in a namespace.
    pub fn names(&self, kind: &str, namespace: &str) -> Vec<String> {
        let known = self.lock();
        let here = known
            .keys()
            .filter(|(k, n, _)| k == kind && n.as_deref() == Some(namespace));
        here.map(|(.., name)| name.clone()).collect()
    }

    /// UIDs of a kind.
    pub fn uids(&self, kind: &str) -> Vec<String> {
        let known = self.lock();
        let of_kind = known.iter().filter(|((k, ..), _)| k == kind);
        of_kind.filter_map(|(_, entry)| entry.uid.clone()).collect()
    }

    /// Takes an event in; gives the object that cannot be read, where that is news.
    pub(super) fn heed<'e, K>(&self, event: &'e Event<DeserializeGuard<K>>) -> Option<&'e InvalidObject>
    where
        K: Resource<DynamicType = ()>,
    {
        let kind = K::kind(&()).into_owned();
        let mut known = self.lock();
        let news = match event {
            Event::Init => {
                let of_kind = known.iter_mut().filter(|((k, ..), _)| *k == kind);
                of_kind.for_each(|(_, entry)| entry.listed = false);
                None
            }
            Event::InitDone => {
                known.retain(|(k, ..), entry| *k != kind || entry.listed);
                None
            }
            Event::Delete(object) => {
                known.remove(&key(&kind, object.meta()));
                None
            }
            Event::Apply(object) | Event::InitApply(object) => match &object.0 {
                Ok(object) => {
                    // Of most clusters there is none, and nothing to look for.
                    if !known.is_empty() {
                        known.remove(&key(&kind, object.meta()));
                    }
                    None
                }
                Err(invalid) => {
                    let entry = Entry {
                        uid: invalid.metadata.uid.clone(),
                        listed: true,
                    };
                    let uid = entry.uid.clone();
                    let former = known.insert(key(&kind, &invalid.metadata), entry);
                    former.is_none_or(|former| former.uid != uid).then_some(invalid)
                }
            },
        };
        let count = known.keys().filter(|(k, ..)| *k == kind).count();
        self.counts
            .get_or_create(&KindLabels { kind })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        news
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(kind: &str, metadata: &ObjectMeta) -> Key {
    let name = metadata.name.clone().unwrap_or_default();
    (kind.to_owned(), metadata.namespace.clone(), name)
}

/// The object of an event that cannot be read: it came, changed or went.
pub(super) fn of<K>(event: &Event<DeserializeGuard<K>>) -> Option<&InvalidObject> {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => object.0.as_ref().err(),
        Event::Init | Event::InitDone => None,
    }
}

/// The event with its object, where that can be read; what a list cannot read is in it as it was last read, or it would
/// count as deleted.
pub(super) fn readable<K>(event: Event<DeserializeGuard<K>>, reader: &Store<K>) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let former = |invalid: InvalidObject| {
        let mut key = ObjectRef::<K>::new(invalid.metadata.name.as_deref()?);
        key.namespace = invalid.metadata.namespace;
        reader.get(&key).map(|old| (*old).clone())
    };
    match event {
        Event::Apply(object) => object.0.ok().map(Event::Apply),
        Event::InitApply(object) => object
            .0
            .or_else(|i| former(i).ok_or(()))
            .ok()
            .map(Event::InitApply),
        Event::Delete(object) => object.0.or_else(|i| former(i).ok_or(())).ok().map(Event::Delete),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

/// Says which object cannot be read and why: in the log, and to whoever looks at the object.
pub(super) fn tell<K>(context: &Arc<Context>, invalid: &InvalidObject)
where
    K: Resource<DynamicType = ()> + Debug,
{
    let (kind, metadata) = (K::kind(&()), &invalid.metadata);
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let why: String = invalid.error.chars().take(WHY).collect();
    tracing::warn!(
        %kind, namespace, name, why,
        "an object cannot be read and is left out, or stays as it was last read: correct it, or delete it"
    );
    let Ok(permit) = context.unreadable.telling.clone().try_acquire_owned() else {
        return;
    };
    let note = Note {
        severity: Severity::Warning,
        reason: "Unreadable",
        action: "Read",
        note: format!(
            "the operator cannot read this object and leaves it out, or as it last was: {why}: correct it, or delete it"
        ),
        key: String::new(),
    };
    let regarding = k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(kind.into_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        ..Default::default()
    };
    let context = context.clone();
    tokio::spawn(async move {
        context.events.mention(&regarding, &note).await;
        drop(permit);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::reflector;
    use serde_json::json;
    use vigia_crds::TrainingRun;

    const FAR: &str = "9999-12-31T23:59:59Z";

    fn run(name: &str, since: &str) -> DeserializeGuard<TrainingRun> {
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"modelRef": {"name": "m"}, "data": {"since": since}},
        }))
        .expect("metadata at least")
    }

    #[test]
    fn what_cannot_be_read_hides_nothing_else_and_can_go() {
        let (reader, mut writer) = reflector::store();
        let good = readable(Event::Apply(run("a", "2026-01-01T00:00:00Z")), &reader).expect("readable");
        writer.apply_watcher_event(&good);
        for event in [
            Event::Apply(run("a", FAR)),
            Event::InitApply(run("b", FAR)),
            Event::Delete(run("b", FAR)),
        ] {
            assert!(readable(event, &reader).is_none());
        }
        assert_eq!(reader.len(), 1, "as it was last read");
        let listed = readable(Event::InitApply(run("a", FAR)), &reader);
        assert!(
            matches!(listed, Some(Event::InitApply(_))),
            "a list that has it does not delete it"
        );
        let gone = readable(Event::Delete(run("a", FAR)), &reader).expect("what is known of it goes");
        writer.apply_watcher_event(&gone);
        assert!(reader.is_empty());
    }

    #[test]
    fn it_is_said_once_until_it_can_be_read_or_is_gone() {
        let unreadable = Unreadable::default();
        let news = |event| unreadable.heed(&event).is_some();
        assert!(news(Event::Apply(run("a", FAR))));
        assert!(!news(Event::Apply(run("a", FAR))), "each change of it is no news");
        assert!(!news(Event::Init) && !news(Event::InitApply(run("a", FAR))) && !news(Event::InitDone));
        assert_eq!(unreadable.names("TrainingRun", "shop"), ["a"]);
        assert_eq!(unreadable.uids("TrainingRun"), ["a"]);
        assert!(unreadable.names("TrainingRun", "other").is_empty() && unreadable.uids("Model").is_empty());
        // Deleted while nobody watched.
        assert!(!news(Event::Init) && !news(Event::InitDone));
        assert!(unreadable.uids("TrainingRun").is_empty());
        assert!(news(Event::Apply(run("a", FAR))));
        assert!(!news(Event::Apply(run("a", "2026-01-01T00:00:00Z"))));
        assert!(news(Event::Apply(run("a", FAR))), "it is news again");
        assert!(!news(Event::Delete(run("a", FAR))));
        assert!(unreadable.uids("TrainingRun").is_empty());
    }
}
