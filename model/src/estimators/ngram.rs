//! N-gram language model and STIDE over sequences of system calls.
//!
//! The model is interpolated with Witten and Bell's estimate of the chance of something new (IEEE Trans. Inf.
//! Theory 37, 1991; Chen and Goodman 1998, section 2.6): in a context seen n times with t distinct successors,
//! P(c) = (count(c) + t · P'(c)) / (n + t), where P' is the estimate in the context that is one call shorter,
//! and uniform below the empty one. The score of a call is −ln P(c) in nats.
//!
//! STIDE (Forrest, Hofmeyr, Somayaji and Longstaff, IEEE S&P 1996) asks only whether a window of calls was
//! ever seen; it reads the same table.
//!
//! Contexts and n-grams are kept as 64-bit fingerprints in sorted arrays, so that a model is a few bytes an
//! n-gram whatever its order. Two of a million n-grams share one with a chance of about 3e-8.

use super::{Refused, rule};
use crate::bounded;
use serde::{Deserialize, Serialize};

/// Longest n-gram.
pub const MAX_ORDER: usize = 16;
/// Most contexts, and most n-grams, in one model.
pub const MAX_ENTRIES: usize = 1 << 24;

const NAME: &str = "n-gram model";

/// A system call number, as traced.
pub type Call = u16;

/// What followed a context in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Fingerprint of the calls.
    pub key: u64,
    /// How often it was followed by a call.
    pub total: u32,
    /// By how many distinct calls.
    pub distinct: u32,
}

/// A context and the call that followed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gram {
    /// Fingerprint of the context and the call.
    pub key: u64,
    /// How often it was seen.
    pub count: u32,
}

/// A trained model. Both lists ascend by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NgramModel {
    /// Calls in the longest n-gram: one more than the longest context.
    pub order: u32,
    /// Distinct calls of the training data.
    pub alphabet: u32,
    /// Contexts of 0 to order − 1 calls.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_ENTRIES>")]
    pub contexts: Vec<Context>,
    /// N-grams of 1 to order calls.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_ENTRIES>")]
    pub grams: Vec<Gram>,
}

/// splitmix64's finaliser: every bit of the result depends on every bit of the input.
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fingerprint of the empty context.
pub const EMPTY: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fingerprint of a context that is one call further back.
pub const fn further(context: u64, call: Call) -> u64 {
    mix(context.rotate_left(5) ^ (call as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Fingerprint of a context followed by a call.
pub const fn followed(context: u64, call: Call) -> u64 {
    mix(context.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ (call as u64 + 1))
}

/// The last calls of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    calls: [Call; MAX_ORDER],
    len: usize,
}

impl History {
    /// Calls held, at most [`MAX_ORDER`].
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was pushed yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a call; the oldest falls out.
    pub fn push(&mut self, call: Call) {
        self.calls.copy_within(..MAX_ORDER - 1, 1);
        self.calls[0] = call;
        self.len = (self.len + 1).min(MAX_ORDER);
    }

    /// The calls, the latest first.
    pub fn latest_first(&self) -> &[Call] {
        &self.calls[..self.len]
    }
}

impl NgramModel {
    /// Checks sizes, order and counts, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        rule(
            (1..=MAX_ORDER as u32).contains(&self.order),
            NAME,
            "order in 1..=16",
        )?;
        rule(
            (1..=1 << 16).contains(&self.alphabet),
            NAME,
            "alphabet in 1..=65536",
        )?;
        rule(self.contexts.len() <= MAX_ENTRIES, NAME, "at most 2^24 contexts")?;
        rule(self.grams.len() <= MAX_ENTRIES, NAME, "at most 2^24 n-grams")?;
        rule(
            self.contexts.windows(2).all(|w| w[0].key < w[1].key)
                && self.grams.windows(2).all(|w| w[0].key < w[1].key),
            NAME,
            "keys ascend",
        )?;
        rule(
            self.contexts
                .iter()
                .all(|c| c.distinct > 0 && c.distinct <= c.total),
            NAME,
            "0 < distinct <= total",
        )?;
        rule(self.grams.iter().all(|g| g.count > 0), NAME, "counts above 0")
    }

    fn context(&self, key: u64) -> Option<&Context> {
        self.contexts
            .binary_search_by_key(&key, |c| c.key)
            .ok()
            .map(|i| &self.contexts[i])
    }

    fn count(&self, key: u64) -> u32 {
        self.grams
            .binary_search_by_key(&key, |g| g.key)
            .map_or(0, |i| self.grams[i].count)
    }

    /// −ln P of `call` after `history`, in nats: finite and not negative.
    pub fn surprise(&self, history: &History, call: Call) -> f64 {
        // One more than was seen, so that a call that was never seen has a share too.
        let mut p = 1.0 / (f64::from(self.alphabet) + 1.0);
        let mut key = EMPTY;
        let contexts = self.order.max(1) as usize;
        for depth in 0..contexts {
            if depth > 0 {
                let Some(&earlier) = history.latest_first().get(depth - 1) else {
                    break;
                };
                key = further(key, earlier);
            }
            // A context that was never seen makes none longer than it.
            let Some(context) = self.context(key) else {
                break;
            };
            let (total, distinct) = (f64::from(context.total), f64::from(context.distinct));
            // A damaged model may count an n-gram more often than its context.
            let count = f64::from(self.count(followed(key, call)).min(context.total));
            p = (count + distinct * p) / (total + distinct);
        }
        -p.clamp(f64::MIN_POSITIVE, 1.0).ln()
    }

    /// Fingerprint of the n-gram of full length that ends in `call`. None where the sequence is shorter.
    pub fn longest(&self, history: &History, call: Call) -> Option<u64> {
        let earlier = history.latest_first().get(..self.order.max(1) as usize - 1)?;
        let context = earlier.iter().fold(EMPTY, |key, &c| further(key, c));
        Some(followed(context, call))
    }

    /// STIDE: whether the last `window` − 1 calls and `call` were never seen together in training. None
    /// where the sequence or the model's order is shorter than the window.
    pub fn unseen(&self, history: &History, call: Call, window: usize) -> Option<bool> {
        if window == 0 || window > self.order as usize {
            return None;
        }
        let earlier = history.latest_first().get(..window - 1)?;
        let context = earlier.iter().fold(EMPTY, |key, &c| further(key, c));
        Some(self.count(followed(context, call)) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A model of made-up but well-formed tables over the n-grams of `calls`.
    fn model(calls: &[Call], order: u32) -> NgramModel {
        use std::collections::{BTreeMap, BTreeSet};
        let mut grams: BTreeMap<u64, u32> = BTreeMap::new();
        let mut contexts: BTreeMap<u64, (u32, BTreeSet<Call>)> = BTreeMap::new();
        for (i, &call) in calls.iter().enumerate() {
            let mut key = EMPTY;
            for depth in 0..(order as usize).min(i + 1) {
                if depth > 0 {
                    key = further(key, calls[i - depth]);
                }
                *grams.entry(followed(key, call)).or_default() += 1;
                let context = contexts.entry(key).or_default();
                context.0 += 1;
                context.1.insert(call);
            }
        }
        NgramModel {
            order,
            alphabet: calls.iter().collect::<BTreeSet<_>>().len().max(1) as u32,
            contexts: contexts
                .into_iter()
                .map(|(key, (total, d))| Context {
                    key,
                    total,
                    distinct: d.len() as u32,
                })
                .collect(),
            grams: grams
                .into_iter()
                .map(|(key, count)| Gram { key, count })
                .collect(),
        }
    }

    fn history(calls: &[Call]) -> History {
        let mut history = History::default();
        for &c in calls {
            history.push(c);
        }
        history
    }

    #[test]
    fn witten_bell_by_hand() {
        // After "a" (twice) came b twice: P(b | a) = (2 + 1 · P(b)) / (2 + 1), P(b) = (2 + 2 · 1/3) / (4 + 2).
        let model = model(&[1, 2, 1, 2], 2);
        let p_b: f64 = (2.0 + 2.0 / 3.0) / 6.0;
        let expected = -((2.0 + p_b) / 3.0f64).ln();
        assert!((model.surprise(&history(&[1]), 2) - expected).abs() < 1e-12);
    }

    #[test]
    fn stide_tells_seen_from_unseen() {
        let model = model(&[1, 2, 3, 1, 2, 3], 3);
        assert_eq!(model.unseen(&history(&[1, 2]), 3, 3), Some(false));
        assert_eq!(model.unseen(&history(&[2, 1]), 3, 3), Some(true));
        assert_eq!(model.unseen(&history(&[1]), 3, 3), None);
        assert_eq!(model.unseen(&history(&[1, 2]), 3, 4), None);
    }

    #[test]
    fn damaged_models_are_refused() {
        let good = model(&[1, 2, 1, 3], 3);
        assert_eq!(good.check(), Ok(()));
        let mut bad = good.clone();
        bad.order = 17;
        assert!(bad.check().is_err());
        bad = good.clone();
        bad.contexts.swap(0, 1);
        assert!(bad.check().is_err());
        bad = good.clone();
        bad.contexts[0].distinct = 0;
        assert!(bad.check().is_err());
        bad = good.clone();
        bad.grams[0].count = 0;
        assert!(bad.check().is_err());
        bad = good;
        bad.alphabet = 0;
        assert!(bad.check().is_err());
    }

    proptest! {
        #[test]
        fn surprise_is_finite_and_not_negative(
            train in prop::collection::vec(0u16..6, 0..60),
            test in prop::collection::vec(any::<u16>(), 1..40),
            order in 1u32..8,
        ) {
            let model = model(&train, order);
            let mut h = History::default();
            for c in test {
                let s = model.surprise(&h, c);
                prop_assert!(s.is_finite() && s >= 0.0);
                h.push(c);
            }
        }

        #[test]
        fn probabilities_of_seen_calls_and_one_unseen_sum_to_one(
            train in prop::collection::vec(0u16..5, 1..60),
            before in prop::collection::vec(0u16..6, 0..6),
            order in 1u32..6,
        ) {
            let model = model(&train, order);
            let h = history(&before);
            let seen: std::collections::BTreeSet<u16> = train.iter().copied().collect();
            let sum: f64 = seen.iter().chain([&999]).map(|&c| (-model.surprise(&h, c)).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "sum {sum}");
        }

        #[test]
        fn what_was_seen_in_its_place_is_never_unseen(
            train in prop::collection::vec(0u16..5, 4..60),
            order in 2u32..5,
        ) {
            let model = model(&train, order);
            let mut h = History::default();
            for &c in &train {
                for window in 1..=order as usize {
                    prop_assert_ne!(model.unseen(&h, c, window), Some(true));
                }
                h.push(c);
            }
        }

        #[test]
        fn a_history_holds_the_latest_calls(calls in prop::collection::vec(any::<u16>(), 0..50)) {
            let h = history(&calls);
            let expected: Vec<u16> = calls.iter().rev().take(MAX_ORDER).copied().collect();
            prop_assert_eq!(h.latest_first(), &expected[..]);
        }

        #[test]
        fn hostile_tables_do_not_panic(
            contexts in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>()), 0..20),
            order in any::<u32>(),
            calls in prop::collection::vec(any::<u16>(), 0..20),
        ) {
            let model = NgramModel {
                order: order % 64,
                alphabet: order,
                contexts: contexts.iter().map(|&(key, total, distinct)| Context { key, total, distinct })
                    .chain([Context { key: EMPTY, total: 0, distinct: 0 }]).collect(),
                grams: vec![Gram { key: followed(EMPTY, 1), count: u32::MAX }],
            };
            let _ = model.check();
            let h = history(&calls);
            let s = model.surprise(&h, 1);
            prop_assert!(s.is_nan() || s >= 0.0);
        }
    }
}
