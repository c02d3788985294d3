//! Our artifacts and aprender's own reader: it accepts what we write, and we refuse what it wrongly accepts.
//!
//! aprender stands here for everyone who reads `.apr` files with other tools than ours. The second half is
//! the reason why `vigia_model::artifact` exists; each test shows both sides of one difference.

use std::path::PathBuf;

use aprender::format::{self, ModelType};
use ed25519_dalek::{SigningKey as DalekKey, VerifyingKey};
use vigia_model::artifact::{self, ArtifactError, Metadata, Task};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::forest::{ForestSpec, Node, TreeSpec};
use vigia_model::keys::{SigningKey, TrustedKeys};
use vigia_model::pipeline::{EstimatorSpec, PipelineSpec};
use vigia_model::schema::Schema;

const SEED: [u8; 32] = [7; 32];

fn spec() -> PipelineSpec {
    let schema = Schema::syscalls_v1();
    let mut moments = Moments::new(schema.width());
    let mut rows = Vec::new();
    for i in 0..64u8 {
        let row: Vec<f32> = (0..schema.width())
            .map(|f| f32::from(i % 7) * 0.1 + f as f32 * 0.01)
            .collect();
        moments.add(&row).expect("finite");
        rows.extend(row);
    }
    let nodes = vec![
        Node::Split {
            feature: 3,
            threshold: 0.3,
            left: 1,
            right: 2,
        },
        Node::Leaf { size: 40 },
        Node::Leaf { size: 24 },
    ];
    let forest = ForestSpec {
        features: schema.width() as u16,
        trees: vec![TreeSpec { samples: 64, nodes }; 10],
    };
    let deviation = Deviation::from_moments(&moments).expect("rows");
    let estimators = vec![EstimatorSpec::Deviation, EstimatorSpec::IsolationForest(forest)];
    PipelineSpec::calibrate(schema, deviation, estimators, &rows).expect("calibrates")
}

fn unsigned() -> Vec<u8> {
    let mut metadata = Metadata::new("redis", Task::Anomaly, Schema::syscalls_v1());
    metadata.created_at = "2026-01-01T00:00:00Z".to_owned();
    metadata.samples = 64;
    metadata
        .hyperparameters
        .insert("trees".to_owned(), "10".to_owned());
    metadata.metrics.insert("HoldoutExceedance".to_owned(), 0.25);
    artifact::encode(&metadata, &spec()).expect("encodes")
}

fn signed_by(seed: [u8; 32]) -> Vec<u8> {
    artifact::sign(&unsigned(), &SigningKey::from_seed(seed)).expect("signs")
}

fn ours(bytes: &[u8]) -> Result<artifact::Artifact, ArtifactError> {
    let trusted = TrustedKeys::new([SigningKey::from_seed(SEED).public()]);
    artifact::open(bytes, &trusted, Task::Anomaly)
}

fn pinned() -> VerifyingKey {
    DalekKey::from_bytes(&SEED).verifying_key()
}

/// aprender reads paths.
struct OnDisk(tempfile::TempDir);

impl OnDisk {
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("model.apr"), bytes).expect("writes");
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("model.apr")
    }
}

fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 4;
    let checksum = format::crc32(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn aprender_loads_verifies_and_inspects_ours() {
    let file = OnDisk::new(&signed_by(SEED));
    let loaded: PipelineSpec = format::load(file.path(), ModelType::Custom).expect("aprender loads");
    assert_eq!(loaded, spec());
    let verified: PipelineSpec =
        format::load_verified(file.path(), ModelType::Custom, Some(&pinned())).expect("aprender verifies");
    assert_eq!(verified, spec());
    let info = format::inspect(file.path()).expect("aprender inspects");
    assert!(info.signed && !info.encrypted);
    assert_eq!(info.metadata.model_name.as_deref(), Some("redis"));
    assert_eq!(info.metadata.training.and_then(|t| t.samples), Some(64));
    assert_eq!(info.metadata.metrics["HoldoutExceedance"], 0.25);
    assert_eq!(info.metadata.hyperparameters["trees"], "10");
    assert_eq!(info.metadata.custom["vigia.task"], "Anomaly");

    let other = DalekKey::from_bytes(&[8; 32]).verifying_key();
    assert!(format::load_verified::<PipelineSpec>(file.path(), ModelType::Custom, Some(&other)).is_err());
}

#[test]
fn aprender_loads_what_is_not_signed_yet() {
    let file = OnDisk::new(&unsigned());
    assert_eq!(
        format::load::<PipelineSpec>(file.path(), ModelType::Custom).expect("loads"),
        spec()
    );
    assert!(matches!(ours(&unsigned()), Err(ArtifactError::Unsigned)));
}

#[test]
fn a_broken_signature_is_ignored_by_its_load_and_refused_by_ours() {
    let mut bytes = signed_by(SEED);
    let signature = bytes.len() - 100;
    bytes[signature] ^= 1;
    let bytes = resealed(bytes);
    let file = OnDisk::new(&bytes);
    assert!(format::load::<PipelineSpec>(file.path(), ModelType::Custom).is_ok());
    assert!(matches!(ours(&bytes), Err(ArtifactError::BadSignature(_))));
}

#[test]
fn a_strangers_embedded_key_is_trusted_by_its_verification_and_refused_by_ours() {
    let bytes = signed_by([66; 32]);
    let file = OnDisk::new(&bytes);
    assert!(format::load_verified::<PipelineSpec>(file.path(), ModelType::Custom, None).is_ok());
    assert!(matches!(ours(&bytes), Err(ArtifactError::UntrustedKey(_))));
}

#[test]
fn trailing_bytes_pass_its_verification_and_are_refused_by_ours() {
    let mut bytes = signed_by(SEED);
    bytes.extend_from_slice(&[0; 64]);
    let bytes = resealed(bytes);
    let file = OnDisk::new(&bytes);
    assert!(format::load_verified::<PipelineSpec>(file.path(), ModelType::Custom, Some(&pinned())).is_ok());
    assert!(matches!(ours(&bytes), Err(ArtifactError::Trailing(64))));
}

#[test]
fn a_bomb_is_unpacked_by_its_loader_and_stopped_by_ours() {
    // A pipeline followed by 128 MiB of zeros, of which the header declares the pipeline alone.
    let mut payload = bincode::serialize(&spec()).expect("encodes");
    let declared = payload.len() as u32;
    payload.resize(payload.len() + (128 << 20), 0);
    let compressed = zstd::bulk::compress(&payload, 3).expect("compresses");
    let plain = unsigned();
    let metadata = u32::from_le_bytes(plain[8..12].try_into().expect("four bytes")) as usize;
    let mut bytes = plain[..32 + metadata].to_vec();
    bytes[12..16].copy_from_slice(&(compressed.len() as u32).to_le_bytes());
    bytes[16..20].copy_from_slice(&declared.to_le_bytes());
    bytes.extend_from_slice(&compressed);
    bytes.extend_from_slice(&[0; 4]);
    let bytes = artifact::sign(&resealed(bytes), &SigningKey::from_seed(SEED)).expect("well-formed outside");
    assert!(bytes.len() < 64 << 10, "{} bytes", bytes.len());

    let file = OnDisk::new(&bytes);
    assert!(format::load_verified::<PipelineSpec>(file.path(), ModelType::Custom, Some(&pinned())).is_ok());
    assert!(matches!(ours(&bytes), Err(ArtifactError::Bomb { .. })));
}
