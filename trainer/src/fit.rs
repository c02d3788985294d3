//! Training as pure functions: shard → [`Partial`], partials + held-out windows → unsigned artifact.
//!
//! How kinds of estimators combine: sums of moments are added (deviation, and the scaler of all others), trees of
//! the isolation forest are concatenated. What does not combine cheaply is fitted once, to a sample of all shards'
//! windows ([`SAMPLE_ROWS`] at most) in which each shard weighs what it has. Counts of sequences of calls are added. Which
//! features one window alone has follows from what each shard says of its own and the sums of all.
//!
//! The same shards, held-out windows and [`Params`] make the same bytes, however often any of it is done
//! again: nothing here reads a clock, draws from the system's randomness or depends on threads. The number
//! of workers enters in two ways, both through the sharding: which shard a tree is grown on (worker r of w
//! grows the r-th w-th of the trees on shard r), and the order in which sums of moments are added (by rank),
//! which may move their last bits.

use serde::{Deserialize, Serialize};
use vigia_model::artifact::{self, ArtifactError, Metadata, Task};
use vigia_model::calibration::MIN_HOLDOUT;
use vigia_model::context::GramCounts;
use vigia_model::deviation::{Deviation, DeviationError, Moments};
use vigia_model::estimators::rate::LEAST_PAST;
use vigia_model::estimators::table::Table;
use vigia_model::forest::{ForestError, ForestSpec};
use vigia_model::pipeline::{EstimatorKind, EstimatorSpec, PipelineError, PipelineSpec};
use vigia_model::schema::Schema;

use crate::data::{Class, Labelled, Rows};
use crate::estimators::novelty::{self, Lone};
use crate::estimators::vectors::{self, Settings};
use crate::estimators::{EstimatorError, order, rate};
use crate::forest::{self, Draw, Growth, GrowthError};
use crate::validate;

/// Key of an artifact's hyperparameters: how long the windows were that it was validated on, in milliseconds; several
/// lengths with blanks between them.
pub const WINDOW_MS: &str = "windowMs";
/// What an artifact says that it was made by, each with its version.
pub const MADE_BY: &str = concat!(
    "vigia-trainer/",
    env!("CARGO_PKG_VERSION"),
    " ",
    env!("VIGIA_CRATES")
);

/// Most windows that estimators are fitted to that need to see them all at once, and most values of those.
pub const SAMPLE_ROWS: usize = 16_384;
const SAMPLE_VALUES: usize = 4 << 20;

/// What is trained and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Name that the artifact bears.
    pub name: String,
    /// The estimators, each once.
    pub estimators: Vec<EstimatorKind>,
    /// Principal components in front of the vector estimators.
    pub components: Option<u32>,
    /// Trees of the whole forest.
    pub trees: u32,
    /// Rows that each tree sees.
    pub sample_size: u32,
    /// Seed of the forest.
    pub seed: u64,
    /// Number of shards.
    pub workers: u32,
    /// When the run was created (RFC 3339), so that a retry makes the same bytes.
    pub created_at: String,
    /// Digest of the training data.
    pub data_digest: String,
    /// Fingerprints of the filters by which the windows were made, where that is known.
    pub captures: Vec<String>,
}

impl Params {
    /// Trees to grow: none where no forest is wanted.
    fn grown(&self) -> u32 {
        if self.estimators.contains(&EstimatorKind::IsolationForest) {
            self.trees
        } else {
            0
        }
    }

    /// Windows that a shard of `windows` hands over for the estimators that are fitted to a sample, or calibrated by one.
    fn sampled(&self, windows: usize, width: usize) -> usize {
        let calibrates = |kind: &EstimatorKind| kind.is_vector() || *kind == EstimatorKind::Deviation;
        if !self.estimators.iter().any(calibrates) {
            return 0;
        }
        windows.min(self.most(width))
    }

    /// Most rows of `width` values that one shard hands over.
    fn most(&self, width: usize) -> usize {
        SAMPLE_ROWS.min(SAMPLE_VALUES / width.max(1)) / self.workers.max(1) as usize
    }

    fn wants_order(&self) -> bool {
        self.estimators.iter().any(|kind| kind.is_order())
    }

    fn wants_novelty(&self) -> bool {
        self.estimators.contains(&EstimatorKind::Novelty)
    }

    fn wants_rates(&self) -> bool {
        self.estimators.iter().any(|kind| kind.is_rate())
    }
}

/// What one worker hands over beside its sums.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Its share of the trees; none where there are more workers than trees, or no forest is wanted.
    pub forest: Option<ForestSpec>,
    /// Windows drawn from its shard; none where nothing is fitted to a sample or calibrated by one.
    pub sample: Option<Table>,
    /// Its sequences of calls; none where no estimator looks at order.
    pub grams: Option<GramCounts>,
    /// Rates and those before them, drawn from its shard, and how many there were; none where nothing is forecast.
    pub rates: Option<(u64, Table)>,
    /// Features that one window of its shard has; none where nobody asks what is new.
    pub lone: Option<Vec<Lone>>,
}

/// What one worker hands over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// Which worker.
    pub rank: u32,
    /// Sums over its shard.
    pub moments: Moments,
    /// The rest.
    pub share: Share,
}

/// The result: an artifact that is not signed, and what validation measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Bytes of the artifact.
    pub artifact: Vec<u8>,
    /// Metrics by name, as in the artifact's metadata.
    pub metrics: std::collections::BTreeMap<String, f64>,
}

/// Why data makes no model. All of them are the data's or the parameters' fault: trying again is no use.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// Trees cannot be grown.
    #[error(transparent)]
    Growth(#[from] GrowthError),
    /// Sums make no normals.
    #[error("moments: {0}")]
    Moments(#[from] DeviationError),
    /// A vector estimator cannot be fitted.
    #[error(transparent)]
    Estimator(#[from] EstimatorError),
    /// The list of estimators is empty, or names one twice.
    #[error("estimators: write at least one, and each once")]
    Estimators,
    /// Trees do not fit each other.
    #[error(transparent)]
    Forest(#[from] ForestError),
    /// Parts are missing, doubled or of other parameters.
    #[error("the part of worker {rank} {why}")]
    Part {
        /// Whose.
        rank: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Too little to calibrate and validate on.
    #[error(
        "calibration and validation need at least {least} held-out windows, there are {0}: collect more windows",
        least = MIN_HOLDOUT
    )]
    Holdout(usize),
    /// Too few held-out windows carry what an estimator looks at beside counts, or they are all of one time.
    #[error(
        "{kind}: {known} of the {of} held-out windows carry what it looks at, and {least} must, spread over all of their time: {more}",
        least = MIN_HOLDOUT,
        more = more(*kind)
    )]
    Silent {
        /// Which estimator.
        kind: EstimatorKind,
        /// How many do.
        known: usize,
        /// Of how many.
        of: usize,
    },
    /// The estimators make no pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The pipeline cannot be written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// What must be done for more windows to carry what an estimator looks at.
const fn more(kind: EstimatorKind) -> &'static str {
    if kind.is_order() {
        "trace with capture.mode Sampled or Full, which count sequences of calls"
    } else {
        "collect more windows of containers that run for longer"
    }
}

/// How many windows carry what an estimator looks at.
fn known(kind: EstimatorKind, windows: &Rows) -> usize {
    if kind.is_order() {
        let contexts = windows.contexts().iter();
        contexts.filter(|context| !context.grams().is_empty()).count()
    } else if kind.is_rate() {
        let contexts = windows.contexts().iter();
        contexts
            .filter(|context| context.past().len() >= LEAST_PAST)
            .count()
    } else {
        windows.len()
    }
}

/// What is wrong with these held-out windows, where it is that an estimator has too few that it can be calibrated on.
fn silent(error: PipelineError, params: &Params, holdout: &Rows) -> FitError {
    let which = |kind: &EstimatorKind| matches!(&error, PipelineError::Silent { estimator, .. } if *estimator == kind.as_str());
    match params.estimators.iter().copied().find(which) {
        Some(kind) => FitError::Silent {
            kind,
            known: known(kind, holdout),
            of: holdout.len(),
        },
        None => error.into(),
    }
}

/// Sums over a shard.
///
/// # Errors
/// None that [`Rows`] does not exclude; passed on.
pub fn moments(shard: &Rows) -> Result<Moments, FitError> {
    let mut sums = Moments::new(shard.width());
    for i in 0..shard.len() {
        sums.add(shard.row(i))?;
    }
    Ok(sums)
}

/// What worker `rank` makes of its shard.
///
/// # Errors
/// Fewer than two windows, or parameters out of range.
pub fn fit(shard: &Rows, params: &Params, rank: u32) -> Result<Partial, FitError> {
    Ok(Partial {
        rank,
        moments: moments(shard)?,
        share: share(shard, params, rank)?,
    })
}

/// Worker `rank`'s share of what does not add up, made from its shard.
///
/// # Errors
/// Fewer than two windows, or parameters out of range.
pub fn share(shard: &Rows, params: &Params, rank: u32) -> Result<Share, FitError> {
    Ok(Share {
        forest: trees(shard, params, rank)?,
        sample: sample(shard, params, rank),
        grams: params.wants_order().then(|| order::count(shard)),
        rates: params.wants_rates().then(|| rates(shard, params, rank)),
        lone: params.wants_novelty().then(|| novelty::lone(shard)),
    })
}

fn sample(shard: &Rows, params: &Params, rank: u32) -> Option<Table> {
    let count = params.sampled(shard.len(), shard.width());
    if count == 0 {
        return None;
    }
    let drawn = Draw::new(params.seed, (1 << 43) + u64::from(rank)).sample(shard.len(), count);
    let values = drawn.iter().flat_map(|&i| shard.row(i as usize)).copied();
    Some(Table::new(shard.width(), values.collect()))
}

fn rates(shard: &Rows, params: &Params, rank: u32) -> (u64, Table) {
    let all = rate::examples(shard);
    let drawn =
        Draw::new(params.seed, (1 << 49) + u64::from(rank)).sample(all.len(), params.most(rate::EXAMPLE));
    let values = drawn.iter().flat_map(|&i| all.row(i as usize)).copied();
    (all.len() as u64, Table::new(rate::EXAMPLE, values.collect()))
}

/// The workers' samples as one, in which each window of any shard had the same chance to be. For each worker: its rank,
/// how many windows its shard had, and its sample.
fn united<'a>(
    samples: impl Iterator<Item = (u32, u64, &'a Table)> + Clone,
    (seed, stream): (u64, u64),
    width: usize,
) -> Table {
    // The share of its windows that the most thinly sampled shard handed over.
    let share = samples
        .clone()
        .filter(|(_, rows, _)| *rows > 0)
        .map(|(_, rows, sample)| sample.len() as f64 / rows as f64)
        .fold(1.0, f64::min);
    let mut values = Vec::new();
    for (rank, rows, sample) in samples {
        let count = (share * rows as f64).round() as usize;
        let drawn = Draw::new(seed, stream + u64::from(rank)).sample(sample.len(), count);
        drawn
            .iter()
            .for_each(|&i| values.extend_from_slice(sample.row(i as usize)));
    }
    Table::new(width, values)
}

fn trees(shard: &Rows, params: &Params, rank: u32) -> Result<Option<ForestSpec>, FitError> {
    let growth = Growth {
        seed: params.seed,
        sample_size: params.sample_size,
        trees: forest::share(params.grown(), rank, params.workers),
    };
    if growth.trees.is_empty() {
        return Ok(None);
    }
    Ok(Some(forest::grow(shard, &growth)?))
}

/// Puts the parts together, in the order of ranks whatever order they come in, calibrates on the held-out
/// windows, and validates. Of `labelled` windows, at most one set of a class, classifiers alone learn.
///
/// # Errors
/// Parts that are not one of each rank, or too few held-out windows.
pub fn combine(
    mut parts: Vec<Partial>,
    params: &Params,
    holdout: &Rows,
    labelled: &[Labelled],
) -> Result<Trained, FitError> {
    parts.sort_by_key(|p| p.rank);
    for (rank, part) in (0..).zip(&parts) {
        check(part, rank, params)?;
    }
    if parts.len() as u32 != params.workers {
        let rank = parts.len() as u32;
        return Err(FitError::Part {
            rank,
            why: "is missing",
        });
    }
    if holdout.len() < MIN_HOLDOUT {
        return Err(FitError::Holdout(holdout.len()));
    }
    for &kind in &params.estimators {
        let (known, of) = (known(kind, holdout), holdout.len());
        if known < MIN_HOLDOUT {
            return Err(FitError::Silent { kind, known, of });
        }
    }
    let mut sums = Moments::new(holdout.width());
    for part in &parts {
        sums.merge(&part.moments)?;
    }
    let deviation = Deviation::from_moments(&sums)?;
    let schema = holdout.schema();
    let sample = sampled_of_all(&parts, &sums, params);
    let left_out = if params.estimators.contains(&EstimatorKind::Deviation) && sums.rows > 1 {
        let scores = sample.rows().map(|row| Deviation::left_out(&sums, row));
        scores.collect::<Result<Vec<f32>, _>>()?
    } else {
        Vec::new()
    };
    let taught: Vec<(Class, Table)> = labelled.iter().map(|windows| taught(windows, params)).collect();
    let (estimators, found) = estimators(parts, &sums, params, (&sample, &taught), schema)?;

    let exceedance = validate::exceedance(&deviation, &estimators, holdout, &left_out)
        .map_err(|error| silent(error, params, holdout))?;
    let spec = PipelineSpec::calibrate_beside(schema, deviation, estimators, holdout.observed(), &left_out)?;
    let pipeline = spec.compile(schema)?;
    let recall = validate::injection_recall(&pipeline, &sums, holdout);

    let mut metadata = Metadata::new(&params.name, Task::Anomaly, schema);
    metadata.created_at.clone_from(&params.created_at);
    metadata.data_digest.clone_from(&params.data_digest);
    metadata.seed = params.seed;
    metadata.samples = sums.rows + holdout.len() as u64;
    MADE_BY.clone_into(&mut metadata.made_by);
    metadata.set_captures(&params.captures);
    metadata.hyperparameters = [
        ("estimator", list(&params.estimators)),
        ("workers", params.workers.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let mut set = |key: &str, value: String| {
        metadata.hyperparameters.insert(key.to_owned(), value);
    };
    if params.grown() > 0 {
        set("trees", params.trees.to_string());
        set("sampleSize", params.sample_size.to_string());
    }
    let takes = |kind: &EstimatorKind| kind.takes_components();
    if let Some(components) = params.components.filter(|_| params.estimators.iter().any(takes)) {
        set("components", components.to_string());
    }
    let lengths: Vec<String> = holdout.lengths().iter().map(u32::to_string).collect();
    if !lengths.is_empty() {
        set(WINDOW_MS, lengths.join(" "));
    }
    metadata.metrics = [
        (validate::HOLDOUT_EXCEEDANCE, exceedance),
        (validate::INJECTION_RECALL, recall),
        ("HoldoutWindows", holdout.len() as f64),
        ("TrainingWindows", sums.rows as f64),
    ]
    .into_iter()
    .chain(found)
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    for windows in labelled {
        let class = windows.class.metric();
        let counts = [
            (format!("{class}HoldoutWindows"), windows.holdout.len() as f64),
            (format!("{class}TrainingWindows"), windows.taught.len() as f64),
        ];
        let recalls = validate::label_recall(&pipeline, &spec, windows);
        metadata.metrics.extend(counts.into_iter().chain(recalls));
    }
    let artifact = artifact::encode(&metadata, &spec)?;
    Ok(Trained {
        artifact,
        metrics: metadata.metrics,
    })
}

fn list(kinds: &[EstimatorKind]) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    names.join("+")
}

/// The workers' samples as one.
fn sampled_of_all(parts: &[Partial], sums: &Moments, params: &Params) -> Table {
    let samples = parts
        .iter()
        .filter_map(|p| Some((p.rank, p.moments.rows, p.share.sample.as_ref()?)));
    united(samples, (params.seed, 1 << 44), sums.sum.len())
}

/// The windows of a class that classifiers learn from, or a sample of them.
fn taught(windows: &Labelled, params: &Params) -> (Class, Table) {
    let rows = &windows.taught;
    let stream = (1 << 51) + windows.class as u64;
    let drawn = Draw::new(params.seed, stream).sample(rows.len(), SAMPLE_ROWS);
    let values = drawn.iter().flat_map(|&i| rows.row(i as usize)).copied();
    (windows.class, Table::new(rows.width(), values.collect()))
}

type Found = Vec<(&'static str, f64)>;

/// The estimators in the order of the parameters, and what their fits found.
fn estimators(
    mut parts: Vec<Partial>,
    sums: &Moments,
    params: &Params,
    (sample, labelled): (&Table, &[(Class, Table)]),
    schema: &'static Schema,
) -> Result<(Vec<EstimatorSpec>, Found), FitError> {
    let kinds = &params.estimators;
    if kinds.is_empty() || (1..kinds.len()).any(|i| kinds[..i].contains(&kinds[i])) {
        return Err(FitError::Estimators);
    }
    let settings = Settings::windows(params.seed, params.components.map(|n| n as usize));
    let rates = parts
        .iter()
        .filter_map(|p| p.share.rates.as_ref().map(|(rows, rates)| (p.rank, *rows, rates)));
    let rates = united(rates, (params.seed, 1 << 50), rate::EXAMPLE);
    let counts = order::united(parts.iter().filter_map(|p| p.share.grams.as_ref()));
    let grams = |kind: EstimatorKind| order::learnt(kind.as_str(), &counts);
    let lone: Vec<Vec<Lone>> = parts.iter_mut().filter_map(|p| p.share.lone.take()).collect();
    let mut forests = Some(parts.into_iter().filter_map(|p| p.share.forest));
    let (mut specs, mut found) = (Vec::new(), Vec::new());
    for &kind in kinds {
        specs.push(match kind {
            EstimatorKind::Deviation => EstimatorSpec::Deviation,
            EstimatorKind::IsolationForest => {
                EstimatorSpec::IsolationForest(ForestSpec::merge(forests.take().into_iter().flatten())?)
            }
            EstimatorKind::Ngram => EstimatorSpec::Ngram(grams(kind)?),
            EstimatorKind::NgramPeak => EstimatorSpec::NgramPeak(grams(kind)?),
            EstimatorKind::Stide => EstimatorSpec::Stide(grams(kind)?),
            EstimatorKind::Ets => EstimatorSpec::Ets(rate::ets(&rates)?),
            EstimatorKind::Arima => EstimatorSpec::Arima(rate::arima(&rates)?),
            EstimatorKind::Novelty => {
                EstimatorSpec::Novelty(novelty::fit(schema, sums, lone.iter().map(Vec::as_slice)))
            }
            _ => {
                let fitted = vectors::fit(kind, sample, labelled, sums, &settings)?;
                found.extend(fitted.metrics);
                EstimatorSpec::Vector(Box::new(fitted.staged))
            }
        });
    }
    Ok((specs, found))
}

/// Whether a part is what worker `rank` should have made.
///
/// # Errors
/// Which rule it breaks.
pub fn check(part: &Partial, rank: u32, params: &Params) -> Result<(), FitError> {
    let refuse = |why| Err(FitError::Part { rank: part.rank, why });
    if part.rank != rank {
        return refuse(if part.rank < rank {
            "came twice"
        } else {
            "came before one that is missing"
        });
    }
    check_share(rank, &part.share, params, part.moments.sum.len())?;
    if part.moments.rows == 0 {
        return refuse("was made from no windows");
    }
    let sums = &part.moments;
    if [&sums.sum, &sums.squares, &sums.rates]
        .into_iter()
        .flatten()
        .any(|x| !x.is_finite())
    {
        return refuse("has sums that are not finite");
    }
    let sampled = part.share.sample.as_ref().map_or(0, Table::len);
    if sampled != params.sampled(sums.rows as usize, sums.sum.len()) {
        return refuse("has another number of sampled windows than its share");
    }
    if part.share.rates.as_ref().is_some_and(|rates| rates.0 > sums.rows) {
        return refuse("has more windows with others before them than windows");
    }
    if sums.present.iter().any(|&n| n > sums.rows) {
        return refuse("counts more windows with a feature than windows");
    }
    let lone = part.share.lone.as_ref();
    if lone.is_some_and(|lone| !novelty::is_valid(lone, sums)) {
        return refuse("names other features of one window than its sums count once");
    }
    Ok(())
}

/// Whether trees are the share of worker `rank` and can be scored, and whether a sample holds vectors of `width`.
///
/// # Errors
/// Which rule they break.
pub fn check_share(rank: u32, share: &Share, params: &Params, width: usize) -> Result<(), FitError> {
    let refuse = |why| Err(FitError::Part { rank, why });
    let forest = share.forest.as_ref();
    if forest.map_or(0, |f| f.trees.len()) != forest::share(params.grown(), rank, params.workers).len() {
        return refuse("has another number of trees than its share");
    }
    if let Some(forest) = forest {
        if usize::from(forest.features) != width {
            return refuse("has trees over vectors of another width");
        }
        vigia_model::forest::Forest::compile(forest)?;
    }
    let vectors = share.sample.as_ref().is_none_or(|sample| {
        sample.width() == width
            && sample.values().len() == sample.len() * width
            && sample.len() <= params.sampled(usize::MAX, width)
            && sample.values().iter().all(|x| x.is_finite())
    });
    if !vectors {
        return refuse("has a sample that does not hold the run's vectors");
    }
    if share.grams.is_some() != params.wants_order() || share.grams.as_ref().is_some_and(|g| !g.is_valid()) {
        return refuse("has no counts of sequences of calls, or such as are none");
    }
    let rates = share.rates.as_ref().is_none_or(|(windows, rates)| {
        rates.width() == rate::EXAMPLE
            && rates.values().len() == rates.len() * rate::EXAMPLE
            && rates.len() as u64 == (*windows).min(params.most(rate::EXAMPLE) as u64)
            && rates.values().iter().all(|x| x.is_finite())
    });
    if share.rates.is_some() != params.wants_rates() || !rates {
        return refuse("has no rates to forecast, or such as are none");
    }
    if share.lone.is_some() != params.wants_novelty() {
        return refuse("does not say which features one window alone has");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::rows;

    fn params(workers: u32) -> Params {
        Params {
            name: "checkout-anomaly".to_owned(),
            estimators: EstimatorKind::DEFAULT.to_vec(),
            components: None,
            trees: 20,
            sample_size: 64,
            seed: 42,
            workers,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            data_digest: "sha256:00".to_owned(),
            captures: vec![],
        }
    }

    #[test]
    fn an_artifact_says_the_versions_that_are_locked() {
        let lock = include_str!("../../Cargo.lock");
        let made_by: Vec<&str> = MADE_BY.split(' ').collect();
        assert_eq!(made_by.len(), 6);
        for made in &made_by {
            let (name, version) = made.split_once('/').expect("a version");
            let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&locked), "{made} is not in Cargo.lock");
        }
        let trained = combine(parts(1), &params(1), &rows(200, 9), &[]).expect("trains");
        let opened = artifact::open_unsigned(&trained.artifact, Task::Anomaly).expect("opens");
        assert_eq!(opened.metadata.made_by, MADE_BY);
    }

    fn parts(workers: u32) -> Vec<Partial> {
        let all = rows(300, 1);
        (0..workers)
            .map(|rank| {
                let share = forest::share(300, rank, workers);
                let shard = all.slice(share.start as usize..share.end as usize);
                fit(&shard, &params(workers), rank).expect("fits")
            })
            .collect()
    }

    #[test]
    fn the_same_data_make_the_same_bytes_in_any_order_of_arrival() {
        let holdout = rows(100, 2);
        let first = combine(parts(3), &params(3), &holdout, &[]).expect("combines");
        let mut late = parts(3);
        late.reverse();
        assert_eq!(first, combine(late, &params(3), &holdout, &[]).expect("combines"));
    }

    #[test]
    fn validation_finds_a_good_model_good() {
        let trained = combine(parts(2), &params(2), &rows(200, 2), &[]).expect("combines");
        assert!(
            trained.metrics[validate::HOLDOUT_EXCEEDANCE] <= 0.04,
            "{:?}",
            trained.metrics
        );
        assert!(
            trained.metrics[validate::INJECTION_RECALL] >= 0.99,
            "{:?}",
            trained.metrics
        );
        let opened = artifact::open_unsigned(&trained.artifact, Task::Anomaly).expect("opens");
        assert_eq!(opened.metadata.metrics, trained.metrics);
        assert_eq!(opened.metadata.samples, 500);
    }

    #[test]
    fn a_holdout_unlike_training_fails_validation() {
        // Trained at one mode, held out from another that changes half-way: what calibrates is not what comes.
        let mut holdout = rows(100, 2);
        let width = holdout.width();
        let mut other = Rows::new(holdout.schema());
        for i in 0..100 {
            let mut row = holdout.row(i).to_vec();
            row[20..40].fill(5.0);
            other
                .push(
                    &row,
                    crate::data::About {
                        started_ms: 1_000_000,
                        ..holdout.about()[i]
                    },
                )
                .expect("a row");
        }
        assert_eq!(width, other.width());
        holdout.append(other.slice(0..20)).expect("appends");
        let trained = combine(parts(2), &params(2), &holdout, &[]).expect("combines");
        assert!(
            trained.metrics[validate::HOLDOUT_EXCEEDANCE] > 0.1,
            "{:?}",
            trained.metrics
        );
    }

    #[test]
    fn parts_that_do_not_belong_are_refused() {
        let (good, p, holdout) = (parts(2), params(2), rows(100, 2));
        let error = |parts: Vec<Partial>| {
            combine(parts, &p, &holdout, &[])
                .expect_err("refused")
                .to_string()
        };
        assert_eq!(error(vec![good[0].clone()]), "the part of worker 1 is missing");
        assert_eq!(
            error(vec![good[0].clone(), good[0].clone()]),
            "the part of worker 0 came twice"
        );
        let mut few = good.clone();
        few[1].share.forest.as_mut().expect("trees").trees.pop();
        assert_eq!(
            error(few),
            "the part of worker 1 has another number of trees than its share"
        );
        let mut wild = good.clone();
        wild[1].moments.sum[3] = f64::NAN;
        assert_eq!(error(wild), "the part of worker 1 has sums that are not finite");
        assert!(matches!(
            combine(good, &p, &rows(24, 2), &[]),
            Err(FitError::Holdout(24))
        ));
    }

    #[test]
    fn more_workers_than_trees_is_no_error() {
        let p = Params {
            trees: 1,
            ..params(3)
        };
        let all = rows(90, 1);
        let parts = (0..3).map(|rank| fit(&all, &p, rank).expect("fits")).collect();
        combine(parts, &p, &rows(100, 2), &[]).expect("combines");
    }
}
