//! What a told number of instances means for a study that is arriving: it waits, it closes, or neither.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::super::Connection;
use super::super::events::NewEvent;
use super::super::failure::During;
use super::super::values::to_json;
use crate::lookup::{Completeness, DueLookup, ToldInstances, ToldSeries};
use crate::{StoreError, Timestamp};

const DURING: &str = "weighing a number of instances";

/// What is here of a study, to be held against what was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    /// Instances by series, our own results that came back included.
    series: BTreeMap<String, i64>,
    /// Series that were made here: nobody waits for them.
    made_here: BTreeSet<String>,
    /// Instances without our own results.
    instances: i64,
}

/// What was told, against what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Balance {
    /// Instances that were told and are not here.
    missing: i64,
    /// Instances that are here and were not told: the peer is behind.
    untold: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    is_receiving: bool,
    instances: i64,
    last_instance_at: i64,
    quiet_until: Option<i64>,
    told: Option<String>,
    told_since: Option<i64>,
    expected: Option<i64>,
    hold_until: Option<i64>,
    senders: i64,
    others_hold: bool,
}

/// Weighs what was told; whether a deadline of the study has moved.
pub(super) async fn weigh(
    connection: &mut Connection,
    due: &DueLookup,
    told: &ToldInstances,
    completeness: Completeness,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row: Row = sqlx::query_as(
        "SELECT s.status = 'receiving' AND s.version = l.version AS is_receiving, s.instances, s.last_instance_at,
             s.quiet_until, l.told, l.told_since, l.expected, l.hold_until,
             (SELECT COUNT(*) FROM association a WHERE a.closed_at IS NULL AND EXISTS (
                 SELECT 1 FROM instance i WHERE i.association_id = a.id AND i.study_id = s.id)) AS senders,
             EXISTS (SELECT 1 FROM lookup o WHERE o.study_id = s.id AND o.peer <> l.peer AND o.version = l.version
                 AND o.hold_until IS NOT NULL) AS others_hold
         FROM lookup l JOIN study s ON s.id = l.study_id WHERE l.study_id = ? AND l.peer = ?",
    )
    .bind(due.study)
    .bind(&due.peer)
    .fetch_one(&mut *connection)
    .await
    .during(DURING)?;
    let (true, Some(quiet_until)) = (row.is_receiving, row.quiet_until) else { return Ok(false) };
    let held = held(connection, due.study, row.instances).await?;
    let balance = balance(told, &held);
    let expected = row.instances.saturating_add(balance.missing);
    let fingerprint = fingerprint(told)?;
    let since = match (&row.told, row.told_since) {
        (Some(before), Some(since)) if *before == fingerprint => since,
        // From when the answer is here: what the peer had when it was asked is older.
        _ => now.as_millis(),
    };
    let wait = i64::try_from(completeness.wait_for_missing.as_millis()).unwrap_or(i64::MAX);
    let hold_until = (balance.missing > 0 && wait > 0).then(|| quiet_until.saturating_add(wait));
    sqlx::query(
        "UPDATE lookup SET told = ?, told_since = ?, expected = ?, hold_until = ? WHERE study_id = ? AND peer = ?",
    )
    .bind(&fingerprint)
    .bind(since)
    .bind(expected)
    .bind(hold_until)
    .bind(due.study)
    .bind(&due.peer)
    .execute(&mut *connection)
    .await
    .during(DURING)?;
    sqlx::query(
        "UPDATE study SET (expected_instances, hold_until) = (SELECT MAX(expected), MAX(hold_until) FROM lookup
             WHERE study_id = ?1 AND version = ?2) WHERE id = ?1",
    )
    .bind(due.study)
    .bind(due.version)
    .execute(&mut *connection)
    .await
    .during(DURING)?;
    let is_news = row.expected.is_none_or(|before| (before > row.instances) != (balance.missing > 0));
    if is_news {
        say(connection, due, expected, balance, now).await?;
    }
    let stable = i64::try_from(completeness.stable.as_millis()).unwrap_or(i64::MAX);
    let is_complete = completeness.close_when_complete
        && balance == (Balance { missing: 0, untold: 0 })
        && !row.others_hold
        && row.senders == 0
        // So long the same was told, and so long nothing came.
        && completeness.asked_at.as_millis() >= since.max(row.last_instance_at).saturating_add(stable)
        && quiet_until > now.as_millis();
    if is_complete {
        close_now(connection, due, now).await?;
    }
    Ok(is_complete || hold_until != row.hold_until)
}

async fn held(connection: &mut Connection, study: i64, instances: i64) -> Result<Held, StoreError> {
    let series: Vec<(String, i64)> = sqlx::query_as(
        "SELECT s.series_instance, COUNT(*) FROM instance i JOIN series s ON s.id = i.series_id
         WHERE i.study_id = ? GROUP BY i.series_id",
    )
    .bind(study)
    .fetch_all(&mut *connection)
    .await
    .during(DURING)?;
    let made_here: Vec<String> = sqlx::query_scalar("SELECT DISTINCT series_instance FROM object WHERE study_id = ?")
        .bind(study)
        .fetch_all(&mut *connection)
        .await
        .during(DURING)?;
    Ok(Held { series: series.into_iter().collect(), made_here: made_here.into_iter().collect(), instances })
}

/// Holds what was told against what is here. A number of a whole study says nothing certain once there are results that were
/// made here: the peer may count them. Nothing is waited for then, and nothing closes.
fn balance(told: &ToldInstances, held: &Held) -> Balance {
    match told {
        ToldInstances::Study(told) => {
            let (told, here) = (i64::from(*told), held.instances);
            if held.made_here.is_empty() {
                Balance { missing: (told - here).max(0), untold: (here - told).max(0) }
            } else {
                Balance { missing: 0, untold: (here - told).max(1) }
            }
        }
        ToldInstances::Series(series) => {
            let mut balance = Balance { missing: 0, untold: 0 };
            let is_listed = |uid: &String| series.iter().any(|told| told.series_instance.as_str() == uid);
            let unlisted = held.series.iter().filter(|(uid, _)| !held.made_here.contains(*uid) && !is_listed(uid));
            balance.untold += unlisted.map(|(_, here)| here).sum::<i64>();
            let is_awaited =
                |told: &&ToldSeries| told.counts && !held.made_here.contains(told.series_instance.as_str());
            for told in series.iter().filter(is_awaited) {
                let here = held.series.get(told.series_instance.as_str()).copied().unwrap_or(0);
                balance.missing += (i64::from(told.instances) - here).max(0);
                balance.untold += (here - i64::from(told.instances)).max(0);
            }
            balance
        }
    }
}

/// The numbers as one text, the same for the same numbers.
fn fingerprint(told: &ToldInstances) -> Result<String, StoreError> {
    match told {
        ToldInstances::Study(instances) => Ok(instances.to_string()),
        ToldInstances::Series(series) => {
            let sorted: BTreeMap<&str, u32> =
                series.iter().map(|told| (told.series_instance.as_str(), told.instances)).collect();
            to_json(&sorted)
        }
    }
}

async fn say(
    connection: &mut Connection,
    due: &DueLookup,
    expected: i64,
    balance: Balance,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (missing, here) = (balance.missing, expected - balance.missing);
    let text = match missing {
        0 => format!("{} tells of no instance that is waited for; {here} are here", due.peer),
        _ => format!("{} tells of {expected} instances, {here} are here: {missing} are missing", due.peer),
    };
    NewEvent::new(now, "looked-up", text)
        .detail(json!({ "peer": due.peer, "what": "instances", "expected": expected, "missing": missing }))
        .study(due.study)
        .write(connection)
        .await
}

/// Ends the quiet period; whatever arrives before the study is closed begins it anew.
async fn close_now(connection: &mut Connection, due: &DueLookup, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE study SET quiet_until = ?, hold_until = NULL WHERE id = ?")
        .bind(now.as_millis())
        .bind(due.study)
        .execute(&mut *connection)
        .await
        .during(DURING)?;
    NewEvent::new(now, "looked-up", format!("{} tells the same for long enough: the study is complete", due.peer))
        .detail(json!({ "peer": due.peer, "what": "complete" }))
        .study(due.study)
        .write(connection)
        .await
}

#[cfg(test)]
mod tests {
    use ichor_core::Uid;

    use super::*;

    fn held(series: &[(&str, i64)], made_here: &[&str], instances: i64) -> Held {
        Held {
            series: series.iter().map(|(uid, count)| ((*uid).to_owned(), *count)).collect(),
            made_here: made_here.iter().map(|uid| (*uid).to_owned()).collect(),
            instances,
        }
    }

    fn told(series: &[(&str, u32)]) -> ToldInstances {
        let told = |(uid, instances): &(&str, u32)| ToldSeries {
            series_instance: Uid::parse(uid).unwrap(),
            instances: *instances,
            // Those of other kinds end in 8.
            counts: !uid.ends_with('8'),
        };
        ToldInstances::Series(series.iter().map(told).collect())
    }

    #[test]
    fn numbers_of_series_are_held_against_what_is_here() {
        for (told, held, missing, untold) in [
            (told(&[("1.1", 28)]), held(&[("1.1", 28)], &[], 28), 0, 0),
            (told(&[("1.1", 28)]), held(&[("1.1", 27)], &[], 27), 1, 0),
            // A series of which nothing has come yet.
            (told(&[("1.1", 28), ("1.2", 2)]), held(&[("1.1", 28)], &[], 28), 2, 0),
            // The peer is behind: what it lacks in one series is no excuse for another.
            (told(&[("1.1", 10), ("1.2", 3)]), held(&[("1.1", 12), ("1.2", 1)], &[], 13), 2, 2),
            // Of a kind that is not waited for.
            (told(&[("1.1", 28), ("1.8", 7)]), held(&[("1.1", 28)], &[], 28), 0, 0),
            (told(&[("1.1", 28), ("1.8", 7)]), held(&[("1.1", 28), ("1.8", 1)], &[], 29), 0, 0),
            // A series that the peer does not know yet.
            (told(&[("1.1", 28)]), held(&[("1.1", 28), ("1.2", 3)], &[], 31), 0, 3),
            // Our own results, there and here.
            (told(&[("1.1", 28), ("1.9", 1)]), held(&[("1.1", 28)], &["1.9"], 28), 0, 0),
            (told(&[("1.1", 28), ("1.9", 1)]), held(&[("1.1", 28), ("1.9", 2)], &["1.9"], 28), 0, 0),
        ] {
            assert_eq!(balance(&told, &held), Balance { missing, untold }, "{told:?} {held:?}");
        }
    }

    #[test]
    fn numbers_of_studies_are_held_against_what_is_here() {
        for (told, here, missing, untold) in [(28, 28, 0, 0), (28, 27, 1, 0), (20, 28, 0, 8)] {
            let balance = balance(&ToldInstances::Study(told), &held(&[("1.1", here)], &[], here));
            assert_eq!(balance, Balance { missing, untold }, "{told} told, {here} here");
        }
        let came_back = held(&[("1.1", 28), ("1.9", 1)], &["1.9"], 28);
        assert_eq!(balance(&ToldInstances::Study(29), &came_back), Balance { missing: 0, untold: 1 });
        let went_there = held(&[("1.1", 28)], &["1.9"], 28);
        assert_eq!(balance(&ToldInstances::Study(31), &went_there), Balance { missing: 0, untold: 1 });
        let one_lacks = held(&[("1.1", 27)], &["1.9"], 27);
        assert_ne!(balance(&ToldInstances::Study(27), &one_lacks).untold, 0, "one of the 27 may be our own result");
    }

    #[test]
    fn same_numbers_have_the_same_text() {
        let one = fingerprint(&told(&[("1.1", 28), ("1.2", 3)])).unwrap();
        assert_eq!(one, fingerprint(&told(&[("1.2", 3), ("1.1", 28)])).unwrap());
        assert_ne!(one, fingerprint(&told(&[("1.2", 3), ("1.1", 27)])).unwrap());
        assert_ne!(fingerprint(&ToldInstances::Study(1)).unwrap(), fingerprint(&ToldInstances::Study(2)).unwrap());
    }
}
