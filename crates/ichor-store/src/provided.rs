//! Users of an OpenID provider: it says who they are and what they may do, at each login.

use crate::{Role, Store, StoreError, Timestamp, User};

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

impl Store {
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
