//! The bytes of a container: taking them apart, proving who signed them, putting them together.

use super::sealed::{self, ContentKey};
use super::{ArtifactError, MAX_FILE, MAX_METADATA, MAX_PAYLOAD, Metadata};
use crate::keys::{KeyId, SigningKey, TrustedKeys};
use crate::strict;
use apr_format::{Compression, Flags, HEADER_SIZE, Header, ModelType};
use ed25519_dalek::Signature;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

const SIGNATURE: usize = 64;
const PUBLIC_KEY: usize = 32;
const CHECKSUM: usize = 4;
/// Trees are columns of few values and of noise: what higher levels find in a megabyte of them takes a node twice as long
/// to put together again, and saves nothing. A reader need not know: any level is `ZstdDefault`.
const ZSTD_LEVEL: i32 = 1;

/// SHA-256 of an artifact's bytes; its text is `sha256:` and 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// The text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64 lower-case hex digits")]
pub struct DigestError;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix("sha256:")
            .and_then(super::metadata::hex32)
            .map(Self)
            .ok_or(DigestError)
    }
}

/// Digest of an artifact's bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// An artifact taken apart: sizes, bounds, header and checksum hold, nothing else is known yet.
pub(super) struct Parts<'a> {
    header: Header,
    /// What a signature covers.
    covered: &'a [u8],
    pub(super) metadata: &'a [u8],
    payload: &'a [u8],
    signature: Option<(&'a [u8; SIGNATURE], &'a [u8; PUBLIC_KEY])>,
}

impl<'a> Parts<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        capped("artifact", bytes.len() as u64, MAX_FILE)?;
        if bytes.len() < HEADER_SIZE {
            return Err(ArtifactError::Truncated {
                expected: HEADER_SIZE + CHECKSUM,
                got: bytes.len(),
            });
        }
        let (head, _) = bytes.split_at(HEADER_SIZE);
        let header = Header::from_bytes(head).map_err(|e| ArtifactError::Header(e.to_string()))?;
        check_header(&header, head)?;
        capped("metadata", header.metadata_size.into(), MAX_METADATA)?;
        capped("payload", header.payload_size.into(), MAX_FILE)?;
        capped(
            "decompressed payload",
            header.uncompressed_size.into(),
            MAX_PAYLOAD,
        )?;

        // All three were capped, so the sums below cannot overflow.
        let metadata_end = HEADER_SIZE + header.metadata_size as usize;
        let covered_end = metadata_end + header.payload_size as usize;
        let signed = header.flags.is_signed();
        let expected = covered_end + if signed { SIGNATURE + PUBLIC_KEY } else { 0 } + CHECKSUM;
        if bytes.len() < expected {
            return Err(ArtifactError::Truncated {
                expected,
                got: bytes.len(),
            });
        }
        if bytes.len() > expected {
            return Err(ArtifactError::Trailing(bytes.len() - expected));
        }
        let (content, stored) = bytes.split_at(expected - CHECKSUM);
        let stored = u32::from_le_bytes([stored[0], stored[1], stored[2], stored[3]]);
        let computed = crc32fast::hash(content);
        if stored != computed {
            return Err(ArtifactError::Checksum { stored, computed });
        }
        let (covered, rest) = content.split_at(covered_end);
        let signature = rest
            .split_first_chunk()
            .and_then(|(s, key)| Some((s, key.try_into().ok()?)));
        Ok(Self {
            header,
            covered,
            metadata: &bytes[HEADER_SIZE..metadata_end],
            payload: &bytes[metadata_end..covered_end],
            signature,
        })
    }

    pub(super) fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// Id of the key that the file claims to be signed with.
    fn claimed_key(&self) -> Option<KeyId> {
        self.signature.map(|(_, key)| KeyId::of(key))
    }

    /// Who signed it, proven with a pinned key; the embedded key only says which.
    pub(super) fn verify(&self, trusted: &TrustedKeys) -> Result<KeyId, ArtifactError> {
        let (signature, key) = self.signature.ok_or(ArtifactError::Unsigned)?;
        let id = KeyId::of(key);
        let key = trusted.find(key).ok_or(ArtifactError::UntrustedKey(id))?;
        if strict::verifies(key, self.covered, &Signature::from_bytes(signature)) {
            Ok(id)
        } else {
            Err(ArtifactError::BadSignature(id))
        }
    }

    fn is_encrypted(&self) -> bool {
        self.header.flags.is_encrypted()
    }

    /// What an encrypted payload belongs to: the header as it was before anybody signed, and the metadata.
    fn sealed_about(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        header.flags = flags(false, true);
        [&header.to_bytes()[..], self.metadata].concat()
    }

    /// The payload as it was compressed.
    fn compressed(&self, key: Option<&ContentKey>) -> Result<Cow<'a, [u8]>, ArtifactError> {
        if self.is_encrypted() {
            sealed::unseal(self.payload, &self.sealed_about(), key).map(Cow::Owned)
        } else {
            Ok(Cow::Borrowed(self.payload))
        }
    }

    /// The payload, exactly as long as the header declares.
    pub(super) fn decompress(&self, key: Option<&ContentKey>) -> Result<Vec<u8>, ArtifactError> {
        let compressed = self.compressed(key)?;
        let declared = self.header.uncompressed_size as usize;
        let mut out = Vec::with_capacity(declared);
        let mut decoder = zstd::zstd_safe::DCtx::try_create()
            .ok_or_else(|| ArtifactError::Compression("no memory".into()))?;
        decoder.decompress(&mut out, &compressed).map_err(|code| {
            // zstd's own words for "needs more room than the header declared".
            let name = zstd::zstd_safe::get_error_name(code);
            if name == "Destination buffer is too small" {
                ArtifactError::Bomb { declared }
            } else {
                ArtifactError::Compression(name.to_owned())
            }
        })?;
        if out.len() == declared {
            Ok(out)
        } else {
            Err(ArtifactError::Bomb { declared })
        }
    }
}

fn capped(what: &'static str, size: u64, limit: usize) -> Result<(), ArtifactError> {
    let limit = limit as u64;
    if size > limit {
        Err(ArtifactError::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}

fn check_header(header: &Header, head: &[u8]) -> Result<(), ArtifactError> {
    let refuse = |why: &str| Err(ArtifactError::Header(why.to_owned()));
    if header.version != apr_format::FORMAT_VERSION {
        return refuse("format version is not 1.0");
    }
    if header.model_type != ModelType::Custom {
        return refuse("model type is not Custom");
    }
    if header.compression != Compression::ZstdDefault {
        return refuse("payload is not compressed with zstd");
    }
    if header.flags.bits() != flags(header.flags.is_signed(), header.flags.is_encrypted()).bits() {
        return refuse("flags other than signed and encrypted are set");
    }
    // The parser drops reserved bits and bytes; writing what it understood shows whether there were any.
    if header.to_bytes() != *head {
        return refuse("reserved bytes are set");
    }
    Ok(())
}

fn flags(signed: bool, encrypted: bool) -> Flags {
    let mut flags = Flags::new();
    if signed {
        flags = flags.with_signed();
    }
    if encrypted {
        flags = flags.with_encrypted();
    }
    flags
}

fn header_for(metadata: &[u8], payload: &[u8], uncompressed: usize) -> Result<Header, ArtifactError> {
    capped("metadata", metadata.len() as u64, MAX_METADATA)?;
    capped("decompressed payload", uncompressed as u64, MAX_PAYLOAD)?;
    capped("payload", payload.len() as u64, MAX_FILE)?;
    let size = |n: usize| u32::try_from(n).map_err(|e| ArtifactError::Encode(e.to_string()));
    let mut header = Header::new(ModelType::Custom);
    header.compression = Compression::ZstdDefault;
    header.metadata_size = size(metadata.len())?;
    header.payload_size = size(payload.len())?;
    header.uncompressed_size = size(uncompressed)?;
    Ok(header)
}

/// An unsigned container around metadata and an uncompressed payload.
pub(super) fn build(metadata: &[u8], payload: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let compressed =
        zstd::bulk::compress(payload, ZSTD_LEVEL).map_err(|e| ArtifactError::Encode(e.to_string()))?;
    let header = header_for(metadata, &compressed, payload.len())?;
    assemble(&header, metadata, &compressed)
}

fn assemble(header: &Header, metadata: &[u8], payload: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let mut bytes = Vec::with_capacity(HEADER_SIZE + metadata.len() + payload.len() + CHECKSUM);
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(metadata);
    bytes.extend_from_slice(payload);
    seal(&mut bytes);
    capped("artifact", bytes.len() as u64, MAX_FILE)?;
    Ok(bytes)
}

/// Encrypts the payload of an unsigned artifact; header and metadata stay readable. Sign it afterwards: a signature
/// covers what is encrypted, so that it can be checked without the key.
///
/// # Errors
/// Bytes that are no artifact, or are signed or encrypted already.
pub fn encrypt(unsigned: &[u8], key: &ContentKey) -> Result<Vec<u8>, ArtifactError> {
    let parts = Parts::parse(unsigned)?;
    if parts.is_signed() {
        return Err(ArtifactError::Signed);
    }
    if parts.is_encrypted() {
        return Err(ArtifactError::Encryption("encrypted already"));
    }
    let mut header = parts.header.clone();
    header.flags = flags(false, true);
    let length = parts.payload.len() + sealed::OVERHEAD;
    capped("payload", length as u64, MAX_FILE)?;
    header.payload_size = u32::try_from(length).map_err(|e| ArtifactError::Encode(e.to_string()))?;
    let about = [&header.to_bytes()[..], parts.metadata].concat();
    assemble(&header, parts.metadata, &key.seal(parts.payload, &about)?)
}

/// The artifact that was encrypted, to the byte; unsigned, since signatures cover what is encrypted. Nothing of it is
/// verified but that it was encrypted with this key.
///
/// # Errors
/// Bytes that are no encrypted artifact, or encrypted with another key.
pub fn decrypt(bytes: &[u8], key: &ContentKey) -> Result<Vec<u8>, ArtifactError> {
    let parts = Parts::parse(bytes)?;
    if !parts.is_encrypted() {
        return Err(ArtifactError::Encryption("not encrypted"));
    }
    let payload = parts.compressed(Some(key))?;
    let header = header_for(parts.metadata, &payload, parts.header.uncompressed_size as usize)?;
    assemble(&header, parts.metadata, &payload)
}

/// Signs an unsigned artifact. Metadata and payload stay as they are; the header gains the signed flag.
///
/// # Errors
/// Bytes that are no artifact, or are signed already.
pub fn sign(unsigned: &[u8], key: &SigningKey) -> Result<Vec<u8>, ArtifactError> {
    let parts = Parts::parse(unsigned)?;
    if parts.is_signed() {
        return Err(ArtifactError::Signed);
    }
    let mut header = parts.header.clone();
    header.flags = header.flags.with_signed();
    let mut bytes = Vec::with_capacity(unsigned.len() + SIGNATURE + PUBLIC_KEY);
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(&parts.covered[HEADER_SIZE..]);
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature);
    bytes.extend_from_slice(key.public().as_bytes());
    seal(&mut bytes);
    capped("artifact", bytes.len() as u64, MAX_FILE)?;
    Ok(bytes)
}

fn seal(bytes: &mut Vec<u8>) {
    let checksum = crc32fast::hash(bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
}

/// What a file says about itself. Nothing of it is verified.
#[derive(Debug)]
pub struct Inspection {
    /// SHA-256 of all its bytes.
    pub digest: Digest,
    /// Id of the embedded key, where there is a signature.
    pub claimed_key: Option<KeyId>,
    /// Id of the key that the payload is encrypted with, where it is.
    pub encrypted_with: Option<KeyId>,
    /// Size of the file.
    pub size: usize,
    /// Size of the payload as stored.
    pub payload_size: usize,
    /// Size of the payload decompressed, as declared.
    pub uncompressed_size: usize,
    /// The metadata.
    pub metadata: Metadata,
}

/// What bytes say about themselves, for people. Checks structure and checksum, no signature.
///
/// # Errors
/// Bytes that are no artifact.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, ArtifactError> {
    let parts = Parts::parse(bytes)?;
    Ok(Inspection {
        digest: digest(bytes),
        claimed_key: parts.claimed_key(),
        encrypted_with: sealed::key_of(parts.payload).filter(|_| parts.is_encrypted()),
        size: bytes.len(),
        payload_size: parts.payload.len(),
        uncompressed_size: parts.header.uncompressed_size as usize,
        metadata: Metadata::from_bytes(parts.metadata)?,
    })
}
