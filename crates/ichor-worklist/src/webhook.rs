//! Webhooks: one POST with JSON, signed as Standard Webhooks 1.0.0 say (`webhook-id`, `webhook-timestamp`,
//! `webhook-signature`), so that a receiver verifies it with a library of theirs.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::http::{self, Trust};
use crate::{Announcement, SetupError, TellError};

/// What a secret begins with in the form that libraries of Standard Webhooks print.
const SECRET_PREFIX: &str = "whsec_";

/// Shortest key, in bytes.
const SHORTEST_KEY: usize = 24;

/// Settings of a channel.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Where to.
    pub url: String,
    /// What the body is signed with.
    pub secret: Secret,
    /// Authorities of which one must have issued the receiver's certificate, PEM; `None`: the system's.
    pub root_certificates: Option<Vec<u8>>,
    /// Own certificate with its chain, and its key, PEM, for receivers that ask for one.
    pub identity: Option<Vec<u8>>,
    /// Whether the receiver is told who the patient is.
    pub with_patient: bool,
    /// Time to connect, and for the whole exchange.
    pub timeout: Duration,
}

/// A signing key. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads `whsec_` and base64, or takes the text itself as the key.
    ///
    /// # Errors
    /// What is wrong with it, without the secret.
    pub fn parse(text: &str) -> Result<Self, SetupError> {
        let fault = |why: &str| Err(SetupError::Value(format!("the webhook's secret {why}")));
        let text = text.trim();
        let key = match text.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => match STANDARD.decode(encoded) {
                Ok(key) => key,
                Err(_) => return fault("begins with whsec_, and what follows is no base64"),
            },
            None => text.as_bytes().to_vec(),
        };
        if key.len() < SHORTEST_KEY {
            return fault("is shorter than 24 bytes");
        }
        Ok(Self(key))
    }

    /// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // Of any length, says RFC 2104.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Tells one receiver.
#[derive(Debug)]
pub struct WebhookClient {
    http: Client,
    url: Url,
    secret: Secret,
    with_patient: bool,
    timeout: Duration,
}

impl WebhookClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// [`SetupError::Value`] for a URL or a certificate that cannot be used.
    pub fn new(options: WebhookOptions) -> Result<Self, SetupError> {
        let url = http::url(&options.url)?;
        let trust = Trust { roots: options.root_certificates.as_deref(), identity: options.identity.as_deref() };
        let http = http::client(&url, options.timeout, &trust)?;
        let WebhookOptions { secret, with_patient, timeout, .. } = options;
        Ok(Self { http, url, secret, with_patient, timeout })
    }

    /// Sends one and waits for the answer; its status.
    ///
    /// # Errors
    /// Every [`TellError`]. What a status means: 2xx is success; 408, 425, 429 and 5xx may pass; all else will not.
    pub async fn tell(&self, announcement: &Announcement) -> Result<String, TellError> {
        let mut announcement = announcement.clone();
        if !self.with_patient {
            announcement.study.patient = None;
        }
        let body = serde_json::to_vec(&announcement).map_err(|error| TellError::Message(error.to_string()))?;
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &announcement.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.secret.sign(&announcement.id, timestamp, &body))
            .body(body);
        let request = http::traced(request, &announcement);
        let answer = request.send().await.map_err(|error| http::failed(&error, &self.url, self.timeout))?;
        let status = answer.status();
        let words = format!("HTTP {}", status.as_u16());
        if status.is_success() {
            Ok(words)
        } else if http::may_pass(status) {
            Err(TellError::Refused(words))
        } else {
            Err(TellError::RefusedForGood(words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_specification_does() {
        // The worked example of Standard Webhooks 1.0.0.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_ne!(secret.sign("other", 1_614_265_330, br#"{"test": 2432232314}"#), signature);
        assert!(!format!("{secret:?}").contains("Mf"));
    }

    #[test]
    fn weak_secrets_are_refused() {
        for text in ["", "brief", "whsec_!!!!", "whsec_c2hvcnQ="] {
            let error = Secret::parse(text).unwrap_err().to_string();
            assert!(error.contains("secret") && (text.is_empty() || !error.contains(text)), "{error}");
        }
        assert!(Secret::parse("  a text of twenty-four bytes or more\n").is_ok());
    }
}
