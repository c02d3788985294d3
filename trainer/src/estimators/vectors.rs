//! Fits the estimators of [`vigia_model::estimators::vector`], each behind its front, to sampled windows.
//!
//! What comes out depends on the rows and the settings, not on the order of the rows.

use vigia_model::deviation::{FLOOR, Moments};
use vigia_model::estimators::front::Front;
use vigia_model::estimators::reconstruction::Reconstruction;
use vigia_model::estimators::table::Table;
use vigia_model::estimators::vector::{Staged, VectorEstimator};
use vigia_model::estimators::zscore::ZScore;
use vigia_model::pipeline::EstimatorKind;

use super::scaling::{Components, scaler};
use super::{EstimatorError, kmeans};

/// Share of the variance that is explained where nobody says how many components.
const EXPLAINED: f64 = 0.95;
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
/// `moments` are sums over all windows, of which `rows` may be a sample.
///
/// # Errors
/// Fewer than two rows, rows of another width or that are not finite, a kind that is no vector estimator, or
/// settings out of range.
pub fn fit(
    kind: EstimatorKind,
    rows: &Table,
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
    if rows.width() != moments.sum.len() || rows.values().iter().any(|x| !x.is_finite()) {
        return Err(EstimatorError::Shape(kind.as_str()));
    }
    if settings.components.is_some_and(|n| n == 0 || n > rows.width()) {
        return Err(EstimatorError::Setting(
            "pca: write a number of components between 1 and the number of features",
        ));
    }
    let front = scaler(moments, settings.floor)?;
    let scaled = front.table(&sorted(rows));
    let components = settings.components;
    let fitted = |(estimator, metrics), front| Fitted {
        staged: Staged { front, estimator },
        metrics,
    };
    Ok(match kind {
        EstimatorKind::Deviation | EstimatorKind::IsolationForest => {
            return Err(EstimatorError::Setting(
                "this estimator is not fitted to scaled vectors",
            ));
        }
        EstimatorKind::ZScore => fitted((VectorEstimator::ZScore(ZScore), vec![]), front),
        EstimatorKind::Pca => fitted(reconstruction(&scaled, components), front),
        EstimatorKind::KMeans => {
            let (front, rows) = projected(front, scaled, components);
            fitted(clusters(&rows, settings.seed)?, front)
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

/// The front with its projection, where one is wanted and there is a direction to project on.
fn projected(front: Front, scaled: Table, components: Option<usize>) -> (Front, Table) {
    let Some(count) = components else {
        return (front, scaled);
    };
    let table = Components::of(&scaled).table(scaled.width(), count);
    if table.is_empty() {
        return (front, scaled);
    }
    let front = Front {
        components: Some(table),
        ..front
    };
    let projection = Front {
        mean: vec![0.0; front.width()],
        scale: vec![1.0; front.width()],
        components: front.components.clone(),
    };
    let rows = projection.table(&scaled);
    (front, rows)
}

/// The rows in the order of their values, so that the order of arrival does not matter.
fn sorted(rows: &Table) -> Table {
    let mut order: Vec<&[f32]> = rows.rows().collect();
    order.sort_by(|a, b| a.iter().map(|x| x.to_bits()).cmp(b.iter().map(|x| x.to_bits())));
    Table::new(rows.width(), order.concat())
}
