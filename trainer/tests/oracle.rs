//! Our isolation forest beside two others: scikit-learn's, with which it must agree, and aprender's, with which it
//! agrees where that one is right; and how well it tells odd windows from normal ones.

use aprender::cluster::IsolationForest;
use aprender::primitives::Matrix;
use vigia_model::forest::{Forest, Node};
use vigia_model::schema::Schema;
use vigia_trainer::data::{About, Rows};
use vigia_trainer::forest::{Growth, grow};

/// The generator of `sklearn_scores.py`.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }

    /// A window as in `sklearn_scores.py`.
    fn window(&mut self, width: usize) -> Vec<f32> {
        let mut row = vec![0.0; width];
        let load = 0.5 + self.unit();
        for (k, x) in row[..12].iter_mut().enumerate() {
            *x = (load * (1.0 + 40.0 * k as f64) * (0.8 + 0.4 * self.unit()) / 0.1).ln_1p() as f32;
        }
        for x in &mut row[12..18] {
            if self.unit() < 0.05 {
                *x = (1.0 + 3.0 * self.unit()) as f32;
            }
        }
        row
    }
}

fn rows(vectors: &[Vec<f32>]) -> Rows {
    let mut rows = Rows::new(Schema::syscalls_v1());
    for vector in vectors {
        rows.push(vector, About::default()).expect("a row");
    }
    rows
}

fn ours(train: &[Vec<f32>], trees: u32, probes: &[Vec<f32>]) -> Vec<f32> {
    let growth = Growth {
        seed: 1,
        sample_size: 256,
        trees: 0..trees,
    };
    let forest = Forest::compile(&grow(&rows(train), &growth).expect("grows")).expect("compiles");
    probes.iter().map(|probe| forest.score(probe)).collect()
}

fn aprenders(train: &[Vec<f32>], trees: usize) -> IsolationForest {
    let mut forest = IsolationForest::new()
        .with_n_estimators(trees)
        .with_max_samples(256)
        .with_random_state(1);
    forest.fit(&matrix(train)).expect("fits");
    forest
}

fn matrix(vectors: &[Vec<f32>]) -> Matrix<f32> {
    Matrix::from_vec(vectors.len(), vectors[0].len(), vectors.concat()).expect("a matrix")
}

/// Aprender's sign is the other way round.
fn aprender_scores(forest: &IsolationForest, probes: &[Vec<f32>]) -> Vec<f32> {
    forest
        .score_samples(&matrix(probes))
        .into_iter()
        .map(|score| -score)
        .collect()
}

/// Area under the ROC curve, ties counted half.
fn auc(normal: &[f32], odd: &[f32]) -> f64 {
    let wins: f64 = odd
        .iter()
        .flat_map(|o| {
            normal.iter().map(move |n| {
                if o > n {
                    1.0
                } else if o == n {
                    0.5
                } else {
                    0.0
                }
            })
        })
        .sum();
    wins / (normal.len() * odd.len()) as f64
}

/// Rank correlation (Spearman), for scores without ties.
fn rank_correlation(a: &[f32], b: &[f32]) -> f64 {
    let ranks = |values: &[f32]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
        let mut ranks = vec![0.0; values.len()];
        order
            .into_iter()
            .enumerate()
            .for_each(|(rank, i)| ranks[i] = rank as f64);
        ranks
    };
    let n = a.len() as f64;
    let squares: f64 = ranks(a)
        .iter()
        .zip(ranks(b))
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

#[test]
fn scores_are_those_of_scikit_learn() {
    // scikit-learn 1.9.1, by sklearn_scores.py.
    const SCORES: [f32; 10] = [
        0.3838, 0.6358, 0.6067, 0.5123, 0.5168, 0.4436, 0.4947, 0.5345, 0.6069, 0.6257,
    ];
    /// Two of scikit-learn's own forests of 4,000 trees differ by up to .008.
    const TOLERANCE: f32 = 0.01;

    let width = Schema::syscalls_v1().width();
    let mut random = Random(1);
    let train: Vec<Vec<f32>> = (0..1000).map(|_| random.window(width)).collect();
    let mut probes = vec![train[0].clone(), vec![0.0; width]];
    for (k, normal) in train.iter().enumerate().skip(2).take(4) {
        let mut probe = normal.clone();
        probe[0] += 1.5 * k as f32;
        probe[11] -= k as f32;
        probes.push(probe);
    }
    for (k, normal) in train.iter().enumerate().skip(6).take(4) {
        let mut probe = normal.clone();
        probe[12..12 + k - 5].fill(3.0);
        probes.push(probe);
    }
    let scores = ours(&train, 4000, &probes);
    for (i, (ours, theirs)) in scores.iter().zip(SCORES).enumerate() {
        assert!(
            (ours - theirs).abs() < TOLERANCE,
            "probe {i}: {ours} and {theirs}; {scores:?}"
        );
    }
}

#[test]
fn aprender_agrees_where_every_feature_varies() {
    let width = Schema::syscalls_v1().width();
    let mut random = Random(2);
    let mut gauss = || {
        (0..width)
            .map(|_| (0..6).map(|_| random.unit()).sum::<f64>() as f32)
            .collect::<Vec<f32>>()
    };
    let train: Vec<Vec<f32>> = (0..1000).map(|_| gauss()).collect();
    let probes: Vec<Vec<f32>> = (0..200)
        .map(|i| {
            gauss()
                .into_iter()
                .map(|x| 3.0 + (x - 3.0) * (1.0 + i as f32 / 100.0))
                .collect()
        })
        .collect();
    let (mine, theirs) = (
        ours(&train, 1000, &probes),
        aprender_scores(&aprenders(&train, 1000), &probes),
    );
    let apart = mine
        .iter()
        .zip(&theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(apart < 0.05, "{apart}");
    let correlation = rank_correlation(&mine, &theirs);
    assert!(correlation > 0.95, "{correlation}");
}

/// Why trees are not grown by aprender.
#[test]
fn on_windows_most_of_aprenders_trees_are_one_leaf() {
    let width = Schema::syscalls_v1().width();
    let mut random = Random(3);
    let train: Vec<Vec<f32>> = (0..1000).map(|_| random.window(width)).collect();
    let json = serde_json::to_value(aprenders(&train, 200)).expect("serialises");
    let trees = json["trees"].as_array().expect("trees");
    let stumps = trees
        .iter()
        .filter(|tree| tree["root"]["split_feature"].is_null())
        .count();
    assert!(stumps > trees.len() / 2, "{stumps} of {}", trees.len());

    let growth = Growth {
        seed: 1,
        sample_size: 256,
        trees: 0..200,
    };
    let spec = grow(&rows(&train), &growth).expect("grows");
    assert!(
        spec.trees
            .iter()
            .all(|tree| matches!(tree.nodes[0], Node::Split { .. }))
    );
}

#[test]
fn odd_windows_stand_out() {
    let width = Schema::syscalls_v1().width();
    let mut random = Random(4);
    let train: Vec<Vec<f32>> = (0..2000).map(|_| random.window(width)).collect();
    let normal: Vec<Vec<f32>> = (0..500).map(|_| random.window(width)).collect();
    // Usual calls in an unusual mixture: none of them is new, so this is the forest's part of the work.
    let odd: Vec<Vec<f32>> = (0..500)
        .map(|_| {
            let mut row = random.window(width);
            row[..6].reverse();
            row
        })
        .collect();
    let (of_normal, of_odd) = (ours(&train, 200, &normal), ours(&train, 200, &odd));
    let mine = auc(&of_normal, &of_odd);
    let forest = aprenders(&train, 200);
    let theirs = auc(
        &aprender_scores(&forest, &normal),
        &aprender_scores(&forest, &odd),
    );
    assert!(mine > 0.95, "ours {mine:.3}, aprender's {theirs:.3}");
    assert!(mine > theirs, "ours {mine:.3}, aprender's {theirs:.3}");
}
