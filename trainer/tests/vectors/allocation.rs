//! Scoring allocates nothing, whichever estimator scores. This program counts each thread's allocations.

#[path = "../../../model/tests/counting/mod.rs"]
#[expect(dead_code, reason = "the model's own tests use more of it")]
mod counting;

use std::hint::black_box;

use self::counting::allocations;
use crate::support::{blobs, fitted, kinds, settings, table};

#[test]
fn no_estimator_allocates_when_it_scores() {
    assert!(
        allocations(|| drop(black_box(Box::new(1)))) > 0,
        "allocations are counted"
    );
    let rows = table(&blobs(5, 100, 9, 3, 2.0));
    for kind in kinds() {
        for components in [None, Some(4)] {
            let staged = fitted(kind, &rows, &settings(components)).expect("fits").staged;
            let counted = allocations(|| {
                for row in rows.rows() {
                    black_box(staged.score(black_box(row)));
                }
            });
            assert_eq!(counted, 0, "{kind}");
        }
    }
}
