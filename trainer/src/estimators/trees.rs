//! Grows classification trees as CART does (Breiman, Friedman, Olshen and Stone, 1984), each on rows drawn with
//! replacement, and each split among a few features (Breiman, Machine Learning 45, 2001).
//!
//! Own code: aprender's forest keeps its training data in its serialised form, and no crate's trees can be read node
//! by node, which scoring them flat needs.

use std::ops::Range;

use vigia_model::estimators::table::Table;
use vigia_model::estimators::trees::{CLASSES, ClassTrees, TreeNode};

use super::EstimatorError;
use crate::forest::Draw;

/// How trees grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Number of trees.
    pub trees: u32,
    /// Most splits between a root and a leaf.
    pub depth: u8,
    /// Fewest rows of a leaf.
    pub leaf: usize,
    /// Seed of what is drawn.
    pub seed: u64,
}

struct Grower<'a> {
    rows: &'a Table,
    classes: &'a [u8],
    growth: Growth,
    draw: Draw,
    nodes: Vec<TreeNode>,
}

type Counts = [usize; CLASSES];

/// A node not yet written: the parent that its number goes to, and whether on the left; its rows; its depth.
type Open = (Option<(usize, bool)>, Range<usize>, u8);

struct Split {
    feature: usize,
    threshold: f32,
}

/// Grows a forest that tells the classes of rows apart.
///
/// # Errors
/// Fewer than two rows, or not one class below [`CLASSES`] for each.
pub fn grow(rows: &Table, classes: &[u8], growth: Growth) -> Result<ClassTrees, EstimatorError> {
    if rows.len() < 2 {
        return Err(EstimatorError::TooFew {
            estimator: "random-forest",
            least: 2,
            unit: "windows",
            got: rows.len(),
        });
    }
    if classes.len() != rows.len() || classes.iter().any(|&c| usize::from(c) >= CLASSES) {
        return Err(EstimatorError::Shape("random-forest"));
    }
    let mut forest = ClassTrees {
        roots: Vec::new(),
        nodes: Vec::new(),
    };
    for tree in 0..growth.trees {
        let mut draw = Draw::new(growth.seed, (1 << 47) + u64::from(tree));
        let mut sample: Vec<u32> = (0..rows.len()).map(|_| draw.below(rows.len()) as u32).collect();
        forest.roots.push(forest.nodes.len() as u32);
        let mut grower = Grower {
            rows,
            classes,
            growth,
            draw,
            nodes: std::mem::take(&mut forest.nodes),
        };
        grower.tree(&mut sample);
        forest.nodes = grower.nodes;
    }
    Ok(forest)
}

impl Grower<'_> {
    fn tree(&mut self, sample: &mut [u32]) {
        let mut open: Vec<Open> = vec![(None, 0..sample.len(), 0)];
        while let Some((parent, range, depth)) = open.pop() {
            let at = self.nodes.len();
            if let Some((parent, is_left)) = parent
                && let TreeNode::Split { left, right, .. } = &mut self.nodes[parent]
            {
                *if is_left { left } else { right } = at as u32;
            }
            let here = &mut sample[range.clone()];
            let counts = self.counts(here);
            let split = (depth < self.growth.depth && counts.iter().filter(|&&n| n > 0).count() > 1)
                .then(|| self.split(here, counts))
                .flatten();
            let Some(Split { feature, threshold }) = split else {
                let whole = here.len() as f32;
                self.nodes.push(TreeNode::Leaf(counts.map(|n| n as f32 / whole)));
                continue;
            };
            let value = |row: u32| self.rows.row(row as usize)[feature];
            here.sort_unstable_by_key(|&row| (value(row) > threshold, row));
            let cut = range.start + here.partition_point(|&row| value(row) <= threshold);
            self.nodes.push(TreeNode::Split {
                feature: feature as u16,
                threshold,
                left: 0,
                right: 0,
            });
            open.push((Some((at, false)), cut..range.end, depth + 1));
            open.push((Some((at, true)), range.start..cut, depth + 1));
        }
    }

    fn counts(&self, here: &[u32]) -> Counts {
        let mut counts = [0; CLASSES];
        here.iter()
            .for_each(|&row| counts[usize::from(self.classes[row as usize])] += 1);
        counts
    }

    /// The split that leaves the least impurity among a few features that vary here.
    fn split(&mut self, here: &[u32], counts: Counts) -> Option<Split> {
        let width = self.rows.width();
        let wanted = (width as f64).sqrt() as usize;
        let mut features: Vec<usize> = (0..width).collect();
        let (mut best, mut seen) = (None, 0);
        let mut purity = 0.0;
        let mut values: Vec<(f32, u8)> = Vec::with_capacity(here.len());
        for last in (0..width).rev() {
            if seen >= wanted.max(1) {
                break;
            }
            features.swap(last, self.draw.below(last + 1));
            let feature = features[last];
            values.clear();
            values.extend(
                here.iter()
                    .map(|&row| (self.rows.row(row as usize)[feature], self.classes[row as usize])),
            );
            values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
            if values[0].0 >= values[values.len() - 1].0 {
                continue;
            }
            seen += 1;
            let (mut left, mut right) = ([0usize; CLASSES], counts);
            for i in 1..values.len() {
                let class = usize::from(values[i - 1].1);
                left[class] += 1;
                right[class] -= 1;
                let (below, above) = (values[i - 1].0, values[i].0);
                let sizes = (i, values.len() - i);
                if below >= above || sizes.0 < self.growth.leaf || sizes.1 < self.growth.leaf {
                    continue;
                }
                let now = squares(&left) / sizes.0 as f64 + squares(&right) / sizes.1 as f64;
                if now > purity {
                    purity = now;
                    // Halves first, so that the sum does not overflow; and never the larger value itself.
                    let middle = below / 2.0 + above / 2.0;
                    let threshold = if middle < above { middle.max(below) } else { below };
                    best = Some(Split { feature, threshold });
                }
            }
        }
        best
    }
}

/// Gini impurity is one minus this over the square of the size.
fn squares(counts: &Counts) -> f64 {
    counts.iter().map(|&n| (n * n) as f64).sum()
}
