//! How long calls took and which followed which, as differences between two drains.

use std::collections::BTreeMap;

use crate::probe::{Gram, Latency, Slot};

/// Totals of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DetailTotals {
    latencies: BTreeMap<u32, (u64, [u32; Latency::BUCKETS])>,
    grams: BTreeMap<(u16, u16), u64>,
}

/// By slot; slots of which nothing is kept are not there.
pub(super) fn sort(latencies: &[Latency], grams: &[Gram]) -> BTreeMap<Slot, DetailTotals> {
    let mut slots: BTreeMap<Slot, DetailTotals> = BTreeMap::new();
    for one in latencies {
        let slot = slots.entry(one.slot).or_default();
        slot.latencies.insert(one.syscall, (one.sum_ns, one.buckets));
    }
    for one in grams {
        let slot = slots.entry(one.slot).or_default();
        slot.grams.insert((one.first, one.second), one.count);
    }
    slots
}

/// How long the calls of one kind took, of those that were measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durations {
    /// Number of the system call.
    pub nr: u32,
    /// Nanoseconds of all of them.
    pub sum_ns: u64,
    /// Calls by the logarithm of their nanoseconds, base 2; the last bucket also holds all that took longer.
    pub buckets: [u32; Latency::BUCKETS],
}

/// How often one call came right after another in one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Number of the call before; bit 15 marks the 32-bit ABI.
    pub first: u16,
    /// Number of the call after; bit 15 marks the 32-bit ABI.
    pub second: u16,
    /// Times.
    pub count: u64,
}

/// What a window has beside counts, where its profile wants it. Of what was measured: in a duty cycle that is a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    /// By number.
    pub durations: Vec<Durations>,
    /// By the call before, then the one after.
    pub pairs: Vec<Pair>,
}

impl DetailTotals {
    /// What came since `base`.
    pub(super) fn since(&self, base: &Self) -> Detail {
        let durations = self.latencies.iter().filter_map(|(&nr, (sum, buckets))| {
            let none = (0, [0; Latency::BUCKETS]);
            let (sum_before, before) = base.latencies.get(&nr).unwrap_or(&none);
            let mut delta = *buckets;
            for (bucket, before) in delta.iter_mut().zip(before) {
                *bucket = bucket.wrapping_sub(*before);
            }
            delta.iter().any(|calls| *calls > 0).then(|| Durations {
                nr,
                sum_ns: sum.wrapping_sub(*sum_before),
                buckets: delta,
            })
        });
        let pairs = self.grams.iter().filter_map(|(&(first, second), &count)| {
            let before = base.grams.get(&(first, second)).copied().unwrap_or_default();
            let count = count.saturating_sub(before);
            (count > 0).then_some(Pair { first, second, count })
        });
        Detail {
            durations: durations.collect(),
            pairs: pairs.collect(),
        }
    }
}

/// The number of a call of a pair, as windows have it.
#[must_use]
pub fn number(of_pair: u16) -> u32 {
    u32::from(of_pair & 0x3fff) | u32::from(of_pair >> 14) << 30
}

impl Detail {
    /// Leaves out calls for which `has` is false, and the pairs that they are in.
    pub fn retain(&mut self, has: impl Fn(u32) -> bool) {
        self.durations.retain(|one| has(one.nr));
        self.pairs
            .retain(|pair| has(number(pair.first)) && has(number(pair.second)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Tally;

    fn latency(syscall: u32, sum_ns: u64, bucket: usize, calls: u32) -> Latency {
        let mut buckets = [0; Latency::BUCKETS];
        buckets[bucket] = calls;
        Latency {
            slot: Slot(1),
            syscall,
            sum_ns,
            buckets,
        }
    }

    fn gram(first: u16, second: u16, count: u64) -> Gram {
        Gram {
            slot: Slot(1),
            first,
            second,
            count,
        }
    }

    #[test]
    fn a_window_has_the_difference_also_over_a_wrapped_bucket() {
        let before = sort(&[latency(1, 500, 3, u32::MAX)], &[gram(1, 2, 5)]);
        let after = sort(
            &[latency(1, 900, 3, 1), latency(2, 7, 0, 1)],
            &[gram(1, 2, 5), gram(2, 1, 4)],
        );
        let mut detail = after[&Slot(1)].since(&before[&Slot(1)]);
        let told: Vec<_> = detail
            .durations
            .iter()
            .map(|one| (one.nr, one.sum_ns, one.buckets[3]))
            .collect();
        assert_eq!(told, [(1, 400, 2), (2, 7, 0)]);
        assert_eq!(detail.pairs.len(), 1);
        detail.retain(|nr| nr != 2);
        assert_eq!((detail.durations.len(), detail.pairs.len()), (1, 0));
    }

    #[test]
    fn a_call_of_another_abi_keeps_its_mark() {
        assert_eq!(number(5 | 1 << 15), 5 | 1 << 31);
        assert_eq!(number(520 | 1 << 14), 520 | 1 << 30);
        assert_eq!(number(5), 5);
        assert_eq!(number(0xbfff), Tally::COMPAT | Tally::UNKNOWN);
    }
}
