//! What is known of a window beside its own counts: which calls came right after which, and how busy the windows
//! before it were.
//!
//! Pairs are of a schema's places, not of system calls: `open` and `openat` are one, and so are two architectures.
//! The windows before are their total rates as features have them, which makes of each window an example of its own:
//! a forecaster needs no state but this, and training none but windows, in whatever order and however few of them.

use crate::bounded;
use crate::schema::from_rate;
use crate::syscalls::Arch;
use crate::{schema::Schema, window::Window};
use serde::{Deserialize, Serialize};

/// Places that a call of a pair can have.
pub const PLACES: usize = 128;
/// Most pairs of one window; of more, the most frequent are known.
pub const MAX_PAIRS: usize = 512;
/// Most windows before one.
pub const MAX_PAST: usize = 32;

/// How often calls of one place came right after calls of another, in one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair {
    /// [`PLACES`] times the place of the first call, plus that of the second.
    pub id: u16,
    /// Times, above 0.
    pub count: u32,
}

impl Pair {
    /// The pair of two places below [`PLACES`].
    pub const fn id_of(first: usize, second: usize) -> u16 {
        (first * PLACES + second) as u16
    }
}

/// Why numbers from outside are no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// See [`MAX_PAIRS`].
    #[error("a window has at most {MAX_PAIRS} pairs of calls, each with its count; this one has {0}")]
    Pairs(usize),
    /// Pairs out of order or range, or without a count.
    #[error("pairs of calls ascend, are of places below {PLACES} and counted at least once")]
    Order,
    /// See [`MAX_PAST`].
    #[error("at most {MAX_PAST} windows before one are known, not {0}")]
    Past(usize),
    /// A rate that is none.
    #[error("rates of the windows before are finite and not negative")]
    Rate,
}

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Context {
    pairs: Vec<Pair>,
    past: Vec<f32>,
}

impl Context {
    /// Nothing is known.
    pub const NONE: &'static Self = &Self {
        pairs: Vec::new(),
        past: Vec::new(),
    };

    /// From outside: pairs in ascending order, and the rates of the windows before, the latest first.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn new(pairs: Vec<Pair>, past: Vec<f32>) -> Result<Self, ContextError> {
        if pairs.len() > MAX_PAIRS {
            return Err(ContextError::Pairs(pairs.len()));
        }
        let ascend = pairs.windows(2).all(|two| two[0].id < two[1].id);
        let valid = |pair: &Pair| usize::from(pair.id) < PLACES * PLACES && pair.count > 0;
        if !ascend || !pairs.iter().all(valid) {
            return Err(ContextError::Order);
        }
        if past.len() > MAX_PAST {
            return Err(ContextError::Past(past.len()));
        }
        if !past.iter().all(|rate| (0.0..=f32::MAX).contains(rate)) {
            return Err(ContextError::Rate);
        }
        Ok(Self { pairs, past })
    }

    /// The same, with ids and counts of pairs in lists of their own, as they travel.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn counted(ids: &[u32], counts: &[u32], past: Vec<f32>) -> Result<Self, ContextError> {
        if ids.len() != counts.len() || ids.len() > MAX_PAIRS {
            return Err(ContextError::Pairs(ids.len().max(counts.len())));
        }
        let pair = |(&id, &count): (&u32, &u32)| {
            let id = u16::try_from(id).map_err(|_| ContextError::Order)?;
            Ok(Pair { id, count })
        };
        let pairs = ids.iter().zip(counts).map(pair).collect::<Result<_, _>>()?;
        Self::new(pairs, past)
    }

    /// What is known of a window: the calls that followed each other (two numbers of `arch`, and how often) and the
    /// windows before. Once it has grown to what its windows need, it allocates nothing.
    pub fn observe(
        &mut self,
        schema: &Schema,
        arch: Arch,
        counted: impl IntoIterator<Item = (u32, u32, u64)>,
        past: &Past,
    ) {
        self.pairs.clear();
        for (first, second, count) in counted.into_iter().filter(|(_, _, count)| *count > 0) {
            let [first, second] = [first, second].map(|nr| schema.feature_of(arch, nr).min(PLACES - 1));
            self.pairs.push(Pair {
                id: Pair::id_of(first, second),
                count: u32::try_from(count).unwrap_or(u32::MAX),
            });
        }
        self.pairs.sort_unstable_by_key(|pair| pair.id);
        self.pairs.dedup_by(|next, kept| {
            let same = next.id == kept.id;
            if same {
                kept.count = kept.count.saturating_add(next.count);
            }
            same
        });
        if self.pairs.len() > MAX_PAIRS {
            self.pairs
                .sort_unstable_by_key(|pair| (std::cmp::Reverse(pair.count), pair.id));
            self.pairs.truncate(MAX_PAIRS);
            self.pairs.sort_unstable_by_key(|pair| pair.id);
        }
        self.past.clear();
        self.past.extend_from_slice(past.latest_first());
    }

    /// Pairs in ascending order; none where they were not counted, or no thread made two calls.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Total rates of the windows before, as features have them, the latest first.
    pub fn past(&self) -> &[f32] {
        &self.past
    }
}

/// How busy the last windows of one container were.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Past {
    rates: [f32; MAX_PAST],
    len: usize,
}

impl Past {
    /// Adds a window; the oldest falls out. One without length leaves a gap, and forgets all before.
    pub fn push(&mut self, window: &Window) {
        if window.duration_ms == 0 {
            *self = Self::default();
            return;
        }
        self.rates.copy_within(..MAX_PAST - 1, 1);
        self.rates[0] = from_rate(window.total() as f64 / window.seconds());
        self.len = (self.len + 1).min(MAX_PAST);
    }

    /// Total rates as features have them, the latest first.
    pub fn latest_first(&self) -> &[f32] {
        &self.rates[..self.len]
    }
}

/// How often pairs were seen in training.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairCounts {
    /// Ids, ascending, and how often each was seen.
    #[serde(deserialize_with = "bounded::list::<_, _, { PLACES * PLACES }>")]
    pub seen: Vec<(u16, u64)>,
}

impl PairCounts {
    /// Whether ids ascend within range, with counts above 0.
    pub fn is_valid(&self) -> bool {
        let valid = |&(id, count): &(u16, u64)| usize::from(id) < PLACES * PLACES && count > 0;
        self.seen.windows(2).all(|two| two[0].0 < two[1].0) && self.seen.iter().all(valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Calls;
    use proptest::prelude::*;

    fn pair(id: u16, count: u32) -> Pair {
        Pair { id, count }
    }

    #[test]
    fn variants_of_a_call_are_one_place_on_every_architecture() {
        let schema = Schema::syscalls_v1();
        let number = |arch, name| crate::syscalls::number(arch, name).expect("a number");
        let mut contexts = [Context::default(), Context::default()];
        let x86 = Arch::X86_64;
        let (open, openat, read) = (number(x86, "open"), number(x86, "openat"), number(x86, "read"));
        contexts[0].observe(
            schema,
            x86,
            [(open, read, 2), (read, read, 0), (openat, read, 3)],
            &Past::default(),
        );
        let arm = Arch::Aarch64;
        contexts[1].observe(
            schema,
            arm,
            [(number(arm, "openat"), number(arm, "read"), 5)],
            &Past::default(),
        );
        assert_eq!(contexts[0], contexts[1]);
        let place = |name| schema.feature_of(x86, number(x86, name));
        assert_eq!(
            contexts[0].pairs(),
            [pair(Pair::id_of(place("open"), place("read")), 5)]
        );
    }

    #[test]
    fn of_too_many_pairs_the_most_frequent_are_known() {
        let schema = Schema::syscalls_v1();
        let all: Vec<(u32, u32, u64)> = (0..40)
            .flat_map(|a| (0..40).map(move |b| (a, b, u64::from(1 + (a * 40 + b) % 7))))
            .collect();
        let mut context = Context::default();
        context.observe(schema, Arch::X86_64, all, &Past::default());
        assert_eq!(context.pairs().len(), MAX_PAIRS);
        assert_eq!(
            Context::new(context.pairs().to_vec(), vec![]),
            Ok(context.clone())
        );
        assert!(context.pairs().iter().all(|pair| pair.count > 3));
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let good = || vec![pair(1, 1), pair(5, 2)];
        assert!(Context::new(good(), vec![0.0, 3.5]).is_ok());
        for bad in [
            vec![pair(5, 1), pair(1, 1)],
            vec![pair(1, 1), pair(1, 1)],
            vec![pair(1, 0)],
            vec![pair(1 << 14, 1)],
        ] {
            assert_eq!(Context::new(bad, vec![]), Err(ContextError::Order));
        }
        assert_eq!(
            Context::new((0..513).map(|id| pair(id, 1)).collect(), vec![]),
            Err(ContextError::Pairs(513))
        );
        assert_eq!(Context::new(vec![], vec![0.0; 33]), Err(ContextError::Past(33)));
        for bad in [f32::NAN, f32::INFINITY, -0.1] {
            assert_eq!(Context::new(vec![], vec![bad]), Err(ContextError::Rate));
        }
    }

    #[test]
    fn a_window_without_length_forgets_what_was_before() {
        let window = |count, ms| {
            Window::new(
                Arch::X86_64,
                0,
                ms,
                [Calls {
                    nr: 0,
                    count,
                    errors: 0,
                }],
            )
        };
        let mut past = Past::default();
        for count in 1..40 {
            past.push(&window(count, 1000));
        }
        assert_eq!(past.latest_first().len(), MAX_PAST);
        assert_eq!(past.latest_first()[..2], [from_rate(39.0), from_rate(38.0)]);
        past.push(&window(1, 0));
        assert!(past.latest_first().is_empty());
    }

    proptest! {
        #[test]
        fn whatever_was_counted_makes_a_context_that_holds(
            counted in prop::collection::vec((any::<u32>(), 0u32..600, any::<u64>()), 0..900),
            arm: bool,
        ) {
            let arch = if arm { Arch::Aarch64 } else { Arch::X86_64 };
            let mut context = Context::default();
            context.observe(Schema::syscalls_v1(), arch, counted, &Past::default());
            let again = Context::new(context.pairs().to_vec(), context.past().to_vec());
            prop_assert_eq!(again, Ok(context));
        }
    }
}
