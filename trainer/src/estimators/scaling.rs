//! Fits what stands before a vector estimator: the scaler from sums over all windows, the principal components
//! from the sampled ones.

use nalgebra::{DMatrix, SymmetricEigen};
use vigia_model::deviation::Moments;
use vigia_model::estimators::front::{Front, Projection};
use vigia_model::estimators::table::Table;

use super::EstimatorError;

/// A scaler as scikit-learn's: a feature that never varies has the scale 1, unless the floor says more.
///
/// `floor` is the least scale. Rates enter as logarithms, and where one is steady its deviation is the noise of
/// counting; measured in that, every window is odd.
///
/// # Errors
/// No windows.
pub fn scaler(moments: &Moments, floor: f32) -> Result<Front, EstimatorError> {
    if moments.rows == 0 {
        return Err(EstimatorError::TooFew {
            estimator: "scaler",
            least: 1,
            unit: "windows",
            got: 0,
        });
    }
    let rows = moments.rows as f64;
    let columns = moments.sum.iter().zip(&moments.squares).map(|(sum, squares)| {
        let mean = sum / rows;
        let square = squares / rows;
        let variance = square - mean * mean;
        // Below this, the difference is rounding: each row adds some to the sums.
        let deviation = if variance > rows.max(16.0) * f64::EPSILON * square {
            variance.sqrt()
        } else if floor > 0.0 {
            0.0
        } else {
            1.0
        };
        (
            mean as f32,
            (deviation as f32).max(floor).clamp(f32::MIN_POSITIVE, f32::MAX),
        )
    });
    let (mean, scale) = columns.unzip();
    Ok(Front {
        mean,
        scale,
        projection: None,
    })
}

/// Least spread of the distance from a plane, in standard deviations of features: where the components explain all of
/// training, any distance is far.
const LEAST_SPREAD: f32 = 0.3;

/// A scaler's front with the first `count` components of `rows` behind it, where they have a direction to project on.
/// One direction at least is left to the distance from their plane.
pub fn projected(front: Front, rows: &Table, count: usize) -> Front {
    let width = rows.width();
    let components = Components::of(&front.table(rows)).table(width, count.min(width.saturating_sub(1)));
    if components.is_empty() {
        return front;
    }
    let behind = |components, mean, scale| Front {
        projection: Some(Projection {
            components,
            mean,
            scale,
        }),
        ..front.clone()
    };
    let plain = behind(components.clone(), 0.0, 1.0).table(rows);
    let distances = plain.rows().filter_map(|row| row.last()).copied().map(f64::from);
    let count = plain.len().max(1) as f64;
    let mean = distances.clone().sum::<f64>() / count;
    let variance = distances.map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    behind(
        components,
        mean as f32,
        (variance.sqrt() as f32).max(LEAST_SPREAD),
    )
}

/// Principal components of rows whose mean is zero, and the variance along each, in descending order.
pub struct Components {
    axes: Vec<Vec<f32>>,
    /// Variance along each axis; those without any are left out.
    pub variances: Vec<f64>,
}

impl Components {
    /// Of scaled rows.
    pub fn of(rows: &Table) -> Self {
        let width = rows.width();
        let mut products = vec![0.0f64; width * width];
        for row in rows.rows() {
            for (i, &x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
                for (product, &y) in products[i * width..].iter_mut().zip(&row[..=i]) {
                    *product += f64::from(x) * f64::from(y);
                }
            }
        }
        let count = rows.len().max(1) as f64;
        let covariance = DMatrix::from_fn(width, width, |i, j| products[i.max(j) * width + i.min(j)] / count);
        let eigen = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let most = order.first().map_or(0.0, |&i| eigen.eigenvalues[i]);
        order.retain(|&i| eigen.eigenvalues[i] > 1e-9 * most.max(f64::MIN_POSITIVE));
        let axis = |&i: &usize| {
            let column = eigen.eigenvectors.column(i);
            // An axis has no direction; one is chosen so that the same data make the same bytes.
            let largest = column
                .iter()
                .fold(0.0f64, |best, &x| if x.abs() > best.abs() { x } else { best });
            column.iter().map(|x| (x * largest.signum()) as f32).collect()
        };
        Self {
            axes: order.iter().map(axis).collect(),
            variances: order.iter().map(|&i| eigen.eigenvalues[i]).collect(),
        }
    }

    /// The fewest components that explain this share of the variance.
    pub fn explaining(&self, share: f64) -> usize {
        let whole: f64 = self.variances.iter().sum();
        let mut sum = 0.0;
        let enough = self.variances.iter().position(|v| {
            sum += v;
            sum >= share * whole
        });
        enough.map_or(self.variances.len(), |i| i + 1)
    }

    /// The first `count` components, or as many as there are.
    pub fn table(&self, width: usize, count: usize) -> Table {
        Table::new(width, self.axes.iter().take(count).flatten().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_changes_is_known_as_such_however_many_rows_there_are() {
        for value in [0.1f32, 7.7, 3.3e5] {
            let mut moments = Moments::new(1);
            (0..200_000).for_each(|_| moments.add(&[value]).expect("finite"));
            assert_eq!(scaler(&moments, 0.0).expect("rows").scale, [1.0], "{value}");
        }
    }
}
