//! A transaction that changes something. Whoever is to stand in the audit trail for it does so by the same transaction: both
//! are there afterwards, or neither.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sqlx::{Error, Sqlite as Dialect, Transaction};

use super::Connection;
use super::access::insert_audit;
use crate::access::Witness;

/// A transaction under way; dropped, it changes nothing.
pub(super) struct Change {
    transaction: Transaction<'static, Dialect>,
    witness: Option<Arc<Witness>>,
}

impl Change {
    pub(super) fn new(transaction: Transaction<'static, Dialect>, witness: Option<Arc<Witness>>) -> Self {
        Self { transaction, witness }
    }

    /// Commits the change, and with it the row of its witness.
    pub(super) async fn commit(self) -> Result<(), Error> {
        self.commit_with(&Value::Null).await
    }

    /// [`Self::commit`]; the row says what came of it, where the witness asks for that.
    pub(super) async fn commit_with(mut self, outcome: &impl Serialize) -> Result<(), Error> {
        if let Some(witness) = self.witness.take() {
            let outcome = serde_json::to_value(outcome).map_err(|error| Error::Encode(error.into()))?;
            insert_audit(&mut self.transaction, &witness.entry(outcome)).await?;
        }
        self.transaction.commit().await
    }
}

impl Deref for Change {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.transaction
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.transaction
    }
}

#[cfg(test)]
mod tests;
