//! Fits the estimators of [`vigia_model::estimators::vector`], each behind its front, to sampled windows.
//!
//! What comes out depends on the rows and the settings, not on the order of the rows.

use vigia_model::deviation::{FLOOR, Moments};
use vigia_model::estimators::reconstruction::Reconstruction;
use vigia_model::estimators::table::Table;
use vigia_model::estimators::trees::MAX_DEPTH;
use vigia_model::estimators::vector::{Staged, VectorEstimator};
use vigia_model::estimators::zscore::ZScore;
use vigia_model::pipeline::EstimatorKind;

use super::contrast::contrast;
use super::scaling::{Components, projected, scaler};
use super::trees::{self, Growth};
use super::{EstimatorError, dbscan, gaussian, kmeans, lof, mlp};
use crate::data::Class;

/// Share of the variance that is explained where nobody says how many components.
const EXPLAINED: f64 = 0.95;
/// Least variance of a Gaussian's feature, in those of training: a covariance of few windows has directions in which
/// nothing ever moved.
const REGULAR: f64 = 0.05;
/// Neighbours of the local outlier factor, and what its distances are smoothed by, in standard deviations: windows of
/// an idle container are often the same to the last call.
const NEIGHBOURS: usize = 20;
const SMOOTHING: f32 = 0.1;
/// Trees of the random forest, their depth, and windows of a leaf. Split by split a tree takes off those that show one
/// call more than is normal; that rates do not go together only shows in what is left, far down.
const TREES: u32 = 100;
const DEPTH: u8 = MAX_DEPTH;
const LEAF: usize = 5;
/// Fewest windows that anything is learnt from.
const LEAST: usize = 2;

/// How to fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Seed of everything drawn.
    pub seed: u64,
    /// Principal components in front of the estimators, and those that `pca` keeps.
    pub components: Option<usize>,
    /// Least scale of a feature.
    pub floor: f32,
}

impl Settings {
    /// Settings for windows' vectors, whose features are logarithms of rates.
    pub const fn windows(seed: u64, components: Option<usize>) -> Self {
        Self {
            seed,
            components,
            floor: FLOOR,
        }
    }
}

/// A fitted estimator, and what is worth knowing of the fit, by names for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// What scores.
    pub staged: Staged,
    /// What the fit chose or found.
    pub metrics: Vec<(&'static str, f64)>,
}

/// Fits one kind to rows.
///
/// `moments` are sums over all windows, of which `rows` may be a sample. Of `labelled` windows classifiers alone learn, see
/// [`contrast`]; nothing is scaled or projected by them.
///
/// # Errors
/// Fewer than two rows, rows of another width or that are not finite, a class without rows, a kind that is no vector estimator, or
/// settings out of range.
pub fn fit(
    kind: EstimatorKind,
    rows: &Table,
    labelled: &[(Class, Table)],
    moments: &Moments,
    settings: &Settings,
) -> Result<Fitted, EstimatorError> {
    if rows.len() < LEAST {
        return Err(EstimatorError::TooFew {
            estimator: kind.as_str(),
            least: LEAST,
            unit: "windows",
            got: rows.len(),
        });
    }
    let fits =
        |rows: &Table| rows.width() == moments.sum.len() && rows.values().iter().all(|x| x.is_finite());
    if !fits(rows) || labelled.iter().any(|(_, rows)| rows.is_empty() || !fits(rows)) {
        return Err(EstimatorError::Shape(kind.as_str()));
    }
    if settings.components.is_some_and(|n| n == 0 || n > rows.width()) {
        return Err(EstimatorError::Setting(
            "pca: write a number of components between 1 and the number of features",
        ));
    }
    let front = scaler(moments, settings.floor)?;
    let rows = sorted(rows);
    let (components, seed) = (settings.components, settings.seed);
    // PCA is itself a projection and the way to its plane.
    let front = match components {
        Some(count) if kind.takes_components() && kind != EstimatorKind::Pca => {
            projected(front, &rows, count)
        }
        _ => front,
    };
    let behind = front.table(&rows);
    let fitted = |(estimator, metrics), front| Fitted {
        staged: Staged { front, estimator },
        metrics,
    };
    Ok(match kind {
        EstimatorKind::Deviation
        | EstimatorKind::IsolationForest
        | EstimatorKind::Ngram
        | EstimatorKind::NgramPeak
        | EstimatorKind::Stide
        | EstimatorKind::Ets
        | EstimatorKind::Arima
        | EstimatorKind::Novelty => {
            return Err(EstimatorError::Setting(
                "this estimator is not fitted to scaled vectors",
            ));
        }
        EstimatorKind::ZScore => fitted((VectorEstimator::ZScore(ZScore), vec![]), front),
        EstimatorKind::Pca => fitted(reconstruction(&behind, components), front),
        EstimatorKind::KMeans => fitted(clusters(&behind, seed)?, front),
        EstimatorKind::GaussianMixture => fitted(mixture(&behind, seed)?, front),
        EstimatorKind::Lof => {
            let model = lof::fit(&behind, NEIGHBOURS, SMOOTHING, seed)?;
            fitted((VectorEstimator::Lof(model), vec![]), front)
        }
        EstimatorKind::Dbscan => fitted(dense(&behind, seed)?, front),
        EstimatorKind::Autoencoder => {
            let model = mlp::autoencoder(&behind, seed)?;
            fitted((VectorEstimator::Mlp(model), vec![]), front)
        }
        EstimatorKind::RandomForest | EstimatorKind::MlpClassifier => {
            let labelled: Vec<_> = labelled
                .iter()
                .map(|(class, rows)| (*class, sorted(rows)))
                .collect();
            let (contrasted, classes) = contrast(&rows, &labelled, seed);
            let contrasted = front.table(&contrasted);
            let estimator = if kind == EstimatorKind::RandomForest {
                VectorEstimator::RandomForest(trees::grow(&contrasted, &classes, growth(seed))?)
            } else {
                VectorEstimator::Mlp(mlp::classifier(&contrasted, &classes, seed)?)
            };
            fitted((estimator, vec![]), front)
        }
    })
}

type Found = (VectorEstimator, Vec<(&'static str, f64)>);

fn reconstruction(scaled: &Table, components: Option<usize>) -> Found {
    let found = Components::of(scaled);
    let count = components.unwrap_or_else(|| found.explaining(EXPLAINED));
    let table = found.table(scaled.width(), count);
    let (kept, whole): (f64, f64) = (
        found.variances.iter().take(count).sum(),
        found.variances.iter().sum(),
    );
    let metrics = vec![
        ("PcaComponents", table.len() as f64),
        ("PcaExplained", if whole > 0.0 { kept / whole } else { 1.0 }),
    ];
    let model = Reconstruction { components: table };
    (VectorEstimator::Reconstruction(model), metrics)
}

fn clusters(rows: &Table, seed: u64) -> Result<Found, EstimatorError> {
    let (found, silhouette) = kmeans::best(rows, seed)?;
    let metrics = vec![
        ("KMeansClusters", found.model.centres.len() as f64),
        ("KMeansSilhouette", silhouette),
    ];
    Ok((VectorEstimator::KMeans(found.model), metrics))
}

fn mixture(rows: &Table, seed: u64) -> Result<Found, EstimatorError> {
    let (model, likelihood) = gaussian::best(rows, REGULAR, seed)?;
    let metrics = vec![
        ("GaussianMixtureComponents", model.components.len() as f64),
        ("GaussianMixtureHeldOutLogLikelihood", likelihood),
    ];
    Ok((VectorEstimator::GaussianMixture(model), metrics))
}

fn dense(rows: &Table, seed: u64) -> Result<Found, EstimatorError> {
    let (model, found) = dbscan::fit(rows, seed)?;
    let noise = found.labels.iter().filter(|label| label.is_none()).count();
    let metrics = vec![
        ("DbscanClusters", found.clusters as f64),
        ("DbscanNoise", noise as f64 / found.labels.len() as f64),
    ];
    Ok((VectorEstimator::Dbscan(model), metrics))
}

const fn growth(seed: u64) -> Growth {
    Growth {
        trees: TREES,
        depth: DEPTH,
        leaf: LEAF,
        seed,
    }
}

/// The rows in the order of their values, so that the order of arrival does not matter.
fn sorted(rows: &Table) -> Table {
    let mut order: Vec<&[f32]> = rows.rows().collect();
    order.sort_by(|a, b| a.iter().map(|x| x.to_bits()).cmp(b.iter().map(|x| x.to_bits())));
    Table::new(rows.width(), order.concat())
}
