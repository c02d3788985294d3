//! The mutual TLS of one run: a CA of its own and one certificate, which all its workers hold.
//!
//! Who holds it belongs to the run; the CA's key is thrown away. It outlives no run, so it is not
//! rotated.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

/// Longer than any run may take, whose timeout is at most a day.
const VALID: Duration = Duration::days(3);
/// Clocks of nodes may differ.
const SKEW: Duration = Duration::hours(1);

/// PEM texts, as the trainer reads them.
pub(super) struct Identity {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

/// A new identity for these DNS names.
pub(super) fn make(names: Vec<String>) -> Result<Identity, rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    let between = |mut params: CertificateParams| {
        params.not_before = now - SKEW;
        params.not_after = now + VALID;
        params
    };
    let ca_key = KeyPair::generate()?;
    let mut ca = between(CertificateParams::default());
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.distinguished_name
        .push(DnType::CommonName, "vigia training run");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut leaf = between(CertificateParams::new(names)?);
    leaf.distinguished_name
        .push(DnType::CommonName, "vigia training worker");
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(Identity {
        ca: ca_pem,
        certificate: leaf.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_whole_and_of_its_own() {
        let one = make(vec!["j-0.j.vigia-system.svc".to_owned()]).expect("a valid name");
        let other = make(vec!["j-0.j.vigia-system.svc".to_owned()]).expect("a valid name");
        assert!(one.ca.contains("BEGIN CERTIFICATE") && one.certificate.contains("BEGIN CERTIFICATE"));
        assert!(one.key.contains("PRIVATE KEY"));
        assert_ne!(one.ca, other.ca);
        assert_ne!(one.key, other.key);
    }
}
