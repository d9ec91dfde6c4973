//! What the provider said of itself, and its keys: asked again when they are old, and its keys also when a token names one that
//! is not known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::jws::{self, Jwk, JwsError, Verified};
use super::provider::Provider;
use super::{OidcError, OidcOptions};

/// What is known of a provider.
#[derive(Clone)]
struct Known {
    provider: Arc<Provider>,
    keys: Arc<[Jwk]>,
    /// When it described itself.
    described: Instant,
    /// When its keys were last asked for, or about to be.
    keyed: Instant,
}

/// What is known, for a while.
#[derive(Default)]
pub(super) struct Cache(Mutex<Option<Known>>);

impl Cache {
    /// The provider's description: that of before, unless it is too old.
    pub(super) async fn provider(&self, options: &OidcOptions) -> Result<Arc<Provider>, OidcError> {
        Ok(self.known(options).await?.provider)
    }

    /// A description that is asked for now, whatever is known.
    pub(super) async fn ask(&self, options: &OidcOptions) -> Result<Arc<Provider>, OidcError> {
        let asked = Instant::now();
        let provider = Provider::discover(options).await?;
        let keys = provider.fetch_keys(options).await?.into();
        let known = Known { provider: Arc::new(provider), keys, described: asked, keyed: asked };
        let provider = Arc::clone(&known.provider);
        *self.lock() = Some(known);
        Ok(provider)
    }

    /// Forgets it: the next question is asked anew.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    /// Checks a token's signature. Where no key fits, the provider may have taken others: it is asked for them once more, unless
    /// that was done a moment ago; tokens that anybody may make up are not to make it answer for each.
    pub(super) async fn verify(&self, token: &str, options: &OidcOptions) -> Result<Verified, OidcError> {
        let refused = |error: JwsError| OidcError::Token(error.to_string());
        let known = self.known(options).await?;
        match jws::verify(token, &known.keys) {
            Err(error @ (JwsError::Key | JwsError::Signature)) => {
                if !self.may_ask_for_keys(options) {
                    return Err(refused(error));
                }
                let keys: Arc<[Jwk]> = known.provider.fetch_keys(options).await?.into();
                if let Some(known) = self.lock().as_mut() {
                    known.keys = Arc::clone(&keys);
                }
                jws::verify(token, &keys).map_err(refused)
            }
            verified => verified.map_err(refused),
        }
    }

    async fn known(&self, options: &OidcOptions) -> Result<Known, OidcError> {
        let young = |known: &Known| known.described.elapsed() < options.discovery_age;
        if let Some(known) = self.lock().clone().filter(young) {
            return Ok(known);
        }
        self.ask(options).await?;
        self.lock().clone().ok_or_else(|| OidcError::Provider("what it said was forgotten at once".to_owned()))
    }

    /// Whether keys were not asked for a moment ago; from now on they were.
    fn may_ask_for_keys(&self, options: &OidcOptions) -> bool {
        let mut lock = self.lock();
        let Some(known) = lock.as_mut() else { return true };
        let is_due = known.keyed.elapsed() >= options.keys_pause;
        if is_due {
            known.keyed = Instant::now();
        }
        is_due
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
