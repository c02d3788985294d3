//! Well-formed artifacts, for the targets to start from: of every estimator that there is.

use vigia_model::artifact::{self, ContentKey, Metadata, Task};
use vigia_model::context::{Context, Gram, GramCounts, MAX_PAST};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::estimators::dbscan::Dbscan;
use vigia_model::estimators::front::{Front, Projection};
use vigia_model::estimators::gaussian::{Component, GaussianMixture};
use vigia_model::estimators::kmeans::KMeans;
use vigia_model::estimators::lof::Lof;
use vigia_model::estimators::mlp::{Head, Layer, Mlp};
use vigia_model::estimators::novelty::Novelty;
use vigia_model::estimators::quantized::Precision;
use vigia_model::estimators::rate::{Arima, Ets};
use vigia_model::estimators::reconstruction::Reconstruction;
use vigia_model::estimators::table::Table;
use vigia_model::estimators::trees::{ClassTrees, TreeNode};
use vigia_model::estimators::vector::{Staged, VectorEstimator};
use vigia_model::estimators::zscore::ZScore;
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

/// Rows that the models are calibrated on.
const ROWS: usize = 40;

/// A small model, signed, encrypted and neither, and the keys.
pub struct Good {
    pub key: SigningKey,
    pub trusted: TrustedKeys,
    pub content: ContentKey,
    pub unsigned: Vec<u8>,
    pub signed: Vec<u8>,
    pub encrypted: Vec<u8>,
}

fn rows(width: usize) -> Vec<f32> {
    (0..ROWS * width).map(|i| (i % 11) as f32 * 0.5).collect()
}

fn unit(width: usize, at: usize) -> Vec<f32> {
    (0..width).map(|i| f32::from(u8::from(i == at))).collect()
}

/// A table of these rows.
fn table(width: usize, rows: impl IntoIterator<Item = Vec<f32>>) -> Table {
    Table::new(width, rows.into_iter().flatten().collect())
}

fn network(sizes: &[usize], head: Head) -> VectorEstimator {
    let layer = |pair: &[usize]| Layer {
        weights: (0..pair[0] * pair[1]).map(|i| (i % 7) as f32 * 0.1 - 0.3).collect(),
        bias: vec![0.1; pair[1]],
    };
    let layers = sizes.windows(2).map(layer).collect();
    VectorEstimator::Mlp(Mlp { layers, head })
}

/// Every estimator over vectors of `width` values.
fn of_vectors(width: usize) -> Vec<VectorEstimator> {
    let points = || table(width, [0.0, 1.0, -1.0].map(|x| vec![x; width]));
    let diagonal: Vec<f32> = (0..width)
        .flat_map(|row| (0..=row).map(move |column| f32::from(u8::from(row == column))))
        .collect();
    let component = |x: f32| Component {
        log_weight: -0.7,
        mean: vec![x; width],
        factor: diagonal.clone(),
    };
    let nodes = vec![
        TreeNode::Split {
            feature: 1,
            threshold: 0.5,
            left: 1,
            right: 2,
        },
        TreeNode::Leaf([0.9, 0.1, 0.0]),
        TreeNode::Leaf([0.25, 0.25, 0.5]),
    ];
    vec![
        VectorEstimator::ZScore(ZScore),
        VectorEstimator::Reconstruction(Reconstruction {
            components: table(width, [unit(width, 0), unit(width, 1)]),
        }),
        VectorEstimator::KMeans(KMeans { centres: points() }),
        VectorEstimator::GaussianMixture(GaussianMixture {
            components: vec![component(0.0), component(1.0)],
        }),
        VectorEstimator::Lof(Lof {
            points: points(),
            reach: vec![1.0; 3],
            density: vec![1.0; 3],
            neighbours: 2,
            smoothing: 0.1,
        }),
        VectorEstimator::Dbscan(Dbscan {
            core: points(),
            eps: 0.5,
        }),
        VectorEstimator::RandomForest(ClassTrees {
            roots: vec![0, 0],
            nodes,
        }),
        network(&[width, 4, 2, 4, width], Head::Reconstruction),
        network(&[width, 4, 3], Head::Classes),
    ]
}

/// A front that projects onto so many components, where it does.
fn front(width: usize, components: Option<usize>) -> Front {
    let projection = |count| Projection {
        components: table(width, (0..count).map(|at| unit(width, at))),
        mean: 1.0,
        scale: 0.5,
    };
    Front {
        mean: vec![2.5; width],
        scale: vec![1.5; width],
        projection: components.map(projection),
    }
}

fn encoded(estimators: Vec<EstimatorSpec>, quantize: Option<Precision>) -> Vec<u8> {
    let schema = Schema::syscalls_v1();
    let rows = rows(schema.width());
    let contexts: Vec<Context> = (0..ROWS as u32).map(context).collect();
    let held_out = Observed {
        vectors: &rows,
        contexts: &contexts,
    };
    let deviation = Deviation::from_moments(&moments()).expect("rows");
    let mut spec = PipelineSpec::calibrate(schema, deviation, estimators, held_out).expect("calibrates");
    if let Some(precision) = quantize {
        assert!(spec.quantize(precision) > 0, "nothing was quantized");
    }
    let metadata = Metadata::new("fuzz", Task::Anomaly, schema);
    artifact::encode(&metadata, &spec).expect("encodes")
}

fn moments() -> Moments {
    let width = Schema::syscalls_v1().width();
    let mut moments = Moments::new(width);
    rows(width)
        .chunks(width)
        .for_each(|row| moments.add(row).expect("finite"));
    moments
}

/// Unsigned artifacts by name, which together hold every estimator over vectors, with and without components before it, and
/// networks whose weights take few bits.
pub fn behind_a_front() -> Vec<(String, Vec<u8>)> {
    let width = Schema::syscalls_v1().width();
    let mut all = Vec::new();
    for components in [None, Some(4)] {
        let outputs = front(width, components).outputs();
        for (at, estimator) in of_vectors(outputs).into_iter().enumerate() {
            let is_network = matches!(estimator, VectorEstimator::Mlp(_));
            let staged = Staged {
                front: front(width, components),
                estimator,
            };
            let name = format!("{}-{at}-{}", staged.name(), components.unwrap_or(0));
            let estimators = || vec![EstimatorSpec::Vector(Box::new(staged.clone()))];
            if is_network {
                for precision in [Precision::Q8_0, Precision::Q4_0] {
                    let bytes = encoded(estimators(), Some(precision));
                    all.push((format!("{name}-{precision}"), bytes));
                }
            }
            all.push((name, encoded(estimators(), None)));
        }
    }
    all
}

impl Good {
    pub fn make() -> Self {
        let schema = Schema::syscalls_v1();
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
            EstimatorSpec::Novelty(Novelty::learn(schema, &moments(), [1, 3].into_iter())),
        ];
        let key = SigningKey::from_seed([7; 32]);
        let content = ContentKey::from_bytes(&[9; 32]);
        let unsigned = encoded(estimators, None);
        let signed = artifact::sign(&unsigned, &key).expect("signs");
        Self {
            trusted: TrustedKeys::new([key.public()]),
            encrypted: artifact::encrypt(&unsigned, &content).expect("encrypts"),
            content,
            key,
            unsigned,
            signed,
        }
    }

    pub fn metadata(&self) -> &[u8] {
        &self.unsigned[32..32 + size(&self.unsigned, 8)]
    }
}

fn size(artifact: &[u8], at: usize) -> usize {
    u32::from_le_bytes(artifact[at..at + 4].try_into().expect("four bytes")) as usize
}

/// The payload of an unsigned artifact, decompressed.
pub fn payload(unsigned: &[u8]) -> Vec<u8> {
    let start = 32 + size(unsigned, 8);
    let compressed = &unsigned[start..start + size(unsigned, 12)];
    zstd::bulk::decompress(compressed, size(unsigned, 16)).expect("decompresses")
}
