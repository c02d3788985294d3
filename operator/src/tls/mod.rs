//! TLS of the gRPC server: material that the operator makes itself, keeps in a Secret, and rotates.
//!
//! | object of the operator's namespace | key |
//! | --- | --- |
//! | Secret `vigia-tls` | `ca.crt`, `ca.key`, `tls.crt`, `tls.key`, `former-ca.crt` |
//! | ConfigMap `vigia-ca` | `ca.crt`: what agents and trainers trust |
//!
//! Each handshake takes the certificate of now, so a rotation needs no restart and cuts no connection.

pub mod pki;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::apply::Door;
use pki::{Material, Pair};

/// Name of the Secret.
pub const SECRET: &str = "vigia-tls";
/// Name of the ConfigMap.
pub const CA: &str = "vigia-ca";
/// Key of the CA, in both.
pub const CA_CRT: &str = "ca.crt";

/// How often it is looked whether something is due, and again after an error.
const LOOK: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(30);

/// The certificate of now.
#[derive(Debug)]
pub struct Current(ArcSwap<CertifiedKey>);

impl Current {
    /// Of material.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn new(material: &Material) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(
            &material.server,
        )?))))
    }

    /// Takes the next certificate, for handshakes from now on.
    ///
    /// # Errors
    /// As [`Self::new`]; the former one stays.
    pub fn set(&self, material: &Material) -> anyhow::Result<()> {
        self.0.store(Arc::new(certified(&material.server)?));
        Ok(())
    }

    /// Settings of a server that asks for the certificate at each handshake.
    ///
    /// # Errors
    /// None is known.
    pub fn server(self: &Arc<Self>) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("versions of TLS")?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(pair: &Pair) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .context("the server's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("the server's key")?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).context("the server's certificate and key")
}

/// Names that the server is called by: those of its Service, and where a person forwards its port.
pub fn names(service: &str, namespace: &str) -> Vec<String> {
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        service.to_owned(),
        "localhost".to_owned(),
    ]
}

/// Where the material is kept.
pub struct Keeper {
    client: Client,
    door: Door,
    namespace: String,
    names: Vec<String>,
}

impl Keeper {
    /// Of the operator's namespace, for the names of its server.
    pub fn new(client: Client, door: Door, namespace: &str, names: Vec<String>) -> Self {
        Self {
            client,
            door,
            namespace: namespace.to_owned(),
            names,
        }
    }

    /// The material of now: made where there is none, renewed where it is due, and published. Writes nothing
    /// where nothing changed.
    ///
    /// # Errors
    /// The API server, or no randomness.
    pub async fn load_or_create(&self, now: Timestamp) -> anyhow::Result<Material> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get_opt(SECRET).await.context("read Secret vigia-tls")?;
        let material = match secret.as_ref().and_then(of_secret) {
            Some(material) => material.renew(&self.names, now)?,
            None => Material::new(&self.names, now)?,
        };
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = maps.get_opt(CA).await.context("read ConfigMap vigia-ca")?;
        // The Secret first: what is published must be what a restart finds.
        let wanted = to_secret(&material, &self.namespace);
        if self
            .door
            .object(secret.as_ref(), &wanted)
            .await
            .context("write Secret vigia-tls")?
            == crate::apply::Outcome::Written
        {
            tracing::info!(target: "audit", secret = SECRET, "the server's certificate was made anew");
        }
        let published = ConfigMap {
            metadata: meta(CA, &self.namespace),
            data: Some(BTreeMap::from([(CA_CRT.to_owned(), material.bundle())])),
            ..ConfigMap::default()
        };
        self.door
            .object(map.as_ref(), &published)
            .await
            .context("write ConfigMap vigia-ca")?;
        Ok(material)
    }

    /// Looks now and then whether something is due, until `shutdown`.
    pub async fn keep(self, current: Arc<Current>, shutdown: CancellationToken) {
        let mut wait = LOOK;
        while shutdown
            .run_until_cancelled(tokio::time::sleep(wait))
            .await
            .is_some()
        {
            let renewed = self.load_or_create(Timestamp::now()).await;
            wait = match renewed.and_then(|material| current.set(&material)) {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the server's certificate could not be looked after"
                    );
                    RETRY
                }
            };
        }
    }
}

fn meta(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

fn of_secret(secret: &Secret) -> Option<Material> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let pair = |certificate, key| {
        Some(Pair {
            certificate: text(certificate)?,
            key: text(key)?,
        })
    };
    Some(Material {
        ca: pair(CA_CRT, "ca.key")?,
        former_ca: text("former-ca.crt").filter(|pem| !pem.is_empty()),
        server: pair("tls.crt", "tls.key")?,
    })
}

fn to_secret(material: &Material, namespace: &str) -> Secret {
    let entries = [
        (CA_CRT, &material.ca.certificate),
        ("ca.key", &material.ca.key),
        ("tls.crt", &material.server.certificate),
        ("tls.key", &material.server.key),
        (
            "former-ca.crt",
            material.former_ca.as_ref().unwrap_or(&String::new()),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), ByteString(value.clone().into_bytes())));
    Secret {
        metadata: meta(SECRET, namespace),
        data: Some(BTreeMap::from(entries)),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_back_what_was_put_in() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let names = names("vigia-operator", "vigia-system");
        let mut material = Material::new(&names, now).unwrap();
        assert_eq!(of_secret(&to_secret(&material, "ns")), Some(material.clone()));
        material.former_ca = Some("pem".into());
        assert_eq!(of_secret(&to_secret(&material, "ns")), Some(material.clone()));
        assert!(Current::new(&material).is_ok());
        assert_eq!(of_secret(&Secret::default()), None);
    }
}
