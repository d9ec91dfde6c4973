//! Keys that several sections have: how TLS is spoken with whom we call, who we say we are, and where a DICOM peer is.
//!
//! Unknown keys are refused only where a section's fields are its own (serde: no `flatten` beside `deny_unknown_fields`), so a
//! section is given them by a macro around its struct, together with the one check that they have.

use std::path::{Path, PathBuf};

use ichor_core::AeTitle;
use ichor_dimse::tls::{ClientTls, IdentityFiles};

use super::{Endpoint, host_and_port};

/// Gives a section the files of TLS towards whom it calls, as [`TlsFiles`].
macro_rules! with_tls_files {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* }) => {
        $(#[$meta])*
        $vis struct $name {
            /// Authorities of which one must have issued the other's certificate, PEM; absent: the system's.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) tls_ca_file: Option<std::path::PathBuf>,
            /// Own certificate with its chain, PEM.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) tls_certificate_file: Option<std::path::PathBuf>,
            /// Its private key, PEM, not encrypted.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) tls_key_file: Option<std::path::PathBuf>,
            $($fields)*
        }

        impl $name {
            /// Files of TLS towards whom it calls.
            pub(crate) fn tls_files(&self) -> $crate::config::keys::TlsFiles<'_> {
                $crate::config::keys::TlsFiles {
                    ca: self.tls_ca_file.as_deref(),
                    certificate: self.tls_certificate_file.as_deref(),
                    key: self.tls_key_file.as_deref(),
                }
            }

            fn resolve_tls_files(&mut self, folder: &std::path::Path) {
                let files = [&mut self.tls_ca_file, &mut self.tls_certificate_file, &mut self.tls_key_file];
                $crate::config::keys::resolve(files, folder);
            }
        }
    };
}

/// Gives a section the keys of a DICOMweb service but for its URL, as [`WebKeys`].
macro_rules! with_web_keys {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* }) => {
        $crate::config::keys::with_tls_files! {
            $(#[$meta])*
            $vis struct $name {
                /// File that holds a bearer token.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) bearer_token_file: Option<std::path::PathBuf>,
                /// User of HTTP basic authentication.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) user: Option<String>,
                /// File that holds the user's password.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) password_file: Option<std::path::PathBuf>,
                $($fields)*
            }
        }

        impl $name {
            /// Who we say we are to a DICOMweb service.
            fn web_keys(&self) -> $crate::config::keys::WebKeys<'_> {
                $crate::config::keys::WebKeys {
                    bearer_token_file: self.bearer_token_file.as_deref(),
                    user: self.user.as_deref(),
                    password_file: self.password_file.as_deref(),
                    tls: self.tls_files(),
                }
            }

            fn resolve_web_keys(&mut self, folder: &std::path::Path) {
                $crate::config::keys::resolve([&mut self.bearer_token_file, &mut self.password_file], folder);
                self.resolve_tls_files(folder);
            }
        }
    };
}

/// Gives a section the keys of a place that speaks DIMSE or is a DICOMweb service, as [`PlaceKeys`].
macro_rules! with_place_keys {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* }) => {
        $crate::config::keys::with_web_keys! {
            $(#[$meta])*
            $vis struct $name {
                /// DIMSE: `host:port`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) address: Option<String>,
                /// DIMSE: called AE title.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) ae_title: Option<ichor_core::AeTitle>,
                /// DIMSE: calling AE title; absent: the listener's own.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) calling_ae_title: Option<ichor_core::AeTitle>,
                /// DIMSE: TLS.
                #[serde(default, skip_serializing_if = "std::ops::Not::not")]
                pub(crate) tls: bool,
                /// DIMSE with TLS: name in the peer's certificate; absent: the host of `address`.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) tls_server_name: Option<String>,
                /// DIMSE with TLS: whether that name must stand there; absent: yes.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) tls_check_name: Option<bool>,
                /// DICOMweb: base URL of the service.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) url: Option<String>,
                $($fields)*
            }
        }

        impl $name {
            /// Where it is.
            fn place_keys(&self) -> $crate::config::keys::PlaceKeys<'_> {
                $crate::config::keys::PlaceKeys {
                    address: self.address.as_deref(),
                    ae_title: self.ae_title.as_ref(),
                    calling_ae_title: self.calling_ae_title.as_ref(),
                    tls: self.tls,
                    tls_server_name: self.tls_server_name.as_deref(),
                    tls_check_name: self.tls_check_name,
                    url: self.url.as_deref(),
                    web: self.web_keys(),
                }
            }
        }
    };
}

pub(super) use {with_place_keys, with_tls_files, with_web_keys};

/// A key, and whether it is set.
pub(super) type Key = (&'static str, bool);

/// Makes paths relative to the file's own folder.
pub(super) fn resolve<const N: usize>(files: [&mut Option<PathBuf>; N], folder: &Path) {
    for path in files.into_iter().flatten() {
        *path = folder.join(&path);
    }
}

/// Refuses a name that is none.
pub(super) fn named(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 64 {
        return Err("the name must have 1 to 64 characters".to_owned());
    }
    Ok(())
}

/// Files of TLS towards whom we call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsFiles<'a> {
    pub(super) ca: Option<&'a Path>,
    pub(super) certificate: Option<&'a Path>,
    pub(super) key: Option<&'a Path>,
}

/// What an HTTP client shows and believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HttpTls {
    /// Authorities.
    pub(crate) ca_file: Option<PathBuf>,
    /// Own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles<'_> {
    pub(super) fn keys(&self) -> [Key; 3] {
        [
            ("tls_ca_file", self.ca.is_some()),
            ("tls_certificate_file", self.certificate.is_some()),
            ("tls_key_file", self.key.is_some()),
        ]
    }

    /// Certificate and key, which go together.
    ///
    /// # Errors
    /// A sentence about the one that is missing.
    pub(super) fn identity(&self) -> Result<Option<(PathBuf, PathBuf)>, String> {
        match (self.certificate, self.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some((certificate.to_owned(), key.to_owned()))),
            _ => Err("give tls_certificate_file and tls_key_file together".to_owned()),
        }
    }

    /// How TLS is spoken with a peer of a protocol of its own; `None`: it is not.
    ///
    /// # Errors
    /// A sentence about keys that do nothing, or of which one is missing.
    pub(super) fn client(
        &self,
        is_spoken: bool,
        server_name: Option<&str>,
        check_name: Option<bool>,
    ) -> Result<Option<ClientTls>, String> {
        let identity = self.identity()?;
        let has_key = self.ca.is_some() || identity.is_some() || server_name.is_some() || check_name.is_some();
        match is_spoken {
            false if has_key => Err("keys of TLS do nothing without tls = true".to_owned()),
            false => Ok(None),
            true => Ok(Some(ClientTls {
                ca_file: self.ca.map(Path::to_owned),
                identity: identity.map(|(certificate_file, key_file)| IdentityFiles { certificate_file, key_file }),
                server_name: server_name.map(str::to_owned),
                check_name: check_name.unwrap_or(true),
            })),
        }
    }

    /// The same for an address of HTTP, which says itself whether TLS is spoken.
    ///
    /// # Errors
    /// A sentence about the address, or about keys that do nothing or of which one is missing.
    pub(super) fn http(&self, url: &str) -> Result<HttpTls, String> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("url {url:?} does not start with http:// or https://"));
        }
        let tls = HttpTls { ca_file: self.ca.map(Path::to_owned), identity: self.identity()? };
        if url.starts_with("http://") && tls != HttpTls::default() {
            return Err("keys of TLS do nothing with an http:// url".to_owned());
        }
        Ok(tls)
    }
}

/// Where a service's secrets lie.
#[derive(Clone, Debug)]
pub(crate) enum CredentialFiles {
    /// A bearer token.
    Bearer(PathBuf),
    /// User, and the file of the password.
    Basic(String, PathBuf),
}

/// A DICOMweb service that we call.
#[derive(Clone, Debug)]
pub(crate) struct WebEndpoint {
    /// Base URL.
    pub(crate) url: String,
    /// Who we say we are.
    pub(crate) credentials: Option<CredentialFiles>,
    /// Whom we believe, and what we show.
    pub(crate) tls: HttpTls,
}

/// Who we say we are to a DICOMweb service.
#[derive(Clone, Copy, Debug)]
pub(super) struct WebKeys<'a> {
    pub(super) bearer_token_file: Option<&'a Path>,
    pub(super) user: Option<&'a str>,
    pub(super) password_file: Option<&'a Path>,
    pub(super) tls: TlsFiles<'a>,
}

impl WebKeys<'_> {
    /// The service.
    ///
    /// # Errors
    /// A sentence about the key that is missing or cannot be right.
    pub(super) fn endpoint(&self, url: &str) -> Result<WebEndpoint, String> {
        let credentials = match (self.bearer_token_file, self.user, self.password_file) {
            (None, None, None) => None,
            (Some(file), None, None) => Some(CredentialFiles::Bearer(file.to_owned())),
            (None, Some(user), Some(file)) => Some(CredentialFiles::Basic(user.to_owned(), file.to_owned())),
            _ => return Err("give bearer_token_file, or user and password_file together".to_owned()),
        };
        Ok(WebEndpoint { url: url.to_owned(), credentials, tls: self.tls.http(url)? })
    }
}

/// A place that speaks DIMSE or is a DICOMweb service.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaceKeys<'a> {
    pub(super) address: Option<&'a str>,
    pub(super) ae_title: Option<&'a AeTitle>,
    pub(super) calling_ae_title: Option<&'a AeTitle>,
    pub(super) tls: bool,
    pub(super) tls_server_name: Option<&'a str>,
    pub(super) tls_check_name: Option<bool>,
    pub(super) url: Option<&'a str>,
    pub(super) web: WebKeys<'a>,
}

impl PlaceKeys<'_> {
    /// Those that belong to DIMSE alone.
    pub(super) fn of_dimse(&self) -> [Key; 6] {
        [
            ("address", self.address.is_some()),
            ("ae_title", self.ae_title.is_some()),
            ("calling_ae_title", self.calling_ae_title.is_some()),
            ("tls", self.tls),
            ("tls_server_name", self.tls_server_name.is_some()),
            ("tls_check_name", self.tls_check_name.is_some()),
        ]
    }

    /// Those that belong to DICOMweb alone.
    pub(super) fn of_web(&self) -> [Key; 4] {
        [
            ("url", self.url.is_some()),
            ("bearer_token_file", self.web.bearer_token_file.is_some()),
            ("user", self.web.user.is_some()),
            ("password_file", self.web.password_file.is_some()),
        ]
    }

    /// The peer, for a section of a kind that speaks DIMSE.
    ///
    /// # Errors
    /// A sentence about the key that is missing or cannot be right.
    pub(super) fn dimse(&self, kind: &str) -> Result<Endpoint, String> {
        let needs = |key: &str| format!("kind {kind} needs the key {key}");
        let address = self.address.ok_or_else(|| needs("address"))?;
        let ae_title = self.ae_title.ok_or_else(|| needs("ae_title"))?;
        host_and_port(address)?;
        Ok(Endpoint::CStore {
            address: address.to_owned(),
            ae_title: ae_title.clone(),
            calling_ae_title: self.calling_ae_title.cloned(),
            tls: self.web.tls.client(self.tls, self.tls_server_name, self.tls_check_name)?,
        })
    }

    /// The service, for a section of a kind that is DICOMweb.
    ///
    /// # Errors
    /// As [`Self::dimse`].
    pub(super) fn dicomweb(&self, kind: &str) -> Result<Endpoint, String> {
        let url = self.url.ok_or_else(|| format!("kind {kind} needs the key url"))?;
        self.web.endpoint(url).map(Endpoint::StowRs)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    with_place_keys! {
        /// A section.
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Section {
            name: String,
        }
    }

    fn read(text: &str) -> Result<Section, toml::de::Error> {
        toml::from_str(&format!("name = \"x\"\n{text}"))
    }

    #[test]
    fn keys_of_all_levels_are_known_and_others_are_refused_with_their_line() {
        let whole = "address = \"a:1\"\nae_title = \"A\"\ntls = true\ntls_ca_file = \"ca\"\ntls_server_name = \"n\"\n";
        let mut section = read(whole).unwrap();
        section.resolve_web_keys(Path::new("/etc"));
        let Ok(Endpoint::CStore { tls: Some(tls), .. }) = section.place_keys().dimse("x") else {
            panic!("{section:?}")
        };
        assert_eq!((tls.ca_file.as_deref(), section.name.as_str()), (Some(Path::new("/etc/ca")), "x"));
        let error = read("tls = false\ntls_cafile = \"ca\"\n").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("tls_cafile") && error.contains("tls_ca_file"), "{error}");
    }

    #[test]
    fn what_cannot_be_right_is_said_once_and_the_same_for_all() {
        let dimse = |text: &str| read(text).unwrap().place_keys().dimse("c-find").unwrap_err();
        let web = |text: &str| read(text).unwrap().place_keys().dicomweb("qido-rs").unwrap_err();
        let peer = "address = \"a:1\"\nae_title = \"A\"\n";
        for (said, words) in [
            (dimse("ae_title = \"A\""), "kind c-find needs the key address"),
            (dimse("address = \"a:1\""), "kind c-find needs the key ae_title"),
            (dimse("address = \"a\"\nae_title = \"A\""), "is not host:port"),
            (dimse(&format!("{peer}tls_key_file = \"k\"")), "tls_certificate_file and tls_key_file together"),
            (dimse(&format!("{peer}tls_check_name = false")), "do nothing without tls = true"),
            (web(""), "kind qido-rs needs the key url"),
            (web("url = \"ftp://x\""), "does not start with http:// or https://"),
            (web("url = \"http://x\"\ntls_ca_file = \"c\""), "do nothing with an http:// url"),
            (web("url = \"https://x\"\nuser = \"u\""), "user and password_file together"),
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
