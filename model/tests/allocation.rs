//! Scoring allocates nothing. A program of its own, since it counts every allocation that the process makes.

#[path = "it/support.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod support;
#[path = "it/workload.rs"]
mod workload;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use vigia_model::histogram::ScoreHistogram;
use vigia_model::pipeline::Scratch;
use vigia_model::schema::Schema;
use workload::{CREDENTIALS, REVERSE_SHELL, SCAN, Store, train};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local Cell only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
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
fn scoring_allocates_nothing() {
    let schema = Schema::syscalls_v1();
    let pipeline = train(&mut Store::new(1), 120, 60)
        .compile(schema)
        .expect("compiles");
    let mut store = Store::new(2);
    let mut windows: Vec<_> = (0..50).map(|_| store.window()).collect();
    windows.extend([CREDENTIALS, SCAN, REVERSE_SHELL].map(|extra| store.window_with(extra)));
    let rows = workload::rows(schema, windows.iter().cloned());
    let mut scores = vec![0.0; windows.len()];
    let mut histogram = ScoreHistogram::default();
    let mut scratch = Scratch::default();
    histogram.add(0.0);

    assert!(
        allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0,
        "allocations are counted"
    );
    let counted = allocations(|| {
        for window in &windows {
            let verdict = pipeline.score(window, &mut scratch).expect("scores");
            histogram.add(verdict.score);
        }
        pipeline.score_rows(&rows, &mut scores).expect("scores");
        pipeline.score_vector(&rows[..schema.width()]).expect("scores");
    });
    assert_eq!(counted, 0);
}
