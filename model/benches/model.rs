//! Figures of the scorer and the loader, as rows that `make bench` collects.
//!
//! `cargo bench -p vigia-model` prints one JSON object a row and, with `BENCH_OUT` set to a folder, writes
//! each to `<name>.json` there. With `BENCH_PYTHON` set to a Python that has scikit-learn, its
//! IsolationForest is measured in the same run: rounds of ours and of theirs take turns.

#[expect(dead_code, reason = "figures here are wanted in one way only")]
mod row;
#[path = "../tests/it/support.rs"]
mod support;

use row::{Row, Target};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;
use support::{Random, oracle, random_forest};
use vigia_model::artifact::{self, Metadata, Task};
use vigia_model::calibration::Severity;
use vigia_model::context::Context;
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::estimators::front::Front;
use vigia_model::estimators::lof::{Lof, MAX_POINTS};
use vigia_model::estimators::mlp::{Head, Layer, Mlp};
use vigia_model::estimators::table::Table;
use vigia_model::estimators::vector::{Staged, VectorEstimator};
use vigia_model::forest::Forest;
use vigia_model::keys::{SigningKey, TrustedKeys};
use vigia_model::pipeline::{EstimatorSpec, PipelineSpec};
use vigia_model::schema::Schema;

const ROUNDS: usize = 21;
const TREES: usize = 100;
const FEATURES: usize = 32;
const ROWS: usize = 4096;
/// Bytes of the artifact that is loaded, as a file.
const FILE: usize = 1_000_000;

/// A Python program in a process of its own: one word in, nanoseconds a vector out.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(script: &str, arguments: &[usize]) -> Option<Self> {
        let python = std::env::var_os("BENCH_PYTHON")?;
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/bench/");
        let mut child = Command::new(python)
            .arg(format!("{folder}{script}"))
            .args(arguments.iter().map(usize::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("BENCH_PYTHON starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Some(Self { child, input, output })
    }

    fn ask(&mut self, what: &str) -> f64 {
        writeln!(self.input, "{what}").expect("the peer listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        line.trim().parse().expect("nanoseconds")
    }

    fn stop(self) {
        let Self { mut child, input, .. } = self;
        drop(input);
        child.wait().expect("the peer ends when its input does");
    }
}

fn nanoseconds(repeats: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..repeats {
        work();
    }
    start.elapsed().as_nanos() as f64 / repeats as f64
}

fn forest() {
    let spec = random_forest(1, FEATURES as u16, TREES, 1.0);
    let forest = Forest::compile(&spec).expect("a well-formed forest");
    let mut random = Random(2);
    let rows: Vec<f32> = (0..ROWS * FEATURES).map(|_| random.normal() as f32).collect();
    let mut scores = vec![0.0; ROWS];
    forest.score_batch(&rows, &mut scores);
    let equal = rows.chunks(FEATURES).zip(&scores).all(|(row, s)| {
        s.to_bits() == oracle(&spec, row).to_bits() && s.to_bits() == forest.score(row).to_bits()
    });
    assert!(equal, "the flat forest differs from the recursive one");
    let note = format!(
        "{TREES} trees of depth 8, {FEATURES} features, {ROWS} rows, bit-equal to the recursive oracle"
    );

    let mut peer = Peer::start("sklearn_forest.py", &[TREES, FEATURES, ROWS]);
    let (mut batched, mut single, mut their_batched, mut their_single) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let ns = nanoseconds(8, || forest.score_batch(black_box(&rows), black_box(&mut scores)));
        batched.push(ns / ROWS as f64);
        let ns = nanoseconds(4, || {
            for row in rows.chunks(FEATURES) {
                black_box(forest.score(black_box(row)));
            }
        });
        single.push(ns / ROWS as f64);
        if let Some(peer) = &mut peer {
            their_batched.push(peer.ask("batched"));
            their_single.push(peer.ask("single"));
        }
    }
    let peers = |values| {
        if peer.is_some() {
            vec![("scikit-learn", values)]
        } else {
            vec![]
        }
    };
    let (their_batched, their_single) = (peers(their_batched), peers(their_single));
    if let Some(peer) = peer {
        peer.stop();
    }
    Row {
        name: "forest.batched",
        unit: "ns/vector",
        ours: batched,
        peers: their_batched,
        rivals: true,
        target: Target::AtMost(1000.0),
        note: note.clone(),
    }
    .print();
    Row {
        name: "forest.single",
        unit: "ns/vector",
        ours: single,
        peers: their_single,
        rivals: true,
        target: Target::AtMost(2000.0),
        note,
    }
    .print();
}

fn load() {
    let schema = Schema::syscalls_v1();
    let mut random = Random(3);
    let mut moments = Moments::new(schema.width());
    let mut rows = Vec::new();
    for _ in 0..256 {
        let row: Vec<f32> = (0..schema.width())
            .map(|_| random.normal().abs() as f32)
            .collect();
        moments.add(&row).expect("finite");
        rows.extend(row);
    }
    let deviation = Deviation::from_moments(&moments).expect("rows");
    let key = SigningKey::from_seed([9; 32]);
    let trusted = TrustedKeys::new([key.public()]);
    let metadata = Metadata::new("bench", Task::Anomaly, schema);
    // As the trainer writes them: packed, compressed, signed. Full trees of random thresholds hardly compress.
    let file = |trees: usize| {
        let forest = random_forest(4, schema.width() as u16, trees, 1.0);
        let estimators = vec![EstimatorSpec::Deviation, EstimatorSpec::IsolationForest(forest)];
        let spec = PipelineSpec::calibrate(schema, deviation.clone(), estimators, &rows).expect("calibrates");
        artifact::encode(&metadata, &spec)
            .and_then(|b| artifact::sign(&b, &key))
            .expect("encodes")
    };
    // Larger files compress a little better.
    let (mut trees, mut bytes) = (TREES, file(TREES));
    for _ in 0..4 {
        trees = trees * FILE / bytes.len();
        bytes = file(trees);
    }
    assert!(bytes.len().abs_diff(FILE) < FILE / 100, "{} bytes", bytes.len());
    let uncompressed = artifact::inspect(&bytes).expect("well-formed").uncompressed_size;
    let open = || artifact::open(black_box(&bytes), &trusted, Task::Anomaly).expect("opens");
    let ours = (0..ROUNDS)
        .map(|_| nanoseconds(8, || drop(black_box(open()))) / 1e6)
        .collect();
    let note = format!(
        "verify, decompress, decode, check and lay out a file of {} bytes ({trees} trees of depth 8, {uncompressed} bytes \
         decompressed)",
        bytes.len()
    );
    Row {
        name: "artifact.load",
        unit: "ms",
        ours,
        peers: vec![],
        rivals: true,
        target: Target::AtMost(2.0),
        note,
    }
    .print();
}

/// An autoencoder as the trainer makes it for rows so wide, scaler included, a row at a time.
fn mlp(name: &'static str, features: usize, most: f64) {
    let hidden = (features / 2).min(32);
    let widths = [features, hidden, hidden / 2, hidden, features];
    let mut random = Random(5);
    let layer = |(inputs, outputs): (usize, usize), random: &mut Random| Layer {
        weights: (0..inputs * outputs)
            .map(|_| 0.3 * random.normal() as f32)
            .collect(),
        bias: (0..outputs).map(|_| 0.1 * random.normal() as f32).collect(),
    };
    let sizes = widths.windows(2).map(|w| (w[0], w[1]));
    let layers = sizes.map(|size| layer(size, &mut random)).collect();
    let staged = Staged {
        front: Front {
            mean: vec![0.5; features],
            scale: vec![1.5; features],
            projection: None,
        },
        estimator: VectorEstimator::Mlp(Mlp {
            layers,
            head: Head::Reconstruction,
        }),
    };
    staged.check(features).expect("a well-formed network");
    let rows: Vec<f32> = (0..ROWS * features).map(|_| random.normal() as f32).collect();
    let mut peer = Peer::start("mlp.py", &widths);
    let (mut ours, mut theirs, mut torchs) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let ns = nanoseconds(8, || {
            for row in rows.chunks(features) {
                black_box(staged.score(black_box(row)));
            }
        });
        ours.push(ns / ROWS as f64 / 1e3);
        if let Some(peer) = &mut peer {
            theirs.push(peer.ask("numpy") / 1e3);
            torchs.push(peer.ask("torch") / 1e3);
        }
    }
    if let Some(peer) = peer {
        peer.stop();
    }
    let measured = |values: Vec<f64>| Some(values).filter(|v| v.first().is_some_and(|v| v.is_finite()));
    let torch = measured(torchs);
    let missing = match torch {
        Some(_) => "",
        None => "; no torch",
    };
    let peers = [("torch", torch), ("numpy", measured(theirs))];
    Row {
        name,
        unit: "us/row",
        ours,
        peers: peers
            .into_iter()
            .filter_map(|(name, v)| Some((name, v?)))
            .collect(),
        rivals: true,
        target: Target::AtMost(most),
        note: format!(
            "scaler and autoencoder {widths:?}, one row at a time; the peers run the network alone{missing}"
        ),
    }
    .print();
}

/// An alert by LOF, which looks at all that it remembers for each score, of a window where every rate has moved.
fn explain() {
    let schema = Schema::syscalls_v1();
    let width = schema.width();
    let mut random = Random(6);
    let mut some =
        |count: usize| -> Vec<f32> { (0..count * width).map(|_| 1.0 + random.unit() as f32).collect() };
    let (rows, points) = (some(256), some(MAX_POINTS));
    let mut moments = Moments::new(width);
    for row in rows.chunks(width) {
        moments.add(row).expect("finite");
    }
    let staged = Staged {
        front: Front {
            mean: vec![1.5; width],
            scale: vec![0.4; width],
            projection: None,
        },
        estimator: VectorEstimator::Lof(Lof {
            points: Table::new(width, points),
            reach: vec![8.0; MAX_POINTS],
            density: vec![0.1; MAX_POINTS],
            neighbours: 20,
            smoothing: 0.1,
        }),
    };
    let deviation = Deviation::from_moments(&moments).expect("rows");
    let spec = PipelineSpec::calibrate(
        schema,
        deviation,
        vec![EstimatorSpec::Vector(Box::new(staged))],
        &rows,
    );
    let pipeline = spec.and_then(|spec| spec.compile(schema)).expect("a pipeline");
    let odd: Vec<f32> = (0..width).map(|i| 4.0 + i as f32 / 100.0).collect();
    let verdict = || {
        pipeline
            .score_vector(black_box(&odd), Context::NONE)
            .expect("a verdict")
    };
    assert!(verdict().severity > Severity::None && verdict().drivers.iter().next().is_some());
    let ours = (0..ROUNDS)
        .map(|_| {
            let each = nanoseconds(8, || {
                black_box(verdict());
            });
            each / 1e6
        })
        .collect();
    Row {
        name: "explain.lof",
        unit: "ms/alert",
        ours,
        peers: vec![],
        rivals: true,
        target: Target::AtMost(2.0),
        note: format!(
            "verdict of a window of {width} features that all moved, by LOF of {MAX_POINTS} windows"
        ),
    }
    .print();
}

fn main() {
    forest();
    explain();
    mlp("mlp.row", FEATURES, 0.3);
    // Of a whole window; within what a forest takes for it.
    mlp("mlp.window", Schema::syscalls_v1().width(), 2.0);
    load();
}
