//! Who is asking: by a session's cookie, or by a token.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use ichor_store::{Admitted, Role, SecretDigest};
use subtle::ConstantTimeEq;

use super::Secret;
use crate::App;
use crate::problem::Problem;

/// Cookie of a session; where connections are encrypted, one that no other host can set.
pub(crate) const COOKIE: &str = "ichor-session";
const TLS_COOKIE: &str = "__Host-ichor-session";

/// Where the connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Peer {
    pub(crate) fn ip(self) -> IpAddr {
        self.0.ip()
    }

    pub(crate) fn of(parts: &Parts) -> Self {
        let unknown = Self(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        parts.extensions.get::<Self>().copied().unwrap_or(unknown)
    }
}

impl FromRequestParts<Arc<App>> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        Ok(Self::of(parts))
    }
}

/// What somebody showed.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Session(SecretDigest),
    Token(SecretDigest),
}

/// Somebody who is known.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) admitted: Admitted,
    pub(crate) peer: Peer,
    shown: Shown,
}

impl Caller {
    async fn of(parts: &Parts, app: &App) -> Result<Self, Problem> {
        if !app.facts.access.serves_patients {
            return Err(Problem::forbidden(
                "patients are shown on loopback or behind TLS only: set admin.tls_certificate_file and \
                 admin.tls_key_file, or admin.allow_clear_text if a proxy encrypts",
            ));
        }
        let nobody = || Problem::new(StatusCode::UNAUTHORIZED, "log in, or send a token: Authorization: Bearer …");
        let shown = shown(&parts.headers, app.facts.access.is_tls).ok_or_else(nobody)?;
        let caller = Self { admitted: admitted(app, shown).await?.ok_or_else(nobody)?, peer: Peer::of(parts), shown };
        caller.check_change(parts)?;
        Ok(caller)
    }

    /// A browser sends its cookie whoever made it ask: a change must repeat what only our own pages know.
    fn check_change(&self, parts: &Parts) -> Result<(), Problem> {
        let Some(csrf) = &self.admitted.csrf else { return Ok(()) };
        if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        check_origin(&parts.headers)?;
        let repeated = parts.headers.get("x-csrf-token").map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
        if bool::from(repeated.ct_eq(csrf.as_bytes())) {
            return Ok(());
        }
        Err(Problem::forbidden("a change by a session repeats its word in X-CSRF-Token"))
    }

    fn at_least(self, role: Role) -> Result<Self, Problem> {
        if self.admitted.role >= role {
            return Ok(self);
        }
        Err(Problem::forbidden(format!("this is for role {role}; {} is {}", self.admitted.name, self.admitted.role)))
    }

    /// Whether they are still admitted: for those who stay.
    pub(crate) async fn is_still_admitted(&self, app: &App) -> bool {
        matches!(admitted(app, self.shown).await, Ok(Some(_)))
    }

    pub(crate) fn session(&self) -> Option<SecretDigest> {
        match self.shown {
            Shown::Session(digest) => Some(digest),
            Shown::Token(_) => None,
        }
    }
}

async fn admitted(app: &App, shown: Shown) -> Result<Option<Admitted>, Problem> {
    let now = (app.facts.now)();
    let admitted = match shown {
        Shown::Session(digest) => app.facts.store.session(digest, now).await,
        Shown::Token(digest) => app.facts.store.token(digest, now).await,
    };
    admitted.map_err(Problem::from)
}

/// The name of a session's cookie.
pub(crate) const fn cookie_name(is_tls: bool) -> &'static str {
    if is_tls { TLS_COOKIE } else { COOKIE }
}

/// The token, else the cookie: over TLS only the one that no other host can set.
fn shown(headers: &HeaderMap, is_tls: bool) -> Option<Shown> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| Shown::Token(Secret::brought(token.trim()).digest()));
    }
    Some(Shown::Session(cookie(headers, cookie_name(is_tls))?.digest()))
}

/// The secret that the browser brought in the cookie of this name.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| Secret::brought(value))
}

/// Refuses what another site's page made a browser send.
pub(crate) fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let foreign = || Err(Problem::forbidden("the request comes from another site's page"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return foreign();
    }
    match (headers.get(header::ORIGIN), text("host")) {
        (None, _) => Ok(()),
        (Some(origin), Some(host)) => {
            let origin = origin.to_str().unwrap_or_default();
            let is_ours = origin.split_once("://").is_some_and(|(_, place)| place == host);
            if is_ours { Ok(()) } else { foreign() }
        }
        (Some(_), None) => foreign(),
    }
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident, $role:expr) => {
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) Caller);

        impl FromRequestParts<Arc<App>> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
                Caller::of(parts, app).await?.at_least($role).map(Self)
            }
        }
    };
}

role!(/// Anybody who is known.
    AsViewer, Role::Viewer);
role!(/// An operator or an admin.
    AsOperator, Role::Operator);
role!(/// An admin.
    AsAdmin, Role::Admin);

macro_rules! page_role {
    ($(#[$doc:meta])* $name:ident, $role:expr) => {
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) Caller);

        impl FromRequestParts<Arc<App>> for $name {
            type Rejection = Response;

            async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
                let caller = Caller::of(parts, app).await.and_then(|caller| caller.at_least($role));
                caller.map(Self).map_err(|problem| match problem.status {
                    401 => Redirect::to("/login").into_response(),
                    _ => problem.into_response(),
                })
            }
        }
    };
}

page_role!(/// Anybody who is known; a stranger is sent to the login.
    PageViewer, Role::Viewer);
page_role!(/// An admin; a stranger is sent to the login.
    PageAdmin, Role::Admin);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), (*value).parse().unwrap())).collect()
    }

    #[test]
    fn other_sites_are_refused() {
        let ours =
            headers(&[("host", "ichor:9110"), ("origin", "http://ichor:9110"), ("sec-fetch-site", "same-origin")]);
        assert!(check_origin(&ours).is_ok());
        assert!(check_origin(&headers(&[("host", "ichor")])).is_ok(), "no browser");
        for pairs in [
            &[("host", "ichor"), ("origin", "https://evil")][..],
            &[("host", "ichor"), ("origin", "null")],
            &[("origin", "http://ichor")],
            &[("host", "ichor"), ("sec-fetch-site", "cross-site")],
            &[("host", "ichor"), ("sec-fetch-site", "same-site")],
        ] {
            assert!(check_origin(&headers(pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn a_token_goes_before_a_cookie() {
        let both = headers(&[("authorization", "Bearer abc"), ("cookie", "a=b; ichor-session=xyz")]);
        assert!(matches!(shown(&both, false), Some(Shown::Token(_))));
        for (line, is_tls) in [("a=b; __Host-ichor-session=xyz", true), ("a=b; ichor-session=xyz", false)] {
            let cookie = headers(&[("cookie", line)]);
            assert!(matches!(shown(&cookie, is_tls), Some(Shown::Session(_))), "{line}");
            assert!(shown(&cookie, !is_tls).is_none(), "{line}: the other's");
        }
        for nothing in [&[("authorization", "Basic abc")][..], &[("cookie", "session=xyz")], &[]] {
            assert!(shown(&headers(nothing), false).is_none(), "{nothing:?}");
        }
    }
}
