//! Payloads that only whoever holds a key can read: AES-256-GCM (NIST SP 800-38D).
//!
//! A sealed payload is `key id 8 │ nonce 12 │ ciphertext │ tag 16`, in the place of the compressed one. Header and
//! metadata stay readable and are the associated data, so that neither can be moved to another payload; only the flag
//! that says "signed" is left out of that, because a model is signed after it was sealed. The nonce is drawn anew each
//! time: sealing is the one thing about artifacts whose bytes do not repeat. With 96 random bits one key is good for
//! 2^32 models.
//!
//! The key's id is the start of a hash of it, which tells a wrong key from damaged content and gives nothing of a key
//! of 256 random bits away. aprender's own encryption derives keys from passwords and leaves header and metadata
//! unprotected; its tools say of our files that they are encrypted, and cannot open them.

use super::ArtifactError;
use crate::keys::{CONTENT_MARK, KeyError, KeyId, private_text};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

const ID: usize = 8;
const NONCE: usize = 12;
const TAG: usize = 16;
/// What a sealed payload is longer than what is in it.
pub(super) const OVERHEAD: usize = ID + NONCE + TAG;

/// A key that models are encrypted with. `Debug` shows its id.
pub struct ContentKey {
    id: KeyId,
    cipher: Aes256Gcm,
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentKey({})", self.id)
    }
}

impl ContentKey {
    /// The key with these bytes, which should be random.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let named = Sha256::new()
            .chain_update("vigia content key")
            .chain_update(bytes);
        Self {
            id: KeyId::of(&named.finalize().into()),
            cipher: Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(bytes)),
        }
    }

    /// What a file of the key with these bytes holds.
    pub fn to_text(bytes: &[u8; 32]) -> String {
        format!("{CONTENT_MARK}{}", STANDARD.encode(bytes))
    }

    /// Reads the base64 of 32 bytes, with what says their kind before it or, as it once was written, without: a key that
    /// is not the one opens nothing.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::parse_marked(text).map(|(key, _)| key)
    }

    /// The key, and whether the text says that it is one to encrypt with.
    fn parse_marked(text: &str) -> Result<(Self, bool), KeyError> {
        let text = text.trim();
        let marked = text.strip_prefix(CONTENT_MARK);
        let bytes = STANDARD.decode(marked.unwrap_or(text)).ok();
        let bytes: [u8; 32] = bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(KeyError::Content)?;
        Ok((Self::from_bytes(&bytes), marked.is_some()))
    }

    /// Reads a key file that only its owner may read.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it holds no key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&private_text(path)?)
    }

    /// As [`ContentKey::load`], of a file that says its kind: a model that was sealed with a key to sign with could be
    /// read only by who may sign.
    ///
    /// # Errors
    /// As for [`ContentKey::load`], or the file does not say that it holds a key to encrypt with.
    pub fn load_marked(path: &Path) -> Result<Self, KeyError> {
        match Self::parse_marked(&private_text(path)?)? {
            (key, true) => Ok(key),
            (_, false) => Err(KeyError::Unmarked),
        }
    }

    /// The key's name, which is no secret.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn seal(&self, content: &[u8], about: &[u8]) -> Result<Vec<u8>, ArtifactError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)
            .map_err(|error| ArtifactError::Encode(format!("no randomness from the system: {error}")))?;
        let payload = Payload {
            msg: content,
            aad: about,
        };
        let sealed = self.cipher.encrypt(Nonce::from_slice(&nonce), payload);
        let sealed =
            sealed.map_err(|_| ArtifactError::Encode("the content is too long to encrypt".into()))?;
        Ok([self.id.as_bytes(), &nonce[..], &sealed].concat())
    }
}

/// What a sealed payload holds, if `key` is the one and neither it nor what it is `about` was changed.
pub(super) fn unseal(
    sealed: &[u8],
    about: &[u8],
    key: Option<&ContentKey>,
) -> Result<Vec<u8>, ArtifactError> {
    let needed = key_of(sealed).ok_or(ArtifactError::Undecryptable)?;
    let key = key.ok_or(ArtifactError::Encrypted(needed))?;
    if key.id != needed {
        let given = key.id;
        return Err(ArtifactError::WrongContentKey { needed, given });
    }
    let (nonce, content) = sealed[ID..].split_at(NONCE);
    let payload = Payload {
        msg: content,
        aad: about,
    };
    key.cipher
        .decrypt(Nonce::from_slice(nonce), payload)
        .map_err(|_| ArtifactError::Undecryptable)
}

/// Which key a payload says it was sealed with.
pub(super) fn key_of(sealed: &[u8]) -> Option<KeyId> {
    let id = sealed.first_chunk().filter(|_| sealed.len() >= OVERHEAD)?;
    Some(KeyId::from_bytes(*id))
}
