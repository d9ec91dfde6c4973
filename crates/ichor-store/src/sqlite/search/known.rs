//! Statements of what there is to be asked for.

use crate::StoreError;
use crate::sqlite::Sqlite;
use crate::sqlite::failure::During;

impl Sqlite {
    pub(crate) async fn known_sources(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT DISTINCT source_ae FROM study WHERE source_ae IS NOT NULL ORDER BY source_ae")
            .fetch_all(&self.read)
            .await
            .during("looking for sources")
    }

    pub(crate) async fn known_reasons(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT DISTINCT reason_code FROM study WHERE reason_code IS NOT NULL ORDER BY reason_code")
            .fetch_all(&self.read)
            .await
            .during("looking for reasons")
    }
}
