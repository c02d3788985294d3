//! Which containers to begin and to cease counting: pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::containers::{ContainerId, Found};
use crate::probe::Slot;

/// A container that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Under which slot.
    pub slot: Slot,
    /// By which cgroup.
    pub cgroup: u64,
}

/// A step towards what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Cease counting: it has gone, was made anew, or nobody wants it.
    Remove(ContainerId),
    /// Begin counting.
    Add(ContainerId, Found),
}

/// What to do, removals first: their room in the kernel's tables is free then.
#[must_use]
pub fn plan(
    traced: &BTreeMap<ContainerId, Traced>,
    wanted: &BTreeSet<ContainerId>,
    found: &BTreeMap<ContainerId, Found>,
) -> Vec<Action> {
    let stays = |id: &ContainerId, cgroup: u64| {
        wanted.contains(id) && found.get(id).is_some_and(|found| found.cgroup == cgroup)
    };
    let removals = traced
        .iter()
        .filter(|(id, traced)| !stays(id, traced.cgroup))
        .map(|(id, _)| Action::Remove(id.clone()));
    let additions = found
        .iter()
        .filter(|(id, found)| {
            wanted.contains(id) && traced.get(id).is_none_or(|traced| traced.cgroup != found.cgroup)
        })
        .map(|(id, found)| Action::Add(id.clone(), found.clone()));
    removals.chain(additions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn id(name: &str) -> ContainerId {
        ContainerId {
            pod_uid: "uid".to_owned(),
            id: name.to_owned(),
        }
    }

    fn found(cgroup: u64) -> Found {
        Found {
            folder: PathBuf::from("/x"),
            cgroup,
        }
    }

    fn run(traced: &[(&str, u64)], wanted: &[&str], there: &[(&str, u64)]) -> Vec<Action> {
        let traced = traced
            .iter()
            .map(|(name, cgroup)| {
                (
                    id(name),
                    Traced {
                        slot: Slot(1),
                        cgroup: *cgroup,
                    },
                )
            })
            .collect();
        let wanted = wanted.iter().map(|name| id(name)).collect();
        let there = there
            .iter()
            .map(|(name, cgroup)| (id(name), found(*cgroup)))
            .collect();
        plan(&traced, &wanted, &there)
    }

    #[test]
    fn what_is_wanted_and_there_is_added_once() {
        assert_eq!(run(&[], &["a"], &[("a", 1)]), [Action::Add(id("a"), found(1))]);
        assert_eq!(run(&[("a", 1)], &["a"], &[("a", 1)]), []);
        assert_eq!(run(&[], &["a"], &[]), []);
        assert_eq!(run(&[], &[], &[("a", 1)]), []);
    }

    #[test]
    fn what_is_gone_or_unwanted_is_removed() {
        assert_eq!(run(&[("a", 1)], &["a"], &[]), [Action::Remove(id("a"))]);
        assert_eq!(run(&[("a", 1)], &[], &[("a", 1)]), [Action::Remove(id("a"))]);
    }

    #[test]
    fn one_made_anew_under_its_name_is_removed_before_it_is_added() {
        assert_eq!(
            run(&[("a", 1)], &["a"], &[("a", 2)]),
            [Action::Remove(id("a")), Action::Add(id("a"), found(2))]
        );
    }
}
