//! Statements of lists, queues, statistics and the feed.

mod feed;
mod known;
mod plan;
mod queues;
mod statistics;

use sqlx::Connection as _;

pub(super) use plan::studies_statements;

use super::Sqlite;
use super::failure::During;
use super::query::SummaryRow;
use super::values::unsigned;
use crate::search::{Cursor, Page, StudyFilter};
use crate::{StoreError, StudySummary};
use plan::{MOST_CANDIDATES, NameMatch, name_query};

const DURING: &str = "listing studies";

impl Sqlite {
    pub(crate) async fn studies(&self, filter: &StudyFilter, limit: u32) -> Result<Page<StudySummary>, StoreError> {
        let mut connection = self.read.acquire().await.during(DURING)?;
        // One snapshot for all statements.
        let mut tx = connection.begin().await.during(DURING)?;
        let name = match &filter.patient_name {
            None => None,
            Some(name) => {
                let query = name_query(name)?;
                let found: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM (SELECT rowid FROM study_name WHERE study_name MATCH ? LIMIT ?)",
                )
                .bind(&query)
                .bind(MOST_CANDIDATES + 1)
                .fetch_one(&mut *tx)
                .await
                .during(DURING)?;
                Some(NameMatch { query, is_common: found > MOST_CANDIDATES })
            }
        };
        // One more than the page tells whether there is another.
        let wanted = limit.saturating_add(1);
        let mut rows: Vec<SummaryRow> = Vec::new();
        for statement in studies_statements(filter, name.as_ref())? {
            let room = wanted.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            if room == 0 {
                break;
            }
            let mut statement = statement.limited(room);
            rows.extend(statement.build_query_as::<SummaryRow>().fetch_all(&mut *tx).await.during(DURING)?);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_last = rows.len() <= limit;
        rows.truncate(limit);
        let next = match rows.last().filter(|_| !is_last) {
            Some(row) => Some(Cursor::new(filter, unsigned(row.urgency)?, row.received_at, row.id)),
            None => None,
        };
        let items = rows.into_iter().map(SummaryRow::summary).collect::<Result<_, _>>()?;
        Ok(Page { items, next })
    }
}

#[cfg(test)]
mod tests;
