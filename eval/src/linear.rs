//! The linear baselines: least-squares autoregression, and PCA reconstruction error.

use anyhow::{Context, Result};
use nalgebra::{DMatrix, DVector};

/// Autoregression on the last `order` values and a constant, fitted by least squares for one horizon.
pub struct Autoregression {
    weights: DVector<f64>,
    order: usize,
}

impl Autoregression {
    /// Fits to a series.
    pub fn fit(series: &[f64], order: usize, steps: usize) -> Result<Self> {
        let examples: Vec<usize> = (order - 1..series.len() - steps).collect();
        let x = DMatrix::from_fn(examples.len(), order + 1, |i, j| {
            if j == order { 1.0 } else { series[examples[i] - j] }
        });
        let y = DVector::from_fn(examples.len(), |i, _| series[examples[i] + steps]);
        let weights = (x.tr_mul(&x) + DMatrix::identity(order + 1, order + 1) * 1e-9)
            .cholesky()
            .context("no autoregression fits")?
            .solve(&x.tr_mul(&y));
        Ok(Self { weights, order })
    }

    /// The forecast made at row `at`.
    pub fn forecast(&self, series: &[f64], at: usize) -> f64 {
        (0..self.order)
            .map(|j| series[at - j] * self.weights[j])
            .sum::<f64>()
            + self.weights[self.order]
    }
}

/// Squared reconstruction error of rows by the first `components` principal components of `train`.
pub fn pca_errors(train: &DMatrix<f64>, rows: &DMatrix<f64>, components: usize) -> Vec<f64> {
    let covariance = train.tr_mul(train) / train.nrows() as f64;
    let eigen = covariance.symmetric_eigen();
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_unstable_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let kept = DMatrix::from_columns(
        &order
            .iter()
            .take(components)
            .map(|&i| eigen.eigenvectors.column(i))
            .collect::<Vec<_>>(),
    );
    let projected = rows * &kept;
    (0..rows.nrows())
        .map(|i| (rows.row(i).norm_squared() - projected.row(i).norm_squared()).max(0.0))
        .collect()
}
