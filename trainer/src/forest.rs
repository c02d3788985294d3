//! Growing isolation trees (Liu, Ting and Zhou, ICDM 2008) as data that `vigia-model` scores.
//!
//! Trees are grown here and not by aprender because of one line: aprender draws a node's feature among
//! all of them, and ends the tree where that feature does not vary among the node's rows. Most features
//! of a window are system calls that the container never makes, so most of its trees are a single leaf
//! and tell nothing apart (`tests/oracle.rs` shows it, and shows agreement where every feature varies).
//! Here, as in scikit-learn, a feature is drawn among those that vary in the node.
//!
//! Tree `i` of a forest draws from stream `i` of a ChaCha generator seeded with the forest's seed: it is the
//! same whoever grows it, in whichever order and however often. What depends on the number of workers is
//! only the shard that it is grown on.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use vigia_model::forest::{ForestSpec, MAX_DEPTH, Node, TreeSpec};

use crate::data::Rows;

/// Most rows that one tree is grown from: more would need trees deeper than what scores them.
pub const MAX_SAMPLE: u32 = 1 << MAX_DEPTH;

/// Which trees of which forest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The forest's seed.
    pub seed: u64,
    /// Rows that each tree sees (ψ of the paper), drawn without replacement; at most [`MAX_SAMPLE`]. All
    /// rows, where there are fewer.
    pub sample_size: u32,
    /// Numbers of the trees to grow, within the whole forest.
    pub trees: Range<u32>,
}

/// The trees that worker `rank` of `workers` grows: even shares, in the order of ranks.
pub fn share(trees: u32, rank: u32, workers: u32) -> Range<u32> {
    let cut = |r: u32| (u64::from(trees) * u64::from(r) / u64::from(workers.max(1))) as u32;
    cut(rank)..cut(rank + 1)
}

/// Why no trees can be grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrowthError {
    /// One row cannot be told apart from itself.
    #[error("an isolation tree needs at least 2 windows, there are {0}")]
    TooFew(usize),
    /// See [`MAX_SAMPLE`].
    #[error("sample size {0}: write 2 to {MAX_SAMPLE}")]
    SampleSize(u32),
}

/// Grows trees on rows.
///
/// # Errors
/// Fewer than two rows, or a sample size outside 2 to [`MAX_SAMPLE`].
pub fn grow(rows: &Rows, growth: &Growth) -> Result<ForestSpec, GrowthError> {
    if rows.len() < 2 {
        return Err(GrowthError::TooFew(rows.len()));
    }
    if !(2..=MAX_SAMPLE).contains(&growth.sample_size) {
        return Err(GrowthError::SampleSize(growth.sample_size));
    }
    let trees = growth.trees.clone().map(|tree| {
        let mut draw = Draw::new(growth.seed, u64::from(tree));
        let mut sample = draw.sample(rows.len(), growth.sample_size as usize);
        grow_tree(rows, &mut sample, &mut draw)
    });
    Ok(ForestSpec {
        features: rows.width() as u16,
        trees: trees.collect(),
    })
}

/// Random draws whose results this file defines in full, so that no library's change moves a split.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// Draws from one of a seed's streams; those below 2^32 are the trees'.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// A number below `n`, which is at most a few millions: the bias of 2^-40 is not seen.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in (0, 1].
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// `size` different numbers below `n` (Floyd's algorithm, CACM 30, 1987), or all.
    pub(crate) fn sample(&mut self, n: usize, size: usize) -> Vec<u32> {
        if size >= n {
            return (0..n as u32).collect();
        }
        let mut chosen = std::collections::BTreeSet::new();
        for last in n - size..n {
            let pick = self.below(last + 1) as u32;
            if !chosen.insert(pick) {
                chosen.insert(last as u32);
            }
        }
        chosen.into_iter().collect()
    }
}

/// A node that is not yet written: where its number goes, its rows, its depth.
struct Open {
    parent: Option<(usize, Side)>,
    rows: Range<usize>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

fn grow_tree(rows: &Rows, sample: &mut [u32], draw: &mut Draw) -> TreeSpec {
    let samples = sample.len() as u32;
    let limit = (samples.ilog2() + u32::from(!samples.is_power_of_two())) as usize;
    let mut nodes: Vec<Node> = Vec::with_capacity(2 * sample.len() - 1);
    let mut open = vec![Open {
        parent: None,
        rows: 0..sample.len(),
        depth: 0,
    }];
    while let Some(next) = open.pop() {
        let index = nodes.len();
        if let Some((parent, side)) = next.parent
            && let Node::Split { left, right, .. } = &mut nodes[parent]
        {
            match side {
                Side::Left => *left = index as u16,
                Side::Right => *right = index as u16,
            }
        }
        let here = &mut sample[next.rows.clone()];
        let split = (next.depth < limit && here.len() > 1)
            .then(|| choose(rows, here, draw))
            .flatten();
        let Some((feature, threshold)) = split else {
            nodes.push(Node::Leaf {
                size: here.len() as u32,
            });
            continue;
        };
        here.sort_unstable_by_key(|&row| (rows.row(row as usize)[feature] >= threshold, row));
        let cut = next.rows.start + here.partition_point(|&row| rows.row(row as usize)[feature] < threshold);
        nodes.push(Node::Split {
            feature: feature as u16,
            threshold,
            left: 0,
            right: 0,
        });
        // The left child is popped, and so numbered, first.
        for (side, rows) in [
            (Side::Right, cut..next.rows.end),
            (Side::Left, next.rows.start..cut),
        ] {
            open.push(Open {
                parent: Some((index, side)),
                rows,
                depth: next.depth + 1,
            });
        }
    }
    TreeSpec { samples, nodes }
}

/// A feature among those that vary in these rows, and a threshold that leaves a row on either side.
fn choose(rows: &Rows, here: &[u32], draw: &mut Draw) -> Option<(usize, f32)> {
    let first = rows.row(here[0] as usize);
    let mut range: Vec<(f32, f32)> = first.iter().map(|&x| (x, x)).collect();
    for &row in &here[1..] {
        for ((low, high), &x) in range.iter_mut().zip(rows.row(row as usize)) {
            *low = low.min(x);
            *high = high.max(x);
        }
    }
    let varying: Vec<usize> = (0..range.len()).filter(|&f| range[f].0 < range[f].1).collect();
    if varying.is_empty() {
        return None;
    }
    let feature = varying[draw.below(varying.len())];
    let (low, high) = range[feature];
    let (low64, high64) = (f64::from(low), f64::from(high));
    let threshold = coarse((low64 + draw.unit() * (high64 - low64)) as f32, high64 - low64);
    // Rounding may land on the lowest value or below, and no row is.
    Some((feature, threshold.clamp(low.next_up(), high)))
}

/// The value with 15 bits of its mantissa: a threshold drawn at random means as much, and the bits left out are
/// a fifth of an artifact. Not where values lie so near each other that these bits are what tells them apart.
fn coarse(x: f32, range: f64) -> f32 {
    let short = f32::from_bits(x.to_bits() & !0xff);
    if f64::from(x - short).abs() * 256.0 < range {
        short
    } else {
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::rows;
    use vigia_model::forest::Forest;

    fn growth(trees: Range<u32>) -> Growth {
        Growth {
            seed: 7,
            sample_size: 64,
            trees,
        }
    }

    #[test]
    fn shares_are_even_disjoint_and_whole() {
        for (trees, workers) in [(100, 2), (100, 3), (10, 16), (1, 4)] {
            let all: Vec<u32> = (0..workers)
                .flat_map(|rank| share(trees, rank, workers))
                .collect();
            assert_eq!(all, (0..trees).collect::<Vec<_>>());
            assert!((0..workers).all(|r| share(trees, r, workers).len() as u32 <= trees.div_ceil(workers)));
        }
    }

    #[test]
    fn a_tree_is_the_same_whoever_grows_it() {
        let rows = rows(200, 1);
        let whole = grow(&rows, &growth(0..10)).expect("grows");
        let part = grow(&rows, &growth(4..7)).expect("grows");
        assert_eq!(whole.trees[4..7], part.trees);
        assert_ne!(whole.trees[4], whole.trees[5]);
    }

    #[test]
    fn what_is_grown_compiles_and_every_row_has_a_leaf() {
        for n in [2, 3, 64, 65, 300] {
            let rows = rows(n, 2);
            let spec = grow(&rows, &growth(0..5)).expect("grows");
            Forest::compile(&spec).expect("compiles");
            for tree in &spec.trees {
                let leaves: u32 = tree
                    .nodes
                    .iter()
                    .map(|node| if let Node::Leaf { size } = node { *size } else { 0 })
                    .sum();
                assert_eq!(leaves, tree.samples);
                assert_eq!(tree.samples, 64.min(n as u32));
            }
        }
    }

    #[test]
    fn rows_that_are_all_alike_make_one_leaf() {
        let mut same = Rows::new(vigia_model::schema::Schema::syscalls_v1());
        let row = rows(1, 3).row(0).to_vec();
        for _ in 0..30 {
            same.push(&row, crate::data::About::default()).expect("a row");
        }
        let spec = grow(&same, &growth(0..2)).expect("grows");
        assert!(spec.trees.iter().all(|t| t.nodes == [Node::Leaf { size: 30 }]));
    }

    #[test]
    fn neighbouring_floats_are_split() {
        let schema = vigia_model::schema::Schema::syscalls_v1();
        let mut near = Rows::new(schema);
        let mut row = vec![0.0; schema.width()];
        for x in [1.0f32, 1.0f32.next_up()] {
            row[0] = x;
            near.push(&row, crate::data::About::default()).expect("a row");
        }
        let spec = grow(&near, &growth(0..1)).expect("grows");
        assert_eq!(spec.trees[0].nodes.len(), 3);
    }

    #[test]
    fn values_that_lie_far_from_zero_are_told_apart_as_well() {
        let schema = vigia_model::schema::Schema::syscalls_v1();
        let mut draw = Draw::new(1, 0);
        // Of few bits, so that those far from zero are the same but for that.
        let values: Vec<f32> = (0..200 * 4)
            .map(|_| (draw.unit() * 256.0).round() as f32 / 16384.0)
            .collect();
        let grown = |by: f32| {
            let mut rows = Rows::new(schema);
            let mut row = vec![0.0; schema.width()];
            for values in values.chunks(4) {
                row.iter_mut().zip(values).for_each(|(x, value)| *x = value + by);
                rows.push(&row, crate::data::About::default()).expect("a row");
            }
            let forest = Forest::compile(&grow(&rows, &growth(0..50)).expect("grows")).expect("compiles");
            (0..200).map(|i| forest.score(rows.row(i))).collect::<Vec<f32>>()
        };
        for (near, far) in grown(0.0).into_iter().zip(grown(40.0)) {
            assert!((near - far).abs() < 0.02, "{near} {far}");
        }
    }

    #[test]
    fn too_few_rows_and_impossible_samples_are_refused() {
        assert_eq!(grow(&rows(1, 1), &growth(0..1)), Err(GrowthError::TooFew(1)));
        let wide = Growth {
            sample_size: 257,
            ..growth(0..1)
        };
        assert_eq!(grow(&rows(9, 1), &wide), Err(GrowthError::SampleSize(257)));
    }
}
