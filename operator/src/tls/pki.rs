//! Certificates: a CA of our own and the gRPC server's. Pure but for randomness.
//!
//! Everything is ECDSA P-256 by ring. The CA signs nothing but the operator's server certificate.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

/// Life of the CA, and the rest of it at which it is replaced.
const CA_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const CA_REST: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Life of the server's certificate, and the rest of it at which it is replaced.
const SERVER_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
const SERVER_REST: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Clocks of nodes may be behind by so much.
const BEHIND: SignedDuration = SignedDuration::from_mins(10);

/// A certificate and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

/// What the operator's Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The CA.
    pub ca: Pair,
    /// The CA before it, which peers may still have seen last.
    pub former_ca: Option<String>,
    /// The server's certificate.
    pub server: Pair,
}

/// What has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing.
    Keep,
    /// The server's certificate.
    Server,
    /// The CA, and with it the server's certificate.
    All,
}

impl Material {
    /// Makes everything.
    ///
    /// # Errors
    /// No randomness, or a name that cannot be in a certificate.
    pub fn new(names: &[String], now: Timestamp) -> anyhow::Result<Self> {
        let ca = make_ca("vigia operator", now, CA_LIFE)?;
        let server = make_leaf(
            &ca,
            names,
            &[ExtendedKeyUsagePurpose::ServerAuth],
            now,
            SERVER_LIFE,
        )?;
        Ok(Self {
            ca,
            former_ca: None,
            server,
        })
    }

    /// What has to be made anew, at a time and for these names.
    pub fn renewal(&self, names: &[String], now: Timestamp) -> Renewal {
        let due = |pem: &str, rest: SignedDuration| match validity(pem) {
            Ok((_, end)) => end.duration_since(now) < rest,
            Err(_) => true,
        };
        if due(&self.ca.certificate, CA_REST) {
            Renewal::All
        } else if due(&self.server.certificate, SERVER_REST) || !has_names(&self.server.certificate, names) {
            Renewal::Server
        } else {
            Renewal::Keep
        }
    }

    /// The next material; the same where nothing is due.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renew(&self, names: &[String], now: Timestamp) -> anyhow::Result<Self> {
        match self.renewal(names, now) {
            Renewal::Keep => Ok(self.clone()),
            Renewal::Server => Ok(Self {
                server: make_leaf(
                    &self.ca,
                    names,
                    &[ExtendedKeyUsagePurpose::ServerAuth],
                    now,
                    SERVER_LIFE,
                )?,
                ..self.clone()
            }),
            Renewal::All => Ok(Self {
                former_ca: Some(self.ca.certificate.clone()),
                ..Self::new(names, now)?
            }),
        }
    }

    /// What peers should trust: the CA, and the one before it.
    pub fn bundle(&self) -> String {
        format!(
            "{}{}",
            self.ca.certificate,
            self.former_ca.as_deref().unwrap_or_default()
        )
    }
}

fn params(
    name: &str,
    names: &[String],
    now: Timestamp,
    life: SignedDuration,
) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec()).context("names of a certificate")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(now.checked_sub(BEHIND)?)?;
    params.not_after = date(now.checked_add(life)?)?;
    Ok(params)
}

fn date(at: Timestamp) -> anyhow::Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.as_second()).context("a certificate's time")
}

fn make_ca(name: &str, now: Timestamp, life: SignedDuration) -> anyhow::Result<Pair> {
    let key = KeyPair::generate().context("make a key")?;
    // The name tells two CAs apart that follow each other.
    let mut params = params(&format!("{name} {}", now.as_second()), &[], now, life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(Pair {
        certificate: params.self_signed(&key).context("sign a CA")?.pem(),
        key: key.serialize_pem(),
    })
}

fn make_leaf(
    ca: &Pair,
    names: &[String],
    uses: &[ExtendedKeyUsagePurpose],
    now: Timestamp,
    life: SignedDuration,
) -> anyhow::Result<Pair> {
    let ca_key = KeyPair::from_pem(&ca.key).context("the CA's key")?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, ca_key).context("the CA's certificate")?;
    let key = KeyPair::generate().context("make a key")?;
    let name = names.first().map_or("vigia", String::as_str);
    // A common name has at most 64 characters (RFC 5280); who checks looks at the alternative names.
    let short: String = name.chars().take(64).collect();
    let mut params = params(&short, names, now, life)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = uses.to_vec();
    Ok(Pair {
        certificate: params
            .signed_by(&key, &issuer)
            .context("sign a certificate")?
            .pem(),
        key: key.serialize_pem(),
    })
}

fn parse<T>(
    pem: &str,
    read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).context("a certificate in PEM")?;
    read(&pem.parse_x509().context("an X.509 certificate")?)
}

/// When a certificate begins and ends to be valid.
///
/// # Errors
/// It is none.
pub fn validity(pem: &str) -> anyhow::Result<(Timestamp, Timestamp)> {
    parse(pem, |certificate| {
        let validity = certificate.validity();
        Ok((
            Timestamp::from_second(validity.not_before.timestamp())?,
            Timestamp::from_second(validity.not_after.timestamp())?,
        ))
    })
}

fn has_names(pem: &str, wanted: &[String]) -> bool {
    use x509_parser::extensions::GeneralName;
    parse(pem, |certificate| {
        let names = certificate
            .subject_alternative_name()?
            .map(|n| n.value.general_names.clone());
        let names = names.unwrap_or_default();
        let has = |wanted: &String| {
            names
                .iter()
                .any(|name| matches!(name, GeneralName::DNSName(dns) if dns == wanted))
        };
        Ok(wanted.iter().all(has))
    })
    .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).expect("a time")
    }

    fn names() -> Vec<String> {
        vec![
            "vigia-operator.vigia-system.svc".to_owned(),
            "localhost".to_owned(),
        ]
    }

    #[test]
    fn the_server_is_renewed_in_time_and_for_new_names() {
        let first = Material::new(&names(), at(0)).unwrap();
        assert_eq!(first.renewal(&names(), at(0)), Renewal::Keep);
        assert_eq!(first.renewal(&names(), at(59)), Renewal::Keep);
        assert_eq!(first.renewal(&names(), at(61)), Renewal::Server);
        assert_eq!(first.renewal(&["other".to_owned()], at(0)), Renewal::Server);
        let next = first.renew(&names(), at(61)).unwrap();
        assert_eq!(next.ca, first.ca);
        assert_ne!(next.server, first.server);
        assert_eq!(next.renewal(&names(), at(61)), Renewal::Keep);
        assert_eq!(next.renew(&names(), at(62)).unwrap(), next);
    }

    #[test]
    fn a_new_ca_is_published_beside_the_former_one() {
        let first = Material::new(&names(), at(0)).unwrap();
        let late = at(9 * 365 + 10);
        assert_eq!(first.renewal(&names(), late), Renewal::All);
        let next = first.renew(&names(), late).unwrap();
        assert_ne!(next.ca, first.ca);
        assert!(
            next.bundle().contains(&first.ca.certificate) && next.bundle().contains(&next.ca.certificate)
        );
        assert_eq!(next.renewal(&names(), late), Renewal::Keep);
    }

    #[test]
    fn damage_is_renewed() {
        let mut broken = Material::new(&names(), at(0)).unwrap();
        broken.server.certificate = "no certificate".into();
        assert_eq!(broken.renewal(&names(), at(0)), Renewal::Server);
        broken.ca.certificate.clear();
        assert_eq!(broken.renewal(&names(), at(0)), Renewal::All);
    }

    #[test]
    fn certificates_are_valid_a_little_before_they_are_made() {
        let (start, end) = validity(&Material::new(&names(), at(0)).unwrap().server.certificate).unwrap();
        assert!(start < at(0) && end == at(90));
    }
}
