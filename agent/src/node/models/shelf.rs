//! Which versions the node holds, which one serves, and what to do next: pure.
//!
//! The swap is one assignment between two windows. A version serves only once its bytes are verified; until then,
//! and if they are refused, the one that serves goes on as long as the plan lists it. What the plan does not
//! list is not used: that is how a version is revoked.

use std::collections::BTreeMap;

use vigia_crds::{VersionMode, VersionState};

use crate::node::desired::{Key, Model, Version};

/// A version of a Model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionKey {
    /// The Model.
    pub model: Key,
    /// Digest of the artifact.
    pub digest: String,
}

/// Why a version is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// How far a version is; `M` is what scores.
#[derive(Debug, Clone)]
pub enum Held<M> {
    /// Being fetched.
    Fetching,
    /// Verified and ready to score.
    Ready(M),
    /// Not used, and not tried again.
    Refused(Refusal),
}

/// What a verification rested on: when the plan says otherwise, it no longer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    task: vigia_crds::Task,
    keys: Vec<String>,
}

impl Basis {
    fn of(model: &Model) -> Self {
        let mut keys = model.keys.clone();
        keys.sort_unstable();
        Self {
            task: model.task,
            keys,
        }
    }
}

/// What to do to hold what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read the artifact from the cache or fetch it, verify it, and say how that went.
    Obtain(VersionKey, Version),
    /// It is no longer wanted.
    Forget(VersionKey),
}

/// The versions of all Models.
#[derive(Debug)]
pub struct Shelf<M> {
    held: BTreeMap<VersionKey, (Basis, Held<M>)>,
    serving: BTreeMap<Key, String>,
}

impl<M> Shelf<M> {
    /// An empty shelf; `serving` is what served before a restart.
    #[must_use]
    pub fn new(serving: BTreeMap<Key, String>) -> Self {
        Self {
            held: BTreeMap::new(),
            serving,
        }
    }

    /// What is to be done for these Models, noted as begun.
    pub fn want(&mut self, models: &BTreeMap<Key, Model>) -> Vec<Step> {
        let listed = |key: &VersionKey| {
            models
                .get(&key.model)
                .is_some_and(|m| m.version(&key.digest).is_some())
        };
        let mut steps: Vec<Step> = self
            .held
            .keys()
            .filter(|key| !listed(key))
            .cloned()
            .map(Step::Forget)
            .collect();
        self.held.retain(|key, _| listed(key));
        for (name, model) in models {
            let basis = Basis::of(model);
            for version in &model.versions {
                let key = VersionKey {
                    model: name.clone(),
                    digest: version.digest.clone(),
                };
                if self
                    .held
                    .get(&key)
                    .is_none_or(|(rested_on, _)| *rested_on != basis)
                {
                    steps.push(Step::Obtain(key.clone(), version.clone()));
                    self.held.insert(key, (basis.clone(), Held::Fetching));
                }
            }
        }
        steps
    }

    /// How obtaining a version went. One that is no longer wanted is dropped.
    pub fn obtained(&mut self, key: &VersionKey, result: Result<M, Refusal>) {
        if let Some((_, held)) = self.held.get_mut(key) {
            *held = match result {
                Ok(model) => Held::Ready(model),
                Err(refusal) => Held::Refused(refusal),
            };
        }
    }

    /// Swaps to what should serve, as far as it can. True where something changed.
    pub fn swap(&mut self, models: &BTreeMap<Key, Model>) -> bool {
        let next: BTreeMap<Key, String> = models
            .iter()
            .filter_map(|(name, model)| {
                let active = model.versions.iter().find(|v| v.mode == VersionMode::Active);
                let wanted = active
                    .map(|v| &v.digest)
                    .filter(|digest| self.ready(name, digest).is_some());
                // Still being read after a restart is not a reason to forget what served.
                let former = self
                    .serving
                    .get(name)
                    .filter(|digest| self.usable(name, digest, active.is_some()));
                wanted.or(former).map(|digest| (name.clone(), digest.clone()))
            })
            .collect();
        let changed = next != self.serving;
        self.serving = next;
        changed
    }

    /// Whether what served may go on: the plan wants something Active, and lists it.
    fn usable(&self, model: &Key, digest: &str, wants_active: bool) -> bool {
        wants_active && matches!(self.get(model, digest), Some(Held::Ready(_) | Held::Fetching))
    }

    fn get(&self, model: &Key, digest: &str) -> Option<&Held<M>> {
        let key = VersionKey {
            model: model.clone(),
            digest: digest.to_owned(),
        };
        self.held.get(&key).map(|(_, held)| held)
    }

    fn ready(&self, model: &Key, digest: &str) -> Option<&M> {
        match self.get(model, digest) {
            Some(Held::Ready(ready)) => Some(ready),
            _ => None,
        }
    }

    /// What serves for a Model.
    #[must_use]
    pub fn active(&self, model: &Key) -> Option<&M> {
        self.ready(model, self.serving.get(model)?)
    }

    /// What scores beside it.
    #[must_use]
    pub fn shadow(&self, name: &Key, model: &Model) -> Option<&M> {
        let shadow = model
            .versions
            .iter()
            .find(|version| version.mode == VersionMode::Shadow)?;
        let serves = self.serving.get(name) == Some(&shadow.digest);
        self.ready(name, &shadow.digest).filter(|_| !serves)
    }

    /// Digest of what serves, by Model: what a restart needs to know.
    #[must_use]
    pub fn serving(&self) -> &BTreeMap<Key, String> {
        &self.serving
    }

    /// How far a version is, and why it was refused.
    #[must_use]
    pub fn state(&self, name: &Key, version: &Version) -> (VersionState, Option<&Refusal>) {
        match self.get(name, &version.digest) {
            None | Some(Held::Fetching) => (VersionState::Fetching, None),
            Some(Held::Refused(refusal)) => (VersionState::Refused, Some(refusal)),
            Some(Held::Ready(_)) if self.serving.get(name) == Some(&version.digest) => {
                (VersionState::Active, None)
            }
            Some(Held::Ready(_)) if version.mode == VersionMode::Shadow => (VersionState::Shadow, None),
            Some(Held::Ready(_)) => (VersionState::Prefetched, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VersionMode::{Active, Prefetch, Shadow};
    use proptest::prelude::*;

    fn name() -> Key {
        Key {
            namespace: "shop".to_owned(),
            name: "m".to_owned(),
        }
    }

    fn version(digest: &str, mode: VersionMode) -> Version {
        Version {
            digest: digest.to_owned(),
            size: 1,
            mode,
            traceparent: None,
        }
    }

    fn models(versions: &[(&str, VersionMode)], keys: &[&str]) -> BTreeMap<Key, Model> {
        let model = Model {
            task: vigia_crds::Task::Anomaly,
            versions: versions
                .iter()
                .map(|(digest, mode)| version(digest, *mode))
                .collect(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        BTreeMap::from([(name(), model)])
    }

    fn key(digest: &str) -> VersionKey {
        VersionKey {
            model: name(),
            digest: digest.to_owned(),
        }
    }

    fn refusal() -> Refusal {
        Refusal {
            reason: "SignatureInvalid".to_owned(),
            message: "bad".to_owned(),
        }
    }

    fn obtain(
        shelf: &mut Shelf<&'static str>,
        wanted: &BTreeMap<Key, Model>,
        ready: &[&'static str],
    ) -> Vec<Step> {
        let steps = shelf.want(wanted);
        for digest in ready {
            shelf.obtained(&key(digest), Ok(digest));
        }
        shelf.swap(wanted);
        steps
    }

    #[test]
    fn a_version_serves_once_it_is_ready_and_not_before() {
        let mut shelf = Shelf::new(BTreeMap::new());
        let one = models(&[("one", Active)], &[]);
        assert_eq!(obtain(&mut shelf, &one, &[]).len(), 1);
        assert_eq!(shelf.active(&name()), None);
        assert_eq!(obtain(&mut shelf, &one, &["one"]), []);
        assert_eq!(shelf.active(&name()), Some(&"one"));

        // The new one is named Active, but its bytes are still on their way.
        let two = models(&[("one", Prefetch), ("two", Active)], &[]);
        obtain(&mut shelf, &two, &[]);
        assert_eq!(shelf.active(&name()), Some(&"one"));
        assert_eq!(
            shelf.state(&name(), &version("two", Active)).0,
            VersionState::Fetching
        );
        assert_eq!(
            shelf.state(&name(), &version("one", Prefetch)).0,
            VersionState::Active
        );
        obtain(&mut shelf, &two, &["two"]);
        assert_eq!(shelf.active(&name()), Some(&"two"));
        assert_eq!(
            shelf.state(&name(), &version("one", Prefetch)).0,
            VersionState::Prefetched
        );
    }

    #[test]
    fn a_refused_version_never_serves_and_the_former_goes_on() {
        let mut shelf = Shelf::new(BTreeMap::new());
        obtain(&mut shelf, &models(&[("one", Active)], &[]), &["one"]);
        let two = models(&[("one", Prefetch), ("two", Active)], &[]);
        shelf.want(&two);
        shelf.obtained(&key("two"), Err(refusal()));
        shelf.swap(&two);
        assert_eq!(shelf.active(&name()), Some(&"one"));
        let two_version = version("two", Active);
        let (state, why) = shelf.state(&name(), &two_version);
        assert_eq!((state, why), (VersionState::Refused, Some(&refusal())));
        assert_eq!(shelf.want(&two), [], "it is not tried again");
    }

    #[test]
    fn a_rollback_needs_nothing_but_what_is_held() {
        let mut shelf = Shelf::new(BTreeMap::new());
        obtain(&mut shelf, &models(&[("one", Active)], &[]), &["one"]);
        obtain(
            &mut shelf,
            &models(&[("one", Prefetch), ("two", Active)], &[]),
            &["two"],
        );
        let back = models(&[("one", Active), ("two", Prefetch)], &[]);
        assert_eq!(obtain(&mut shelf, &back, &[]), []);
        assert_eq!(shelf.active(&name()), Some(&"one"));
    }

    #[test]
    fn what_the_plan_does_not_list_is_not_used() {
        let mut shelf = Shelf::new(BTreeMap::new());
        obtain(&mut shelf, &models(&[("one", Active)], &[]), &["one"]);
        let steps = obtain(&mut shelf, &models(&[("two", Active)], &[]), &[]);
        assert!(steps.contains(&Step::Forget(key("one"))));
        assert_eq!(shelf.active(&name()), None);
        // Nothing Active is wanted: nothing serves, although it is held.
        obtain(&mut shelf, &models(&[("two", Active)], &[]), &["two"]);
        obtain(&mut shelf, &models(&[("two", Prefetch)], &[]), &[]);
        assert_eq!(shelf.active(&name()), None);
    }

    #[test]
    fn a_shadow_scores_beside_the_active_one() {
        let mut shelf = Shelf::new(BTreeMap::new());
        let wanted = models(&[("one", Active), ("two", Shadow)], &[]);
        obtain(&mut shelf, &wanted, &["one", "two"]);
        assert_eq!(shelf.active(&name()), Some(&"one"));
        assert_eq!(shelf.shadow(&name(), &wanted[&name()]), Some(&"two"));
        assert_eq!(
            shelf.state(&name(), &version("two", Shadow)).0,
            VersionState::Shadow
        );
    }

    #[test]
    fn other_keys_mean_another_verification() {
        let mut shelf = Shelf::new(BTreeMap::new());
        obtain(&mut shelf, &models(&[("one", Active)], &["k1", "k2"]), &["one"]);
        assert_eq!(
            obtain(&mut shelf, &models(&[("one", Active)], &["k2", "k1"]), &[]),
            []
        );
        let steps = obtain(&mut shelf, &models(&[("one", Active)], &["k2"]), &[]);
        assert_eq!(steps.len(), 1);
        assert_eq!(shelf.active(&name()), None, "not by the old verification");
    }

    #[test]
    fn after_a_restart_in_a_swap_the_former_one_goes_on() {
        let mut shelf = Shelf::new(BTreeMap::from([(name(), "one".to_owned())]));
        let two = models(&[("one", Prefetch), ("two", Active)], &[]);
        obtain(&mut shelf, &two, &[]);
        obtain(&mut shelf, &two, &["one"]);
        assert_eq!(shelf.active(&name()), Some(&"one"));
        obtain(&mut shelf, &two, &["two"]);
        assert_eq!(shelf.active(&name()), Some(&"two"));
    }

    proptest! {
        #[test]
        fn what_serves_is_always_listed_and_verified(
            plans in proptest::collection::vec((0usize..4, 0usize..4, any::<u8>()), 1..30)
        ) {
            const DIGESTS: [&str; 4] = ["a", "b", "c", "d"];
            let mut shelf = Shelf::new(BTreeMap::new());
            let mut good: std::collections::BTreeSet<&str> = std::collections::BTreeSet::new();
            for (active, other, how) in plans {
                let mut versions = vec![(DIGESTS[active], Active)];
                if other != active {
                    versions.push((DIGESTS[other], if how & 1 == 0 { Prefetch } else { Shadow }));
                }
                let wanted = models(&versions, &[]);
                for step in shelf.want(&wanted) {
                    match step {
                        Step::Forget(key) => { good.remove(key.digest.as_str()); }
                        Step::Obtain(key, _) => {
                            let digest = DIGESTS.iter().find(|d| **d == key.digest).expect("one of four");
                            match how >> 1 & 3 {
                                0 => shelf.obtained(&key, Err(refusal())),
                                1 => {}
                                _ => { shelf.obtained(&key, Ok(*digest)); good.insert(digest); }
                            }
                        }
                    }
                }
                shelf.swap(&wanted);
                if let Some(serving) = shelf.active(&name()) {
                    prop_assert!(good.contains(serving));
                    prop_assert!(versions.iter().any(|(digest, _)| digest == serving));
                }
                if good.contains(DIGESTS[active]) {
                    prop_assert_eq!(shelf.active(&name()), Some(&DIGESTS[active]));
                }
            }
        }
    }
}
