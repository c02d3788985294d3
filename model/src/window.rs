//! One container's behaviour over a few seconds: what the probe counted, and nothing derived from it.
//!
//! A window is integers only. Rates, logarithms and everything else that could become NaN are made from
//! it by a [`crate::schema::Schema`], in one place.

use crate::syscalls::Arch;
use serde::{Deserialize, Serialize};

/// What one container did between `started_ms` and `started_ms + duration_ms`.
///
/// Counts are sparse: a system call that was not made has no entry. Entries are sorted by number and
/// unique, which [`Window::new`] establishes; scoring does not rely on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Whose numbers `calls` uses.
    pub arch: Arch,
    /// Start, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Length in milliseconds.
    pub duration_ms: u32,
    /// Events that the probe knows it failed to count in this window.
    pub lost: u64,
    /// Calls made, by number.
    pub calls: Vec<Calls>,
}

/// How often one system call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// The system call's number on the window's architecture.
    pub nr: u32,
    /// Calls that returned in the window.
    pub count: u64,
    /// Those of `count` that returned an error.
    pub errors: u64,
}

impl Window {
    /// A window from counts in any order; entries of one number are added up, empty ones dropped.
    pub fn new(
        arch: Arch,
        started_ms: u64,
        duration_ms: u32,
        calls: impl IntoIterator<Item = Calls>,
    ) -> Self {
        let mut calls: Vec<Calls> = calls
            .into_iter()
            .filter(|c| c.count > 0 || c.errors > 0)
            .collect();
        calls.sort_unstable_by_key(|c| c.nr);
        calls.dedup_by(|next, kept| {
            let same = next.nr == kept.nr;
            if same {
                kept.count = kept.count.saturating_add(next.count);
                kept.errors = kept.errors.saturating_add(next.errors);
            }
            same
        });
        Self {
            arch,
            started_ms,
            duration_ms,
            lost: 0,
            calls,
        }
    }

    /// The same window with `lost` events owned up to.
    #[must_use]
    pub fn with_lost(mut self, lost: u64) -> Self {
        self.lost = lost;
        self
    }

    /// All calls of the window.
    pub fn total(&self) -> u64 {
        self.calls.iter().fold(0, |sum, c| sum.saturating_add(c.count))
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        f64::from(self.duration_ms) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_summed_and_never_empty() {
        let call = |nr, count, errors| Calls { nr, count, errors };
        let w = Window::new(
            Arch::X86_64,
            0,
            1000,
            [call(3, 1, 0), call(0, 2, 1), call(3, 4, 2), call(9, 0, 0)],
        );
        assert_eq!(w.calls, vec![call(0, 2, 1), call(3, 5, 2)]);
        assert_eq!(w.total(), 7);
    }

    #[test]
    fn sums_saturate() {
        let c = Calls {
            nr: 1,
            count: u64::MAX,
            errors: u64::MAX,
        };
        assert_eq!(Window::new(Arch::X86_64, 0, 1, [c, c]).total(), u64::MAX);
    }
}
