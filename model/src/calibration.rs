//! From raw scores to p-values, calibrated scores, severities and thresholds that keep an alert budget.
//!
//! A raw score means nothing by itself. [`Calibration`] holds what is needed to say how rare it is among
//! held-out normal windows:
//!
//! - **Bulk**: the conformal p-value (1 + #{held-out ≥ s}) / (n + 1) (Vovk, Gammerman and Shafer, Algorithmic
//!   Learning in a Random World, 2005). If the window is exchangeable with the held-out ones, this is at most
//!   q with probability at most q, whatever the scores' distribution. It is kept at up to [`MAX_KNOTS`] knots
//!   and interpolated, always towards the larger p.
//! - **Tail**: an alert a day is a p of about 1e-4, beyond what n held-out windows can count. For the
//!   largest 5 % of the scores (at least [`MIN_EXCESSES`]), the excess follows a generalised Pareto
//!   distribution (Pickands, Ann. Statist. 3, 1975; for streams: Siffer et al., KDD 2017), fitted by
//!   probability-weighted moments (Hosking and Wallis, Technometrics 29, 1987). The shape is drawn towards 0,
//!   the exponential tail that sums of log-likelihoods have, with the weight of [`PRIOR_EXCESSES`] excesses,
//!   and is never negative (a finite end would turn "not yet seen" into "impossible"). The scale is raised by
//!   one standard error: with few held-out windows p-values come out larger than they are.
//!
//! The calibrated score is 1 − p^(1/6): 0 for the most ordinary window, [`LOW`] at p = 7e-4, [`MEDIUM`] at
//! 6.4e-5 and [`HIGH`] at 1e-6. It grows with −log10 p, and means the same for every model.

use crate::bounded;
use serde::{Deserialize, Serialize};

/// Calibrated score from which a verdict is of low severity.
pub const LOW: f32 = 0.7;
/// Calibrated score from which a verdict is of medium severity.
pub const MEDIUM: f32 = 0.8;
/// Calibrated score from which a verdict is of high severity.
pub const HIGH: f32 = 0.9;

/// Fewest held-out scores to calibrate on.
pub const MIN_SAMPLES: usize = 20;
/// Parts that held-out windows are cut into where each is scored by what was calibrated on the others.
pub const FOLDS: usize = 5;
/// Fewest held-out windows of a training: all parts but one must be enough to calibrate on.
pub const MIN_HOLDOUT: usize = MIN_SAMPLES * FOLDS / (FOLDS - 1);
/// Most knots of the bulk.
pub const MAX_KNOTS: usize = 64;
/// Share of the scores that make the tail.
const TAIL: f64 = 0.05;
/// Fewest scores that make the tail.
pub const MIN_EXCESSES: usize = 10;
/// How many excesses the assumption of an exponential tail weighs.
pub const PRIOR_EXCESSES: f64 = 20.0;
/// Smallest p-value ever given: no tail fitted to thousands of windows says more.
pub const MIN_P: f64 = 1e-12;

/// 1 − p^(1/6).
pub fn calibrated(p: f64) -> f32 {
    (1.0 - p.clamp(0.0, 1.0).powf(1.0 / 6.0)) as f32
}

/// The p-value of a calibrated score.
pub fn p_of(score: f32) -> f64 {
    (1.0 - f64::from(score).clamp(0.0, 1.0)).powi(6)
}

/// How much attention a calibrated score asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Below [`LOW`].
    None,
    /// From [`LOW`].
    Low,
    /// From [`MEDIUM`].
    Medium,
    /// From [`HIGH`].
    High,
}

impl Severity {
    /// Severity of a calibrated score.
    pub fn of(score: f32) -> Self {
        match score {
            s if s >= HIGH => Self::High,
            s if s >= MEDIUM => Self::Medium,
            s if s >= LOW => Self::Low,
            _ => Self::None,
        }
    }

    /// The severity's lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many false alarms people are ready to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlertBudget {
    /// Alarms allowed …
    pub count: f64,
    /// … in this many seconds …
    pub period_s: f64,
    /// … over this many containers scored at once (1 for a budget per container).
    pub containers: f64,
}

impl AlertBudget {
    /// Normal windows of one container that may be called odd, as a share of all.
    pub(crate) fn share(&self, window_s: f64) -> f64 {
        let share = self.count * window_s / (self.period_s * self.containers.max(1.0));
        if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// The calibrated score from which one window of `window_s` seconds is an alarm by itself, whatever
    /// comes next: a tenth of the budget is set aside for that. What lasts a second and is odd beyond doubt
    /// must not be lost for want of a second window.
    pub fn at_once(&self, window_s: f64) -> f32 {
        calibrated((0.1 * self.share(window_s)).max(MIN_P))
    }

    /// The calibrated score that a window must reach, `consecutive` times in a row, to raise an alarm, so
    /// that normal windows of `window_s` seconds raise no more than the budget.
    ///
    /// `dependence` in [0, 1] says how much of a window's oddness lasts into the next: a run of m windows
    /// below p-value q has probability q^(1 + (m − 1)(1 − dependence)). 1 is safe where nothing is known:
    /// the budget then holds however windows hang together. A budget of zero or nonsense gives the strictest
    /// threshold there is.
    pub fn threshold(&self, window_s: f64, consecutive: u32, dependence: f32) -> f32 {
        let m = f64::from(consecutive.max(1));
        let exponent = 1.0 + (m - 1.0) * (1.0 - f64::from(dependence).clamp(0.0, 1.0));
        let q = self.share(window_s).powf(1.0 / exponent);
        calibrated(q.max(MIN_P))
    }
}

/// A point of the bulk: `score` has p-value `p`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Knot {
    /// Raw score.
    pub score: f32,
    /// Its p-value.
    pub p: f32,
}

/// Raw score to p-value, for one estimator of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Held-out scores it was fitted to.
    pub samples: u32,
    /// Ascending in score, descending in p; the tail starts at the last.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_KNOTS>")]
    pub knots: Vec<Knot>,
    /// Shape ξ of the tail, in [0, 1).
    pub shape: f32,
    /// Scale β of the tail, above 0.
    pub scale: f32,
}

/// Why scores give no calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CalibrationError {
    /// Too few held-out windows.
    #[error("calibration needs at least {MIN_SAMPLES} held-out windows, got {0}")]
    TooFew(usize),
    /// A score is NaN or infinite.
    #[error("held-out score {0} is not finite")]
    NotFinite(usize),
    /// A parameter from outside is out of range.
    #[error("calibration parameter out of range: {0}")]
    Range(&'static str),
}

impl Calibration {
    /// Fits to held-out scores of normal windows, in any order.
    ///
    /// `least_scale` is the smallest scale of the tail that makes sense in the estimator's units; it decides
    /// where the held-out scores are all alike.
    ///
    /// # Errors
    /// Too few scores, or one that is not finite.
    pub fn fit(scores: &[f32], least_scale: f32) -> Result<Self, CalibrationError> {
        if scores.len() < MIN_SAMPLES {
            return Err(CalibrationError::TooFew(scores.len()));
        }
        if let Some(bad) = scores.iter().position(|s| !s.is_finite()) {
            return Err(CalibrationError::NotFinite(bad));
        }
        let mut sorted = scores.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let n = sorted.len();
        let start = n - 1 - ((n as f64 * TAIL).ceil() as usize).max(MIN_EXCESSES).min(n / 2);
        let excesses: Vec<f64> = sorted[start + 1..]
            .iter()
            .map(|&s| f64::from(s) - f64::from(sorted[start]))
            .collect();
        let (shape, scale) = fit_tail(&excesses, f64::from(least_scale));
        Ok(Self {
            samples: u32::try_from(n).unwrap_or(u32::MAX),
            knots: knots(&sorted, start),
            shape: shape as f32,
            scale: scale as f32,
        })
    }

    /// Checks every parameter's range, for models from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), CalibrationError> {
        let rule = |holds: bool, name| {
            if holds {
                Ok(())
            } else {
                Err(CalibrationError::Range(name))
            }
        };
        rule((1..=MAX_KNOTS).contains(&self.knots.len()), "1 to 64 knots")?;
        rule(
            self.knots
                .iter()
                .all(|k| k.score.is_finite() && k.p > 0.0 && k.p <= 1.0),
            "p of a knot in (0, 1]",
        )?;
        rule(
            self.knots
                .windows(2)
                .all(|k| k[0].score < k[1].score && k[0].p >= k[1].p),
            "order of knots",
        )?;
        rule((0.0..1.0).contains(&self.shape), "shape in [0, 1)")?;
        rule(self.scale.is_finite() && self.scale > 0.0, "scale above 0")
    }

    /// P-value of a raw score among normal windows: monotone, in [[`MIN_P`], 1]. NaN gives 1: a scorer that
    /// says nothing raises no alarm (the pipeline refuses such vectors before).
    pub fn p_value(&self, score: f32) -> f64 {
        let (first, last) = (self.knots[0], self.knots[self.knots.len() - 1]);
        if score > last.score {
            let excess = (f64::from(score) - f64::from(last.score)) / f64::from(self.scale);
            let shape = f64::from(self.shape);
            // ξ → 0 is the exponential; below 1e-6 the power is too ill-conditioned to tell them apart.
            let survival = if shape < 1e-6 {
                (-excess).exp()
            } else {
                (1.0 + shape * excess).powf(-1.0 / shape)
            };
            return (f64::from(last.p) * survival).max(MIN_P);
        }
        if score > first.score {
            let above = self.knots.partition_point(|k| k.score < score);
            let (a, b) = (self.knots[above - 1], self.knots[above]);
            let along = (f64::from(score) - f64::from(a.score)) / (f64::from(b.score) - f64::from(a.score));
            let p = f64::from(a.p) + along * (f64::from(b.p) - f64::from(a.p));
            // Rounding may carry it past a tiny end.
            return p.max(f64::from(b.p)).max(MIN_P);
        }
        1.0
    }
}

/// Conformal p-values at evenly spaced ranks up to `start`, one for each distinct score.
fn knots(sorted: &[f32], start: usize) -> Vec<Knot> {
    let n = sorted.len();
    let mut knots: Vec<Knot> = Vec::with_capacity(MAX_KNOTS);
    for i in 0..MAX_KNOTS {
        let score = sorted[start * i / (MAX_KNOTS - 1)];
        if knots.last().is_some_and(|k| k.score == score) {
            continue;
        }
        let at_least = n - sorted.partition_point(|&s| s < score);
        knots.push(Knot {
            score,
            p: ((1 + at_least) as f64 / (n + 1) as f64) as f32,
        });
    }
    knots
}

/// Shape and scale of a generalised Pareto distribution for excesses in ascending order.
fn fit_tail(excesses: &[f64], least_scale: f64) -> (f64, f64) {
    let k = excesses.len() as f64;
    let mean = excesses.iter().sum::<f64>() / k;
    // a1 estimates E[Y (1 − F(Y))] with the plotting positions that Hosking and Wallis recommend.
    let a1 = excesses
        .iter()
        .enumerate()
        .map(|(j, y)| (1.0 - (j as f64 + 0.65) / k) * y)
        .sum::<f64>()
        / k;
    let denominator = mean - 2.0 * a1;
    let shape = if denominator > f64::EPSILON * mean.abs().max(f64::MIN_POSITIVE) {
        2.0 - mean / denominator
    } else {
        0.0
    };
    let shape = (k * shape / (k + PRIOR_EXCESSES)).clamp(0.0, 0.5);
    let scale = (mean * (1.0 - shape) * (1.0 + 1.0 / k.sqrt()))
        .max(least_scale)
        .max(f64::from(f32::MIN_POSITIVE));
    (shape, scale)
}
