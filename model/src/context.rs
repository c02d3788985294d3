//! What is known of a window beside its own counts: which calls came after which, and how busy the windows before it
//! were.
//!
//! Each call of a thread is known with the up to [`ORDER`] − 1 calls before it, and how often that sequence came: enough
//! for a language model and for STIDE, without the run itself. Sequences are of a schema's places, not of system calls:
//! `open` and `openat` are one, and so are two architectures.
//! The windows before are their total rates as features have them, which makes of each window an example of its own:
//! a forecaster needs no state but this, and training none but windows, in whatever order and however few of them.

use crate::bounded;
use crate::estimators::ngram::mix;
use crate::schema::{MAX_VALUE, from_rate, is_value};
use crate::syscalls::Arch;
use crate::{schema::Schema, window::Window};
use serde::{Deserialize, Serialize};

/// Places that a call of a sequence can have.
pub const PLACES: usize = 128;
/// Calls in the longest sequence: what STIDE's authors settled on.
pub const ORDER: usize = 6;
/// Most sequences of one window. Of more, a sample is known that does not ask how frequent they are: what an intruder
/// does is rare. It is the same in training and in scoring, since an id is in it by its hash: what is looked at of a window
/// was looked at in each window of the training, on whichever node.
///
/// The hash has no key, so whoever can have more than this many sequences in a window, all of them known to the model, can
/// work out which others would be left out. A key of each agent or each window would prevent that and be worse: of a busy
/// container most sequences of a window would then be ones that training left out, in every window, and they would hide
/// those of an intruder. One key for a whole cluster that artifacts name would do, and no other.
pub const MAX_GRAMS: usize = 512;
/// Most sequences that a model knows; of more, the most frequent ones.
pub const MAX_KNOWN: usize = 1 << 15;
/// Most windows before one.
pub const MAX_PAST: usize = 32;

/// Bits of one place of a sequence.
const BITS: usize = 8;

/// How often calls of these places came right after each other, in one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gram {
    /// A byte for each call, of which the last is the lowest: its place plus 1. Two to [`ORDER`] calls; fewer than that
    /// where nothing is known of what was before.
    pub id: u64,
    /// Times, above 0.
    pub count: u32,
}

impl Gram {
    /// The sequence of places below [`PLACES`], the earliest first; of more than [`ORDER`], the latest.
    pub fn id_of(places: impl IntoIterator<Item = usize>) -> u64 {
        const ALL: u64 = (1 << (BITS * ORDER)) - 1;
        places
            .into_iter()
            .fold(0, |id, place| (id << BITS | (place as u64 + 1)) & ALL)
    }

    /// The places of a sequence, the latest first.
    pub fn latest_first(id: u64) -> impl Iterator<Item = usize> + Clone {
        (0..ORDER)
            .map(move |at| (id >> (BITS * at)) as usize & 0xff)
            .take_while(|&byte| byte > 0)
            .map(|byte| byte - 1)
    }

    /// Its last calls, from all of them down to two.
    pub fn endings(id: u64) -> impl Iterator<Item = u64> {
        (2..=ORDER)
            .rev()
            .map(move |calls| id & ((1 << (BITS * calls)) - 1))
            .scan(0, |last, ending| {
                let again = std::mem::replace(last, ending) == ending;
                Some((!again).then_some(ending))
            })
            .flatten()
    }

    /// Its calls, so many in a row at a time: the latest first, and none where it has fewer.
    pub fn runs(id: u64, calls: usize) -> impl Iterator<Item = u64> {
        let len = Self::latest_first(id).count();
        let run = (1 << (BITS * calls.min(ORDER))) - 1;
        (0..(len + 1).saturating_sub(calls)).map(move |at| id >> (BITS * at) & run)
    }

    /// Whether a number is a sequence of two calls or more.
    pub fn is_id(id: u64) -> bool {
        let calls = Self::latest_first(id).count();
        let whole = calls == ORDER || id >> (BITS * calls) == 0;
        calls >= 2 && whole && id >> (BITS * ORDER) == 0 && Self::latest_first(id).all(|place| place < PLACES)
    }
}

/// Why numbers from outside are no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// See [`MAX_GRAMS`].
    #[error("a window has at most {MAX_GRAMS} sequences of calls, each with its count; this one has {0}")]
    Grams(usize),
    /// Sequences out of order or range, or without a count.
    #[error(
        "sequences of calls ascend, have 2 to {ORDER} places below {PLACES} and are counted at least once"
    )]
    Order,
    /// See [`MAX_PAST`].
    #[error("at most {MAX_PAST} windows before one are known, not {0}")]
    Past(usize),
    /// A rate that is none.
    #[error("rates of the windows before are 0 to {MAX_VALUE}")]
    Rate,
}

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Context {
    grams: Vec<Gram>,
    past: Vec<f32>,
}

impl Context {
    /// Nothing is known.
    pub const NONE: &'static Self = &Self {
        grams: Vec::new(),
        past: Vec::new(),
    };

    /// From outside: sequences in ascending order, and the rates of the windows before, the latest first.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn new(grams: Vec<Gram>, past: Vec<f32>) -> Result<Self, ContextError> {
        if grams.len() > MAX_GRAMS {
            return Err(ContextError::Grams(grams.len()));
        }
        let ascend = grams.windows(2).all(|two| two[0].id < two[1].id);
        let valid = |gram: &Gram| Gram::is_id(gram.id) && gram.count > 0;
        if !ascend || !grams.iter().all(valid) {
            return Err(ContextError::Order);
        }
        if past.len() > MAX_PAST {
            return Err(ContextError::Past(past.len()));
        }
        if !past.iter().all(|&rate| is_value(rate)) {
            return Err(ContextError::Rate);
        }
        Ok(Self { grams, past })
    }

    /// The same, with ids and counts of sequences in lists of their own, as they travel.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn counted(ids: &[u64], counts: &[u32], past: Vec<f32>) -> Result<Self, ContextError> {
        if ids.len() != counts.len() || ids.len() > MAX_GRAMS {
            return Err(ContextError::Grams(ids.len().max(counts.len())));
        }
        let gram = |(&id, &count): (&u64, &u32)| Gram { id, count };
        Self::new(ids.iter().zip(counts).map(gram).collect(), past)
    }

    /// What is known of a window: the sequences of its calls (numbers of `arch`, the earliest first, and how often) and
    /// the windows before. Once it has grown to what its windows need, it allocates nothing.
    pub fn observe(
        &mut self,
        schema: &Schema,
        arch: Arch,
        counted: impl IntoIterator<Item = (impl IntoIterator<Item = u32>, u64)>,
        past: &Past,
    ) {
        self.grams.clear();
        for (numbers, count) in counted.into_iter().filter(|(_, count)| *count > 0) {
            let place = |nr| schema.feature_of(arch, nr).min(PLACES - 1);
            let id = Gram::id_of(numbers.into_iter().map(place));
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if Gram::is_id(id) {
                self.grams.push(Gram { id, count });
            }
        }
        self.gather();
        self.past.clear();
        self.past.extend_from_slice(past.latest_first());
    }

    /// Takes no more memory than it needs, for who keeps many: what one is made in holds all sequences of a window before
    /// it holds a sample of them.
    pub fn shrink_to_fit(&mut self) {
        self.grams.shrink_to_fit();
        self.past.shrink_to_fit();
    }

    /// The same after other windows.
    #[must_use]
    pub fn after(mut self, past: &Past) -> Self {
        self.past.clear();
        self.past.extend_from_slice(past.latest_first());
        self
    }

    /// The same with further sequences, of ids that are some.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = Gram>) -> Self {
        let mut context = self.clone();
        context
            .grams
            .extend(more.into_iter().filter(|gram| Gram::is_id(gram.id)));
        context.gather();
        context
    }

    /// Makes one of equal sequences, and of too many a sample, as [`MAX_GRAMS`] says.
    fn gather(&mut self) {
        self.grams.sort_unstable_by_key(|gram| gram.id);
        self.grams.dedup_by(|next, kept| {
            let same = next.id == kept.id;
            if same {
                kept.count = kept.count.saturating_add(next.count);
            }
            same
        });
        if self.grams.len() > MAX_GRAMS {
            self.grams.sort_unstable_by_key(|gram| (mix(gram.id), gram.id));
            self.grams.truncate(MAX_GRAMS);
            self.grams.sort_unstable_by_key(|gram| gram.id);
        }
    }

    /// Sequences in ascending order; none where they were not counted, or no thread made two calls.
    pub fn grams(&self) -> &[Gram] {
        &self.grams
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
    /// When the last of them ended, milliseconds since the Unix epoch.
    ended_ms: u64,
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
        self.ended_ms = window.started_ms.saturating_add(u64::from(window.duration_ms));
    }

    /// What was right before a window: nothing, unless it begins about where the last one ended. For windows that nobody
    /// has numbered, as those of files: one in between may be missing, or two recordings bear one name.
    pub fn right_before(&mut self, window: &Window) -> &mut Self {
        let apart = window.started_ms.abs_diff(self.ended_ms);
        // Clocks and late drains move a border by far less.
        if apart > u64::from(window.duration_ms) / 4 {
            *self = Self::default();
        }
        self
    }

    /// Total rates as features have them, the latest first.
    pub fn latest_first(&self) -> &[f32] {
        &self.rates[..self.len]
    }
}

/// How often sequences were seen in training.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GramCounts {
    /// Ids, ascending, and how often each was seen.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_KNOWN>")]
    pub seen: Vec<(u64, u64)>,
}

impl GramCounts {
    /// Whether ids ascend within range, with counts above 0.
    pub fn is_valid(&self) -> bool {
        let valid = |&(id, count): &(u64, u64)| Gram::is_id(id) && count > 0;
        self.seen.len() <= MAX_KNOWN
            && self.seen.windows(2).all(|two| two[0].0 < two[1].0)
            && self.seen.iter().all(valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Calls;
    use proptest::prelude::*;

    fn gram(places: &[usize], count: u32) -> Gram {
        Gram {
            id: Gram::id_of(places.iter().copied()),
            count,
        }
    }

    #[test]
    fn what_is_kept_takes_what_it_holds() {
        let schema = Schema::syscalls_v1();
        let many = (0..4096u32).map(|i| ([i % 13, i / 13 % 13, i / 169 % 13, i / 2197], 1));
        let mut context = Context::default();
        context.observe(schema, Arch::X86_64, many, &Past::default());
        context.shrink_to_fit();
        assert_eq!(
            (context.grams.len(), context.grams.capacity()),
            (MAX_GRAMS, MAX_GRAMS)
        );
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
            [([open, read, read], 2), ([read; 3], 0), ([openat, read, read], 3)],
            &Past::default(),
        );
        let arm = Arch::Aarch64;
        let (openat, read) = (number(arm, "openat"), number(arm, "read"));
        contexts[1].observe(schema, arm, [([openat, read, read], 5)], &Past::default());
        assert_eq!(contexts[0], contexts[1]);
        let place = |nr| schema.feature_of(arm, nr);
        assert_eq!(
            contexts[0].grams(),
            [gram(&[place(openat), place(read), place(read)], 5)]
        );
    }

    #[test]
    fn a_sequence_is_its_last_calls() {
        let long = Gram::id_of(0..9);
        assert!(Gram::latest_first(long).eq((3..9).rev()));
        let endings: Vec<Vec<usize>> = Gram::endings(Gram::id_of([5, 6, 7]))
            .map(|id| Gram::latest_first(id).collect())
            .collect();
        assert_eq!(endings, [vec![7, 6, 5], vec![7, 6]]);
        assert_eq!(Gram::endings(long).count(), ORDER - 1);
    }

    #[test]
    fn of_too_many_sequences_rare_ones_are_known_as_well_as_frequent_ones() {
        let usual = |more| {
            let all = (0..40usize).flat_map(|a| (0..40).map(move |b| gram(&[a, b, a], 1000)));
            Context::default().with(all.chain(more))
        };
        let odd: Vec<Gram> = (0..160).map(|i| gram(&[50 + i % 40, 50 + i / 40], 1)).collect();
        let (before, after) = (usual(vec![]), usual(odd));
        assert_eq!(
            (before.grams().len(), after.grams().len()),
            (MAX_GRAMS, MAX_GRAMS)
        );
        let known = |gram: &Gram| before.grams().binary_search(gram).is_ok();
        let new = after.grams().iter().filter(|gram| !known(gram)).count();
        // A tenth of all that were made was new, and so is about a tenth of those that are known: the others are the same.
        assert!((30..70).contains(&new), "{new}");
        assert_eq!(after.grams().iter().filter(|gram| gram.count == 1).count(), new);
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let good = || vec![gram(&[1, 1], 1), gram(&[5, 2, 3, 4, 5, 6], 2)];
        assert!(Context::new(good(), vec![0.0, 3.5]).is_ok());
        let id = |id| Gram { id, count: 1 };
        for bad in [
            vec![gram(&[5, 1], 1), gram(&[1, 1], 1)],
            vec![gram(&[1, 1], 1), gram(&[1, 1], 1)],
            vec![gram(&[1, 1], 0)],
            vec![gram(&[1], 1)],
            vec![id(0)],
            vec![id(0x01_00_02)],
            vec![id(0x82_01)],
            vec![id(0x01 << 48 | 0x01_01_01_01_01_01)],
        ] {
            assert_eq!(Context::new(bad, vec![]), Err(ContextError::Order));
        }
        let many = (0..=MAX_GRAMS).map(|i| gram(&[i / 100, i % 100], 1)).collect();
        assert_eq!(
            Context::new(many, vec![]),
            Err(ContextError::Grams(MAX_GRAMS + 1))
        );
        assert_eq!(Context::new(vec![], vec![0.0; 33]), Err(ContextError::Past(33)));
        for bad in [f32::NAN, f32::INFINITY, -0.1, MAX_VALUE + 0.1] {
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

    #[test]
    fn a_window_knows_only_those_that_end_where_it_begins() {
        let window = |started_ms, ms| {
            let call = Calls {
                nr: 0,
                count: 7,
                errors: 0,
            };
            Window::new(Arch::X86_64, started_ms, ms, [call])
        };
        let known = |starts: &[u64]| {
            let mut past = Past::default();
            for &started_ms in starts {
                let next = window(started_ms, 1000);
                past.right_before(&next).push(&next);
            }
            past.latest_first().len()
        };
        let day = 1_795_255_200_000;
        assert_eq!(known(&[day, day + 1000, day + 2010, day + 2995]), 4);
        // One is missing; a day lies between; another recording ran at the same time.
        assert_eq!(known(&[day, day + 1000, day + 3000]), 1);
        assert_eq!(known(&[day, day + 1000, day + 86_400_000]), 1);
        assert_eq!(known(&[day, day + 1000, day + 1500]), 1);
    }

    proptest! {
        #[test]
        fn whatever_was_counted_makes_a_context_that_holds(
            counted in prop::collection::vec((prop::collection::vec(0u32..600, 0..9), any::<u64>()), 0..1500),
            arm: bool,
        ) {
            let arch = if arm { Arch::Aarch64 } else { Arch::X86_64 };
            let mut context = Context::default();
            context.observe(Schema::syscalls_v1(), arch, counted, &Past::default());
            let again = Context::new(context.grams().to_vec(), context.past().to_vec());
            prop_assert_eq!(again, Ok(context));
        }

        #[test]
        fn what_is_an_id_is_what_its_places_make(id: u64, places in prop::collection::vec(0..PLACES, 2..9)) {
            let again = Gram::id_of(Gram::latest_first(id).collect::<Vec<_>>().into_iter().rev());
            let in_range = Gram::latest_first(id).all(|place| place < PLACES);
            prop_assert_eq!(Gram::is_id(id), again == id && id >> BITS != 0 && in_range);
            let id = Gram::id_of(places.iter().copied());
            prop_assert!(Gram::is_id(id));
            let latest = &places[places.len().saturating_sub(ORDER)..];
            for calls in 1..=ORDER + 1 {
                let runs: Vec<u64> = latest.windows(calls).rev().map(|run| Gram::id_of(run.iter().copied())).collect();
                prop_assert_eq!(Gram::runs(id, calls).collect::<Vec<_>>(), runs);
            }
        }
    }
}
