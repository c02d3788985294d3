//! Which containers ran before this agent did, and which have ended although their cgroups are still there: pure.
//!
//! Starting and ending are like nothing in between, so a window has to know which of the two it is. A cgroup that is
//! there says neither: the runtime makes it before the first process and removes it some time after the last, and an
//! agent that starts anew finds containers that are long past their beginning.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::containers::ContainerId;

/// Windows after which a container's start is over.
const STARTED: u32 = 2;

/// What is known of containers' lives beside their windows.
#[derive(Debug, Default)]
pub struct Lives {
    /// Those in which a process was seen to run.
    inhabited: BTreeSet<ContainerId>,
    /// Those that ran in a former life of the agent already.
    elders: BTreeSet<ContainerId>,
    /// For how long at least they did before this one.
    before: Duration,
}

impl Lives {
    /// These containers ran for at least so long before this life began.
    pub fn recall(&mut self, elders: BTreeSet<ContainerId>, before: Duration) {
        (self.elders, self.before) = (elders, before);
    }

    /// Takes in whether a process runs in each container that there is, as far as that is known; gives those in which one
    /// ran and none does any more.
    pub fn ended<'a>(
        &mut self,
        seen: impl Iterator<Item = (&'a ContainerId, Option<bool>)>,
    ) -> BTreeSet<ContainerId> {
        let (mut here, mut ended) = (BTreeSet::new(), BTreeSet::new());
        for (id, inhabited) in seen {
            if inhabited == Some(true) || self.inhabited.contains(id) {
                here.insert(id.clone());
                if inhabited == Some(false) {
                    self.elders.remove(id);
                    ended.insert(id.clone());
                }
            }
        }
        self.inhabited = here;
        ended
    }

    /// Its cgroup has gone, and another one of its name is another life.
    pub fn forget(&mut self, id: &ContainerId) {
        self.inhabited.remove(id);
        self.elders.remove(id);
    }

    /// How many windows of this length a container had before this agent opened its first one, as far as it matters.
    pub fn age(&self, id: &ContainerId, length: Duration) -> u32 {
        if !self.elders.contains(id) {
            return 0;
        }
        let windows = self.before.as_millis() / length.as_millis().max(1);
        u32::try_from(windows).unwrap_or(STARTED).min(STARTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(name: &str) -> ContainerId {
        ContainerId {
            pod_uid: "u".to_owned(),
            id: name.to_owned(),
        }
    }

    #[test]
    fn what_ran_and_runs_no_more_has_ended_and_what_never_ran_has_not() {
        let (a, mut lives) = (id("a"), Lives::default());
        let mut ended = |inhabited| lives.ended([(&a, inhabited)].into_iter()).contains(&a);
        assert!(!ended(Some(false)), "made, and nothing in it yet");
        assert!(!ended(Some(true)) && !ended(None) && ended(Some(false)));
        assert!(ended(Some(false)), "until its cgroup goes");
        lives.forget(&a);
        assert!(
            lives.ended([(&a, Some(false))].into_iter()).is_empty(),
            "one of the same name, made anew"
        );
    }

    #[test]
    fn who_ran_before_the_agent_is_no_beginner_until_it_ends() {
        let (a, b, mut lives) = (id("a"), id("b"), Lives::default());
        lives.recall([a.clone()].into(), SECOND * 15);
        let age = |lives: &Lives, id: &ContainerId, seconds: u32| lives.age(id, SECOND * seconds);
        assert_eq!(
            [20, 10, 7, 1].map(|seconds| age(&lives, &a, seconds)),
            [0, 1, 2, 2]
        );
        assert_eq!((age(&lives, &b, 1), lives.age(&a, Duration::ZERO)), (0, 2));
        for inhabited in [true, false] {
            assert_eq!(age(&lives, &a, 1), 2);
            lives.ended([(&a, Some(inhabited))].into_iter());
        }
        assert_eq!(age(&lives, &a, 1), 0);
        lives.recall([a.clone()].into(), SECOND * 15);
        lives.forget(&a);
        assert_eq!(age(&lives, &a, 1), 0);
    }
}
