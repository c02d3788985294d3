//! Which calls come right after which: a language model and STIDE over a window's pairs of calls.
//!
//! The language model is a bigram one with Witten and Bell's estimate of the chance of something new (IEEE Trans. Inf.
//! Theory 37, 1991), as [`super::ngram`] is with whole sequences: after a call that was seen n times with t distinct
//! successors, P(c) = (count(c) + t · P'(c)) / (n + t), where P' is the same without a call before it, and uniform below
//! that. The score is the mean of −ln P in nats over the window's pairs, each weighing ln(1 + its count): a shell's
//! hundred calls would not be seen in a plain mean beside a server's million.
//!
//! STIDE (Forrest, Hofmeyr, Somayaji and Longstaff, IEEE S&P 1996) asks only whether a pair was ever seen: the score is
//! the share of the window's distinct pairs that were not.
//!
//! A window of which no pairs were counted has no score.

use super::{Refused, rule};
use crate::context::{Context, PLACES, Pair, PairCounts};

/// How surprising each pair is, worked out once.
#[derive(Debug, Clone, PartialEq)]
pub struct Bigrams {
    /// Pairs of training, and −ln P of the second call after the first.
    seen: Vec<(u16, f32)>,
    /// −ln of the chance that a call's successor is new, by place; 0 for a call that never had a successor.
    new: Box<[f32; PLACES]>,
    /// −ln P of a call whatever was before it, by place.
    alone: Box<[f32; PLACES]>,
}

impl Bigrams {
    /// The model's name.
    pub const NAME: &str = "n-gram";
    /// Smallest scale of the calibrated tail. One new call makes three new pairs, of some hundred, and .04 nats; three
    /// new calls must be told from that.
    pub(crate) const LEAST_SCALE: f32 = 0.02;

    /// From the counts of training.
    ///
    /// # Errors
    /// Counts out of order or range, or none.
    pub fn new(counts: &PairCounts) -> Result<Self, Refused> {
        check(counts, Self::NAME)?;
        let mut total = [0.0f64; PLACES];
        let mut distinct = [0.0f64; PLACES];
        let mut second = [0.0f64; PLACES];
        let places = |id: u16| (usize::from(id) / PLACES, usize::from(id) % PLACES);
        for &(id, count) in &counts.seen {
            let (before, after) = places(id);
            total[before] += count as f64;
            distinct[before] += 1.0;
            second[after] += count as f64;
        }
        let all: f64 = second.iter().sum();
        let kinds = second.iter().filter(|&&n| n > 0.0).count() as f64;
        // One more than was seen, so that a call that was never seen has a share too.
        let uniform = 1.0 / (kinds + 1.0);
        let alone = second.map(|n| (n + kinds * uniform) / (all + kinds));
        let new = std::array::from_fn(|a| {
            if total[a] > 0.0 {
                -(distinct[a] / (total[a] + distinct[a])).ln() as f32
            } else {
                0.0
            }
        });
        let surprise = |&(id, count): &(u16, u64)| {
            let (a, b) = places(id);
            let p = (count as f64 + distinct[a] * alone[b]) / (total[a] + distinct[a]);
            (id, -p.min(1.0).ln() as f32)
        };
        Ok(Self {
            seen: counts.seen.iter().map(surprise).collect(),
            new: Box::new(new),
            alone: Box::new(alone.map(|p| -p.ln() as f32)),
        })
    }

    /// −ln P of a pair's second call after its first, in nats.
    pub fn surprise(&self, id: u16) -> f32 {
        match self.seen.binary_search_by_key(&id, |seen| seen.0) {
            Ok(at) => self.seen[at].1,
            Err(_) => {
                let (a, b) = (usize::from(id) / PLACES, usize::from(id) % PLACES);
                self.new.get(a).copied().unwrap_or(0.0) + self.alone[b]
            }
        }
    }

    /// Mean surprise of a window's pairs, in nats; none without pairs.
    pub fn score(&self, context: &Context) -> Option<f32> {
        let (mut sum, mut weights) = (0.0f64, 0.0f64);
        for &Pair { id, count } in context.pairs() {
            let weight = f64::from(count).ln_1p();
            sum += weight * f64::from(self.surprise(id));
            weights += weight;
        }
        (weights > 0.0).then(|| (sum / weights) as f32)
    }
}

/// The pairs of training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stide {
    seen: Vec<u16>,
}

impl Stide {
    /// The model's name.
    pub const NAME: &str = "stide";
    /// Smallest scale of the calibrated tail: one new call makes three new pairs, of some hundred.
    pub(crate) const LEAST_SCALE: f32 = 0.01;

    /// From the counts of training.
    ///
    /// # Errors
    /// Counts out of order or range, or none.
    pub fn new(counts: &PairCounts) -> Result<Self, Refused> {
        check(counts, Self::NAME)?;
        Ok(Self {
            seen: counts.seen.iter().map(|seen| seen.0).collect(),
        })
    }

    /// Share of a window's distinct pairs that training never saw, in [0, 1]; none without pairs.
    pub fn score(&self, context: &Context) -> Option<f32> {
        let pairs = context.pairs();
        let unseen = pairs
            .iter()
            .filter(|pair| self.seen.binary_search(&pair.id).is_err())
            .count();
        (!pairs.is_empty()).then(|| unseen as f32 / pairs.len() as f32)
    }
}

fn check(counts: &PairCounts, name: &'static str) -> Result<(), Refused> {
    rule(!counts.seen.is_empty(), name, "there are no pairs of calls")?;
    rule(
        counts.is_valid(),
        name,
        "pairs ascend within range, with counts above 0",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimators::ngram::{self, EMPTY, History, NgramModel, followed, further};
    use proptest::prelude::*;

    fn counts() -> impl Strategy<Value = PairCounts> {
        prop::collection::btree_map(0u16..(PLACES * PLACES) as u16, 1u64..1 << 40, 1..80).prop_map(|seen| {
            PairCounts {
                seen: seen.into_iter().collect(),
            }
        })
    }

    fn context(pairs: &[(u16, u32)]) -> Context {
        let pairs = pairs.iter().map(|&(id, count)| Pair { id, count }).collect();
        Context::new(pairs, vec![]).expect("a context")
    }

    /// The same counts as the model of whole sequences has them.
    fn of_sequences(counts: &PairCounts) -> NgramModel {
        let (mut contexts, mut grams) = (
            std::collections::BTreeMap::new(),
            std::collections::BTreeMap::new(),
        );
        for &(id, count) in &counts.seen {
            let (a, b) = (id / PLACES as u16, id % PLACES as u16);
            let count = count as u32;
            for key in [EMPTY, further(EMPTY, a)] {
                let new = !grams.contains_key(&followed(key, b));
                *grams.entry(followed(key, b)).or_insert(0) += count;
                let (total, distinct) = contexts.entry(key).or_insert((0, 0));
                *total += count;
                *distinct += u32::from(new);
            }
        }
        let alphabet: std::collections::BTreeSet<u16> =
            counts.seen.iter().map(|s| s.0 % PLACES as u16).collect();
        NgramModel {
            order: 2,
            alphabet: alphabet.len() as u32,
            contexts: contexts
                .into_iter()
                .map(|(key, (total, distinct))| ngram::Context { key, total, distinct })
                .collect(),
            grams: grams
                .into_iter()
                .map(|(key, count)| ngram::Gram { key, count })
                .collect(),
        }
    }

    #[test]
    fn counts_that_break_a_rule_are_refused() {
        for seen in [vec![], vec![(1, 0)], vec![(2, 1), (1, 1)], vec![(1 << 14, 1)]] {
            let counts = PairCounts { seen };
            assert!(
                Bigrams::new(&counts).is_err() && Stide::new(&counts).is_err(),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_few_new_calls_beside_a_million_are_seen() {
        let usual: Vec<(u16, u64)> = (0..40).map(|i| (Pair::id_of(i % 8, i / 8), 1_000_000)).collect();
        let usual = PairCounts {
            seen: {
                let mut all = usual;
                all.sort_unstable();
                all
            },
        };
        let (bigrams, stide) = (
            Bigrams::new(&usual).expect("fits"),
            Stide::new(&usual).expect("fits"),
        );
        let mut pairs: Vec<(u16, u32)> = usual.seen.iter().map(|&(id, _)| (id, 100_000)).collect();
        let (normal, share) = (bigrams.score(&context(&pairs)), stide.score(&context(&pairs)));
        assert_eq!(share, Some(0.0));
        pairs.extend((0..9).map(|i| (Pair::id_of(20 + i, 21), 1)));
        let odd = bigrams
            .score(&context(&pairs))
            .zip(normal)
            .map(|(odd, normal)| odd - normal);
        assert!(odd > Some(0.1), "{odd:?}");
        assert_eq!(stide.score(&context(&pairs)), Some(9.0 / 49.0));
    }

    proptest! {
        #[test]
        fn the_model_of_sequences_says_the_same(
            seen in prop::collection::btree_map(0u16..(PLACES * PLACES) as u16, 1u64..1000, 1..60),
            ids in prop::collection::vec(0u16..(PLACES * PLACES) as u16, 20),
        ) {
            let counts = PairCounts { seen: seen.into_iter().collect() };
            let (ours, theirs) = (Bigrams::new(&counts).expect("fits"), of_sequences(&counts));
            for id in counts.seen.iter().map(|s| s.0).chain(ids) {
                let mut history = History::default();
                history.push(id / PLACES as u16);
                let expected = theirs.surprise(&history, id % PLACES as u16);
                prop_assert!((f64::from(ours.surprise(id)) - expected).abs() < 1e-4, "{}", id);
            }
        }

        #[test]
        fn what_may_follow_a_call_adds_up_to_one(counts in counts(), pick in any::<prop::sample::Index>()) {
            let model = Bigrams::new(&counts).expect("fits");
            let first = counts.seen[pick.index(counts.seen.len())].0 / PLACES as u16;
            let seconds: std::collections::BTreeSet<u16> = counts.seen.iter().map(|s| s.0 % PLACES as u16).collect();
            let unseen = (0..PLACES as u16).find(|place| !seconds.contains(place));
            let sum: f64 = seconds.iter().copied().chain(unseen)
                .map(|second| f64::from(-model.surprise(first * PLACES as u16 + second)).exp())
                .sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{}", sum);
        }

        #[test]
        fn scores_are_finite_and_within_bounds(
            counts in counts(),
            pairs in prop::collection::btree_map(0u16..(PLACES * PLACES) as u16, 1u32.., 1..60),
        ) {
            let pairs: Vec<(u16, u32)> = pairs.into_iter().collect();
            let window = context(&pairs);
            let surprise = Bigrams::new(&counts).expect("fits").score(&window).expect("pairs");
            prop_assert!(surprise.is_finite() && surprise >= 0.0);
            let share = Stide::new(&counts).expect("fits").score(&window).expect("pairs");
            prop_assert!((0.0..=1.0).contains(&share));
        }

        #[test]
        fn what_was_trained_on_is_no_news(counts in counts()) {
            let pairs: Vec<(u16, u32)> = counts.seen.iter().map(|&(id, n)| (id, n.min(1 << 31) as u32)).collect();
            let window = context(&pairs);
            prop_assert_eq!(Stide::new(&counts).expect("fits").score(&window), Some(0.0));
            // Everything new, after calls never made, is more of a surprise.
            let model = Bigrams::new(&counts).expect("fits");
            let last = (PLACES * PLACES - 1) as u16;
            if !counts.seen.iter().any(|s| s.0 % PLACES as u16 == last % PLACES as u16) {
                prop_assert!(model.score(&context(&[(last, 1)])) >= model.score(&window));
            }
        }

        #[test]
        fn without_pairs_nothing_is_said(counts in counts()) {
            prop_assert_eq!(Bigrams::new(&counts).expect("fits").score(Context::NONE), None);
            prop_assert_eq!(Stide::new(&counts).expect("fits").score(Context::NONE), None);
        }
    }
}
