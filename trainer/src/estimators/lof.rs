//! Remembers rows and how densely each lies, for the local outlier factor of new ones.
//!
//! Own code: aprender's scores of new rows are wrong.

use vigia_model::estimators::lof::{Lof, MAX_NEIGHBOURS, MAX_POINTS};
use vigia_model::estimators::table::{Table, squared_distance};

use super::EstimatorError;
use super::kmeans::subsample;

/// Of at most [`MAX_POINTS`] drawn rows, with `neighbours` neighbours or as many as there are others.
///
/// # Errors
/// Fewer than two rows, or more neighbours than [`MAX_NEIGHBOURS`].
pub fn fit(rows: &Table, neighbours: usize, smoothing: f32, seed: u64) -> Result<Lof, EstimatorError> {
    if rows.len() < 2 {
        return Err(EstimatorError::TooFew {
            estimator: "lof",
            least: 2,
            unit: "windows",
            got: rows.len(),
        });
    }
    if !(1..=MAX_NEIGHBOURS).contains(&neighbours) {
        return Err(EstimatorError::Setting(
            "lof: the number of neighbours must be between 1 and 32",
        ));
    }
    let points = subsample(rows, MAX_POINTS, seed);
    let count = neighbours.min(points.len() - 1);
    let nearest: Vec<Vec<(f32, usize)>> = (0..points.len())
        .map(|i| {
            let mut others: Vec<(f32, usize)> = (0..points.len())
                .filter(|&j| j != i)
                .map(|j| (squared_distance(points.row(i), points.row(j)).sqrt(), j))
                .collect();
            let order = |a: &(f32, usize), b: &(f32, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            others.select_nth_unstable_by(count - 1, order);
            others.truncate(count);
            others.sort_unstable_by(order);
            others
        })
        .collect();
    let reach: Vec<f32> = nearest.iter().map(|n| n[count - 1].0).collect();
    let density = nearest
        .iter()
        .map(|neighbours| {
            let sum: f32 = neighbours.iter().map(|&(d, j)| d.max(reach[j])).sum();
            1.0 / (sum / count as f32 + smoothing)
        })
        .collect();
    Ok(Lof {
        points,
        reach,
        density,
        neighbours: count as u32,
        smoothing,
    })
}
