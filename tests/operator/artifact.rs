//! Small artifacts that are good in every respect, and what can be done to them.

use vigia_model::artifact::{self, Metadata, Task};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::histogram::ScoreHistogram;
use vigia_model::keys::{PublicKey, SigningKey};
use vigia_model::pipeline::{EstimatorSpec, PipelineSpec};
use vigia_model::schema::Schema;

/// The key of the people of these tests, which their Models trust.
pub fn key() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

/// Its public half in base64.
pub fn public_key() -> String {
    key().public().to_base64()
}

/// A signed artifact; another seed makes other bytes.
pub fn signed(seed: u64) -> Vec<u8> {
    signed_by(seed, &key())
}

/// The same, signed by another key.
pub fn signed_by(seed: u64, key: &SigningKey) -> Vec<u8> {
    let schema = Schema::syscalls_v1();
    let mut metadata = Metadata::new("test", Task::Anomaly, schema);
    metadata.seed = seed;
    let unsigned = artifact::encode(&metadata, &spec()).expect("the pipeline is in range");
    artifact::sign(&unsigned, key).expect("it is not signed yet")
}

/// Its digest.
pub fn digest(bytes: &[u8]) -> String {
    artifact::digest(bytes).to_string()
}

/// The scores of its validation.
pub fn reference() -> ScoreHistogram {
    spec().reference
}

/// A key that nobody trusts.
pub fn stranger() -> (SigningKey, PublicKey) {
    let key = SigningKey::from_seed([9; 32]);
    let public = key.public();
    (key, public)
}

fn spec() -> PipelineSpec {
    let schema = Schema::syscalls_v1();
    let width = schema.width();
    // Every window a little different, in a way that repeats.
    let row = |n: usize| (0..width).map(move |f| ((n * 7 + f * 13) % 17) as f32 / 17.0);
    let mut moments = Moments::new(width);
    for n in 0..200 {
        let vector: Vec<f32> = row(n).collect();
        moments.add(&vector).expect("the schema's width");
    }
    let deviation = Deviation::from_moments(&moments).expect("moments of 200 windows");
    let held_out: Vec<f32> = (200..400).flat_map(row).collect();
    PipelineSpec::calibrate(schema, deviation, vec![EstimatorSpec::Deviation], &held_out)
        .expect("200 held-out windows")
}
