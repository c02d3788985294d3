//! What alert budgets held back of late, by profile, so that the API can say why no alert came: pure.

use std::time::Duration;

use vigia_model::budget::Told;

use super::desired::Key;
use super::grace::Grace;
use super::score::Scored;

/// This long after the last one, it is no longer said. A status that says so at once would change with each window.
pub const QUIET: Duration = Duration::from_secs(3600);

/// Windows that would have been alerts, of each profile; where there are too many, those whose last one is longest ago
/// make room.
#[derive(Debug, Default)]
pub struct Withheld(Grace<Key, u64>);

impl Withheld {
    /// Takes in what was scored up to now, by the monotonic clock, and forgets what is long ago. A profile that leaves
    /// the plan is not forgotten: it does so whenever its only pod on the node is replaced, and whoever can make a pod
    /// end must not thereby remove the trace.
    pub fn turn(&mut self, scored: &[Scored], now: Duration) {
        self.0.turn(now);
        for one in scored.iter().filter(|one| one.told == Told::Withheld) {
            let count = self.0.take(&one.profile, now).unwrap_or(0);
            self.0
                .keep(one.profile.clone(), count.saturating_add(1), now + QUIET);
        }
    }

    /// How many of a profile, since there was an hour without one.
    #[must_use]
    pub fn of(&self, profile: &Key) -> u64 {
        self.0.get(profile).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::key;

    #[test]
    fn what_is_held_back_counts_until_an_hour_has_none() {
        let mut withheld = Withheld::default();
        let at = Duration::from_secs;
        let told = [Told::Begins, Told::GoesOn, Told::Nothing].map(|told| Scored::of(key("a"), told));
        withheld.turn(&told, at(0));
        assert_eq!(
            withheld.of(&key("a")),
            0,
            "what is told, or no alert, is not held back"
        );

        let one = Scored::of(key("a"), Told::Withheld);
        withheld.turn(&[one.clone(), one.clone()], at(10));
        withheld.turn(std::slice::from_ref(&one), at(3600));
        assert_eq!((withheld.of(&key("a")), withheld.of(&key("b"))), (3, 0));
        withheld.turn(&[], at(7199));
        assert_eq!(withheld.of(&key("a")), 3, "the last one is not an hour ago");
        withheld.turn(&[], at(7200));
        assert_eq!(withheld.of(&key("a")), 0);
        withheld.turn(std::slice::from_ref(&one), at(9000));
        assert_eq!(withheld.of(&key("a")), 1, "it begins anew");
    }
}
