//! One window in, one verdict out: schema, estimators, calibration and explanation as one thing.
//!
//! A [`PipelineSpec`] is data (what a trainer makes and an artifact holds); [`PipelineSpec::compile`] checks
//! it against its schema and gives a [`Pipeline`], which only scores. Scoring allocates nothing and does not
//! panic, whatever the window holds.
//!
//! Each estimator has its own calibration, so that all of them speak p-values; the pipeline's p-value is the
//! smallest of them times the number of tests that they effectively are (Bonferroni with the effective number
//! of tests, estimated on held-out windows and between 1 and the number of estimators). The estimators'
//! calibrations already cost held-out windows once; a second fit on the combined score would be conservative
//! twice where windows are few, and where estimators are independent Bonferroni loses nothing in the tail.
//!
//! Estimators of order and of time look at what is known beside the window's counts (see [`crate::context`]). Where that
//! is nothing, as in a mode that counts no sequences, they say nothing, and the others decide by themselves.

mod forms;
mod kind;
mod spec;
mod told;
mod verdict;

pub use kind::{EstimatorKind, UnknownEstimator};
pub use spec::{EstimatorSpec, MAX_MEMBERS, MemberSpec, Observed, PipelineError, PipelineSpec};
pub use told::ToldSequence;
pub use verdict::{Driver, DriverKind, Drivers, EVERY_CALL, MAX_DRIVERS, Verdict};

use crate::calibration::{Calibration, Severity, calibrated};
use crate::context::Context;
use crate::deviation::Deviation;
use crate::estimators::novelty::Novelty;
use crate::estimators::order::{Ngrams, Stide};
use crate::estimators::rate::Forecast;
use crate::estimators::surprises::Surprises;
use crate::estimators::vector::Staged;
use crate::forest::Forest;
use crate::histogram::ScoreHistogram;
use crate::schema::{Feature, FeatureError, MAX_FEATURES, Schema};
use crate::syscalls::Arch;
use crate::window::Window;
use std::sync::Arc;
use verdict::{By, Explainer};

/// Why a window has no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The window makes no vector.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A value is NaN or infinite.
    #[error("feature {0} is not finite")]
    NotFinite(usize),
    /// No estimator of the pipeline can say anything of the window.
    #[error(
        "the window carries nothing that the model looks at: sequences of calls are counted in capture.mode Sampled and Full, forecasts need windows before"
    )]
    Silent,
}

/// Space for one vector, kept by whoever scores so that scoring allocates nothing.
#[derive(Debug, Clone)]
pub struct Scratch {
    vector: [f32; MAX_FEATURES],
    width: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            vector: [0.0; MAX_FEATURES],
            width: 0,
        }
    }
}

impl Scratch {
    /// The vector scored last.
    pub fn vector(&self) -> &[f32] {
        &self.vector[..self.width]
    }
}

enum Estimator {
    Deviation,
    IsolationForest(Box<Forest>),
    Vector(Box<Staged>),
    Ngrams(Arc<Ngrams>),
    NgramPeak(Arc<Ngrams>),
    Stide(Stide),
    /// And the place of the rate that it forecasts.
    Forecast(Forecast, usize),
    Novelty(Novelty),
}

struct Member {
    kind: EstimatorKind,
    estimator: Estimator,
    calibration: Calibration,
}

/// A pipeline ready to score.
pub struct Pipeline {
    schema: &'static Schema,
    deviation: Deviation,
    members: Vec<Member>,
    tests: f64,
    reference: ScoreHistogram,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("schema", &self.schema.name())
            .field("members", &self.kinds().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Estimator {
    /// None where nothing is known that it looks at. `surprises` are those of the context, and what another estimator that
    /// has the same model made of them.
    fn score<'a>(
        &'a self,
        deviation: &Deviation,
        vector: &[f32],
        context: &Context,
        surprises: &mut Surprises<'a>,
    ) -> Option<f32> {
        match self {
            Self::Deviation => Some(deviation.score(vector)),
            Self::IsolationForest(forest) => Some(forest.score(vector)),
            Self::Vector(staged) => Some(staged.score(vector)),
            Self::Ngrams(ngrams) => surprises.mean(ngrams),
            Self::NgramPeak(ngrams) => surprises.peak(ngrams),
            Self::Stide(stide) => stide.score(context),
            Self::Forecast(forecast, place) => forecast.score(vector[*place], context),
            Self::Novelty(novelty) => Some(novelty.score(vector)),
        }
    }

    /// Whether a vector is all it needs.
    const fn looks_at_vectors(&self) -> bool {
        matches!(
            self,
            Self::Deviation | Self::IsolationForest(_) | Self::Vector(_) | Self::Novelty(_)
        )
    }

    /// Scores of rows; NaN where nothing is known that it looks at.
    fn score_batch(&self, deviation: &Deviation, rows: Observed<'_>, scores: &mut [f32]) {
        if let Self::IsolationForest(forest) = self {
            forest.score_batch(rows.vectors, scores);
            return;
        }
        let vectors = rows.vectors.chunks_exact(deviation.normals.len());
        for (row, (vector, score)) in vectors.zip(scores).enumerate() {
            let context = rows.contexts.get(row).unwrap_or(Context::NONE);
            let told = self.score(deviation, vector, context, &mut Surprises::of(context));
            *score = told.unwrap_or(f32::NAN);
        }
    }
}

impl Pipeline {
    /// The schema whose vectors it takes.
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// Kinds of the estimators.
    pub fn kinds(&self) -> impl Iterator<Item = EstimatorKind> {
        self.members.iter().map(|member| member.kind)
    }

    /// Calibrated scores of the windows it was calibrated on.
    pub fn reference(&self) -> &ScoreHistogram {
        &self.reference
    }

    /// Mean rate a second, in training, of each feature that is a rate.
    pub fn expected(&self) -> impl Iterator<Item = (Feature, f32)> {
        let features = self.schema.features().iter().copied();
        features
            .zip(&self.deviation.normals)
            .filter(|(f, _)| f.is_rate())
            .map(|(f, n)| (f, n.expected_per_s))
    }

    /// Scores a window of which nothing is known but its counts. Allocates nothing.
    ///
    /// # Errors
    /// A window without length, or a pipeline that looks only at what is not known.
    pub fn score(&self, window: &Window, scratch: &mut Scratch) -> Result<Verdict, ScoreError> {
        self.score_within(window, Context::NONE, scratch)
    }

    /// Scores a window with what else is known of it. Allocates nothing.
    ///
    /// # Errors
    /// A window without length, or a pipeline that looks only at what is not known.
    pub fn score_within(
        &self,
        window: &Window,
        context: &Context,
        scratch: &mut Scratch,
    ) -> Result<Verdict, ScoreError> {
        scratch.width = self.schema.width();
        self.schema.vector(window, &mut scratch.vector[..scratch.width])?;
        self.verdict(&scratch.vector[..scratch.width], context, Some(window))
    }

    /// Scores a vector of a window that is gone, with what else is known of it; drivers then name a group's first
    /// system call.
    ///
    /// # Errors
    /// A vector of another width, or one that is not finite, or a pipeline that looks only at what is not known.
    pub fn score_vector(&self, vector: &[f32], context: &Context) -> Result<Verdict, ScoreError> {
        if vector.len() != self.schema.width() {
            let expected = self.schema.width();
            return Err(FeatureError::Width {
                expected,
                got: vector.len(),
            }
            .into());
        }
        self.verdict(vector, context, None)
    }

    /// Calibrated scores of many vectors, `rows` holding them one after the other, in blocks. Nothing else is known of
    /// them; estimators that look at nothing else say nothing, and where no other does, scores are 0.
    ///
    /// # Errors
    /// `rows` does not hold one vector for each place of `scores`, or holds a value that is not finite.
    pub fn score_rows(&self, rows: &[f32], scores: &mut [f32]) -> Result<(), ScoreError> {
        let width = self.schema.width();
        if rows.len() != scores.len() * width {
            return Err(FeatureError::Width {
                expected: scores.len() * width,
                got: rows.len(),
            }
            .into());
        }
        if let Some(bad) = rows.iter().position(|x| !x.is_finite()) {
            return Err(ScoreError::NotFinite(bad % width));
        }
        const BLOCK: usize = crate::forest::BLOCK;
        for (rows, scores) in rows.chunks(BLOCK * width).zip(scores.chunks_mut(BLOCK)) {
            let mut smallest = [1.0f64; BLOCK];
            let mut raw = [0.0f32; BLOCK];
            let mut told = 0;
            for member in self.members.iter().filter(|m| m.estimator.looks_at_vectors()) {
                told += 1;
                let raw = &mut raw[..scores.len()];
                member.estimator.score_batch(&self.deviation, rows.into(), raw);
                for (p, &raw) in smallest.iter_mut().zip(raw.iter()) {
                    *p = p.min(member.calibration.p_value(raw));
                }
            }
            for (score, p) in scores.iter_mut().zip(smallest) {
                *score = calibrated(spec::combined(p, self.tests, told));
            }
        }
        Ok(())
    }

    /// The sequences of calls that made a verdict of a window with this context, the oddest first; none where it was no
    /// estimator of order that spoke. Calls bear the names that they had in the window, where `ran`, numbers of `arch`
    /// and the earliest first, has them.
    ///
    /// It allocates, and is for verdicts that somebody is told.
    pub fn sequences(
        &self,
        verdict: &Verdict,
        context: &Context,
        arch: Arch,
        ran: impl IntoIterator<Item = impl IntoIterator<Item = u32>>,
    ) -> Vec<ToldSequence> {
        let odd = match self.members.get(verdict.member).map(|member| &member.estimator) {
            Some(Estimator::Ngrams(ngrams) | Estimator::NgramPeak(ngrams)) => ngrams.oddest(context),
            Some(Estimator::Stide(stide)) => stide.oddest(context),
            _ => return Vec::new(),
        };
        told::named(self.schema, arch, &odd, ran)
    }

    fn verdict(
        &self,
        vector: &[f32],
        context: &Context,
        window: Option<&Window>,
    ) -> Result<Verdict, ScoreError> {
        if let Some(bad) = vector.iter().position(|x| !x.is_finite()) {
            return Err(ScoreError::NotFinite(bad));
        }
        let (mut member, mut raw, mut p, mut told) = (0, 0.0, f64::INFINITY, 0);
        let mut surprises = Surprises::of(context);
        for (index, m) in self.members.iter().enumerate() {
            let score = m
                .estimator
                .score(&self.deviation, vector, context, &mut surprises);
            let Some(score) = score else { continue };
            told += 1;
            let value = m.calibration.p_value(score);
            if value < p {
                (member, raw, p) = (index, score, value);
            }
        }
        if told == 0 {
            return Err(ScoreError::Silent);
        }
        let p_value = spec::combined(p, self.tests, told);
        let score = calibrated(p_value);
        let Member { kind, estimator, .. } = &self.members[member];
        let severity = Severity::of(score);
        let explainer = Explainer {
            schema: self.schema,
            deviation: &self.deviation,
        };
        let mut shares = [0.0; MAX_FEATURES];
        // Scoring once for each feature takes its time: it is for windows that somebody is told of.
        let is_told = severity > Severity::None;
        let (shares, class) = match estimator {
            Estimator::Vector(staged) if is_told => (
                explainer.shares(vector, raw, |vector| staged.score(vector), &mut shares),
                staged.class(vector),
            ),
            Estimator::IsolationForest(forest) if is_told => (
                explainer.shares(vector, raw, |vector| forest.score(vector), &mut shares),
                None,
            ),
            _ => (None, None),
        };
        let by = match estimator {
            Estimator::Novelty(novelty) => By::Novelty(novelty),
            Estimator::Ngrams(_) | Estimator::NgramPeak(_) | Estimator::Stide(_) => By::Order,
            Estimator::Forecast(forecast, total) => forecast
                .next(context.past())
                .map_or(By::Order, |next| By::Forecast(*total, next)),
            Estimator::Deviation | Estimator::IsolationForest(_) | Estimator::Vector(_) => {
                shares.map_or(By::Surprise, By::Shares)
            }
        };
        let drivers = explainer.drivers(vector, window, by);
        Ok(Verdict {
            score,
            p_value,
            severity,
            member,
            estimator: *kind,
            raw,
            drivers,
            class,
        })
    }
}
