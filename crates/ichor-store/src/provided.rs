//! Users of an OpenID provider: it says who they are and what they may do, at each login.

use crate::{Role, SecretDigest, Store, StoreError, Timestamp, User};

/// Whom a provider vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvidedUser {
    /// Issuer and subject: the same at every login, and nobody else's.
    pub subject: String,
    /// Name, which may change.
    pub name: String,
    /// What they may do from now on.
    pub role: Role,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provided {
    /// They may come in.
    Admitted(User),
    /// An admin has put them out.
    PutOut,
    /// Another user has their name.
    NameTaken,
}

/// What a provider calls a session that it brought about.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProvidedSession {
    /// Its number there (`sid`).
    pub sid: Option<String>,
    /// The ID token, to be shown at logout.
    pub id_token: Option<String>,
}

impl std::fmt::Debug for ProvidedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProvidedSession").field("sid", &self.sid).finish_non_exhaustive()
    }
}

/// Whose sessions end, by the provider's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvidedLogout {
    /// The provider.
    pub issuer: String,
    /// Issuer and subject of the user; `None`: whoever has the session.
    pub subject: Option<String>,
    /// The session; `None`: all of the user's.
    pub sid: Option<String>,
}

impl Store {
    /// What the provider calls a session; `None` of one that no provider brought about, or that there is not.
    ///
    /// # Errors
    /// As [`Self::admit_provided`].
    pub async fn provided_session(&self, digest: SecretDigest) -> Result<Option<ProvidedSession>, StoreError> {
        self.index().provided_session(digest).await
    }

    /// Ends the sessions that a provider's logout is about, those included whose number there is not known where it is about a
    /// user. Each one's user, by name.
    ///
    /// # Errors
    /// As [`Self::admit_provided`].
    pub async fn end_provided_sessions(&self, logout: &ProvidedLogout) -> Result<Vec<String>, StoreError> {
        self.index().end_provided_sessions(logout).await
    }

    /// Makes the user at the first login; else keeps name and role as the provider says they are now.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn admit_provided(&self, user: &ProvidedUser, now: Timestamp) -> Result<Provided, StoreError> {
        self.index().admit_provided(user, now).await
    }

    /// Ends sessions and tokens of one whom the provider gives no role any more; whether there was such a user.
    ///
    /// # Errors
    /// As [`Self::admit_provided`].
    pub async fn withdraw_provided(&self, subject: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.index().withdraw_provided(subject, now).await
    }
}
