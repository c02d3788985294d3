//! Which of a window's sequences of calls made its score, for whoever is told of it.
//!
//! A call out of place is in as many sequences as a sequence has calls, each one call further on. Named one after the other
//! they would say one thing several times: of sequences that overlap by half or more, the oddest alone is named.

use crate::context::{Gram, ORDER};

/// Most sequences that are named.
pub const MAX_ODDEST: usize = 3;

/// A sequence of calls that made a window odd.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OddSequence {
    /// As [`Gram::id`].
    pub id: u64,
    /// Times that it came in the window.
    pub times: u32,
    /// Whether training saw it, or one that ends like it.
    pub seen: bool,
    /// −ln P of its last call after the others, in nats, where the estimator has such a thing.
    pub surprise: Option<f32>,
}

/// The oddest of them, by what comes with each; of equal ones the most frequent.
pub(super) fn oddest(all: impl Iterator<Item = (f32, OddSequence)>) -> Vec<OddSequence> {
    let mut all: Vec<(f32, OddSequence)> = all.collect();
    all.sort_unstable_by(|(odd, one), (other_odd, other)| {
        other_odd
            .total_cmp(odd)
            .then(other.times.cmp(&one.times))
            .then(one.id.cmp(&other.id))
    });
    let mut named: Vec<OddSequence> = Vec::with_capacity(MAX_ODDEST);
    for (_, one) in all {
        if named.len() == MAX_ODDEST {
            break;
        }
        if !named
            .iter()
            .any(|other| goes_on(one.id, other.id) || goes_on(other.id, one.id))
        {
            named.push(one);
        }
    }
    named
}

/// Whether a sequence begins as another ends, and has as many of its calls as come after that, or more.
fn goes_on(later: u64, earlier: u64) -> bool {
    (0..=ORDER / 2)
        .map(|calls| Gram::without_last(later, calls))
        .any(|begin| Gram::endings(earlier).any(|end| end == begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn odd(places: &[usize], times: u32) -> OddSequence {
        OddSequence {
            id: Gram::id_of(places.iter().copied()),
            times,
            seen: false,
            surprise: None,
        }
    }

    #[test]
    fn one_call_out_of_place_is_named_once() {
        // 9 comes after 1 to 5, and 6 to 8 and 1 to 2 after it; elsewhere 20 comes.
        let run = [1, 2, 3, 4, 5, 9, 6, 7, 8, 1, 2];
        let all = run.windows(ORDER).enumerate();
        let mut all: Vec<_> = all
            .map(|(at, places)| (10.0 - at as f32, odd(places, 1)))
            .collect();
        all.push((1.0, odd(&[20, 21], 4)));
        let named = oddest(all.into_iter());
        let ids: Vec<u64> = named.iter().map(|one| one.id).collect();
        // The first, then what has no more than two calls of it, then what is elsewhere.
        assert_eq!(
            ids,
            [&run[..6], &run[4..10], &[20, 21]].map(|places| Gram::id_of(places.iter().copied()))
        );
    }

    #[test]
    fn the_oddest_come_first_and_of_equal_ones_the_most_frequent() {
        let all = [
            (1.0, odd(&[1, 2], 9)),
            (f32::NAN, odd(&[9, 9], 1)),
            (3.0, odd(&[3, 4], 1)),
            (3.0, odd(&[5, 6], 2)),
            (0.0, odd(&[7, 8], 100)),
        ];
        let named: Vec<u32> = oddest(all.into_iter()).iter().map(|one| one.times).collect();
        assert_eq!(named, [1, 2, 1]);
        assert_eq!(oddest(std::iter::empty()), []);
    }

    proptest! {
        #[test]
        fn whatever_there_is_few_are_named_and_none_twice(
            all in prop::collection::vec(
                (any::<f32>(), prop::collection::vec(0usize..4, 2..=ORDER), any::<u32>()),
                0..100,
            ),
        ) {
            let named = oddest(all.iter().map(|(by, places, times)| (*by, odd(places, *times))));
            prop_assert!(named.len() <= MAX_ODDEST && named.is_empty() == all.is_empty());
            let ids: std::collections::BTreeSet<u64> = named.iter().map(|one| one.id).collect();
            prop_assert_eq!(ids.len(), named.len());
        }
    }
}
