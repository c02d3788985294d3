//! What alert budgets held back of late, by profile, so that the API can say why no alert came: pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vigia_model::budget::Told;

use super::desired::Key;
use super::grace::Grace;
use super::score::Scored;

/// This long after the last one, it is no longer said. A status that says so at once would change with each window.
pub const QUIET: Duration = Duration::from_secs(3600);

/// Greater counts are kept for another life this often at most: while an attack lasts, each window adds to them.
const KEEP: Duration = Duration::from_secs(60);

/// Windows that would have been alerts, of each profile; where there are too many, those whose last one is longest ago
/// make room.
#[derive(Debug, Default)]
pub struct Withheld {
    counts: Grace<Key, u64>,
    /// There is more than was kept last.
    more: bool,
    /// When it was kept last.
    kept: Option<Duration>,
}

/// What was withheld, as it is kept for another life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastWithheld {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Of each profile.
    pub profiles: Vec<OfProfile>,
}

/// What was withheld of one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfProfile {
    profile: Key,
    windows: u64,
    /// For how many more seconds it is said.
    left_s: u64,
}

impl Withheld {
    /// Takes over what another life had withheld, so long ago; now is by the monotonic clock.
    pub fn restore(&mut self, last: Vec<OfProfile>, ago: Duration, now: Duration) {
        for one in last {
            let left = Duration::from_secs(one.left_s).min(QUIET).saturating_sub(ago);
            if !left.is_zero() {
                self.counts.keep(one.profile, one.windows, now + left);
            }
        }
    }

    /// What is to be kept for another life, where that is due: there is more, and the last time is long enough ago or
    /// `last` is the last chance.
    pub fn to_keep(&mut self, now: Duration, last: bool) -> Option<Vec<OfProfile>> {
        if !self.more || (!last && self.kept.is_some_and(|kept| now.saturating_sub(kept) < KEEP)) {
            return None;
        }
        (self.more, self.kept) = (false, Some(now));
        let profiles = self.counts.iter(now).map(|(profile, windows, left)| OfProfile {
            profile: profile.clone(),
            windows: *windows,
            left_s: left.as_secs(),
        });
        Some(profiles.collect())
    }

    /// What was to be kept could not be: it is tried again when that is due.
    pub fn not_kept(&mut self) {
        self.more = true;
    }

    /// Takes in what was scored up to now, by the monotonic clock, and forgets what is long ago. A profile that leaves
    /// the plan is not forgotten: it does so whenever its only pod on the node is replaced, and whoever can make a pod
    /// end must not thereby remove the trace.
    pub fn turn(&mut self, scored: &[Scored], now: Duration) {
        self.counts.turn(now);
        for one in scored.iter().filter(|one| one.told == Told::Withheld) {
            let count = self.counts.take(&one.profile, now).unwrap_or(0);
            self.counts
                .keep(one.profile.clone(), count.saturating_add(1), now + QUIET);
            self.more = true;
            if count == 0 {
                // That there is something at all is kept at once.
                self.kept = None;
            }
        }
    }

    /// How many of a profile, since there was an hour without one.
    #[must_use]
    pub fn of(&self, profile: &Key) -> u64 {
        self.counts.get(profile).copied().unwrap_or(0)
    }

    /// The profiles of which something was withheld, in order.
    pub fn profiles(&self) -> impl Iterator<Item = &Key> {
        self.counts.keys()
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

    #[test]
    fn another_life_goes_on_with_what_was_held_back_for_what_is_left_of_the_hour() {
        let at = Duration::from_secs;
        let one = |name| Scored::of(key(name), Told::Withheld);
        let mut withheld = Withheld::default();
        assert_eq!(withheld.to_keep(at(0), true), None, "there is nothing");
        withheld.turn(&[one("a")], at(10));
        let first = withheld
            .to_keep(at(10), false)
            .expect("the first is kept at once");
        withheld.turn(&[one("a")], at(69));
        assert_eq!(withheld.to_keep(at(69), false), None, "it was kept a moment ago");
        withheld.turn(&[one("b")], at(69));
        let second = withheld.to_keep(at(69), false).expect("another profile");
        assert_eq!(withheld.to_keep(at(900), true), None, "that is kept");
        withheld.turn(&[one("b")], at(901));
        assert!(withheld.to_keep(at(901), false).is_some(), "long ago");
        withheld.turn(&[one("b")], at(902));
        assert!(withheld.to_keep(at(902), true).is_some(), "the last chance");
        assert_eq!(withheld.to_keep(at(2000), true), None);
        withheld.not_kept();
        assert!(withheld.to_keep(at(2000), true).is_some(), "the disk was full");

        let counts = |withheld: &Withheld| [withheld.of(&key("a")), withheld.of(&key("b"))];
        let mut again = Withheld::default();
        again.restore(first, at(3599), at(0));
        assert_eq!(counts(&again), [1, 0]);
        again.turn(&[one("a")], at(0));
        assert_eq!(counts(&again), [2, 0], "it counts on");
        let mut again = Withheld::default();
        again.restore(second.clone(), at(3598), at(5));
        assert_eq!(counts(&again), [2, 1]);
        again.turn(&[], at(7));
        assert_eq!(counts(&again), [0, 0], "the hour is over");
        again.restore(second, at(3600), at(7));
        assert_eq!(counts(&again), [0, 0], "it was over before");
        assert_eq!(again.profiles().count(), 0);
    }
}
