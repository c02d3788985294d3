//! Scoring allocates nothing, and what is refused has not taken more memory than it is allowed. A program of its own,
//! since it counts every allocation that the process makes.

mod counting;
#[path = "it/support.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod support;
#[path = "it/workload.rs"]
mod workload;

use counting::{allocations, most_held};
use vigia_model::artifact::{self, ArtifactError, MAX_PAYLOAD, Metadata, Task};
use vigia_model::context::{Context, GramCounts, Past};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::estimators::rate::{Arima, Ets};
use vigia_model::histogram::ScoreHistogram;
use vigia_model::pipeline::{EstimatorSpec, Observed, PipelineSpec, Scratch};
use vigia_model::schema::Schema;
use vigia_model::syscalls::Arch;
use workload::{CREDENTIALS, REVERSE_SHELL, SCAN, Store, train};

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
        pipeline
            .score_vector(&rows[..schema.width()], Context::NONE)
            .expect("scores");
    });
    assert_eq!(counted, 0);
}

#[test]
fn what_is_known_beside_a_window_is_put_together_and_scored_without_allocating() {
    let schema = Schema::syscalls_v1();
    let arch = Arch::X86_64;
    let counted =
        |i: u64| (0..60u32).map(move |nr| ([nr, (nr * 7 + 3) % 60, nr], 1 + (u64::from(nr) + i) % 5));
    let mut store = Store::new(1);
    let mut past = Past::default();
    let (mut vectors, mut contexts) = (vec![], vec![]);
    let mut seen = std::collections::BTreeMap::new();
    for i in 0..80 {
        let window = store.window();
        let mut context = Context::default();
        context.observe(schema, arch, counted(i), &past);
        past.push(&window);
        if i >= 32 {
            vectors.extend(workload::rows(schema, std::iter::once(window)));
            for gram in context.grams() {
                *seen.entry(gram.id).or_insert(0) += u64::from(gram.count);
            }
            contexts.push(context);
        }
    }
    let counts = GramCounts {
        seen: seen.into_iter().collect(),
    };
    let mut moments = Moments::new(schema.width());
    for row in vectors.chunks(schema.width()) {
        moments.add(row).expect("a vector");
    }
    let estimators = vec![
        EstimatorSpec::Ngram(counts.clone()),
        EstimatorSpec::NgramPeak(counts.clone()),
        EstimatorSpec::Stide(counts),
        EstimatorSpec::Ets(Ets {
            level: 0.3,
            trend: 0.1,
            damping: 0.9,
        }),
        EstimatorSpec::Arima(Arima {
            differenced: true,
            constant: 0.0,
            weights: vec![-0.3, -0.1],
        }),
    ];
    let held_out = Observed {
        vectors: &vectors,
        contexts: &contexts,
    };
    let deviation = Deviation::from_moments(&moments).expect("vectors");
    let pipeline = PipelineSpec::calibrate(schema, deviation, estimators, held_out)
        .and_then(|spec| spec.compile(schema))
        .expect("a pipeline");
    let windows: Vec<_> = (0..20).map(|_| store.window()).collect();
    let (mut scratch, mut context) = (Scratch::default(), contexts[0].clone());
    let known = allocations(|| {
        for (window, i) in windows.iter().zip(0..) {
            context.observe(schema, arch, counted(i), &past);
            past.push(window);
            pipeline
                .score_within(window, &context, &mut scratch)
                .expect("scores");
            assert!(pipeline.score(window, &mut scratch).is_err(), "nothing is known");
        }
    });
    assert_eq!(known, 0);
}

/// `good`, an unsigned artifact, with this payload in place of its own.
fn with_payload(good: &[u8], payload: &[u8]) -> Vec<u8> {
    const METADATA_SIZE: usize = 8;
    const HEADER: usize = 32;
    let size = u32::from_le_bytes(
        good[METADATA_SIZE..METADATA_SIZE + 4]
            .try_into()
            .expect("four bytes"),
    );
    let compressed = zstd::bulk::compress(payload, 3).expect("compresses");
    let mut bytes = good[..HEADER + size as usize].to_vec();
    for (at, value) in [(12, compressed.len()), (16, payload.len())] {
        bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    bytes.extend_from_slice(&compressed);
    bytes.extend_from_slice(&apr_format::crc32(&bytes).to_le_bytes());
    bytes
}

#[test]
fn a_list_that_is_too_long_is_refused_before_it_takes_memory() {
    /// Beside the payload: metadata and what surrounds the list.
    const ROOM: usize = 64 << 10;
    let metadata = Metadata::new("redis", Task::Anomaly, Schema::syscalls_v1());
    let good = artifact::encode(&metadata, &train(&mut Store::new(1), 120, 60)).expect("encodes");
    let no_normals = [0; 8];
    let count = |n: u64| n.to_le_bytes().to_vec();
    // One member with an empty scaler and without a projection, up to where its estimator says which it is.
    let member = [&no_normals[..], &count(1), &[2, 0, 0, 0], &[0; 17]].concat();
    let lists = [
        ("members", [&no_normals[..], &count(2_796_186)].concat()),
        (
            "components",
            [&member[..], &[3, 0, 0, 0], &count(3_355_430)].concat(),
        ),
        ("layers", [&member[..], &[7, 0, 0, 0], &count(4_194_290)].concat()),
    ];
    for (name, mut payload) in lists {
        // As many as there is room for, all of them zeros.
        payload.resize(MAX_PAYLOAD, 0);
        let bytes = with_payload(&good, &payload);
        assert!(bytes.len() < 8 << 10, "{name}: {} bytes", bytes.len());
        drop(payload);
        let held = most_held(|| {
            let error = artifact::open_unsigned(&bytes, Task::Anomaly).expect_err("refused");
            assert!(
                matches!(&error, ArtifactError::Decode(why) if why.contains("a list of at most")),
                "{name}: {error}"
            );
        });
        assert!(held >= MAX_PAYLOAD, "{name}: memory is counted ({held})");
        assert!(held < MAX_PAYLOAD + ROOM, "{name}: {held} bytes");
    }
}
