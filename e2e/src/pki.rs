//! Certificates and kubeconfigs: one authority, one certificate for each client and server.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// A certificate authority that writes what it signs into one folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Who a server's certificate speaks for.
pub struct ServerNames<'a> {
    pub dns: &'a [&'a str],
    pub addresses: &'a [Ipv4Addr],
}

impl Authority {
    /// Makes an authority; its certificate and key are `ca.crt` and `ca.key`.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "vigia-cluster-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write_private(&folder.join("ca.crt"), &certificate)?;
        write_private(&folder.join("ca.key"), &key.serialize_pem())?;
        Ok(Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// Writes `<name>.crt` and `<name>.key` for a server.
    pub fn server(&self, name: &str, names: &ServerNames<'_>) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for dns in names.dns {
            params
                .subject_alt_names
                .push(SanType::DnsName((*dns).try_into()?));
        }
        for address in names.addresses {
            params
                .subject_alt_names
                .push(SanType::IpAddress(IpAddr::V4(*address)));
        }
        self.sign(name, params).map(drop)
    }

    /// Writes `<name>.crt` and `<name>.key` for a client, and `<name>.kubeconfig` that uses them.
    pub fn client(&self, name: &str, user: &str, group: Option<&str>, server: &str) -> Result<PathBuf> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.sign(name, params)?;
        let path = self.folder.join(format!("{name}.kubeconfig"));
        write_private(
            &path,
            &kubeconfig(server, &self.certificate, user, &certificate, &key),
        )?;
        Ok(path)
    }

    /// Writes `<name>.key` and `<name>.pub`, the pair that signs and checks service account tokens.
    pub fn key_pair(&self, name: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        write_private(&self.folder.join(format!("{name}.key")), &key.serialize_pem())?;
        write_private(&self.folder.join(format!("{name}.pub")), &key.public_key_pem())
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<(String, String)> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        write_private(&self.folder.join(format!("{name}.crt")), &certificate)?;
        write_private(&self.folder.join(format!("{name}.key")), &key)?;
        Ok((certificate, key))
    }
}

/// A kubeconfig that holds all it needs, so that it can be copied. JSON is YAML.
fn kubeconfig(server: &str, authority: &str, user: &str, certificate: &str, key: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "vigia", "cluster": {
            "server": server, "certificate-authority-data": base64(authority),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": base64(certificate), "client-key-data": base64(key),
        }}],
        "contexts": [{"name": "vigia", "context": {"cluster": "vigia", "user": user}}],
        "current-context": "vigia",
    });
    format!("{config:#}\n")
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
