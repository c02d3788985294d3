//! Which of a window's sequences of calls made its score, for whoever is told of it.
//!
//! A call out of place is in as many sequences as a sequence has calls, each one call further on, and what comes after the
//! same calls is now this and now that. Named one after the other they would say one thing several times, and nothing of what
//! else there was. So of sequences that are alike the oddest alone is named. Alike are those that have in common what makes
//! them news: calls in a row that training never saw. That calls in a row are the same does not do, since the usual ones stand
//! around whatever is odd in a program that does one thing over and over; but what begins alike, or goes on where another
//! began, is another look at one place, and what is odd further on in it is in the sequences after it too.
//!
//! The oddest of all is always named. Beside it, what training never saw goes before what it saw, however rarely: that is
//! news, and a rare sequence is not.

use crate::context::{Gram, ORDER};

/// Most sequences that are named.
pub const MAX_ODDEST: usize = 3;
/// Calls at a sequence's begin by which it is known where else it is; of a shorter one, all.
const BEGIN: usize = ORDER / 2;

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

/// Those that tell different things, the oddest first, by what comes with each; of equal ones the most frequent first.
/// `is_new` says of calls in a row, two or more, whether training never saw them.
pub(super) fn oddest(
    all: impl Iterator<Item = (f32, OddSequence)>,
    is_new: impl Fn(u64) -> bool,
) -> Vec<OddSequence> {
    let mut all: Vec<(f32, OddSequence)> = all.collect();
    all.sort_unstable_by(|(odd, one), (other_odd, other)| {
        other_odd
            .total_cmp(odd)
            .then(other.times.cmp(&one.times))
            .then(one.id.cmp(&other.id))
    });
    let (unseen, seen): (Vec<usize>, Vec<usize>) = (1..all.len()).partition(|&at| !all[at].1.seen);
    let first = (!all.is_empty()).then_some(0);
    let mut named: Vec<usize> = Vec::with_capacity(MAX_ODDEST);
    let mut told: Vec<u64> = Vec::new();
    for at in first.into_iter().chain(unseen).chain(seen) {
        if named.len() == MAX_ODDEST {
            break;
        }
        let id = all[at].1.id;
        let is_told = runs(id).any(|run| told.contains(&run));
        if !is_told && !named.iter().any(|&other| is_one_place(id, all[other].1.id)) {
            told.extend(runs(id).filter(|&run| is_new(run)));
            named.push(at);
        }
    }
    named.sort_unstable();
    named.into_iter().map(|at| all[at].1).collect()
}

/// All calls in a row of a sequence, two and more.
fn runs(id: u64) -> impl Iterator<Item = u64> {
    (2..=ORDER).flat_map(move |calls| Gram::runs(id, calls))
}

/// Whether one begins as another does or ends, or in the midst of it.
fn is_one_place(one: u64, other: u64) -> bool {
    let begins_in = |one, other| {
        let begin = Gram::latest_first(one).count().min(BEGIN);
        let begins = Gram::runs(one, begin).last();
        begins.is_some_and(|begins| Gram::runs(other, begin).any(|run| run == begins))
    };
    begins_in(one, other) || begins_in(other, one)
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

    /// To whom each of these calls is new, whatever it comes after.
    fn new_calls(new: &[usize]) -> impl Fn(u64) -> bool {
        move |run| Gram::latest_first(run).any(|call| new.contains(&call))
    }

    fn ids(named: &[OddSequence]) -> Vec<u64> {
        named.iter().map(|one| one.id).collect()
    }

    #[test]
    fn one_call_out_of_place_is_named_once() {
        // 9 comes after 1 to 5, and 6 to 8 and 1 to 3 after it; elsewhere 20 comes.
        let run = [1, 2, 3, 4, 5, 9, 6, 7, 8, 1, 2, 3];
        let all = run.windows(ORDER).enumerate();
        let mut all: Vec<_> = all
            .map(|(at, places)| (10.0 - at as f32, odd(places, 1)))
            .collect();
        all.push((1.0, odd(&[20, 21], 4)));
        let named = oddest(all.into_iter(), new_calls(&[9, 20]));
        // The first, then what has none of the calls in a row of it that are news, then what is elsewhere.
        assert_eq!(
            ids(&named),
            [&run[..6], &run[5..11], &[20, 21]].map(|places| Gram::id_of(places.iter().copied()))
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
        let named = oddest(all.into_iter(), |_| true);
        assert_eq!(named.iter().map(|one| one.times).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(oddest(std::iter::empty(), |_| true), []);
    }

    #[test]
    fn what_is_alike_does_not_keep_the_rest_out() {
        let exec = [30, 59];
        for (new, alike) in [
            // The same begin, and ever other ends.
            (
                &[6, 7, 8][..],
                [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 5, 8]],
            ),
            // The same end, which is what is new.
            (
                &[4],
                [[6, 1, 2, 3, 4, 5], [7, 8, 2, 3, 4, 5], [9, 10, 11, 3, 4, 5]],
            ),
            // The same further on, in either order.
            (&[0], [[1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8]]),
            (&[0], [[3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6]]),
            // What is new is in the middle.
            (
                &[2],
                [
                    [9, 1, 2, 3, 10, 11],
                    [12, 13, 1, 2, 14, 15],
                    [16, 17, 18, 1, 2, 3],
                ],
            ),
        ] {
            let all = (0..)
                .zip(&alike)
                .map(|(at, calls)| (9.0 - at as f32, odd(calls, 1)));
            let all = all.chain([(2.0, odd(&exec, 1))]);
            let named = oddest(all, new_calls(new));
            assert_eq!(
                ids(&named),
                [Gram::id_of(alike[0]), Gram::id_of(exec)],
                "{alike:?}"
            );
        }
        // Short ones, as a thread begins with them.
        let all = [(3.0, odd(&[4, 1, 2], 1)), (2.0, odd(&[1, 2], 1))];
        assert_eq!(oddest(all.into_iter(), |_| false).len(), 1);
    }

    #[test]
    fn usual_calls_around_them_do_not_make_two_things_one() {
        // A program of four calls, in which 8 came once and 9 elsewhere.
        let sequences = |run: &[usize]| run.windows(ORDER).map(|calls| odd(calls, 1)).collect::<Vec<_>>();
        let (one, other) = (
            sequences(&[1, 2, 3, 4, 1, 8, 2, 3, 4, 1, 2]),
            sequences(&[1, 2, 3, 4, 1, 9, 2, 3, 4, 1, 2]),
        );
        let all = one.into_iter().map(|one| (5.0, one));
        let named = oddest(
            all.chain(other.into_iter().map(|one| (4.0, one))),
            new_calls(&[8, 9]),
        );
        let has = |call| {
            named
                .iter()
                .any(|one| Gram::latest_first(one.id).any(|place| place == call))
        };
        assert!(has(8) && has(9), "{named:x?}");
    }

    #[test]
    fn beside_the_oddest_what_was_never_seen_goes_before_what_is_rare() {
        let seen = |places: &[usize]| OddSequence {
            seen: true,
            ..odd(places, 1)
        };
        let all = [
            (9.0, seen(&[1, 2])),
            (8.0, seen(&[3, 4])),
            (7.0, seen(&[5, 6])),
            (6.0, odd(&[7, 8], 1)),
        ];
        let named = oddest(all.into_iter(), new_calls(&[7]));
        assert_eq!(ids(&named), [[1, 2], [3, 4], [7, 8]].map(Gram::id_of));
    }

    /// What is odd in a window, each sequence once, and which pairs of calls training never saw.
    fn window() -> impl Strategy<Value = (Vec<(f32, OddSequence)>, u64)> {
        let one = (any::<f32>(), prop::collection::vec(0usize..8, 2..=ORDER), 1u32..5);
        (prop::collection::vec(one, 0..100), any::<u64>(), any::<u64>()).prop_map(|(all, some, others)| {
            let new = some & others;
            let odd = |(by, places, times): (f32, Vec<usize>, u32)| {
                let seen = !has_new(new)(Gram::id_of(places.iter().copied()));
                (
                    by,
                    OddSequence {
                        seen,
                        ..odd(&places, times)
                    },
                )
            };
            let ids: std::collections::BTreeMap<u64, (f32, OddSequence)> = all
                .into_iter()
                .map(odd)
                .map(|(by, one)| (one.id, (by, one)))
                .collect();
            (ids.into_values().collect(), new)
        })
    }

    fn has_new(pairs: u64) -> impl Fn(u64) -> bool + Copy {
        move |run| {
            let calls: Vec<usize> = Gram::latest_first(run).collect();
            calls
                .windows(2)
                .any(|two| pairs >> (8 * two[0] + two[1]) & 1 == 1)
        }
    }

    fn are_alike(one: u64, other: u64, is_new: impl Fn(u64) -> bool) -> bool {
        is_one_place(one, other) || runs(one).any(|run| is_new(run) && runs(other).any(|other| other == run))
    }

    proptest! {
        #[test]
        fn few_are_named_and_each_tells_what_no_other_does((all, pairs) in window()) {
            let named = oddest(all.iter().copied(), has_new(pairs));
            prop_assert!(named.len() <= MAX_ODDEST && named.is_empty() == all.is_empty());
            for (at, one) in named.iter().enumerate() {
                prop_assert!(all.iter().any(|(_, known)| known == one));
                for other in &named[..at] {
                    prop_assert!(!are_alike(one.id, other.id, has_new(pairs)), "{one:x?} {other:x?}");
                }
            }
            // Who is passed over is like one that is named, or there is no room.
            let told = |id| named.iter().any(|one| are_alike(one.id, id, has_new(pairs)));
            prop_assert!(named.len() == MAX_ODDEST || all.iter().all(|(_, one)| told(one.id)));
        }

        #[test]
        fn the_oddest_is_the_first_and_none_seen_takes_the_place_of_one_unseen((all, pairs) in window()) {
            let named = oddest(all.iter().copied(), has_new(pairs));
            let by = |id| all.iter().find(|(_, one)| one.id == id).map(|(by, _)| *by).expect("of the window");
            prop_assert!(all.iter().all(|(odd, _)| odd.total_cmp(&by(named[0].id)).is_le()));
            prop_assert!(named.iter().map(|one| by(one.id)).is_sorted_by(|a, b| a.total_cmp(b).is_ge()));
            if named.iter().skip(1).any(|one| one.seen) {
                let before: Vec<u64> =
                    named.iter().enumerate().filter(|(at, one)| *at == 0 || !one.seen).map(|(_, one)| one.id).collect();
                for (_, one) in all.iter().filter(|(_, one)| !one.seen) {
                    prop_assert!(before.iter().any(|&other| are_alike(one.id, other, has_new(pairs))));
                }
            }
        }

        #[test]
        fn the_order_in_which_they_come_is_no_matter(((all, pairs), shuffled) in window().prop_flat_map(|(all, pairs)| {
            (Just((all.clone(), pairs)), Just(all).prop_shuffle())
        })) {
            prop_assert_eq!(oddest(all.into_iter(), has_new(pairs)), oddest(shuffled.into_iter(), has_new(pairs)));
        }
    }
}
