//! How far a vector lies from what was seen: the part of the ensemble that notices what is new.
//!
//! An isolation forest never splits on a feature that was constant in training, so it is blind to a redis
//! that calls `execve` for the first time. This scorer is the opposite: it knows each feature on its own,
//! as a hurdle model. A feature is present (not zero) with probability π, and where present, lies around a
//! mean m with spread s. A value's surprise, in nats, is
//!
//! - absent: −ln(1 − π),
//! - present: −ln π + H((x − m) / s), with Huber's H (quadratic near 0, linear beyond [`KNEE`]).
//!
//! **What was never seen** is the heart of it. Its π comes from Good and Turing (Good, Biometrika 40, 1953):
//! the chance that a window brings something new is about (features seen in one window only) / windows, shared
//! by all features not yet seen. A container whose repertoire is settled is thus very surprised by one new
//! call, one that still shows something new now and then is not. What was seen in a few windows is mild.
//!
//! **Spread** is held above [`FLOOR`] (features are logarithms, so the floor says by which factor a perfectly
//! steady rate may move unnoticed), and is wide where few windows taught it. Linear tails keep one wild feature
//! from drowning all others.
//!
//! **Less than usual** costs at most [`REST`]: a container may be idle at night, or because another one has its
//! load. That moves the distribution of scores, which is how drift is seen, and raises no alarm by itself.
//!
//! **A vector's score** is the sum of the [`TOP_USUAL`] largest surprises among usual features (π ≥ ½) and the
//! [`TOP_RARE`] largest among rare ones. Usual features move together with load, so adding many of them up
//! would count one change many times; several new calls at once are what an intruder cannot avoid, so the largest
//! of the rare ones is judged with a spread [`ALONE`] times as wide: it takes many calls to count by itself.
//!
//! Surprises also explain: the features with the largest name the system calls that drove a verdict.

use crate::bounded;
use crate::schema::{MAX_FEATURES, to_rate};
use serde::{Deserialize, Serialize};

/// Surprises of usual features that are added up.
pub const TOP_USUAL: usize = 2;
/// Surprises of rare features that are added up.
pub const TOP_RARE: usize = 5;
/// Where Huber's function turns linear, in spreads.
pub const KNEE: f32 = 3.0;
/// Most that a usual call is surprising by being made less often, or not at all, in nats.
pub const REST: f32 = 3.0;
/// How much wider the spread of the most surprising rare feature is taken: in a short window a single new call is a
/// high rate already, and it takes more than that to do harm. Thousands of one new call still tell.
pub const ALONE: f32 = 2.0;
/// Least spread of a feature, in log units: a factor of 1.5.
pub const FLOOR: f32 = 0.4;
/// Spread assumed before any window was seen, and how many windows that assumption weighs.
const PRIOR_SPREAD: f64 = 1.0;
const PRIOR_WEIGHT: f64 = 3.0;

/// Sums over training vectors. Sums of parts, added up in one order, are the sums of the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Vectors seen.
    pub rows: u64,
    /// Vectors in which the feature was not zero.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub present: Vec<u64>,
    /// Sum of the feature.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub sum: Vec<f64>,
    /// Sum of the feature's squares.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub squares: Vec<f64>,
    /// Sum of the feature's rates a second.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub rates: Vec<f64>,
}

/// Why sums make no model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviationError {
    /// Nothing was seen.
    #[error("no vectors to learn from")]
    Empty,
    /// Sums over vectors of different widths.
    #[error("vectors of {0} and of {1} features do not mix")]
    Width(usize, usize),
    /// A value is NaN or infinite.
    #[error("feature {0} is not finite")]
    NotFinite(usize),
    /// A parameter is outside its range.
    #[error("feature {0}: a parameter is outside its range")]
    Range(usize),
}

impl Moments {
    /// Sums over no vectors of `width` features.
    pub fn new(width: usize) -> Self {
        Self {
            rows: 0,
            present: vec![0; width],
            sum: vec![0.0; width],
            squares: vec![0.0; width],
            rates: vec![0.0; width],
        }
    }

    /// Counts one vector.
    ///
    /// # Errors
    /// Another width, or a value that is not finite; the sums are then unchanged.
    pub fn add(&mut self, vector: &[f32]) -> Result<(), DeviationError> {
        if vector.len() != self.sum.len() {
            return Err(DeviationError::Width(self.sum.len(), vector.len()));
        }
        if let Some(bad) = vector.iter().position(|x| !x.is_finite()) {
            return Err(DeviationError::NotFinite(bad));
        }
        self.rows += 1;
        for (i, &x) in vector.iter().enumerate() {
            let value = f64::from(x);
            self.present[i] += u64::from(x != 0.0);
            self.sum[i] += value;
            self.squares[i] += value * value;
            self.rates[i] += to_rate(x);
        }
        Ok(())
    }

    /// The sums without a vector that is in them.
    #[must_use]
    fn without(&self, vector: &[f32]) -> Self {
        let mut rest = self.clone();
        rest.rows = rest.rows.saturating_sub(1);
        for (i, &x) in vector.iter().enumerate().take(self.sum.len()) {
            let value = f64::from(x);
            rest.present[i] = rest.present[i].saturating_sub(u64::from(x != 0.0));
            rest.sum[i] -= value;
            rest.squares[i] -= value * value;
            rest.rates[i] -= to_rate(x);
        }
        rest
    }

    /// Adds the sums of other vectors.
    ///
    /// # Errors
    /// Another width.
    pub fn merge(&mut self, other: &Self) -> Result<(), DeviationError> {
        let width = self.sum.len();
        if other.sum.len() != width || other.present.len() != width {
            return Err(DeviationError::Width(width, other.sum.len()));
        }
        self.rows += other.rows;
        for i in 0..width {
            self.present[i] += other.present[i];
            self.sum[i] += other.sum[i];
            self.squares[i] += other.squares[i];
            self.rates[i] += other.rates[i];
        }
        Ok(())
    }
}

/// What is known of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Normal {
    /// Probability that the feature is not zero, in (0, 1).
    pub present: f32,
    /// Mean where present.
    pub mean: f32,
    /// Spread where present, above 0.
    pub spread: f32,
    /// Mean rate a second over all windows; what a verdict calls expected.
    pub expected_per_s: f32,
}

impl Normal {
    /// Mean over all windows.
    pub(crate) fn usual(&self) -> f32 {
        self.present * self.mean
    }

    /// How far a value lies from that mean, in standard deviations over all windows; these are held above [`FLOOR`].
    pub(crate) fn moved(&self, x: f32) -> f32 {
        let usual = self.usual();
        let square = self.present * (self.spread * self.spread + self.mean * self.mean);
        (x - usual).abs() / (square - usual * usual).sqrt().max(FLOOR)
    }
}

/// The scorer: one [`Normal`] a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// By place in the vector.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub normals: Vec<Normal>,
}

impl Deviation {
    /// Learns from sums.
    ///
    /// # Errors
    /// No vectors, or sums that overflowed.
    pub fn from_moments(moments: &Moments) -> Result<Self, DeviationError> {
        if moments.rows == 0 || moments.sum.is_empty() {
            return Err(DeviationError::Empty);
        }
        let rows = moments.rows as f64;
        let with = |windows| moments.present.iter().filter(|&&k| k == windows).count() as f64;
        // What Krichevsky and Trofimov would add to each feature alone is the most.
        let unseen = ((with(1) + 0.5) / with(0).max(1.0)).min(0.5);
        let normals = (0..moments.sum.len())
            .map(|i| {
                let seen = moments.present[i] as f64;
                let mean = if seen > 0.0 { moments.sum[i] / seen } else { 0.0 };
                let variance = if seen > 0.0 {
                    (moments.squares[i] / seen - mean * mean).max(0.0)
                } else {
                    0.0
                };
                let spread = if seen > 0.0 {
                    ((seen * variance + PRIOR_WEIGHT * PRIOR_SPREAD * PRIOR_SPREAD) / (seen + PRIOR_WEIGHT))
                        .sqrt()
                } else {
                    f64::from(FLOOR)
                };
                let extra = if seen > 0.0 { 0.5 } else { unseen };
                Normal {
                    present: ((seen + extra) / (rows + 1.0)) as f32,
                    mean: mean as f32,
                    spread: (spread as f32).max(FLOOR),
                    expected_per_s: (moments.rates[i] / rows) as f32,
                }
            })
            .collect();
        let model = Self { normals };
        model.check()?;
        Ok(model)
    }

    /// What a vector that is in the sums would have scored, had it been left out of them: what a window of training says
    /// of how odd a new one may be (the jackknife; Barber, Candès, Ramdas and Tibshirani, Ann. Statist. 49, 2021).
    ///
    /// # Errors
    /// Another width, or nothing else in the sums.
    pub fn left_out(moments: &Moments, vector: &[f32]) -> Result<f32, DeviationError> {
        if vector.len() != moments.sum.len() {
            return Err(DeviationError::Width(moments.sum.len(), vector.len()));
        }
        Ok(Self::from_moments(&moments.without(vector))?.score(vector))
    }

    /// Checks every parameter's range, for models from outside.
    ///
    /// # Errors
    /// The first feature with a parameter out of range.
    pub fn check(&self) -> Result<(), DeviationError> {
        if self.normals.is_empty() {
            return Err(DeviationError::Empty);
        }
        for (i, n) in self.normals.iter().enumerate() {
            let inside = n.present > 0.0
                && n.present <= 1.0
                && n.mean.is_finite()
                && n.spread.is_finite()
                && n.spread > 0.0
                && n.expected_per_s.is_finite();
            if !inside {
                return Err(DeviationError::Range(i));
            }
        }
        Ok(())
    }

    /// Surprise of one feature's value, in nats; never negative.
    #[inline]
    pub fn surprise(&self, feature: usize, x: f32) -> f32 {
        self.surprises(feature, x).0
    }

    /// A value's surprise, and what it would be if less than usual counted as much as more: for telling apart
    /// which of several features that rest has moved the most.
    #[inline]
    pub(crate) fn surprises(&self, feature: usize, x: f32) -> (f32, f32) {
        let n = &self.normals[feature];
        if x == 0.0 {
            // π rounds to 1 in f32 after some millions of windows; absence is then as surprising as f32 can say.
            let absent = -(1.0 - n.present).max(f32::EPSILON).ln();
            return (absent.min(REST), absent + huber(n.mean / n.spread));
        }
        let z = (x - n.mean) / n.spread;
        let (moved, present) = (huber(z), -n.present.ln());
        (
            present + if z < 0.0 { moved.min(REST) } else { moved },
            present + moved,
        )
    }

    /// Sum of the largest surprises; see the module's head.
    pub fn score(&self, vector: &[f32]) -> f32 {
        let (mut usual, mut rare) = ([0f32; TOP_USUAL], [0f32; TOP_RARE]);
        let mut rarest = None;
        for (i, (&x, normal)) in vector.iter().zip(&self.normals).enumerate() {
            let surprise = self.surprise(i, x);
            if normal.present >= 0.5 {
                keep(&mut usual, surprise)
            } else {
                if surprise > rare[0] {
                    rarest = Some((normal, x));
                }
                keep(&mut rare, surprise)
            }
        }
        if let Some((normal, x)) = rarest.filter(|(_, x)| *x > 0.0) {
            let alone = -normal.present.ln() + huber((x - normal.mean) / (ALONE * normal.spread));
            rare[0] = rare[0].min(alone);
        }
        usual.iter().chain(&rare).sum()
    }
}

/// Keeps the largest values, in descending order.
#[inline]
fn keep(largest: &mut [f32], mut value: f32) {
    for best in largest {
        if value > *best {
            std::mem::swap(best, &mut value);
        }
    }
}

#[inline]
fn huber(z: f32) -> f32 {
    let z = z.abs();
    if z <= KNEE {
        0.5 * z * z
    } else {
        KNEE * (z - 0.5 * KNEE)
    }
}
