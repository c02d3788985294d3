//! Encrypted artifacts: only the key opens them, and nothing of them can be exchanged.

use crate::workload::{Store, train};
use proptest::prelude::*;
use std::sync::OnceLock;
use vigia_model::artifact::{self, Artifact, ArtifactError, ContentKey, Metadata, Reader, Task};
use vigia_model::keys::{KeyError, SigningKey, TrustedKeys};
use vigia_model::schema::Schema;

const METADATA: usize = 32;
const FLAGS: usize = 21;
const ENCRYPTED: u8 = 1;

fn key() -> ContentKey {
    ContentKey::from_bytes(&[3; 32])
}

fn signer() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

fn plain() -> &'static [u8] {
    static PLAIN: OnceLock<Vec<u8>> = OnceLock::new();
    PLAIN.get_or_init(|| {
        let metadata = Metadata::new("redis", Task::Anomaly, Schema::syscalls_v1());
        artifact::encode(&metadata, &train(&mut Store::new(1), 120, 60)).expect("encodes")
    })
}

fn sealed() -> &'static [u8] {
    static SEALED: OnceLock<Vec<u8>> = OnceLock::new();
    SEALED.get_or_init(|| artifact::encrypt(plain(), &key()).expect("encrypts"))
}

fn open(bytes: &[u8], key: Option<&ContentKey>) -> Result<Artifact, ArtifactError> {
    let trusted = TrustedKeys::new([signer().public()]);
    Reader::signed(&trusted).with_key(key).open(bytes, Task::Anomaly)
}

/// Signed by the trusted key after it was changed: what the signature alone would let pass.
fn signed_after(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = sealed().to_vec();
    change(&mut bytes);
    let end = bytes.len() - 4;
    let checksum = apr_format::crc32(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    artifact::sign(&bytes, &signer()).expect("a well-formed container")
}

#[test]
fn the_key_opens_what_was_encrypted_and_then_signed() {
    let signed = artifact::sign(sealed(), &signer()).expect("signs");
    let opened = open(&signed, Some(&key())).expect("opens");
    assert_eq!(opened.signed_by, Some(signer().id()));
    let reference = artifact::open_unsigned(plain(), Task::Anomaly).expect("opens");
    assert_eq!(opened.pipeline.reference(), reference.pipeline.reference());
    let unsigned = Reader::unsigned()
        .with_key(Some(&key()))
        .open(sealed(), Task::Anomaly);
    assert!(unsigned.is_ok());

    let found = artifact::inspect(&signed).expect("inspects without the key");
    assert_eq!(found.encrypted_with, Some(key().id()));
    assert_eq!(found.metadata.name, "redis");
    assert_eq!(artifact::inspect(plain()).expect("inspects").encrypted_with, None);
}

#[test]
fn without_the_key_it_is_refused_by_name() {
    let signed = artifact::sign(sealed(), &signer()).expect("signs");
    let error = open(&signed, None).expect_err("no key");
    assert_eq!(error.reason(), "Encrypted");
    assert!(error.to_string().contains(&key().id().to_string()), "{error}");
    let other = ContentKey::from_bytes(&[4; 32]);
    let error = open(&signed, Some(&other)).expect_err("another key");
    assert_eq!(error.reason(), "WrongContentKey");
    assert!(error.to_string().contains(&other.id().to_string()), "{error}");
}

#[test]
fn decrypting_gives_the_same_bytes_and_encrypting_never_does() {
    let again = artifact::encrypt(plain(), &key()).expect("encrypts");
    assert_ne!(again, sealed(), "the nonce is fresh");
    for sealed in [sealed(), &again] {
        assert_eq!(artifact::decrypt(sealed, &key()).expect("decrypts"), plain());
    }
    let signed = artifact::sign(sealed(), &signer()).expect("signs");
    assert_eq!(artifact::decrypt(&signed, &key()).expect("decrypts"), plain());
    // What the payload holds is not in the file.
    let payload = &plain()[plain().len() - 600..plain().len() - 4];
    for chunk in payload.chunks_exact(16) {
        assert!(!sealed().windows(16).any(|window| window == chunk));
    }
}

#[test]
fn what_is_signed_or_encrypted_is_not_encrypted_again() {
    let signed = artifact::sign(plain(), &signer()).expect("signs");
    let reason = |result: Result<Vec<u8>, ArtifactError>| result.expect_err("refused").reason();
    assert_eq!(reason(artifact::encrypt(&signed, &key())), "AlreadySigned");
    assert_eq!(reason(artifact::encrypt(sealed(), &key())), "EncryptionMismatch");
    assert_eq!(reason(artifact::decrypt(plain(), &key())), "EncryptionMismatch");
}

#[test]
fn metadata_of_another_model_does_not_fit() {
    let renamed = signed_after(|bytes| {
        let at = bytes.windows(5).position(|w| w == b"redis").expect("the name");
        bytes[at..at + 5].copy_from_slice(b"nginx");
    });
    assert_eq!(
        open(&renamed, Some(&key())).expect_err("refused").reason(),
        "Undecryptable"
    );
}

#[test]
fn saying_that_it_is_not_encrypted_does_not_help() {
    let bytes = signed_after(|bytes| bytes[FLAGS] &= !ENCRYPTED);
    assert_eq!(
        open(&bytes, Some(&key())).expect_err("refused").reason(),
        "BadCompression"
    );
    let mut plain = plain().to_vec();
    plain[FLAGS] |= ENCRYPTED;
    let end = plain.len() - 4;
    let checksum = apr_format::crc32(&plain[..end]);
    plain[end..].copy_from_slice(&checksum.to_le_bytes());
    let error = Reader::unsigned()
        .with_key(Some(&key()))
        .open(&plain, Task::Anomaly);
    assert_eq!(error.expect_err("refused").reason(), "WrongContentKey");
}

#[test]
fn keys_are_base64_of_32_bytes() {
    let text = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n";
    assert_eq!(ContentKey::parse(text).expect("a key").id(), key().id());
    for wrong in ["", "AwMD", "not base64", &text.trim()[1..]] {
        assert!(ContentKey::parse(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(format!("{:?}", key()), format!("ContentKey({})", key().id()));
    let marked = ContentKey::to_text(&[3; 32]);
    assert_eq!(marked, format!("vigia-content-key:{}", text.trim()));
    assert_eq!(ContentKey::parse(&marked).expect("a key").id(), key().id());
    assert!(matches!(SigningKey::parse(&marked), Err(KeyError::ForContent)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bit_of_what_is_encrypted_changes_unnoticed(at: prop::sample::Index, bit in 0u8..8) {
        let size = u32::from_le_bytes(sealed()[8..12].try_into().expect("four bytes")) as usize;
        let start = METADATA + size;
        let at = start + at.index(sealed().len() - 4 - start);
        let bytes = signed_after(|bytes| bytes[at] ^= 1 << bit);
        let reason = open(&bytes, Some(&key())).expect_err("refused").reason();
        prop_assert!(["Undecryptable", "WrongContentKey"].contains(&reason), "{}", reason);
    }
}
