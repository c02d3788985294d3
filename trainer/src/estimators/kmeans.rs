//! K-means (Lloyd, IEEE Trans. Inf. Theory 28, 1982) from a k-means++ start (Arthur and Vassilvitskii, SODA 2007),
//! with k by silhouette (Rousseeuw, J. Comput. Appl. Math. 20, 1987).
//!
//! Own code: aprender starts from the farthest rows, so that one outlier ruins it, and the draws of other crates
//! may change with their versions, while the same windows and seed are to make the same bytes.

use vigia_model::estimators::kmeans::{KMeans, MAX_CLUSTERS};
use vigia_model::estimators::table::{Table, squared_distance};

use super::EstimatorError;
use crate::forest::Draw;

/// Starts of which the best is kept.
const STARTS: usize = 8;
/// Most rounds of one start.
const ROUNDS: usize = 100;
/// Most clusters that [`best`] tries.
const TRIED: usize = 10;
/// Rows that k is chosen on: silhouettes are quadratic.
const CHOOSING: usize = 2_000;

/// Clusters found.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// What scores.
    pub model: KMeans,
    /// The cluster of each row.
    pub labels: Vec<usize>,
    /// Sum of squared distances to the nearest centre.
    pub inertia: f64,
}

/// Finds `k` clusters, or as many as there are different rows.
///
/// # Errors
/// Fewer than two rows, or k outside 2 to [`MAX_CLUSTERS`].
pub fn fit(rows: &Table, k: usize, seed: u64) -> Result<Clusters, EstimatorError> {
    if rows.len() < 2 {
        return Err(EstimatorError::TooFew {
            estimator: "kmeans",
            least: 2,
            unit: "windows",
            got: rows.len(),
        });
    }
    if !(2..=MAX_CLUSTERS).contains(&k) {
        return Err(EstimatorError::Setting(
            "kmeans: the number of clusters must be between 2 and 32",
        ));
    }
    let mut best: Option<Clusters> = None;
    for start in 0..STARTS {
        // Streams below 2^32 are the trees', and the last is the hold-out's.
        let mut draw = Draw::new(seed, (1 << 40) + start as u64);
        let found = lloyd(rows, plus_plus(rows, k, &mut draw));
        if best.as_ref().is_none_or(|b| found.inertia < b.inertia) {
            best = Some(found);
        }
    }
    best.ok_or(EstimatorError::Singular("kmeans"))
}

/// The number of clusters with the largest silhouette, and that silhouette; one cluster, and 0, where
/// all rows are alike.
///
/// # Errors
/// As [`fit`].
pub fn best(rows: &Table, seed: u64) -> Result<(Clusters, f64), EstimatorError> {
    let chosen = subsample(rows, CHOOSING, seed);
    let distances = Distances::of(&chosen);
    let mut choice = (2, f64::NEG_INFINITY);
    for k in 2..=TRIED {
        let found = fit(&chosen, k, seed)?;
        if found.model.centres.len() < k {
            break;
        }
        let silhouette = distances.silhouette(&found.labels);
        if silhouette > choice.1 {
            choice = (k, silhouette);
        }
    }
    let silhouette = if choice.1.is_finite() { choice.1 } else { 0.0 };
    Ok((fit(rows, choice.0, seed)?, silhouette))
}

/// At most `count` rows, drawn.
pub(super) fn subsample(rows: &Table, count: usize, seed: u64) -> Table {
    let drawn = Draw::new(seed, 1 << 41).sample(rows.len(), count);
    let values = drawn
        .iter()
        .flat_map(|&i| rows.row(i as usize))
        .copied()
        .collect();
    Table::new(rows.width(), values)
}

/// Distances of rows from each other, taken once for every number of clusters that is tried.
pub struct Distances {
    /// Those of each row, one row after the other.
    values: Vec<f32>,
    rows: usize,
}

impl Distances {
    /// Of every row from every row.
    pub fn of(rows: &Table) -> Self {
        let from = |a| rows.rows().map(move |b| squared_distance(a, b).sqrt());
        Self {
            values: rows.rows().flat_map(from).collect(),
            rows: rows.len(),
        }
    }

    /// Mean silhouette of rows in clusters of these labels; 0 where they lie in one.
    pub fn silhouette(&self, labels: &[usize]) -> f64 {
        let k = labels.iter().max().map_or(0, |k| k + 1);
        let mut sizes = vec![0usize; k];
        labels.iter().for_each(|&label| sizes[label] += 1);
        if sizes.iter().filter(|&&n| n > 0).count() < 2 {
            return 0.0;
        }
        let mut sum = 0.0;
        for (distances, &own) in self.values.chunks_exact(self.rows).zip(labels) {
            if sizes[own] < 2 {
                continue;
            }
            let mut sums = vec![0.0f64; k];
            for (&distance, &label) in distances.iter().zip(labels) {
                sums[label] += f64::from(distance);
            }
            let within = sums[own] / (sizes[own] - 1) as f64;
            let beside = (0..k)
                .filter(|&c| c != own && sizes[c] > 0)
                .map(|c| sums[c] / sizes[c] as f64)
                .fold(f64::INFINITY, f64::min);
            let most = within.max(beside);
            if most > 0.0 {
                sum += (beside - within) / most;
            }
        }
        sum / labels.len() as f64
    }
}

/// Rows drawn with probability proportional to the squared distance from those drawn before; fewer where there are fewer
/// different rows. Of a few drawn, the one that leaves the least is kept, as the paper's authors do: one draw alone puts two
/// centres into one of ten clusters more often than not.
fn plus_plus(rows: &Table, k: usize, draw: &mut Draw) -> Vec<Vec<f32>> {
    let tried = 2 + (k as f64).ln() as usize;
    let first = rows.row(draw.below(rows.len())).to_vec();
    let mut nearest: Vec<f64> = rows
        .rows()
        .map(|row| f64::from(squared_distance(row, &first)))
        .collect();
    let mut centres = vec![first];
    while centres.len() < k {
        let whole: f64 = nearest.iter().sum();
        let mut best: Option<(f64, usize, Vec<f64>)> = None;
        for _ in 0..tried {
            let Some(pick) = pick(&nearest, whole, draw) else {
                return centres;
            };
            let centre = rows.row(pick);
            let left = nearest.iter().zip(rows.rows());
            let left: Vec<f64> = left
                .map(|(nearest, row)| nearest.min(f64::from(squared_distance(row, centre))))
                .collect();
            let sum = left.iter().sum();
            if best.as_ref().is_none_or(|(least, ..)| sum < *least) {
                best = Some((sum, pick, left));
            }
        }
        let Some((_, pick, left)) = best else {
            return centres;
        };
        centres.push(rows.row(pick).to_vec());
        nearest = left;
    }
    centres
}

/// A place drawn with probability proportional to its weight, of weights that add up to `whole`; none where all are 0.
fn pick(weights: &[f64], whole: f64, draw: &mut Draw) -> Option<usize> {
    let mut left = draw.unit() * whole;
    let drawn = weights.iter().position(|weight| {
        left -= weight;
        left <= 0.0 && *weight > 0.0
    });
    // Rounding may leave a little over at the end.
    drawn.or_else(|| weights.iter().rposition(|&weight| weight > 0.0))
}

fn lloyd(rows: &Table, start: Vec<Vec<f32>>) -> Clusters {
    let (width, k) = (rows.width(), start.len());
    let mut model = KMeans {
        centres: Table::new(width, start.concat()),
    };
    let mut labels = vec![usize::MAX; rows.len()];
    let mut inertia = 0.0;
    for _ in 0..ROUNDS {
        let mut changed = false;
        inertia = 0.0;
        let (mut sums, mut sizes) = (vec![0.0f64; k * width], vec![0usize; k]);
        let mut farthest = (0, -1.0f32);
        for (i, (row, label)) in rows.rows().zip(&mut labels).enumerate() {
            let (nearest, distance) = model.nearest(row);
            changed |= *label != nearest;
            *label = nearest;
            inertia += f64::from(distance);
            sizes[nearest] += 1;
            if distance > farthest.1 {
                farthest = (i, distance);
            }
            let sums = &mut sums[nearest * width..(nearest + 1) * width];
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, &x)| *sum += f64::from(x));
        }
        if !changed {
            break;
        }
        let mut centres = Vec::with_capacity(k * width);
        for (sums, &size) in sums.chunks_exact(width).zip(&sizes) {
            if size == 0 {
                centres.extend_from_slice(rows.row(farthest.0));
            } else {
                centres.extend(sums.iter().map(|sum| (sum / size as f64) as f32));
            }
        }
        model.centres = Table::new(width, centres);
    }
    Clusters {
        model,
        labels,
        inertia,
    }
}
