//! A random forest (Breiman, Machine Learning 45, 2001) that tells normal windows from suspicious and malicious
//! ones.

use super::vector::Scorer;
use super::{Refused, rule};
use crate::bounded;
use crate::pipeline::EstimatorKind;
use serde::{Deserialize, Serialize};

/// Number of classes.
pub const CLASSES: usize = 3;
/// What they are called: of usual rates in a mixture that is not, and with calls that are not.
pub const NAMES: [&str; CLASSES] = ["normal", "suspicious", "malicious"];
/// Most trees.
pub const MAX_TREES: usize = 512;
/// Most nodes of all trees.
pub const MAX_NODES: usize = 1 << 18;
/// Most splits between a root and a leaf.
pub const MAX_DEPTH: u8 = 64;

/// A place in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum TreeNode {
    /// Vectors with `x[feature] <= threshold` go left.
    Split {
        /// Place in the vector.
        feature: u16,
        /// Finite.
        threshold: f32,
        /// Node for smaller values, further down the list.
        left: u32,
        /// Node for the others, further down the list.
        right: u32,
    },
    /// Share of each class among the training rows that ended here.
    Leaf([f32; CLASSES]),
}

/// Trees whose leaves hold shares of classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassTrees {
    /// Where each tree begins in `nodes`.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TREES>")]
    pub roots: Vec<u32>,
    /// The nodes of all trees; children stand behind their parents.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_NODES>")]
    pub nodes: Vec<TreeNode>,
}

impl ClassTrees {
    /// Probability of each class: the mean over trees of the shares in a vector's leaves.
    pub fn classes(&self, x: &[f32]) -> [f32; CLASSES] {
        let mut sums = [0.0; CLASSES];
        for &root in &self.roots {
            let mut at = root as usize;
            while let TreeNode::Split {
                feature,
                threshold,
                left,
                right,
            } = self.nodes[at]
            {
                at = if x[usize::from(feature)] <= threshold {
                    left
                } else {
                    right
                } as usize;
            }
            if let TreeNode::Leaf(shares) = self.nodes[at] {
                sums.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
            }
        }
        sums.map(|sum| sum / self.roots.len() as f32)
    }
}

impl Scorer for ClassTrees {
    fn kind(&self) -> EstimatorKind {
        EstimatorKind::RandomForest
    }

    fn least_scale(&self) -> f32 {
        0.01
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        let refuse = |holds, why| rule(holds, self.name(), why);
        let count = self.nodes.len();
        refuse(
            (1..=MAX_TREES).contains(&self.roots.len()) && (1..=MAX_NODES).contains(&count),
            "there are 1 to 512 trees of 262144 nodes in all",
        )?;
        let roots = self.roots.iter().all(|&root| (root as usize) < count);
        refuse(roots, "a root lies outside the list of nodes")?;
        // Children lie behind their parents, so one pass knows how deep each node is at most.
        let mut depth = vec![0u8; count];
        for (at, node) in self.nodes.iter().enumerate() {
            match *node {
                TreeNode::Split {
                    feature,
                    threshold,
                    left,
                    right,
                } => {
                    refuse(
                        usize::from(feature) < width && threshold.is_finite(),
                        "a split is outside the vector or not finite",
                    )?;
                    for child in [left as usize, right as usize] {
                        refuse(
                            child > at && child < count,
                            "a child does not lie behind its parent",
                        )?;
                        depth[child] = depth[child].max(depth[at] + 1);
                    }
                    refuse(depth[at] < MAX_DEPTH, "a leaf lies deeper than 64 splits")?;
                }
                TreeNode::Leaf(shares) => {
                    let inside = shares.iter().all(|s| (0.0..=1.0).contains(s));
                    let whole = (shares.iter().sum::<f32>() - 1.0).abs() < 1e-3;
                    refuse(inside && whole, "the shares of a leaf do not add up to one")?;
                }
            }
        }
        Ok(())
    }

    /// Probability that the window is not normal.
    fn score(&self, x: &[f32]) -> f32 {
        1.0 - self.classes(x)[0]
    }
}
