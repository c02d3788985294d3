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

use crate::calibration::{Calibration, CalibrationError, Severity, calibrated};
use crate::deviation::{Deviation, DeviationError};
use crate::forest::{Forest, ForestError, ForestSpec};
use crate::histogram::ScoreHistogram;
use crate::schema::{Feature, FeatureError, MAX_FEATURES, Schema};
use crate::syscalls;
use crate::window::Window;
use serde::{Deserialize, Serialize};

/// Most estimators in one pipeline.
pub const MAX_MEMBERS: usize = 8;
/// Most system calls that a verdict names.
pub const MAX_DRIVERS: usize = 3;

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
}

impl<F> EstimatorSpec<F> {
    /// The estimator's name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Deviation => "deviation",
            Self::IsolationForest(_) => "isolation-forest",
        }
    }

    /// Smallest scale of the calibrated tail, in the estimator's units: one nat of surprise, a hundredth of
    /// an isolation score.
    const fn least_scale(&self) -> f32 {
        match self {
            Self::Deviation => 1.0,
            Self::IsolationForest(_) => 0.01,
        }
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
pub struct PipelineSpec<F = ForestSpec> {
    /// What is normal for each feature: an estimator, and what explanations compare with.
    pub deviation: Deviation,
    /// The estimators, at least one.
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
    /// Normals out of range.
    #[error("deviation: {0}")]
    Deviation(#[from] DeviationError),
    /// A calibration out of range, or too little to calibrate on.
    #[error("calibration: {0}")]
    Calibration(#[from] CalibrationError),
    /// Held-out rows are not whole vectors.
    #[error("{values} values are no whole number of vectors of {width} features")]
    Rows {
        /// Values given.
        values: usize,
        /// Width of a vector.
        width: usize,
    },
}

/// Why a window has no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The window makes no vector.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A value is NaN or infinite.
    #[error("feature {0} is not finite")]
    NotFinite(usize),
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

/// What a driver counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// Calls.
    Calls,
    /// Calls that failed.
    Errors,
}

/// A system call that made a window odd.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Driver {
    /// The system call's name.
    pub syscall: &'static str,
    /// Whether calls or failures stand out.
    pub kind: DriverKind,
    /// Rate in the window.
    pub observed_per_s: f32,
    /// Mean rate in training. For calls that the schema only counts as the rest of their class, that of the
    /// rest, and for failures that of the class.
    pub expected_per_s: f32,
    /// How odd, in nats.
    pub surprise: f32,
}

/// Up to [`MAX_DRIVERS`] drivers, the oddest first.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Drivers {
    items: [Option<Driver>; MAX_DRIVERS],
}

impl Drivers {
    /// The drivers, the oddest first.
    pub fn iter(&self) -> impl Iterator<Item = &Driver> {
        self.items.iter().flatten()
    }

    fn push(&mut self, driver: Driver) {
        if self.iter().any(|d| d.syscall == driver.syscall) {
            return;
        }
        if let Some(free) = self.items.iter_mut().find(|d| d.is_none()) {
            *free = Some(driver);
        }
    }

    fn full(&self) -> bool {
        self.items[MAX_DRIVERS - 1].is_some()
    }
}

/// What the pipeline says of one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Calibrated score in [0, 1]; see [`crate::calibration`].
    pub score: f32,
    /// How rare a normal window with such a score is.
    pub p_value: f64,
    /// Severity of the score.
    pub severity: Severity,
    /// Which member was the most surprised.
    pub member: usize,
    /// That member's raw score.
    pub raw: f32,
    /// The system calls that stand out most.
    pub drivers: Drivers,
}

enum Estimator {
    Deviation,
    IsolationForest(Box<Forest>),
}

struct Member {
    name: &'static str,
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
            .field("members", &self.members().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn compile_estimator<F>(
    spec: &EstimatorSpec<F>,
    width: usize,
    schema: &'static Schema,
) -> Result<Estimator, PipelineError>
where
    Forest: for<'a> TryFrom<&'a F, Error = ForestError>,
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
    })
}

impl Estimator {
    fn score(&self, deviation: &Deviation, vector: &[f32]) -> f32 {
        match self {
            Self::Deviation => deviation.score(vector),
            Self::IsolationForest(forest) => forest.score(vector),
        }
    }

    fn score_batch(&self, deviation: &Deviation, rows: &[f32], scores: &mut [f32]) {
        match self {
            Self::Deviation => {
                let width = deviation.normals.len();
                for (row, score) in rows.chunks_exact(width).zip(scores) {
                    *score = deviation.score(row);
                }
            }
            Self::IsolationForest(forest) => forest.score_batch(rows, scores),
        }
    }
}

impl PipelineSpec {
    /// Calibrates trained estimators on held-out vectors of normal windows (`held_out`, one after the other)
    /// and puts them together. The held-out windows must not have been trained on.
    ///
    /// # Errors
    /// Vectors that do not fit the schema, fewer than [`crate::calibration::MIN_SAMPLES`] of them, or
    /// estimators that do not compile.
    pub fn calibrate(
        schema: &'static Schema,
        deviation: Deviation,
        estimators: Vec<EstimatorSpec>,
        held_out: &[f32],
    ) -> Result<Self, PipelineError> {
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
        if !held_out.len().is_multiple_of(width) {
            return Err(PipelineError::Rows {
                values: held_out.len(),
                width,
            });
        }
        let rows = held_out.len() / width;
        let mut smallest = vec![1.0f64; rows];
        let mut members = Vec::with_capacity(estimators.len());
        for estimator in estimators {
            let mut scores = vec![0.0; rows];
            compile_estimator(&estimator, width, schema)?.score_batch(&deviation, held_out, &mut scores);
            let calibration = Calibration::fit(&scores, estimator.least_scale())?;
            for (p, &score) in smallest.iter_mut().zip(&scores) {
                *p = p.min(calibration.p_value(score));
            }
            members.push(MemberSpec {
                estimator,
                calibration,
            });
        }
        let tests = effective_tests(&smallest, members.len());
        let mut reference = ScoreHistogram::default();
        for p in smallest {
            reference.add(calibrated(p * f64::from(tests)));
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
        for member in &self.members {
            member.calibration.check()?;
            members.push(Member {
                name: member.estimator.as_str(),
                estimator: compile_estimator(&member.estimator, width, schema)?,
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

/// How often the smallest of the members' p-values is at most .1, over .1.
fn effective_tests(smallest: &[f64], members: usize) -> f32 {
    const AT: f64 = 0.1;
    let hits = smallest.iter().filter(|&&p| p <= AT).count() + 1;
    let rate = hits as f64 / (smallest.len() + 1) as f64;
    (rate / AT).clamp(1.0, members as f64) as f32
}

impl Pipeline {
    /// The schema whose vectors it takes.
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// Names of the estimators.
    pub fn members(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|m| m.name)
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

    /// Scores a window. Allocates nothing.
    ///
    /// # Errors
    /// A window without length.
    pub fn score(&self, window: &Window, scratch: &mut Scratch) -> Result<Verdict, ScoreError> {
        scratch.width = self.schema.width();
        self.schema.vector(window, &mut scratch.vector[..scratch.width])?;
        self.verdict(&scratch.vector[..scratch.width], Some(window))
    }

    /// Scores a vector of a window that is gone; drivers then name a group's first system call.
    ///
    /// # Errors
    /// A vector of another width, or one that is not finite.
    pub fn score_vector(&self, vector: &[f32]) -> Result<Verdict, ScoreError> {
        if vector.len() != self.schema.width() {
            let expected = self.schema.width();
            return Err(FeatureError::Width {
                expected,
                got: vector.len(),
            }
            .into());
        }
        self.verdict(vector, None)
    }

    /// Calibrated scores of many vectors, `rows` holding them one after the other, in blocks.
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
            for member in &self.members {
                let raw = &mut raw[..scores.len()];
                member.estimator.score_batch(&self.deviation, rows, raw);
                for (p, &raw) in smallest.iter_mut().zip(raw.iter()) {
                    *p = p.min(member.calibration.p_value(raw));
                }
            }
            for (score, p) in scores.iter_mut().zip(smallest) {
                *score = calibrated((p * self.tests).min(1.0));
            }
        }
        Ok(())
    }

    fn verdict(&self, vector: &[f32], window: Option<&Window>) -> Result<Verdict, ScoreError> {
        if let Some(bad) = vector.iter().position(|x| !x.is_finite()) {
            return Err(ScoreError::NotFinite(bad));
        }
        let (mut member, mut raw, mut p) = (0, 0.0, f64::INFINITY);
        for (index, m) in self.members.iter().enumerate() {
            let score = m.estimator.score(&self.deviation, vector);
            let value = m.calibration.p_value(score);
            if value < p {
                (member, raw, p) = (index, score, value);
            }
        }
        let p_value = (p * self.tests).min(1.0);
        let score = calibrated(p_value);
        let drivers = self.drivers(vector, window);
        Ok(Verdict {
            score,
            p_value,
            severity: Severity::of(score),
            member,
            raw,
            drivers,
        })
    }

    /// The system calls behind the most surprising features.
    fn drivers(&self, vector: &[f32], window: Option<&Window>) -> Drivers {
        // More candidates than drivers: several features may lead to one system call, or to none.
        const CANDIDATES: usize = 4 * MAX_DRIVERS;
        let mut top = [(0.0f32, usize::MAX); CANDIDATES];
        for (feature, &x) in vector.iter().enumerate() {
            let mut entry = (self.deviation.surprise(feature, x), feature);
            for best in &mut top {
                if entry.0 > best.0 {
                    std::mem::swap(best, &mut entry);
                }
            }
        }
        let mut drivers = Drivers::default();
        for (surprise, feature) in top.into_iter().filter(|t| t.1 != usize::MAX) {
            if let Some(driver) = self.driver(feature, vector[feature], surprise, window) {
                drivers.push(driver);
            }
            if drivers.full() {
                break;
            }
        }
        drivers
    }

    /// The one system call that explains a feature best, if any does.
    fn driver(&self, feature: usize, x: f32, surprise: f32, window: Option<&Window>) -> Option<Driver> {
        let meaning = self.schema.features()[feature];
        let (kind, primary) = match meaning {
            Feature::Group(names) => (DriverKind::Calls, Some(names[0])),
            Feature::Rest(_) => (DriverKind::Calls, None),
            Feature::Errors(_) => (DriverKind::Errors, None),
            // Sums over everything explain nothing that their parts do not.
            Feature::Total | Feature::Distinct => return None,
        };
        let found = window.and_then(|w| {
            let (nr, _) = self.schema.dominant(feature, w)?;
            syscalls::name(w.arch, nr)
        });
        Some(Driver {
            syscall: found.or(primary)?,
            kind,
            observed_per_s: crate::schema::to_rate(x) as f32,
            expected_per_s: self.deviation.normals[feature].expected_per_s,
            surprise,
        })
    }
}
