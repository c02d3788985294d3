//! Signed artifacts of a small model, as a trainer and an operator would make them.

use vigia_model::artifact::{Metadata, Task, digest, encode, sign};
use vigia_model::context::{Context, GramCounts};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::keys::SigningKey;
use vigia_model::pipeline::{EstimatorSpec, Observed, PipelineSpec};
use vigia_model::schema::Schema;

pub fn key() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

pub struct Signed {
    pub bytes: Vec<u8>,
    pub digest: String,
}

impl Signed {
    pub fn of(bytes: Vec<u8>) -> Self {
        let digest = digest(&bytes).to_string();
        Self { bytes, digest }
    }
}

/// A model of what is normal in these vectors: one half to learn from, the other to calibrate on.
pub fn signed(name: &str, vectors: &[Vec<f32>], key: &SigningKey) -> Signed {
    signed_of(name, vectors, key, &[])
}

/// The same, of windows that were made by filters of these fingerprints.
pub fn signed_of(name: &str, vectors: &[Vec<f32>], key: &SigningKey, captures: &[&str]) -> Signed {
    let schema = Schema::syscalls_v1();
    let (learn, hold) = vectors.split_at(vectors.len() / 2);
    let mut moments = Moments::new(schema.width());
    for vector in learn {
        moments.add(vector).expect("a vector of the schema");
    }
    let deviation = Deviation::from_moments(&moments).expect("enough vectors");
    let spec = PipelineSpec::calibrate(schema, deviation, vec![EstimatorSpec::Deviation], &hold.concat())
        .expect("calibrated");
    let mut metadata = Metadata::new(name, Task::Anomaly, schema);
    metadata.set_captures(captures);
    let unsigned = encode(&metadata, &spec).expect("encoded");
    Signed::of(sign(&unsigned, key).expect("signed"))
}

/// A model that looks at nothing but sequences of calls, to which these are all that there are.
pub fn signed_stide(name: &str, normal: &Context, key: &SigningKey) -> Signed {
    let schema = Schema::syscalls_v1();
    let vectors = quiet();
    let mut moments = Moments::new(schema.width());
    for vector in &vectors {
        moments.add(vector).expect("a vector of the schema");
    }
    let deviation = Deviation::from_moments(&moments).expect("enough vectors");
    let grams = normal.grams().iter();
    let stide = EstimatorSpec::Stide(GramCounts {
        seen: grams.map(|gram| (gram.id, u64::from(gram.count))).collect(),
    });
    let held_out = Observed {
        vectors: &vectors.concat(),
        contexts: &vec![normal.clone(); vectors.len()],
    };
    let spec = PipelineSpec::calibrate(schema, deviation, vec![stide], held_out).expect("calibrated");
    let metadata = Metadata::new(name, Task::Anomaly, schema);
    let unsigned = encode(&metadata, &spec).expect("encoded");
    Signed::of(sign(&unsigned, key).expect("signed"))
}

/// Vectors of a quiet process, with a little noise.
pub fn quiet() -> Vec<Vec<f32>> {
    let width = Schema::syscalls_v1().width();
    (0..80u16)
        .map(|row| {
            (0..width)
                .map(|column| {
                    if column < 5 {
                        1.0 + f32::from(row % 7) / 50.0
                    } else {
                        0.0
                    }
                })
                .collect()
        })
        .collect()
}
