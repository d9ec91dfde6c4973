//! Export of a list: CSV for spreadsheets, JSON for programs; read page by page, so that its length costs no memory.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use ichor_store::{Cursor, StudyFilter, StudySummary};
use serde_json::json;

use super::studies::StudyQuery;
use crate::App;
use crate::access::{AsOperator, audit};
use crate::problem::Problem;
use crate::words::moment;

/// Studies read at once.
const PAGE: u32 = 1_000;

const COLUMNS: [&str; 18] = [
    "study_instance",
    "patient_id",
    "patient_name",
    "accession_number",
    "study_date",
    "description",
    "source_ae",
    "status",
    "reason",
    "verdict",
    "probability",
    "volume_ml",
    "volume_sd_ml",
    "model",
    "instances",
    "received_at",
    "analysed_at",
    "alerted_at",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
}

/// Where an export stands.
struct Progress {
    app: Arc<App>,
    filter: StudyFilter,
    format: Format,
    stage: Stage,
}

enum Stage {
    Begin,
    Rows(Option<Cursor>, bool),
    End,
}

/// All studies of a search, as CSV or JSON
///
/// The parameters are those of the list, `limit` and `page` apart, and `format`: `csv` (default) or `json`. Texts that a
/// spreadsheet would take for a formula begin with an apostrophe. The export stands in the audit trail.
#[utoipa::path(get, path = "/api/studies/export", tag = "studies",
    params(StudyQuery, ("format" = Option<String>, Query, description = "csv or json")),
    responses((status = 200, description = "text/csv, or a JSON array of studies"),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    AsOperator(caller): AsOperator,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(pairs) = query?;
    let (formats, rest): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(key, _)| key == "format");
    let format = match formats.last().map(|(_, format)| format.as_str()) {
        None | Some("csv") => Format::Csv,
        Some("json") => Format::Json,
        Some(other) => return Err(Problem::bad(format!("format {other:?} is not csv or json"))),
    };
    let fields: serde_json::Map<String, serde_json::Value> =
        rest.into_iter().map(|(key, value)| (key, json!(value))).collect();
    let query: StudyQuery = serde_json::from_value(json!(fields)).map_err(|error| Problem::bad(error.to_string()))?;
    if query.page.is_some() || query.limit.is_some() {
        return Err(Problem::bad("an export has no pages: leave out limit and page"));
    }
    let filter = StudyFilter { limit: PAGE, ..query.filter((app.facts.now)(), &app.facts.site().zone)? };
    // What cannot be answered is told before the first byte.
    app.facts.store.studies(&StudyFilter { limit: 1, ..filter.clone() }).await?;
    audit(&app, &caller, "studies-exported", None, query.asked()).await?;
    let progress = Progress { app, filter, format, stage: Stage::Begin };
    let body = Body::from_stream(stream::try_unfold(progress, chunk));
    let (kind, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"studies.csv\""),
        Format::Json => ("application/json", "attachment; filename=\"studies.json\""),
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], body).into_response())
}

/// The next part of the answer. One that cannot be read breaks the answer off: a list that ends too early would pass for all.
async fn chunk(mut progress: Progress) -> Result<Option<(Bytes, Progress)>, std::io::Error> {
    let failed = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
    let bytes = match std::mem::replace(&mut progress.stage, Stage::End) {
        Stage::End => return Ok(None),
        Stage::Begin => {
            progress.stage = Stage::Rows(None, true);
            match progress.format {
                // A byte order mark, so that spreadsheets read UTF-8.
                Format::Csv => {
                    let row = csv_row(COLUMNS.map(str::to_owned).as_slice()).map_err(|error| failed(&error))?;
                    [b"\xef\xbb\xbf".as_slice(), &row].concat()
                }
                Format::Json => b"[".to_vec(),
            }
        }
        Stage::Rows(after, is_first) => {
            let filter = StudyFilter { after, ..progress.filter.clone() };
            let page = progress.app.facts.store.studies(&filter).await.map_err(|error| {
                tracing::error!(%error, "an export is broken off");
                failed(&error)
            })?;
            let is_last = page.next.is_none();
            let bytes = match progress.format {
                Format::Csv => csv(&page.items).map_err(|error| failed(&error))?,
                Format::Json => json_rows(&page.items, is_first, is_last).map_err(|error| failed(&error))?,
            };
            progress.stage = if is_last { Stage::End } else { Stage::Rows(page.next, false) };
            bytes
        }
    };
    Ok(Some((Bytes::from(bytes), progress)))
}

fn json_rows(studies: &[StudySummary], is_first: bool, is_last: bool) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = String::new();
    for (number, study) in studies.iter().enumerate() {
        text.push_str(if is_first && number == 0 { "\n" } else { ",\n" });
        text.push_str(&serde_json::to_string(study)?);
    }
    text.push_str(if is_last { "\n]\n" } else { "" });
    Ok(text.into_bytes())
}

fn csv(studies: &[StudySummary]) -> Result<Vec<u8>, csv::Error> {
    let mut bytes = Vec::new();
    for study in studies {
        bytes.extend(csv_row(&cells(study))?);
    }
    Ok(bytes)
}

fn csv_row(cells: &[String]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(cells)?;
    writer.into_inner().map_err(|error| csv::Error::from(std::io::Error::other(error.to_string())))
}

/// What came from a peer, made harmless: a spreadsheet must not take it for a formula. Where the comma is the decimal sign
/// it begins a cell after each semicolon, elsewhere after a tab.
fn harmless(text: Option<&str>) -> String {
    const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];
    let text = text.unwrap_or_default();
    let mut harmless = String::with_capacity(text.len() + 1);
    if text.starts_with(['\t', '\r', '\n']) {
        harmless.push('\'');
    }
    for part in text.split_inclusive(SEPARATORS) {
        let begins = part.trim_start_matches(|c: char| c.is_whitespace() || c == '"');
        if begins.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) {
            harmless.push('\'');
        }
        harmless.push_str(part);
    }
    harmless
}

fn cells(study: &StudySummary) -> [String; 18] {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let verdict = match study.positive {
        Some(true) => "positive",
        Some(false) => "negative",
        None => "",
    };
    [
        study.study_instance.to_string(),
        harmless(study.patient_id.as_deref()),
        harmless(study.patient_name.as_deref()),
        harmless(study.accession_number.as_deref()),
        harmless(study.study_date.as_deref()),
        harmless(study.description.as_deref()),
        harmless(study.source_ae.as_deref()),
        study.status.to_string(),
        study.reason.as_ref().map_or_else(String::new, |reason| harmless(Some(&reason.to_string()))),
        verdict.to_owned(),
        number(study.probability),
        number(study.volume_ml),
        number(study.volume_sd_ml),
        study.model.as_ref().map_or_else(String::new, ToString::to_string),
        study.instances.to_string(),
        moment(study.received_at),
        study.analysed_at.map_or_else(String::new, moment),
        study.alerted_at.map_or_else(String::new, moment),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_disarmed() {
        for bad in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"] {
            assert!(harmless(Some(bad)).starts_with('\''), "{bad:?}");
        }
        for (bad, good) in [
            ("a;=cmd|x", "a;'=cmd|x"),
            ("a\t=1", "a\t'=1"),
            ("=1; +2;b", "'=1;' +2;b"),
            ("a;\"=1\"", "a;'\"=1\""),
            ("a\n@b", "a\n'@b"),
        ] {
            assert_eq!(harmless(Some(bad)), good);
        }
        for good in ["O'Brien^<script>", "山田^太郎", "1-2", "", "A=1", "a; b;c"] {
            assert_eq!(harmless(Some(good)), good);
        }
        let row = csv_row(&["a\"b".to_owned(), "c,d".to_owned(), "e\r\nf".to_owned()]).unwrap();
        assert_eq!(String::from_utf8(row).unwrap(), "\"a\"\"b\",\"c,d\",\"e\r\nf\"\r\n");
    }
}
