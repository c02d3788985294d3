//! The one door for writes to the API server: server-side apply with one field manager.
//!
//! A write compares first and sends nothing when nothing would change. What is compared is the
//! caller's cached copy: a cache that lags can at worst cause a write that changes nothing, or
//! leave one to the reconcile that the cache's catching up triggers.
//!
//! A status is applied whole and only onto the resource version that it was derived from. So two
//! controllers may each own a part of one status (rollout and drift of a Model) by changing their
//! part of a copy: the slower one gets [`Error::Conflict`] and derives it again.

use std::fmt::Debug;
use std::sync::Arc;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::core::object::HasStatus;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::metrics::{Metrics, WriteLabels};

/// The field manager of every write of the operator.
pub const FIELD_MANAGER: &str = "vigia-operator";

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API server has it now.
    Written,
    /// It had it already; nothing was sent.
    Unchanged,
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object changed since it was read; derive the write again from the newer one.
    #[error("{0} changed since it was read")]
    Conflict(String),
    /// The object is gone.
    #[error("{0} is gone")]
    Gone(String),
    /// The API server refused, or could not be reached.
    #[error("write {what}: {source}")]
    Api {
        /// Kind and name.
        what: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object could not be written as JSON.
    #[error("encode {what}: {source}")]
    Encode {
        /// Kind and name.
        what: String,
        /// The encoder's error.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// What the API server says of an object that it refuses for what it is, whenever it is sent and by whom.
    pub fn invalid(&self) -> Option<&str> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if status.code == 422 => Some(&status.message),
                _ => None,
            },
            _ => None,
        }
    }
}

/// An object's place in the API: how to get an [`Api`] for the namespace that it is in.
pub trait Placed: Resource<DynamicType = ()> + Sized {
    /// The API of the object's kind in its namespace, or of the cluster.
    fn api(client: Client, namespace: Option<&str>) -> Api<Self>;
}

/// Implements [`Placed`] for namespaced kinds.
macro_rules! namespaced {
    ($($kind:ty),+ $(,)?) => {$(
        impl Placed for $kind {
            fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
                in_namespace(client, namespace)
            }
        }
    )+};
}

fn in_namespace<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::default_namespaced(client),
    }
}

namespaced!(
    vigia_crds::TraceProfile,
    vigia_crds::Model,
    vigia_crds::ModelVersion,
    vigia_crds::RetrainingPolicy,
    vigia_crds::TrainingRun,
    k8s_openapi::api::core::v1::ConfigMap,
    k8s_openapi::api::core::v1::Secret,
    k8s_openapi::api::core::v1::Service,
    k8s_openapi::api::batch::v1::Job,
);

impl Placed for vigia_crds::NodePlan {
    fn api(client: Client, _: Option<&str>) -> Api<Self> {
        Api::all(client)
    }
}

/// The door.
#[derive(Clone)]
pub struct Door {
    client: Client,
    metrics: Arc<Metrics>,
}

impl Door {
    /// A door for this client.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics }
    }

    /// Makes the object be as `desired` says, in the fields that it names (its status is left out): its spec is that
    /// and nothing else.
    ///
    /// Nothing is sent when `observed` is so already.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn object<K>(&self, observed: Option<&K>, desired: &K) -> Result<Outcome, Error>
    where
        K: Placed + Clone + Debug + Serialize + DeserializeOwned,
    {
        let what = what(desired);
        let encode = |source| Error::Encode {
            what: what.clone(),
            source,
        };
        let mut body = serde_json::to_value(desired).map_err(encode)?;
        if let Some(fields) = body.as_object_mut() {
            fields.remove("status");
            fields.insert("apiVersion".to_owned(), json!(K::api_version(&())));
            fields.insert("kind".to_owned(), json!(K::kind(&())));
        }
        if let Some(observed) = observed {
            let mut have = serde_json::to_value(observed).map_err(encode)?;
            if let Some(fields) = have.as_object_mut() {
                // Lists of typed objects leave these out.
                fields.insert("apiVersion".to_owned(), body["apiVersion"].clone());
                fields.insert("kind".to_owned(), body["kind"].clone());
            }
            if is_as(&have, &body) {
                return Ok(self.count::<K>(Outcome::Unchanged));
            }
        }
        let api = K::api(self.client.clone(), desired.meta().namespace.as_deref());
        self.sent::<K, _>(
            &what,
            api.patch(&desired.name_any(), &params(), &Patch::Apply(&body))
                .await,
        )
    }

    /// Makes an object that is not there yet; never changes one that is.
    ///
    /// # Errors
    /// [`Error::Conflict`] where there is one of this name, whosever it is, and [`Error`]'s others.
    pub async fn create<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Placed + Clone + Debug + Serialize + DeserializeOwned,
    {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let api = K::api(self.client.clone(), object.meta().namespace.as_deref());
        let answer = api.create(&params, object).await;
        self.sent::<K, _>(&what(object), answer).map(|_| ())
    }

    /// Makes the status be `status`, as long as the object is the one that was `observed`.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the object changed in between, and [`Error`]'s others.
    pub async fn status<K>(&self, observed: &K, status: K::Status) -> Result<Outcome, Error>
    where
        K: Placed + HasStatus + Clone + Debug + DeserializeOwned,
        K::Status: Serialize + PartialEq,
    {
        let what = what(observed);
        if observed.status() == Some(&status) {
            return Ok(self.count::<K>(Outcome::Unchanged));
        }
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {
                "name": observed.name_any(),
                "namespace": observed.meta().namespace,
                "uid": observed.meta().uid,
                "resourceVersion": observed.meta().resource_version,
            },
            "status": serde_json::to_value(&status).map_err(|source| Error::Encode {
                what: what.clone(),
                source,
            })?,
        });
        let api = K::api(self.client.clone(), observed.meta().namespace.as_deref());
        self.sent::<K, _>(
            &what,
            api.patch_status(&observed.name_any(), &params(), &Patch::Apply(&body))
                .await,
        )
    }

    /// Adds a finalizer to the object as it was `observed`, or takes it away.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the object changed in between, and [`Error`]'s others.
    pub async fn finalizer<K>(&self, observed: &K, name: &str, present: bool) -> Result<Outcome, Error>
    where
        K: Placed + Clone + Debug + DeserializeOwned,
    {
        let mut finalizers = observed.finalizers().to_vec();
        if finalizers.iter().any(|f| f == name) == present {
            return Ok(self.count::<K>(Outcome::Unchanged));
        }
        if present {
            finalizers.push(name.to_owned());
        } else {
            finalizers.retain(|f| f != name);
        }
        // A merge patch, not an apply: the object's other fields may be owned by this manager too,
        // and an apply that left them out would take them away.
        let body = json!({"metadata": {
            "finalizers": finalizers,
            "uid": observed.meta().uid,
            "resourceVersion": observed.meta().resource_version,
        }});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = K::api(self.client.clone(), observed.meta().namespace.as_deref());
        self.sent::<K, _>(
            &what(observed),
            api.patch(&observed.name_any(), &params, &Patch::Merge(&body))
                .await,
        )
    }

    /// Deletes the object that was `observed`, if it is still there; its dependents go too.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub async fn delete<K>(&self, observed: &K) -> Result<Outcome, Error>
    where
        K: Placed + Clone + Debug + DeserializeOwned,
    {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: observed.meta().uid.clone().map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = K::api(self.client.clone(), observed.meta().namespace.as_deref());
        match self.sent::<K, _>(&what(observed), api.delete(&observed.name_any(), &params).await) {
            // 404: gone already. 409: another object has the name by now.
            Err(Error::Gone(_) | Error::Conflict(_)) => Ok(Outcome::Unchanged),
            other => other,
        }
    }

    fn sent<K: Placed, T>(&self, what: &str, answer: kube::Result<T>) -> Result<Outcome, Error> {
        match answer {
            Ok(_) => Ok(self.count::<K>(Outcome::Written)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.note::<K>("conflict");
                Err(Error::Conflict(what.to_owned()))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.note::<K>("gone");
                Err(Error::Gone(what.to_owned()))
            }
            Err(source) => {
                self.note::<K>("error");
                Err(Error::Api {
                    what: what.to_owned(),
                    source: Box::new(source),
                })
            }
        }
    }

    fn count<K: Placed>(&self, outcome: Outcome) -> Outcome {
        self.note::<K>(match outcome {
            Outcome::Written => "written",
            Outcome::Unchanged => "unchanged",
        });
        outcome
    }

    fn note<K: Placed>(&self, result: &'static str) {
        self.metrics
            .writes
            .get_or_create(&WriteLabels {
                kind: K::kind(&()).into_owned(),
                result,
            })
            .inc();
    }
}

fn params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

fn what<K: Placed>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{} {namespace}/{}", K::kind(&()), object.name_any()),
        None => format!("{} {}", K::kind(&()), object.name_any()),
    }
}

/// Whether `have` is as `want` says: of the spec nothing else, of the other fields what it names.
fn is_as(have: &Value, want: &Value) -> bool {
    let fields = want.as_object().into_iter().flatten();
    fields.into_iter().all(|(name, want)| match have.get(name) {
        Some(have) => covers(have, want) && (name != "spec" || covers(want, have)),
        None => is_empty(want),
    })
}

/// Whether `have` has every field that `want` names, with the same value. Lists match item by item.
fn covers(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => want.iter().all(|(key, want)| match have.get(key) {
            Some(have) => covers(have, want),
            None => is_empty(want),
        }),
        (Value::Array(have), Value::Array(want)) => {
            have.len() == want.len() && have.iter().zip(want).all(|(have, want)| covers(have, want))
        }
        (have, want) => have == want,
    }
}

/// Null, or a list or map of nothing: an API server need not keep it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spec_names_no_more_is_a_change() {
        let have =
            json!({"metadata": {"name": "n", "uid": "u"}, "spec": {"a": 1, "b": []}, "status": {"s": 1}});
        for (want, is) in [
            (json!({"metadata": {"name": "n"}, "spec": {"a": 1}}), true),
            (
                json!({"metadata": {"name": "n"}, "spec": {"a": 1, "b": {"c": [1]}}}),
                false,
            ),
            (json!({"metadata": {"name": "n"}, "spec": {"b": null}}), false),
            (json!({"metadata": {"name": "m"}, "spec": {"a": 1}}), false),
            (
                json!({"metadata": {"name": "n"}, "spec": {"a": 1}, "data": {}}),
                true,
            ),
            (
                json!({"metadata": {"name": "n"}, "spec": {"a": 1}, "data": {"d": 1}}),
                false,
            ),
        ] {
            assert_eq!(is_as(&have, &want), is, "{want}");
        }
    }

    #[test]
    fn an_object_covers_what_it_has_beside_defaults() {
        let have = json!({"spec": {"a": 1, "defaulted": true, "list": [{"x": 1, "y": 2}]}});
        assert!(covers(&have, &json!({"spec": {"a": 1, "list": [{"x": 1}]}})));
        assert!(covers(&have, &json!({"spec": {"none": null, "empty": []}})));
        assert!(!covers(&have, &json!({"spec": {"a": 2}})));
        assert!(!covers(&have, &json!({"spec": {"b": 1}})));
        assert!(!covers(&have, &json!({"spec": {"list": []}})));
        assert!(!covers(&have, &json!({"spec": {"list": [{"x": 1}, {"x": 2}]}})));
    }
}
