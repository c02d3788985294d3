//! What alert budgets held back of late, by profile, so that the API can say why no alert came: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use vigia_model::budget::Told;

use super::desired::{Key, Profile};
use super::score::Scored;

/// This long after the last one, it is no longer said. A status that says so at once would change with each window.
pub const QUIET: Duration = Duration::from_secs(3600);

/// Windows that would have been alerts, of each profile, and when the last of them was.
#[derive(Debug, Default)]
pub struct Withheld(BTreeMap<Key, (u64, Duration)>);

impl Withheld {
    /// Takes in what was scored up to now, by the monotonic clock, and forgets what is long ago or no longer planned.
    pub fn turn(&mut self, scored: &[Scored], profiles: &BTreeMap<Key, Profile>, now: Duration) {
        self.0
            .retain(|key, (_, last)| profiles.contains_key(key) && now.saturating_sub(*last) < QUIET);
        for one in scored.iter().filter(|one| one.told == Told::Withheld) {
            let (count, last) = self.0.entry(one.profile.clone()).or_default();
            *count = count.saturating_add(1);
            *last = now;
        }
    }

    /// How many of a profile, since there was an hour without one.
    #[must_use]
    pub fn of(&self, profile: &Key) -> u64 {
        self.0.get(profile).map_or(0, |(count, _)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::Desired;
    use crate::node::desired::key;
    use vigia_crds::{NodePlanSpec, PlannedProfile};

    fn profiles(names: &[&str]) -> BTreeMap<Key, Profile> {
        let planned = names.iter().map(|name| PlannedProfile {
            namespace: "shop".to_owned(),
            name: (*name).to_owned(),
            window_ms: 1000,
            consecutive_windows: 1,
            alerts_per_hour: "1".to_owned(),
            ..PlannedProfile::default()
        });
        let spec = NodePlanSpec {
            profiles: planned.collect(),
            models: vec![],
        };
        let desired = Desired::parse(&spec, 1);
        assert_eq!(desired.problems, Vec::<String>::new());
        desired.profiles
    }

    #[test]
    fn what_is_held_back_counts_until_an_hour_has_none() {
        let (both, mut withheld) = (profiles(&["a", "b"]), Withheld::default());
        let at = Duration::from_secs;
        let told = [Told::Begins, Told::GoesOn, Told::Nothing].map(|told| Scored::of(key("a"), told));
        withheld.turn(&told, &both, at(0));
        assert_eq!(
            withheld.of(&key("a")),
            0,
            "what is told, or no alert, is not held back"
        );

        let one = Scored::of(key("a"), Told::Withheld);
        withheld.turn(&[one.clone(), one.clone()], &both, at(10));
        withheld.turn(std::slice::from_ref(&one), &both, at(3600));
        assert_eq!((withheld.of(&key("a")), withheld.of(&key("b"))), (3, 0));
        withheld.turn(&[], &both, at(7199));
        assert_eq!(withheld.of(&key("a")), 3, "the last one is not an hour ago");
        withheld.turn(&[], &both, at(7200));
        assert_eq!(withheld.of(&key("a")), 0);
        withheld.turn(std::slice::from_ref(&one), &both, at(9000));
        assert_eq!(withheld.of(&key("a")), 1, "it begins anew");
    }

    #[test]
    fn a_profile_that_goes_takes_its_count_with_it() {
        let (both, mut withheld) = (profiles(&["a", "b"]), Withheld::default());
        let scored = ["a", "b"].map(|name| Scored::of(key(name), Told::Withheld));
        withheld.turn(&scored, &both, Duration::ZERO);
        withheld.turn(&[], &profiles(&["b"]), Duration::ZERO);
        withheld.turn(&[], &both, Duration::ZERO);
        assert_eq!((withheld.of(&key("a")), withheld.of(&key("b"))), (0, 1));
    }
}
