//! DBSCAN (Ester, Kriegel, Sander and Xu, KDD 1996) on a sample of rows, as brute force: the sample is bounded.

use vigia_model::estimators::dbscan::{Dbscan, MAX_CORE};
use vigia_model::estimators::table::{Table, squared_distance};

use super::EstimatorError;
use super::kmeans::subsample;

/// Rows that are looked at: the work grows with their square.
pub const ROWS: usize = 2_048;
/// Rows in a core point's neighbourhood, itself among them.
pub const LEAST: usize = 10;
/// Share of the rows that lie in somebody's neighbourhood where the radius is chosen.
const INSIDE: f64 = 0.95;

/// Clusters found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Places of the core points.
    pub core: Vec<usize>,
    /// The cluster of each row; none for noise.
    pub labels: Vec<Option<usize>>,
    /// Number of clusters.
    pub clusters: usize,
}

/// Finds clusters of rows with at least `least` rows, themselves among them, within `eps`.
pub fn find(rows: &Table, eps: f32, least: usize) -> Found {
    let near = |i: usize| {
        let row = rows.row(i);
        rows.rows()
            .enumerate()
            .filter(move |(_, other)| squared_distance(row, other) <= eps * eps)
            .map(|(j, _)| j)
    };
    let is_core: Vec<bool> = (0..rows.len()).map(|i| near(i).count() >= least).collect();
    let mut labels = vec![None; rows.len()];
    let mut clusters = 0;
    for start in 0..rows.len() {
        if !is_core[start] || labels[start].is_some() {
            continue;
        }
        labels[start] = Some(clusters);
        let mut open = vec![start];
        while let Some(i) = open.pop() {
            for j in near(i) {
                if labels[j].is_none() {
                    labels[j] = Some(clusters);
                    if is_core[j] {
                        open.push(j);
                    }
                }
            }
        }
        clusters += 1;
    }
    Found {
        core: (0..rows.len()).filter(|&i| is_core[i]).collect(),
        labels,
        clusters,
    }
}

/// The estimator of a sample of the rows, with the radius that 95 % of them need for a full neighbourhood; and what
/// was found.
///
/// # Errors
/// Fewer than two rows.
pub fn fit(rows: &Table, seed: u64) -> Result<(Dbscan, Found), EstimatorError> {
    if rows.len() < 2 {
        return Err(EstimatorError::TooFew {
            estimator: "dbscan",
            least: 2,
            unit: "windows",
            got: rows.len(),
        });
    }
    let rows = subsample(rows, ROWS, seed);
    let least = LEAST.min(rows.len());
    let mut radii: Vec<f32> = rows
        .rows()
        .map(|row| {
            let mut distances: Vec<f32> = rows.rows().map(|other| squared_distance(row, other)).collect();
            let (_, radius, _) = distances.select_nth_unstable_by(least - 1, f32::total_cmp);
            radius.sqrt()
        })
        .collect();
    radii.sort_unstable_by(f32::total_cmp);
    // Rows that are all alike lie within no radius; any small one will do. Rounding must not lose its own row.
    let eps = (radii[((rows.len() - 1) as f64 * INSIDE) as usize] * (1.0 + 1e-5)).max(1e-3);
    let found = find(&rows, eps, least);
    let (core, uncovered) = covering(&rows, &found.core);
    // What lies next to a core point that is not kept is within a cluster all the same.
    let eps = eps + uncovered;
    Ok((Dbscan { core, eps }, found))
}

/// At most [`MAX_CORE`] of the core points, each the farthest from those before (Gonzalez, Theor. Comput. Sci. 38,
/// 1985), so that they cover all; and how far from the nearest of them the farthest of the others lies.
fn covering(rows: &Table, core: &[usize]) -> (Table, f32) {
    let mut kept: Vec<usize> = Vec::new();
    let mut nearest = vec![f32::INFINITY; core.len()];
    let mut next = (!core.is_empty()).then_some(0);
    while let Some(place) = next
        && kept.len() < MAX_CORE
    {
        kept.push(core[place]);
        let mut farthest = (None, 0.0);
        for (i, nearest) in nearest.iter_mut().enumerate() {
            *nearest = nearest.min(squared_distance(rows.row(core[i]), rows.row(core[place])));
            if *nearest > farthest.1 {
                farthest = (Some(i), *nearest);
            }
        }
        next = farthest.0;
    }
    kept.sort_unstable();
    let kept = Table::new(
        rows.width(),
        kept.iter().flat_map(|&i| rows.row(i)).copied().collect(),
    );
    let uncovered = if kept.len() < core.len() {
        nearest.into_iter().fold(0.0, f32::max).sqrt()
    } else {
        0.0
    };
    (kept, uncovered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::Draw;

    #[test]
    fn what_lies_next_to_a_core_point_that_is_not_kept_is_within_a_cluster() {
        let mut draw = Draw::new(1, 0);
        let values: Vec<f32> = (0..1600).map(|_| draw.unit() as f32).collect();
        let rows = Table::new(2, values);
        let (model, found) = fit(&rows, 1).expect("fits");
        assert!(found.core.len() > MAX_CORE && model.core.len() == MAX_CORE);
        for &core in &found.core {
            let kept = model
                .core
                .rows()
                .map(|kept| squared_distance(kept, rows.row(core)));
            let distance = kept.fold(f32::MAX, f32::min).sqrt();
            assert!(distance < model.eps, "{distance} of {}", model.eps);
        }
        // And hardly wider than without: ten of 800 points lie within some .06.
        assert!(model.eps < 0.2, "{}", model.eps);
    }
}
