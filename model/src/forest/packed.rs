//! A forest as few bytes that decode fast: columns instead of nodes.
//!
//! Preorder makes links superfluous: the left child of node i is i + 1, and the right child follows the left
//! one's last descendant. What is left is a feature a node (one byte, [`LEAF`] for leaves), a threshold a
//! split and a size a leaf (LEB128, one byte for most). A tree of 511 nodes takes 1.8 KB, a sixth of what its
//! nodes take one by one, and columns of a kind compress better: the bytes of thresholds are kept in four
//! planes, since sign and exponent repeat and the mantissa is noise that is best left alone. A node that loads an artifact lays the trees
//! out from here, without making nodes first.

use super::{
    Forest, ForestError, ForestSpec, LEAVES, MAX_DEPTH, MAX_TREES, NODES, Node, SPLITS, Split, TreeSpec,
    expected_path, leaf_times, split,
};
use crate::bounded;
use crate::schema::MAX_FEATURES;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Marks a leaf in the column of features.
const LEAF: u8 = u8::MAX;

/// A forest in the form that artifacts hold. Its columns are `B`: bytes of its own, or of the payload that it is read
/// from, where it is only laid out and a copy would cost as much as that.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PackedForest<B = ByteBuf> {
    features: u16,
    /// Rows each tree was grown from.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TREES>")]
    samples: Vec<u32>,
    /// Nodes of each tree.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TREES>")]
    nodes: Vec<u16>,
    /// By node: the feature it splits on, or [`LEAF`].
    feature: B,
    /// By split: the bytes of a f32, the lowest first, each in a plane of its own.
    threshold: [B; 4],
    /// By leaf: LEB128.
    size: B,
}

impl PackedForest {
    /// Packs a forest, its nodes in preorder.
    ///
    /// # Errors
    /// A tree whose links do not make it one tree, or more features than a byte counts.
    pub fn pack(spec: &ForestSpec) -> Result<Self, ForestError> {
        let mut packed = Self {
            features: spec.features,
            ..Self::default()
        };
        for (index, tree) in spec.trees.iter().enumerate() {
            packed.push(tree).map_err(|(node, reason)| ForestError::Tree {
                tree: index,
                node,
                reason,
            })?;
        }
        Ok(packed)
    }

    fn push(&mut self, tree: &TreeSpec) -> Result<(), (usize, &'static str)> {
        let count = tree.nodes.len();
        if count == 0 || count > NODES {
            return Err((0, "a tree has 1 to 511 nodes"));
        }
        self.samples.push(tree.samples);
        self.nodes.push(count as u16);
        let mut seen = [false; NODES];
        // Each node is pushed at most once, by its only parent.
        let mut open = vec![0];
        seen[0] = true;
        while let Some(index) = open.pop() {
            match tree.nodes[index] {
                Node::Leaf { size } => {
                    self.feature.push(LEAF);
                    push_leb128(&mut self.size, size);
                }
                Node::Split {
                    feature,
                    threshold,
                    left,
                    right,
                } => {
                    let byte = u8::try_from(feature).ok().filter(|&f| f != LEAF);
                    self.feature.push(byte.ok_or((index, OUTSIDE))?);
                    for (plane, byte) in self.threshold.iter_mut().zip(threshold.to_le_bytes()) {
                        plane.push(byte);
                    }
                    for child in [usize::from(right), usize::from(left)] {
                        if child >= count {
                            return Err((index, "a link leads out of the tree"));
                        }
                        if std::mem::replace(&mut seen[child], true) {
                            return Err((index, "a child has two parents"));
                        }
                        open.push(child);
                    }
                }
            }
        }
        match seen[..count].iter().position(|seen| !seen) {
            Some(orphan) => Err((orphan, "the node is no node's child")),
            None => Ok(()),
        }
    }
}

impl<B: AsRef<[u8]>> PackedForest<B> {
    /// Checks every tree and lays it out for scoring.
    pub(super) fn compile(&self) -> Result<Forest, ForestError> {
        let trees = self.samples.len();
        if trees == 0 || trees > MAX_TREES {
            return Err(ForestError::Trees(trees));
        }
        if self.features == 0 || usize::from(self.features) > MAX_FEATURES {
            return Err(ForestError::Features(self.features));
        }
        let mut splits = vec![[Split::default(); SPLITS]; trees];
        let mut leaves = vec![[0.0; LEAVES]; trees];
        let mut values = LeafValues::of(0);
        self.trees(|tree, samples, columns| {
            if samples < 2 {
                return Err((0, "a tree is grown from at least two rows"));
            }
            if samples != values.samples {
                values = LeafValues::of(samples);
            }
            lay_out(
                columns,
                &values,
                self.features,
                &mut splits[tree],
                &mut leaves[tree],
            )
        })?;
        Ok(Forest {
            features: usize::from(self.features),
            trees,
            splits,
            leaves,
        })
    }

    /// Calls `each` with every tree's number, rows and columns; afterwards the columns must be used up.
    fn trees(
        &self,
        mut each: impl FnMut(usize, u32, &mut Columns<'_>) -> Result<(), (usize, &'static str)>,
    ) -> Result<(), ForestError> {
        let mut rest = Columns {
            feature: self.feature.as_ref(),
            threshold: self.threshold.each_ref().map(AsRef::as_ref),
            size: self.size.as_ref(),
        };
        if self.samples.len() != self.nodes.len() || self.samples.len() > MAX_TREES {
            return Err(ForestError::Trees(self.nodes.len()));
        }
        for (tree, (&samples, &count)) in self.samples.iter().zip(&self.nodes).enumerate() {
            let error = |(node, reason)| ForestError::Tree { tree, node, reason };
            let mut columns = rest.take(count.into()).map_err(|reason| error((0, reason)))?;
            each(tree, samples, &mut columns).map_err(error)?;
            rest.size = columns.size;
        }
        if rest.feature.is_empty()
            && rest.threshold.iter().all(|plane| plane.is_empty())
            && rest.size.is_empty()
        {
            Ok(())
        } else {
            Err(ForestError::Tree {
                tree: self.nodes.len(),
                node: 0,
                reason: "a column goes on after the last tree",
            })
        }
    }
}

const OUTSIDE: &str = "the feature is outside the vector";

impl TryFrom<PackedForest> for ForestSpec {
    type Error = ForestError;

    fn try_from(packed: PackedForest) -> Result<Self, ForestError> {
        let mut trees = Vec::new();
        packed.trees(|_, samples, columns| {
            trees.push(TreeSpec {
                samples,
                nodes: nodes(columns)?,
            });
            Ok(())
        })?;
        Ok(Self {
            features: packed.features,
            trees,
        })
    }
}

/// The columns of one tree, or of all that are left; sizes alone do not tell beforehand where a tree ends.
struct Columns<'a> {
    feature: &'a [u8],
    threshold: [&'a [u8]; 4],
    size: &'a [u8],
}

impl<'a> Columns<'a> {
    /// Cuts off the columns of a tree of `count` nodes, of which every other one is a leaf.
    fn take(&mut self, count: usize) -> Result<Self, &'static str> {
        if count > NODES || count.is_multiple_of(2) {
            return Err("a tree has 1 to 511 nodes, and an odd number");
        }
        let mut tree = Columns {
            feature: &[],
            threshold: [&[]; 4],
            size: self.size,
        };
        (tree.feature, self.feature) = self
            .feature
            .split_at_checked(count)
            .ok_or("the column of features ends early")?;
        for (mine, plane) in tree.threshold.iter_mut().zip(&mut self.threshold) {
            (*mine, *plane) = plane
                .split_at_checked(count / 2)
                .ok_or("the column of thresholds ends early")?;
        }
        Ok(tree)
    }

    /// Thresholds of the tree's splits, in order, and how many there are.
    fn thresholds(&self) -> ([f32; SPLITS], usize) {
        let count = self.threshold[0].len().min(SPLITS);
        let [a, b, c, d] = self.threshold.map(|plane| &plane[..count]);
        let mut thresholds = [0.0; SPLITS];
        for (i, threshold) in thresholds[..count].iter_mut().enumerate() {
            *threshold = f32::from_le_bytes([a[i], b[i], c[i], d[i]]);
        }
        (thresholds, count)
    }

    #[inline]
    fn next_size(&mut self) -> Result<u32, &'static str> {
        // Nearly all sizes are of one byte.
        if let Some((&byte, rest)) = self.size.split_first()
            && byte < 0x80
        {
            self.size = rest;
            return Ok(byte.into());
        }
        self.long_size()
    }

    fn long_size(&mut self) -> Result<u32, &'static str> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.size.split_first().ok_or("the column of sizes ends early")?;
            self.size = rest;
            let part = u32::from(byte & 0x7f);
            value |= part
                .checked_shl(shift)
                .filter(|v| v >> shift == part)
                .ok_or("a size is too large")?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a size is too large")
    }
}

const UNFINISHED: &str = "a tree ends before its last leaf";
const ORPHAN: &str = "the node is no node's child";

/// The nodes of one tree, links and all.
fn nodes(columns: &mut Columns<'_>) -> Result<Vec<Node>, (usize, &'static str)> {
    let count = columns.feature.len();
    let mut nodes = Vec::with_capacity(count);
    // Splits whose right child has not come yet; a leaf's next node is the innermost one's.
    let mut open: Vec<usize> = Vec::new();
    let (thresholds, known) = columns.thresholds();
    let mut thresholds = thresholds[..known].iter();
    for (index, &feature) in columns.feature.iter().enumerate() {
        if feature == LEAF {
            let size = columns.next_size().map_err(|reason| (index, reason))?;
            nodes.push(Node::Leaf { size });
            match open.pop() {
                None if index + 1 == count => return Ok(nodes),
                None => return Err((index + 1, ORPHAN)),
                Some(parent) => {
                    if let Node::Split { right, .. } = &mut nodes[parent] {
                        *right = index as u16 + 1;
                    }
                }
            }
        } else {
            let threshold = *thresholds.next().ok_or((index, UNFINISHED))?;
            nodes.push(Node::Split {
                feature: feature.into(),
                threshold,
                left: index as u16 + 1,
                right: 0,
            });
            open.push(index);
        }
    }
    Err((count, UNFINISHED))
}

/// What the leaves of a tree grown from so many rows are worth. Most leaves are on the last level, and most trees of a
/// forest are grown from as many rows.
struct LeafValues {
    samples: u32,
    factor: f64,
    /// By size, on the last level.
    last: [f32; LEAVES + 1],
}

impl LeafValues {
    fn of(samples: u32) -> Self {
        let factor = expected_path(samples).recip();
        Self {
            samples,
            factor,
            last: std::array::from_fn(|size| leaf_times(MAX_DEPTH, size as u32, factor)),
        }
    }

    #[inline]
    fn on_last_level(&self, size: u32) -> f32 {
        let known = self.last.get(size as usize).copied();
        known.unwrap_or_else(|| leaf_times(MAX_DEPTH, size, self.factor))
    }
}

/// Reads one tree into its heap, checking all that a walk relies on, and repeats shallow leaves down to the
/// last level.
fn lay_out(
    columns: &mut Columns<'_>,
    values: &LeafValues,
    features: u16,
    splits: &mut [Split; SPLITS],
    leaves: &mut [f32; LEAVES],
) -> Result<(), (usize, &'static str)> {
    let count = columns.feature.len();
    let mut place = 1usize;
    let (thresholds, known) = columns.thresholds();
    let mut thresholds = thresholds[..known].iter();
    for (index, &feature) in columns.feature.iter().enumerate() {
        if feature == LEAF {
            let size = columns.next_size().map_err(|reason| (index, reason))?;
            if size == 0 || size > values.samples {
                return Err((index, "a leaf holds 1 row to all rows"));
            }
            if place >= LEAVES {
                leaves[place % LEAVES] = values.on_last_level(size);
            } else {
                // Whatever the filler splits below say, every way down ends in the same value.
                let level = place.ilog2() as usize;
                let below = MAX_DEPTH - level;
                let first = (place << below) - LEAVES;
                leaves[first..first + (1 << below)].fill(leaf_times(level, size, values.factor));
            }
            // Up for as long as this was a right child, then over to the sibling: an odd place is a right child's, and
            // above the last leaf there is nothing but ones.
            place >>= place.trailing_ones();
            if place == 0 {
                let end = index + 1;
                return if end == count { Ok(()) } else { Err((end, ORPHAN)) };
            }
            place |= 1;
        } else {
            let threshold = *thresholds.next().ok_or((index, UNFINISHED))?;
            if u16::from(feature) >= features {
                return Err((index, OUTSIDE));
            }
            if !threshold.is_finite() {
                return Err((index, "the threshold is not finite"));
            }
            let Some(cell) = splits.get_mut(place) else {
                return Err((index, "the tree is deeper than 8"));
            };
            *cell = split(feature, threshold);
            place *= 2;
        }
    }
    Err((count, UNFINISHED))
}

fn push_leb128(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAVES_OF: [u32; 5] = [1, 127, 128, 300, u32::MAX];

    #[test]
    fn sizes_of_any_length_come_back() {
        let mut bytes = Vec::new();
        LEAVES_OF
            .into_iter()
            .for_each(|size| push_leb128(&mut bytes, size));
        let mut columns = Columns {
            feature: &[],
            threshold: [&[]; 4],
            size: &bytes,
        };
        for size in LEAVES_OF {
            assert_eq!(columns.next_size(), Ok(size));
        }
        assert!(columns.next_size().is_err());
        assert!(
            Columns {
                feature: &[],
                threshold: [&[]; 4],
                size: &[0xff, 0xff, 0xff, 0xff, 0x1f]
            }
            .next_size()
            .is_err()
        );
        assert!(
            Columns {
                feature: &[],
                threshold: [&[]; 4],
                size: &[0x80; 8]
            }
            .next_size()
            .is_err()
        );
    }

    #[test]
    fn nodes_in_any_order_come_back_in_preorder() {
        let split = |left, right| Node::Split {
            feature: 1,
            threshold: 0.5,
            left,
            right,
        };
        let leaf = |size| Node::Leaf { size };
        let tree = |nodes| ForestSpec {
            features: 2,
            trees: vec![TreeSpec { samples: 9, nodes }],
        };
        let breadth_first = tree(vec![split(1, 2), split(3, 4), leaf(3), leaf(1), leaf(2)]);
        let preorder = tree(vec![split(1, 4), split(2, 3), leaf(1), leaf(2), leaf(3)]);
        let back = PackedForest::pack(&breadth_first).and_then(ForestSpec::try_from);
        assert_eq!(back, Ok(preorder));
    }

    #[test]
    fn links_in_circles_are_not_packed() {
        let tree = |nodes| ForestSpec {
            features: 1,
            trees: vec![TreeSpec { samples: 9, nodes }],
        };
        let circle = Node::Split {
            feature: 0,
            threshold: 0.0,
            left: 0,
            right: 0,
        };
        assert!(PackedForest::pack(&tree(vec![circle])).is_err());
        assert!(PackedForest::pack(&tree(vec![Node::Leaf { size: 1 }, Node::Leaf { size: 1 }])).is_err());
        assert!(PackedForest::pack(&tree(vec![])).is_err());
    }

    #[test]
    fn columns_that_do_not_match_are_refused() {
        let leaf = Node::Leaf { size: 1 };
        let nodes = vec![
            Node::Split {
                feature: 0,
                threshold: 0.0,
                left: 1,
                right: 2,
            },
            leaf,
            leaf,
        ];
        let spec = ForestSpec {
            features: 1,
            trees: vec![TreeSpec { samples: 2, nodes }],
        };
        let broken = |change: fn(&mut PackedForest)| {
            let mut packed = PackedForest::pack(&spec).expect("packs");
            change(&mut packed);
            let lay_out = packed.compile().expect_err("does not lay out").to_string();
            let unpack = ForestSpec::try_from(packed)
                .expect_err("does not unpack")
                .to_string();
            assert_eq!(lay_out, unpack);
            unpack
        };
        assert!(broken(|p| p.samples.push(1)).contains("1 to 4096 trees"));
        assert!(broken(|p| p.nodes[0] = 1).contains("ends before"));
        assert!(broken(|p| p.nodes[0] = 5).contains("features ends early"));
        assert!(broken(|p| p.nodes[0] = 2).contains("odd"));
        assert!(broken(|p| p.nodes[0] = 601).contains("1 to 511 nodes"));
        assert!(broken(|p| p.feature[0] = LEAF).contains("no node's child"));
        assert!(broken(|p| p.feature[2] = 0).contains("ends before"));
        assert!(broken(|p| p.threshold[1].clear()).contains("thresholds ends early"));
        assert!(broken(|p| p.size.truncate(1)).contains("sizes ends early"));
        assert!(broken(|p| p.size.push(1)).contains("goes on"));
        assert!(broken(|p| p.feature.push(1)).contains("goes on"));
        assert!(broken(|p| p.threshold[3].push(1)).contains("goes on"));
    }
}
