//! How many kinds of calls a window shows that training never saw.
//!
//! What a shell does in a busy container drowns in a score that adds up how far rates are from usual: a noisy baseline
//! makes large sums ordinary. That a program calls what it never called is another thing, and noise of rates does not
//! touch it. So it is counted by itself, and has a calibration of its own.
//!
//! **How rare is it that a window shows something new?** Each window of training answers that when it is left out: what
//! it alone shows would have been new (Good, Biometrika 40, 1953, for the chance; the jackknife for what comes with it).
//! With the windows held out, that makes (1 + windows with something new) / (1 + windows), as conformal p-values count.
//!
//! **And that it shows so many kinds at once?** New kinds come together: who resolves a name for the first time opens
//! a socket, connects and sends. Further kinds follow the first as an exponential does, whose scale is that of the
//! windows with something new, drawn towards [`SCALE`] with the weight of [`PRIOR`] windows and raised by one standard
//! error. Of system calls of Linux programs (ADFA-LD: 4,372 runs against 20, 50 and 200 others) between a quarter and
//! a half of the runs with k new kinds have more, at every k up to 10: a scale between 0.7 and 1.4.
//!
//! What was seen once, in however many windows, is not new: a call that is made seldom alerts nobody a second time once a
//! model has learnt it.

use super::{Refused, rule};
use crate::bounded;
use crate::calibration::{Calibration, CalibrationError, Knot, MIN_SAMPLES};
use crate::deviation::Moments;
use crate::schema::{Feature, MAX_FEATURES, Schema};
use serde::{Deserialize, Serialize};

/// By how many kinds the chance of more falls to 1/e, where nothing was seen.
pub const SCALE: f64 = 1.0;
/// How many windows with something new that assumption weighs.
pub const PRIOR: f64 = 5.0;

/// What training saw, and how often it would have been surprised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Novelty {
    /// By place in the vector: windows of training that have it. One that none has is new; of places that are of no
    /// kind of calls, all windows are taken to have them.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub seen: Vec<u64>,
    /// Windows that say so.
    pub windows: u64,
    /// Those of them that show what no other does.
    pub alone: u64,
    /// Kinds that only these show, beyond one for each of them.
    pub beyond: u64,
}

impl Novelty {
    /// The estimator's name.
    pub const NAME: &'static str = "novelty";

    /// From sums of all windows, and of each of the windows that show what no other does, how many kinds.
    #[must_use]
    pub fn learn(schema: &Schema, sums: &Moments, alone: impl Iterator<Item = u64>) -> Self {
        // How many calls there are, and of how many kinds, is of no kind.
        let counts = |feature: &Feature| !matches!(feature, Feature::Total | Feature::Distinct);
        let features = schema.features().iter().zip(&sums.present);
        let (mut windows, mut beyond) = (0u64, 0u64);
        for kinds in alone.filter(|kinds| *kinds > 0) {
            windows += 1;
            beyond = beyond.saturating_add(kinds - 1);
        }
        Self {
            seen: features
                .map(|(f, &present)| if counts(f) { present } else { sums.rows })
                .collect(),
            windows: sums.rows,
            alone: windows.min(sums.rows),
            beyond,
        }
    }

    /// Checks what comes from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self, width: usize) -> Result<(), Refused> {
        rule(self.seen.len() == width, Self::NAME, "one place for each feature")?;
        let known = self.alone <= self.windows && self.windows > 0;
        rule(
            known,
            Self::NAME,
            "no more windows with something new than windows",
        )
    }

    /// Whether the value at a place of a vector is something new.
    #[inline]
    pub fn is_new(&self, place: usize, x: f32) -> bool {
        x != 0.0 && self.seen.get(place) == Some(&0)
    }

    /// How many kinds of a vector are new.
    pub fn score(&self, vector: &[f32]) -> f32 {
        let new = vector
            .iter()
            .enumerate()
            .filter(|&(place, &x)| self.is_new(place, x));
        new.count() as f32
    }

    /// What so many kinds mean: from training's windows and these scores of windows held out.
    ///
    /// # Errors
    /// Too few scores, or one that is not finite.
    pub fn calibrate(&self, held_out: &[f32]) -> Result<Calibration, CalibrationError> {
        if held_out.len() < MIN_SAMPLES {
            return Err(CalibrationError::TooFew(held_out.len()));
        }
        if let Some(bad) = held_out.iter().position(|s| !s.is_finite()) {
            return Err(CalibrationError::NotFinite(bad));
        }
        let with_new = held_out.iter().filter(|kinds| **kinds >= 1.0);
        let windows = self.windows as f64 + held_out.len() as f64;
        let new = self.alone as f64 + with_new.clone().count() as f64;
        let beyond = self.beyond as f64 + with_new.map(|kinds| f64::from(*kinds) - 1.0).sum::<f64>();
        let weight = new + PRIOR;
        let scale = (beyond + PRIOR * SCALE) / weight * (1.0 + 1.0 / weight.sqrt());
        let knot = |score, p: f64| Knot { score, p: p as f32 };
        Ok(Calibration {
            samples: u32::try_from(held_out.len()).unwrap_or(u32::MAX),
            knots: vec![knot(0.0, 1.0), knot(1.0, (1.0 + new) / (1.0 + windows))],
            shape: 0.0,
            scale: scale as f32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(alone: &[u64], windows: u64) -> Novelty {
        let schema = Schema::syscalls_v1();
        let mut sums = Moments::new(schema.width());
        sums.rows = windows;
        sums.present[..10].fill(windows);
        Novelty::learn(schema, &sums, alone.iter().copied())
    }

    #[test]
    fn what_training_saw_is_not_new_and_sums_over_everything_are_no_kind() {
        let (novelty, width) = (of(&[], 100), Schema::syscalls_v1().width());
        assert_eq!(novelty.check(width), Ok(()));
        assert_eq!(novelty.score(&vec![1.0; width]), (width - 12) as f32);
        assert_eq!(novelty.score(&vec![0.0; width]), 0.0);
        assert!(!novelty.is_new(9, 1.0) && novelty.is_new(10, 1.0) && !novelty.is_new(10, 0.0));
        assert!(!novelty.is_new(width - 1, 1.0) && !novelty.is_new(usize::MAX, 1.0));
    }

    #[test]
    fn the_chance_of_something_new_is_that_of_windows_left_out_and_held_out() {
        let novelty = of(&[1, 3, 1], 79);
        assert_eq!((novelty.alone, novelty.beyond), (3, 2));
        let mut held_out = vec![0.0; 20];
        held_out[7] = 2.0;
        let calibration = novelty.calibrate(&held_out).expect("enough");
        assert_eq!(calibration.check(), Ok(()));
        assert_eq!(calibration.p_value(0.0), 1.0);
        // 3 of 79 and 1 of 20 windows.
        assert!((calibration.p_value(1.0) - 5.0 / 100.0).abs() < 1e-6);
        // 3 kinds beyond the first in 4 windows, and 5 in 5 that are assumed.
        let scale: f64 = 8.0 / 9.0 * (1.0 + 1.0 / 3.0);
        assert!((calibration.p_value(11.0) - 0.05 * (-10.0 / scale).exp()).abs() < 1e-8);
    }

    #[test]
    fn too_little_to_calibrate_on_and_nonsense_are_refused() {
        assert_eq!(
            of(&[], 50).calibrate(&[0.0; 19]),
            Err(CalibrationError::TooFew(19))
        );
        let mut bad = vec![0.0; 30];
        bad[3] = f32::NAN;
        assert_eq!(of(&[], 50).calibrate(&bad), Err(CalibrationError::NotFinite(3)));
        let good = of(&[2], 50);
        let width = good.seen.len();
        assert!(good.check(width + 1).is_err());
        assert!(
            Novelty {
                alone: 51,
                ..good.clone()
            }
            .check(width)
            .is_err()
        );
        assert!(
            Novelty {
                windows: 0,
                alone: 0,
                ..good
            }
            .check(width)
            .is_err()
        );
    }

    proptest! {
        #[test]
        fn whatever_was_seen_p_values_are_such(
            alone in prop::collection::vec(0u64..200, 0..100),
            windows in 1u64..100_000,
            held_out in prop::collection::vec((0u32..128).prop_map(|n| n as f32), 20..100),
        ) {
            let calibration = of(&alone, windows).calibrate(&held_out).expect("enough");
            prop_assert_eq!(calibration.check(), Ok(()));
            let mut former = 1.0;
            for kinds in 0..128 {
                let p = calibration.p_value(kinds as f32);
                prop_assert!(p > 0.0 && p <= former);
                former = p;
            }
        }

        #[test]
        fn more_that_was_new_makes_what_is_new_less_odd(alone in prop::collection::vec(1u64..20, 1..50), kinds in 1u32..50) {
            let calm = of(&alone[1..], 1000).calibrate(&[0.0; 50]).expect("enough");
            let restless = of(&alone, 1000).calibrate(&[0.0; 50]).expect("enough");
            // One more window of the least kind may draw the scale down: the chance of any is what must grow.
            prop_assert!(restless.p_value(1.0) >= calm.p_value(1.0));
            prop_assert!(restless.p_value(kinds as f32) <= restless.p_value(1.0));
        }

        #[test]
        fn a_score_is_the_number_of_kinds_that_are_new_however_often_they_come(
            seen in prop::collection::vec(0u64..3, 60),
            window in prop::collection::vec(prop_oneof![Just(0f32), 0.1f32..12.0], 60),
            by in 0.1f32..9.0,
        ) {
            let width = Schema::syscalls_v1().width();
            let mut sums = Moments::new(width);
            sums.rows = 100;
            sums.present[..60].copy_from_slice(&seen);
            let novelty = Novelty::learn(Schema::syscalls_v1(), &sums, std::iter::empty());
            let new = seen.iter().zip(&window).filter(|(seen, x)| **seen == 0 && **x > 0.0).count();
            let mut vector = vec![0.0; width];
            vector[..60].copy_from_slice(&window);
            prop_assert_eq!(novelty.score(&vector), new as f32);
            vector.iter_mut().for_each(|x| *x *= by);
            prop_assert_eq!(novelty.score(&vector), new as f32);
        }

        #[test]
        fn the_longer_nothing_was_new_the_odder_it_is(windows in 1u64..100_000, more in 1u64..100_000, kinds in 1u32..20) {
            let p = |windows| of(&[1], windows).calibrate(&[0.0; 50]).expect("enough").p_value(kinds as f32);
            prop_assert!(p(windows + more) < p(windows));
        }

        #[test]
        fn the_order_of_windows_does_not_matter(
            mut alone in prop::collection::vec(0u64..9, 1..40),
            mut held_out in prop::collection::vec((0u32..9).prop_map(|n| n as f32), 20..60),
        ) {
            let before = of(&alone, 500).calibrate(&held_out);
            alone.reverse();
            held_out.reverse();
            prop_assert_eq!(of(&alone, 500).calibrate(&held_out), before);
        }
    }
}
