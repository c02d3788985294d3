//! What was said already, and how much each object may still say. Pure: time comes from outside.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};

/// A series of which nothing is heard for so long is forgotten where there is no room; it is found again by its name.
const SERIES_ENDS: SignedDuration = SignedDuration::from_mins(10);
/// A series is written at most so often.
pub(super) const SERIES_WRITES: SignedDuration = SignedDuration::from_secs(10);
/// New Events of one object: so many at once, and one more in each period after.
pub(super) const BURST: u32 = 10;
const REFILL: SignedDuration = SignedDuration::from_secs(60);
/// What an object has no room for is one Event in each of these.
const BEYOND: SignedDuration = SignedDuration::from_mins(10);
/// Objects and series that are remembered.
const REMEMBERED: usize = 20_000;

/// UID of what it regards, reason, key.
pub(super) type Key = (String, &'static str, String);

/// Keys that start with this are alerts: they may go on, and none may be lost without a word.
pub(crate) const ONGOING: &str = "ongoing:";

/// The same of what there is no room for.
const BEYOND_KEY: &str = "ongoing:beyond/";

/// Whether a key is of something that may go on.
pub(super) fn goes_on(key: &Key) -> bool {
    key.2.starts_with(ONGOING)
}

/// The key under which that is counted which an object has no room for.
pub(super) fn beyond((uid, reason, _): &Key, now: Timestamp) -> Key {
    let span = now.as_second().div_euclid(BEYOND.as_secs());
    (uid.clone(), reason, format!("{BEYOND_KEY}{span}"))
}

fn is_beyond(key: &Key) -> bool {
    key.2.starts_with(BEYOND_KEY)
}

/// What to do with something that is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// It is new.
    Create,
    /// It goes on, and is worth a write.
    Continue { count: i32 },
    /// It goes on and was written a moment ago: what it has come to is worth a write after this.
    Later { after: SignedDuration },
    /// It goes on and is to be written later, or is said for ever.
    Hold,
    /// The object's budget is used up.
    Suppress,
}

#[derive(Debug)]
struct Series {
    last: Timestamp,
    written: Timestamp,
    /// It is to be written later.
    waits: bool,
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
        if !self.series.contains_key(key) && !self.spend(&key.0, now) {
            return Decision::Suppress;
        }
        self.count(key, now)
    }

    /// The same, without a look at the budget.
    pub fn count(&mut self, key: &Key, now: Timestamp) -> Decision {
        let Some(series) = self.series.get_mut(key) else {
            self.make_room(now);
            let series = Series {
                last: now,
                written: now,
                waits: false,
                count: 1,
            };
            self.series.insert(key.clone(), series);
            return Decision::Create;
        };
        if !goes_on(key) {
            return Decision::Hold;
        }
        series.count = series.count.saturating_add(1);
        series.last = now;
        let since = now.duration_since(series.written);
        if since >= SERIES_WRITES {
            series.written = now;
            return Decision::Continue { count: series.count };
        }
        if std::mem::replace(&mut series.waits, true) {
            return Decision::Hold;
        }
        Decision::Later {
            after: SERIES_WRITES - since.max(SignedDuration::ZERO),
        }
    }

    /// What a series that was to be written later has come to; it is written now.
    pub fn settle(&mut self, key: &Key, now: Timestamp) -> Option<i32> {
        let series = self.series.get_mut(key)?;
        series.waits = false;
        series.written = now;
        Some(series.count)
    }

    /// A series that seemed new was counted up to `told` by a life before this one: what it has come to.
    pub fn resume(&mut self, key: &Key, told: i32) -> Option<i32> {
        let series = self.series.get_mut(key)?;
        series.count = series.count.saturating_add(told.max(1));
        Some(series.count)
    }

    fn spend(&mut self, uid: &str, now: Timestamp) -> bool {
        let budget = self.budgets.entry(uid.to_owned()).or_insert(Budget {
            tokens: f64::from(BURST),
            at: now,
        });
        let refill = now.duration_since(budget.at).as_secs_f64() / REFILL.as_secs_f64();
        budget.tokens = (budget.tokens + refill.max(0.0)).min(f64::from(BURST));
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    /// What was decided could not be carried out, and who said it says it again: that one is to find what this one found.
    pub fn undo(&mut self, key: &Key, decision: Decision) {
        match decision {
            Decision::Create => {
                self.series.remove(key);
                if let Some(budget) = self.budgets.get_mut(&key.0).filter(|_| !is_beyond(key)) {
                    budget.tokens = (budget.tokens + 1.0).min(f64::from(BURST));
                }
            }
            Decision::Continue { .. } => {
                if let Some(series) = self.series.get_mut(key) {
                    series.count = series.count.saturating_sub(1);
                }
            }
            Decision::Later { .. } | Decision::Hold | Decision::Suppress => {}
        }
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
            let full = SignedDuration::from_secs(REFILL.as_secs() * i64::from(BURST));
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
        assert_eq!(ledger.decide(&key("u", "v1"), at(0)), Decision::Create);
        assert_eq!(ledger.decide(&key("u", "v1"), at(100_000)), Decision::Hold);
        assert_eq!(ledger.decide(&key("u", "v2"), at(100_001)), Decision::Create);
    }

    #[test]
    fn a_thing_that_goes_on_is_a_series_and_each_time_is_written() {
        let mut ledger = Ledger::default();
        let alert = key("u", "ongoing:app");
        assert_eq!(ledger.decide(&alert, at(0)), Decision::Create);
        let after = SignedDuration::from_secs(8);
        assert_eq!(ledger.decide(&alert, at(2)), Decision::Later { after });
        assert_eq!(ledger.decide(&alert, at(4)), Decision::Hold);
        assert_eq!(
            ledger.settle(&alert, at(10)),
            Some(3),
            "what was held back is written"
        );
        assert_eq!(ledger.decide(&alert, at(12)), Decision::Later { after });
        assert_eq!(ledger.settle(&alert, at(20)), Some(4));
        assert_eq!(ledger.decide(&alert, at(9000)), Decision::Continue { count: 5 });
    }

    #[test]
    fn a_series_goes_on_after_a_restart() {
        let mut ledger = Ledger::default();
        let alert = key("u", "ongoing:app");
        assert_eq!(ledger.decide(&alert, at(0)), Decision::Create);
        assert_eq!(ledger.resume(&alert, 7), Some(8));
        assert_eq!(ledger.decide(&alert, at(11)), Decision::Continue { count: 9 });
        assert_eq!(ledger.resume(&key("u", "other"), 7), None);
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_in_one_place() {
        let mut ledger = Ledger::default();
        let alert = |n: i64| key("u", &format!("ongoing:{n}"));
        for n in 0..i64::from(BURST) {
            assert_eq!(ledger.decide(&alert(n), at(0)), Decision::Create);
        }
        assert_eq!(ledger.decide(&alert(10), at(1)), Decision::Suppress);
        assert_eq!(ledger.decide(&alert(11), at(1)), Decision::Suppress);
        let place = beyond(&alert(10), at(1));
        assert_eq!(place, beyond(&alert(11), at(599)));
        assert_ne!(place, beyond(&alert(11), at(600)));
        assert!(goes_on(&place));
        assert_eq!(ledger.count(&place, at(1)), Decision::Create);
        assert!(matches!(ledger.count(&place, at(1)), Decision::Later { .. }));
        assert_eq!(ledger.settle(&place, at(11)), Some(2));
    }

    #[test]
    fn one_noisy_object_is_held_back_and_others_are_not() {
        let mut ledger = Ledger::default();
        for i in 0..10 {
            assert!(matches!(
                ledger.decide(&key("noisy", &i.to_string()), at(0)),
                Decision::Create
            ));
        }
        assert_eq!(ledger.decide(&key("noisy", "11"), at(0)), Decision::Suppress);
        assert!(matches!(
            ledger.decide(&key("quiet", "1"), at(0)),
            Decision::Create
        ));
        assert!(matches!(
            ledger.decide(&key("noisy", "11"), at(61)),
            Decision::Create
        ));
        assert_eq!(ledger.decide(&key("noisy", "12"), at(62)), Decision::Suppress);
    }

    #[test]
    fn what_failed_to_be_said_may_be_said_again() {
        let mut ledger = Ledger::default();
        let alert = key("u", "ongoing:app");
        // An API server that is away for long uses up nobody's Events.
        for _ in 0..3 * BURST {
            let decision = ledger.decide(&alert, at(0));
            assert_eq!(decision, Decision::Create);
            ledger.undo(&alert, decision);
        }
        assert_eq!(ledger.decide(&alert, at(1)), Decision::Create);

        let went_on = ledger.decide(&alert, at(20));
        assert_eq!(went_on, Decision::Continue { count: 2 });
        ledger.undo(&alert, went_on);
        assert!(matches!(ledger.decide(&alert, at(21)), Decision::Later { .. }));
        assert_eq!(
            ledger.settle(&alert, at(30)),
            Some(2),
            "said again, it counts once"
        );

        let (place, before) = (beyond(&alert, at(0)), ledger.budgets["u"].tokens);
        let counted = ledger.count(&place, at(40));
        ledger.undo(&place, counted);
        let after = ledger.budgets["u"].tokens;
        assert!((after - before).abs() < f64::EPSILON, "it took none");
    }
}
