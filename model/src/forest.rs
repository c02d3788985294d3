//! Isolation forest (Liu, Ting and Zhou, ICDM 2008), laid out for scoring.
//!
//! A [`ForestSpec`] is what a trainer makes and an artifact holds: trees as plain lists of nodes, in the
//! order parent before child. [`Forest::compile`] checks every index and lays each tree out as a padded
//! heap of [`MAX_DEPTH`] levels: the children of place i are 2i+1 and 2i+2, and a leaf above the last level
//! is repeated downwards. A walk is then the same eight steps for every tree and vector, without a branch
//! to mispredict, and [`LANES`] trees are walked side by side so that their loads overlap. Nothing is
//! allocated, and path lengths are added tree by tree in the order of the forest, so that the result is the
//! same bits as the recursive definition gives (`tests/forest.rs` holds that oracle).
//!
//! The score is 2^-m, where m is the mean over trees of path length / c(samples of that tree), in (0, 1):
//! larger is more anomalous, about 0.5 is usual. Dividing by each tree's own c makes forests from workers
//! with different sample sizes mergeable: [`ForestSpec::merge`] concatenates.

use serde::{Deserialize, Serialize};

/// Deepest leaf. Trees are grown to log2 of the sample size, so 256 samples a tree need 8.
pub const MAX_DEPTH: usize = 8;
/// Most trees in one forest.
pub const MAX_TREES: usize = 4096;
/// Trees walked side by side.
pub const LANES: usize = 8;
/// Vectors scored in one pass over the trees.
pub const BLOCK: usize = 64;

const SPLITS: usize = (1 << MAX_DEPTH) - 1;
const LEAVES: usize = 1 << MAX_DEPTH;

/// A trained forest as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForestSpec {
    /// Width of the vectors.
    pub features: u16,
    /// The trees; order matters for the bits of a score.
    pub trees: Vec<TreeSpec>,
}

/// One isolation tree as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TreeSpec {
    /// Rows the tree was grown from, at least 2.
    pub samples: u32,
    /// Nodes; the first is the root and children come after their parent.
    pub nodes: Vec<Node>,
}

/// One node of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Node {
    /// Vectors with `x[feature] < threshold` go left, the others right.
    Split {
        /// Place in the vector.
        feature: u16,
        /// Finite.
        threshold: f32,
        /// Index of a later node.
        left: u16,
        /// Index of a later node.
        right: u16,
    },
    /// Where a walk ends.
    Leaf {
        /// Training rows that ended here, at least 1.
        size: u32,
    },
}

/// Why trees make no forest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForestError {
    /// No trees, or too many.
    #[error("a forest has 1 to {MAX_TREES} trees, this one has {0}")]
    Trees(usize),
    /// No features, or more than any schema makes.
    #[error("a forest has 1 to {max} features, this one has {0}", max = crate::schema::MAX_FEATURES)]
    Features(u16),
    /// Forests over different vectors cannot be merged.
    #[error("forests over {0} and over {1} features do not merge")]
    Mixed(u16, u16),
    /// A tree breaks the rules.
    #[error("tree {tree}, node {node}: {reason}")]
    Tree {
        /// Which tree.
        tree: usize,
        /// Which node.
        node: usize,
        /// Which rule.
        reason: &'static str,
    },
}

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

/// What a leaf adds to the mean: its path length over the tree's expected one.
pub fn leaf_value(depth: usize, size: u32, samples: u32) -> f32 {
    ((depth as f64 + expected_path(size)) / expected_path(samples)) as f32
}

/// Score of a vector whose leaf values add up to `sum` over `trees` trees.
pub fn score_of(sum: f32, trees: usize) -> f32 {
    (-sum / trees as f32).exp2()
}

impl ForestSpec {
    /// One forest with the trees of all, in the order given. Pure, so any worker may do it.
    ///
    /// # Errors
    /// No forests, too many trees, or forests over vectors of different widths.
    pub fn merge(parts: impl IntoIterator<Item = Self>) -> Result<Self, ForestError> {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().ok_or(ForestError::Trees(0))?;
        for part in parts {
            if part.features != whole.features {
                return Err(ForestError::Mixed(whole.features, part.features));
            }
            whole.trees.extend(part.trees);
        }
        if whole.trees.is_empty() || whole.trees.len() > MAX_TREES {
            return Err(ForestError::Trees(whole.trees.len()));
        }
        Ok(whole)
    }
}

#[derive(Clone, Copy)]
struct Split {
    feature: u32,
    threshold: f32,
}

/// A forest ready to score. See the module's head for the layout.
#[derive(Clone)]
pub struct Forest {
    features: usize,
    trees: usize,
    splits: Vec<[Split; SPLITS]>,
    leaves: Vec<[f32; LEAVES]>,
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
        let trees = spec.trees.len();
        if trees == 0 || trees > MAX_TREES {
            return Err(ForestError::Trees(trees));
        }
        if spec.features == 0 || usize::from(spec.features) > crate::schema::MAX_FEATURES {
            return Err(ForestError::Features(spec.features));
        }
        let mut splits = Vec::with_capacity(trees);
        let mut leaves = Vec::with_capacity(trees);
        for (index, tree) in spec.trees.iter().enumerate() {
            check(tree, spec.features).map_err(|(node, reason)| ForestError::Tree {
                tree: index,
                node,
                reason,
            })?;
            let mut layout = (
                [Split {
                    feature: 0,
                    threshold: 0.0,
                }; SPLITS],
                [0.0; LEAVES],
            );
            lay_out(tree, &mut layout.0, &mut layout.1);
            splits.push(layout.0);
            leaves.push(layout.1);
        }
        Ok(Self {
            features: usize::from(spec.features),
            trees,
            splits,
            leaves,
        })
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
        let mut sum = 0.0;
        self.groups(|splits, leaves| add(vector, splits, leaves, &mut sum));
        score_of(sum, self.trees)
    }

    /// Scores of many vectors, `rows` holding them one after the other.
    ///
    /// # Panics
    /// If `rows` does not hold exactly one vector for each place of `scores`.
    pub fn score_batch(&self, rows: &[f32], scores: &mut [f32]) {
        assert_eq!(rows.len(), scores.len() * self.features, "width of the vectors");
        for (rows, scores) in rows.chunks(BLOCK * self.features).zip(scores.chunks_mut(BLOCK)) {
            scores.fill(0.0);
            self.groups(|splits, leaves| {
                for (row, sum) in rows.chunks_exact(self.features).zip(scores.iter_mut()) {
                    add(row, splits, leaves, sum);
                }
            });
            for score in scores {
                *score = score_of(*score, self.trees);
            }
        }
    }

    fn groups(&self, mut each: impl FnMut(&[[Split; SPLITS]], &[[f32; LEAVES]])) {
        for (splits, leaves) in self.splits.chunks(LANES).zip(self.leaves.chunks(LANES)) {
            each(splits, leaves);
        }
    }
}

/// Adds the leaf values of up to [`LANES`] trees to `sum`, in their order.
#[inline]
fn add(row: &[f32], splits: &[[Split; SPLITS]], leaves: &[[f32; LEAVES]], sum: &mut f32) {
    if let (Ok(splits), Ok(leaves)) = (
        <&[[Split; SPLITS]; LANES]>::try_from(splits),
        <&[[f32; LEAVES]; LANES]>::try_from(leaves),
    ) {
        let mut place = [0usize; LANES];
        for _ in 0..MAX_DEPTH {
            for (place, tree) in place.iter_mut().zip(splits) {
                *place = step(row, tree, *place);
            }
        }
        for (place, tree) in place.iter().zip(leaves) {
            *sum += tree[place - SPLITS];
        }
    } else {
        for (splits, leaves) in splits.iter().zip(leaves) {
            let place = (0..MAX_DEPTH).fold(0, |place, _| step(row, splits, place));
            *sum += leaves[place - SPLITS];
        }
    }
}

#[inline]
fn step(row: &[f32], tree: &[Split; SPLITS], place: usize) -> usize {
    let split = tree[place];
    2 * place + 1 + usize::from(row[split.feature as usize] >= split.threshold)
}

fn check(tree: &TreeSpec, features: u16) -> Result<(), (usize, &'static str)> {
    if tree.samples < 2 {
        return Err((0, "a tree is grown from at least two rows"));
    }
    if tree.nodes.is_empty() || tree.nodes.len() > SPLITS + LEAVES {
        return Err((0, "a tree has 1 to 511 nodes"));
    }
    // Parents come before children and every node has one parent, so a single pass sees each node's depth
    // before the node, and can neither loop nor recurse.
    let mut depth = [None; SPLITS + LEAVES];
    depth[0] = Some(0usize);
    for (index, node) in tree.nodes.iter().enumerate() {
        let Some(at) = depth[index] else {
            return Err((index, "the node is no node's child"));
        };
        match *node {
            Node::Leaf { size } => {
                if size == 0 || size > tree.samples {
                    return Err((index, "a leaf holds 1 row to all rows"));
                }
            }
            Node::Split {
                feature,
                threshold,
                left,
                right,
            } => {
                if feature >= features {
                    return Err((index, "the feature is outside the vector"));
                }
                if !threshold.is_finite() {
                    return Err((index, "the threshold is not finite"));
                }
                if at >= MAX_DEPTH {
                    return Err((index, "the tree is deeper than 8"));
                }
                for child in [usize::from(left), usize::from(right)] {
                    if child <= index || child >= tree.nodes.len() {
                        return Err((index, "a child is not a later node of the tree"));
                    }
                    if depth[child].replace(at + 1).is_some() {
                        return Err((index, "a child has two parents"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Places every node of a checked tree, then repeats shallow leaves down to the last level.
fn lay_out(tree: &TreeSpec, splits: &mut [Split; SPLITS], leaves: &mut [f32; LEAVES]) {
    let mut place = [0usize; SPLITS + LEAVES];
    for (index, node) in tree.nodes.iter().enumerate() {
        let at = place[index];
        match *node {
            Node::Split {
                feature,
                threshold,
                left,
                right,
            } => {
                splits[at] = Split {
                    feature: u32::from(feature),
                    threshold,
                };
                place[usize::from(left)] = 2 * at + 1;
                place[usize::from(right)] = 2 * at + 2;
            }
            Node::Leaf { size } => {
                let depth = (at + 1).ilog2() as usize;
                let below = MAX_DEPTH - depth;
                // Whatever the filler splits below say, every way down ends in the same value.
                let first = ((at + 1) << below) - 1 - SPLITS;
                leaves[first..first + (1 << below)].fill(leaf_value(depth, size, tree.samples));
            }
        }
    }
}
