//! What alert budgets held back of late, by profile, so that the API can say why no alert came: pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vigia_crds::WithheldAlert;
use vigia_model::budget::Told;

use super::desired::Key;
use super::grace::Grace;
use super::score::Scored;
use super::status::rounded;

/// This long after the last one, it is no longer said. A status that says so at once would change with each window.
pub const QUIET: Duration = Duration::from_secs(3600);

/// The one that is named is no older than this when another comes, in seconds.
const ANEW_S: i64 = 1800;

/// Greater counts are kept for another life this often at most: while an attack lasts, each window adds to them.
const KEEP: Duration = Duration::from_secs(60);

/// Windows that would have been alerts, of each profile; where there are too many, those whose last one is longest ago
/// make room.
#[derive(Debug, Default)]
pub struct Withheld {
    counts: Grace<Key, Count>,
    /// There is more than was kept last.
    more: bool,
    /// When it was kept last.
    kept: Option<Duration>,
}

/// What was withheld of one profile.
#[derive(Debug, Clone, Default, PartialEq)]
struct Count {
    windows: u64,
    /// The one with which what the API says of it grew last, or the first that was half an hour later: so seldom does a
    /// status change, and so well is it known when the last one was.
    one: Option<WithheldAlert>,
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
    /// Absent in what older agents kept.
    #[serde(default)]
    one: Option<WithheldAlert>,
    /// For how many more seconds it is said.
    left_s: u64,
}

impl Withheld {
    /// Takes over what another life had withheld, so long ago; now is by the monotonic clock.
    pub fn restore(&mut self, last: Vec<OfProfile>, ago: Duration, now: Duration) {
        for one in last {
            let left = Duration::from_secs(one.left_s).min(QUIET).saturating_sub(ago);
            if !left.is_zero() {
                let count = Count {
                    windows: one.windows,
                    one: one.one,
                };
                self.counts.keep(one.profile, count, now + left);
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
        let profiles = self.counts.iter(now).map(|(profile, count, left)| OfProfile {
            profile: profile.clone(),
            windows: count.windows,
            one: count.one.clone(),
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
            let before = self.counts.take(&one.profile, now).unwrap_or_default();
            let windows = before.windows.saturating_add(1);
            let grows = rounded(windows) != rounded(before.windows);
            let named = named(one);
            let is_good = |old: &WithheldAlert| {
                !grows && (named.at.0.as_second() - old.at.0.as_second()).abs() < ANEW_S
            };
            let one_of = before.one.filter(is_good).unwrap_or(named);
            let count = Count {
                windows,
                one: Some(one_of),
            };
            self.counts.keep(one.profile.clone(), count, now + QUIET);
            self.more = true;
            if before.windows == 0 {
                // That there is something at all is kept at once.
                self.kept = None;
            }
        }
    }

    /// How many of a profile, since there was an hour without one.
    #[must_use]
    pub fn of(&self, profile: &Key) -> u64 {
        self.counts.get(profile).map_or(0, |count| count.windows)
    }

    /// One of them.
    #[must_use]
    pub fn one_of(&self, profile: &Key) -> Option<&WithheldAlert> {
        self.counts.get(profile)?.one.as_ref()
    }

    /// The profiles of which something was withheld, in order.
    pub fn profiles(&self) -> impl Iterator<Item = &Key> {
        self.counts.keys()
    }
}

fn named(one: &Scored) -> WithheldAlert {
    // The API keeps whole seconds.
    let second = i64::try_from(one.started_ms / 1000).unwrap_or(i64::MAX);
    WithheldAlert {
        at: Time(Timestamp::from_second(second).unwrap_or_default()),
        pod: one.pod.clone(),
        container: one.container.clone(),
        model: one.model.name.clone(),
        estimator: one.estimator.api_name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::key;

    #[test]
    fn one_is_named_as_often_as_the_rounded_count_grows() {
        let mut withheld = Withheld::default();
        let mut named = |second: u64| {
            let one = Scored {
                started_ms: second * 1000 + 250,
                ..Scored::of(key("a"), Told::Withheld)
            };
            withheld.turn(&[one], Duration::from_secs(second));
            let one = withheld.one_of(&key("a")).expect("is named");
            assert_eq!((one.pod.as_str(), one.container.as_str()), ("p", "c"));
            assert_eq!((one.model.as_str(), one.estimator.as_str()), ("m", "Deviation"));
            one.at.0.as_second()
        };
        assert_eq!([1, 2, 3, 4, 5, 6].map(&mut named), [1, 2, 3, 3, 5, 5]);
        assert_eq!([1804, 1805].map(&mut named), [5, 1805], "it is half an hour old");
        let kept = withheld
            .to_keep(Duration::from_secs(1805), true)
            .expect("there is more");
        let kept = serde_json::to_string(&kept).expect("is JSON");
        let mut again = Withheld::default();
        again.restore(
            serde_json::from_str(&kept).expect("is read"),
            Duration::ZERO,
            Duration::ZERO,
        );
        assert_eq!(again.one_of(&key("a")), withheld.one_of(&key("a")));
        // As an agent of a version before this kept it.
        let mut old: serde_json::Value = serde_json::from_str(&kept).expect("is JSON");
        old[0].as_object_mut().expect("is one").remove("one");
        let mut again = Withheld::default();
        again.restore(
            serde_json::from_value(old).expect("is read"),
            Duration::ZERO,
            Duration::ZERO,
        );
        assert_eq!((again.of(&key("a")), again.one_of(&key("a"))), (8, None));
    }

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
