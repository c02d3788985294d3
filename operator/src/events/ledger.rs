//! What was said already, and how much each object may still say. Pure: time comes from outside.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};

/// A thing that is not repeated for so long has ended; the next time it is a new Event.
const SERIES_ENDS: SignedDuration = SignedDuration::from_mins(10);
/// A series is written at most so often.
const SERIES_WRITES: SignedDuration = SignedDuration::from_secs(10);
/// New Events of one object: so many at once, and one more in each period after.
const BURST: f64 = 10.0;
const REFILL: SignedDuration = SignedDuration::from_secs(60);
/// Objects and series that are remembered.
const REMEMBERED: usize = 20_000;

/// UID of what it regards, reason, key.
pub(super) type Key = (String, &'static str, String);

/// Keys that start with this are alerts: they may go on, and begin anew when they have ended.
pub(crate) const ONGOING: &str = "ongoing:";

/// What to do with something that is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// It is new. `since` is a part of its name where it may begin anew.
    Create { since: Option<Timestamp> },
    /// It goes on, and is worth a write.
    Continue { since: Option<Timestamp>, count: i32 },
    /// It goes on, but was written a moment ago, or is said for ever.
    Hold,
    /// The object's budget is used up.
    Suppress,
}

#[derive(Debug)]
struct Series {
    since: Option<Timestamp>,
    last: Timestamp,
    written: Timestamp,
    count: i32,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

/// What was said, and how much each object may still say.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    series: HashMap<Key, Series>,
    budgets: BTreeMap<String, Budget>,
}

impl Ledger {
    /// What to do with a thing that is said now.
    pub fn decide(&mut self, key: &Key, now: Timestamp) -> Decision {
        let ongoing = key.2.starts_with(ONGOING);
        if let Some(series) = self.series.get_mut(key) {
            if !ongoing {
                return Decision::Hold;
            }
            if now.duration_since(series.last) < SERIES_ENDS {
                series.count = series.count.saturating_add(1);
                series.last = now;
                if now.duration_since(series.written) < SERIES_WRITES {
                    return Decision::Hold;
                }
                series.written = now;
                return Decision::Continue {
                    since: series.since,
                    count: series.count,
                };
            }
        }
        if !self.spend(&key.0, now) {
            return Decision::Suppress;
        }
        self.make_room(now);
        let since = ongoing.then_some(now);
        self.series.insert(
            key.clone(),
            Series {
                since,
                last: now,
                written: now,
                count: 1,
            },
        );
        Decision::Create { since }
    }

    fn spend(&mut self, uid: &str, now: Timestamp) -> bool {
        let budget = self.budgets.entry(uid.to_owned()).or_insert(Budget {
            tokens: BURST,
            at: now,
        });
        let refill = now.duration_since(budget.at).as_secs_f64() / REFILL.as_secs_f64();
        budget.tokens = (budget.tokens + refill.max(0.0)).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    /// It could not be said.
    pub fn forget(&mut self, key: &Key) {
        self.series.remove(key);
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.series.len() >= REMEMBERED {
            self.series
                .retain(|_, s| now.duration_since(s.last) < SERIES_ENDS);
        }
        if self.series.len() >= REMEMBERED {
            self.series.clear();
        }
        if self.budgets.len() >= REMEMBERED {
            let full = SignedDuration::from_secs(REFILL.as_secs() * BURST as i64);
            self.budgets.retain(|_, b| now.duration_since(b.at) < full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number is a timestamp")
    }

    fn key(uid: &str, key: &str) -> Key {
        (uid.to_owned(), "SyscallAnomaly", key.to_owned())
    }

    #[test]
    fn a_thing_that_happened_is_said_once() {
        let mut ledger = Ledger::default();
        assert_eq!(
            ledger.decide(&key("u", "v1"), at(0)),
            Decision::Create { since: None }
        );
        assert_eq!(ledger.decide(&key("u", "v1"), at(100_000)), Decision::Hold);
        assert_eq!(
            ledger.decide(&key("u", "v2"), at(100_001)),
            Decision::Create { since: None }
        );
    }

    #[test]
    fn a_thing_that_goes_on_is_a_series_and_begins_anew_after_its_end() {
        let mut ledger = Ledger::default();
        let alert = key("u", "ongoing:app");
        let since = Some(at(0));
        assert_eq!(ledger.decide(&alert, at(0)), Decision::Create { since });
        assert_eq!(ledger.decide(&alert, at(2)), Decision::Hold);
        assert_eq!(
            ledger.decide(&alert, at(12)),
            Decision::Continue { since, count: 3 }
        );
        assert_eq!(ledger.decide(&alert, at(14)), Decision::Hold);
        let later = at(14 + SERIES_ENDS.as_secs());
        assert_eq!(
            ledger.decide(&alert, later),
            Decision::Create { since: Some(later) }
        );
    }

    #[test]
    fn one_noisy_object_is_held_back_and_others_are_not() {
        let mut ledger = Ledger::default();
        for i in 0..10 {
            assert!(matches!(
                ledger.decide(&key("noisy", &i.to_string()), at(0)),
                Decision::Create { .. }
            ));
        }
        assert_eq!(ledger.decide(&key("noisy", "11"), at(0)), Decision::Suppress);
        assert!(matches!(
            ledger.decide(&key("quiet", "1"), at(0)),
            Decision::Create { .. }
        ));
        assert!(matches!(
            ledger.decide(&key("noisy", "11"), at(61)),
            Decision::Create { .. }
        ));
        assert_eq!(ledger.decide(&key("noisy", "12"), at(62)), Decision::Suppress);
    }

    #[test]
    fn what_failed_to_be_said_may_be_said_again() {
        let mut ledger = Ledger::default();
        ledger.decide(&key("u", "v1"), at(0));
        ledger.forget(&key("u", "v1"));
        assert_eq!(
            ledger.decide(&key("u", "v1"), at(1)),
            Decision::Create { since: None }
        );
    }
}
