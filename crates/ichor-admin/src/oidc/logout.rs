//! Logout tokens (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6): whose sessions end, and that it is the provider
//! who says so, now and once. A login that was under way does not outlast its logout.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ichor_store::{ProvidedLogout, Timestamp};
use serde_json::{Value, json};

use super::claims::{MOST_AGE, MOST_AHEAD, check_audience};
use super::{OidcError, OidcOptions, Vouched};

/// The event that a logout token is about.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Longest identifier of a session or a token, in bytes.
pub(super) const LONGEST_ID: usize = 255;

/// Tokens that are remembered; of more the oldest is forgotten.
const MOST: usize = 10_000;

/// What a token asks for, and by which number it is known.
pub(super) struct Asked {
    pub(super) logout: ProvidedLogout,
    pub(super) token: String,
    /// When it was issued, in seconds since 1970 by the provider's clock.
    pub(super) issued: f64,
}

/// Everything that is asked of a logout token beside its signature.
pub(super) fn check(claims: &Value, options: &OidcOptions, now: Timestamp) -> Result<Asked, OidcError> {
    let refused = |what: &str| Err(OidcError::Token(what.to_owned()));
    check_audience(claims, options)?;
    let now = now.as_millis() as f64 / 1_000.0;
    let issued = claims["iat"].as_f64().filter(|issued| (now - MOST_AGE..=now + MOST_AHEAD).contains(issued));
    let Some(issued) = issued else { return refused("it was issued long ago, or by a clock that differs (iat)") };
    // Asked for since the final standard; of those who leave it out, iat says that the token is young.
    if !claims["exp"].is_null() && claims["exp"].as_f64().is_none_or(|end| end <= now) {
        return refused("it has expired (exp)");
    }
    if !claims["events"][EVENT].is_object() {
        return refused("it is about no logout (events)");
    }
    // An ID token has one, and is no word to log anybody out.
    if claims.get("nonce").is_some() {
        return refused("it has a nonce, as ID tokens do (nonce)");
    }
    let text = |name: &str| match &claims[name] {
        Value::Null => Ok(None),
        Value::String(text) if !text.is_empty() && text.len() <= LONGEST_ID => Ok(Some(text.clone())),
        _ => Err(OidcError::Token(format!("it has an odd {name}"))),
    };
    let Some(token) = text("jti")? else { return refused("it has no number of its own (jti)") };
    let (subject, sid) = (text("sub")?, text("sid")?);
    if subject.is_none() && sid.is_none() {
        return refused("it names neither a user nor a session (sub, sid)");
    }
    let subject = subject.map(|subject| json!([options.issuer, subject]).to_string());
    Ok(Asked { logout: ProvidedLogout { issuer: options.issuer.clone(), subject, sid }, token, issued })
}

/// Logouts that were heard, for as long as an ID token that was issued before one of them would be believed: whoever it names has
/// logged out since.
#[derive(Default)]
pub(super) struct Ended(Mutex<VecDeque<(ProvidedLogout, f64, Instant)>>);

impl Ended {
    pub(super) fn remember(&self, asked: &Asked, now: Instant) {
        let mut logouts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logouts.retain(|(_, _, since)| now.duration_since(*since) <= Heard::AGE);
        if logouts.len() >= MOST {
            logouts.pop_front();
        }
        logouts.push_back((asked.logout.clone(), asked.issued, now));
    }

    /// Whether somebody has logged out since the provider vouched for them. Seconds are told apart at most: within the same one it
    /// is taken for later.
    pub(super) fn has(&self, vouched: &Vouched) -> bool {
        let logouts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logouts.iter().any(|(logout, issued, _)| vouched.issued <= *issued && names(logout, vouched))
    }
}

/// Whether a logout names this login, as it would name the session.
fn names(logout: &ProvidedLogout, vouched: &Vouched) -> bool {
    let is_subject = logout.subject.as_ref().is_none_or(|subject| *subject == vouched.subject);
    let is_session = match (&logout.sid, &vouched.sid) {
        (None, _) => true,
        (Some(sid), Some(own)) => sid == own,
        (Some(_), None) => logout.subject.is_some(),
    };
    is_subject && is_session
}

/// Logout tokens that were heard, for as long as their time of issue would let them be heard again.
#[derive(Default)]
pub(super) struct Heard(Mutex<HashMap<String, Instant>>);

impl Heard {
    const AGE: Duration = Duration::from_secs(900);

    pub(super) fn has(&self, token: &str, now: Instant) -> bool {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).is_some_and(|since| now.duration_since(*since) <= Self::AGE)
    }

    pub(super) fn remember(&self, token: String, now: Instant) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, since| now.duration_since(*since) <= Self::AGE);
        if tokens.len() >= MOST {
            let oldest = tokens.iter().min_by_key(|(_, since)| **since).map(|(oldest, _)| oldest.clone());
            if let Some(oldest) = oldest {
                tokens.remove(&oldest);
            }
        }
        tokens.insert(token, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims::tests::options;
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn token() -> Value {
        json!({
            "iss": "https://login.example", "aud": "ichor", "iat": NOW - 1, "exp": NOW + 100, "jti": "1", "sub": "7",
            "sid": "s", "events": { EVENT: {} },
        })
    }

    fn checked(edit: impl FnOnce(&mut Value)) -> Result<ProvidedLogout, String> {
        let mut claims = token();
        edit(&mut claims);
        let checked = check(&claims, &options(), Timestamp::from_millis(NOW * 1_000));
        checked.map(|asked| asked.logout).map_err(|error| error.to_string())
    }

    #[test]
    fn a_logout_token_says_whose_sessions_end() {
        let whole = checked(|_| {}).unwrap();
        assert_eq!(whole.subject.as_deref(), Some(r#"["https://login.example","7"]"#));
        assert_eq!((whole.sid.as_deref(), whole.issuer.as_str()), (Some("s"), "https://login.example"));
        assert_eq!(checked(|claims| drop(claims.as_object_mut().unwrap().remove("sub"))).unwrap().subject, None);
        assert_eq!(checked(|claims| drop(claims.as_object_mut().unwrap().remove("sid"))).unwrap().sid, None);
        assert!(checked(|claims| drop(claims.as_object_mut().unwrap().remove("exp"))).is_ok(), "iat says its age");
    }

    #[test]
    fn what_is_no_logout_token_ends_nothing() {
        type Edit = fn(&mut Value);
        let cases: [(Edit, &str); 20] = [
            (|c| c["iss"] = json!("https://login.example/"), "issuer"),
            (|c| c["aud"] = json!("another"), "audience"),
            (|c| c["aud"] = json!(["ichor", "another"]), "audience"),
            (|c| c["aud"] = json!([]), "audience"),
            (|c| c["exp"] = json!(NOW), "expired"),
            (|c| c["exp"] = json!("never"), "expired"),
            (|c| c["iat"] = json!(NOW - 601), "issued"),
            (|c| c["iat"] = json!(NOW + 301), "issued"),
            (|c| c["iat"] = json!(null), "issued"),
            (|c| c["events"] = json!({}), "events"),
            (|c| c["events"] = json!(EVENT), "events"),
            (|c| c["events"] = json!({ EVENT: true }), "events"),
            (|c| c["events"] = json!([EVENT]), "events"),
            (|c| c["nonce"] = json!("n"), "nonce"),
            (|c| c["nonce"] = json!(null), "nonce"),
            (|c| c["jti"] = json!(null), "jti"),
            (|c| c["jti"] = json!("j".repeat(LONGEST_ID + 1)), "jti"),
            (|c| c["sub"] = json!(7), "sub"),
            (|c| c["sid"] = json!(""), "sid"),
            (
                |c| {
                    c["sub"] = json!(null);
                    c["sid"] = json!(null);
                },
                "neither",
            ),
        ];
        for (edit, word) in cases {
            let error = checked(edit).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_login_does_not_outlast_its_logout() {
        let (ended, start) = (Ended::default(), Instant::now());
        let asked = |subject: Option<&str>, sid: Option<&str>| {
            let (subject, sid) = (subject.map(str::to_owned), sid.map(str::to_owned));
            let logout = ProvidedLogout { issuer: "https://login.example".to_owned(), subject, sid };
            Asked { logout, token: "1".to_owned(), issued: 100.0 }
        };
        let login = |subject: &str, sid: Option<&str>, issued: f64| Vouched {
            subject: subject.to_owned(),
            name: "anna".to_owned(),
            role: None,
            sid: sid.map(str::to_owned),
            issued,
        };
        assert!(!ended.has(&login("a", Some("x"), 99.0)));
        ended.remember(&asked(Some("a"), None), start);
        ended.remember(&asked(Some("b"), Some("x")), start);
        ended.remember(&asked(None, Some("y")), start);
        for (subject, sid, issued, is_ended) in [
            ("a", Some("z"), 99.0, true),
            ("a", None, 100.0, true),
            ("a", Some("z"), 101.0, false),
            ("b", Some("x"), 99.0, true),
            ("b", None, 99.0, true),
            ("b", Some("z"), 99.0, false),
            ("c", Some("y"), 99.0, true),
            ("c", None, 99.0, false),
        ] {
            assert_eq!(ended.has(&login(subject, sid, issued)), is_ended, "{subject} {sid:?} {issued}");
        }
        for _ in 0..MOST {
            ended.remember(&asked(Some("d"), None), start);
        }
        assert_eq!(ended.0.lock().unwrap().len(), MOST, "bounded");
        ended.remember(&asked(Some("e"), None), start + Heard::AGE * 2);
        assert_eq!(ended.0.lock().unwrap().len(), 1, "no ID token of before is believed any more");
    }

    #[test]
    fn a_token_is_heard_once() {
        let (heard, now) = (Heard::default(), Instant::now());
        assert!((Heard::AGE.as_secs_f64() - MOST_AGE - MOST_AHEAD).abs() < 1e-9);
        assert!(!heard.has("1", now));
        heard.remember("1".to_owned(), now);
        assert!(heard.has("1", now) && !heard.has("2", now));
        assert!(heard.has("1", now + Heard::AGE), "as long as its time of issue is believed");
        for number in 0..MOST {
            heard.remember(format!("of {number}"), now + Duration::from_millis(1));
        }
        assert_eq!(heard.0.lock().unwrap().len(), MOST, "bounded");
        assert!(!heard.has("1", now) && heard.has("of 0", now), "the oldest has gone");
        heard.remember("later".to_owned(), now + Heard::AGE * 2);
        assert_eq!(heard.0.lock().unwrap().len(), 1);
    }
}
