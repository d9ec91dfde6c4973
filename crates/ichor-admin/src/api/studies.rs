//! Studies: lists and details.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use ichor_core::{AeTitle, Finding, StudyStatus, Uid, Zone};
use ichor_store::{
    DeliveryFilter, DeliverySummary, Event, ForwardedDepth, MessageSummary, ObjectDetail, SeriesDetail, SliceScore,
    StudyFilter, StudyKey, StudyMark, StudyOrder, StudySummary, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::uid;
use crate::App;
use crate::access::{AsViewer, audit};
use crate::problem::Problem;

/// Most studies on a page of the API.
const LONGEST_PAGE: u32 = 1_000;

/// Most days that a list goes back by `days`.
const MOST_DAYS: u32 = 3_660;

/// Most deliveries and messages of one study that are shown.
const MOST_OF_A_STUDY: u32 = 500;

/// Which studies. What is left out, or empty, does not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StudyQuery {
    /// Beginnings of words of the Patient's Name, in any script; case and accents do not matter.
    pub(crate) name: Option<String>,
    /// Patient ID, exactly.
    pub(crate) patient_id: Option<String>,
    /// Accession Number, exactly.
    pub(crate) accession: Option<String>,
    /// Study Instance UID, or its beginning.
    pub(crate) study: Option<String>,
    /// Study Date from, YYYYMMDD or YYYY-MM-DD.
    pub(crate) date_from: Option<String>,
    /// Study Date to, inclusive.
    pub(crate) date_to: Option<String>,
    /// First instance received from, in milliseconds since 1970-01-01 UTC.
    pub(crate) received_from: Option<String>,
    /// First instance received before or at.
    pub(crate) received_to: Option<String>,
    /// First instance received within so many whole days of the site's time zone before today, or `all` (default). Not asked
    /// where a patient, an accession number, a study or a date is named.
    pub(crate) days: Option<String>,
    /// AE title or client name of who sent it.
    pub(crate) source: Option<String>,
    /// `receiving`, `queued`, `analysing`, `analysed`, `not-analysed` or `failed`.
    pub(crate) status: Option<String>,
    /// `positive` or `negative`.
    pub(crate) verdict: Option<String>,
    /// Code of the reason why it was not analysed, or failed.
    pub(crate) reason: Option<String>,
    /// What it must bear: `on-hold`, `alerted`, or `given-up`: a delivery that is dead, or a message that no later one replaced.
    pub(crate) mark: Option<String>,
    /// `time` (default): newest first; `priority`: positives and alerts, failed, under way, not analysed, negatives.
    pub(crate) sort: Option<String>,
    /// Studies on a page, 1 to 1,000; 50 if left out.
    pub(crate) limit: Option<String>,
    /// Where the page begins: `next` of the page before, of the same question.
    pub(crate) page: Option<String>,
}

impl StudyQuery {
    /// The store's filter; days are those of the zone.
    pub(crate) fn filter(&self, now: Timestamp, zone: &Zone) -> Result<StudyFilter, Problem> {
        let status = text(&self.status).map(|status| status.parse::<StudyStatus>()).transpose();
        let source = text(&self.source).map(|title| AeTitle::parse(&title)).transpose();
        let study = text(&self.study);
        if let Some(uid) = &study
            && !uid.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return Err(bad("study", uid, "the beginning of a UID"));
        }
        let received_from = match moment("received_from", &self.received_from)? {
            Some(from) => Some(from),
            None => self.since(now, zone)?,
        };
        Ok(StudyFilter {
            date_from: text(&self.date_from).map(|date| day("date_from", &date)).transpose()?,
            date_to: text(&self.date_to).map(|date| day("date_to", &date)).transpose()?,
            received_from,
            received_to: moment("received_to", &self.received_to)?,
            patient_id: text(&self.patient_id),
            patient_name: text(&self.name),
            accession_number: text(&self.accession),
            study_instance: study,
            status: status.map_err(|error| Problem::bad(error.to_string()))?,
            positive: one_of("verdict", &self.verdict, &[("positive", true), ("negative", false)])?,
            reason: text(&self.reason),
            source_ae: source.map_err(|error| Problem::bad(format!("source: {error}")))?,
            mark: text(&self.mark)
                .map(|mark| mark.parse::<StudyMark>())
                .transpose()
                .map_err(|error| Problem::bad(format!("mark: {error}")))?,
            order: one_of("sort", &self.sort, &[("time", StudyOrder::Time), ("priority", StudyOrder::Priority)])?
                .unwrap_or_default(),
            limit: self.rows()?,
            after: text(&self.page).map(|page| page.parse()).transpose()?,
        })
    }

    fn rows(&self) -> Result<u32, Problem> {
        let Some(limit) = text(&self.limit) else { return Ok(50) };
        let parsed = limit.parse().ok().filter(|rows| (1..=LONGEST_PAGE).contains(rows));
        parsed.ok_or_else(|| bad("limit", &limit, &format!("a number from 1 to {LONGEST_PAGE}")))
    }

    /// Since when, by `days`: not where one patient or study is looked for, who may have come whenever.
    fn since(&self, now: Timestamp, zone: &Zone) -> Result<Option<Timestamp>, Problem> {
        let Some(days) = text(&self.days).filter(|days| days != "all") else { return Ok(None) };
        let parsed = days.parse::<u32>().ok().filter(|days| (1..=MOST_DAYS).contains(days));
        let parsed = parsed.ok_or_else(|| bad("days", &days, &format!("a number from 1 to {MOST_DAYS}, or all")))?;
        let names_one = [&self.patient_id, &self.accession, &self.study, &self.date_from, &self.date_to]
            .into_iter()
            .any(|value| text(value).is_some());
        // By the day, so that the token of a page belongs to the next question too.
        Ok((!names_one).then(|| Timestamp::from_millis(zone.start_of_day(now.as_millis(), parsed))))
    }

    /// What was asked, without what was not: for the audit trail.
    pub(crate) fn asked(&self) -> serde_json::Value {
        let mut asked = json!(self);
        if let Some(fields) = asked.as_object_mut() {
            fields.retain(|_, value| value.as_str().is_some_and(|text| !text.trim().is_empty()));
        }
        asked
    }
}

/// What was written, unless it is empty.
fn text(value: &Option<String>) -> Option<String> {
    value.as_deref().map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
}

fn bad(what: &str, value: &str, expected: &str) -> Problem {
    Problem::bad(format!("{what} {value:?} is not {expected}"))
}

/// One of a few words.
fn one_of<T: Copy>(what: &str, value: &Option<String>, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
    let Some(value) = text(value) else { return Ok(None) };
    let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    found.map(Some).ok_or_else(|| bad(what, &value, &all.join(" or ")))
}

fn moment(what: &str, value: &Option<String>) -> Result<Option<Timestamp>, Problem> {
    let Some(value) = text(value) else { return Ok(None) };
    let millis = value.parse().map_err(|_| bad(what, &value, "a number of milliseconds"))?;
    Ok(Some(Timestamp::from_millis(millis)))
}

/// A date as the store keeps it.
fn day(what: &str, text: &str) -> Result<String, Problem> {
    ichor_store::study_day(text)
        .ok_or_else(|| Problem::bad(format!("{what} {text:?} is not a date YYYYMMDD or YYYY-MM-DD")))
}

/// A page of studies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StudyPage {
    /// The studies.
    pub(crate) items: Vec<StudySummary>,
    /// Where the next page begins, for `page`; absent if this is the last.
    pub(crate) next: Option<String>,
}

/// Studies, searched and sorted
///
/// A million studies are answered within 50 ms. The search stands in the audit trail.
#[utoipa::path(get, path = "/api/studies", tag = "studies", params(StudyQuery), responses(
    (status = 200, body = StudyPage),
    (status = 400, description = "A value that cannot be, or a page token of another question or damaged", body = Problem,
     content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    query: Result<Query<StudyQuery>, QueryRejection>,
) -> Result<Json<StudyPage>, Problem> {
    let Query(query) = query?;
    let filter = query.filter((app.facts.now)(), &app.facts.site().zone)?;
    let page = app.facts.store.studies(&filter).await?;
    audit(&app, &caller, "studies-searched", None, query.asked()).await?;
    Ok(Json(StudyPage { items: page.items, next: page.next.map(|next| next.to_string()) }))
}

/// A result object.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ObjectView {
    /// What it is, such as `seg`.
    pub(crate) kind: String,
    /// SOP Class UID.
    pub(crate) sop_class: Uid,
    /// SOP Instance UID.
    pub(crate) sop_instance: Uid,
    /// Series Instance UID.
    pub(crate) series_instance: Uid,
    /// The study's version that it belongs to.
    pub(crate) version: u32,
    /// Size in bytes.
    pub(crate) size: u64,
    /// When it was recorded.
    pub(crate) created_at: Timestamp,
    /// Where the Part 10 file is.
    pub(crate) href: String,
    /// Since when the file is no longer kept.
    pub(crate) removed_at: Option<Timestamp>,
}

/// How long a stage of the analysis took.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Timing {
    /// The stage.
    pub(crate) stage: String,
    /// Milliseconds.
    pub(crate) ms: u64,
}

/// Everything about a study.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StudyView {
    /// As in the list.
    pub(crate) summary: StudySummary,
    /// The newest finding, if the newest outcome is one.
    pub(crate) finding: Option<Finding>,
    /// Its series, each with what every rule of the gate said of it.
    pub(crate) series: Vec<SeriesDetail>,
    /// Slices of the newest outcome, in slice order.
    pub(crate) slices: Vec<SliceScore>,
    /// Stages of the newest outcome.
    pub(crate) timings: Vec<Timing>,
    /// Result objects of all versions.
    pub(crate) objects: Vec<ObjectView>,
    /// Their deliveries, the newest first.
    pub(crate) deliveries: Vec<DeliverySummary>,
    /// How many received instances, which are forwarded, stand where.
    pub(crate) forwarded: Vec<ForwardedDepth>,
    /// Who was told what, the newest first.
    pub(crate) messages: Vec<MessageSummary>,
    /// What happened, in the order in which it happened.
    pub(crate) timeline: Vec<Event>,
}

impl StudyView {
    pub(crate) async fn read(app: &App, study: Uid) -> Result<Self, Problem> {
        let store = &app.facts.store;
        let detail = store.study(&StudyKey::Uid(study.clone())).await?;
        let of_study = DeliveryFilter {
            study: Some(study.clone()),
            // Of these there are as many as slices.
            forwarded: Some(false),
            limit: MOST_OF_A_STUDY,
            ..DeliveryFilter::default()
        };
        let view = |object: ObjectDetail| ObjectView {
            href: format!("/api/studies/{study}/objects/{}", object.sop_instance),
            kind: object.kind,
            sop_class: object.sop_class,
            sop_instance: object.sop_instance,
            series_instance: object.series_instance,
            version: object.version,
            size: object.size,
            created_at: object.created_at,
            removed_at: object.removed_at,
        };
        Ok(Self {
            summary: detail.summary,
            finding: detail.finding,
            series: detail.series,
            slices: detail.slices,
            timings: detail.timings.into_iter().map(|(stage, ms)| Timing { stage, ms }).collect(),
            objects: detail.objects.into_iter().map(view).collect(),
            deliveries: store.deliveries(&of_study).await?,
            forwarded: store.forwarded(&study).await?,
            messages: store.messages(None, Some(&study), MOST_OF_A_STUDY).await?,
            timeline: store.timeline(&study).await?,
        })
    }
}

/// One study, with its timeline
///
/// The view stands in the audit trail.
#[utoipa::path(get, path = "/api/studies/{study}", tag = "studies",
    params(("study" = String, Path, description = "Study Instance UID")),
    responses((status = 200, body = StudyView),
        (status = 404, description = "No such study", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn detail(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    Path(study): Path<String>,
) -> Result<Json<StudyView>, Problem> {
    let study = uid(&study)?;
    let view = StudyView::read(&app, study.clone()).await?;
    audit(&app, &caller, "study-viewed", Some(&study), json!({ "by": "api" })).await?;
    Ok(Json(view))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn days_are_those_of_the_zone() {
        let now = time::macros::datetime!(2026-07-01 22:30 UTC).unix_timestamp() * 1_000;
        let query = StudyQuery { days: Some("1".to_owned()), ..StudyQuery::default() };
        let from = |zone: &Zone| query.filter(Timestamp::from_millis(now), zone).unwrap().received_from;
        // In Berlin it is the second of July already, half past midnight.
        let berlin = time::macros::datetime!(2026-06-30 22:00 UTC).unix_timestamp() * 1_000;
        assert_eq!(from(&Zone::parse("Europe/Berlin").unwrap()), Some(Timestamp::from_millis(berlin)));
        let utc = time::macros::datetime!(2026-06-30 0:00 UTC).unix_timestamp() * 1_000;
        assert_eq!(from(&Zone::UTC), Some(Timestamp::from_millis(utc)));
    }

    #[test]
    fn what_cannot_be_is_told() {
        let of = |edit: fn(&mut StudyQuery)| {
            let mut query = StudyQuery::default();
            edit(&mut query);
            query.filter(Timestamp::from_millis(10 * DAY_MS + 5), &Zone::UTC).map_err(|problem| problem.detail)
        };
        fn some(text: &str) -> Option<String> {
            Some(text.to_owned())
        }
        assert_eq!(of(|q| q.status = Some(" ".to_owned())).unwrap(), StudyFilter::default());
        assert_eq!(of(|q| q.date_from = Some("2026-03-01".to_owned())).unwrap().date_from, some("20260301"));
        assert_eq!(of(|q| q.days = some("3")).unwrap().received_from, Some(Timestamp::from_millis(7 * DAY_MS)));
        assert_eq!(of(|q| q.days = some("all")).unwrap().received_from, None);
        let one = of(|q| {
            q.days = some("3");
            q.patient_id = some("P");
        });
        assert_eq!(one.unwrap().received_from, None, "one patient is found whenever they came");
        type Edit = fn(&mut StudyQuery);
        let cases: [(Edit, &str); 11] = [
            (|q| q.mark = Some("held".to_owned()), "mark: unknown mark"),
            (|q| q.days = some("soon"), "days"),
            (|q| q.status = Some("done".to_owned()), "done"),
            (|q| q.verdict = Some("yes".to_owned()), "verdict"),
            (|q| q.sort = Some("name".to_owned()), "sort"),
            (|q| q.limit = Some("1001".to_owned()), "limit"),
            (|q| q.date_to = Some("20261301".to_owned()), "date_to"),
            (|q| q.received_from = Some("monday".to_owned()), "received_from"),
            (|q| q.source = Some("a title of far too many characters".to_owned()), "source"),
            (|q| q.study = Some("1.2.x".to_owned()), "study"),
            (|q| q.page = Some("1.5".to_owned()), "damaged"),
        ];
        for (edit, word) in cases {
            let error = of(edit).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
