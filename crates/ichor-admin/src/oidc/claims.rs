//! The claims of an ID token whose signature is right: whether it is for us and of now, and whom it makes of somebody.

use ichor_store::{Role, Timestamp};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::jws::Verified;
use super::logout::LONGEST_ID;
use super::{OidcError, OidcOptions, Vouched};
use crate::access::check_name;

/// An ID token may be issued so many seconds before now: it comes fresh from the provider.
pub(super) const MOST_AGE: f64 = 600.0;

/// A provider's clock may be ahead by so many seconds.
pub(super) const MOST_AHEAD: f64 = 300.0;

/// Everything that OpenID Connect Core 1.0, section 3.1.3.7, asks of an ID token beside its signature.
pub(super) fn check(
    token: &Verified,
    options: &OidcOptions,
    (nonce, access_token): (&str, Option<&str>),
    now: Timestamp,
) -> Result<(), OidcError> {
    let refused = |what: &str| Err(OidcError::Token(what.to_owned()));
    let claims = &token.claims;
    check_audience(claims, options)?;
    if !claims["azp"].is_null() && claims["azp"].as_str() != Some(options.client_id.as_str()) {
        return refused("it was made for another client (azp)");
    }
    let now = now.as_millis() as f64 / 1_000.0;
    match claims["exp"].as_f64() {
        Some(end) if end > now => {}
        _ => return refused("it has expired (exp)"),
    }
    match claims["iat"].as_f64() {
        Some(issued) if (now - MOST_AGE..=now + MOST_AHEAD).contains(&issued) => {}
        _ => return refused("it was issued long ago, or by a clock that differs (iat)"),
    }
    if !claims["nbf"].is_null() && claims["nbf"].as_f64().is_none_or(|begin| begin > now + MOST_AHEAD) {
        return refused("it is not good yet (nbf)");
    }
    if !bool::from(claims["nonce"].as_str().unwrap_or_default().as_bytes().ct_eq(nonce.as_bytes())) {
        return refused("it is of another login (nonce)");
    }
    if !claims["at_hash"].is_null() {
        let made = access_token.map(|access_token| token.half_hash(access_token));
        if made.as_deref() != claims["at_hash"].as_str() {
            return refused("it belongs to another access token (at_hash)");
        }
    }
    Ok(())
}

/// Whether a token is of our provider and for us alone.
pub(super) fn check_audience(claims: &Value, options: &OidcOptions) -> Result<(), OidcError> {
    let refused = |what: &str| Err(OidcError::Token(what.to_owned()));
    if claims["iss"].as_str() != Some(options.issuer.as_str()) {
        return refused("it is of another issuer (iss)");
    }
    let is_for_us = match &claims["aud"] {
        Value::String(one) => *one == options.client_id,
        // Of others nothing is known: none is trusted.
        Value::Array(all) => !all.is_empty() && all.iter().all(|one| one.as_str() == Some(options.client_id.as_str())),
        _ => false,
    };
    if is_for_us { Ok(()) } else { refused("it is for another audience (aud)") }
}

/// Whom the token is about.
pub(super) fn vouched(claims: &Value, options: &OidcOptions) -> Result<Vouched, OidcError> {
    let missing = |claim: &str| OidcError::Claim(format!("the provider says no {claim} of this user"));
    let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty()).ok_or_else(|| missing("sub"))?;
    let name =
        found(claims, &options.name_claim).and_then(Value::as_str).ok_or_else(|| missing(&options.name_claim))?;
    check_name(name)
        .map_err(|problem| OidcError::Claim(format!("this user's name cannot be one here: {}", problem.detail)))?;
    Ok(Vouched {
        subject: json!([options.issuer, subject]).to_string(),
        name: name.to_owned(),
        role: role(found(claims, &options.role_claim), &options.roles),
        sid: claims["sid"].as_str().filter(|sid| (1..=LONGEST_ID).contains(&sid.len())).map(str::to_owned),
        // It was checked; of what is none every logout is later.
        issued: claims["iat"].as_f64().unwrap_or_default(),
    })
}

/// A claim by its own name, else by a path into objects.
fn found<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |value, key| value.get(key)))
}

/// The highest role that one of the words gives.
fn role(claim: Option<&Value>, roles: &[(String, Role)]) -> Option<Role> {
    let words: Vec<&str> = match claim? {
        Value::String(word) => vec![word],
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    roles.iter().filter(|(word, _)| words.contains(&word.as_str())).map(|(_, role)| *role).max()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn options() -> OidcOptions {
        let roles = [("readers", Role::Viewer), ("it", Role::Admin)];
        let _ = rustls::crypto::ring::default_provider().install_default();
        OidcOptions {
            issuer: "https://login.example".to_owned(),
            client_id: "ichor".to_owned(),
            client_secret: Some("a secret".to_owned()),
            scopes: Vec::new(),
            name_claim: "preferred_username".to_owned(),
            role_claim: "realm_access.roles".to_owned(),
            roles: roles.map(|(word, role)| (word.to_owned(), role)).to_vec(),
            label: String::new(),
            hide_local_login: false,
            discovery_age: std::time::Duration::from_secs(3_600),
            keys_pause: std::time::Duration::from_secs(10),
            logs_out: true,
            http: reqwest::Client::builder().tls_certs_only([]).build().unwrap(),
        }
    }

    #[test]
    fn claims_make_a_user() {
        let claims =
            |roles: Value| json!({ "sub": "7", "preferred_username": "anna", "realm_access": { "roles": roles } });
        let role = |roles: Value| vouched(&claims(roles), &options()).unwrap().role;
        assert_eq!(role(json!(["x", "readers", "it"])), Some(Role::Admin), "the highest");
        assert_eq!(role(json!("readers")), Some(Role::Viewer));
        for nothing in [json!([]), json!("IT"), json!(["readers "]), json!(null), json!(7), json!({ "it": true })] {
            assert_eq!(role(nothing.clone()), None, "{nothing}");
        }
        let anna = vouched(&claims(json!("it")), &options()).unwrap();
        assert_eq!((anna.subject.as_str(), anna.name.as_str()), (r#"["https://login.example","7"]"#, "anna"));
        let flat = json!({ "sub": "7", "preferred_username": "anna", "realm_access.roles": ["it"] });
        assert_eq!(vouched(&flat, &options()).unwrap().role, Some(Role::Admin), "a claim whose name has dots");
    }

    #[test]
    fn who_has_no_name_is_nobody() {
        for claims in [
            json!({ "preferred_username": "anna" }),
            json!({ "sub": "", "preferred_username": "anna" }),
            json!({ "sub": "7" }),
            json!({ "sub": "7", "preferred_username": 7 }),
            json!({ "sub": "7", "preferred_username": "<script>" }),
        ] {
            assert!(matches!(vouched(&claims, &options()), Err(OidcError::Claim(_))), "{claims}");
        }
        assert!(!format!("{:?}", options()).contains("secret"));
    }
}
