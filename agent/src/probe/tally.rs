//! What the kernel side keeps, as it comes out: totals that only grow.

use super::batch::{half, word};

/// What the counters of one target are kept under. Never used again for another target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// One counter as the kernel has it: totals since the slot was made, over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Whose.
    pub slot: Slot,
    /// Number of the system call on this architecture. [`Tally::COMPAT`] is set where it was made through the
    /// 32-bit ABI, whose numbers mean other calls.
    pub syscall: u32,
    /// Calls that have returned.
    pub calls: u64,
    /// Those of them that returned an error.
    pub errors: u64,
}

impl Tally {
    /// Flag in [`Tally::syscall`]: made through the 32-bit ABI.
    pub const COMPAT: u32 = 1 << 31;
    /// Bytes for each CPU.
    pub(super) const SIZE: usize = 16;

    pub(super) fn read(key: &[u8], cpus: &[u8]) -> Self {
        let sum = |at| {
            cpus.chunks_exact(Self::SIZE)
                .fold(0u64, |sum, cpu| sum.wrapping_add(word(cpu, at)))
        };
        Self {
            slot: slot(key),
            syscall: half(key, 4),
            calls: sum(0),
            errors: sum(8),
        }
    }
}

/// How long the calls of one kind took, in the active phases of the duty cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Whose.
    pub slot: Slot,
    /// As in [`Tally::syscall`].
    pub syscall: u32,
    /// Nanoseconds of all calls that were measured.
    pub sum_ns: u64,
    /// Calls by the logarithm of their nanoseconds, base 2; the last bucket also holds all that took longer. These
    /// may wrap: take differences with `wrapping_sub`.
    pub buckets: [u32; Self::BUCKETS],
}

impl Latency {
    /// Number of buckets.
    pub const BUCKETS: usize = 32;
    pub(super) const SIZE: usize = 8 + 4 * Self::BUCKETS;

    pub(super) fn read(key: &[u8], cpus: &[u8]) -> Self {
        let mut latency = Self {
            slot: slot(key),
            syscall: half(key, 4),
            sum_ns: 0,
            buckets: [0; Self::BUCKETS],
        };
        for cpu in cpus.chunks_exact(Self::SIZE) {
            latency.sum_ns = latency.sum_ns.wrapping_add(word(cpu, 0));
            for (at, bucket) in latency.buckets.iter_mut().enumerate() {
                *bucket = bucket.wrapping_add(half(cpu, 8 + 4 * at));
            }
        }
        latency
    }

    /// Calls that were measured.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.buckets.iter().map(|calls| u64::from(*calls)).sum()
    }
}

/// How often one call came right after another in one thread, in the active phases of the duty cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gram {
    /// Whose.
    pub slot: Slot,
    /// Number of the call before; bit 15 marks the 32-bit ABI.
    pub first: u16,
    /// Number of the call after; bit 15 marks the 32-bit ABI.
    pub second: u16,
    /// Times.
    pub count: u64,
}

impl Gram {
    pub(super) const SIZE: usize = 8;

    pub(super) fn read(key: &[u8], cpus: &[u8]) -> Self {
        let count = cpus
            .chunks_exact(Self::SIZE)
            .fold(0u64, |sum, cpu| sum.wrapping_add(word(cpu, 0)));
        let pair = half(key, 4).to_ne_bytes();
        Self {
            slot: slot(key),
            first: u16::from_ne_bytes([pair[0], pair[1]]),
            second: u16::from_ne_bytes([pair[2], pair[3]]),
            count,
        }
    }
}

/// Every key begins with the slot.
pub(super) fn slot(key: &[u8]) -> Slot {
    Slot(half(key, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_cpus_are_summed() {
        let key = [7u32.to_ne_bytes(), 3u32.to_ne_bytes()].concat();
        let cpus: Vec<u8> = [5u64, 1, 10, 2].iter().flat_map(|n| n.to_ne_bytes()).collect();
        assert_eq!(
            Tally::read(&key, &cpus),
            Tally {
                slot: Slot(7),
                syscall: 3,
                calls: 15,
                errors: 3
            }
        );
        assert_eq!(Gram::read(&key, &cpus).count, 18);

        let mut one = 100u64.to_ne_bytes().to_vec();
        one.extend((0..32u32).flat_map(|n| if n == 4 { u32::MAX } else { n }.to_ne_bytes()));
        let latency = Latency::read(&key, &[one.clone(), one].concat());
        assert_eq!(
            (latency.sum_ns, latency.buckets[3], latency.buckets[4]),
            (200, 6, u32::MAX - 1)
        );
    }

    #[test]
    fn a_pair_of_calls_has_an_order() {
        let key = [&1u32.to_ne_bytes()[..], &9u16.to_ne_bytes(), &4u16.to_ne_bytes()].concat();
        let gram = Gram::read(&key, &1u64.to_ne_bytes());
        assert_eq!(
            (gram.slot, gram.first, gram.second, gram.count),
            (Slot(1), 9, 4, 1)
        );
    }
}
