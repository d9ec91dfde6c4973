//! An authority that lives as long as a test, and what it issues.

use std::path::{Path, PathBuf};

use ichor_dimse::tls::{ClientAuth, ClientTls, IdentityFiles, ServerTlsOptions};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub file: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// A certificate for localhost and 127.0.0.1 that has still a year to go.
    pub fn issue(&self, folder: &Path, name: &str) -> IdentityFiles {
        self.issue_until(folder, name, &["localhost", "127.0.0.1"], Duration::days(365))
    }

    /// A certificate that was issued a year before its end.
    pub fn issue_until(&self, folder: &Path, name: &str, names: &[&str], end: Duration) -> IdentityFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = OffsetDateTime::now_utc() + end;
        params.not_before = params.not_after - Duration::days(366);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = IdentityFiles {
            certificate_file: folder.join(format!("{name}.crt")),
            key_file: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate_file, certificate.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        set_mode(&files.key_file, 0o600);
        files
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn server(identity: &IdentityFiles, client_auth: ClientAuth) -> ServerTlsOptions {
    ServerTlsOptions { identity: identity.clone(), client_auth }
}

pub fn client(authority: &Authority, identity: Option<&IdentityFiles>) -> ClientTls {
    ClientTls { ca_file: Some(authority.file.clone()), identity: identity.cloned(), ..ClientTls::default() }
}

/// A path as a tool wants it.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
