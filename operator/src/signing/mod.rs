//! The operator's signing key: an Ed25519 seed in a Secret of its namespace, made when there is none.
//!
//! It is made by a create that fails where there is one already, never by an apply: a key that was
//! overwritten would make every version that it signed untrusted. Nothing but this process holds it; nodes
//! get its public half in their plans.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use vigia_model::artifact::{self, ArtifactError};
use vigia_model::keys::{PublicKey, SigningKey};

use crate::apply::FIELD_MANAGER;

/// Name of the Secret.
pub const SECRET: &str = "vigia-signing-key";
/// Its key: base64 of the 32 bytes of the seed, as text.
pub const SEED: &str = "ed25519.seed";

/// The key.
#[derive(Debug)]
pub struct OperatorKey(SigningKey);

impl OperatorKey {
    /// A key that is at hand.
    pub fn new(key: SigningKey) -> Self {
        Self(key)
    }

    /// The key of the Secret, or a new one.
    ///
    /// # Errors
    /// The Secret cannot be read or made, or what it holds is no key.
    pub async fn load_or_create(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        if let Some(secret) = api.get_opt(SECRET).await.context("read the signing key")? {
            return of_secret(&secret).map(Self);
        }
        let seed = new_seed()?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(SEED.to_owned(), ByteString(seed.into_bytes()))])),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let secret = match api.create(&params, &secret).await {
            Ok(secret) => {
                tracing::info!(target: "audit", secret = SECRET, "a signing key was made, because there was none");
                secret
            }
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.get(SECRET).await.context("read the signing key")?
            }
            Err(error) => return Err(error).context("make the signing key"),
        };
        of_secret(&secret).map(Self)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }

    /// Signs what a trainer made. The same bytes give the same signature (RFC 8032).
    ///
    /// # Errors
    /// The bytes are no artifact, or are signed already.
    pub fn sign(&self, unsigned: &[u8]) -> Result<Bytes, ArtifactError> {
        artifact::sign(unsigned, &self.0).map(Bytes::from)
    }
}

/// Base64 of 32 random bytes.
fn new_seed() -> anyhow::Result<String> {
    use base64::Engine as _;
    use rand::TryRng as _;
    let mut seed = [0; 32];
    rand::rngs::SysRng
        .try_fill_bytes(&mut seed)
        .context("no randomness from the system")?;
    Ok(base64::engine::general_purpose::STANDARD.encode(seed))
}

fn of_secret(secret: &Secret) -> anyhow::Result<SigningKey> {
    let data = secret.data.as_ref().and_then(|data| data.get(SEED));
    let bytes =
        data.with_context(|| format!("Secret {SECRET} has no key {SEED}: put the base64 of 32 bytes there"))?;
    // A person may have put the bytes there, or their base64, or PKCS#8.
    if let Ok(seed) = <[u8; 32]>::try_from(bytes.0.as_slice()) {
        return Ok(SigningKey::from_seed(seed));
    }
    let text =
        std::str::from_utf8(&bytes.0).with_context(|| format!("{SEED} of Secret {SECRET} is no text"))?;
    SigningKey::parse(text).with_context(|| format!("{SEED} of Secret {SECRET}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(value: &[u8]) -> Secret {
        Secret {
            data: Some(BTreeMap::from([(SEED.to_owned(), ByteString(value.to_vec()))])),
            ..Secret::default()
        }
    }

    #[test]
    fn a_seed_is_read_as_text_or_as_bytes() {
        let seed = [7u8; 32];
        let key = SigningKey::from_seed(seed).public();
        assert_eq!(of_secret(&secret(&seed)).unwrap().public(), key);
        let text = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
        assert_eq!(of_secret(&secret(text.as_bytes())).unwrap().public(), key);
    }

    #[test]
    fn what_is_no_key_is_said_so() {
        assert!(
            of_secret(&Secret::default())
                .unwrap_err()
                .to_string()
                .contains(SEED)
        );
        for bad in [&b"short"[..], b"", b"\xff\xfe", &[1; 31]] {
            assert!(of_secret(&secret(bad)).is_err());
        }
    }

    #[test]
    fn new_seeds_are_keys_and_differ() {
        let (a, b) = (new_seed().unwrap(), new_seed().unwrap());
        assert_ne!(a, b);
        assert!(of_secret(&secret(a.as_bytes())).is_ok());
    }
}
