//! How much longer training takes than loading what it made, as a row that `make bench` collects.
//!
//! Both work on the same model in the same run and take turns. With `BENCH_OUT` set to a folder, the row is also
//! written to `<name>.json` there.

#[path = "../../model/benches/row/mod.rs"]
#[expect(dead_code, reason = "figures here are wanted in one way only")]
mod row;

use std::hint::black_box;
use std::time::Instant;

use row::{Row, Target};
use vigia_model::artifact::{self, Task};
use vigia_model::keys::{SigningKey, TrustedKeys};
use vigia_model::pipeline::EstimatorKind;
use vigia_model::schema::{Schema, from_rate};
use vigia_trainer::data::{About, Rows};
use vigia_trainer::fit::{self, Params};
use vigia_trainer::parquet;

const ROUNDS: usize = 11;
/// Three hours of ten containers at windows of ten seconds.
const WINDOWS: usize = 10_800;
/// Of a forest whose artifact is about a megabyte.
const TREES: u32 = 340;
const TARGET: f64 = 50.0;

fn windows() -> Rows {
    let schema = Schema::syscalls_v1();
    let mut rows = Rows::new(schema);
    let mut state = 1u64;
    let mut unit = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24)
    };
    for i in 0..WINDOWS {
        let mut row = vec![0.0; schema.width()];
        let load = 0.5 + unit();
        for (k, x) in row[..40].iter_mut().enumerate() {
            *x = from_rate(load * (1.0 + k as f64 * 10.0) * (0.8 + 0.4 * unit()));
        }
        let about = About {
            source: i as u64 % 10,
            started_ms: 1_000 * i as i64,
            ..About::default()
        };
        rows.push(&row, about).expect("a row");
    }
    rows
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn main() {
    let file = bytes::Bytes::from(parquet::write(&windows(), "bench", "bench").expect("writes"));
    let params = Params {
        captures: vec![],
        name: "bench".to_owned(),
        estimators: EstimatorKind::DEFAULT.to_vec(),
        components: None,
        trees: TREES,
        sample_size: 256,
        seed: 1,
        workers: 1,
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        data_digest: String::new(),
    };
    let train = || {
        let mut rows = parquet::read(file.clone(), Schema::syscalls_v1()).expect("reads");
        rows.sort();
        let (shard, holdout) = rows.hold_out(WINDOWS / 4, 1);
        let part = fit::fit(&shard, &params, 0).expect("fits");
        fit::combine(vec![part], &params, &holdout, &[])
            .expect("combines")
            .artifact
    };
    let key = SigningKey::from_seed([9; 32]);
    let trusted = TrustedKeys::new([key.public()]);
    let signed = artifact::sign(&train(), &key).expect("signs");
    let load = || artifact::open(black_box(&signed), &trusted, Task::Anomaly).expect("opens");

    let (mut training, mut loading, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let trained = milliseconds(|| drop(black_box(train())));
        let loaded = (0..8)
            .map(|_| milliseconds(|| drop(black_box(load()))))
            .sum::<f64>()
            / 8.0;
        training.push(trained);
        loading.push(loaded);
        ratios.push(trained / loaded);
    }
    Row {
        name: "artifact.load.training",
        unit: "x",
        ours: ratios,
        peers: vec![("training, ms", training), ("verify and load, ms", loading)],
        rivals: false,
        target: Target::AtLeast(TARGET),
        note: format!(
            "training {TREES} trees on {WINDOWS} windows over loading the {} bytes it made",
            signed.len()
        ),
    }
    .print();
}
