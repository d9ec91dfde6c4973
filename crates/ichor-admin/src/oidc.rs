//! Login by an OpenID provider (OpenID Connect Core 1.0): authorization code with PKCE (RFC 7636), and an ID token that is believed
//! only when everything about it is right. Signatures are checked by ring, as those of TLS are.

mod begun;
mod claims;
mod jws;
mod known;
mod logout;
mod provider;

use std::fmt;
use std::time::{Duration, Instant};

use ichor_store::{ProvidedLogout, ProvidedSession, ProvidedUser, Role, Timestamp};
use reqwest::Url;
use thiserror::Error;

use crate::access::Secret;
use crate::problem::Problem;
use begun::{Begun, MOST_AGE};
use known::Cache;
use logout::{Ended, Heard};

pub(crate) use begun::Kept;

/// Where the provider sends browsers back to, below the service's own URL.
pub(crate) const CALLBACK: &str = "/oidc/callback";

/// Where the provider says that somebody has logged out.
pub(crate) const BACKCHANNEL: &str = "/oidc/backchannel-logout";

/// Longest ID token that is kept to be shown again at logout, in bytes: it becomes part of a URL.
const LONGEST_HINT: usize = 4_096;

/// The provider, and what is made of what it says.
#[derive(Clone)]
pub struct OidcOptions {
    /// Issuer: the same as in the provider's own words.
    pub issuer: String,
    /// What ichor is called there.
    pub client_id: String,
    /// What it proves itself with; `None`: with nothing but PKCE.
    pub client_secret: Option<String>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that holds the user's name; dots lead into objects.
    pub name_claim: String,
    /// The claim that says what they may do: a word, or a list of words.
    pub role_claim: String,
    /// Which words of it give which role; the highest counts.
    pub roles: Vec<(String, Role)>,
    /// What the login page calls the provider.
    pub label: String,
    /// Whether the login page shows passwords only to those who ask for them.
    pub hide_local_login: bool,
    /// How long what the provider says of itself is believed before it is asked again.
    pub discovery_age: Duration,
    /// Least time between two questions for its keys that were brought about by tokens, and after a question that came to nothing.
    pub keys_pause: Duration,
    /// Whether logging out here leads to logging out there, where it offers that.
    pub logs_out: bool,
    /// What asks the provider; it must follow no redirection.
    pub http: reqwest::Client,
}

impl fmt::Debug for OidcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcOptions").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Why nobody comes in. The provider's own words are not part of it.
#[derive(Debug, Error)]
pub enum OidcError {
    /// A setting that no URL can be made of.
    #[error("{0} is no URL")]
    Url(&'static str),
    /// No answer, or none that can be used.
    #[error("the provider cannot be asked: {0}")]
    Provider(String),
    /// It does not give a token for the code.
    #[error("the provider gives no token for this login: {0}")]
    Exchange(String),
    /// The ID token or logout token is not right.
    #[error("the token is refused: {0}")]
    Token(String),
    /// A claim is missing, or no name.
    #[error("{0}")]
    Claim(String),
    /// No random numbers.
    #[error("{0}")]
    Random(String),
}

impl From<Problem> for OidcError {
    fn from(problem: Problem) -> Self {
        Self::Random(problem.detail)
    }
}

/// Who the token is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Vouched {
    /// Issuer and subject.
    pub(crate) subject: String,
    /// The user's name.
    pub(crate) name: String,
    /// What they may do; `None`: nothing here.
    pub(crate) role: Option<Role>,
    /// What the provider calls their session there.
    pub(crate) sid: Option<String>,
    /// When it said so, in seconds since 1970 by its own clock.
    pub(crate) issued: f64,
}

impl Vouched {
    /// The user, if they may do anything.
    pub(crate) fn user(&self) -> Option<ProvidedUser> {
        self.role.map(|role| ProvidedUser { subject: self.subject.clone(), name: self.name.clone(), role })
    }
}

/// The provider as it is talked to, and the logins that have begun.
pub(crate) struct Oidc {
    options: OidcOptions,
    redirect: String,
    /// Where it sends browsers that have logged out there.
    logged_out: String,
    known: Cache,
    begun: Begun,
    heard: Heard,
    ended: Ended,
}

impl Oidc {
    /// Nothing is asked yet: a provider that is away keeps no daemon from starting.
    pub(crate) fn new(options: OidcOptions, own_url: &str) -> Result<Self, OidcError> {
        Url::parse(&options.issuer).map_err(|_| OidcError::Url("admin.oidc.issuer"))?;
        let redirect = format!("{own_url}{CALLBACK}");
        Url::parse(&redirect).map_err(|_| OidcError::Url("admin.url"))?;
        let logged_out = format!("{own_url}/login");
        let (known, begun) = (Cache::default(), Begun::default());
        let (heard, ended) = (Heard::default(), Ended::default());
        Ok(Self { options, redirect, logged_out, known, begun, heard, ended })
    }

    pub(crate) fn options(&self) -> &OidcOptions {
        &self.options
    }

    /// Begins a login: where the browser goes.
    pub(crate) async fn begin(&self, address: &str, browser: [u8; 32]) -> Result<String, OidcError> {
        let (state, nonce, verifier) = (Secret::new()?, Secret::new()?, Secret::new()?);
        let kept = Kept { nonce: nonce.reveal().to_owned(), verifier: verifier.reveal().to_owned(), browser };
        self.begun.keep(state.reveal(), kept, address, Instant::now());
        let provider = self.known.provider(&self.options).await?;
        let scopes = ["openid"].into_iter().chain(self.options.scopes.iter().map(String::as_str));
        let mut url = provider.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.options.client_id)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("scope", &scopes.collect::<Vec<_>>().join(" "))
            .append_pair("state", state.reveal())
            .append_pair("nonce", nonce.reveal())
            .append_pair("code_challenge", &jws::sha256(verifier.reveal()))
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    /// The login that has begun with this state in this browser; once.
    pub(crate) fn take(&self, state: &str, browser: [u8; 32]) -> Option<Kept> {
        self.begun.take(state, browser, Instant::now())
    }

    /// Whom the provider vouches for, by the code that the browser brought back.
    pub(crate) async fn finish(
        &self,
        code: &str,
        kept: Kept,
        now: Timestamp,
    ) -> Result<(Vouched, ProvidedSession), OidcError> {
        let provider = self.known.provider(&self.options).await?;
        let tokens = provider.exchange(&self.options, (code, &kept.verifier, &self.redirect)).await;
        if matches!(tokens, Err(OidcError::Provider(_))) {
            // It may have moved: the next login asks where it is.
            self.known.doubt();
        }
        let tokens = tokens?;
        let verified = self.known.verify(&tokens.id_token, &self.options).await?;
        claims::check(&verified, &self.options, (&kept.nonce, tokens.access_token.as_deref()), now)?;
        let vouched = claims::vouched(&verified.claims, &self.options)?;
        let id_token = Some(tokens.id_token).filter(|token| token.len() <= LONGEST_HINT);
        let session = ProvidedSession { sid: vouched.sid.clone(), id_token };
        Ok((vouched, session))
    }

    /// Where a browser logs out at the provider, if that offers it; `session`: what is known of its login there (OpenID Connect
    /// RP-Initiated Logout 1.0, section 2).
    pub(crate) async fn logout_url(&self, session: &ProvidedSession) -> Option<String> {
        if !self.options.logs_out {
            return None;
        }
        // A provider that is away keeps nobody from logging out here.
        let mut url = self.known.provider(&self.options).await.ok()?.end_session.clone()?;
        let mut query = url.query_pairs_mut();
        query.append_pair("client_id", &self.options.client_id);
        query.append_pair("post_logout_redirect_uri", &self.logged_out);
        if let Some(token) = &session.id_token {
            query.append_pair("id_token_hint", token);
        }
        drop(query);
        Some(url.into())
    }

    /// Whose sessions a logout token of the provider ends, and the token's number; one that was heard is refused. From now on no
    /// login that was vouched for before it begins a session.
    pub(crate) async fn logout_asked(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<(ProvidedLogout, String), OidcError> {
        let verified = self.known.verify(token, &self.options).await?;
        let asked = logout::check(&verified.claims, &self.options, now)?;
        if self.heard.has(&asked.token, Instant::now()) {
            return Err(OidcError::Token("it was heard before (jti)".to_owned()));
        }
        self.ended.remember(&asked, Instant::now());
        Ok((asked.logout, asked.token))
    }

    /// Whether the provider has said that somebody logged out since it vouched for them.
    pub(crate) fn is_logged_out(&self, vouched: &Vouched) -> bool {
        self.ended.has(vouched)
    }

    /// The logout that a token asked for is done: it is not heard again.
    pub(crate) fn logout_heard(&self, token: String) {
        self.heard.remember(token, Instant::now());
    }
}

/// Whether the provider can be asked, and is the one that is configured.
///
/// # Errors
/// Why not.
pub async fn check_provider(options: OidcOptions, own_url: &str) -> Result<(), OidcError> {
    let oidc = Oidc::new(options, own_url)?;
    oidc.known.ask(&oidc.options).await.map(|_| ())
}

/// How long a login that has begun may take.
pub(crate) const fn longest_login() -> Duration {
    MOST_AGE
}
