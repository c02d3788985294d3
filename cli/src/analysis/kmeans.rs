//! k-means in one dimension, solved exactly, and the silhouette of what it finds.
//!
//! On a line the best clusters are runs of the sorted values, so dynamic programming over where the runs end finds
//! the optimum (Wang and Song, Ckmeans.1d.dp, The R Journal 3/2, 2011): no start to choose, no seed, and the same
//! answer every time. There are some hundred system calls at most, for which O(k n²) is nothing.

/// Runs of sorted values.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// Mean of each cluster, ascending.
    pub centres: Vec<f64>,
    /// Cluster of each value, in the order that they were given in.
    pub of: Vec<usize>,
}

/// Sums of squared distances from the mean, of any run of sorted values, in constant time.
struct Costs {
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Costs {
    fn new(sorted: &[f64]) -> Self {
        // About the middle, so that squares of large values do not swallow the differences.
        let middle = sorted[sorted.len() / 2];
        let (mut sums, mut squares) = (vec![0.0], vec![0.0]);
        for value in sorted {
            let x = value - middle;
            sums.push(sums[sums.len() - 1] + x);
            squares.push(squares[squares.len() - 1] + x * x);
        }
        Self { sums, squares }
    }

    fn of(&self, from: usize, to: usize) -> f64 {
        let sum = self.sums[to] - self.sums[from];
        let square = self.squares[to] - self.squares[from];
        (square - sum * sum / (to - from) as f64).max(0.0)
    }
}

/// Puts finite values into `k` clusters, or into as many as there are different values.
///
/// No values or `k` = 0 give no clusters.
pub fn cluster(values: &[f64], k: usize) -> Clusters {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let sorted: Vec<f64> = order.iter().map(|i| values[*i]).collect();
    let mut distinct = sorted.clone();
    distinct.dedup();
    let k = k.min(distinct.len());
    if k == 0 {
        return Clusters {
            centres: vec![],
            of: vec![],
        };
    }
    let n = sorted.len();
    let costs = Costs::new(&sorted);
    let mut best: Vec<f64> = (0..=n)
        .map(|end| if end == 0 { 0.0 } else { costs.of(0, end) })
        .collect();
    let mut cuts: Vec<Vec<usize>> = Vec::new();
    for runs in 2..=k {
        let (mut next, mut cut) = (vec![f64::INFINITY; n + 1], vec![0; n + 1]);
        for end in runs..=n {
            for start in runs - 1..end {
                // A run that began in the midst of equal values would part them.
                if sorted[start - 1] == sorted[start] {
                    continue;
                }
                let cost = best[start] + costs.of(start, end);
                if cost < next[end] {
                    (next[end], cut[end]) = (cost, start);
                }
            }
        }
        best = next;
        cuts.push(cut);
    }
    let mut ends = vec![n];
    for cut in cuts.iter().rev() {
        ends.push(cut[ends[ends.len() - 1]]);
    }
    ends.reverse();
    let (mut centres, mut of, mut start) = (Vec::new(), vec![0; n], 0);
    for (cluster, &end) in ends.iter().enumerate() {
        let run = &sorted[start..end];
        centres.push(run.iter().sum::<f64>() / run.len() as f64);
        order[start..end].iter().for_each(|i| of[*i] = cluster);
        start = end;
    }
    Clusters { centres, of }
}

/// Mean silhouette, -1 to 1 (Rousseeuw, J. Comput. Appl. Math. 20, 1987); a value alone in its cluster counts as 0,
/// and so does everything in one cluster.
pub fn silhouette(values: &[f64], clusters: &Clusters) -> f64 {
    let k = clusters.centres.len();
    if k < 2 {
        return 0.0;
    }
    let mut sizes = vec![0usize; k];
    clusters.of.iter().for_each(|c| sizes[*c] += 1);
    let one = |(value, own): (&f64, &usize)| {
        if sizes[*own] == 1 {
            return 0.0;
        }
        let mut sums = vec![0.0; k];
        for (other, c) in values.iter().zip(&clusters.of) {
            sums[*c] += (value - other).abs();
        }
        let within = sums[*own] / (sizes[*own] - 1) as f64;
        let nearest = (0..k)
            .filter(|c| c != own)
            .map(|c| sums[c] / sizes[c] as f64)
            .fold(f64::INFINITY, f64::min);
        let larger = within.max(nearest);
        if larger > 0.0 {
            (nearest - within) / larger
        } else {
            0.0
        }
    };
    values.iter().zip(&clusters.of).map(one).sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(values: &[f64], clusters: &Clusters) -> f64 {
        values
            .iter()
            .zip(&clusters.of)
            .map(|(x, c)| (x - clusters.centres[*c]).powi(2))
            .sum()
    }

    /// By trying every way of cutting the sorted values.
    fn least(sorted: &[f64], k: usize) -> f64 {
        let spread = |run: &[f64]| {
            let mean = run.iter().sum::<f64>() / run.len() as f64;
            run.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
        };
        if k == 1 {
            return spread(sorted);
        }
        (k - 1..sorted.len())
            .map(|cut| least(&sorted[..cut], k - 1) + spread(&sorted[cut..]))
            .fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn two_heaps_are_two_clusters() {
        let values = [10.0, 1.0, 11.0, 2.0, 1.5];
        let found = cluster(&values, 2);
        assert_eq!(found.of, [1, 0, 1, 0, 0]);
        assert_eq!(found.centres, [1.5, 10.5]);
        // Worked out by hand from the definition.
        assert!((silhouette(&values, &found) - 0.910_870_313_037_495_8).abs() < 1e-12);
    }

    #[test]
    fn clusters_are_never_empty() {
        assert_eq!(cluster(&[3.0, 3.0, 3.0], 2).centres, [3.0]);
        assert_eq!(cluster(&[3.0, 1.0], 9).of, [1, 0]);
        assert_eq!(cluster(&[], 2).centres, [0.0; 0]);
        assert_eq!(cluster(&[1.0], 0).centres, [0.0; 0]);
        assert_eq!(silhouette(&[3.0], &cluster(&[3.0], 2)), 0.0);
    }

    proptest! {
        #[test]
        fn nothing_is_better(values in proptest::collection::vec(0u16..40, 2..9), k in 2usize..5) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let found = cluster(&values, k);
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let best = least(&sorted, found.centres.len());
            prop_assert!((cost(&values, &found) - best).abs() < 1e-6, "{} {best}", cost(&values, &found));
        }

        #[test]
        fn centres_ascend_and_equal_values_stay_together(values in proptest::collection::vec(0u8..9, 1..60), k in 1usize..12) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let found = cluster(&values, k);
            prop_assert!(found.centres.windows(2).all(|pair| pair[0] < pair[1]));
            for (a, of_a) in values.iter().zip(&found.of) {
                for (b, of_b) in values.iter().zip(&found.of) {
                    prop_assert!(a != b || of_a == of_b);
                    prop_assert!(a >= b || of_a <= of_b);
                }
            }
        }

        #[test]
        fn a_silhouette_is_within_its_bounds(values in proptest::collection::vec(0f64..1e9, 2..60), k in 2usize..12) {
            let found = cluster(&values, k);
            let score = silhouette(&values, &found);
            prop_assert!((-1.0..=1.0).contains(&score), "{score}");
        }

        #[test]
        fn scale_and_shift_change_nothing(values in proptest::collection::vec(0u16..500, 2..40), k in 2usize..6) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let moved: Vec<f64> = values.iter().map(|x| x * 8.0 + 1024.0).collect();
            let (here, there) = (cluster(&values, k), cluster(&moved, k));
            prop_assert!((cost(&values, &here) * 64.0 - cost(&moved, &there)).abs() < 1e-6);
        }
    }
}
