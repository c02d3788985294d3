//! When windows begin and end, and what was counted in them.
//!
//! Pure: clocks and counters come in, windows go out. Windows are aligned to the wall clock, so that those of all
//! nodes begin together, and their lengths are measured by the monotonic clock, so that a clock that is set does
//! not bend a rate. Counters are totals; a window is a difference, so a drain that fails makes the window longer
//! and loses nothing.

mod detail;
mod novelty;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use vigia_model::syscalls::Arch;
use vigia_model::window::{Calls, Window};

pub use detail::{Detail, Durations, Sequences};
pub use novelty::{Known, New};

use crate::probe::{Gram, Latency, Slot, Tally};
use detail::Latencies;

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed moment; never set back.
    pub mono: Duration,
    /// Milliseconds since the Unix epoch; may jump.
    pub wall_ms: u64,
}

/// Counters of every slot at one moment, and calls that were lost until then.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    slots: BTreeMap<Slot, BTreeMap<u32, (u64, u64)>>,
    latencies: BTreeMap<Slot, Latencies>,
    /// Calls that were not counted.
    lost: BTreeMap<Slot, u64>,
}

impl Totals {
    /// Sorts what the probe drained, with the calls of each slot that it could not count.
    #[must_use]
    pub fn new(tallies: &[Tally], lost: BTreeMap<Slot, u64>) -> Self {
        let mut slots: BTreeMap<Slot, BTreeMap<u32, (u64, u64)>> = BTreeMap::new();
        for tally in tallies {
            slots
                .entry(tally.slot)
                .or_default()
                .insert(tally.syscall, (tally.calls, tally.errors));
        }
        Self {
            slots,
            latencies: BTreeMap::new(),
            lost,
        }
    }

    /// The same, with what was drained of how long calls took.
    #[must_use]
    pub fn with_latencies(mut self, latencies: &[Latency]) -> Self {
        self.latencies = detail::sort(latencies);
        self
    }

    /// All calls of a slot that were counted.
    #[must_use]
    pub fn calls(&self, slot: Slot) -> u64 {
        let calls = self.slots.get(&slot).into_iter().flat_map(BTreeMap::values);
        calls.fold(0, |sum, (calls, _)| sum.wrapping_add(*calls))
    }

    fn lost_of(&self, slot: Slot) -> u64 {
        self.lost.get(&slot).copied().unwrap_or_default()
    }

    fn latencies_of(&self, slot: Slot) -> Latencies {
        self.latencies.get(&slot).cloned().unwrap_or_default()
    }
}

/// A window that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed<K> {
    /// Whose.
    pub key: K,
    /// What was counted.
    pub window: Window,
    /// How long calls took and which followed which, where that is kept.
    pub detail: Detail,
    /// It is too short for its rates to mean anything: the container came or went within it.
    pub partial: bool,
    /// How many windows of the container came before it: a container's start is like nothing that comes after.
    pub age: u32,
    /// Its container has gone, or is no longer wanted: neither is an end like what came before.
    pub last: bool,
}

/// The open windows; `K` says whose, such as a container under a profile.
#[derive(Debug)]
pub struct Windows<K> {
    open: BTreeMap<K, Open>,
}

#[derive(Debug)]
struct Open {
    slot: Slot,
    length: Duration,
    due: Duration,
    since: Now,
    base: BTreeMap<u32, (u64, u64)>,
    latencies: Latencies,
    /// What came of it so far.
    sequences: Sequences,
    lost: u64,
    age: u32,
}

impl<K: Ord + Clone> Default for Windows<K> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Windows<K> {
    /// Opens the first window of `key`, counting from `totals` on. One that is open already goes on, but for its
    /// length, which holds from the next window on. True where it is the first.
    pub fn open(&mut self, key: K, slot: Slot, length: Duration, now: Now, totals: &Totals) -> bool {
        match self.open.get_mut(&key) {
            Some(open) if open.slot == slot => {
                open.length = length;
                false
            }
            _ => {
                let open = Open {
                    slot,
                    length,
                    due: due(now, length),
                    since: now,
                    base: totals.slots.get(&slot).cloned().unwrap_or_default(),
                    latencies: totals.latencies_of(slot),
                    sequences: Sequences::new(),
                    lost: totals.lost_of(slot),
                    age: 0,
                };
                self.open.insert(key, open);
                true
            }
        }
    }

    /// Takes sequences of calls, which belong to the windows that are open now. Each is given once. Answers how many
    /// found no room in a window.
    pub fn follow(&mut self, grams: &[Gram]) -> u64 {
        let mut lost: u64 = 0;
        for open in self.open.values_mut() {
            let from = grams.partition_point(|gram| gram.slot < open.slot);
            for gram in grams[from..].iter().take_while(|gram| gram.slot == open.slot) {
                let full = open.sequences.len() >= detail::MAX_SEQUENCES;
                match open.sequences.entry(gram.sequence) {
                    Entry::Vacant(_) if full => lost = lost.saturating_add(gram.count),
                    entry => *entry.or_default() += gram.count,
                }
            }
        }
        lost
    }

    /// So many windows of a container came before the one that is open: another life saw them.
    pub fn aged(&mut self, key: &K, age: u32) {
        if let Some(open) = self.open.get_mut(key) {
            open.age = age;
        }
    }

    /// Keys with an open window.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.open.keys()
    }

    /// When the next window is due, by the monotonic clock.
    pub fn next_due(&self) -> Option<Duration> {
        self.open.values().map(|open| open.due).min()
    }

    /// Ends the windows that are due, and opens the next ones.
    pub fn close_due(&mut self, now: Now, totals: &Totals) -> Vec<Closed<K>> {
        self.open
            .iter_mut()
            .filter(|(_, open)| open.due <= now.mono)
            .map(|(key, open)| {
                let closed = open.close(key.clone(), now, totals);
                open.age = open.age.saturating_add(1);
                open.due = due(now, open.length);
                open.since = now;
                open.base = totals.slots.get(&open.slot).cloned().unwrap_or_default();
                open.latencies = totals.latencies_of(open.slot);
                open.lost = totals.lost_of(open.slot);
                closed
            })
            .collect()
    }

    /// Ends the window of a key for good: its container has gone, or its profile no longer wants it.
    pub fn end(&mut self, key: &K, now: Now, totals: &Totals) -> Option<Closed<K>> {
        let mut open = self.open.remove(key)?;
        Some(Closed {
            last: true,
            ..open.close(key.clone(), now, totals)
        })
    }
}

impl Open {
    /// What came until now, of which it begins anew with sequences alone.
    fn close<K>(&mut self, key: K, now: Now, totals: &Totals) -> Closed<K> {
        let length = now.mono.saturating_sub(self.since.mono);
        let duration_ms = u32::try_from(length.as_millis()).unwrap_or(u32::MAX);
        let none = BTreeMap::new();
        let calls = totals
            .slots
            .get(&self.slot)
            .unwrap_or(&none)
            .iter()
            .map(|(&nr, &(count, errors))| {
                let (count_before, errors_before) = self.base.get(&nr).copied().unwrap_or_default();
                Calls {
                    nr,
                    count: count.saturating_sub(count_before),
                    errors: errors.saturating_sub(errors_before),
                }
            });
        Closed {
            key,
            // Its end is now, by the clock that everyone else reads now; its start follows from its length.
            window: Window::new(
                Arch::NATIVE,
                now.wall_ms.saturating_sub(u64::from(duration_ms)),
                duration_ms,
                calls,
            )
            .with_lost(totals.lost_of(self.slot).saturating_sub(self.lost)),
            detail: Detail {
                durations: totals
                    .latencies
                    .get(&self.slot)
                    .map(|now| detail::between(&self.latencies, now))
                    .unwrap_or_default(),
                sequences: std::mem::take(&mut self.sequences),
            },
            partial: length < self.length / 2,
            age: self.age,
            last: false,
        }
    }
}

/// The next multiple of `length` on the wall clock that is at least half a window away.
fn due(now: Now, length: Duration) -> Duration {
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1);
    let left = length_ms - now.wall_ms % length_ms;
    let wait = if left < length_ms.div_ceil(2) {
        left.saturating_add(length_ms)
    } else {
        left
    };
    now.mono.saturating_add(Duration::from_millis(wait))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Sequence;
    use proptest::prelude::*;

    const W: Duration = Duration::from_secs(10);
    const READ: u32 = 0;
    const OPEN: u32 = 2;

    fn at(mono_ms: u64, wall_ms: u64) -> Now {
        Now {
            mono: Duration::from_millis(mono_ms),
            wall_ms,
        }
    }

    fn totals(slot: u32, lost: u64, calls: &[(u32, u64, u64)]) -> Totals {
        let tallies: Vec<Tally> = calls
            .iter()
            .map(|&(syscall, calls, errors)| Tally {
                slot: Slot(slot),
                syscall,
                calls,
                errors,
            })
            .collect();
        Totals::new(&tallies, BTreeMap::from([(Slot(slot), lost)]))
    }

    fn counts(closed: &[Closed<&str>]) -> Vec<(u32, u64, u64)> {
        closed
            .iter()
            .flat_map(|c| &c.window.calls)
            .map(|c| (c.nr, c.count, c.errors))
            .collect()
    }

    #[test]
    fn windows_are_aligned_and_hold_differences() {
        let mut windows = Windows::default();
        windows.open("a", Slot(1), W, at(500, 1_000_003_000), &Totals::default());
        // 1,000,003,000 is 3 s into a window: the next boundary is 7 s away.
        assert_eq!(windows.next_due(), Some(Duration::from_millis(7_500)));
        assert!(
            windows
                .close_due(at(7_499, 1_000_009_999), &Totals::default())
                .is_empty()
        );

        let first = windows.close_due(at(7_500, 1_000_010_000), &totals(1, 0, &[(READ, 10, 1)]));
        assert_eq!(counts(&first), [(READ, 10, 1)]);
        assert_eq!(
            (first[0].window.started_ms, first[0].window.duration_ms),
            (1_000_003_000, 7_000)
        );
        assert!(!first[0].partial);

        let second = windows.close_due(
            at(17_504, 1_000_020_004),
            &totals(1, 0, &[(READ, 15, 1), (OPEN, 2, 2)]),
        );
        assert_eq!(counts(&second), [(READ, 5, 0), (OPEN, 2, 2)]);
        assert_eq!(second[0].window.duration_ms, 10_004);
        // Aligned again, although the timer was late.
        assert_eq!(windows.next_due(), Some(Duration::from_millis(27_500)));
    }

    #[test]
    fn one_that_comes_late_in_a_window_has_a_longer_first_one() {
        let mut windows = Windows::default();
        windows.open("a", Slot(1), W, at(0, 1_000_009_000), &Totals::default());
        assert_eq!(windows.next_due(), Some(Duration::from_secs(11)));
    }

    #[test]
    fn a_second_profile_counts_from_when_it_came() {
        let mut windows = Windows::default();
        let before = totals(1, 7, &[(READ, 100, 50)]);
        windows.open("late", Slot(1), W, at(0, 1_000_000_000), &before);
        let closed = windows.close_due(at(10_000, 1_000_010_000), &totals(1, 9, &[(READ, 101, 50)]));
        assert_eq!(counts(&closed), [(READ, 1, 0)]);
        assert_eq!(closed[0].window.lost, 2);
    }

    #[test]
    fn one_that_dies_in_a_window_gives_what_it_had() {
        let mut windows = Windows::default();
        windows.open("a", Slot(1), W, at(0, 1_000_000_000), &Totals::default());
        let closed = windows
            .end(&"a", at(2_000, 1_000_002_000), &totals(1, 0, &[(READ, 3, 0)]))
            .expect("was open");
        assert!(closed.partial);
        assert_eq!(closed.window.total(), 3);
        assert_eq!(
            windows.end(&"a", at(2_000, 1_000_002_000), &Totals::default()),
            None
        );
        assert_eq!(windows.next_due(), None);
    }

    #[test]
    fn a_drain_that_is_missed_makes_the_window_longer_and_loses_nothing() {
        let mut windows = Windows::default();
        windows.open("a", Slot(1), W, at(0, 1_000_000_000), &Totals::default());
        let closed = windows.close_due(at(20_100, 1_000_020_100), &totals(1, 0, &[(READ, 42, 0)]));
        assert_eq!(closed.len(), 1);
        assert_eq!(
            (closed[0].window.duration_ms, closed[0].window.total()),
            (20_100, 42)
        );
    }

    #[test]
    fn a_clock_that_is_set_bends_no_length() {
        for wall in [0, 400_000_000, 1_000_005_000, 9_000_000_000_000] {
            let mut windows = Windows::default();
            windows.open("a", Slot(1), W, at(0, 1_000_000_000), &Totals::default());
            let closed = windows.close_due(at(10_000, wall), &totals(1, 0, &[(READ, 1, 0)]));
            assert_eq!(closed[0].window.duration_ms, 10_000, "{wall}");
            let wait = windows
                .next_due()
                .expect("open")
                .saturating_sub(Duration::from_secs(10));
            assert!(wait >= W / 2 && wait <= W * 3 / 2, "{wall}: {wait:?}");
        }
    }

    #[test]
    fn a_changed_length_holds_from_the_next_window_on() {
        let mut windows = Windows::default();
        windows.open("a", Slot(1), W, at(0, 1_000_000_000), &Totals::default());
        windows.open(
            "a",
            Slot(1),
            Duration::from_secs(2),
            at(1, 1_000_000_001),
            &Totals::default(),
        );
        assert_eq!(windows.next_due(), Some(W));
        windows.close_due(at(10_000, 1_000_010_000), &Totals::default());
        assert_eq!(windows.next_due(), Some(Duration::from_secs(12)));
    }

    #[test]
    fn sequences_belong_to_the_open_windows_of_their_slot_and_fill_no_more_than_their_room() {
        let gram = |slot, nr, count| Gram {
            slot: Slot(slot),
            sequence: Sequence::default().then(nr % 500).then(nr / 500),
            count,
        };
        let mut windows = Windows::default();
        for (key, slot) in [("a", 1), ("also a", 1), ("b", 2)] {
            windows.open(key, Slot(slot), W, at(0, 1_000_000_000), &Totals::default());
        }
        assert_eq!(windows.follow(&[gram(1, 7, 3), gram(2, 8, 4), gram(3, 9, 5)]), 0);
        assert_eq!(windows.follow(&[gram(1, 7, 1)]), 0);
        let sums = |closed: &[Closed<&str>]| -> Vec<Vec<u64>> {
            let sequences = closed
                .iter()
                .map(|c| c.detail.sequences.values().copied().collect());
            sequences.collect()
        };
        let closed = windows.close_due(at(10_000, 1_000_010_000), &Totals::default());
        assert_eq!(sums(&closed), [vec![4], vec![4], vec![4]]);
        let many: Vec<Gram> = (0..detail::MAX_SEQUENCES as u32 + 5)
            .map(|nr| gram(2, nr, 2))
            .collect();
        assert_eq!(windows.follow(&many), 10, "five of them found no room");
        assert_eq!(windows.follow(&[gram(2, 0, 1)]), 0, "one that is there goes on");
        let closed = windows.close_due(at(20_000, 1_000_020_000), &Totals::default());
        let lens: Vec<usize> = sums(&closed).iter().map(Vec::len).collect();
        assert_eq!(lens, [0, 0, detail::MAX_SEQUENCES], "a window begins with none");
    }

    proptest! {
        #[test]
        fn every_call_is_in_exactly_one_window(steps in proptest::collection::vec((0u64..30_000, 0u64..1_000, 0u64..50_000), 1..40)) {
            let mut windows = Windows::default();
            windows.open("a", Slot(1), W, at(0, 1_000_000_000), &Totals::default());
            let (mut mono, mut total, mut seen, mut length) = (0, 0, 0, 0);
            let mut last = Totals::default();
            let mut wall = 1_000_000_000;
            for (step, calls, jump) in steps {
                mono += step;
                // The clock is set at random; only lengths must not care.
                wall = wall + step + jump - 25_000;
                total += calls;
                last = totals(1, 0, &[(READ, total, total / 2)]);
                for closed in windows.close_due(at(mono, wall), &last) {
                    seen += closed.window.total();
                    length += u64::from(closed.window.duration_ms);
                }
            }
            let end = windows.end(&"a", at(mono, wall), &last).expect("still open");
            prop_assert_eq!(seen + end.window.total(), total);
            prop_assert_eq!(length + u64::from(end.window.duration_ms), mono);
        }

        #[test]
        fn the_next_window_is_between_half_and_one_and_a_half_lengths_away(wall in 0u64..u64::from(u32::MAX), length_ms in 1_000u64..300_000) {
            let length = Duration::from_millis(length_ms);
            let wait = due(at(0, wall), length);
            prop_assert!(wait >= length / 2 && wait <= length * 3 / 2);
        }
    }
}
