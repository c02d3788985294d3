//! Anomalies of a vector of metrics against a normal that is tracked slowly.
//!
//! Each metric's mean follows the stream with a half-life that is much longer than an incident, and by
//! innovations that are clipped (Huber, Ann. Math. Statist. 35, 1964): a level that stays becomes normal, an
//! incident hardly moves it. A row's standardised deviations z then make three views, since one anomaly is far
//! in one metric, another a little in many, another is ordinary in each metric and wrong in their relation:
//!
//! - magnitude: Σ z², |z| ≤ 100
//! - breadth: Σ z², |z| ≤ 10
//! - relation: zᵀ (C + λI)⁻¹ z with the correlation C of training, |z| ≤ 30 (Mahalanobis, shrunk)
//!
//! Each is averaged over the last rows, and put on the scale that it had in training:
//! ln((x + median) / q99). The score is the sum of the three.

use super::{Refused, rule};
use crate::bounded;
use serde::{Deserialize, Serialize};

/// Most metrics.
pub const MAX_WIDTH: usize = 512;
/// Most rows averaged.
pub const MAX_SMOOTHING: usize = 64;
/// Number of views.
pub const VIEWS: usize = 3;
/// Largest deviation counted, for magnitude, breadth and relation.
pub const CLIPS: [f64; VIEWS] = [100.0, 10.0, 30.0];

const NAME: &str = "tracked deviations";

/// A view's scale in training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ViewScale {
    /// Median.
    pub median: f64,
    /// 99th percentile.
    pub q99: f64,
}

/// A trained detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracked {
    /// Mean of each metric in training, where tracking starts.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_WIDTH>")]
    pub mean: Vec<f64>,
    /// Standard deviation of each metric in training, above 0.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_WIDTH>")]
    pub deviation: Vec<f64>,
    /// (C + λI)^(−1/2) up to a rotation, row by row: the relation view is the squared length of its product with z.
    #[serde(deserialize_with = "bounded::list::<_, _, { MAX_WIDTH * MAX_WIDTH }>")]
    pub whitening: Vec<f64>,
    /// Share of a clipped innovation that a mean follows, in [0, 1).
    pub rate: f64,
    /// Standard deviations at which an innovation is clipped.
    pub innovation: f64,
    /// Rows averaged.
    pub smoothing: u32,
    /// The views' scales.
    pub scales: [ViewScale; VIEWS],
}

impl Tracked {
    /// Metrics in a row.
    pub const fn width(&self) -> usize {
        self.mean.len()
    }

    /// Checks sizes and ranges, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        let width = self.width();
        let finite = |v: &[f64]| v.iter().all(|x| x.is_finite());
        rule((1..=MAX_WIDTH).contains(&width), NAME, "1 to 512 metrics")?;
        rule(
            self.deviation.len() == width && self.whitening.len() == width * width,
            NAME,
            "one deviation and one row of whitening a metric",
        )?;
        rule(
            finite(&self.mean) && finite(&self.whitening),
            NAME,
            "numbers are finite",
        )?;
        rule(
            self.deviation.iter().all(|d| d.is_finite() && *d > 0.0),
            NAME,
            "deviations above 0",
        )?;
        rule((0.0..1.0).contains(&self.rate), NAME, "rate in [0, 1)")?;
        rule(
            self.innovation > 0.0 && self.innovation.is_finite(),
            NAME,
            "innovation above 0",
        )?;
        rule(
            (1..=MAX_SMOOTHING as u32).contains(&self.smoothing),
            NAME,
            "smoothing in 1..=64",
        )?;
        rule(
            self.scales
                .iter()
                .all(|s| s.median >= 0.0 && s.median.is_finite() && s.q99 > 0.0 && s.q99.is_finite()),
            NAME,
            "scales above 0",
        )
    }

    /// A stream's beginning. The only place that allocates.
    pub fn start(&self) -> Stream<'_> {
        Stream {
            model: self,
            mean: self.mean.clone(),
            z: vec![0.0; self.width()],
            recent: [[0.0; VIEWS]; MAX_SMOOTHING],
            rows: 0,
        }
    }
}

/// One stream of rows.
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    model: &'a Tracked,
    mean: Vec<f64>,
    z: Vec<f64>,
    recent: [[f64; VIEWS]; MAX_SMOOTHING],
    rows: usize,
}

impl Stream<'_> {
    /// Each view of the next row, averaged over the last rows, then moves the means. Metrics that are NaN,
    /// infinite or missing count as being at their mean.
    pub fn views(&mut self, row: &[f64]) -> [f64; VIEWS] {
        let model = self.model;
        let given = row.iter().copied().chain(std::iter::repeat(f64::NAN));
        for (((z, mean), deviation), x) in self
            .z
            .iter_mut()
            .zip(&mut self.mean)
            .zip(&model.deviation)
            .zip(given)
        {
            let deviations = (x - *mean) / deviation;
            *z = if deviations.is_finite() { deviations } else { 0.0 };
            *mean += model.rate * z.clamp(-model.innovation, model.innovation) * deviation;
        }
        let square = |clip: f64| self.z.iter().map(|z| z.abs().min(clip).powi(2)).sum::<f64>();
        let [magnitude, breadth, relation] = CLIPS;
        let related = model
            .whitening
            .chunks_exact(self.z.len().max(1))
            .map(|w| {
                w.iter()
                    .zip(&self.z)
                    .map(|(w, z)| w * z.clamp(-relation, relation))
                    .sum::<f64>()
                    .powi(2)
            })
            .sum();
        let smoothing = (model.smoothing as usize).clamp(1, MAX_SMOOTHING);
        self.recent[self.rows % smoothing] = [square(magnitude), square(breadth), related];
        self.rows += 1;
        let held = &self.recent[..self.rows.min(smoothing)];
        std::array::from_fn(|v| held.iter().map(|r| r[v]).sum::<f64>() / held.len() as f64)
    }

    /// How unusual the stream is at the next row; larger is more anomalous.
    pub fn push(&mut self, row: &[f64]) -> f64 {
        let views = self.views(row);
        views
            .iter()
            .zip(&self.model.scales)
            .map(|(x, s)| ((x + s.median + f64::EPSILON) / s.q99).ln())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(width: usize, smoothing: u32, rate: f64) -> Tracked {
        let mut whitening = vec![0.0; width * width];
        for i in 0..width {
            whitening[i * width + i] = 1.0;
        }
        Tracked {
            mean: vec![0.0; width],
            deviation: vec![1.0; width],
            whitening,
            rate,
            innovation: 3.0,
            smoothing,
            scales: [ViewScale {
                median: 1.0,
                q99: 4.0,
            }; VIEWS],
        }
    }

    #[test]
    fn views_by_hand() {
        let model = plain(2, 2, 0.0);
        let mut stream = model.start();
        assert_eq!(stream.views(&[3.0, 4.0]), [25.0, 25.0, 25.0]);
        // The mean of 25 and 400, of 25 and 100 + 0, of 25 and 400.
        assert_eq!(stream.views(&[20.0, 0.0]), [212.5, 62.5, 212.5]);
        assert_eq!(stream.views(&[0.0, 0.0]), [200.0, 50.0, 200.0]);
    }

    #[test]
    fn a_level_that_stays_becomes_normal() {
        let model = plain(3, 1, 0.01);
        let mut stream = model.start();
        let first = stream.push(&[5.0, 5.0, 5.0]);
        let mut last = first;
        for _ in 0..2000 {
            last = stream.push(&[5.0, 5.0, 5.0]);
        }
        assert!(last < first - 3.0, "{first} to {last}");
    }

    #[test]
    fn damaged_models_are_refused() {
        assert_eq!(plain(2, 10, 0.1).check(), Ok(()));
        let damage: [fn(&mut Tracked); 7] = [
            |m| m.deviation[0] = 0.0,
            |m| m.mean[0] = f64::NAN,
            |m| m.rate = 1.0,
            |m| m.smoothing = 0,
            |m| m.scales[1].q99 = 0.0,
            |m| {
                m.whitening.pop();
            },
            |m| m.innovation = f64::INFINITY,
        ];
        for d in damage {
            let mut bad = plain(2, 10, 0.1);
            d(&mut bad);
            assert!(bad.check().is_err());
        }
    }

    proptest! {
        #[test]
        fn any_row_gives_a_finite_score(
            rows in prop::collection::vec(prop::collection::vec(any::<f64>(), 0..6), 1..30),
            smoothing in 1u32..=64,
        ) {
            let model = plain(4, smoothing, 0.5);
            let mut stream = model.start();
            for row in rows {
                prop_assert!(stream.push(&row).is_finite());
            }
        }

        #[test]
        fn further_away_is_never_less_anomalous(row in prop::collection::vec(-5.0..5.0f64, 3), by in 1.0..10.0f64) {
            let model = plain(3, 1, 0.0);
            let near = model.start().push(&row);
            let far = model.start().push(&row.iter().map(|x| x * by).collect::<Vec<_>>());
            prop_assert!(far >= near);
        }

        #[test]
        fn the_same_rows_give_the_same_scores(rows in prop::collection::vec(prop::collection::vec(-9.0..9.0f64, 3), 1..40)) {
            let model = plain(3, 5, 0.1);
            let run = || {
                let mut stream = model.start();
                rows.iter().map(|r| stream.push(r)).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }

        #[test]
        fn what_is_missing_is_at_its_mean(row in prop::collection::vec(-9.0..9.0f64, 2)) {
            let model = plain(3, 1, 0.0);
            let with = model.start().push(&[row[0], row[1], 0.0]);
            prop_assert_eq!(with, model.start().push(&row));
            prop_assert_eq!(with, model.start().push(&[row[0], row[1], f64::NAN]));
        }

        #[test]
        fn one_wild_row_moves_a_mean_by_little(wild in 10.0..1e12f64) {
            let model = plain(1, 1, 0.01);
            let mut stream = model.start();
            stream.push(&[wild]);
            let after = stream.views(&[0.0]);
            prop_assert!(after[0] <= 0.03f64.powi(2) + 1e-12);
        }
    }
}
