//! What a node may speak of: what its plan names, and what it named of late, since an agent that was cut off delivers
//! then; after a restart of the operator too.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use vigia_crds::{NodePlanSpec, SyscallFilter};
use vigia_model::syscalls::{ALL_CALLS, Filter};

/// What a plan no longer names may still be spoken of for so long: an agent that was cut off delivers then.
pub(super) const GRACE_MS: i64 = 86_400_000;
/// Most versions of models, and profiles, that one node is remembered to have had.
const MAX_NAMED: usize = 4096;

/// What a node may speak of, with the time until which.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    profiles: HashMap<(String, String), i64>,
    /// Filters of profiles that leave out something, with their fingerprints.
    captures: HashMap<(String, String), Arc<(SyscallFilter, String)>>,
    versions: HashMap<(String, String, String), i64>,
}

impl Allowed {
    /// Takes in what the node's plan names now, and forgets what it has not named for long.
    pub fn refresh(&mut self, plan: &NodePlanSpec, now_ms: i64) {
        let until = now_ms.saturating_add(GRACE_MS);
        self.profiles.retain(|_, until| *until > now_ms);
        self.versions.retain(|_, until| *until > now_ms);
        for profile in &plan.profiles {
            if self.profiles.len() < MAX_NAMED {
                let key = (profile.namespace.clone(), profile.name.clone());
                self.filtered(&key, &profile.capture.syscalls);
                self.profiles.insert(key, until);
            }
        }
        self.captures.retain(|key, _| self.profiles.contains_key(key));
        for model in &plan.models {
            for version in &model.versions {
                if self.versions.len() < MAX_NAMED {
                    let key = (
                        model.namespace.clone(),
                        model.name.clone(),
                        version.digest.clone(),
                    );
                    self.versions.insert(key, until);
                }
            }
        }
    }

    /// Reports come often and filters change seldom: a fingerprint is made where one did.
    fn filtered(&mut self, key: &(String, String), filter: &SyscallFilter) {
        if self.captures.get(key).is_some_and(|known| known.0 == *filter) {
            return;
        }
        match Filter::fingerprint(&filter.include, &filter.exclude) {
            Ok(made) if made != ALL_CALLS => {
                self.captures
                    .insert(key.clone(), Arc::new((filter.clone(), made)));
            }
            _ => {
                self.captures.remove(key);
            }
        }
    }

    /// What may still be spoken of although the plan names it no more. All else a plan says again.
    pub fn beyond(&self, plan: &NodePlanSpec, node: &str, now_ms: i64) -> Vec<LateName> {
        let mut named = Self::default();
        named.refresh(plan, now_ms);
        let late = |namespace: &String, name: &String, digest: &str, until_ms: i64| LateName {
            node: node.to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            digest: digest.to_owned(),
            until_ms,
        };
        let profiles = self
            .profiles
            .iter()
            .filter(|(key, _)| !named.profiles.contains_key(*key));
        let versions = self
            .versions
            .iter()
            .filter(|(key, _)| !named.versions.contains_key(*key));
        profiles
            .map(|((namespace, name), until)| late(namespace, name, "", *until))
            .chain(versions.map(|((namespace, name, digest), until)| late(namespace, name, digest, *until)))
            .filter(|late| late.until_ms > now_ms)
            .collect()
    }

    /// Takes in what was named before a restart.
    pub fn recall(&mut self, late: LateName) {
        let LateName {
            namespace,
            name,
            digest,
            until_ms,
            ..
        } = late;
        if self.profiles.len() + self.versions.len() >= MAX_NAMED {
            return;
        }
        let until = if digest.is_empty() {
            self.profiles.entry((namespace, name)).or_insert(until_ms)
        } else {
            self.versions.entry((namespace, name, digest)).or_insert(until_ms)
        };
        *until = until_ms.max(*until);
    }

    /// Whether there is nothing that may be spoken of any more.
    pub fn is_over(&self, now_ms: i64) -> bool {
        let mut until = self.profiles.values().chain(self.versions.values());
        until.all(|until| *until <= now_ms)
    }

    /// Whether it may speak of a profile.
    pub(super) fn profile(&self, namespace: &str, name: &str) -> bool {
        self.profiles
            .contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether its windows of a profile may be made by a filter of this fingerprint: by that which it was told last, or by
    /// none, as an agent has it that was not told yet or that does not say. Each is counted apart, so there must not be as
    /// many as a node can think of.
    pub(super) fn capture(&self, namespace: &str, name: &str, fingerprint: &str) -> bool {
        let planned = || self.captures.get(&(namespace.to_owned(), name.to_owned()));
        fingerprint == ALL_CALLS || planned().is_some_and(|planned| planned.1 == fingerprint)
    }

    /// Whether it may speak of a version of a Model.
    pub(super) fn version(&self, namespace: &str, model: &str, digest: &str) -> bool {
        let key = (namespace.to_owned(), model.to_owned(), digest.to_owned());
        self.versions.contains_key(&key)
    }
}

/// A profile, or a version of a Model, that a node's plan named of late.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LateName {
    /// The node.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Namespace of the profile or Model.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Digest of the version; empty for a profile.
    #[prost(string, tag = "4")]
    pub digest: String,
    /// Until when the node may speak of it.
    #[prost(int64, tag = "5")]
    pub until_ms: i64,
}

/// What outlives a restart of what nodes may speak of.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LateNames {
    /// By node and name.
    #[prost(message, repeated, tag = "1")]
    pub names: Vec<LateName>,
}
