//! From a filter to statements that read an index.
//!
//! Without statistics SQLite cannot know which condition leaves the fewest rows. So the most selective one may use its
//! index, and a unary plus keeps the others from using theirs. The text holds column names and operators only, every value
//! is bound.
//!
//! What is ordered by urgency is asked for urgency by urgency, the highest first, until the page is full: each is a range
//! of an index that ends with the order of the list. Only where a condition leaves few rows are they all read and sorted.

mod marks;

use ichor_core::{AeTitle, StudyStatus};
use sqlx::QueryBuilder;

use marks::{Marked, push_mark};

use super::super::Dialect;
use super::super::query::SUMMARY_COLUMNS;
use crate::StoreError;
use crate::search::{StudyFilter, StudyOrder};

/// Studies that a name may fit to be looked up by the name and sorted.
pub(super) const MOST_CANDIDATES: i64 = 5_000;

/// Longest range of Study Dates that is looked up by date, in days. A wider one is better read in the order of
/// arrival until the page is full.
const NARROW_DAYS: i64 = 31;

/// A name in the words of the index, and whether it fits more than [`MOST_CANDIDATES`] studies.
pub(in super::super) struct NameMatch {
    pub(super) query: String,
    pub(super) is_common: bool,
}

/// Every word's beginning, quoted: nothing in it is an operator.
pub(super) fn name_query(name: &str) -> Result<String, StoreError> {
    let words = name.split(|c: char| c.is_whitespace() || matches!(c, '^' | '=' | ',' | '*' | '\0'));
    let words: Vec<String> = words
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .map(|word| format!("\"{}\"*", word.replace('"', "\"\"")))
        .collect();
    if words.is_empty() {
        return Err(StoreError::Filter { what: format!("the name {name:?} holds no letter") });
    }
    Ok(words.join(" AND "))
}

/// One condition of a filter.
struct Condition {
    column: &'static str,
    operator: &'static str,
    value: Value,
    /// Whether looking it up in the column's index is worth it.
    is_selective: bool,
}

enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
}

/// A statement that is complete but for the number of its rows.
pub(in super::super) struct Statement(QueryBuilder<Dialect>);

impl Statement {
    pub(in super::super) fn limited(self, rows: u32) -> QueryBuilder<Dialect> {
        let mut statement = self.0;
        statement.push(" LIMIT ").push_bind(rows);
        statement
    }
}

/// The statements of a filter, in whose order their rows follow each other.
pub(in super::super) fn studies_statements(
    filter: &StudyFilter,
    name: Option<&NameMatch>,
) -> Result<Vec<Statement>, StoreError> {
    let conditions = conditions(filter);
    if filter.order == StudyOrder::Time {
        return Ok(vec![by_time(filter, &conditions, name)]);
    }
    let has_few = has_few(&conditions);
    match name {
        Some(name) if name.is_common && !has_few => {
            let what = format!(
                "more than {MOST_CANDIDATES} studies have such a name, too many to be put in the order of priority: \
                 give more of it, or order by time"
            );
            Err(StoreError::Filter { what })
        }
        Some(_) => Ok(vec![sorted_by_urgency(filter, &conditions, name)]),
        None if has_few => Ok(vec![sorted_by_urgency(filter, &conditions, name)]),
        None => Ok(levels(filter).into_iter().map(|urgency| level(filter, &conditions, urgency)).collect()),
    }
}

/// Whether a condition leaves few studies, however many there are.
fn has_few(conditions: &[Condition]) -> bool {
    let few = ["patient_id", "accession", "study_instance"];
    let is_few = |condition: &Condition| {
        few.contains(&condition.column) || (condition.column == "study_date" && condition.is_selective)
    };
    conditions.iter().any(is_few)
}

fn select(from: &str) -> QueryBuilder<Dialect> {
    let mut statement = QueryBuilder::new("SELECT ");
    statement.push(SUMMARY_COLUMNS).push(" FROM ").push(from).push(" WHERE TRUE");
    statement
}

/// Pushes the conditions; all but those of one column are kept from their indexes.
fn push_all(statement: &mut QueryBuilder<Dialect>, conditions: &[Condition], indexed: Option<&str>) {
    for Condition { column, operator, value, .. } in conditions {
        let plus = if indexed == Some(column) { "" } else { "+" };
        statement.push(" AND ").push(plus).push(*column).push(*operator);
        match value {
            Value::Text(text) => statement.push_bind(text.clone()),
            Value::Number(number) => statement.push_bind(*number),
            Value::Flag(flag) => statement.push_bind(*flag),
        };
    }
}

fn push_received(statement: &mut QueryBuilder<Dialect>, filter: &StudyFilter, plus: &str) {
    let times = [(" >= ", filter.received_from), (" <= ", filter.received_to)];
    for (operator, value) in times {
        if let Some(value) = value {
            statement.push(" AND ").push(plus).push("received_at").push(operator).push_bind(value.as_millis());
        }
    }
}

/// Names the name fits; without the name's index where it is common: then it is asked of each row.
fn push_name(statement: &mut QueryBuilder<Dialect>, name: &NameMatch) {
    if name.is_common {
        statement.push(" AND EXISTS (SELECT 1 FROM study_name WHERE study_name MATCH ");
        statement.push_bind(name.query.clone()).push(" AND study_name.rowid = study.id)");
    } else {
        statement.push(" AND id IN (SELECT rowid FROM study_name WHERE study_name MATCH ");
        statement.push_bind(name.query.clone()).push(")");
    }
}

fn by_time(filter: &StudyFilter, conditions: &[Condition], name: Option<&NameMatch>) -> Statement {
    let selective = conditions.iter().find(|condition| condition.is_selective);
    let is_few = |condition: &&Condition| ["patient_id", "accession", "study_instance"].contains(&condition.column);
    // Few bear the mark: fewer than have a common name, and they are in the order of the list.
    let is_name_narrow = name.is_some_and(|name| !name.is_common);
    if let Some(mark) = filter.mark.filter(|_| !has_few(conditions) && !is_name_narrow) {
        return marked(filter, conditions, name, &Marked::of(mark));
    }
    if let Some(name) = name {
        return by_name(filter, conditions, name, selective.filter(is_few).map(|condition| condition.column));
    }
    let indexed = selective.map(|condition| condition.column);
    let mut statement = select("study");
    push_all(&mut statement, conditions, indexed);
    push_mark(&mut statement, filter.mark);
    // Beginnings of UIDs are not in the order of the list: what there is of them is sorted.
    let plus = if indexed == Some("study_instance") { "+" } else { "" };
    push_received(&mut statement, filter, plus);
    if let Some(cursor) = filter.after {
        statement.push(" AND (").push(plus).push("received_at, id) < (").push_bind(cursor.received_at);
        statement.push(", ").push_bind(cursor.id).push(")");
    }
    statement.push(" ORDER BY ").push(plus).push("received_at DESC, id DESC");
    Statement(statement)
}

/// Those that bear a mark, the newest first.
fn marked(filter: &StudyFilter, conditions: &[Condition], name: Option<&NameMatch>, mark: &Marked) -> Statement {
    let mut statement = select(&format!("study INDEXED BY {}", mark.by_time));
    push_all(&mut statement, conditions, None);
    mark.push(&mut statement);
    push_received(&mut statement, filter, "");
    if let Some(name) = name {
        push_name(&mut statement, name);
    }
    if let Some(cursor) = filter.after {
        statement.push(" AND (received_at, id) < (").push_bind(cursor.received_at);
        statement.push(", ").push_bind(cursor.id).push(")");
    }
    statement.push(" ORDER BY received_at DESC, id DESC");
    Statement(statement)
}

/// By the number of the row, which is the order of recording, as the index of names has it.
fn by_name(filter: &StudyFilter, conditions: &[Condition], name: &NameMatch, indexed: Option<&str>) -> Statement {
    let streams = name.is_common && indexed.is_none();
    let mut statement = if streams {
        let mut statement = QueryBuilder::new("SELECT ");
        statement.push(SUMMARY_COLUMNS);
        statement.push(" FROM (SELECT rowid AS hit FROM study_name WHERE study_name MATCH ");
        statement.push_bind(name.query.clone()).push(") CROSS JOIN study ON id = hit WHERE TRUE");
        statement
    } else {
        select("study")
    };
    push_all(&mut statement, conditions, indexed);
    push_mark(&mut statement, filter.mark);
    push_received(&mut statement, filter, "+");
    if !streams {
        push_name(&mut statement, name);
    }
    let number = if streams { "hit" } else { "+id" };
    if let Some(cursor) = filter.after {
        statement.push(" AND ").push(number).push(" < ").push_bind(cursor.id);
    }
    statement.push(" ORDER BY ").push(number).push(" DESC");
    Statement(statement)
}

fn sorted_by_urgency(filter: &StudyFilter, conditions: &[Condition], name: Option<&NameMatch>) -> Statement {
    let by_name = name.is_some_and(|name| !name.is_common);
    let indexed = conditions.iter().find(|condition| condition.is_selective).map(|condition| condition.column);
    let mut statement = select("study");
    push_all(&mut statement, conditions, indexed.filter(|_| !by_name));
    push_mark(&mut statement, filter.mark);
    push_received(&mut statement, filter, "+");
    if let Some(name) = name {
        push_name(&mut statement, name);
    }
    if let Some(cursor) = filter.after {
        statement.push(" AND (+urgency, received_at, id) < (").push_bind(i64::from(cursor.urgency));
        statement.push(", ").push_bind(cursor.received_at).push(", ").push_bind(cursor.id).push(")");
    }
    statement.push(" ORDER BY +urgency DESC, received_at DESC, id DESC");
    Statement(statement)
}

/// The studies of one urgency, newest first.
fn level(filter: &StudyFilter, conditions: &[Condition], urgency: u8) -> Statement {
    let mark = filter.mark.map(Marked::of);
    let (index, indexed) = match (&mark, &filter.reason, &filter.source_ae) {
        (Some(mark), ..) => (mark.by_urgency, None),
        (None, Some(_), _) => ("study_reason_urgency", Some("reason_code")),
        (None, None, Some(_)) => ("study_source_urgency", Some("source_ae")),
        (None, None, None) => ("study_urgency", None),
    };
    let mut statement = select(&format!("study INDEXED BY {index}"));
    push_all(&mut statement, conditions, indexed);
    if let Some(mark) = &mark {
        mark.push(&mut statement);
    }
    statement.push(" AND urgency = ").push_bind(i64::from(urgency));
    push_received(&mut statement, filter, "");
    if let Some(cursor) = filter.after.filter(|cursor| cursor.urgency == urgency) {
        statement.push(" AND (received_at, id) < (").push_bind(cursor.received_at);
        statement.push(", ").push_bind(cursor.id).push(")");
    }
    statement.push(" ORDER BY received_at DESC, id DESC");
    Statement(statement)
}

/// The urgencies that a study of the list may have, the highest first, from the last page's end on.
fn levels(filter: &StudyFilter) -> Vec<u8> {
    let of_status: &[u8] = match filter.status {
        None => &[4, 3, 2, 1, 0],
        Some(StudyStatus::Failed) => &[4, 3],
        Some(StudyStatus::Receiving | StudyStatus::Queued | StudyStatus::Analysing) => &[4, 2],
        Some(StudyStatus::NotAnalysed) => &[4, 1],
        Some(StudyStatus::Analysed) => &[4, 0],
    };
    let fits = |urgency: &&u8| match filter.positive {
        Some(true) => **urgency == 4,
        Some(false) => **urgency != 4,
        None => true,
    };
    let most = filter.after.map_or(u8::MAX, |cursor| cursor.urgency);
    of_status.iter().filter(fits).copied().filter(|urgency| *urgency <= most).collect()
}

/// The conditions of a filter, the most selective first.
fn conditions(filter: &StudyFilter) -> Vec<Condition> {
    let is_narrow = is_narrow(filter);
    // A UID holds digits and full stops; ':' comes after both.
    let uid_end = filter.study_instance.as_ref().map(|beginning| format!("{beginning}:"));
    let texts = [
        ("study_instance", " >= ", filter.study_instance.as_deref(), true),
        ("study_instance", " < ", uid_end.as_deref(), true),
        ("patient_id", " = ", filter.patient_id.as_deref(), true),
        ("accession", " = ", filter.accession_number.as_deref(), true),
        ("study_date", " >= ", filter.date_from.as_deref(), is_narrow),
        ("study_date", " <= ", filter.date_to.as_deref(), is_narrow),
        ("reason_code", " = ", filter.reason.as_deref(), true),
        ("status", " = ", filter.status.map(StudyStatus::as_str), true),
        ("source_ae", " = ", filter.source_ae.as_ref().map(AeTitle::as_str), true),
    ];
    let condition = |(column, operator, text, is_selective): (_, _, Option<&str>, _)| {
        text.map(|text| Condition { column, operator, value: Value::Text(text.to_owned()), is_selective })
    };
    let flag = |column, value, is_selective| Condition { column, operator: " = ", value, is_selective };
    let mut conditions: Vec<_> = texts.into_iter().filter_map(condition).collect();
    if filter.positive == Some(true) {
        // The same studies, and an index that holds what else they are asked for.
        conditions.push(flag("urgency", Value::Number(4), true));
    }
    conditions.extend(filter.positive.map(|positive| flag("positive", Value::Flag(positive), false)));
    // Most studies are analysed, and from a few sources: a positive verdict says more.
    let is_common = filter.status == Some(StudyStatus::Analysed);
    let says_little = |condition: &Condition| match condition.column {
        "source_ae" => true,
        "status" => is_common,
        _ => false,
    };
    conditions.sort_by_key(says_little);
    conditions
}

/// Whether a range of Study Dates spans at most [`NARROW_DAYS`]; every month counts as 31 days.
fn is_narrow(filter: &StudyFilter) -> bool {
    let day = |date: &Option<String>| {
        let number: i64 = date.as_deref().filter(|date| date.len() == 8)?.parse().ok()?;
        Some(number / 10_000 * 372 + number / 100 % 100 * 31 + number % 100)
    };
    match (day(&filter.date_from), day(&filter.date_to)) {
        (Some(from), Some(to)) => to - from <= NARROW_DAYS,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_operator() {
        assert_eq!(name_query("O'Brien^<script>").unwrap(), "\"O'Brien\"* AND \"<script>\"*");
        assert_eq!(name_query("a\"b OR c*").unwrap(), "\"a\"\"b\"* AND \"OR\"* AND \"c\"*");
        assert_eq!(name_query("山田^太郎").unwrap(), "\"山田\"* AND \"太郎\"*");
        for bad in ["", " ", "^", "--", "*"] {
            assert!(matches!(name_query(bad), Err(StoreError::Filter { .. })), "{bad:?}");
        }
    }
}
