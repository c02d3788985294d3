//! Scoring allocates nothing, whichever estimator scores. This program counts each thread's allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use crate::support::{blobs, fitted, kinds, settings, table};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local Cell only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no counter any more.
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

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
