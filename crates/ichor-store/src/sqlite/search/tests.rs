use std::time::{Duration, Instant};

use ichor_core::{AeTitle, StudyStatus, Zone};
use sqlx::Row;
use tempfile::TempDir;

use super::super::tests::options;
use super::*;
use crate::folder;
use crate::search::{StudyMark, StudyOrder};
use crate::{StudyFilter, Timestamp};

/// Longest answer to a list.
const LONGEST: Duration = Duration::from_millis(50);

/// Milliseconds between two studies.
const PACE: i64 = 315_000;

/// An index of many studies, in one statement; one in twenty positive, one in a hundred not analysed, one in a thousand
/// failed; true and false alerts, some on hold, some with something given up. Names of one word that all have and of words
/// that few have.
async fn many_studies(folder: &TempDir, studies: i64) -> Sqlite {
    let index = Sqlite::open(&options(folder)).await.unwrap();
    sqlx::query(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
         INSERT INTO study (study_instance, patient_id, patient_name, accession_number, study_date, source_ae, status,
             version, received_at, last_instance_at, instances, result_version, positive, probability, volume_ml,
             reason_code, reason_text, analysed_at, alerted_at, held_at, given_up)
         SELECT '2.25.' || (1000000000 + i * 7919), 'PATIENT' || (i / 3), 'NAME' || (i / 3) || '^ANN^MARIE',
             'ACC' || i, strftime('%Y%m%d', 1700000000 + i * 315, 'unixepoch'), 'CT' || (i % 5),
             CASE WHEN i % 997 = 0 THEN 'failed' WHEN i % 101 = 0 THEN 'not-analysed' ELSE 'analysed' END, 1,
             1700000000000 + i * 315000, 1700000000000 + i * 315000 + 60000, 32, 1,
             CASE WHEN i % 997 = 0 OR i % 101 = 0 THEN NULL ELSE i % 20 = 0 END, 0.5, 1.0,
             CASE WHEN i % 997 = 0 THEN 'model-failed' WHEN i % 101 = 0 THEN 'single-slice' END,
             CASE WHEN i % 997 = 0 OR i % 101 = 0 THEN 'because' END, 1700000000000 + i * 315000 + 100000,
             CASE WHEN i % 997 != 0 AND i % 101 != 0 AND (i % 20 = 0 OR i % 200 = 1) THEN 1700000000000 + i * 315000 + 30000 END,
             CASE WHEN i % 4999 = 2 THEN 1800000000000 END, (i % 9973 = 5) * 2
         FROM n",
    )
    .bind(studies)
    .execute(&index.write)
    .await
    .unwrap();
    // A quiet source, as a site has them.
    sqlx::query("UPDATE study SET source_ae = 'RARE' WHERE id IN (7, 70, 700, 7000)")
        .execute(&index.write)
        .await
        .unwrap();
    index
}

fn moment(study: i64) -> Option<Timestamp> {
    Some(Timestamp::from_millis(1_700_000_000_000 + study * PACE))
}

/// Every question of the API, with how many studies the first page must hold.
fn questions(studies: i64) -> Vec<(&'static str, StudyFilter, usize)> {
    let none = StudyFilter::default;
    let text = |value: &str| Some(value.to_owned());
    let source = |title: &str| Some(AeTitle::parse(title).unwrap());
    let urgent = || StudyFilter { order: StudyOrder::Priority, ..none() };
    let day =
        |order| StudyFilter { date_from: text("20231201"), date_to: text("20231201"), limit: 1_000, order, ..none() };
    let middle = studies / 2;
    let week = || StudyFilter { received_from: moment(studies - 7 * 274), ..urgent() };
    let marked = |mark| move || StudyFilter { mark: Some(mark), ..StudyFilter::default() };
    let (on_hold, alerted, given_up) =
        (marked(StudyMark::OnHold), marked(StudyMark::Alerted), marked(StudyMark::GivenUp));
    let by_priority = |filter: StudyFilter| StudyFilter { order: StudyOrder::Priority, ..filter };
    let page_of = |all: i64| usize::try_from(all.min(50)).unwrap();
    let (held, dead) = (page_of((studies - 3) / 4_999 + 1), page_of((studies - 6) / 9_973 + 1));
    vec![
        ("on hold", on_hold(), held),
        ("urgent: on hold", by_priority(on_hold()), held),
        ("on hold, of one patient", StudyFilter { patient_id: text("PATIENT0"), ..on_hold() }, 1),
        ("on hold, common name", StudyFilter { patient_name: text("marie"), ..on_hold() }, held),
        ("on hold, very rare name", StudyFilter { patient_name: text("Name0^Ann"), ..on_hold() }, 1),
        ("alerted", alerted(), 50),
        ("alerted: deep page", within(alerted(), 0, 40), 2),
        ("alerted for nothing", StudyFilter { positive: Some(false), ..alerted() }, 50),
        ("alerted by an old day", StudyFilter { date_to: text("20231115"), ..alerted() }, 16),
        ("alerted, common name", StudyFilter { patient_name: text("ann"), ..alerted() }, 50),
        ("alerted, rare source", StudyFilter { source_ae: source("RARE"), ..alerted() }, 0),
        ("alerted, failed", StudyFilter { status: Some(StudyStatus::Failed), ..alerted() }, 0),
        ("alerted, by reason", StudyFilter { reason: text("single-slice"), ..alerted() }, 0),
        ("urgent: alerted", by_priority(alerted()), 50),
        ("urgent: alerted, rare source", by_priority(StudyFilter { source_ae: source("RARE"), ..alerted() }), 0),
        ("given up", given_up(), dead),
        ("urgent: given up", by_priority(given_up()), dead),
        ("all", none(), 50),
        ("patient", StudyFilter { patient_id: text("PATIENT777"), ..none() }, 3),
        ("accession", StudyFilter { accession_number: text("ACC31337"), ..none() }, 1),
        ("nobody", StudyFilter { patient_id: text("NOBODY"), ..none() }, 0),
        ("one old day", day(StudyOrder::Time), 275),
        ("all days", StudyFilter { date_from: text("19000101"), date_to: text("21000101"), ..none() }, 50),
        (
            "hour of arrival",
            StudyFilter { received_from: moment(middle), received_to: moment(middle + 11), ..none() },
            12,
        ),
        ("failed", StudyFilter { status: Some(StudyStatus::Failed), ..none() }, 50),
        ("no such status", StudyFilter { status: Some(StudyStatus::Receiving), ..none() }, 0),
        ("analysed", StudyFilter { status: Some(StudyStatus::Analysed), ..none() }, 50),
        ("positive", StudyFilter { positive: Some(true), ..none() }, 50),
        ("negative", StudyFilter { positive: Some(false), ..none() }, 50),
        ("source", StudyFilter { source_ae: source("CT3"), ..none() }, 50),
        ("rare source", StudyFilter { source_ae: source("RARE"), ..none() }, 4),
        ("positive on one old day", StudyFilter { positive: Some(true), date_to: text("20231115"), ..none() }, 14),
        ("reason", StudyFilter { reason: text("single-slice"), ..none() }, 50),
        ("no such reason", StudyFilter { reason: text("nothing"), ..none() }, 0),
        ("study by its UID", StudyFilter { study_instance: text("2.25.1000007919"), ..none() }, 1),
        ("studies by a UID's beginning", StudyFilter { study_instance: text("2.25.10000079"), ..none() }, 1),
        ("rare name", StudyFilter { patient_name: text("name77"), ..none() }, 50),
        ("very rare name", StudyFilter { patient_name: text("Name0^Ann"), ..none() }, 3),
        ("common name", StudyFilter { patient_name: text("marie"), ..none() }, 50),
        ("two common names", StudyFilter { patient_name: text("ann marie"), ..none() }, 50),
        ("one letter", StudyFilter { patient_name: text("m"), ..none() }, 50),
        ("nobody's name", StudyFilter { patient_name: text("山田"), ..none() }, 0),
        ("common name, positive", StudyFilter { patient_name: text("ann"), positive: Some(true), ..none() }, 50),
        ("urgent: all", urgent(), 50),
        ("urgent: a long page", StudyFilter { limit: 1_000, ..urgent() }, 1_000),
        ("urgent: a week", week(), 50),
        ("urgent: a week, all of it", StudyFilter { limit: 2_000, ..week() }, 7 * 274),
        ("urgent: negative", StudyFilter { positive: Some(false), ..urgent() }, 50),
        ("urgent: failed", StudyFilter { status: Some(StudyStatus::Failed), ..urgent() }, 50),
        ("urgent: not analysed", StudyFilter { status: Some(StudyStatus::NotAnalysed), ..urgent() }, 50),
        ("urgent: under way", StudyFilter { status: Some(StudyStatus::Queued), ..urgent() }, 0),
        ("urgent: source", StudyFilter { source_ae: source("CT3"), ..urgent() }, 50),
        ("urgent: rare source", StudyFilter { source_ae: source("RARE"), ..urgent() }, 4),
        ("urgent: reason", StudyFilter { reason: text("single-slice"), ..urgent() }, 50),
        ("urgent: patient", StudyFilter { patient_id: text("PATIENT777"), ..urgent() }, 3),
        ("urgent: rare name", StudyFilter { patient_name: text("name77"), ..urgent() }, 50),
        ("urgent: one old day", day(StudyOrder::Priority), 275),
        ("urgent: page within negatives", within(urgent(), 0, middle), 50),
        ("urgent: page at the end of positives", within(urgent(), 4, 1), 50),
        ("deep page", within(none(), 0, 3), 3),
        ("deep page of a common name", within(StudyFilter { patient_name: text("marie"), ..none() }, 0, 3), 3),
    ]
}

/// The page behind the study of that number (from 0; rows count from 1).
fn within(filter: StudyFilter, urgency: u8, study: i64) -> StudyFilter {
    let at = 1_700_000_000_000 + study * PACE;
    StudyFilter { after: Some(Cursor::new(&filter, urgency, at, study + 1)), ..filter }
}

async fn every_question_is_quick(studies: i64) {
    let folder = folder();
    let begun = Instant::now();
    let index = many_studies(&folder, studies).await;
    println!("{studies} studies in {:.1} s", begun.elapsed().as_secs_f64());
    let mut slow = Vec::new();
    for (name, filter, expected) in questions(studies) {
        let steps = plan_of(&index, &filter).await;
        assert!(
            steps.iter().all(|step| !step.starts_with("SCAN study") || step.contains("INDEX")),
            "{name}: {steps:?}"
        );
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            let page = index.studies(&filter, filter.limit).await.unwrap();
            best = best.min(begun.elapsed());
            assert_eq!(page.items.len(), expected, "{name}");
            let order = |study: &StudySummary| match filter.order {
                StudyOrder::Time => (0, study.received_at),
                StudyOrder::Priority => (study.urgency, study.received_at),
            };
            assert!(page.items.windows(2).all(|pair| order(&pair[0]) >= order(&pair[1])), "{name}: the order");
        }
        println!("{name:<36} {:>8.2} ms  {}", best.as_secs_f64() * 1e3, steps.join("; "));
        if best > LONGEST {
            slow.push(format!("{name}: {best:?}"));
        }
    }
    let common =
        StudyFilter { patient_name: Some("marie".to_owned()), order: StudyOrder::Priority, ..StudyFilter::default() };
    let refused = index.studies(&common, 50).await.unwrap_err().to_string();
    assert!(refused.contains("too many"), "{refused}");
    let begun = Instant::now();
    let month =
        index.statistics(moment(studies - 30 * 274).unwrap(), moment(studies).unwrap(), &Zone::UTC).await.unwrap();
    println!("{:<36} {:>8.2} ms", "statistics of a month", begun.elapsed().as_secs_f64() * 1e3);
    assert_eq!((month.studies, month.turnaround.p99_ms), (30 * 274, Some(40_000)));
    assert!(slow.is_empty(), "{slow:?}");
}

#[tokio::test]
async fn days_of_statistics_are_those_of_the_zone() {
    let folder = folder();
    let index = many_studies(&folder, 1_000).await;
    // The first study arrives at midnight of Berlin before the clock is set back, 2026-10-24 at 22:00 UTC.
    let begin = 1_792_879_200_000_i64;
    sqlx::query("UPDATE study SET received_at = received_at + ?")
        .bind(begin - 1_700_000_000_000)
        .execute(&index.write)
        .await
        .unwrap();
    let days = async |zone: &str| {
        let (from, to) = (Timestamp::from_millis(begin), Timestamp::from_millis(begin + 1_000 * PACE));
        let zone = Zone::parse(zone).unwrap();
        let told = index.statistics(from, to, &zone).await.unwrap();
        assert_eq!((told.time_zone.as_str(), told.studies), (zone.name(), 1_000));
        told.days.into_iter().map(|day| (day.day, day.studies)).collect::<Vec<_>>()
    };
    // Studies before a moment so many hours after the first.
    let before = |hours: i64| u64::try_from((hours * 3_600_000 + PACE - 1) / PACE).unwrap();
    let day = |name: &str, from: i64, to: i64| (name.to_owned(), before(to).min(1_000) - before(from));
    assert_eq!(
        days("Europe/Berlin").await,
        [day("2026-10-25", 0, 25), day("2026-10-26", 25, 49), day("2026-10-27", 49, 73), day("2026-10-28", 73, 97)]
    );
    assert_eq!(
        days("UTC").await,
        [
            day("2026-10-24", 0, 2),
            day("2026-10-25", 2, 26),
            day("2026-10-26", 26, 50),
            day("2026-10-27", 50, 74),
            day("2026-10-28", 74, 98)
        ]
    );
}

#[tokio::test]
async fn lists_of_a_hundred_thousand_studies_are_quick_and_read_an_index() {
    every_question_is_quick(100_000).await;
}

#[tokio::test]
#[ignore = "builds a million studies: `make million`"]
async fn lists_of_a_million_studies_are_quick_and_read_an_index() {
    every_question_is_quick(1_000_000).await;
}

async fn plan_of(index: &Sqlite, filter: &StudyFilter) -> Vec<String> {
    let name = filter.patient_name.as_ref();
    let name = name.map(|name| NameMatch { query: name_query(name).unwrap(), is_common: false });
    let mut steps = Vec::new();
    for statement in studies_statements(filter, name.as_ref()).unwrap() {
        let statement = statement.limited(51).into_string();
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let mut rows = sqlx::query(explain);
        // The plan does not depend on the values, but each place wants one.
        for _ in 0..statement.matches('?').count() {
            rows = rows.bind(0i64);
        }
        for row in rows.fetch_all(&index.read).await.unwrap() {
            let step: String = row.get("detail");
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    steps
}

#[tokio::test]
async fn names_are_found_whatever_their_script() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    let names =
        ["O'Brien^<script>", "Müller^Jürgen", "Yamada^Tarou=山田^太郎=やまだ^たろう", "قباني^لنزار", "SMITH^ANN"];
    for (number, name) in names.iter().enumerate() {
        sqlx::query(
            "INSERT INTO study (study_instance, status, received_at, last_instance_at) VALUES (?, 'analysed', ?, 1)",
        )
        .bind(format!("1.2.{number}"))
        .bind(number as i64)
        .execute(&index.write)
        .await
        .unwrap();
        // A name may be filled in later; each is written once, and once more with the same.
        for _ in 0..2 {
            sqlx::query("UPDATE study SET patient_name = ? WHERE received_at = ?")
                .bind(name)
                .bind(number as i64)
                .execute(&index.write)
                .await
                .unwrap();
        }
    }
    let find = async |name: &str| -> Vec<String> {
        let mut found = Vec::new();
        for order in [StudyOrder::Time, StudyOrder::Priority] {
            let filter = StudyFilter { patient_name: Some(name.to_owned()), order, ..StudyFilter::default() };
            let page = index.studies(&filter, 50).await.unwrap();
            found.push(page.items.into_iter().map(|study| study.patient_name.unwrap()).collect::<Vec<_>>());
        }
        assert_eq!(found[0], found[1], "{name}");
        found.swap_remove(0)
    };
    for (words, name) in [
        ("o'brien", 0),
        ("brien", 0),
        ("<script>", 0),
        ("muller", 1),
        ("MÜLL jur", 1),
        ("山田", 2),
        ("太", 2),
        ("tarou yamada", 2),
        ("たろう", 2),
        ("قباني", 3),
        ("لنز", 3),
        ("smith^ann", 4),
        ("S A", 4),
    ] {
        assert_eq!(find(words).await, [names[name]], "{words}");
    }
    for words in ["mith", "smith bob", "brien OR smith", "NOT smith", "smith NEAR ann"] {
        assert!(find(words).await.is_empty(), "{words}");
    }
}
