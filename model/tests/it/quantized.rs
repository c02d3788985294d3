//! Weights in few bits: how far off they are, and that they stay as they are.

use crate::support::Random;
use crate::workload::{Store, rows};
use proptest::prelude::*;
use vigia_model::artifact::{self, Metadata, Task};
use vigia_model::context::Context;
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::estimators::front::Front;
use vigia_model::estimators::mlp::{Head, Layer, Mlp};
use vigia_model::estimators::quantized::Precision::{self, Q4_0, Q8_0};
use vigia_model::estimators::vector::{Staged, VectorEstimator};
use vigia_model::pipeline::{EstimatorKind, EstimatorSpec, PipelineSpec};
use vigia_model::schema::Schema;

/// A pipeline of one autoencoder with random weights, calibrated on a workload.
fn pipeline() -> (PipelineSpec, Vec<f32>) {
    let schema = Schema::syscalls_v1();
    let mut store = Store::new(1);
    let windows = rows(schema, (0..200).map(|_| store.window()));
    let mut moments = Moments::new(schema.width());
    windows
        .chunks(schema.width())
        .for_each(|row| moments.add(row).expect("finite"));
    let mut random = Random(5);
    let sizes = [(schema.width(), 24), (24, 8), (8, 24), (24, schema.width())];
    let layer = |&(inputs, outputs): &(usize, usize)| Layer {
        weights: (0..inputs * outputs)
            .map(|_| (random.normal() / (inputs as f64).sqrt()) as f32)
            .collect(),
        bias: vec![0.1; outputs],
    };
    let network = Mlp {
        layers: sizes.iter().map(layer).collect(),
        head: Head::Reconstruction,
    };
    let front = Front {
        mean: vec![0.5; schema.width()],
        scale: vec![1.5; schema.width()],
        projection: None,
    };
    let staged = Staged {
        front,
        estimator: VectorEstimator::Mlp(network),
    };
    let estimators = vec![EstimatorSpec::Vector(Box::new(staged))];
    let deviation = Deviation::from_moments(&moments).expect("rows");
    let spec = PipelineSpec::calibrate(schema, deviation, estimators, &windows).expect("calibrates");
    (spec, windows)
}

/// Size of the artifact, and the largest difference of scores.
fn quantized(precision: Precision) -> (usize, f64) {
    let (mut spec, windows) = pipeline();
    let schema = Schema::syscalls_v1();
    let whole = spec.compile(schema).expect("compiles");
    assert_eq!(spec.quantize(precision), 1);
    let metadata = Metadata::new("m", Task::Anomaly, schema);
    let bytes = artifact::encode(&metadata, &spec).expect("encodes");
    let opened = artifact::open_unsigned(&bytes, Task::Anomaly).expect("opens");
    assert_eq!(
        opened.pipeline.kinds().collect::<Vec<_>>(),
        [EstimatorKind::Autoencoder]
    );
    // What is read and written again is the same, and so is what is quantised again.
    let (_, mut again) = artifact::Reader::unsigned()
        .spec(&bytes, Task::Anomaly)
        .expect("opens");
    assert_eq!(artifact::encode(&metadata, &again).expect("encodes"), bytes);
    assert_eq!(again.quantize(precision), 1);
    assert_eq!(artifact::encode(&metadata, &again).expect("encodes"), bytes);
    let score = |row: &[f32]| {
        let (a, b) = (
            whole.score_vector(row, Context::NONE),
            opened.pipeline.score_vector(row, Context::NONE),
        );
        (f64::from(a.expect("scores").score) - f64::from(b.expect("scores").score)).abs()
    };
    let most = windows.chunks(schema.width()).map(score).fold(0.0, f64::max);
    (bytes.len(), most)
}

#[test]
fn fewer_bits_make_a_smaller_artifact_and_say_nearly_the_same() {
    let (spec, _) = pipeline();
    let metadata = Metadata::new("m", Task::Anomaly, Schema::syscalls_v1());
    let whole = artifact::encode(&metadata, &spec).expect("encodes").len();
    let (eight, off_by_eight) = quantized(Q8_0);
    let (four, off_by_four) = quantized(Q4_0);
    assert!(eight * 2 < whole && four < eight, "{whole} {eight} {four}");
    assert!(
        off_by_eight < 0.02 && off_by_four < 0.3,
        "{off_by_eight} {off_by_four}"
    );
}

#[test]
fn a_pipeline_without_a_network_has_nothing_to_quantise() {
    let mut spec = crate::workload::train(&mut Store::new(1), 120, 60);
    assert_eq!(spec.quantize(Q8_0), 0);
}

#[test]
fn blocks_are_as_ggml_has_them() {
    let mut values = [0.0f32; 32];
    (values[0], values[1], values[16]) = (-127.0, 63.5, 1.0);
    let bytes = Q8_0.store(&values);
    // A scale of one in half precision, then bytes in order.
    assert_eq!(bytes[..4], [0x00, 0x3c, 0x81, 64]);
    assert_eq!(bytes[2 + 16], 1);
    (values[0], values[1], values[16]) = (-8.0, 7.0, 3.0);
    let bytes = Q4_0.store(&values);
    // Nibbles lie 16 apart, and are counted from -8.
    assert_eq!(bytes[..4], [0x00, 0x3c, 0xb0, 0x8f]);
    assert_eq!(Q4_0.values(&bytes), values);
}

#[test]
fn a_block_too_few_is_refused() {
    let (mut spec, _) = pipeline();
    spec.quantize(Q8_0);
    let good = bincode::serialize(&spec).expect("encodes");
    let EstimatorSpec::Vector(staged) = &spec.members[0].estimator else {
        panic!("a vector estimator");
    };
    let VectorEstimator::QuantizedMlp(network) = &staged.estimator else {
        panic!("quantised");
    };
    let layer = &network.network().layers[1];
    let blocks = (24u16, serde_bytes::ByteBuf::from(Q8_0.store(&layer.weights)));
    let stored = bincode::serialize(&blocks).expect("encodes");
    let at = good
        .windows(stored.len())
        .position(|w| w == stored)
        .expect("the layer");
    let mut bad = good.clone();
    bad[at] = 25;
    let error = bincode::deserialize::<PipelineSpec>(&bad)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("blocks"), "{error}");
    assert_eq!(
        bincode::deserialize::<PipelineSpec>(&good).expect("decodes"),
        spec
    );
}

proptest! {
    #[test]
    fn values_are_off_by_half_a_step(values in prop::collection::vec(-1e4f32..1e4, 0..100), four: bool) {
        let (precision, steps) = if four { (Q4_0, 8.0) } else { (Q8_0, 127.0) };
        let back = precision.values(&precision.store(&values));
        prop_assert_eq!(back.len(), values.len().next_multiple_of(32));
        for (values, back) in values.chunks(32).zip(back.chunks(32)) {
            let most = values.iter().fold(0f32, |most, x| most.max(x.abs()));
            // Half a step; a whole one at the end of Q4_0 that -8 does not use; and what the scale's rounding adds.
            let far = most / steps * if four { 1.0 } else { 0.5 } + most * 1e-3 + 1e-3;
            for (x, y) in values.iter().zip(back) {
                prop_assert!((x - y).abs() <= far, "{} {} {}", x, y, far);
            }
        }
    }

    #[test]
    fn stored_values_are_stored_as_they_are(values in prop::collection::vec(-1e4f32..1e4, 0..100), four: bool) {
        let precision = if four { Q4_0 } else { Q8_0 };
        let once = precision.store(&values);
        prop_assert_eq!(precision.store(&precision.values(&once)), once);
    }

    #[test]
    fn any_bytes_are_values(bytes in prop::collection::vec(any::<u8>(), 0..200), four: bool) {
        let precision = if four { Q4_0 } else { Q8_0 };
        prop_assert_eq!(precision.values(&bytes).len(), bytes.len() / precision.block() * 32);
    }
}
