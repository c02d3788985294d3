//! What a container does for the first time.
//!
//! A call or a pair of calls that was never seen of a container, after some time in which its habits were, is the
//! cheapest sign that it does something else. What is known is kept for as long as its window is open.

use std::collections::BTreeSet;

use super::Closed;

/// Windows after which what is new is told.
const SETTLED: u32 = 12;
/// Pairs that are remembered of one container; a container with more is one of which every pair is possible.
const PAIRS: usize = 8192;

/// Calls and pairs that are new in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct New {
    /// Numbers of calls.
    pub calls: Vec<u32>,
    /// Calls that followed each other.
    pub pairs: Vec<(u16, u16)>,
}

/// What was seen of one container.
#[derive(Debug, Default)]
pub struct Known {
    windows: u32,
    /// Windows that had pairs: their learning is of its own.
    detailed: u32,
    calls: BTreeSet<u32>,
    pairs: BTreeSet<(u16, u16)>,
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
        self.windows = self.windows.saturating_add(1);
        for pair in &closed.detail.pairs {
            let key = (pair.first, pair.second);
            if self.pairs.len() < PAIRS && self.pairs.insert(key) && self.detailed >= SETTLED {
                new.pairs.push(key);
            }
        }
        if !closed.detail.pairs.is_empty() {
            self.detailed = self.detailed.saturating_add(1);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Detail, Pair};
    use vigia_model::syscalls::Arch;
    use vigia_model::window::{Calls, Window};

    fn closed(calls: &[u32], pairs: &[(u16, u16)]) -> Closed<()> {
        let calls = calls.iter().map(|&nr| Calls {
            nr,
            count: 1,
            errors: 0,
        });
        let pairs = pairs.iter().map(|&(first, second)| Pair {
            first,
            second,
            count: 1,
        });
        Closed {
            key: (),
            window: Window::new(Arch::NATIVE, 0, 1000, calls),
            detail: Detail {
                durations: vec![],
                pairs: pairs.collect(),
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
        for _ in 0..SETTLED {
            known.meet(&closed(&[1, 2], &[(1, 2)]));
        }
        assert_eq!(known.meet(&closed(&[1, 2], &[(1, 2), (2, 1)])).pairs, [(2, 1)]);
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
