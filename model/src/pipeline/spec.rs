//! Pipelines as data: what a trainer makes, and the way from there to one that scores.

use super::{Estimator, EstimatorKind, Member, Pipeline};
use crate::bounded;
use crate::calibration::{Calibration, CalibrationError, MIN_SAMPLES, calibrated};
use crate::context::{Context, GramCounts};
use crate::deviation::{Deviation, DeviationError};
use crate::estimators::Refused;
use crate::estimators::novelty::Novelty;
use crate::estimators::order::{Ngrams, Stide};
use crate::estimators::rate::{Arima, Ets, Forecast};
use crate::estimators::vector::Staged;
use crate::forest::{Forest, ForestError, ForestSpec};
use crate::histogram::ScoreHistogram;
use crate::schema::Schema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most estimators in one pipeline.
pub const MAX_MEMBERS: usize = 8;
/// A trained estimator as data. New kinds go to the end: the encoding counts from the start.
///
/// `F` is a forest: [`ForestSpec`] where it is trained, [`crate::forest::PackedForest`] where it is only loaded. The encoding is
/// the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EstimatorSpec<F = ForestSpec> {
    /// The pipeline's own [`Deviation`].
    Deviation,
    /// An isolation forest.
    IsolationForest(F),
    /// A scaler, a projection and an estimator behind them.
    Vector(Box<Staged>),
    /// A language model of pairs of calls.
    PairNgram(OfPairs),
    /// Pairs of calls.
    PairStide(OfPairs),
    /// Exponential smoothing of the rate of calls.
    Ets(Ets),
    /// An autoregression of the rate of calls.
    Arima(Arima),
    /// What training saw at all.
    Novelty(Novelty),
    /// A language model of the sequences of calls of training.
    Ngram(GramCounts),
    /// The sequences of calls of training.
    Stide(GramCounts),
    /// A language model of the sequences of calls of training, asked for the oddest calls alone.
    NgramPeak(GramCounts),
}

/// Stands where estimators of pairs of calls were, before there were sequences: there is none, and an artifact of one is
/// refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum OfPairs {}

impl<'de> Deserialize<'de> for OfPairs {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        let why = "its n-gram or STIDE is one of pairs of calls, which this version does not count: train the model anew";
        Err(serde::de::Error::custom(why))
    }
}

impl<F> EstimatorSpec<F> {
    /// The estimator's kind.
    pub fn kind(&self) -> EstimatorKind {
        match self {
            Self::Deviation => EstimatorKind::Deviation,
            Self::IsolationForest(_) => EstimatorKind::IsolationForest,
            Self::Vector(staged) => staged.kind(),
            Self::PairNgram(none) | Self::PairStide(none) => match *none {},
            Self::Ngram(_) => EstimatorKind::Ngram,
            Self::NgramPeak(_) => EstimatorKind::NgramPeak,
            Self::Stide(_) => EstimatorKind::Stide,
            Self::Ets(_) => EstimatorKind::Ets,
            Self::Arima(_) => EstimatorKind::Arima,
            Self::Novelty(_) => EstimatorKind::Novelty,
        }
    }

    /// The estimator's name.
    pub fn as_str(&self) -> &'static str {
        self.kind().as_str()
    }

    /// What its scores mean, by those of windows held out.
    ///
    /// The least scale of an estimator is the smallest of the calibrated tail, in the estimator's units. Held-out windows that are all alike say
    /// nothing of how odd a normal one can be. One new call in a window is 10 to 25 nats of surprise and must
    /// then stay within a budget of an alarm a day, three must not: hence two nats. A hundredth is what
    /// isolation scores differ by between forests.
    fn calibrate(&self, held_out: &[f32]) -> Result<Calibration, CalibrationError> {
        let least_scale = match self {
            Self::Deviation => 2.0,
            Self::IsolationForest(_) => 0.01,
            Self::Vector(staged) => staged.least_scale(),
            Self::PairNgram(none) | Self::PairStide(none) => match *none {},
            Self::Ngram(_) => Ngrams::LEAST_SCALE,
            Self::NgramPeak(_) => Ngrams::LEAST_SCALE_OF_PEAK,
            Self::Stide(_) => Stide::LEAST_SCALE,
            Self::Ets(_) | Self::Arima(_) => Forecast::LEAST_SCALE,
            // Kinds of calls are counted, and most windows show none that is new.
            Self::Novelty(novelty) => return novelty.calibrate(held_out),
        };
        Calibration::fit(held_out, least_scale)
    }

    /// What must be done for more windows to carry what the estimator looks at.
    const fn more(&self) -> &'static str {
        match self {
            Self::PairNgram(none) | Self::PairStide(none) => match *none {},
            Self::Ngram(_) | Self::NgramPeak(_) | Self::Stide(_) => {
                "trace with capture.mode Sampled or Full, which count sequences of calls"
            }
            Self::Ets(_) | Self::Arima(_) => "collect more windows of containers that run for longer",
            Self::Deviation | Self::IsolationForest(_) | Self::Vector(_) | Self::Novelty(_) => {
                "collect more windows"
            }
        }
    }
}

/// Windows of which only numbers are left: vectors, one after the other, and what else is known of each.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The vectors.
    pub vectors: &'a [f32],
    /// One for each vector; or none, where nothing else is known of any.
    pub contexts: &'a [Context],
}

impl<'a> From<&'a [f32]> for Observed<'a> {
    fn from(vectors: &'a [f32]) -> Self {
        let contexts = &[];
        Self { vectors, contexts }
    }
}

impl<'a> From<&'a Vec<f32>> for Observed<'a> {
    fn from(vectors: &'a Vec<f32>) -> Self {
        vectors.as_slice().into()
    }
}

/// An estimator and what its scores mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberSpec<F = ForestSpec> {
    /// What scores.
    pub estimator: EstimatorSpec<F>,
    /// What a score means.
    pub calibration: Calibration,
}

/// A trained pipeline as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "F: Deserialize<'de>"))]
pub struct PipelineSpec<F = ForestSpec> {
    /// What is normal for each feature: an estimator, and what explanations compare with.
    pub deviation: Deviation,
    /// The estimators, at least one.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_MEMBERS>")]
    pub members: Vec<MemberSpec<F>>,
    /// How many independent tests the members amount to.
    pub tests: f32,
    /// Calibrated scores of the held-out windows, for drift.
    pub reference: ScoreHistogram,
}

/// Why a pipeline cannot be built or used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PipelineError {
    /// The normals do not belong to the schema's vectors.
    #[error("the model has {got} features, schema {schema} makes {expected}")]
    Width {
        /// The schema's name.
        schema: &'static str,
        /// Its width.
        expected: usize,
        /// The model's width.
        got: usize,
    },
    /// No estimators, or too many.
    #[error("a pipeline has 1 to {MAX_MEMBERS} estimators, this one has {0}")]
    Members(usize),
    /// The number of tests is not between 1 and the number of estimators.
    #[error("the effective number of tests is out of range")]
    Tests,
    /// A forest that cannot be walked.
    #[error("isolation forest: {0}")]
    Forest(#[from] ForestError),
    /// A vector estimator out of range.
    #[error(transparent)]
    Vector(#[from] Refused),
    /// Normals out of range.
    #[error("deviation: {0}")]
    Deviation(#[from] DeviationError),
    /// A calibration out of range, or too little to calibrate on.
    #[error("calibration: {0}")]
    Calibration(#[from] CalibrationError),
    /// Too few windows carry what an estimator looks at.
    #[error(
        "{estimator}: {known} of the held-out windows carry what it looks at, {MIN_SAMPLES} must: {more}"
    )]
    Silent {
        /// Which.
        estimator: &'static str,
        /// How many do.
        known: usize,
        /// What to do about it.
        more: &'static str,
    },
    /// Not one context for each vector.
    #[error("{contexts} contexts for {vectors} vectors")]
    Contexts {
        /// Contexts given.
        contexts: usize,
        /// Vectors given.
        vectors: usize,
    },
    /// Held-out rows are not whole vectors.
    #[error("{values} values are no whole number of vectors of {width} features")]
    Rows {
        /// Values given.
        values: usize,
        /// Width of a vector.
        width: usize,
    },
}

/// A language model, and what it was made of.
type Made<'a> = Option<(&'a GramCounts, Arc<Ngrams>)>;

/// The model of these counts: the one made before, where it is of the same.
fn ngrams<'a>(counts: &'a GramCounts, made: &mut Made<'a>) -> Result<Arc<Ngrams>, Refused> {
    if let Some((of, model)) = made
        && *of == counts
    {
        return Ok(model.clone());
    }
    let model = Arc::new(Ngrams::new(counts)?);
    *made = Some((counts, model.clone()));
    Ok(model)
}

/// `made` is the language model of the members before it: two scores of one take its memory once.
fn compile_estimator<'a, F>(
    spec: &'a EstimatorSpec<F>,
    width: usize,
    schema: &'static Schema,
    made: &mut Made<'a>,
) -> Result<Estimator, PipelineError>
where
    Forest: for<'f> TryFrom<&'f F, Error = ForestError>,
{
    Ok(match spec {
        EstimatorSpec::Deviation => Estimator::Deviation,
        EstimatorSpec::IsolationForest(forest) => {
            let forest = Forest::try_from(forest)?;
            if forest.features() != width {
                let got = forest.features();
                return Err(PipelineError::Width {
                    schema: schema.name(),
                    expected: width,
                    got,
                });
            }
            Estimator::IsolationForest(Box::new(forest))
        }
        EstimatorSpec::Vector(staged) => {
            staged.check(width)?;
            Estimator::Vector(staged.clone())
        }
        EstimatorSpec::PairNgram(none) | EstimatorSpec::PairStide(none) => match *none {},
        EstimatorSpec::Ngram(counts) => Estimator::Ngrams(ngrams(counts, made)?),
        EstimatorSpec::NgramPeak(counts) => Estimator::NgramPeak(ngrams(counts, made)?),
        EstimatorSpec::Stide(counts) => Estimator::Stide(Stide::new(counts)?),
        EstimatorSpec::Ets(ets) => {
            ets.check()?;
            Estimator::Forecast(Forecast::Ets(*ets), schema.total())
        }
        EstimatorSpec::Arima(arima) => {
            arima.check()?;
            Estimator::Forecast(Forecast::Arima(arima.clone()), schema.total())
        }
        EstimatorSpec::Novelty(novelty) => {
            novelty.check(width)?;
            Estimator::Novelty(novelty.clone())
        }
    })
}

impl PipelineSpec {
    /// Calibrates trained estimators on held-out normal windows and puts them together. The held-out windows must not
    /// have been trained on.
    ///
    /// # Errors
    /// Vectors that do not fit the schema, fewer than [`crate::calibration::MIN_SAMPLES`] of them, or of those that
    /// carry what an estimator looks at, or estimators that do not compile.
    pub fn calibrate<'a>(
        schema: &'static Schema,
        deviation: Deviation,
        estimators: Vec<EstimatorSpec>,
        held_out: impl Into<Observed<'a>>,
    ) -> Result<Self, PipelineError> {
        Self::calibrate_beside(schema, deviation, estimators, held_out, &[])
    }

    /// The same, where windows of training say too what the deviation makes of normal ones: `left_out` are their scores,
    /// each by all others ([`Deviation::left_out`]). What happens in one window of a hundred is in few that are held out,
    /// and by which they are a calibration would be far too sure or not at all.
    ///
    /// # Errors
    /// As [`PipelineSpec::calibrate`].
    pub fn calibrate_beside<'a>(
        schema: &'static Schema,
        deviation: Deviation,
        estimators: Vec<EstimatorSpec>,
        held_out: impl Into<Observed<'a>>,
        left_out: &[f32],
    ) -> Result<Self, PipelineError> {
        let held_out = held_out.into();
        let width = schema.width();
        if deviation.normals.len() != width {
            let got = deviation.normals.len();
            return Err(PipelineError::Width {
                schema: schema.name(),
                expected: width,
                got,
            });
        }
        if estimators.is_empty() || estimators.len() > MAX_MEMBERS {
            return Err(PipelineError::Members(estimators.len()));
        }
        if !held_out.vectors.len().is_multiple_of(width) {
            return Err(PipelineError::Rows {
                values: held_out.vectors.len(),
                width,
            });
        }
        let rows = held_out.vectors.len() / width;
        if !held_out.contexts.is_empty() && held_out.contexts.len() != rows {
            return Err(PipelineError::Contexts {
                contexts: held_out.contexts.len(),
                vectors: rows,
            });
        }
        let mut all = vec![Spoken::default(); rows];
        let mut members = Vec::with_capacity(estimators.len());
        for estimator in estimators {
            let mut scores = vec![0.0; rows];
            compile_estimator(&estimator, width, schema, &mut None)?.score_batch(
                &deviation,
                held_out,
                &mut scores,
            );
            let mut told: Vec<f32> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
            if told.len() < MIN_SAMPLES && told.len() < rows {
                return Err(PipelineError::Silent {
                    estimator: estimator.as_str(),
                    known: told.len(),
                    more: estimator.more(),
                });
            }
            if matches!(estimator, EstimatorSpec::Deviation) {
                told.extend_from_slice(left_out);
            }
            let calibration = estimator.calibrate(&told)?;
            for (spoken, &score) in all.iter_mut().zip(&scores).filter(|(_, score)| !score.is_nan()) {
                spoken.add(calibration.p_value(score));
            }
            members.push(MemberSpec {
                estimator,
                calibration,
            });
        }
        // A node has no score of a window of which nobody says anything, so that here there is none either.
        all.retain(|spoken| spoken.members > 0);
        let tests = effective_tests(&all, members.len());
        let mut reference = ScoreHistogram::default();
        for spoken in all {
            reference.add(calibrated(combined(
                spoken.smallest,
                f64::from(tests),
                spoken.members,
            )));
        }
        Ok(Self {
            deviation,
            members,
            tests,
            reference,
        })
    }
}

impl<F> PipelineSpec<F>
where
    Forest: for<'a> TryFrom<&'a F, Error = ForestError>,
{
    /// Checks everything and makes it ready to score.
    ///
    /// # Errors
    /// The first thing that is out of range.
    pub fn compile(&self, schema: &'static Schema) -> Result<Pipeline, PipelineError> {
        let width = schema.width();
        if self.deviation.normals.len() != width {
            let got = self.deviation.normals.len();
            return Err(PipelineError::Width {
                schema: schema.name(),
                expected: width,
                got,
            });
        }
        self.deviation.check()?;
        let count = self.members.len();
        if count == 0 || count > MAX_MEMBERS {
            return Err(PipelineError::Members(count));
        }
        if !(1.0..=count as f32).contains(&self.tests) {
            return Err(PipelineError::Tests);
        }
        let mut members = Vec::with_capacity(count);
        let mut made = None;
        for member in &self.members {
            member.calibration.check()?;
            members.push(Member {
                kind: member.estimator.kind(),
                estimator: compile_estimator(&member.estimator, width, schema, &mut made)?,
                calibration: member.calibration.clone(),
            });
        }
        Ok(Pipeline {
            schema,
            deviation: self.deviation.clone(),
            members,
            tests: f64::from(self.tests),
            reference: self.reference.clone(),
        })
    }
}

/// What the members say of one window.
#[derive(Debug, Clone, Copy)]
struct Spoken {
    /// The smallest of their p-values.
    smallest: f64,
    /// How many say anything.
    members: usize,
}

impl Default for Spoken {
    fn default() -> Self {
        Self {
            smallest: 1.0,
            members: 0,
        }
    }
}

impl Spoken {
    fn add(&mut self, p: f64) {
        self.smallest = self.smallest.min(p);
        self.members += 1;
    }
}

/// The smallest of so many members' p-values as one: for as many tests as all members are, or those that spoke.
pub(super) fn combined(smallest: f64, tests: f64, spoke: usize) -> f64 {
    (smallest * tests.min(spoke as f64).max(1.0)).min(1.0)
}

/// How much more often the smallest of the members' p-values is small than one of them would be: the most of several
/// levels, since members that agree on what is usual may not on what is rare, which alerts are about.
///
/// It is asked of windows of which as many members speak as do of any, since members that are silent make no test. A level
/// says something where chance alone would bring it [`EXPECTED`] times. Where none does, windows of fewer members are asked
/// too, and the members that those lack count as independent, which keeps to the budget of alerts whatever they are.
fn effective_tests(all: &[Spoken], members: usize) -> f32 {
    const LEVELS: [f64; 4] = [0.1, 0.05, 0.02, 0.01];
    const EXPECTED: f64 = 10.0;
    let of = |least: usize| {
        let spoken = all.iter().filter(|spoken| spoken.members >= least);
        let windows = spoken.clone().count() as f64;
        let ratio = |at: f64| {
            let hits = spoken.clone().filter(|spoken| spoken.smallest <= at).count() + 1;
            hits as f64 / (windows + 1.0) / at
        };
        let told = LEVELS.into_iter().filter(|at| windows * at >= EXPECTED);
        let tests = told.map(ratio).reduce(f64::max)?;
        Some(tests + (members - least) as f64)
    };
    let tests = (1..=members).rev().find_map(of).unwrap_or(members as f64);
    tests.clamp(1.0, members as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smaller p-value of two members that agree above `tail` and have nothing to do with each other below.
    fn smallest(windows: u32, tail: f64, members: usize) -> Vec<Spoken> {
        let even = |i: u32| (f64::from(i) + 0.5) / f64::from(windows);
        let other = (0..windows).map(even).filter(|p| *p <= tail);
        // The other member's tail is made of windows that are most usual to the first.
        let mut all: Vec<f64> = (0..windows).rev().map(even).collect();
        all.iter_mut().zip(other).for_each(|(p, other)| *p = p.min(other));
        all.into_iter().map(|p| spoken(p, members)).collect()
    }

    fn spoken(smallest: f64, members: usize) -> Spoken {
        Spoken { smallest, members }
    }

    #[test]
    fn members_that_part_in_the_tail_are_several_tests() {
        let agree = effective_tests(&smallest(2000, 0.0, 2), 2);
        assert!((1.0..1.1).contains(&agree), "{agree}");
        for tail in [0.1, 0.05, 0.02, 0.01] {
            let tests = effective_tests(&smallest(2000, tail, 2), 2);
            assert!((1.9..=2.0).contains(&tests), "{tail}: {tests}");
        }
    }

    #[test]
    fn too_few_windows_count_every_member() {
        assert_eq!(effective_tests(&smallest(99, 0.0, 8), 8), 8.0);
        assert!(effective_tests(&smallest(100, 0.0, 8), 8) < 1.2);
        assert_eq!(effective_tests(&smallest(500, 0.0, 1), 1), 1.0);
    }

    #[test]
    fn members_that_are_silent_make_no_test_and_those_that_seldom_speak_count_in_full() {
        // Two members that have nothing to do with each other, of which one speaks in a part of the windows.
        let mixed = |both: u32, alone: u32| {
            let even = (0..alone).map(|i| spoken((f64::from(i) + 0.5) / f64::from(alone), 1));
            smallest(both, 0.1, 2).into_iter().chain(even).collect::<Vec<_>>()
        };
        for alone in [0, 2000, 20_000] {
            let tests = effective_tests(&mixed(2000, alone), 2);
            assert!((1.9..=2.0).contains(&tests), "{alone}: {tests}");
        }
        let tests = effective_tests(&mixed(50, 5000), 2);
        assert_eq!(tests, 2.0);
        assert_eq!(effective_tests(&[], 3), 3.0);
    }

    #[test]
    fn what_was_written_before_there_were_sequences_is_read_but_for_pairs() {
        let of = |at: u32| -> Result<EstimatorSpec, String> {
            // A kind, and what would be a list of nothing.
            let bytes = [&at.to_le_bytes()[..], &[0; 64]].concat();
            bincode::deserialize(&bytes).map_err(|error| error.to_string())
        };
        assert_eq!(of(0), Ok(EstimatorSpec::Deviation));
        assert_eq!(of(5).map(|spec| spec.as_str()), Ok(Ets::NAME));
        assert_eq!(of(7).map(|spec| spec.as_str()), Ok(Novelty::NAME));
        assert_eq!(of(8).map(|spec| spec.as_str()), Ok(Ngrams::NAME));
        assert_eq!(of(10).map(|spec| spec.kind()), Ok(EstimatorKind::NgramPeak));
        for pairs in [3, 4] {
            let error = of(pairs).expect_err("refused");
            assert!(
                error.contains("pairs of calls") && error.contains("train the model anew"),
                "{error}"
            );
        }
    }
}
