//! How long calls took, as differences between two drains, and which followed which, as it came.

use std::collections::BTreeMap;

use crate::probe::{Latency, Sequence, Slot};

/// Totals of one slot.
pub(super) type Latencies = BTreeMap<u32, (u64, [u32; Latency::BUCKETS])>;

/// By slot; slots of which nothing is kept are not there.
pub(super) fn sort(latencies: &[Latency]) -> BTreeMap<Slot, Latencies> {
    let mut slots: BTreeMap<Slot, Latencies> = BTreeMap::new();
    for one in latencies {
        let slot = slots.entry(one.slot).or_default();
        slot.insert(one.syscall, (one.sum_ns, one.buckets));
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

/// What came between two drains.
pub(super) fn between(before: &Latencies, now: &Latencies) -> Vec<Durations> {
    let durations = now.iter().filter_map(|(&nr, (sum, buckets))| {
        let none = (0, [0; Latency::BUCKETS]);
        let (sum_before, before) = before.get(&nr).unwrap_or(&none);
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
    durations.collect()
}

/// Sequences of one window that are told apart. A window has this many only where a program does all it can to have them.
pub(super) const MAX_SEQUENCES: usize = 4096;

/// Calls with those right before them, and how often each sequence came.
pub type Sequences = BTreeMap<Sequence, u64>;

/// What a window has beside counts, where its profile wants it. Of what was measured: in a duty cycle that is a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    /// By number.
    pub durations: Vec<Durations>,
    /// In each thread by itself.
    pub sequences: Sequences,
}

impl Detail {
    /// Leaves out calls for which `has` is false; of sequences, what was before such a call.
    pub fn retain(&mut self, has: impl Fn(u32) -> bool) {
        self.durations.retain(|one| has(one.nr));
        let mut cut = Vec::new();
        // Most filters let in most calls, and most profiles have none.
        self.sequences.retain(|sequence, count| {
            let whole = sequence.numbers().all(&has);
            if !whole {
                cut.extend(sequence.of(&has).map(|left| (left, *count)));
            }
            whole
        });
        for (left, count) in cut {
            let sum = self.sequences.entry(left).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn sequence(numbers: &[u32]) -> Sequence {
        numbers.iter().fold(Sequence::default(), |s, &nr| s.then(nr))
    }

    #[test]
    fn a_window_has_the_difference_also_over_a_wrapped_bucket() {
        let before = sort(&[latency(1, 500, 3, u32::MAX)]);
        let after = sort(&[latency(1, 900, 3, 1), latency(2, 7, 0, 1)]);
        let durations = between(&before[&Slot(1)], &after[&Slot(1)]);
        let told: Vec<_> = durations
            .iter()
            .map(|one| (one.nr, one.sum_ns, one.buckets[3]))
            .collect();
        assert_eq!(told, [(1, 400, 2), (2, 7, 0)]);
    }

    #[test]
    fn what_is_left_out_is_in_no_sequence() {
        let mut detail = Detail {
            durations: between(
                &Latencies::new(),
                &sort(&[latency(1, 9, 3, 1), latency(2, 7, 0, 1)])[&Slot(1)],
            ),
            sequences: [
                (sequence(&[1, 3]), 4),
                (sequence(&[2, 1, 3]), 5),
                (sequence(&[1, 2]), 6),
                (sequence(&[3, 2, 3, 1]), 7),
            ]
            .into(),
        };
        detail.retain(|nr| nr != 2);
        assert_eq!(detail.durations.len(), 1);
        assert_eq!(
            detail.sequences,
            Sequences::from([(sequence(&[1, 3]), 9), (sequence(&[3, 1]), 7)])
        );
    }
}
