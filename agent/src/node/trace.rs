//! How long it took until a version did what the plan says of it, where its rollout is traced: pure.
//!
//! From the plan that says so to the swap that does it, or to the refusal. A plan that a restart finds on disk was carried
//! out before, or is carried out by a life that does not know when it began: nothing is told of it.

use std::collections::BTreeMap;

use vigia_crds::{VersionMode, VersionState};
use vigia_proto::v1::{self, VersionSpan};

use super::desired::{Key, Model, Version};
use super::models::shelf::{Refusal, VersionKey};

/// What is to be told of a version.
#[derive(Debug)]
struct Awaited {
    traceparent: String,
    mode: VersionMode,
    since_us: i64,
    is_told: bool,
}

/// The versions of rollouts that are traced.
#[derive(Debug, Default)]
pub struct Trace {
    awaited: BTreeMap<VersionKey, Awaited>,
}

impl Trace {
    /// Takes a plan's models. What `is_known` already is not told.
    pub fn plan(&mut self, models: &BTreeMap<Key, Model>, is_known: bool, now_us: i64) {
        let mut next = BTreeMap::new();
        for (name, model) in models {
            for version in &model.versions {
                let Some(traceparent) = &version.traceparent else {
                    continue;
                };
                let key = VersionKey {
                    model: name.clone(),
                    digest: version.digest.clone(),
                };
                let former = self.awaited.remove(&key);
                let same = former.filter(|a| a.traceparent == *traceparent && a.mode == version.mode);
                let awaited = same.unwrap_or_else(|| Awaited {
                    traceparent: traceparent.clone(),
                    mode: version.mode,
                    since_us: now_us,
                    is_told: is_known,
                });
                next.insert(key, awaited);
            }
        }
        self.awaited = next;
    }

    /// What is done since the last turn, as far as `state` says.
    pub fn turn<'a>(
        &mut self,
        models: &BTreeMap<Key, Model>,
        state: impl Fn(&Key, &Version) -> (VersionState, Option<&'a Refusal>),
        now_us: i64,
    ) -> Vec<VersionSpan> {
        let mut done = vec![];
        for (key, awaited) in self.awaited.iter_mut().filter(|(_, a)| !a.is_told) {
            let Some(version) = models.get(&key.model).and_then(|m| m.version(&key.digest)) else {
                continue;
            };
            let (now, refusal) = state(&key.model, version);
            let Some(state) = reached(awaited.mode, now) else {
                continue;
            };
            awaited.is_told = true;
            done.push(VersionSpan {
                namespace: key.model.namespace.clone(),
                model: key.model.name.clone(),
                digest: key.digest.clone(),
                traceparent: awaited.traceparent.clone(),
                state: state.into(),
                reason: refusal.map_or(String::new(), |refusal| refusal.reason.clone()),
                start_unix_us: awaited.since_us,
                end_unix_us: now_us.max(awaited.since_us),
            });
        }
        done
    }
}

/// What a version has come to, where that is what is wanted of it or as far as it gets.
const fn reached(wanted: VersionMode, now: VersionState) -> Option<v1::VersionState> {
    match (wanted, now) {
        (_, VersionState::Refused) => Some(v1::VersionState::Refused),
        (VersionMode::Prefetch, VersionState::Prefetched) => Some(v1::VersionState::Prefetched),
        (VersionMode::Shadow, VersionState::Shadow) => Some(v1::VersionState::Shadow),
        (VersionMode::Active, VersionState::Active) => Some(v1::VersionState::Active),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::key;
    use VersionMode::{Active, Prefetch, Shadow};

    fn models(mode: VersionMode, traceparent: Option<&str>) -> BTreeMap<Key, Model> {
        let version = Version {
            digest: "d".to_owned(),
            size: 1,
            mode,
            traceparent: traceparent.map(str::to_owned),
        };
        let model = Model {
            task: vigia_crds::Task::Anomaly,
            versions: vec![version],
            keys: vec![],
        };
        BTreeMap::from([(key("m"), model)])
    }

    /// What is told while the plan says this and the version is there.
    fn told(trace: &mut Trace, mode: VersionMode, state: VersionState, now: i64) -> Vec<(i32, i64, i64)> {
        let refusal = Refusal {
            reason: "SignatureInvalid".to_owned(),
            message: String::new(),
        };
        let refusal = (state == VersionState::Refused).then_some(&refusal);
        let said = trace.turn(&models(mode, None), |_, _| (state, refusal), now);
        said.iter()
            .map(|s| (s.state, s.start_unix_us, s.end_unix_us))
            .collect()
    }

    #[test]
    fn a_version_is_told_of_once_for_each_step_that_moves_it() {
        use v1::VersionState as Told;
        let mut trace = Trace::default();
        for (since, mode, traceparent, states) in [
            (
                10,
                Prefetch,
                "t0",
                vec![
                    (VersionState::Fetching, None),
                    (VersionState::Prefetched, Some(Told::Prefetched)),
                    (VersionState::Prefetched, None),
                ],
            ),
            (20, Shadow, "t1", vec![(VersionState::Shadow, Some(Told::Shadow))]),
            // The same again: another plan that says the same of it.
            (30, Shadow, "t1", vec![(VersionState::Shadow, None)]),
            (
                40,
                Active,
                "t2",
                vec![
                    (VersionState::Prefetched, None),
                    (VersionState::Active, Some(Told::Active)),
                ],
            ),
        ] {
            trace.plan(&models(mode, Some(traceparent)), false, since);
            for (now, (state, expected)) in (since + 1..).zip(states) {
                let expected: Vec<_> = expected
                    .map(|told| (told.into(), since, now))
                    .into_iter()
                    .collect();
                assert_eq!(
                    told(&mut trace, mode, state, now),
                    expected,
                    "{traceparent} {state:?}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let mut trace = Trace::default();
        trace.plan(&models(Active, Some("t")), false, 10);
        let refused = v1::VersionState::Refused.into();
        assert_eq!(
            told(&mut trace, Active, VersionState::Refused, 9),
            [(refused, 10, 10)]
        );
    }

    #[test]
    fn what_is_not_traced_or_is_a_former_lifes_is_not_told() {
        let mut trace = Trace::default();
        trace.plan(&models(Active, None), false, 10);
        assert_eq!(told(&mut trace, Active, VersionState::Active, 11), []);
        trace.plan(&models(Active, Some("t")), true, 20);
        assert_eq!(told(&mut trace, Active, VersionState::Active, 21), []);
        trace.plan(&models(Active, Some("t")), false, 30);
        assert_eq!(told(&mut trace, Active, VersionState::Active, 31), []);
    }
}
