//! Signed tokens (RFC 7515, RFC 7518, RFC 8037), with a key that only the provider has: no `none`, no HMAC, nothing encrypted.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Longest token, in bytes.
const LONGEST: usize = 64 << 10;

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum JwsError {
    #[error("it is no signed token")]
    Form,
    #[error("its algorithm is not one that is believed")]
    Algorithm,
    #[error("no key of the provider, or more than one, is the one that it names")]
    Key,
    #[error("its signature is wrong")]
    Signature,
}

/// A public key (RFC 7517); of the kinds RSA, EC and OKP.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// A token whose signature is right. What it says is still to be checked.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Value,
    alg: String,
}

impl Verified {
    /// The left half of a hash, by the hash of the token's own algorithm (OpenID Connect Core 1.0, section 3.1.3.6).
    pub(super) fn half_hash(&self, text: &str) -> String {
        let algorithm = match self.alg.as_str() {
            alg if alg.ends_with("256") => &digest::SHA256,
            alg if alg.ends_with("384") => &digest::SHA384,
            _ => &digest::SHA512,
        };
        let hash = digest::digest(algorithm, text.as_bytes());
        URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
    }
}

/// How a signature is checked.
enum Scheme {
    Rsa(&'static RsaParameters),
    /// Kind of key, curve.
    Curve(&'static str, &'static str, &'static dyn VerificationAlgorithm),
}

impl Scheme {
    fn of(alg: &str) -> Option<Self> {
        Some(match alg {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Curve("EC", "P-256", &signature::ECDSA_P256_SHA256_FIXED),
            "ES384" => Self::Curve("EC", "P-384", &signature::ECDSA_P384_SHA384_FIXED),
            "EdDSA" | "Ed25519" => Self::Curve("OKP", "Ed25519", &signature::ED25519),
            _ => return None,
        })
    }

    fn fits(&self, key: &Jwk) -> bool {
        match self {
            Self::Rsa(_) => key.kty == "RSA",
            Self::Curve(kty, crv, _) => key.kty == *kty && key.crv.as_deref() == Some(*crv),
        }
    }

    fn is_right(&self, key: &Jwk, message: &[u8], signature: &[u8]) -> bool {
        let part = |part: &Option<String>| part.as_deref().and_then(decoded).unwrap_or_default();
        match self {
            Self::Rsa(parameters) => {
                let key = RsaPublicKeyComponents { n: part(&key.n), e: part(&key.e) };
                key.verify(parameters, message, signature).is_ok()
            }
            Self::Curve(kty, _, algorithm) => {
                // An uncompressed point (SEC 1, section 2.3.3), or the point itself.
                let point = if *kty == "EC" { [vec![4], part(&key.x), part(&key.y)].concat() } else { part(&key.x) };
                UnparsedPublicKey::new(*algorithm, point).verify(message, signature).is_ok()
            }
        }
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// SHA-256, as base64 of URLs: the challenge of a verifier (RFC 7636, section 4.2).
pub(super) fn sha256(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// A token in its parts, of which none is believed yet.
struct Parts<'a> {
    head: &'a str,
    body: &'a str,
    signature: Vec<u8>,
    header: Header,
    scheme: Scheme,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > LONGEST {
            return Err(JwsError::Form);
        }
        let parts: Vec<&str> = token.split('.').collect();
        let &[head, body, signed] = parts.as_slice() else { return Err(JwsError::Form) };
        let header: Header = decoded(head).and_then(|head| serde_json::from_slice(&head).ok()).ok_or(JwsError::Form)?;
        // What must be understood and is not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(JwsError::Form);
        }
        let scheme = Scheme::of(&header.alg).ok_or(JwsError::Algorithm)?;
        let signature = decoded(signed).ok_or(JwsError::Form)?;
        Ok(Self { head, body, signature, header, scheme })
    }
}

/// Whether a text is a signed token at all, by an algorithm that is believed. Its signature is not looked at.
pub(super) fn check_form(token: &str) -> Result<(), JwsError> {
    Parts::of(token).map(|_| ())
}

/// Checks a token's signature by the one key that it names.
pub(super) fn verify(token: &str, keys: &[Jwk]) -> Result<Verified, JwsError> {
    let Parts { head, body, signature, header, scheme } = Parts::of(token)?;
    let is_meant = |key: &&Jwk| {
        scheme.fits(key)
            && key.usage.as_deref().is_none_or(|usage| usage == "sig")
            && key.alg.as_deref().is_none_or(|alg| alg == header.alg)
            && (header.kid.is_none() || key.kid == header.kid)
    };
    let meant: Vec<&Jwk> = keys.iter().filter(is_meant).collect();
    let &[key] = meant.as_slice() else { return Err(JwsError::Key) };
    if !scheme.is_right(key, format!("{head}.{body}").as_bytes(), &signature) {
        return Err(JwsError::Signature);
    }
    let claims = decoded(body).and_then(|body| serde_json::from_slice(&body).ok()).ok_or(JwsError::Form)?;
    Ok(Verified { claims, alg: header.alg })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Jwk {
        serde_json::from_str(text).unwrap()
    }

    /// RFC 7515, appendix A.3 (ES256), and RFC 8037, appendix A.4 (Ed25519).
    const ES256_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    const ED25519_KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const ED25519: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    #[test]
    fn the_examples_of_the_standards_are_right() {
        let verified = verify(ES256, &[key(ES256_KEY)]).unwrap();
        assert_eq!((verified.claims["iss"].as_str(), verified.alg.as_str()), (Some("joe"), "ES256"));
        // Signed, and no claims.
        assert_eq!(verify(ED25519, &[key(ED25519_KEY)]).unwrap_err(), JwsError::Form);
        // RFC 7636, appendix B.
        assert_eq!(
            sha256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn what_is_not_right_is_refused() {
        let es256 = key(ES256_KEY);
        let (head, rest) = ES256.split_once('.').unwrap();
        let with = |header: &str| format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(
            verify(&ES256.replace(".DtE", ".DtF"), std::slice::from_ref(&es256)).unwrap_err(),
            JwsError::Signature
        );
        for alg in ["none", "None", "HS256", "ES256K", ""] {
            let token = with(&format!(r#"{{"alg":"{alg}"}}"#));
            assert_eq!(verify(&token, std::slice::from_ref(&es256)).unwrap_err(), JwsError::Algorithm, "{alg}");
        }
        for (header, error) in [
            (r#"{"alg":"ES256","crit":["exp"]}"#, JwsError::Form),
            (r#"{"alg":"ES256","kid":"other"}"#, JwsError::Key),
            (r#"{"alg":"RS256"}"#, JwsError::Key),
            (r#"{"alg":7}"#, JwsError::Form),
        ] {
            assert_eq!(verify(&with(header), std::slice::from_ref(&es256)).unwrap_err(), error, "{header}");
        }
        assert_eq!(verify(ES256, &[]).unwrap_err(), JwsError::Key);
        assert_eq!(verify(ES256, &[es256.clone(), es256.clone()]).unwrap_err(), JwsError::Key, "which of them?");
        let other_use = Jwk { usage: Some("enc".to_owned()), ..es256.clone() };
        assert_eq!(verify(ES256, &[other_use]).unwrap_err(), JwsError::Key);
        for token in ["", "a.b", "a.b.c", "a.b.c.d", head, &"x".repeat(LONGEST + 1)] {
            assert_eq!(verify(token, std::slice::from_ref(&es256)).unwrap_err(), JwsError::Form, "{token:.20}");
        }
    }
}
