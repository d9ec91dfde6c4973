//! Secrets: made here, kept as hashes.

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ichor_store::SecretDigest;
use rand::TryRngCore;
use tokio::sync::Semaphore;

use crate::problem::Problem;

/// Shortest password, in characters.
const SHORTEST_PASSWORD: usize = 12;
/// Longest, in bytes: hashing takes time by length.
const LONGEST_PASSWORD: usize = 1_024;
/// Longest name of a user, in characters.
const LONGEST_NAME: usize = 64;
/// Passwords hashed at once; each takes 19 MiB.
const MOST_HASHED: usize = 2;

/// A cookie, a token, the code of a link: 256 bits that nobody can guess.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new() -> Result<Self, Problem> {
        let mut bytes = [0; 32];
        rand::rngs::OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("no random numbers: {error}")))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// One that somebody brings back.
    pub(crate) fn brought(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn digest(&self) -> SecretDigest {
        *blake3::hash(self.0.as_bytes()).as_bytes()
    }

    /// For the one who is to have it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Hashes and checks passwords, few at once, off the threads that answer.
pub(crate) struct Passwords {
    room: Semaphore,
    /// What the password of a user who is not there is held against, so that the answer takes as long.
    nobody: String,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let nobody = hash("nobody has this password").unwrap_or_default();
        Self { room: Semaphore::new(MOST_HASHED), nobody }
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        self.off_thread(move || hash(&password)).await?
    }

    /// Whether the password is the one of the hash; without a hash, after as long a time, no.
    pub(crate) async fn fits(&self, password: String, stored: Option<String>) -> Result<bool, Problem> {
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        let fits = self.off_thread(move || {
            let parsed = PasswordHash::new(&stored);
            parsed.is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
        });
        Ok(fits.await? && is_known)
    }

    async fn off_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let unavailable = |what: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, what.to_owned());
        let _permit = self.room.acquire().await.map_err(|_| unavailable("shutting down"))?;
        tokio::task::spawn_blocking(work).await.map_err(|_| unavailable("hashing failed"))
    }
}

/// Argon2id with the parameters of OWASP's recommendation (19 MiB, two passes).
fn hash(password: &str) -> Result<String, Problem> {
    let salt = SaltString::generate(&mut OsRng);
    let hashed = Argon2::default().hash_password(password.as_bytes(), &salt);
    let hashed = hashed.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(hashed.to_string())
}

/// Refuses passwords that are too easy, or too long to be hashed.
pub(crate) fn check_password(name: &str, password: &str) -> Result<(), Problem> {
    let characters = password.chars().count();
    if characters < SHORTEST_PASSWORD || password.len() > LONGEST_PASSWORD {
        return Err(Problem::bad(format!("a password has at least {SHORTEST_PASSWORD} characters")));
    }
    let first = password.chars().next();
    if password.chars().all(|c| Some(c) == first) || password.to_lowercase().contains(&name.to_lowercase()) {
        return Err(Problem::bad("a password is not one character over and over, and does not hold the name"));
    }
    Ok(())
}

/// Refuses names that cannot be told apart, or read.
pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let is_good = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    if name.is_empty() || name.chars().count() > LONGEST_NAME || !name.chars().all(is_good) {
        let what = format!("a name has 1 to {LONGEST_NAME} letters, digits, '.', '-', '_' or '@'");
        return Err(Problem::bad(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_fits_its_password_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains("horse"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse battery".to_owned()).await.unwrap(), "salted");
        let fits = async |password: &str, hash: Option<&str>| {
            passwords.fits(password.to_owned(), hash.map(str::to_owned)).await.unwrap()
        };
        assert!(fits("correct horse battery", Some(&hash)).await);
        assert!(!fits("correct horse batterz", Some(&hash)).await);
        assert!(!fits("nobody has this password", None).await, "not even nobody's");
        assert!(!fits("x", Some("not a hash")).await);
    }

    #[test]
    fn easy_passwords_and_odd_names_are_refused() {
        for bad in ["", "short", "aaaaaaaaaaaaaaaa", "my name is Anna!", &"x1".repeat(600)] {
            assert!(check_password("anna", bad).is_err(), "{bad:?}");
        }
        check_password("anna", "seven grey pianos").unwrap();
        for bad in ["", "a b", "<b>", "x\n", &"n".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["anna", "Müller", "dr.who@site-1", "山田"] {
            check_name(good).unwrap();
        }
    }

    #[test]
    fn secrets_differ_and_their_digests_say_nothing() {
        let (one, two) = (Secret::new().unwrap(), Secret::new().unwrap());
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(one.reveal().len(), 43);
        assert_eq!(Secret::brought(one.reveal()).digest(), one.digest());
    }
}
