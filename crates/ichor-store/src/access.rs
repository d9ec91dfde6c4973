//! Who may look and act by HTTP: users, invitations, sessions, tokens; and the audit trail. Passwords come in as hashes that
//! the caller made, other secrets as digests: nothing in here opens a door.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ichor_core::Uid;
use serde::{Deserialize, Serialize};

use crate::{ProvidedSession, Store, StoreError, Timestamp};

/// Most rows of the audit trail in one answer.
const MOST_AUDITED: u32 = 1_000;

/// What the names of clients of DICOMweb begin with in the audit trail.
pub const DICOMWEB_ACTOR: &str = "dicomweb:";

/// BLAKE3 of a secret.
pub type SecretDigest = [u8; 32];

/// What a user may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Has things done again.
    Operator,
    /// Decides who else may.
    Admin,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown role {0:?}; known are viewer, operator, admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct User {
    /// Number.
    pub id: i64,
    /// Name; case does not matter.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they may come in.
    pub enabled: bool,
    /// Whether they have chosen a password.
    pub has_password: bool,
    /// Who says that they are they: `local`, or `oidc` for the provider, which also gives them their role.
    pub source: String,
    /// Since when there is such a user.
    pub created_at: Timestamp,
}

/// Somebody who came with a session or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Number of the user.
    pub user: i64,
    /// Name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// What a change must repeat; `None` of a token, which no browser sends by itself.
    pub csrf: Option<String>,
}

/// A session about to begin.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Digest of the cookie.
    pub digest: SecretDigest,
    /// Number of the user.
    pub user: i64,
    /// What a change must repeat.
    pub csrf: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What the provider that brought the user calls it.
    pub provided: Option<ProvidedSession>,
}

/// An API token, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenSummary {
    /// Number.
    pub id: i64,
    /// Whose it is.
    pub user: String,
    /// What it is for.
    pub label: String,
    /// Since when.
    pub created_at: Timestamp,
    /// When it ends; absent: not by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

/// Something that somebody did or looked at, about to be written.
#[derive(Clone, Debug)]
pub struct NewAudit {
    /// When.
    pub at: Timestamp,
    /// Who: name of the user, or `-` if nobody is known yet.
    pub actor: String,
    /// As what.
    pub role: Option<Role>,
    /// From which address.
    pub address: String,
    /// Stable word, such as `study-viewed`.
    pub action: &'static str,
    /// Which study.
    pub study: Option<Uid>,
    /// What exactly.
    pub detail: serde_json::Value,
}

impl NewAudit {
    /// What a client of DICOMweb did: its name is not to be taken for that of a user of the same name.
    #[must_use]
    pub fn of_dicomweb(
        at: Timestamp,
        (client, address): (&str, IpAddr),
        action: &'static str,
        study: Option<Uid>,
        detail: serde_json::Value,
    ) -> Self {
        let (actor, address) = (format!("{DICOMWEB_ACTOR}{client}"), address.to_string());
        Self { at, actor, role: None, address, action, study, detail }
    }

    /// What ichor itself did, such as starting.
    #[must_use]
    pub fn of_ourselves(at: Timestamp, action: &'static str, detail: serde_json::Value) -> Self {
        let (actor, address) = ("ichor".to_owned(), "this machine".to_owned());
        Self { at, actor, role: None, address, action, study: None, detail }
    }
}

/// Who stands in the audit trail for a change, by the transaction that makes it.
#[derive(Clone, Debug)]
pub struct Witness {
    entry: NewAudit,
    outcome: Option<&'static str>,
}

impl Witness {
    /// The row as it is given.
    #[must_use]
    pub const fn new(entry: NewAudit) -> Self {
        Self { entry, outcome: None }
    }

    /// The row, and in its detail, under this key, what came of the change.
    #[must_use]
    pub const fn with_outcome(entry: NewAudit, key: &'static str) -> Self {
        Self { entry, outcome: Some(key) }
    }

    pub(crate) const fn action(&self) -> &'static str {
        self.entry.action
    }

    /// The row, once it is known what came of the change.
    pub(crate) fn entry(&self, outcome: serde_json::Value) -> NewAudit {
        let mut entry = self.entry.clone();
        if let (Some(key), Some(detail), false) = (self.outcome, entry.detail.as_object_mut(), outcome.is_null()) {
            detail.insert(key.to_owned(), outcome);
        }
        entry
    }
}

/// A row of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Number; they grow.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// As what.
    pub role: Option<String>,
    /// From which address.
    pub address: String,
    /// Stable word, such as `study-viewed`.
    pub action: String,
    /// Which study.
    pub study_instance: Option<Uid>,
    /// What exactly.
    pub detail: serde_json::Value,
}

/// What is asked of the audit trail.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Who, exactly.
    pub actor: Option<String>,
    /// About which study.
    pub study: Option<Uid>,
    /// Rows before this number.
    pub before: Option<i64>,
    /// Most rows; 1,000 at most.
    pub limit: u32,
}

impl Store {
    /// The same store in the hands of somebody: each change that is made through it stands in the audit trail by the same
    /// transaction, so that both are there or neither. What changes nothing, and fails, leaves no row. An intent that cannot
    /// be done so answers [`StoreError::Unwitnessed`] and does nothing.
    #[must_use]
    pub fn witnessed(&self, witness: Witness) -> Self {
        self.with_index(self.index().witnessed(witness))
    }

    /// Whether there is an admin with a password who may come in.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn has_admin(&self) -> Result<bool, StoreError> {
        self.index().has_admin().await
    }

    /// Makes a user who is yet to choose a password; their number.
    ///
    /// # Errors
    /// [`StoreError::Filter`] if the name is taken; [`StoreError::DiskFull`], [`StoreError::Busy`],
    /// [`StoreError::Database`].
    pub async fn add_user(&self, name: &str, role: Role, now: Timestamp) -> Result<i64, StoreError> {
        self.index().add_user(name, role, now).await
    }

    /// Changes what a user may do, and whether they may come in; one who may not is out at once, and their tokens are taken
    /// back. The last admin stays, and so
    /// does the last who needs no provider. What a provider gives, it alone changes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Filter`] for the last admin, and for the role of a provider's user; else as [`Self::add_user`].
    pub async fn change_user(&self, id: i64, role: Role, enabled: bool, now: Timestamp) -> Result<(), StoreError> {
        self.index().change_user(id, role, enabled, now).await
    }

    /// All users, by name.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.index().users().await
    }

    /// Keeps an invitation: for a user, or for whoever becomes the first admin. Others of the same kind end.
    ///
    /// # Errors
    /// [`StoreError::Filter`] for a provider's user, who has no password; else as [`Self::add_user`].
    pub async fn invite(
        &self,
        digest: SecretDigest,
        user: Option<i64>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().invite(digest, user, now, expires_at).await
    }

    /// The name that an invitation is for (`None`: the first admin's, who chooses it), if it is still good.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is not there, was used, or has ended; else as [`Self::users`].
    pub async fn invitation(&self, digest: SecretDigest, now: Timestamp) -> Result<Option<String>, StoreError> {
        self.index().invitation(digest, now).await
    }

    /// Takes up an invitation, once: the password is set, the user's sessions and tokens end. `name` is the first admin's.
    ///
    /// # Errors
    /// As [`Self::invitation`] and [`Self::add_user`].
    pub async fn accept_invitation(
        &self,
        digest: SecretDigest,
        name: &str,
        password_hash: &str,
        now: Timestamp,
    ) -> Result<User, StoreError> {
        self.index().accept_invitation(digest, name, password_hash, now).await
    }

    /// A user who may come in, with the hash of their password.
    ///
    /// # Errors
    /// As [`Self::users`].
    pub async fn password_of(&self, name: &str) -> Result<Option<(User, String)>, StoreError> {
        self.index().password_of(name).await
    }

    /// Begins a session; those that have ended are forgotten.
    ///
    /// # Errors
    /// As [`Self::add_user`].
    pub async fn begin_session(&self, session: &NewSession, now: Timestamp) -> Result<(), StoreError> {
        self.index().begin_session(session, now).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// As [`Self::add_user`].
    pub async fn end_session(&self, digest: SecretDigest) -> Result<(), StoreError> {
        self.index().end_session(digest).await
    }

    /// Who has a session.
    ///
    /// # Errors
    /// As [`Self::users`].
    pub async fn session(&self, digest: SecretDigest, now: Timestamp) -> Result<Option<Admitted>, StoreError> {
        self.index().session(digest, now).await
    }

    /// Keeps a token of a user; its number.
    ///
    /// # Errors
    /// As [`Self::add_user`].
    pub async fn add_token(
        &self,
        digest: SecretDigest,
        user: i64,
        label: &str,
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<i64, StoreError> {
        self.index().add_token(digest, user, label, now, expires_at).await
    }

    /// Takes a token back; of `user` only, if given.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; else as [`Self::add_user`].
    pub async fn revoke_token(&self, id: i64, user: Option<i64>, now: Timestamp) -> Result<(), StoreError> {
        self.index().revoke_token(id, user, now).await
    }

    /// Tokens, of one user or of all.
    ///
    /// # Errors
    /// As [`Self::users`].
    pub async fn tokens(&self, user: Option<i64>) -> Result<Vec<TokenSummary>, StoreError> {
        self.index().tokens(user).await
    }

    /// Who has a token.
    ///
    /// # Errors
    /// As [`Self::users`].
    pub async fn token(&self, digest: SecretDigest, now: Timestamp) -> Result<Option<Admitted>, StoreError> {
        self.index().token(digest, now).await
    }

    /// Writes a row of the audit trail.
    ///
    /// # Errors
    /// As [`Self::add_user`].
    pub async fn audit(&self, entry: &NewAudit) -> Result<(), StoreError> {
        self.index().audit(entry).await
    }

    /// Rows of the audit trail, the newest first.
    ///
    /// # Errors
    /// As [`Self::users`].
    pub async fn audited(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        self.index().audited(filter, filter.limit.clamp(1, MOST_AUDITED)).await
    }
}
