//! Statements of statistics.

use std::collections::{BTreeMap, HashMap};

use ichor_core::Zone;

use super::super::Sqlite;
use super::super::failure::During;
use crate::search::{DayFigures, ReasonCount, SourceFigures, Statistics, Turnaround};
use crate::{StoreError, Timestamp};

#[derive(sqlx::FromRow)]
struct Row {
    received_at: i64,
    source_ae: Option<String>,
    status: String,
    positive: Option<bool>,
    is_alerted: bool,
    reason_code: Option<String>,
    turnaround: Option<i64>,
}

/// What is counted of any group of studies.
#[derive(Default)]
struct Group {
    studies: u64,
    positive: u64,
    negative: u64,
    alerted: u64,
    not_analysed: u64,
    failed: u64,
    times: Vec<i64>,
}

impl Group {
    fn add(&mut self, row: &Row) {
        self.studies += 1;
        self.positive += u64::from(row.positive == Some(true));
        self.negative += u64::from(row.positive == Some(false));
        self.alerted += u64::from(row.is_alerted);
        self.not_analysed += u64::from(row.status == "not-analysed");
        self.failed += u64::from(row.status == "failed");
        // A late slice makes an outcome older than the last instance: it is of the version before.
        self.times.extend(row.turnaround.filter(|ms| *ms >= 0));
    }
}

impl Sqlite {
    pub(crate) async fn statistics(
        &self,
        from: Timestamp,
        to: Timestamp,
        zone: &Zone,
    ) -> Result<Statistics, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT received_at, source_ae, status, positive, alerted_at IS NOT NULL AS is_alerted, reason_code,
                 analysed_at - last_instance_at AS turnaround
             FROM study WHERE received_at >= ? AND received_at < ?",
        )
        .bind(from.as_millis())
        .bind(to.as_millis())
        .fetch_all(&self.read)
        .await
        .during("counting studies")?;
        let mut all = Group::default();
        let mut days: BTreeMap<String, Group> = BTreeMap::new();
        let mut sources: BTreeMap<Option<&str>, Group> = BTreeMap::new();
        let mut reasons: HashMap<&str, u64> = HashMap::new();
        for row in &rows {
            all.add(row);
            // A day has 23 to 25 hours: only the zone knows whose moment it is.
            days.entry(zone.day(row.received_at)).or_default().add(row);
            sources.entry(row.source_ae.as_deref()).or_default().add(row);
            if let Some(code) = row.reason_code.as_deref() {
                *reasons.entry(code).or_default() += 1;
            }
        }
        let mut reasons: Vec<ReasonCount> =
            reasons.into_iter().map(|(code, studies)| ReasonCount { code: code.to_owned(), studies }).collect();
        reasons.sort_by(|a, b| b.studies.cmp(&a.studies).then_with(|| a.code.cmp(&b.code)));
        let mut sources: Vec<SourceFigures> = sources.into_iter().map(|(name, group)| source(name, group)).collect();
        sources.sort_by_key(|source| std::cmp::Reverse(source.studies));
        Ok(Statistics {
            studies: all.studies,
            positive: all.positive,
            negative: all.negative,
            alerted: all.alerted,
            turnaround: Turnaround::of(all.times),
            reasons,
            time_zone: zone.name().to_owned(),
            days: days.into_iter().map(|(name, group)| day(name, group)).collect(),
            sources,
        })
    }
}

fn day(name: String, group: Group) -> DayFigures {
    DayFigures {
        day: name,
        studies: group.studies,
        positive: group.positive,
        not_analysed: group.not_analysed,
        failed: group.failed,
        turnaround: Turnaround::of(group.times),
    }
}

fn source(name: Option<&str>, group: Group) -> SourceFigures {
    SourceFigures {
        source_ae: name.map(str::to_owned),
        studies: group.studies,
        positive: group.positive,
        not_analysed: group.not_analysed,
        failed: group.failed,
        turnaround: Turnaround::of(group.times),
    }
}
