//! What fits the estimators of `vigia_model::estimators`.
//!
//! Pure functions of data and settings: the same of both give the same model.

pub mod contrast;
pub mod dbscan;
pub mod folds;
pub mod forecast;
pub mod gaussian;
pub mod kmeans;
pub mod lof;
pub mod mlp;
pub mod novelty;
pub mod order;
pub mod rate;
pub mod scaling;
pub mod sequence;
pub mod tracked;
pub mod trees;
pub mod vectors;

/// Why data makes no estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EstimatorError {
    /// Nothing, or too little, to learn from.
    #[error("{estimator} needs at least {least} {unit}, got {got}")]
    TooFew {
        /// Which estimator.
        estimator: &'static str,
        /// How many it needs …
        least: usize,
        /// … of what.
        unit: &'static str,
        /// How many there are.
        got: usize,
    },
    /// Values that do not make rows of one width, or are not finite.
    #[error("{0}: rows of one width and finite values are needed")]
    Shape(&'static str),
    /// A setting out of range.
    #[error("{0}")]
    Setting(&'static str),
    /// The numbers admit no solution.
    #[error("{0}: the data admits no solution")]
    Singular(&'static str),
}
