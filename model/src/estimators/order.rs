//! Which calls come after which: a language model and STIDE over a window's sequences of calls.
//!
//! The language model is [`super::ngram`]'s, of order [`ORDER`]: Witten and Bell's estimate of the chance of something new
//! (IEEE Trans. Inf. Theory 37, 1991) at every length of what came before. A window's sequences are each call with the
//! calls before it, so that the counts of all shorter ones follow from them, and nothing is lost against the run itself.
//! The score is the mean of −ln P in nats of the last call of each sequence, each weighing ln(1 + its count): a shell's
//! hundred calls would not be seen in a plain mean beside a server's million.
//!
//! A second score of the same model is the mean of the [`PEAK`] oddest calls alone. In a busy process, whose threads wake
//! each other in ever other order, most windows have something that was never seen, and what somebody does inside it is
//! a thousandth of them: no mean of all moves by it. But what threads do in another order is a small surprise, where calls
//! that never met are a large one. Mismatches are counted in frames of few calls for that reason (Warrender, Forrest and
//! Pearlmutter, IEEE S&P 1999); where in a window a call was, nobody knows here. It is an estimator of its own: what is
//! seen so is seen too where a program does rarely, but by right, what training has not.
//!
//! STIDE (Forrest, Hofmeyr, Somayaji and Longstaff, IEEE S&P 1996) asks only whether a sequence was ever seen: the score
//! is the share of the window's distinct sequences that were not. One that begins where nothing is known of before was
//! seen where one that ends like it was.
//!
//! A window of which no sequences were counted has no score. One whose sequences weigh less than [`LEAST`] has nothing odd
//! to a mean or a share: a server that waits makes one or two, over and over, which a baseline under load may not have.

use std::collections::HashMap;

use super::ngram::{self, EMPTY, History, NgramModel, followed, further};
use super::oddest::{OddSequence, oddest};
use super::surprises::Surprises;
use super::{Refused, rule};
use crate::context::{Context, Gram, GramCounts, ORDER};

/// Least weight, the sum of ln(1 + count), of which a mean or a share says something: that of twenty sequences seen once, or
/// of two seen a thousand times.
pub const LEAST: f64 = 20.0 * std::f64::consts::LN_2;

/// Calls whose surprise makes the peak of a window.
pub const PEAK: usize = 40;

/// How surprising each sequence is.
#[derive(Debug, Clone, PartialEq)]
pub struct Ngrams {
    /// Sequences of training, and −ln P of the last call after the others: most of what is asked, worked out once.
    seen: Vec<(u64, f32)>,
    model: NgramModel,
}

impl Ngrams {
    /// The model's name.
    pub const NAME: &str = "n-gram";
    /// Smallest scale of the calibrated tail. One new call makes six new sequences, of some hundred, and .04 nats; three
    /// new calls must be told from that.
    pub(crate) const LEAST_SCALE: f32 = 0.02;
    /// Smallest scale of the peak's tail: of one new call it is six new sequences of [`PEAK`], and 1.2 nats.
    pub(crate) const LEAST_SCALE_OF_PEAK: f32 = 0.6;

    /// From the counts of training.
    ///
    /// # Errors
    /// Counts out of order or range, or none.
    pub fn new(counts: &GramCounts) -> Result<Self, Refused> {
        check(counts, Self::NAME)?;
        let model = of_runs(counts);
        model.check()?;
        let seen = counts.seen.iter().map(|&(id, _)| (id, surprise(&model, id)));
        Ok(Self {
            seen: seen.collect(),
            model,
        })
    }

    /// −ln P of a sequence's last call after the others, in nats.
    pub fn surprise(&self, id: u64) -> f32 {
        match self.seen.binary_search_by_key(&id, |seen| seen.0) {
            Ok(at) => self.seen[at].1,
            Err(_) => surprise(&self.model, id),
        }
    }

    /// Mean surprise of a window's sequences; see [`Surprises::mean`].
    pub fn score(&self, context: &Context) -> Option<f32> {
        Surprises::of(context).mean(self)
    }

    /// Mean surprise of its oddest calls; see [`Surprises::peak`].
    pub fn peak(&self, context: &Context) -> Option<f32> {
        Surprises::of(context).peak(self)
    }

    /// The most surprising of a window's sequences.
    pub fn oddest(&self, context: &Context) -> Vec<OddSequence> {
        let is_new = |id| is_new(&self.model, id);
        let all = context.grams().iter().map(|&Gram { id, count }| {
            let surprise = self.surprise(id);
            let odd = OddSequence {
                id,
                times: count,
                seen: !is_new(id),
                surprise: Some(surprise),
            };
            (surprise, odd)
        });
        oddest(all, is_new)
    }
}

/// What so many of a sequence weigh in a window.
pub(super) fn weight(count: u32) -> f64 {
    f64::from(count).ln_1p()
}

fn is_little(context: &Context) -> bool {
    let weights = context.grams().iter().map(|gram| weight(gram.count));
    weights.sum::<f64>() < LEAST
}

/// Whether training saw no sequence that ends with this one.
fn is_new(model: &NgramModel, id: u64) -> bool {
    let calls = Gram::latest_first(id).count();
    last_after_others(id).is_some_and(|(history, last)| model.unseen(&history, last, calls) == Some(true))
}

fn surprise(model: &NgramModel, id: u64) -> f32 {
    last_after_others(id).map_or(0.0, |(history, last)| model.surprise(&history, last) as f32)
}

fn last_after_others(id: u64) -> Option<(History, ngram::Call)> {
    let mut calls = [0; ORDER];
    let mut len = 0;
    for place in Gram::latest_first(id) {
        calls[len] = place as ngram::Call;
        len += 1;
    }
    let (&last, before) = calls[..len].split_first()?;
    let mut history = History::default();
    before.iter().rev().for_each(|&call| history.push(call));
    Some((history, last))
}

/// The model that the runs themselves would make, of which these are the sequences.
fn of_runs(counts: &GramCounts) -> NgramModel {
    let mut grams: HashMap<u64, u32> = HashMap::new();
    let mut contexts: HashMap<u64, (u32, u32)> = HashMap::new();
    for &(id, count) in &counts.seen {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut calls = Gram::latest_first(id).map(|place| place as ngram::Call);
        let Some(last) = calls.next() else { continue };
        let mut key = EMPTY;
        loop {
            let times = grams.entry(followed(key, last)).or_default();
            let (total, distinct) = contexts.entry(key).or_default();
            *distinct += u32::from(*times == 0);
            *total = total.saturating_add(count);
            *times = times.saturating_add(count);
            let Some(earlier) = calls.next() else { break };
            key = further(key, earlier);
        }
    }
    let mut model = NgramModel {
        order: ORDER as u32,
        alphabet: contexts.get(&EMPTY).map_or(1, |&(_, distinct)| distinct),
        contexts: contexts
            .into_iter()
            .map(|(key, (total, distinct))| ngram::Context { key, total, distinct })
            .collect(),
        grams: grams
            .into_iter()
            .map(|(key, count)| ngram::Gram { key, count })
            .collect(),
    };
    model.contexts.sort_unstable_by_key(|context| context.key);
    model.grams.sort_unstable_by_key(|gram| gram.key);
    model
}

/// The sequences of training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stide {
    /// They and all that they end with, ascending.
    seen: Vec<u64>,
}

impl Stide {
    /// The model's name.
    pub const NAME: &str = "stide";
    /// Smallest scale of the calibrated tail: one new call makes six new sequences, of some hundred.
    pub(crate) const LEAST_SCALE: f32 = 0.02;

    /// From the counts of training.
    ///
    /// # Errors
    /// Counts out of order or range, or none.
    pub fn new(counts: &GramCounts) -> Result<Self, Refused> {
        check(counts, Self::NAME)?;
        let mut seen: Vec<u64> = counts
            .seen
            .iter()
            .flat_map(|seen| Gram::endings(seen.0))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        Ok(Self { seen })
    }

    /// Share of a window's distinct sequences that training never saw, in [0, 1]; 0 where they weigh less than [`LEAST`], and
    /// none without any.
    pub fn score(&self, context: &Context) -> Option<f32> {
        let grams = context.grams();
        let unseen = grams
            .iter()
            .filter(|gram| self.seen.binary_search(&gram.id).is_err())
            .count();
        let share = if is_little(context) {
            0.0
        } else {
            unseen as f32 / grams.len() as f32
        };
        (!grams.is_empty()).then_some(share)
    }

    /// Those of a window's sequences that training never saw: first the ones of which the fewest last calls do.
    pub fn oddest(&self, context: &Context) -> Vec<OddSequence> {
        let is_new = |id| self.seen.binary_search(&id).is_err();
        let new = context.grams().iter().filter(|gram| is_new(gram.id));
        let all = new.map(|&Gram { id, count }| {
            let known = Gram::endings(id).filter(|&ending| !is_new(ending)).count();
            let odd = OddSequence {
                id,
                times: count,
                seen: false,
                surprise: None,
            };
            (-(known as f32), odd)
        });
        oddest(all, is_new)
    }
}

fn check(counts: &GramCounts, name: &'static str) -> Result<(), Refused> {
    rule(!counts.seen.is_empty(), name, "there are no sequences of calls")?;
    rule(
        counts.is_valid(),
        name,
        "sequences ascend within range, with counts above 0",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn ids() -> impl Strategy<Value = u64> {
        prop::collection::vec(0usize..20, 2..=ORDER).prop_map(Gram::id_of)
    }

    fn counts() -> impl Strategy<Value = GramCounts> {
        prop::collection::btree_map(ids(), 1u64..1 << 40, 1..80).prop_map(|seen| GramCounts {
            seen: seen.into_iter().collect(),
        })
    }

    fn context(grams: &[(u64, u32)]) -> Context {
        let grams = grams.iter().map(|&(id, count)| Gram { id, count }).collect();
        Context::new(grams, vec![]).expect("a context")
    }

    /// The sequences of a run, as the probe counts them: each call but the first with what was before it.
    fn sequences(run: &[ngram::Call]) -> GramCounts {
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for end in 2..=run.len() {
            let calls = run[end.saturating_sub(ORDER)..end].iter();
            *seen
                .entry(Gram::id_of(calls.map(|&c| usize::from(c))))
                .or_default() += 1;
        }
        GramCounts {
            seen: seen.into_iter().collect(),
        }
    }

    #[test]
    fn counts_that_break_a_rule_are_refused() {
        let two = Gram::id_of([1, 2]);
        for seen in [vec![], vec![(two, 0)], vec![(two + 1, 1), (two, 1)], vec![(7, 1)]] {
            let counts = GramCounts { seen };
            assert!(
                Ngrams::new(&counts).is_err() && Stide::new(&counts).is_err(),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn a_few_new_calls_beside_a_million_are_seen() {
        let usual: BTreeMap<u64, u64> = (0..40)
            .map(|i| (Gram::id_of([i % 8, i / 8, i % 3]), 1_000_000))
            .collect();
        let usual = GramCounts {
            seen: usual.into_iter().collect(),
        };
        let (ngrams, stide) = (
            Ngrams::new(&usual).expect("fits"),
            Stide::new(&usual).expect("fits"),
        );
        let mut grams: Vec<(u64, u32)> = usual.seen.iter().map(|&(id, _)| (id, 100_000)).collect();
        let (normal, share) = (ngrams.score(&context(&grams)), stide.score(&context(&grams)));
        assert_eq!(share, Some(0.0));
        grams.extend((0..9).map(|i| (Gram::id_of([20 + i, 21, 22]), 1)));
        grams.sort_unstable();
        let odd = ngrams
            .score(&context(&grams))
            .zip(normal)
            .map(|(odd, normal)| odd - normal);
        assert!(odd > Some(0.1), "{odd:?}");
        assert_eq!(stide.score(&context(&grams)), Some(9.0 / 49.0));
    }

    #[test]
    fn the_order_of_known_calls_tells_where_pairs_do_not() {
        // Both runs have the same calls, and the same pairs of them.
        let usual: Vec<ngram::Call> = [1, 2, 3, 1, 2, 4].repeat(50);
        let other: Vec<ngram::Call> = [1, 2, 3, 1, 2, 3, 1, 2, 4, 1, 2, 4].repeat(50);
        let trained = sequences(&usual);
        let of = |run: &[ngram::Call]| {
            let seen = sequences(run).seen;
            context(&seen.iter().map(|&(id, n)| (id, n as u32)).collect::<Vec<_>>())
        };
        let (ngrams, stide) = (
            Ngrams::new(&trained).expect("fits"),
            Stide::new(&trained).expect("fits"),
        );
        assert_eq!(stide.score(&of(&usual)), Some(0.0));
        assert!(stide.score(&of(&other)) > Some(0.3));
        assert!(ngrams.score(&of(&other)) > ngrams.score(&of(&usual)).map(|s| s + 0.3));
    }

    #[test]
    fn what_was_out_of_order_is_named() {
        let trained = sequences(&[1, 2, 3, 4].repeat(50));
        let (ngrams, stide) = (
            Ngrams::new(&trained).expect("fits"),
            Stide::new(&trained).expect("fits"),
        );
        let usual: Vec<(u64, u32)> = trained.seen.iter().map(|&(id, n)| (id, n as u32)).collect();
        assert_eq!(stide.oddest(&context(&usual)), []);
        let usual_told = ngrams.oddest(&context(&usual));
        assert!(usual_told.iter().all(|one| one.seen), "{usual_told:?}");
        // Known calls, of which one comes too early, seven times; and one that ends like what is known.
        let strange = Gram::id_of([2, 3, 4, 1, 2, 4]);
        let mut grams = usual;
        grams.extend([
            (strange, 7),
            (Gram::id_of([2, 3]), 1),
            (Gram::id_of([3, 3, 4, 1, 2, 3]), 9),
        ]);
        grams.sort_unstable();
        let context = context(&grams);
        let told = stide.oddest(&context);
        // Of the other, five calls are known.
        let ids: Vec<(u64, u32)> = told.iter().map(|one| (one.id, one.times)).collect();
        assert_eq!(ids, [(strange, 7), (Gram::id_of([3, 3, 4, 1, 2, 3]), 9)]);
        let told = ngrams.oddest(&context);
        assert_eq!((told[0].id, told[0].times, told[0].seen), (strange, 7, false));
        let surprises: Vec<Option<f32>> = told.iter().map(|one| one.surprise).collect();
        assert!(surprises.is_sorted_by(|a, b| a >= b), "{surprises:?}");
    }

    #[test]
    fn a_server_that_waits_is_not_odd_to_one_that_was_never_idle() {
        let trained = sequences(&(0..400).map(|i| (i * i % 17) as ngram::Call).collect::<Vec<_>>());
        let (ngrams, stide) = (
            Ngrams::new(&trained).expect("fits"),
            Stide::new(&trained).expect("fits"),
        );
        let told = |grams: usize, times: u32| {
            let of = |i| (Gram::id_of([60, 60, 60, 60, 60, 60 + i]), times);
            let window = context(&(0..grams).map(of).collect::<Vec<_>>());
            (ngrams.score(&window), stide.score(&window))
        };
        for (grams, times) in [(1, 2), (1, 100_000), (2, 30), (19, 1)] {
            assert_eq!(told(grams, times), (Some(0.0), Some(0.0)), "{grams} {times}");
        }
        for (grams, times) in [(21, 1), (2, 2000), (5, 30)] {
            let (mean, share) = told(grams, times);
            assert!(
                mean > Some(3.0) && share == Some(1.0),
                "{grams} {times}: {mean:?} {share:?}"
            );
        }
    }

    #[test]
    fn what_a_busy_process_never_does_is_seen_beside_what_it_does_in_ever_other_order() {
        // Any of twenty calls comes after any, and the two before it say which; a window has more or less of other ones.
        let usual = || (0..400).map(|i| [i % 20, i / 20, (i + i / 20) % 20]);
        let other = |n: usize| (0..n).map(|i| [i % 20, i / 20, (i + i / 20 + 7) % 20]);
        let trained: BTreeMap<u64, u64> = usual().map(|calls| (Gram::id_of(calls), 50)).collect();
        let ngrams = Ngrams::new(&GramCounts {
            seen: trained.into_iter().collect(),
        })
        .expect("fits");
        let window = |others: usize, odd: usize| {
            let odd = (0..odd).map(|i| [40 + i, 60 + i, 80 + i]);
            let new = other(others).chain(odd).map(|calls| (Gram::id_of(calls), 1u32));
            let usual = usual().take(200).map(|calls| (Gram::id_of(calls), 1000));
            context(
                &usual
                    .chain(new)
                    .collect::<BTreeMap<_, _>>()
                    .into_iter()
                    .collect::<Vec<_>>(),
            )
        };
        let normal: Vec<Context> = (5..20).map(|tens| window(10 * tens, 0)).collect();
        let most =
            |score: &dyn Fn(&Context) -> Option<f32>| normal.iter().filter_map(score).fold(0.0, f32::max);
        let odd = window(50, 20);
        let (mean, peak) = (most(&|w| ngrams.score(w)), most(&|w| ngrams.peak(w)));
        assert!(
            ngrams.score(&odd) < Some(mean),
            "{:?} of {mean}",
            ngrams.score(&odd)
        );
        let peak = peak + 2.0 * Ngrams::LEAST_SCALE_OF_PEAK;
        assert!(
            ngrams.peak(&odd) > Some(peak),
            "{:?} of {peak}",
            ngrams.peak(&odd)
        );
    }

    proptest! {
        #[test]
        fn the_peak_is_the_mean_of_the_oddest_calls(
            counts in counts(),
            grams in prop::collection::btree_map(ids(), 1u32..40, 1..60),
        ) {
            let ngrams = Ngrams::new(&counts).expect("fits");
            let mut all: Vec<f32> = grams
                .iter()
                .flat_map(|(&id, &count)| std::iter::repeat_n(ngrams.surprise(id), count as usize))
                .collect();
            all.sort_by(|a, b| b.total_cmp(a));
            let expected = all.iter().take(PEAK).sum::<f32>() / PEAK as f32;
            let peak = ngrams.peak(&context(&grams.into_iter().collect::<Vec<_>>())).expect("sequences");
            prop_assert!((peak - expected).abs() < 1e-4, "{peak} {expected}");
        }

        #[test]
        fn a_model_of_runs_says_the_same(
            run in prop::collection::vec(0u16..7, 2..200),
            other in prop::collection::vec(0u16..8, ORDER..40),
        ) {
            let ours = Ngrams::new(&sequences(&run)).expect("fits");
            // The first call of a run has nothing before it, and is in no sequence as the last one.
            let mut theirs = of_runs(&sequences(&run));
            let (mut grams, mut contexts) = (BTreeMap::new(), BTreeMap::new());
            for end in 1..run.len() {
                let mut key = EMPTY;
                for depth in 0..ORDER.min(end + 1) {
                    if depth > 0 {
                        key = further(key, run[end - depth]);
                    }
                    let times: &mut u32 = grams.entry(followed(key, run[end])).or_default();
                    let of: &mut (u32, u32) = contexts.entry(key).or_default();
                    *of = (of.0 + 1, of.1 + u32::from(*times == 0));
                    *times += 1;
                }
            }
            prop_assert_eq!(theirs.grams.len(), grams.len());
            theirs.grams.retain(|gram| grams.get(&gram.key) != Some(&gram.count));
            theirs.contexts.retain(|c| contexts.get(&c.key) != Some(&(c.total, c.distinct)));
            prop_assert!(theirs.grams.is_empty() && theirs.contexts.is_empty());
            for end in 2..=other.len() {
                let calls = &other[end.saturating_sub(ORDER)..end];
                let mut history = History::default();
                calls[..calls.len() - 1].iter().for_each(|&call| history.push(call));
                let expected = of_runs(&sequences(&run)).surprise(&history, calls[calls.len() - 1]);
                let id = Gram::id_of(calls.iter().map(|&c| usize::from(c)));
                prop_assert!((f64::from(ours.surprise(id)) - expected).abs() < 1e-4);
            }
        }

        #[test]
        fn scores_are_finite_and_within_bounds(
            counts in counts(),
            grams in prop::collection::btree_map(ids(), 1u32.., 1..60),
        ) {
            let grams: Vec<(u64, u32)> = grams.into_iter().collect();
            let window = context(&grams);
            let surprise = Ngrams::new(&counts).expect("fits").score(&window).expect("sequences");
            prop_assert!(surprise.is_finite() && surprise >= 0.0);
            let share = Stide::new(&counts).expect("fits").score(&window).expect("sequences");
            prop_assert!((0.0..=1.0).contains(&share));
        }

        #[test]
        fn what_is_named_is_of_the_window_and_as_new_as_it_is_said_to_be(
            counts in counts(),
            grams in prop::collection::btree_map(ids(), 1u32.., 1..60),
        ) {
            let grams: Vec<(u64, u32)> = grams.into_iter().collect();
            let window = context(&grams);
            let stide = Stide::new(&counts).expect("fits");
            let new = stide.oddest(&window);
            prop_assert_eq!(is_little(&window) || new.is_empty(), stide.score(&window) == Some(0.0));
            let surprising = Ngrams::new(&counts).expect("fits").oddest(&window);
            prop_assert!(!surprising.is_empty());
            for one in new.iter().chain(&surprising) {
                prop_assert!(grams.contains(&(one.id, one.times)));
                prop_assert_eq!(one.seen, stide.seen.binary_search(&one.id).is_ok());
            }
        }

        #[test]
        fn what_was_trained_on_is_no_news(counts in counts()) {
            let grams: Vec<(u64, u32)> = counts.seen.iter().map(|&(id, n)| (id, n.min(1 << 31) as u32)).collect();
            let window = context(&grams);
            let stide = Stide::new(&counts).expect("fits");
            prop_assert_eq!(stide.score(&window), Some(0.0));
            // Nor is what it ends with.
            let endings: std::collections::BTreeSet<u64> =
                counts.seen.iter().flat_map(|seen| Gram::endings(seen.0)).collect();
            let endings: Vec<(u64, u32)> = endings.into_iter().map(|id| (id, 1)).collect();
            prop_assert_eq!(stide.score(&context(&endings)), Some(0.0));
            // A call never made is a greater surprise.
            let model = Ngrams::new(&counts).expect("fits");
            prop_assert!(Some(model.surprise(Gram::id_of([100, 101]))) >= model.score(&window));
        }

        #[test]
        fn without_sequences_nothing_is_said(counts in counts()) {
            prop_assert_eq!(Ngrams::new(&counts).expect("fits").score(Context::NONE), None);
            prop_assert_eq!(Ngrams::new(&counts).expect("fits").peak(Context::NONE), None);
            prop_assert_eq!(Stide::new(&counts).expect("fits").score(Context::NONE), None);
        }
    }
}
