//! Mutual TLS between the ranks of one run: whoever holds a certificate of the run's own CA belongs to it.

use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use super::Fault;

/// Certificate, key and CA of a run, PEM.
#[derive(Clone)]
pub struct RoundsTls {
    ca: String,
    certificate: String,
    key: String,
}

impl std::fmt::Debug for RoundsTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoundsTls")
    }
}

impl RoundsTls {
    /// Reads `ca.crt`, `tls.crt` and `tls.key` of a folder, as a Secret is mounted.
    ///
    /// # Errors
    /// Which file cannot be read.
    pub fn load(folder: &Path) -> Result<Self, Fault> {
        let read = |name| super::operator::read(&folder.join(name));
        Ok(Self {
            ca: read("ca.crt")?,
            certificate: read("tls.crt")?,
            key: read("tls.key")?,
        })
    }

    pub(super) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .client_ca_root(Certificate::from_pem(&self.ca))
    }

    pub(super) fn client(&self, host: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(host)
    }
}
