//! What is asked of the provider: its own description (OpenID Connect Discovery 1.0), its keys (RFC 7517), and tokens for a code
//! (RFC 6749, section 4.1.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use super::jws::Jwk;
use super::{OidcError, OidcOptions};

/// Longest answer, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// A provider as it describes itself.
pub(super) struct Provider {
    /// Where browsers go.
    pub(super) authorization: Url,
    token: Url,
    jwks: Url,
    /// Whether the client shows its secret in a header, and not in the form.
    takes_basic: bool,
    /// Where browsers go to log out there, if it offers that (OpenID Connect RP-Initiated Logout 1.0).
    pub(super) end_session: Option<Url>,
}

#[derive(Deserialize)]
struct Description {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    end_session_endpoint: Option<String>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// What it gives for a code.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    pub(super) access_token: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Provider {
    pub(super) async fn discover(options: &OidcOptions) -> Result<Self, OidcError> {
        let place = format!("{}/.well-known/openid-configuration", options.issuer.trim_end_matches('/'));
        let description: Description = got(options.http.get(place)).await?;
        if description.issuer != options.issuer {
            return Err(OidcError::Provider("it is another issuer than admin.oidc.issuer says".to_owned()));
        }
        let is_secure = options.issuer.starts_with("https://");
        let endpoint = |text: &str| match Url::parse(text) {
            Ok(url) if url.scheme() == "https" || !is_secure && url.scheme() == "http" => Ok(url),
            _ => Err(OidcError::Provider("it names an endpoint that is not https".to_owned())),
        };
        let methods = description.token_endpoint_auth_methods_supported;
        let names = |method: &str| methods.as_ref().is_some_and(|methods| methods.iter().any(|named| named == method));
        Ok(Self {
            authorization: endpoint(&description.authorization_endpoint)?,
            token: endpoint(&description.token_endpoint)?,
            jwks: endpoint(&description.jwks_uri)?,
            takes_basic: names("client_secret_basic") || !names("client_secret_post"),
            // Logging out there is something more: nobody is kept from coming in because it cannot be.
            end_session: description.end_session_endpoint.as_deref().and_then(|text| {
                let url = endpoint(text);
                if url.is_err() {
                    warn!(
                        "the OpenID provider's end_session_endpoint cannot be used: nobody is sent on to log out there"
                    );
                }
                url.ok()
            }),
        })
    }

    /// Its keys at present; those of a kind that is not known here are left out.
    pub(super) async fn fetch_keys(&self, options: &OidcOptions) -> Result<Vec<Jwk>, OidcError> {
        let set: KeySet = got(options.http.get(self.jwks.clone())).await?;
        Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }

    /// Tokens for a code, with what proves that the login was begun here.
    pub(super) async fn exchange(
        &self,
        options: &OidcOptions,
        (code, verifier, redirect): (&str, &str, &str),
    ) -> Result<Tokens, OidcError> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        let mut request = options.http.post(self.token.clone());
        match &options.client_secret {
            Some(secret) if self.takes_basic => {
                let escaped = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", escaped(&options.client_id), escaped(secret));
                request = request.header(reqwest::header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
            }
            secret => {
                form.push(("client_id", &options.client_id));
                form.extend(secret.as_deref().map(|secret| ("client_secret", secret)));
            }
        }
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(encoded(&form));
        let (status, body) = answered(request).await?;
        if status != StatusCode::OK {
            let refusal = serde_json::from_slice(&body).map(|refusal: Refusal| code_of(&refusal.error));
            let what = refusal.unwrap_or_else(|_| "without a reason".to_owned());
            return Err(OidcError::Exchange(format!("HTTP {}, {what}", status.as_u16())));
        }
        serde_json::from_slice(&body).map_err(|_| OidcError::Token("there is none".to_owned()))
    }
}

fn encoded(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// An error's code (RFC 6749, section 5.2), if it is one.
fn code_of(error: &str) -> String {
    let is_code = error.len() <= 64 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if is_code { error.to_owned() } else { "with an odd reason".to_owned() }
}

async fn got<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, OidcError> {
    let (status, body) = answered(request).await?;
    if status != StatusCode::OK {
        return Err(OidcError::Provider(format!("HTTP {}", status.as_u16())));
    }
    serde_json::from_slice(&body).map_err(|_| OidcError::Provider("its answer cannot be understood".to_owned()))
}

async fn answered(request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), OidcError> {
    let mut answer = request.header(ACCEPT, "application/json").send().await.map_err(|error| failed(&error))?;
    let (status, mut bytes) = (answer.status(), Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(|error| failed(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST_ANSWER {
            return Err(OidcError::Provider(format!("its answer is longer than {LONGEST_ANSWER} bytes")));
        }
    }
    Ok((status, bytes))
}

fn failed(error: &reqwest::Error) -> OidcError {
    use std::error::Error as _;
    if error.is_timeout() {
        return OidcError::Provider("no answer in time".to_owned());
    }
    let (mut why, mut cause) = ("no answer".to_owned(), error.source());
    while let Some(inner) = cause {
        (why, cause) = (inner.to_string(), inner.source());
    }
    OidcError::Provider(why)
}
