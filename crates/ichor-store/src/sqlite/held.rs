//! Statements of what is held.

use ichor_core::Uid;
use sqlx::QueryBuilder;

use super::failure::During;
use super::values::{blob as parse_blob, uid, unsigned};
use super::{Dialect, Sqlite};
use crate::StoreError;
use crate::blobs::BlobStore;
use crate::held::{HeldFilter, HeldInstance, HeldStudy};

#[derive(sqlx::FromRow)]
struct StudyRow {
    id: i64,
    study_instance: String,
    patient_id: Option<String>,
    patient_name: Option<String>,
    accession_number: Option<String>,
    study_date: Option<String>,
    description: Option<String>,
}

#[derive(sqlx::FromRow)]
struct InstanceRow {
    series_instance: String,
    sop_class: String,
    sop_instance: String,
    transfer_syntax: String,
    modality: Option<String>,
    description: Option<String>,
    number: Option<i32>,
    size: i64,
    digest: Vec<u8>,
    blob: String,
}

/// Received instances and results of ours, the latter from `object` only; none whose file retention has given up.
const HELD: &str = "
    WITH asked AS (SELECT id FROM study WHERE study_instance = ?1)
    SELECT s.series_instance, i.sop_class, i.sop_instance, i.transfer_syntax, s.modality, s.description, s.number, i.size,
        i.digest, i.blob, 0 AS own, s.id AS series_order, i.id AS place
    FROM instance i JOIN series s ON s.id = i.series_id
    WHERE i.study_id = (SELECT id FROM asked) AND (?2 IS NULL OR s.series_instance = ?2)
        AND (?3 IS NULL OR i.sop_instance = ?3) AND i.removed_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM object o WHERE o.sop_instance = i.sop_instance)
    UNION ALL
    SELECT o.series_instance, o.sop_class, o.sop_instance, o.transfer_syntax, NULL, NULL, NULL, o.size, o.digest, o.blob, 1,
        (SELECT MIN(id) FROM object first WHERE first.study_id = o.study_id AND first.series_instance = o.series_instance),
        o.id
    FROM object o
    WHERE o.study_id = (SELECT id FROM asked) AND (?2 IS NULL OR o.series_instance = ?2)
        AND (?3 IS NULL OR o.sop_instance = ?3) AND o.removed_at IS NULL
    ORDER BY own, series_order, place";

impl Sqlite {
    pub(crate) async fn held_studies(
        &self,
        filter: &HeldFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<HeldStudy>, StoreError> {
        let mut statement = QueryBuilder::<Dialect>::new(
            "SELECT id, study_instance, patient_id, patient_name, accession_number, study_date, description
             FROM study
             WHERE (EXISTS (SELECT 1 FROM instance i WHERE i.study_id = study.id AND i.removed_at IS NULL)
                 OR EXISTS (SELECT 1 FROM object o WHERE o.study_id = study.id AND o.removed_at IS NULL))",
        );
        if !filter.studies.is_empty() {
            statement.push(" AND study_instance IN ");
            push_uids(&mut statement, &filter.studies);
        }
        if !filter.series.is_empty() {
            statement.push(" AND id IN (SELECT study_id FROM series WHERE series_instance IN ");
            push_uids(&mut statement, &filter.series);
            statement.push(" UNION SELECT study_id FROM object WHERE series_instance IN ");
            push_uids(&mut statement, &filter.series);
            statement.push(")");
        }
        if !filter.instances.is_empty() {
            statement.push(" AND id IN (SELECT study_id FROM instance WHERE sop_instance IN ");
            push_uids(&mut statement, &filter.instances);
            statement.push(" UNION SELECT study_id FROM object WHERE sop_instance IN ");
            push_uids(&mut statement, &filter.instances);
            statement.push(")");
        }
        for (column, pattern) in [
            ("patient_id", &filter.patient_id),
            ("accession_number", &filter.accession_number),
            ("patient_name", &filter.patient_name),
        ] {
            let Some(pattern) = pattern else { continue };
            if column != "patient_name" && !pattern.contains(['*', '?', '\\', ' ']) {
                statement.push(" AND ").push(column).push(" = ").push_bind(pattern.clone());
            } else {
                statement.push(" AND ").push(column).push(" LIKE ").push_bind(like(pattern)).push(" ESCAPE '\\'");
            }
        }
        if let Some(from) = &filter.date_from {
            statement.push(" AND study_date >= ").push_bind(from.clone());
        }
        if let Some(to) = &filter.date_to {
            statement.push(" AND study_date <= ").push_bind(to.clone());
        }
        if let Some(after) = after {
            statement.push(" AND id < ").push_bind(after);
        }
        statement.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        let rows: Vec<StudyRow> =
            statement.build_query_as().fetch_all(&self.read).await.during("searching what is held")?;
        let study = |row: StudyRow| {
            Ok(HeldStudy {
                place: row.id,
                study_instance: uid(&row.study_instance)?,
                patient_id: row.patient_id,
                patient_name: row.patient_name,
                accession_number: row.accession_number,
                study_date: row.study_date,
                description: row.description,
            })
        };
        rows.into_iter().map(study).collect()
    }

    pub(crate) async fn held_instances(
        &self,
        blobs: &BlobStore,
        study: &Uid,
        series: Option<&Uid>,
        instance: Option<&Uid>,
    ) -> Result<Vec<HeldInstance>, StoreError> {
        let rows: Vec<InstanceRow> = sqlx::query_as(HELD)
            .bind(study.as_str())
            .bind(series.map(Uid::as_str))
            .bind(instance.map(Uid::as_str))
            .fetch_all(&self.read)
            .await
            .during("listing what is held")?;
        let held = |row: InstanceRow| {
            Ok(HeldInstance {
                study_instance: study.clone(),
                series_instance: uid(&row.series_instance)?,
                sop_class: uid(&row.sop_class)?,
                sop_instance: uid(&row.sop_instance)?,
                transfer_syntax: uid(&row.transfer_syntax)?,
                modality: row.modality,
                series_description: row.description,
                series_number: row.number,
                size: unsigned(row.size)?,
                digest: row.digest,
                path: blobs.path_of(&parse_blob(&row.blob)?),
            })
        };
        rows.into_iter().map(held).collect()
    }

    pub(crate) async fn given_up_instances(&self, study: &Uid, series: Option<&Uid>) -> Result<u64, StoreError> {
        // A result of ours that came back counts once, as what it was made.
        let count: i64 = sqlx::query_scalar(
            "SELECT (SELECT COUNT(*) FROM instance i JOIN study t ON t.id = i.study_id JOIN series s ON s.id = i.series_id
                 WHERE t.study_instance = ?1 AND (?2 IS NULL OR s.series_instance = ?2) AND i.removed_at IS NOT NULL
                     AND NOT EXISTS (SELECT 1 FROM object o WHERE o.sop_instance = i.sop_instance))
             + (SELECT COUNT(*) FROM object o JOIN study t ON t.id = o.study_id
                 WHERE t.study_instance = ?1 AND (?2 IS NULL OR o.series_instance = ?2) AND o.removed_at IS NOT NULL)",
        )
        .bind(study.as_str())
        .bind(series.map(Uid::as_str))
        .fetch_one(&self.read)
        .await
        .during("counting what is no longer held")?;
        unsigned(count)
    }

    pub(crate) async fn holder_of(&self, instance: &Uid) -> Result<Option<(Uid, Uid)>, StoreError> {
        let row: Option<(String, String)> = sqlx::query_as(
            "SELECT t.study_instance, o.series_instance FROM object o JOIN study t ON t.id = o.study_id
             WHERE o.sop_instance = ?1 AND o.removed_at IS NULL
             UNION ALL
             SELECT t.study_instance, s.series_instance FROM instance i JOIN series s ON s.id = i.series_id
             JOIN study t ON t.id = i.study_id WHERE i.sop_instance = ?1 AND i.removed_at IS NULL
             LIMIT 1",
        )
        .bind(instance.as_str())
        .fetch_optional(&self.read)
        .await
        .during("looking for an instance")?;
        row.map(|(study, series)| Ok((uid(&study)?, uid(&series)?))).transpose()
    }
}

fn push_uids(statement: &mut QueryBuilder<Dialect>, uids: &[Uid]) {
    statement.push("(");
    let mut list = statement.separated(", ");
    for uid in uids {
        list.push_bind(uid.as_str().to_owned());
    }
    statement.push(")");
}

/// A pattern for LIKE that lets through at least what the pattern does: letters that are not ASCII have a case that LIKE does
/// not know, and spaces and carets at the end do not count.
fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len() + 1);
    for character in pattern.trim_end_matches([' ', '^']).chars() {
        match character {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' | '\\' => like.extend(['\\', character]),
            other if other.is_ascii() => like.push(other),
            _ => like.push('%'),
        }
    }
    like.push('%');
    like
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn patterns_let_nothing_out() {
        for (pattern, wanted) in
            [("A*B?", "A%B_%"), ("50%_\\", "50\\%\\_\\\\%"), ("Müller^", "M%ller%"), ("SMITH^^ ", "SMITH%"), ("", "%")]
        {
            assert_eq!(like(pattern), wanted);
        }
    }
}
