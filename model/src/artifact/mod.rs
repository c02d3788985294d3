//! `.apr` artifacts: a trained pipeline as bytes that can be trusted, or refused with a reason.
//!
//! The container is version 1 of aprender's format (header and checksum types from `apr-format`):
//!
//! ```text
//! header 32 │ metadata: MessagePack │ payload: zstd(bincode 1.3) │ signature 64 │ public key 32 │ CRC-32
//! └───────────────── what the signature covers ────────────────┘ └──── only where signed ────┘
//! ```
//!
//! The signature covers header, metadata and payload, as aprender has it, so `aprender` verifies and inspects
//! our files. Outside it lie the public key, which we only compare with the pinned keys, and the checksum.
//!
//! Reading is stricter than aprender's (findings: it ignores signatures, trusts the embedded key, accepts
//! trailing bytes and decompresses without bound). [`open`] works on bytes that were read once and goes, in
//! this order, through: size caps, header and bounds, checksum, pinned key and Ed25519 `verify_strict`, task
//! and schema, decryption where it is encrypted (`sealed`), bounded zstd, bounded decode, range checks of every
//! parameter and index. Each failure has its own [`ArtifactError`], and nothing is used before everything held.
//!
//! Writing is reproducible: same pipeline and metadata, same bytes (maps are sorted, no clock is read).
//! [`encode`] makes an unsigned artifact, which [`open`] refuses and only [`open_unsigned`] takes: a trainer
//! has no key. [`sign`] adds the signature without touching the model, so that what was validated is what
//! gets signed.

mod container;
mod file;
mod mapping;
mod metadata;
mod sealed;

pub use container::{Digest, DigestError, Inspection, decrypt, digest, encrypt, inspect, sign};
pub use file::{can_write, read, write_atomic};
pub use mapping::{Contents, contents, map};
pub use metadata::{Metadata, Task, UnknownTask};
pub use sealed::ContentKey;

use crate::forest::PackedForest;
use crate::keys::{KeyId, TrustedKeys};
use crate::pipeline::{Pipeline, PipelineError, PipelineSpec};
use crate::schema::{Schema, SchemaHash};
use bincode::Options;
use container::Parts;
use serde::Deserialize;
use serde_bytes::Bytes;

/// Largest artifact, in bytes.
pub const MAX_FILE: usize = 32 << 20;
/// Largest metadata section, in bytes.
pub const MAX_METADATA: usize = 64 << 10;
/// Largest decompressed payload, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 20;
/// Version of the payload: of its encoding, and of what its parameters mean. A calibration belongs to the scores of
/// the function that it was made with, so it changes with either; metadata names it.
///
/// 1: the first. 2: the deviation judges the largest of the rare features apart.
pub const PAYLOAD_VERSION: u32 = 2;

/// Why bytes are not an artifact to use.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A section or the file is larger than allowed.
    #[error("{what} of {size} bytes is larger than the {limit} allowed")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The bytes end before the header says they do.
    #[error("truncated: {got} bytes of {expected}")]
    Truncated {
        /// Bytes that the header promises.
        expected: usize,
        /// Bytes there are.
        got: usize,
    },
    /// The bytes go on after the header says they end.
    #[error("{0} trailing bytes after the checksum")]
    Trailing(usize),
    /// The header is not that of an artifact this build reads.
    #[error("not an .apr artifact this build reads: {0}")]
    Header(String),
    /// The checksum does not hold: damage, not necessarily malice.
    #[error("checksum mismatch: the file is damaged (stored {stored:08x}, computed {computed:08x})")]
    Checksum {
        /// In the file.
        stored: u32,
        /// Of the file.
        computed: u32,
    },
    /// There is no signature where one is required.
    #[error("the artifact is not signed")]
    Unsigned,
    /// There is a signature where none is expected.
    #[error("the artifact is already signed")]
    Signed,
    /// Signed by a key that is not pinned.
    #[error("signed by key {0}, which is not among the trusted keys")]
    UntrustedKey(KeyId),
    /// The pinned key did not sign these bytes.
    #[error("the signature by key {0} does not match the content")]
    BadSignature(KeyId),
    /// Encrypted, and no key is at hand.
    #[error("the model is encrypted with key {0}, which is not at hand")]
    Encrypted(KeyId),
    /// Encrypted with another key.
    #[error("the model is encrypted with key {needed}, the key given is {given}")]
    WrongContentKey {
        /// The key that it says it was encrypted with.
        needed: KeyId,
        /// The key at hand.
        given: KeyId,
    },
    /// What is encrypted, or what is said about it, was changed.
    #[error("the encrypted model does not open: it, its header or its metadata was changed")]
    Undecryptable,
    /// Not encrypted, where it is to be decrypted, or the other way round.
    #[error("the model is {0}")]
    Encryption(&'static str),
    /// The metadata cannot be read.
    #[error("metadata: {0}")]
    Metadata(String),
    /// A model for something else.
    #[error("the model is for task {got}, {expected} is wanted")]
    Task {
        /// What the caller wants.
        expected: Task,
        /// What the artifact is for.
        got: Task,
    },
    /// Trained on vectors that this build does not make.
    #[error("the model was trained on feature schema {name} ({hash}), which this build does not have")]
    Schema {
        /// The schema's name.
        name: String,
        /// Its hash.
        hash: SchemaHash,
    },
    /// A payload that this build does not read, or would score with otherwise than it was calibrated.
    #[error("payload version {0} is not {PAYLOAD_VERSION}, which this build scores with: {next}", next = instead_of(*.0))]
    PayloadVersion(u32),
    /// The payload decompresses to more or less than the header says.
    #[error("the payload does not decompress to the {declared} bytes declared")]
    Bomb {
        /// What the header says.
        declared: usize,
    },
    /// The payload is not zstd.
    #[error("the payload does not decompress: {0}")]
    Compression(String),
    /// The payload is not a pipeline.
    #[error("the payload does not decode: {0}")]
    Decode(String),
    /// The pipeline is out of range.
    #[error("invalid model: {0}")]
    Model(#[from] PipelineError),
    /// The pipeline or its metadata cannot be written.
    #[error("cannot encode: {0}")]
    Encode(String),
}

/// What to do about a payload of another version.
const fn instead_of(version: u32) -> &'static str {
    if version < PAYLOAD_VERSION {
        "train the model anew with this version of Vigía"
    } else {
        "use the version of Vigía that made it, or a later one"
    }
}

impl ArtifactError {
    /// The failure's kind as one CamelCase word, fit for a condition's reason or a metric's label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "TooLarge",
            Self::Truncated { .. } => "Truncated",
            Self::Trailing(_) => "TrailingBytes",
            Self::Header(_) => "BadHeader",
            Self::Checksum { .. } => "ChecksumMismatch",
            Self::Unsigned => "Unsigned",
            Self::Signed => "AlreadySigned",
            Self::UntrustedKey(_) => "UntrustedKey",
            Self::BadSignature(_) => "BadSignature",
            Self::Encrypted(_) => "Encrypted",
            Self::WrongContentKey { .. } => "WrongContentKey",
            Self::Undecryptable => "Undecryptable",
            Self::Encryption(_) => "EncryptionMismatch",
            Self::Metadata(_) => "BadMetadata",
            Self::Task { .. } => "TaskMismatch",
            Self::Schema { .. } => "SchemaMismatch",
            Self::PayloadVersion(_) => "PayloadVersion",
            Self::Bomb { .. } => "DecompressionBomb",
            Self::Compression(_) => "BadCompression",
            Self::Decode(_) => "BadPayload",
            Self::Model(_) => "InvalidModel",
            Self::Encode(_) => "EncodeFailed",
        }
    }
}

/// An artifact that held.
#[derive(Debug)]
pub struct Artifact {
    /// SHA-256 of all its bytes.
    pub digest: Digest,
    /// Who signed it; `None` from [`open_unsigned`].
    pub signed_by: Option<KeyId>,
    /// What is said about it.
    pub metadata: Metadata,
    /// The pipeline, ready to score.
    pub pipeline: Pipeline,
}

/// What an artifact is read with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reader<'a> {
    trusted: Option<&'a TrustedKeys>,
    key: Option<&'a ContentKey>,
}

impl<'a> Reader<'a> {
    /// Of artifacts that one of these keys has signed.
    pub const fn signed(trusted: &'a TrustedKeys) -> Self {
        Self {
            trusted: Some(trusted),
            key: None,
        }
    }

    /// Of artifacts that nobody has signed; one that somebody has is refused, since nobody has verified it.
    pub const fn unsigned() -> Self {
        Self {
            trusted: None,
            key: None,
        }
    }

    /// And with a key for those that are encrypted.
    #[must_use]
    pub const fn with_key(self, key: Option<&'a ContentKey>) -> Self {
        Self { key, ..self }
    }

    /// Verifies an artifact and makes it ready to score.
    ///
    /// # Errors
    /// The first check that fails, in the order of the module's head.
    pub fn open(self, bytes: &[u8], task: Task) -> Result<Artifact, ArtifactError> {
        let parts = Parts::parse(bytes)?;
        beside(bytes, || {
            let signed_by = self.verify(&parts)?;
            Ok((signed_by, load(&parts, task, self.key)?))
        })
    }

    /// Verifies an artifact and gives its pipeline as data.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn spec(self, bytes: &[u8], task: Task) -> Result<(Metadata, PipelineSpec), ArtifactError> {
        let parts = Parts::parse(bytes)?;
        self.verify(&parts)?;
        let (metadata, schema) = about(&parts, task)?;
        let spec: PipelineSpec = decode(&parts.decompress(self.key)?)?;
        spec.compile(schema)?;
        Ok((metadata, spec))
    }

    fn verify(self, parts: &Parts<'_>) -> Result<Option<KeyId>, ArtifactError> {
        match self.trusted {
            Some(trusted) => parts.verify(trusted).map(Some),
            None if parts.is_signed() => Err(ArtifactError::Signed),
            None => Ok(None),
        }
    }
}

/// Verifies and loads a signed artifact for `task`.
///
/// # Errors
/// As [`Reader::open`].
pub fn open(bytes: &[u8], trusted: &TrustedKeys, task: Task) -> Result<Artifact, ArtifactError> {
    Reader::signed(trusted).open(bytes, task)
}

/// Checks the structure of an unsigned artifact, as a trainer delivers it, and loads it for validation.
///
/// # Errors
/// As [`Reader::open`], and [`ArtifactError::Signed`] where there is a signature, which nobody has verified.
pub fn open_unsigned(bytes: &[u8], task: Task) -> Result<Artifact, ArtifactError> {
    Reader::unsigned().open(bytes, task)
}

/// An unsigned artifact of a pipeline. The pipeline is checked first: what is written can be read.
///
/// # Errors
/// A pipeline that does not compile, or metadata that does not fit.
pub fn encode(metadata: &Metadata, spec: &PipelineSpec) -> Result<Vec<u8>, ArtifactError> {
    spec.compile(schema_of(metadata)?)?;
    let payload = options()
        .serialize(spec)
        .map_err(|e| ArtifactError::Encode(e.to_string()))?;
    container::build(&metadata.to_bytes()?, &payload)
}

/// The digest and whatever `work` makes of the same bytes. Hashing a large artifact takes a third as long as all
/// the rest, and depends on none of it: it gets a thread, if there is one to be had.
fn beside(
    bytes: &[u8],
    work: impl FnOnce() -> Result<(Option<KeyId>, (Metadata, Pipeline)), ArtifactError>,
) -> Result<Artifact, ArtifactError> {
    const LARGE: usize = 128 << 10;
    std::thread::scope(|scope| {
        let hashing = (bytes.len() >= LARGE)
            .then(|| {
                std::thread::Builder::new()
                    .spawn_scoped(scope, || digest(bytes))
                    .ok()
            })
            .flatten();
        let (signed_by, (metadata, pipeline)) = work()?;
        let digest = hashing
            .and_then(|thread| thread.join().ok())
            .unwrap_or_else(|| digest(bytes));
        Ok(Artifact {
            digest,
            signed_by,
            metadata,
            pipeline,
        })
    })
}

fn load(
    parts: &Parts<'_>,
    task: Task,
    key: Option<&ContentKey>,
) -> Result<(Metadata, Pipeline), ArtifactError> {
    let (metadata, schema) = about(parts, task)?;
    let payload = parts.decompress(key)?;
    let spec: PipelineSpec<PackedForest<&Bytes>> = decode(&payload)?;
    let pipeline = spec.compile(schema)?;
    Ok((metadata, pipeline))
}

/// What an artifact says about itself, if it is for `task` and a schema of this build.
fn about(parts: &Parts<'_>, task: Task) -> Result<(Metadata, &'static Schema), ArtifactError> {
    let metadata = Metadata::from_bytes(parts.metadata)?;
    if metadata.task != task {
        return Err(ArtifactError::Task {
            expected: task,
            got: metadata.task,
        });
    }
    let schema = schema_of(&metadata)?;
    Ok((metadata, schema))
}

fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, ArtifactError> {
    options()
        .deserialize(payload)
        .map_err(|e| ArtifactError::Decode(e.to_string()))
}

fn schema_of(metadata: &Metadata) -> Result<&'static Schema, ArtifactError> {
    Schema::by_hash(metadata.schema_hash)
        .filter(|s| s.name() == metadata.schema)
        .ok_or_else(|| ArtifactError::Schema {
            name: metadata.schema.clone(),
            hash: metadata.schema_hash,
        })
}

/// `bincode::serialize`'s encoding, which aprender uses, with a limit and without trailing bytes.
fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MAX_PAYLOAD as u64)
        .reject_trailing_bytes()
}
