//! Isolation forest (Liu, Ting and Zhou, ICDM 2008), laid out for scoring.
//!
//! A [`ForestSpec`] is what a trainer makes: trees as plain lists of nodes. [`PackedForest`] is the same in
//! few bytes, which an artifact holds. [`Forest::compile`] checks every index and lays each tree out as a padded
//! heap of [`MAX_DEPTH`] levels: the root has place 1, the children of place i are 2i and 2i+1, and a leaf above
//! the last level is repeated downwards. Places and features index arrays of a power of two under a mask, which
//! is always within bounds and costs less than a check. A walk is then the same eight steps for every tree and vector, without a branch
//! to mispredict, and [`LANES`] trees are walked side by side so that their loads overlap. A step is two loads, because
//! loads are what there is least room for: a split is one word, with its feature in the lower half and in the upper
//! one its threshold as an integer of the same order ([`rank`]), and values of a vector are words of the same kind.
//! Nothing is allocated, and path lengths are added tree by tree in the order of the forest, so that the result is the
//! same bits as the recursive definition gives (`tests/it/forest.rs` holds it against that oracle).
//!
//! The score is 2^-m, where m is the mean over trees of path length / c(samples of that tree), in (0, 1):
//! larger is more anomalous, about 0.5 is usual. Dividing by each tree's own c makes forests from workers
//! with different sample sizes mergeable: [`ForestSpec::merge`] concatenates.

use crate::schema::MAX_FEATURES;
use std::sync::OnceLock;

mod packed;
mod spec;

pub use packed::PackedForest;
pub use spec::{ForestError, ForestSpec, Node, TreeSpec};

/// Deepest leaf. Trees are grown to log2 of the sample size, so 256 samples a tree need 8.
pub const MAX_DEPTH: usize = 8;
/// Most trees in one forest.
pub const MAX_TREES: usize = 4096;
/// Trees walked side by side: as many as there are registers for their places.
pub const LANES: usize = 10;
/// Vectors scored in one pass over the trees: as many as stay in the cache with [`LANES`] trees.
pub const BLOCK: usize = 32;

const LEAVES: usize = 1 << MAX_DEPTH;
/// Places of splits, of which the first is not used.
const SPLITS: usize = LEAVES;
/// Most nodes of a tree.
const NODES: usize = 2 * LEAVES - 1;

/// Expected path length of an unsuccessful search in a binary search tree of `n` rows: the c(n) of the
/// paper, with the harmonic number by Euler's approximation as scikit-learn has it.
pub fn expected_path(n: u32) -> f64 {
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        n => {
            let n = f64::from(n);
            const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
            2.0 * ((n - 1.0).ln() + EULER_GAMMA) - 2.0 * (n - 1.0) / n
        }
    }
}

/// [`expected_path`] of the sizes that leaves have, since two logarithms a leaf are most of a forest's loading.
fn expected_path_of_leaf(size: u32) -> f64 {
    static TABLE: OnceLock<[f64; LEAVES + 1]> = OnceLock::new();
    let table = TABLE.get_or_init(|| std::array::from_fn(|n| expected_path(n as u32)));
    table
        .get(size as usize)
        .copied()
        .unwrap_or_else(|| expected_path(size))
}

/// What a leaf adds to the mean: its path length over the tree's expected one.
pub fn leaf_value(depth: usize, size: u32, samples: u32) -> f32 {
    leaf_times(depth, size, expected_path(samples).recip())
}

fn leaf_times(depth: usize, size: u32, factor: f64) -> f32 {
    ((depth as f64 + expected_path_of_leaf(size)) * factor) as f32
}

/// Score of a vector whose leaf values add up to `sum` over `trees` trees.
pub fn score_of(sum: f32, trees: usize) -> f32 {
    (-sum / trees as f32).exp2()
}

/// A number of the order of `x` among all numbers: those below have lower ones, and -0 has that of 0. What is no number
/// is not below anything, so it comes last.
#[inline]
fn rank(x: f32) -> u32 {
    if x.is_nan() {
        return u32::MAX;
    }
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The threshold's rank above the feature.
type Split = u64;

fn split(feature: u8, threshold: f32) -> Split {
    u64::from(rank(threshold)) << 32 | u64::from(feature)
}

/// A value's rank above all ones: not below a split of the same rank, whatever its feature.
#[inline]
fn value(x: f32) -> u64 {
    u64::from(rank(x)) << 32 | u64::from(u32::MAX)
}

/// A forest ready to score. See the module's head for the layout.
#[derive(Clone)]
pub struct Forest {
    features: usize,
    trees: usize,
    splits: Vec<[Split; SPLITS]>,
    leaves: Vec<[f32; LEAVES]>,
}

impl TryFrom<&ForestSpec> for Forest {
    type Error = ForestError;

    fn try_from(spec: &ForestSpec) -> Result<Self, ForestError> {
        Self::compile(spec)
    }
}

impl<B: AsRef<[u8]>> TryFrom<&PackedForest<B>> for Forest {
    type Error = ForestError;

    fn try_from(packed: &PackedForest<B>) -> Result<Self, ForestError> {
        packed.compile()
    }
}

impl std::fmt::Debug for Forest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forest")
            .field("features", &self.features)
            .field("trees", &self.trees)
            .finish()
    }
}

impl Forest {
    /// Checks a forest and lays it out.
    ///
    /// # Errors
    /// Anything that would let a walk leave the vector or the tree, go round in circles, or end in a value
    /// that is not finite.
    pub fn compile(spec: &ForestSpec) -> Result<Self, ForestError> {
        PackedForest::pack(spec)?.compile()
    }

    /// Width of the vectors.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.trees
    }

    /// Score of one vector.
    ///
    /// # Panics
    /// If the vector has another width than the forest; the pipeline checks widths once, on loading.
    pub fn score(&self, vector: &[f32]) -> f32 {
        assert_eq!(vector.len(), self.features, "width of the vector");
        let (mut row, mut sum) = ([0; MAX_FEATURES], [0.0]);
        fill(&mut row, vector);
        self.add(std::slice::from_ref(&row), &mut sum);
        score_of(sum[0], self.trees)
    }

    /// Scores of many vectors, `rows` holding them one after the other.
    ///
    /// # Panics
    /// If `rows` does not hold exactly one vector for each place of `scores`.
    pub fn score_batch(&self, rows: &[f32], scores: &mut [f32]) {
        assert_eq!(rows.len(), scores.len() * self.features, "width of the vectors");
        let mut block = [[0; MAX_FEATURES]; BLOCK];
        for (rows, scores) in rows.chunks(BLOCK * self.features).zip(scores.chunks_mut(BLOCK)) {
            for (row, vector) in block.iter_mut().zip(rows.chunks_exact(self.features)) {
                fill(row, vector);
            }
            scores.fill(0.0);
            self.add(&block, scores);
            for score in scores {
                *score = score_of(*score, self.trees);
            }
        }
    }

    /// Adds the leaf values of all trees, in their order, to each row's sum.
    fn add(&self, rows: &[Row], sums: &mut [f32]) {
        let rest = self.add_by::<LANES>(0, rows, sums);
        let rest = self.add_by::<4>(rest, rows, sums);
        self.add_by::<1>(rest, rows, sums);
    }

    /// The same of as many trees from `from` on as make whole groups of `N`; where those end.
    fn add_by<const N: usize>(&self, from: usize, rows: &[Row], sums: &mut [f32]) -> usize {
        let splits = self.splits[from..].as_chunks::<N>().0;
        let leaves = self.leaves[from..].as_chunks::<N>().0;
        for (splits, leaves) in splits.iter().zip(leaves) {
            for (row, sum) in rows.iter().zip(sums.iter_mut()) {
                let mut places = [1; N];
                for _ in 0..MAX_DEPTH {
                    for (place, tree) in places.iter_mut().zip(splits) {
                        *place = step(row, tree, *place);
                    }
                }
                for (place, tree) in places.iter().zip(leaves) {
                    *sum += tree[place % LEAVES];
                }
            }
        }
        from + N * splits.len()
    }
}

/// A vector as ranks, padded.
type Row = [u64; MAX_FEATURES];

const _: () = assert!(
    MAX_FEATURES.is_power_of_two(),
    "a mask must be enough to stay within a row"
);

fn fill(row: &mut Row, vector: &[f32]) {
    for (place, &x) in row.iter_mut().zip(vector) {
        *place = value(x);
    }
}

/// To the right unless the value is below the threshold; as a subtraction, which takes the comparison's carry.
#[inline]
fn step(row: &Row, tree: &[Split; SPLITS], place: usize) -> usize {
    let split = tree[place % SPLITS];
    2 * place + 1 - usize::from(row[split as usize % MAX_FEATURES] < split)
}
