//! A call and those that its thread made right before it, as one word.

use super::{Slot, Tally};

/// A call and up to five before it, in one thread: 10 bits for each as the kernel side packs them, the last one lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(u64);

/// Bits of one call, as in probe.bpf.c; 0 is none.
const BITS: u32 = 10;
/// Numbers that have codes of their own.
const NUMBERS: u32 = 512;
/// The code of what has no number here: those of x32 alone, and those that are in no table.
const OTHER: u64 = NUMBERS as u64 + 1;

impl Sequence {
    /// Calls in the longest.
    pub const CALLS: u32 = 6;

    pub(super) const fn read(word: u64) -> Self {
        Self(word)
    }

    /// This sequence, followed by a call of a number as in [`Tally::syscall`].
    #[must_use]
    pub fn then(self, nr: u32) -> Self {
        const ALL: u64 = (1 << (BITS * Sequence::CALLS)) - 1;
        let code = match (nr & Tally::COMPAT, nr & !Tally::COMPAT) {
            (0, nr) if nr < NUMBERS => u64::from(nr) + 1,
            (compat, nr) if compat > 0 && nr < NUMBERS - 2 => u64::from(nr) + OTHER + 1,
            _ => OTHER,
        };
        Self((self.0 << BITS | code) & ALL)
    }

    /// The calls, the earliest first, as in [`Tally::syscall`].
    pub fn numbers(self) -> impl Iterator<Item = u32> + Clone {
        (0..Self::CALLS).rev().filter_map(move |at| {
            let code = self.0 >> (BITS * at) & ((1 << BITS) - 1);
            match code {
                0 => None,
                OTHER => Some(Tally::UNKNOWN),
                code if code < OTHER => Some(code as u32 - 1),
                code => Some(Tally::COMPAT | (code - OTHER - 1) as u32),
            }
        })
    }

    /// Its last two calls; none where it has one.
    #[must_use]
    pub fn pair(self) -> Option<Self> {
        (self.0 >> BITS != 0).then_some(Self(self.0 & ((1 << (2 * BITS)) - 1)))
    }

    /// What is left of it where only calls for which `has` is true are looked at: what came after the last other one,
    /// if that is two calls or more.
    #[must_use]
    pub fn of(self, has: impl Fn(u32) -> bool) -> Option<Self> {
        let kept = self.numbers().fold(Self::default(), |kept, nr| match has(nr) {
            true => kept.then(nr),
            false => Self::default(),
        });
        kept.pair().map(|_| kept)
    }
}

/// How often a sequence came, in the active phases of the duty cycle, since it was asked for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gram {
    /// Whose.
    pub slot: Slot,
    /// Two calls or more.
    pub sequence: Sequence,
    /// Times.
    pub count: u64,
}

impl Gram {
    /// Adds what other CPUs have of the same.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let same = (self.slot, self.sequence) == (other.slot, other.sequence);
        if same {
            self.count = self.count.saturating_add(other.count);
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(numbers: &[u32]) -> Sequence {
        numbers.iter().fold(Sequence::default(), |s, &nr| s.then(nr))
    }

    #[test]
    fn calls_that_are_left_out_end_what_was_before() {
        let of = |numbers: &[u32]| sequence(numbers).of(|nr| nr != 9);
        assert_eq!(of(&[1, 9, 2, 3]), Some(sequence(&[2, 3])));
        assert_eq!(of(&[1, 2, 3, 4, 5, 6]), Some(sequence(&[1, 2, 3, 4, 5, 6])));
        for none in [&[1, 2, 9][..], &[1, 9, 2], &[9, 9], &[]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_has_no_number_is_unknown() {
        let odd = [
            Tally::UNKNOWN,
            Tally::COMPAT | Tally::UNKNOWN,
            Tally::X32 | 520,
            700,
        ];
        for nr in odd {
            assert!(sequence(&[nr]).numbers().eq([Tally::UNKNOWN]), "{nr:x}");
        }
        assert_eq!(sequence(&[3]).pair(), None);
        assert_eq!(sequence(&[0, 1, 2]).pair(), Some(sequence(&[1, 2])));
    }

    proptest! {
        #[test]
        fn the_last_six_calls_come_out_as_they_went_in(
            numbers in prop::collection::vec((0u32..510, any::<bool>()), 0..12),
        ) {
            let numbers: Vec<u32> = numbers
                .into_iter()
                .map(|(nr, compat)| if compat { Tally::COMPAT | nr } else { nr })
                .collect();
            let last = &numbers[numbers.len().saturating_sub(Sequence::CALLS as usize)..];
            prop_assert!(sequence(&numbers).numbers().eq(last.iter().copied()));
        }

        #[test]
        fn whatever_the_kernel_says_can_be_read(word: u64) {
            prop_assert!(Sequence::read(word).numbers().count() <= Sequence::CALLS as usize);
        }
    }
}
