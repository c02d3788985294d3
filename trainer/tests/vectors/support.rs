//! Rows that `fixtures/make.py` makes too, and its answers.

use serde::Deserialize;
use serde_json::Value;
use std::sync::LazyLock;
use vigia_model::deviation::Moments;
use vigia_model::estimators::table::Table;
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::estimators::EstimatorError;
use vigia_trainer::estimators::vectors::{Fitted, Settings, fit};
use vigia_trainer::fit::Params;

/// What `make.py` made rows by.
#[derive(Deserialize)]
pub struct Made {
    seed: u64,
    pub rows: usize,
    pub width: usize,
    pub clusters: usize,
}

impl Made {
    /// Whether it is the fixture of the repository.
    pub const fn is_usual(&self) -> bool {
        self.seed == 0 && self.rows == 300 && self.width == 12 && self.clusters == 4
    }

    /// The seed of its `n`th generator.
    pub const fn seed(&self, n: u64) -> u64 {
        100 * self.seed + n
    }
}

pub static MADE: LazyLock<Made> =
    LazyLock::new(|| serde_json::from_value(answers()["made"].take()).expect("what rows were made by"));

/// The generator of `make.py`.
pub struct Random(pub u64);

impl Random {
    pub fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }

    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// `blobs` of `make.py`.
pub fn blobs(seed: u64, rows: usize, width: usize, k: usize, apart: f64) -> Vec<Vec<f32>> {
    let mut random = Random(seed);
    let centres: Vec<Vec<f64>> = (0..k)
        .map(|_| (0..width).map(|_| apart * random.normal()).collect())
        .collect();
    (0..rows)
        .map(|i| {
            let load = random.normal();
            centres[i % k]
                .iter()
                .map(|c| (c + 0.5 * load + random.normal()) as f32)
                .collect()
        })
        .collect()
}

/// The rows that `make.py` trains on, and its probes.
pub fn train_and_probes() -> (Table, Vec<Vec<f32>>) {
    let mut data = blobs(MADE.seed(1), MADE.rows + 40, MADE.width, MADE.clusters, 3.0);
    let mut probes = data.split_off(MADE.rows);
    for (i, probe) in probes.iter_mut().step_by(4).enumerate() {
        let by = 1.0 + 3.0 * i as f64 / 9.0;
        for (j, x) in probe.iter_mut().enumerate() {
            *x = (f64::from(*x) + if j % 2 == 1 { by } else { -by }) as f32;
        }
    }
    (table(&data), probes)
}

pub fn table(rows: &[Vec<f32>]) -> Table {
    Table::new(rows.first().map_or(1, Vec::len), rows.concat())
}

pub fn moments(rows: &Table) -> Moments {
    let mut moments = Moments::new(rows.width());
    rows.rows().for_each(|row| moments.add(row).expect("finite"));
    moments
}

/// As scikit-learn scales: no floor.
pub fn settings(components: Option<usize>) -> Settings {
    Settings {
        seed: 7,
        components,
        floor: 0.0,
    }
}

pub fn fitted(kind: EstimatorKind, rows: &Table, settings: &Settings) -> Result<Fitted, EstimatorError> {
    fit(kind, rows, &[], &moments(rows), settings)
}

/// The kinds under test.
pub fn kinds() -> impl Iterator<Item = EstimatorKind> {
    EstimatorKind::ALL.into_iter().filter(|kind| kind.is_vector())
}

/// True where training takes seconds without optimisation.
pub fn is_slow(kind: EstimatorKind) -> bool {
    matches!(kind, EstimatorKind::Autoencoder | EstimatorKind::MlpClassifier)
}

pub fn answers() -> Value {
    // Read when it runs, so that answers on other data need no build.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vectors.json");
    serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("JSON")
}

pub fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// Whether two lists agree within a share of the second's values, or absolutely where those are small.
pub fn assert_close(what: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let apart = (a - b).abs() / b.abs().max(1.0);
        assert!(apart <= tolerance, "{what} {i}: ours {a}, scikit-learn's {b}");
    }
}

/// Of a small model by one worker.
pub fn params(estimators: &[EstimatorKind]) -> Params {
    Params {
        captures: vec![],
        name: "server".to_owned(),
        estimators: estimators.to_vec(),
        components: None,
        trees: 10,
        sample_size: 64,
        seed: 1,
        workers: 1,
        created_at: String::new(),
        data_digest: String::new(),
    }
}
