//! What the provider said of itself, and its keys: asked again when they are old, and its keys also when a token names one that
//! is not known.
//!
//! It is asked by one at a time; whoever waits takes what came of it. After a question that came to nothing there is a pause, so
//! that tokens and logins, which anybody can make up, do not make it answer for each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::jws::{self, Jwk, JwsError, Verified};
use super::provider::Provider;
use super::{OidcError, OidcOptions};

/// What is known of a provider.
#[derive(Clone)]
struct Known {
    provider: Arc<Provider>,
    keys: Arc<[Jwk]>,
    /// When it was asked to describe itself.
    described: Instant,
    /// When it was asked for these keys.
    keyed: Instant,
    /// Whether it was not found where it said that it is: it is asked again before it is believed.
    is_doubted: bool,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// When it was asked for keys alone or with its description, whatever came of it.
    keys_asked: Option<Instant>,
    /// When a question for its description came to nothing, and none has been answered since.
    failed: Option<Instant>,
}

/// What is known, for a while.
#[derive(Default)]
pub(super) struct Cache(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Held by whoever asks the provider.
    asking: tokio::sync::Mutex<()>,
}

impl Cache {
    /// The provider's description: that of before, unless it is too old.
    pub(super) async fn provider(&self, options: &OidcOptions) -> Result<Arc<Provider>, OidcError> {
        Ok(self.known(options, Instant::now()).await?.provider)
    }

    /// A description that is asked for now, whatever is known.
    pub(super) async fn ask(&self, options: &OidcOptions) -> Result<Arc<Provider>, OidcError> {
        Ok(self.0.ask(options).await?.provider)
    }

    /// Doubts it: the next question is asked anew. Its keys still tell its tokens from others.
    pub(super) fn doubt(&self) {
        if let Some(known) = self.0.lock().known.as_mut() {
            known.is_doubted = true;
        }
    }

    /// Checks a token's signature. Where no key fits, the provider may have taken others: it is asked for them once more, unless
    /// that was done a moment ago. Keys that are old are believed while the provider cannot be asked for others.
    ///
    /// # Errors
    /// [`OidcError::Token`]: it is not the provider's, whatever keys that has; [`OidcError::Provider`]: that cannot be said now.
    pub(super) async fn verify(&self, token: &str, options: &OidcOptions) -> Result<Verified, OidcError> {
        let came = Instant::now();
        // What is no token is no reason to ask anybody.
        jws::check_form(token).map_err(refused)?;
        let asked = self.known(options, came).await;
        let keys = match &asked {
            Ok(known) => Some(Arc::clone(&known.keys)),
            Err(_) => self.0.lock().known.as_ref().map(|known| Arc::clone(&known.keys)),
        };
        match keys.map(|keys| jws::verify(token, &keys)) {
            None | Some(Err(JwsError::Key | JwsError::Signature)) => {}
            Some(verified) => return verified.map_err(refused),
        }
        asked?;
        let (shared, token, options) = (Arc::clone(&self.0), token.to_owned(), options.clone());
        finished(tokio::spawn(async move { shared.verify_by_new_keys(&token, &options, came).await })).await
    }

    /// What is known to somebody who came at `came`.
    async fn known(&self, options: &OidcOptions, came: Instant) -> Result<Known, OidcError> {
        if let Some(known) = self.0.young(options, came) {
            return Ok(known);
        }
        let (shared, options) = (Arc::clone(&self.0), options.clone());
        finished(tokio::spawn(async move { shared.describe(&options, came).await })).await
    }
}

impl Shared {
    async fn describe(&self, options: &OidcOptions, came: Instant) -> Result<Known, OidcError> {
        let _asking = self.asking.lock().await;
        // Whoever was before may have been told.
        if let Some(known) = self.young(options, came) {
            return Ok(known);
        }
        let failed = self.lock().failed;
        if failed.is_some_and(|failed| failed >= came || failed.elapsed() < options.keys_pause) {
            return Err(OidcError::Provider("it was asked a moment ago, and did not answer as it should".to_owned()));
        }
        self.ask(options).await
    }

    async fn ask(&self, options: &OidcOptions) -> Result<Known, OidcError> {
        let asked = Instant::now();
        let answer = described(options).await;
        let mut state = self.lock();
        match answer {
            Ok((provider, keys)) => {
                let provider = Arc::new(provider);
                let known = Known { provider, keys: keys.into(), described: asked, keyed: asked, is_doubted: false };
                *state = State { known: Some(known.clone()), keys_asked: Some(asked), failed: None };
                Ok(known)
            }
            Err(error) => {
                state.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    async fn verify_by_new_keys(
        &self,
        token: &str,
        options: &OidcOptions,
        came: Instant,
    ) -> Result<Verified, OidcError> {
        let _asking = self.asking.lock().await;
        let (known, keys_asked) = {
            let state = self.lock();
            (state.known.clone(), state.keys_asked)
        };
        let known = known.ok_or_else(|| OidcError::Provider("it has not said anything yet".to_owned()))?;
        // Whoever was before may have got the keys.
        let error = match jws::verify(token, &known.keys) {
            Err(error @ (JwsError::Key | JwsError::Signature)) => error,
            verified => return verified.map_err(refused),
        };
        if known.keyed >= came {
            // They are younger than the token: it is not the provider's.
            return Err(refused(error));
        }
        if keys_asked.is_some_and(|asked| asked >= came || asked.elapsed() < options.keys_pause) {
            let words = format!("it was asked for its keys a moment ago, and by those that are known: {error}");
            return Err(OidcError::Provider(words));
        }
        let asked = Instant::now();
        self.lock().keys_asked = Some(asked);
        let keys: Arc<[Jwk]> = known.provider.fetch_keys(options).await?.into();
        if let Some(known) = self.lock().known.as_mut() {
            known.keys = Arc::clone(&keys);
            known.keyed = asked;
        }
        jws::verify(token, &keys).map_err(refused)
    }

    /// What is known, if it is not too old for somebody who came at `came`.
    fn young(&self, options: &OidcOptions, came: Instant) -> Option<Known> {
        let is_young = |known: &Known| known.described >= came || known.described.elapsed() < options.discovery_age;
        self.lock().known.clone().filter(|known| !known.is_doubted && is_young(known))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the provider says of itself now, and its keys.
async fn described(options: &OidcOptions) -> Result<(Provider, Vec<Jwk>), OidcError> {
    let provider = Provider::discover(options).await?;
    let keys = provider.fetch_keys(options).await?;
    Ok((provider, keys))
}

fn refused(error: JwsError) -> OidcError {
    OidcError::Token(error.to_string())
}

/// What came of a question. It runs on when whoever brought it about has gone: others wait for the answer.
async fn finished<T>(question: JoinHandle<Result<T, OidcError>>) -> Result<T, OidcError> {
    question.await.unwrap_or_else(|error| Err(OidcError::Provider(format!("the question broke off: {error}"))))
}

#[cfg(test)]
mod tests;
