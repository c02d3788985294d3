//! Fixed-edge, mergeable histograms of calibrated scores, and how far two of them lie apart.
//!
//! The edges are the same for every model and every build: they sit where the p-value of normal windows
//! would be .9, .8 … .1, .05, .02, .01, .005 and powers of ten down to 1e-6, so a well calibrated model fills
//! the first ten bins evenly and drift shows as unevenness. Histograms of one model are merged by adding
//! counts, whichever node they come from.
//!
//! Both distances are effect sizes, not tests, so they do not grow with the number of samples: the
//! Jensen-Shannon divergence (Lin, IEEE Trans. Inf. Theory 37, 1991) in bits, in [0, 1], and the population
//! stability index (Siddiqi, Credit Risk Scorecards, 2006), where by custom .1 is a shift and .25 a large
//! one. Of two samples from one distribution, both would be above 0 by chance: by (b − 1)(1/n + 1/m) / (8 ln 2)
//! and (b − 1)(1/n + 1/m) on average, with b bins in use and n and m samples (their leading terms are χ²
//! statistics; for PSI see Yurdakul and Naranjo, J. Risk Model Validation 14, 2020). That much is taken off, so
//! that a few dozen windows are not taken for drift; below [`MIN_SAMPLES`] there is no distance at all.

use crate::calibration::calibrated;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// P-values at the edges between bins.
const P_EDGES: [f64; BINS - 1] = [
    0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 1e-3, 1e-4, 1e-5, 1e-6,
];

/// Number of bins.
pub const BINS: usize = 18;

/// Fewest scores on either side that a distance is given for.
pub const MIN_SAMPLES: u64 = 20;

/// Upper edges of all bins but the last, in calibrated score, ascending.
pub fn edges() -> &'static [f32; BINS - 1] {
    static EDGES: OnceLock<[f32; BINS - 1]> = OnceLock::new();
    EDGES.get_or_init(|| P_EDGES.map(calibrated))
}

/// How many scores fell into each bin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScoreHistogram {
    /// Scores by bin.
    pub counts: [u64; BINS],
}

/// Counts from outside do not make a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a histogram of scores has {BINS} bins, this one has {0}")]
pub struct WrongBins(pub usize);

impl TryFrom<&[u64]> for ScoreHistogram {
    type Error = WrongBins;

    fn try_from(counts: &[u64]) -> Result<Self, WrongBins> {
        Ok(Self {
            counts: counts.try_into().map_err(|_| WrongBins(counts.len()))?,
        })
    }
}

impl ScoreHistogram {
    /// Counts one calibrated score.
    pub fn add(&mut self, score: f32) {
        let bin = edges().partition_point(|&edge| edge <= score);
        self.counts[bin] = self.counts[bin].saturating_add(1);
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// Scores counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// Jensen-Shannon divergence in bits, 0 (same) to 1 (disjoint); `None` below [`MIN_SAMPLES`] on a side.
    pub fn jensen_shannon(&self, other: &Self) -> Option<f64> {
        let (p, q) = (self.shares(0.0)?, other.shares(0.0)?);
        let half = |a: &[f64; BINS], b: &[f64; BINS]| -> f64 {
            a.iter()
                .zip(b)
                .filter(|(a, _)| **a > 0.0)
                .map(|(a, b)| a * (2.0 * a / (a + b)).log2())
                .sum()
        };
        let by_chance = self.chance(other) / (8.0 * std::f64::consts::LN_2);
        Some((f64::midpoint(half(&p, &q), half(&q, &p)) - by_chance).clamp(0.0, 1.0))
    }

    /// Population stability index of `other` against this one; `None` below [`MIN_SAMPLES`] on a side.
    /// Every bin gets half a count more, so that an empty one costs much, not everything.
    pub fn psi(&self, other: &Self) -> Option<f64> {
        let (p, q) = (self.shares(0.5)?, other.shares(0.5)?);
        let index: f64 = p.iter().zip(&q).map(|(p, q)| (q - p) * (q / p).ln()).sum();
        Some((index - self.chance(other)).max(0.0))
    }

    /// What Σ (p − q)² / p is on average where both are samples of one distribution.
    fn chance(&self, other: &Self) -> f64 {
        let used = self
            .counts
            .iter()
            .zip(&other.counts)
            .filter(|(a, b)| **a > 0 || **b > 0)
            .count();
        used.saturating_sub(1) as f64 * (1.0 / self.total() as f64 + 1.0 / other.total() as f64)
    }

    fn shares(&self, extra: f64) -> Option<[f64; BINS]> {
        let total = self.total();
        (total >= MIN_SAMPLES).then(|| {
            self.counts
                .map(|n| (n as f64 + extra) / (total as f64 + extra * BINS as f64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(usize, u64)]) -> ScoreHistogram {
        let mut h = ScoreHistogram::default();
        for &(bin, n) in counts {
            h.counts[bin] = n;
        }
        h
    }

    #[test]
    fn edges_ascend_and_every_score_has_a_bin() {
        assert!(edges().windows(2).all(|e| e[0] < e[1]));
        let mut h = ScoreHistogram::default();
        for score in [0.0, 0.3, edges()[3], 0.7, 0.8, 0.89, 1.0] {
            h.add(score);
        }
        assert_eq!(h.total(), 7);
        assert_eq!(h.counts[0], 1);
        assert_eq!(h.counts[BINS - 1], 1);
    }

    #[test]
    fn an_edge_belongs_to_the_bin_above() {
        let mut h = ScoreHistogram::default();
        h.add(edges()[3]);
        assert_eq!(h.counts[4], 1);
    }

    #[test]
    fn distances_are_zero_for_equal_shares_and_one_for_disjoint_ones() {
        let a = histogram(&[(0, 100), (1, 300)]);
        let b = histogram(&[(0, 1000), (1, 3000)]);
        let c = histogram(&[(9, 500)]);
        assert!(a.jensen_shannon(&b).is_some_and(|d| d < 1e-12));
        assert!(a.psi(&b).is_some_and(|d| d < 0.05));
        assert!(a.jensen_shannon(&c).is_some_and(|d| d > 0.99));
        assert!(a.psi(&c).is_some_and(|d| d > 1.0));
    }

    #[test]
    fn too_few_scores_give_no_distance() {
        let few = histogram(&[(0, MIN_SAMPLES - 1)]);
        let enough = histogram(&[(0, MIN_SAMPLES)]);
        assert_eq!(few.jensen_shannon(&enough), None);
        assert_eq!(enough.psi(&few), None);
        assert_eq!(enough.psi(&enough), Some(0.0));
    }

    #[test]
    fn counts_from_outside_need_every_bin() {
        assert_eq!(ScoreHistogram::try_from(&[1u64, 2][..]), Err(WrongBins(2)));
        assert!(ScoreHistogram::try_from(&[0u64; BINS][..]).is_ok());
    }
}
