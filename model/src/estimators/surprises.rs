//! How surprising each of one window's sequences of calls is, worked out once for all scores of one model.
//!
//! The mean and the peak ([`super::order`]) of a window start from the same surprises, and a look-up among all sequences of
//! training for each is what both cost.

use super::order::{LEAST, Ngrams, PEAK, weight};
use crate::context::{Context, Gram, MAX_GRAMS};

/// A window's sequences, and how surprising they are to the model that was asked last.
pub struct Surprises<'a> {
    context: &'a Context,
    to: Option<&'a Ngrams>,
    each: [f32; MAX_GRAMS],
}

impl<'a> Surprises<'a> {
    /// Of a window with this context; no model was asked yet.
    pub const fn of(context: &'a Context) -> Self {
        Self {
            context,
            to: None,
            each: [0.0; MAX_GRAMS],
        }
    }

    /// Each with its sequence.
    fn to(&mut self, model: &'a Ngrams) -> impl Iterator<Item = (Gram, f32)> {
        let grams = self.context.grams();
        if !self.to.is_some_and(|known| std::ptr::eq(known, model)) {
            for (surprise, gram) in self.each.iter_mut().zip(grams) {
                *surprise = model.surprise(gram.id);
            }
            self.to = Some(model);
        }
        grams.iter().copied().zip(self.each.iter().copied())
    }

    /// Their mean, in nats; 0 where the sequences weigh less than [`LEAST`], and none without any.
    pub fn mean(&mut self, model: &'a Ngrams) -> Option<f32> {
        let (mut sum, mut weights) = (0.0f64, 0.0f64);
        for (gram, surprise) in self.to(model) {
            let weight = weight(gram.count);
            sum += weight * f64::from(surprise);
            weights += weight;
        }
        (weights > 0.0).then(|| {
            if weights < LEAST {
                0.0
            } else {
                (sum / weights) as f32
            }
        })
    }

    /// Mean surprise of the [`PEAK`] calls that are the oddest after those before them, in nats; those that the window has
    /// not are as expected. None without any.
    pub fn peak(&mut self, model: &'a Ngrams) -> Option<f32> {
        // Ascending.
        let mut oddest = [0.0f32; PEAK];
        for (gram, surprise) in self.to(model) {
            for _ in 0..gram.count.min(PEAK as u32) {
                let above = oddest.partition_point(|&known| known < surprise);
                let Some(place) = above.checked_sub(1) else { break };
                oddest.copy_within(1..above, 0);
                oddest[place] = surprise;
            }
        }
        (!self.context.grams().is_empty()).then(|| oddest.iter().sum::<f32>() / PEAK as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{GramCounts, ORDER};
    use proptest::prelude::*;

    /// As each score is by itself, with a look-up for each sequence.
    fn alone(model: &Ngrams, context: &Context) -> (Option<f32>, Option<f32>) {
        let (mut sum, mut weights, mut oddest) = (0.0f64, 0.0f64, [0.0f32; PEAK]);
        for &Gram { id, count } in context.grams() {
            let weight = f64::from(count).ln_1p();
            sum += weight * f64::from(model.surprise(id));
            weights += weight;
            for _ in 0..count.min(PEAK as u32) {
                if model.surprise(id) > oddest[0] {
                    oddest[0] = model.surprise(id);
                    oddest.sort_by(f32::total_cmp);
                }
            }
        }
        let mean = if weights < LEAST {
            0.0
        } else {
            (sum / weights) as f32
        };
        let has = !context.grams().is_empty();
        (
            has.then_some(mean),
            has.then(|| oddest.iter().sum::<f32>() / PEAK as f32),
        )
    }

    fn ids() -> impl Strategy<Value = u64> {
        prop::collection::vec(0usize..20, 2..=ORDER).prop_map(Gram::id_of)
    }

    fn model() -> impl Strategy<Value = Ngrams> {
        prop::collection::btree_map(ids(), 1u64..1 << 40, 1..80).prop_map(|seen| {
            let seen = seen.into_iter().collect();
            Ngrams::new(&GramCounts { seen }).expect("fits")
        })
    }

    proptest! {
        #[test]
        fn together_scores_are_to_the_bit_what_they_are_alone(
            (one, other) in (model(), model()),
            grams in prop::collection::btree_map(ids(), 1u32..90, 0..120),
        ) {
            let grams = grams.into_iter().map(|(id, count)| Gram { id, count }).collect();
            let context = Context::new(grams, vec![]).expect("a context");
            let bits = |score: Option<f32>| score.map(f32::to_bits);
            // Whichever is asked first, and also where another model was asked in between.
            let mut surprises = Surprises::of(&context);
            for model in [&one, &other, &one] {
                let (mean, peak) = alone(model, &context);
                prop_assert_eq!(bits(surprises.mean(model)), bits(mean));
                prop_assert_eq!(bits(surprises.peak(model)), bits(peak));
                prop_assert_eq!(bits(surprises.mean(model)), bits(mean));
            }
        }

        #[test]
        fn a_model_is_asked_once_for_all_its_scores(
            model in model(),
            grams in prop::collection::btree_map(ids(), 1u32..90, 1..120),
        ) {
            let grams = grams.into_iter().map(|(id, count)| Gram { id, count }).collect();
            let context = Context::new(grams, vec![]).expect("a context");
            let mut surprises = Surprises::of(&context);
            surprises.mean(&model);
            // What it said then is what the next score is made of.
            surprises.each = [2.0; MAX_GRAMS];
            let calls: u32 = context.grams().iter().map(|gram| gram.count).sum();
            let expected = 2.0 * calls.min(PEAK as u32) as f32 / PEAK as f32;
            let peak = surprises.peak(&model).expect("sequences");
            prop_assert!((peak - expected).abs() < 1e-5, "{peak} {expected}");
        }
    }
}
