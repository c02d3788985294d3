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
const STARTS: usize = 4;
/// Most rounds of one start.
const ROUNDS: usize = 100;
/// Most clusters that [`best`] tries.
const TRIED: usize = 10;
/// Rows that k is chosen on, and rows whose silhouette is taken: that is quadratic.
const CHOOSING: usize = 2_000;
const SILHOUETTE: usize = 500;

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
    let mut choice = (2, f64::NEG_INFINITY);
    for k in 2..=TRIED {
        let found = fit(&chosen, k, seed)?;
        if found.model.centres.len() < k {
            break;
        }
        let silhouette = silhouette(&chosen, &found.labels, seed);
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

/// Mean silhouette of at most 500 drawn rows among themselves; 0 where they lie in one cluster.
pub fn silhouette(rows: &Table, labels: &[usize], seed: u64) -> f64 {
    let drawn = Draw::new(seed, 1 << 42).sample(rows.len(), SILHOUETTE);
    let k = labels.iter().max().map_or(0, |k| k + 1);
    let mut sizes = vec![0usize; k];
    drawn.iter().for_each(|&i| sizes[labels[i as usize]] += 1);
    if sizes.iter().filter(|&&n| n > 0).count() < 2 {
        return 0.0;
    }
    let mut sum = 0.0;
    for &i in &drawn {
        let own = labels[i as usize];
        let mut distances = vec![0.0f64; k];
        for &j in &drawn {
            let squared = squared_distance(rows.row(i as usize), rows.row(j as usize));
            distances[labels[j as usize]] += f64::from(squared).sqrt();
        }
        if sizes[own] < 2 {
            continue;
        }
        let within = distances[own] / (sizes[own] - 1) as f64;
        let beside = (0..k)
            .filter(|&c| c != own && sizes[c] > 0)
            .map(|c| distances[c] / sizes[c] as f64)
            .fold(f64::INFINITY, f64::min);
        let most = within.max(beside);
        if most > 0.0 {
            sum += (beside - within) / most;
        }
    }
    sum / drawn.len() as f64
}

/// Rows drawn with probability proportional to the squared distance from those drawn before; fewer where there
/// are fewer different rows.
fn plus_plus(rows: &Table, k: usize, draw: &mut Draw) -> Vec<Vec<f32>> {
    let first = rows.row(draw.below(rows.len())).to_vec();
    let mut nearest: Vec<f64> = rows
        .rows()
        .map(|row| f64::from(squared_distance(row, &first)))
        .collect();
    let mut centres = vec![first];
    while centres.len() < k {
        let whole: f64 = nearest.iter().sum();
        if whole <= 0.0 {
            break;
        }
        let mut left = draw.unit() * whole;
        let drawn = nearest.iter().position(|d| {
            left -= d;
            left <= 0.0 && *d > 0.0
        });
        // Rounding may leave a little over at the end.
        let Some(pick) = drawn.or_else(|| nearest.iter().rposition(|&d| d > 0.0)) else {
            break;
        };
        let centre = rows.row(pick).to_vec();
        for (nearest, row) in nearest.iter_mut().zip(rows.rows()) {
            *nearest = nearest.min(f64::from(squared_distance(row, &centre)));
        }
        centres.push(centre);
    }
    centres
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
