//! What the tests share: random trees, the forest's oracle, workloads.

use vigia_model::forest::{ForestSpec, MAX_DEPTH, Node, TreeSpec, leaf_value, score_of};

/// A small generator (SplitMix64), so that one seed gives one forest on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A tree of random shape: each place above the last level splits with probability `split`.
pub fn random_tree(random: &mut Random, features: u16, split: f64) -> TreeSpec {
    fn grow(nodes: &mut Vec<Node>, random: &mut Random, features: u16, split: f64, depth: usize) {
        let at = nodes.len();
        if depth == MAX_DEPTH || random.unit() >= split {
            nodes.push(Node::Leaf {
                size: 1 + random.below(20) as u32,
            });
            return;
        }
        nodes.push(Node::Leaf { size: 1 });
        let left = nodes.len() as u16;
        grow(nodes, random, features, split, depth + 1);
        let right = nodes.len() as u16;
        grow(nodes, random, features, split, depth + 1);
        let feature = random.below(usize::from(features)) as u16;
        nodes[at] = Node::Split {
            feature,
            // As coarse as a trainer's.
            threshold: f32::from_bits((random.normal() as f32).to_bits() & !0xff),
            left,
            right,
        };
    }
    let mut nodes = Vec::new();
    grow(&mut nodes, random, features, split, 0);
    TreeSpec { samples: 256, nodes }
}

pub fn random_forest(seed: u64, features: u16, trees: usize, split: f64) -> ForestSpec {
    let mut random = Random(seed);
    ForestSpec {
        features,
        trees: (0..trees)
            .map(|_| random_tree(&mut random, features, split))
            .collect(),
    }
}

/// The score as the paper defines it: walk each tree by recursion, add up in order.
pub fn oracle(spec: &ForestSpec, vector: &[f32]) -> f32 {
    fn walk(tree: &TreeSpec, vector: &[f32], at: usize, depth: usize) -> f32 {
        match tree.nodes[at] {
            Node::Leaf { size } => leaf_value(depth, size, tree.samples),
            Node::Split {
                feature,
                threshold,
                left,
                right,
            } => {
                let next = if vector[usize::from(feature)] < threshold {
                    left
                } else {
                    right
                };
                walk(tree, vector, usize::from(next), depth + 1)
            }
        }
    }
    let mut sum = 0.0;
    for tree in &spec.trees {
        sum += walk(tree, vector, 0, 0);
    }
    score_of(sum, spec.trees.len())
}
