//! Certificate and key of a service that speaks HTTP.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ichor_dicomweb::server::tls_config;
use ichor_dimse::tls::CertificateSummary;

use crate::config::Config;

/// Makes the TLS of a service from its files, if it has any.
///
/// # Errors
/// With the path: a file cannot be read, anybody may read the key, or the two make no identity.
pub(crate) fn load(
    certificate: Option<&Path>,
    key: Option<&Path>,
) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
    let chain = std::fs::read(certificate).with_context(|| format!("reading {}", certificate.display()))?;
    let tls = tls_config(&chain, crate::secrets::read(key)?.as_bytes());
    tls.map(Some).with_context(|| format!("TLS with {} and {}", certificate.display(), key.display()))
}

/// The certificates that services over HTTP show, by the section that names them; what has none is left out.
pub(crate) fn of_services(config: &Config) -> Vec<(&'static str, anyhow::Result<CertificateSummary>)> {
    let admin = config.admin.as_ref();
    let admin =
        admin.and_then(|own| Some(("[admin]", own.tls_certificate_file.as_deref()?, own.tls_key_file.as_deref()?)));
    let web = config.dicomweb.as_ref();
    let web =
        web.and_then(|own| Some(("[dicomweb]", own.tls_certificate_file.as_deref()?, own.tls_key_file.as_deref()?)));
    let named = admin.into_iter().chain(web);
    named.map(|(section, certificate, key)| (section, summary(certificate, key))).collect()
}

fn summary(certificate: &Path, key: &Path) -> anyhow::Result<CertificateSummary> {
    load(Some(certificate), Some(key))?;
    Ok(CertificateSummary::read(certificate)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_that_anybody_may_read_is_refused() {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let load_with = |mode: u32| {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            load(Some(&certificate), Some(&key))
        };
        assert!(load_with(0o600).unwrap().is_some() && load_with(0o640).unwrap().is_some());
        let error = format!("{:#}", load_with(0o644).unwrap_err());
        assert!(error.contains("anybody may read it") && error.contains("tls.key"), "{error}");
        assert!(load(None, None).unwrap().is_none());
        std::fs::write(&certificate, "no certificate").unwrap();
        assert!(format!("{:#}", load_with(0o600).unwrap_err()).contains("tls.crt"));
    }
}
