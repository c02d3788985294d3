//! A well-formed artifact, for the targets to start from.

use vigia_model::artifact::{self, Metadata, Task};
use vigia_model::context::{Context, Gram, GramCounts, MAX_PAST};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::estimators::novelty::Novelty;
use vigia_model::estimators::rate::{Arima, Ets};
use vigia_model::forest::{ForestSpec, Node, TreeSpec};
use vigia_model::keys::{SigningKey, TrustedKeys};
use vigia_model::pipeline::{EstimatorSpec, Observed, PipelineSpec};
use vigia_model::schema::Schema;

/// What may be known of a window beside its counts.
pub fn context(salt: u32) -> Context {
    let grams = (0..40u32).map(|i| Gram {
        id: Gram::id_of([i as usize, 1 + salt as usize % 3, 2]),
        count: 1 + i * salt % 17,
    });
    let past = (0..MAX_PAST).map(|i| ((i as u32 + salt) % 9) as f32);
    Context::new(grams.collect(), past.collect()).expect("a context")
}

/// A small model, signed and not, and the key that signed it.
pub struct Good {
    pub key: SigningKey,
    pub trusted: TrustedKeys,
    pub unsigned: Vec<u8>,
    pub signed: Vec<u8>,
}

impl Good {
    pub fn make() -> Self {
        let schema = Schema::syscalls_v1();
        let mut moments = Moments::new(schema.width());
        let rows: Vec<f32> = (0..40 * schema.width()).map(|i| (i % 11) as f32 * 0.5).collect();
        rows.chunks(schema.width())
            .for_each(|row| moments.add(row).expect("finite"));
        let nodes = vec![
            Node::Split {
                feature: 3,
                threshold: 2.0,
                left: 1,
                right: 4,
            },
            Node::Split {
                feature: 90,
                threshold: 1.0,
                left: 2,
                right: 3,
            },
            Node::Leaf { size: 5 },
            Node::Leaf { size: 25 },
            Node::Leaf { size: 10 },
        ];
        let trees = vec![TreeSpec { samples: 40, nodes }; 9];
        let forest = ForestSpec {
            features: schema.width() as u16,
            trees,
        };
        let deviation = Deviation::from_moments(&moments).expect("rows");
        let grams = GramCounts {
            seen: (0..60).map(|i| (Gram::id_of([1, i, i + 3]), 9 + i as u64)).collect(),
        };
        let estimators = vec![
            EstimatorSpec::Deviation,
            EstimatorSpec::IsolationForest(forest),
            EstimatorSpec::Ngram(grams.clone()),
            EstimatorSpec::NgramPeak(grams.clone()),
            EstimatorSpec::Stide(grams),
            EstimatorSpec::Ets(Ets {
                level: 0.3,
                trend: 0.1,
                damping: 0.9,
            }),
            EstimatorSpec::Arima(Arima {
                differenced: true,
                constant: 0.1,
                weights: vec![0.5, -0.2],
            }),
            EstimatorSpec::Novelty(Novelty::learn(schema, &moments, [1, 3].into_iter())),
        ];
        let contexts: Vec<Context> = (0..40).map(context).collect();
        let held_out = Observed {
            vectors: &rows,
            contexts: &contexts,
        };
        let spec = PipelineSpec::calibrate(schema, deviation, estimators, held_out).expect("calibrates");
        let key = SigningKey::from_seed([7; 32]);
        let metadata = Metadata::new("fuzz", Task::Anomaly, schema);
        let unsigned = artifact::encode(&metadata, &spec).expect("encodes");
        let signed = artifact::sign(&unsigned, &key).expect("signs");
        Self {
            trusted: TrustedKeys::new([key.public()]),
            key,
            unsigned,
            signed,
        }
    }

    fn size(&self, at: usize) -> usize {
        u32::from_le_bytes(self.unsigned[at..at + 4].try_into().expect("four bytes")) as usize
    }

    pub fn metadata(&self) -> &[u8] {
        &self.unsigned[32..32 + self.size(8)]
    }

    /// The payload, decompressed.
    pub fn payload(&self) -> Vec<u8> {
        let start = 32 + self.size(8);
        let compressed = &self.unsigned[start..start + self.size(12)];
        zstd::bulk::decompress(compressed, self.size(16)).expect("decompresses")
    }
}
