//! The flat forest against the recursive definition, and every way a forest can be malformed.

use crate::support::{Random, oracle, random_forest, random_tree};
use proptest::prelude::*;
use vigia_model::forest::{Forest, ForestError, ForestSpec, MAX_TREES, Node, TreeSpec, expected_path};

fn vectors(seed: u64, rows: usize, width: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..rows * width).map(|_| random.normal() as f32).collect()
}

proptest! {
    #[test]
    fn batched_single_and_recursive_scores_are_the_same_bits(
        seed: u64, features in 1u16..40, trees in 1usize..40, split in 0.0f64..1.0, rows in 1usize..200,
    ) {
        let spec = random_forest(seed, features, trees, split);
        let forest = Forest::compile(&spec).expect("a well-formed forest");
        let rows_of = vectors(seed ^ 1, rows, usize::from(features));
        let mut batch = vec![0.0; rows];
        forest.score_batch(&rows_of, &mut batch);
        for (row, &score) in rows_of.chunks(usize::from(features)).zip(&batch) {
            prop_assert_eq!(score.to_bits(), oracle(&spec, row).to_bits());
            prop_assert_eq!(score.to_bits(), forest.score(row).to_bits());
        }
    }

    #[test]
    fn scores_lie_between_zero_and_one(seed: u64, trees in 1usize..20, value in proptest::num::f32::ANY) {
        // Even of vectors that the pipeline refuses: a walk never leaves the tree.
        let spec = random_forest(seed, 3, trees, 0.8);
        let score = Forest::compile(&spec).expect("well-formed").score(&[value, -value, value * 2.0]);
        prop_assert!((0.0..=1.0).contains(&score));
    }

    #[test]
    fn values_of_any_kind_go_the_recursive_definitions_way(
        seed: u64, trees in 1usize..30, mut row in prop::collection::vec(odd(), 3), thresholds in prop::collection::vec(odd(), 3),
    ) {
        let mut spec = random_forest(seed, 3, trees, 0.8);
        let mut finite = thresholds.into_iter().filter(|x| x.is_finite()).cycle();
        for node in spec.trees.iter_mut().flat_map(|tree| &mut tree.nodes).step_by(3) {
            if let (Node::Split { threshold, .. }, Some(other)) = (node, finite.next()) {
                *threshold = other;
            }
        }
        let forest = Forest::compile(&spec).expect("well-formed");
        for _ in 0..3 {
            prop_assert_eq!(forest.score(&row).to_bits(), oracle(&spec, &row).to_bits(), "{:?}", row);
            row.rotate_left(1);
        }
    }

    #[test]
    fn a_value_on_the_threshold_goes_right(threshold in -10f32..10.0) {
        let spec = ForestSpec { features: 1, trees: vec![TreeSpec { samples: 10, nodes: vec![
            Node::Split { feature: 0, threshold, left: 1, right: 2 },
            Node::Leaf { size: 9 },
            Node::Leaf { size: 1 },
        ] }] };
        let forest = Forest::compile(&spec).expect("well-formed");
        prop_assert!(forest.score(&[threshold]) > forest.score(&[threshold.next_down()]));
        prop_assert_eq!(forest.score(&[threshold]), forest.score(&[f32::MAX]));
    }

    #[test]
    fn merging_in_any_grouping_gives_the_same_forest(seed: u64, cuts in prop::collection::vec(1usize..5, 1..6)) {
        let mut random = Random(seed);
        let parts: Vec<ForestSpec> = cuts.iter().map(|&n| ForestSpec {
            features: 4,
            trees: (0..n).map(|_| random_tree(&mut random, 4, 0.7)).collect(),
        }).collect();
        let flat = ForestSpec::merge(parts.clone()).expect("merges");
        let (head, tail) = parts.split_at(parts.len() / 2);
        let nested = [head, tail].into_iter().filter(|p| !p.is_empty())
            .map(|p| ForestSpec::merge(p.to_vec()).expect("merges"));
        prop_assert_eq!(&flat, &ForestSpec::merge(nested).expect("merges"));
        prop_assert_eq!(flat.trees.len(), cuts.iter().sum::<usize>());
    }

    #[test]
    fn a_forest_of_equal_trees_scores_as_one_of_them(seed: u64, copies in 1usize..30) {
        let tree = random_tree(&mut Random(seed), 2, 0.9);
        let one = Forest::compile(&ForestSpec { features: 2, trees: vec![tree.clone()] }).expect("well-formed");
        let many = Forest::compile(&ForestSpec { features: 2, trees: vec![tree; copies] }).expect("well-formed");
        let row = vectors(seed, 1, 2);
        prop_assert!((one.score(&row) - many.score(&row)).abs() < 1e-5);
    }

    #[test]
    fn arbitrary_nodes_compile_or_are_refused_and_what_compiles_scores(
        nodes in prop::collection::vec(any_node(), 0..12), samples in 0u32..40,
    ) {
        let spec = ForestSpec { features: 3, trees: vec![TreeSpec { samples, nodes }] };
        if let Ok(forest) = Forest::compile(&spec) {
            let row = [0.5, -0.5, 3.0];
            prop_assert_eq!(forest.score(&row).to_bits(), oracle(&spec, &row).to_bits());
        }
    }
}

/// Any value, and more often one where orders go wrong.
fn odd() -> impl Strategy<Value = f32> {
    let tiny = f32::from_bits(1);
    let few = [
        0.0,
        -0.0,
        tiny,
        -tiny,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
    ];
    prop_oneof![prop::sample::select(few.to_vec()), proptest::num::f32::ANY]
}

fn any_node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (0u32..5).prop_map(|size| Node::Leaf { size }),
        (0u16..5, proptest::num::f32::ANY, 0u16..12, 0u16..12).prop_map(
            |(feature, threshold, left, right)| Node::Split {
                feature,
                threshold,
                left,
                right
            }
        ),
    ]
}

fn refusal(nodes: Vec<Node>) -> &'static str {
    let spec = ForestSpec {
        features: 2,
        trees: vec![TreeSpec { samples: 10, nodes }],
    };
    match Forest::compile(&spec) {
        Err(ForestError::Tree { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

const LEAF: Node = Node::Leaf { size: 1 };

fn split(left: u16, right: u16) -> Node {
    Node::Split {
        feature: 0,
        threshold: 0.0,
        left,
        right,
    }
}

#[test]
fn malformed_trees_are_refused_by_name() {
    assert!(refusal(vec![]).contains("1 to 511 nodes"));
    assert!(refusal(vec![split(0, 1), LEAF]).contains("two parents"));
    assert!(refusal(vec![split(1, 7), LEAF]).contains("out of the tree"));
    assert!(refusal(vec![split(1, 1), LEAF]).contains("two parents"));
    assert!(refusal(vec![LEAF, LEAF]).contains("no node's child"));
    assert!(refusal(vec![Node::Leaf { size: 0 }]).contains("a leaf holds"));
    assert!(refusal(vec![Node::Leaf { size: 11 }]).contains("a leaf holds"));
    let bad = |feature, threshold| {
        vec![
            Node::Split {
                feature,
                threshold,
                left: 1,
                right: 2,
            },
            LEAF,
            LEAF,
        ]
    };
    assert!(refusal(bad(2, 0.0)).contains("outside the vector"));
    assert!(refusal(bad(0, f32::NAN)).contains("not finite"));
    assert!(refusal(bad(0, f32::INFINITY)).contains("not finite"));
    let deep: Vec<Node> = (0..9)
        .flat_map(|i| [split(2 * i + 1, 2 * i + 2), LEAF])
        .chain([LEAF])
        .collect();
    assert!(refusal(deep).contains("deeper"));
}

#[test]
fn a_tree_of_full_depth_is_taken() {
    let nodes: Vec<Node> = (0..8)
        .flat_map(|i| [split(2 * i + 1, 2 * i + 2), LEAF])
        .chain([LEAF])
        .collect();
    let spec = ForestSpec {
        features: 1,
        trees: vec![TreeSpec { samples: 10, nodes }],
    };
    let forest = Forest::compile(&spec).expect("eight levels");
    assert_eq!(forest.score(&[1.0]).to_bits(), oracle(&spec, &[1.0]).to_bits());
}

#[test]
fn empty_huge_and_mixed_forests_are_refused() {
    let tree = TreeSpec {
        samples: 2,
        nodes: vec![LEAF],
    };
    let forest = |features, n| ForestSpec {
        features,
        trees: vec![tree.clone(); n],
    };
    assert_eq!(Forest::compile(&forest(1, 0)).err(), Some(ForestError::Trees(0)));
    assert_eq!(
        Forest::compile(&forest(1, MAX_TREES + 1)).err(),
        Some(ForestError::Trees(MAX_TREES + 1))
    );
    assert_eq!(
        Forest::compile(&forest(0, 1)).err(),
        Some(ForestError::Features(0))
    );
    assert_eq!(
        Forest::compile(&forest(999, 1)).err(),
        Some(ForestError::Features(999))
    );
    assert_eq!(
        ForestSpec::merge([forest(1, 1), forest(2, 1)]),
        Err(ForestError::Mixed(1, 2))
    );
    assert_eq!(ForestSpec::merge([]), Err(ForestError::Trees(0)));
    assert!(ForestSpec::merge([forest(1, MAX_TREES), forest(1, 1)]).is_err());
}

#[test]
fn expected_paths_are_the_papers() {
    assert_eq!(expected_path(1), 0.0);
    assert_eq!(expected_path(2), 1.0);
    // scikit-learn's _average_path_length([256]).
    assert!((expected_path(256) - 10.244_770_920).abs() < 1e-8);
}
