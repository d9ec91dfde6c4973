//! Keys of a DICOMweb service that we call: where it is, and who we say we are.

use std::path::PathBuf;

use super::destination::CredentialFiles;

/// The keys, as a section has them.
pub(super) struct WebKeys<'a> {
    pub(super) url: &'a str,
    pub(super) bearer_token_file: &'a Option<PathBuf>,
    pub(super) user: &'a Option<String>,
    pub(super) password_file: &'a Option<PathBuf>,
    pub(super) tls_ca_file: &'a Option<PathBuf>,
    pub(super) tls_certificate_file: &'a Option<PathBuf>,
    pub(super) tls_key_file: &'a Option<PathBuf>,
}

/// A service that we call.
#[derive(Clone, Debug)]
pub(crate) struct WebEndpoint {
    /// Base URL.
    pub(crate) url: String,
    /// Who we say we are.
    pub(crate) credentials: Option<CredentialFiles>,
    /// Authorities to trust instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Own certificate and key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl WebKeys<'_> {
    /// The service.
    ///
    /// # Errors
    /// A sentence about the key that is missing or cannot be right.
    pub(super) fn endpoint(&self) -> Result<WebEndpoint, String> {
        let url = self.url;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("url {url:?} does not start with http:// or https://"));
        }
        let credentials = match (self.bearer_token_file, self.user, self.password_file) {
            (None, None, None) => None,
            (Some(file), None, None) => Some(CredentialFiles::Bearer(file.clone())),
            (None, Some(user), Some(file)) => Some(CredentialFiles::Basic(user.clone(), file.clone())),
            _ => return Err("give bearer_token_file, or user and password_file together".to_owned()),
        };
        let identity = match (self.tls_certificate_file, self.tls_key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            _ => return Err("give tls_certificate_file and tls_key_file together".to_owned()),
        };
        if url.starts_with("http://") && (identity.is_some() || self.tls_ca_file.is_some()) {
            return Err("keys of TLS do nothing with an http:// url".to_owned());
        }
        Ok(WebEndpoint { url: url.to_owned(), credentials, ca_file: self.tls_ca_file.clone(), identity })
    }
}
