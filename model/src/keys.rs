//! Ed25519 keys: where they are read from and what they are called.
//!
//! A key id is the first 16 hex digits of SHA-256 over the 32 bytes of the public key. It is a name, never
//! a proof: trust is decided by comparing whole keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest key file that is read.
const MAX_KEY_FILE: u64 = 16 * 1024;
/// What a key to encrypt with begins with, so that neither kind is taken for the other.
pub(crate) const CONTENT_MARK: &str = "vigia-content-key:";
/// What a key to sign with begins with, for the same reason.
const SIGNING_MARK: &str = "vigia-signing-key:";
/// Most keys that one file or Secret may list.
const MAX_KEYS: usize = 64;

/// Short name of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// Id of the key with these bytes, whether or not they are a point on the curve.
    pub(crate) fn of(key: &[u8; 32]) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self(id)
    }

    /// The id as it was written down.
    pub(crate) const fn from_bytes(id: [u8; 8]) -> Self {
        Self(id)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Others on the machine can read the file.
    #[error("{path} has mode {mode:04o}: a private key must be readable by its owner alone (chmod 600)")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is no key.
    #[error("not an Ed25519 {0} key: expected PEM or the base64 of 32 bytes")]
    Format(&'static str),
    /// The text is no key to encrypt with.
    #[error("not a key to encrypt with: expected vigia-content-key: and the base64 of 32 bytes")]
    Content,
    /// The text is a key to encrypt with, where one to sign with is needed.
    #[error("a key to encrypt with, not one to sign with")]
    ForContent,
    /// The text may be a key to sign with, where one to encrypt with is needed.
    #[error(
        "does not say that it is a key to encrypt with (vigia-content-key:), so that it may be one to sign with"
    )]
    Unmarked,
    /// The text may be a key to encrypt with, where one to sign with is needed.
    #[error(
        "does not say that it is a key to sign with (vigia-signing-key:, or PEM), so that it may be one to encrypt with"
    )]
    UnmarkedSigning,
    /// The text is a private key, where a public one is needed.
    #[error("a private key, where the public one is needed")]
    Private,
    /// Too many keys, or too long a file.
    #[error("too large for a list of keys")]
    TooLarge,
    /// A key that accepts forged signatures.
    #[error("the public key is weak (of small order)")]
    Weak,
    /// The system gives no randomness.
    #[error("no randomness from the system: {0}")]
    Random(getrandom::Error),
}

/// A private key that signs artifacts. The bytes are wiped on drop; `Debug` shows the public key's id.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

impl SigningKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// The system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Random)?;
        Ok(Self::from_seed(seed))
    }

    /// The key with this seed (RFC 8032's private key).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// What a file of the key with this seed holds.
    pub fn to_text(seed: &[u8; 32]) -> String {
        format!("{SIGNING_MARK}{}", STANDARD.encode(seed))
    }

    /// Reads PKCS#8 PEM (`openssl genpkey -algorithm ed25519`) or the base64 of a 32-byte seed, with what says its kind
    /// before it or, as it once was written, without.
    ///
    /// # Errors
    /// Neither, or a key to encrypt with.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::parse_marked(text).map(|(key, _)| key)
    }

    /// The key, and whether the text says that it is one to sign with.
    fn parse_marked(text: &str) -> Result<(Self, bool), KeyError> {
        let text = text.trim();
        if text.starts_with(CONTENT_MARK) {
            return Err(KeyError::ForContent);
        }
        if text.starts_with("-----") {
            let key =
                ed25519_dalek::SigningKey::from_pkcs8_pem(text).map_err(|_| KeyError::Format("private"))?;
            return Ok((Self(key), true));
        }
        let marked = text.strip_prefix(SIGNING_MARK);
        let seed = bytes32(marked.unwrap_or(text)).ok_or(KeyError::Format("private"))?;
        Ok((Self::from_seed(seed), marked.is_some()))
    }

    /// Reads a key file that only its owner may read and that says its kind: what was signed with a key to encrypt with
    /// could be signed by whoever may read models.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, it holds no key, or it does not say that this is one to sign with.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        match Self::parse_marked(&private_text(path)?)? {
            (key, true) => Ok(key),
            (_, false) => Err(KeyError::UnmarkedSigning),
        }
    }

    /// PKCS#8 PEM of the private key, for writing to a file of mode 0600 or a Secret.
    ///
    /// # Errors
    /// None is known; the encoder's are passed on.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let pem = self
            .0
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| KeyError::Format("private"))?;
        Ok(pem.to_string())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Id of the public half.
    pub fn id(&self) -> KeyId {
        self.public().id()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads SPKI PEM or the base64 of 32 bytes.
    ///
    /// # Errors
    /// Neither, a key of another kind, or one of small order.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.starts_with(CONTENT_MARK) {
            return Err(KeyError::ForContent);
        }
        if text.starts_with(SIGNING_MARK) || text.starts_with("-----BEGIN PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let key = if text.starts_with("-----") {
            VerifyingKey::from_public_key_pem(text).map_err(|_| KeyError::Format("public"))?
        } else {
            let bytes = bytes32(text).ok_or(KeyError::Format("public"))?;
            VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Format("public"))?
        };
        if key.is_weak() {
            Err(KeyError::Weak)
        } else {
            Ok(Self(key))
        }
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Base64 of the 32 bytes.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.as_bytes())
    }

    /// SPKI PEM.
    ///
    /// # Errors
    /// None is known; the encoder's are passed on.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .map_err(|_| KeyError::Format("public"))
    }
}

/// The pinned keys: the only ones whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// Trust in exactly these keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut trusted = Self::default();
        trusted.extend(keys);
        trusted
    }

    /// Reads any number of PEM blocks and base64 lines; empty lines and those starting with # do not count.
    ///
    /// # Errors
    /// Anything that is no key: a typing error must not silently shrink the set.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() as u64 > MAX_KEY_FILE {
            return Err(KeyError::TooLarge);
        }
        let mut keys = Self::default();
        let mut pem: Option<String> = None;
        for line in text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            match &mut pem {
                None if line.starts_with("-----BEGIN") => pem = Some(format!("{line}\n")),
                None => keys.extend([PublicKey::parse(line)?]),
                Some(block) => {
                    block.push_str(line);
                    block.push('\n');
                    if line.starts_with("-----END") {
                        keys.extend([PublicKey::parse(block)?]);
                        pem = None;
                    }
                }
            }
        }
        match pem {
            Some(_) => Err(KeyError::Format("public")),
            None if keys.0.len() > MAX_KEYS => Err(KeyError::TooLarge),
            None => Ok(keys),
        }
    }

    /// Adds keys; those it has already stay once.
    pub fn extend(&mut self, keys: impl IntoIterator<Item = PublicKey>) {
        for key in keys {
            if !self.0.contains(&key) {
                self.0.push(key);
            }
        }
    }

    /// True where nothing is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }

    pub(crate) fn find(&self, bytes: &[u8; 32]) -> Option<&VerifyingKey> {
        self.0.iter().map(|k| &k.0).find(|k| k.as_bytes() == bytes)
    }
}

/// Text of a key file that only its owner may read.
pub(crate) fn private_text(path: &Path) -> Result<String, KeyError> {
    let io = |source| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

fn bytes32(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
