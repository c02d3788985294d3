//! What the kernel side keeps, as it comes out: totals that only grow.

use super::batch::{half, word};
use super::object::GROUPS;
use super::{Gram, ProgramCost, Sequence};
use vigia_model::syscalls;

/// What the counters of one target are kept under. Never used again for another target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// One counter as the kernel has it: totals since the slot was made, over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Whose.
    pub slot: Slot,
    /// Number of the system call on this architecture, or [`Tally::UNKNOWN`]. [`Tally::COMPAT`] is set where it was
    /// made through the 32-bit ABI, whose numbers mean other calls, and [`Tally::X32`] for numbers that only x32 has.
    pub syscall: u32,
    /// Calls that have returned.
    pub calls: u64,
    /// Those of them that returned an error.
    pub errors: u64,
}

impl Tally {
    /// Flag in [`Tally::syscall`]: made through the 32-bit ABI.
    pub const COMPAT: u32 = syscalls::IA32;
    /// Flag in [`Tally::syscall`]: made through x32, by a number that x86_64 does not have.
    pub const X32: u32 = syscalls::X32;
    /// Stands for every number that is in no table, beside the flags: a target that invents numbers fills no table.
    pub const UNKNOWN: u32 = 0x3fff;
    /// Bytes for each CPU.
    pub(super) const SIZE: usize = 16;

    /// By slot, then by call, as one number: comparing is most of a drain's own work.
    pub(super) fn order(&self) -> u64 {
        u64::from(self.slot.0) << 32 | u64::from(self.syscall)
    }

    /// Adds what other CPUs, or another table, have of the same.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let same = (self.slot, self.syscall) == (other.slot, other.syscall);
        if same {
            self.calls = self.calls.wrapping_add(other.calls);
            self.errors = self.errors.wrapping_add(other.errors);
        }
        same
    }

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

    /// Adds what other CPUs, or another table, have of the same.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let same = (self.slot, self.syscall) == (other.slot, other.syscall);
        if same {
            self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
            for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
                *bucket = bucket.wrapping_add(*more);
            }
        }
        same
    }

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

/// Bytes in front of the value of a place: who keeps it.
const OWNER: usize = 16;

/// Bytes of a place with a value of `size`.
pub(super) const fn place_size(size: usize) -> usize {
    OWNER + size
}

/// Places in one element, by the size of their values; as in probe.bpf.c.
pub(super) const fn places_of(size: usize) -> usize {
    match size {
        Tally::SIZE => 1024,
        _ => 128,
    }
}

/// Bytes of what each CPU has seen last, of the programs' costs, which are behind it, and of the places near by.
pub(super) const SEEN_SIZE: usize = SEEN + 3 * COST + NEAR * place_size(Tally::SIZE);
const SEEN: usize = 32;
const COST: usize = 24;
/// As in probe.bpf.c.
const NEAR: usize = 512;

/// Costs of the exit and the entry program, and of the exit program where it measures, too.
pub(super) fn costs(cpus: &[u8]) -> [ProgramCost; 3] {
    [0, 1, 2].map(|program| {
        let mut cost = ProgramCost::default();
        for cpu in cpus.chunks_exact(SEEN_SIZE) {
            let at = SEEN + program * COST;
            cost.runs += word(cpu, at);
            cost.timed_runs += word(cpu, at + 8);
            cost.timed_ns += word(cpu, at + 16);
        }
        cost
    })
}

/// The tallies that have places near what each CPU has seen last.
pub(super) fn near(seen: &[u8], each: impl FnMut(&[u8], &[u8])) {
    places_behind(SEEN + 3 * COST, seen, NEAR, Tally::SIZE, each);
}

/// The places of a per-CPU array's element: key and value of each that is kept, CPU by CPU, those of one place together.
pub(super) fn places(element: &[u8], places: usize, value: usize, each: impl FnMut(&[u8], &[u8])) {
    places_behind(0, element, places, value, each);
}

fn places_behind(
    head: usize,
    element: &[u8],
    places: usize,
    value: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) {
    let size = OWNER + value;
    for place in 0..places {
        for cpu in element.chunks_exact(head + places * size) {
            let one = &cpu[head + place * size..][..size];
            if word(one, 0) != 0 {
                each(&one[..8], &one[OWNER..]);
            }
        }
    }
}

/// As in probe.bpf.c: bytes of a group's places for sequences, and of what is taken of a half of them.
pub(super) const GRAM_GROUP: usize = 1024 * GRAM;
pub(super) const GRAM_SHARES: usize = GROUPS as usize * 4 + 1024 * 2;
const GRAM: usize = 16;

/// Whether any CPU has taken places of a group.
pub(super) fn is_taken(shares: &[u8], group: u32) -> bool {
    let at = group as usize * 4;
    shares.chunks_exact(GRAM_SHARES).any(|cpu| half(cpu, at) > 0)
}

/// The sequences of a group's places, of each CPU by itself. A place that was cleared while the kernel side took it has no
/// sequence.
pub(super) fn grams(element: &[u8], mut each: impl FnMut(Gram)) {
    for place in element.chunks_exact(GRAM) {
        let gram = Gram {
            slot: Slot(half(place, 8)),
            sequence: Sequence::read(word(place, 0)),
            count: u64::from(half(place, 12)),
        };
        if gram.slot.0 > 0 && gram.count > 0 && gram.sequence.pair().is_some() {
            each(gram);
        }
    }
}

/// Sorts what was read from `from` on, and makes one of what is of the same target and call.
pub(super) fn unite<T, K: Ord>(
    all: &mut Vec<T>,
    from: usize,
    key: impl Fn(&T) -> K,
    merge: impl Fn(&mut T, &T) -> bool,
) {
    all[from..].sort_unstable_by_key(key);
    let mut last = from;
    for at in from + 1..all.len() {
        let (kept, rest) = all.split_at_mut(at);
        if !merge(&mut kept[last], &rest[0]) {
            last += 1;
            all.swap(last, at);
        }
    }
    if from < all.len() {
        all.truncate(last + 1);
    }
}

/// Drops those of slots, by which they are sorted, that are nobody's any more; each slot is asked for once.
pub(super) fn keep<T>(
    all: &mut Vec<T>,
    from: usize,
    slot: impl Fn(&T) -> Slot,
    mut is_kept: impl FnMut(Slot) -> bool,
) {
    let mut known: Option<(Slot, bool)> = None;
    let mut at = 0;
    all.retain(|one| {
        at += 1;
        if at <= from {
            return true;
        }
        let slot = slot(one);
        match known {
            Some((last, kept)) if last == slot => kept,
            _ => known.insert((slot, is_kept(slot))).1,
        }
    });
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

        let mut one = 100u64.to_ne_bytes().to_vec();
        one.extend((0..32u32).flat_map(|n| if n == 4 { u32::MAX } else { n }.to_ne_bytes()));
        let cpus = [one.clone(), one].concat();
        let latency = Latency::read(&key, &cpus);
        assert_eq!(
            (latency.sum_ns, latency.buckets[3], latency.buckets[4]),
            (200, 6, u32::MAX - 1)
        );
    }

    #[test]
    fn what_two_tables_have_of_one_call_is_one_tally() {
        let tally = |slot, syscall, calls| Tally {
            slot: Slot(slot),
            syscall,
            calls,
            errors: 1,
        };
        let mut all = vec![
            tally(9, 9, 9),
            tally(2, 1, 5),
            tally(1, 1, 1),
            tally(2, 1, 6),
            tally(1, 1, 2),
            tally(1, 3, 1),
        ];
        unite(&mut all, 1, Tally::order, Tally::merge);
        let got = |all: &[Tally]| -> Vec<_> {
            let told = all.iter();
            told.map(|one| (one.slot.0, one.syscall, one.calls, one.errors))
                .collect()
        };
        assert_eq!(
            got(&all),
            [(9, 9, 9, 1), (1, 1, 3, 2), (1, 3, 1, 1), (2, 1, 11, 2)]
        );
        let mut asked = Vec::new();
        keep(
            &mut all,
            1,
            |one| one.slot,
            |slot| {
                asked.push(slot.0);
                slot.0 == 2
            },
        );
        assert_eq!(
            (got(&all), asked),
            (vec![(9, 9, 9, 1), (2, 1, 11, 2)], vec![1, 2])
        );
        let mut none: Vec<Tally> = vec![];
        unite(&mut none, 0, |one| one.slot, Tally::merge);
        assert!(none.is_empty());
    }

    #[test]
    fn sequences_are_read_where_a_place_is_taken() {
        let place = |sequence: u64, slot: u32, count: u32| {
            let mut bytes = sequence.to_ne_bytes().to_vec();
            bytes.extend([slot, count].iter().flat_map(|n| n.to_ne_bytes()));
            bytes
        };
        let element = [
            place(5 << 10 | 6, 3, 9),
            place(7 << 10 | 8, 0, 0),
            place(0, 4, 1),
            place(8 << 10 | 8, 4, 1),
        ]
        .concat();
        let mut told = Vec::new();
        grams(&element, |gram| {
            told.push((
                gram.slot.0,
                gram.sequence.numbers().collect::<Vec<_>>(),
                gram.count,
            ));
        });
        assert_eq!(told, [(3, vec![4, 5], 9), (4, vec![7, 7], 1)]);
        let mut shares = vec![0; 2 * GRAM_SHARES];
        shares[GRAM_SHARES + 8] = 1;
        let taken: Vec<u32> = (0..GROUPS).filter(|&group| is_taken(&shares, group)).collect();
        assert_eq!(taken, [2]);
    }

    #[test]
    fn places_that_nobody_keeps_are_passed_over() {
        let place = |key: u64, value: u64| [key, 0, value].map(u64::to_ne_bytes).concat();
        let (cpu0, cpu1) = (
            [place(5, 1), place(0, 7)].concat(),
            [place(5, 2), place(6, 3)].concat(),
        );
        let mut seen = Vec::new();
        places(&[cpu0, cpu1].concat(), 2, 8, |key, value| {
            seen.push((word(key, 0), word(value, 0)));
        });
        assert_eq!(seen, [(5, 1), (5, 2), (6, 3)]);
    }

    #[test]
    fn places_near_what_was_seen_are_behind_it_and_the_costs() {
        let mut cpu = vec![0; SEEN_SIZE];
        let last = SEEN_SIZE - place_size(Tally::SIZE);
        for (at, key) in [(104, 5u64), (last, 6)] {
            cpu[at..at + 8].copy_from_slice(&key.to_ne_bytes());
            cpu[at + OWNER..at + OWNER + 8].copy_from_slice(&7u64.to_ne_bytes());
        }
        // Neither are the costs places.
        cpu[SEEN..SEEN + 8].copy_from_slice(&9u64.to_ne_bytes());
        let mut found = Vec::new();
        near(&[cpu.clone(), cpu].concat(), |key, value| {
            found.push((word(key, 0), word(value, 0)));
        });
        assert_eq!(found, [(5, 7), (5, 7), (6, 7), (6, 7)]);
    }
}
