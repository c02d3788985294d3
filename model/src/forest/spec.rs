//! Forests as data: what a trainer makes, an artifact holds, and the rules both must keep.

use super::MAX_TREES;
use super::packed::PackedForest;
use serde::Deserialize;
use serde::ser::{Error as _, Serialize, Serializer};

/// A trained forest as data. It is stored packed, with the nodes of each tree in preorder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "PackedForest")]
pub struct ForestSpec {
    /// Width of the vectors.
    pub features: u16,
    /// The trees; order matters for the bits of a score.
    pub trees: Vec<TreeSpec>,
}

/// One isolation tree as data.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeSpec {
    /// Rows the tree was grown from, at least 2.
    pub samples: u32,
    /// Nodes; the first is the root.
    pub nodes: Vec<Node>,
}

/// One node of a tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node {
    /// Vectors with `x[feature] < threshold` go left, the others right.
    Split {
        /// Place in the vector.
        feature: u16,
        /// Finite.
        threshold: f32,
        /// Index of the node for smaller values.
        left: u16,
        /// Index of the node for the others.
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

impl Serialize for ForestSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        PackedForest::pack(self)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
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
