//! What a container does for the first time.
//!
//! A call, or a pair of calls in a row, that was never seen of a container, after some time in which its habits were, is the
//! cheapest sign that it does something else. What is known is kept for as long as its window is open.
//!
//! Habits take a while to be seen: so many windows for calls, and for pairs as many windows' worth of calls that were
//! measured, which with one call in sixteen takes sixteen times as long.

use std::collections::BTreeSet;

use super::{Closed, Sequences};
use crate::probe::Sequence;

/// Windows after which what is new is told.
const SETTLED: u32 = 12;
/// Of a window with pairs, the least share of its calls that is taken as measured, so that learning ends.
const LEAST: f64 = 0.002;
/// Pairs that are remembered of one container; a container with more is one of which every pair is possible.
const PAIRS: usize = 8192;

/// Calls and pairs that are new in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct New {
    /// Numbers of calls.
    pub calls: Vec<u32>,
    /// Two calls that followed each other, and how often.
    pub pairs: Vec<(Sequence, u64)>,
}

/// What was seen of one container.
#[derive(Debug, Default)]
pub struct Known {
    windows: u32,
    /// Windows' worth of calls that were measured: pairs have a learning of their own.
    measured: f64,
    calls: BTreeSet<u32>,
    pairs: BTreeSet<Sequence>,
}

impl Known {
    /// Takes a window in; gives what is new in it.
    pub fn meet<K>(&mut self, closed: &Closed<K>) -> New {
        let mut new = New::default();
        for call in closed.window.calls.iter().filter(|call| call.count > 0) {
            if self.calls.insert(call.nr) && self.windows >= SETTLED {
                new.calls.push(call.nr);
            }
        }
        // A part of a window shows a part of the habits.
        self.windows = self.windows.saturating_add(u32::from(!closed.partial));
        let settled = self.measured >= f64::from(SETTLED);
        for (pair, count) in pairs(&closed.detail.sequences) {
            if self.pairs.len() < PAIRS && self.pairs.insert(pair) && settled {
                new.pairs.push((pair, count));
            }
        }
        if !closed.detail.sequences.is_empty() && !closed.partial {
            let durations = closed.detail.durations.iter();
            let measured: u64 = durations
                .flat_map(|one| one.buckets)
                .map(u64::from)
                .fold(0, u64::saturating_add);
            let share = measured as f64 / closed.window.total().max(1) as f64;
            self.measured += share.clamp(LEAST, 1.0);
        }
        new
    }
}

/// What sequences end with: each call with the one before it.
fn pairs(sequences: &Sequences) -> Sequences {
    let mut pairs = Sequences::new();
    for (sequence, count) in sequences {
        if let Some(pair) = sequence.pair() {
            let sum: &mut u64 = pairs.entry(pair).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Latency;
    use crate::window::{Detail, Durations};
    use vigia_model::syscalls::Arch;
    use vigia_model::window::{Calls, Window};

    fn measured(calls: u32) -> Durations {
        let mut buckets = [0; Latency::BUCKETS];
        buckets[9] = calls;
        Durations {
            nr: 1,
            sum_ns: 0,
            buckets,
        }
    }

    fn pair(first: u32, second: u32) -> Sequence {
        Sequence::default().then(first).then(second)
    }

    fn closed(calls: &[u32], pairs: &[(u32, u32)]) -> Closed<()> {
        let calls = calls.iter().map(|&nr| Calls {
            nr,
            count: 1,
            errors: 0,
        });
        let pairs = pairs.iter().map(|&(first, second)| (pair(first, second), 1));
        Closed {
            key: (),
            window: Window::new(Arch::NATIVE, 0, 1000, calls),
            detail: Detail {
                durations: vec![measured(1)],
                sequences: pairs.collect(),
            },
            partial: false,
            age: 9,
            last: false,
        }
    }

    #[test]
    fn habits_are_learnt_before_anything_is_new() {
        let mut known = Known::default();
        for nr in 0..SETTLED {
            assert_eq!(known.meet(&closed(&[nr], &[])), New::default());
        }
        let new = known.meet(&closed(&[0, 99], &[(0, 99)]));
        assert_eq!(new.calls, [99]);
        assert_eq!(new.pairs, [], "pairs were not watched before");
        assert_eq!(known.meet(&closed(&[99], &[])), New::default());
    }

    #[test]
    fn a_new_pair_of_known_calls_is_new() {
        let mut known = Known::default();
        // Half of its calls are measured.
        for _ in 0..2 * SETTLED {
            assert_eq!(known.meet(&closed(&[1, 2], &[(1, 2)])).pairs, []);
        }
        let new = known.meet(&closed(&[1, 2], &[(1, 2), (2, 1)]));
        assert_eq!(new.pairs, [(pair(2, 1), 1)]);
    }

    #[test]
    fn habits_of_a_part_are_learnt_as_slowly_as_they_are_seen() {
        let mut known = Known::default();
        let partial = |pairs: &[(u32, u32)]| Closed {
            partial: true,
            ..closed(&[1, 2], pairs)
        };
        for _ in 0..100 {
            known.meet(&partial(&[(1, 2)]));
        }
        assert_eq!(
            known.meet(&closed(&[9], &[(2, 1)])),
            New::default(),
            "windows that are none"
        );
        let half = |known: &mut Known, first| known.meet(&closed(&[1, 2], &[(first, 2)])).pairs;
        for first in 100..100 + 2 * SETTLED - 2 {
            assert_eq!(half(&mut known, first), []);
        }
        half(&mut known, 7);
        assert_eq!(half(&mut known, 8), [(pair(8, 2), 1)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for first in 0..200 {
            let pairs: Vec<_> = (0..200).map(|second| (first, second)).collect();
            known.meet(&closed(&[], &pairs));
        }
        assert_eq!(known.pairs.len(), PAIRS);
    }
}
