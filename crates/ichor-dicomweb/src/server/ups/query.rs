//! Searches for workitems (PS3.18 8.3.4, 11.9; matching as PS3.4 C.2.2.2 says): `attribute=value`, sequences by
//! `attribute.attribute`.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use reqwest::Url;
use serde_json::Value;

use super::attributes::{DataSet, PRIORITY, STATE};
use super::workitem::UpsState;
use crate::server::search::{DateRange, TimeRange, full_time, is_date};

/// Defined terms of Scheduled Procedure Step Priority.
const PRIORITIES: [&str; 3] = ["HIGH", "MEDIUM", "LOW"];

/// A search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Search {
    conditions: Vec<Condition>,
    /// States that can match; empty: all.
    pub(super) states: Vec<UpsState>,
    /// So many of those that match are passed over.
    pub(super) offset: u64,
    /// Most that are answered; `None`: as many as the server gives.
    pub(super) limit: Option<u64>,
    /// Whether fuzzy matching was asked for.
    pub(super) is_fuzzy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    /// From the data set down, as tags of eight digits.
    path: Vec<String>,
    value: String,
}

impl Search {
    /// Reads the query of a URL.
    ///
    /// # Errors
    /// A sentence about the parameter that cannot be understood.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut search = Self::default();
        // The only reader of queries here is that of whole URLs.
        let url = Url::parse(&format!("http://x/?{query}")).map_err(|_| "the query cannot be read".to_owned())?;
        for (name, value) in url.query_pairs() {
            let number = || value.parse::<u64>().map_err(|_| format!("{name} is no number"));
            match name.as_ref() {
                "limit" => search.limit = Some(number()?),
                "offset" => search.offset = number()?,
                // Everything is answered in any case.
                "includefield" => {}
                "fuzzymatching" => search.is_fuzzy = value == "true",
                name => {
                    let path = name.split('.').map(tag).collect::<Option<Vec<_>>>();
                    let path = path.ok_or_else(|| {
                        "a parameter is neither an attribute nor limit, offset, includefield".to_owned()
                    })?;
                    // An empty value matches everything.
                    if !value.is_empty()
                        && let Some(value) = checked(name, &path, &value)?
                    {
                        search.conditions.push(Condition { path, value });
                    }
                }
            }
        }
        if let Some(place) = search.conditions.iter().position(|one| one.path == [STATE]) {
            let words = search.conditions.remove(place).value;
            let states = words.split([',', '\\']).map(UpsState::parse).collect::<Option<Vec<_>>>();
            search.states = states.ok_or_else(|| "ProcedureStepState is none of its defined terms".to_owned())?;
        }
        Ok(search)
    }

    /// Whether a workitem matches, but for its state.
    pub(super) fn matches(&self, set: &DataSet) -> bool {
        self.conditions.iter().all(|condition| condition.holds(set, 0))
    }
}

/// The eight digits of a tag or keyword.
fn tag(name: &str) -> Option<String> {
    if name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(name.to_ascii_uppercase());
    }
    let tag = StandardDataDictionary.parse_tag(name)?;
    Some(format!("{:04X}{:04X}", tag.group(), tag.element()))
}

/// A value that something can match, `None` if everything does. What can match nothing is a mistake, and not an empty answer.
fn checked(name: &str, path: &[String], value: &str) -> Result<Option<String>, String> {
    if path == [PRIORITY] && !PRIORITIES.iter().any(|term| is_like(value, term)) {
        return Err(format!("{name} is none of {}", PRIORITIES.join(", ")));
    }
    let number = path.last().and_then(|tag| u32::from_str_radix(tag, 16).ok()).unwrap_or_default();
    let entry = StandardDataDictionary.by_tag(Tag((number >> 16) as u16, (number & 0xFFFF) as u16));
    let is_good: fn(&str) -> bool = match entry.and_then(|entry| entry.vr().exact()) {
        Some(VR::DA) => |value| DateRange::parse(value).is_some(),
        Some(VR::TM) => |value| TimeRange::parse(value).is_some(),
        Some(VR::DT) => is_moments,
        _ => return Ok(Some(value.to_owned())),
    };
    if value.trim() == "*" {
        return Ok(None);
    }
    let plain = value.replace(' ', "");
    if is_good(&plain) {
        return Ok(Some(plain));
    }
    let form = "no date (YYYYMMDD), time (HHMMSS) or both, as its VR is, and no range of two of them, the \
                earlier first, with a hyphen between";
    Err(format!("{name} is {form}"))
}

/// A DT value, or a range of two.
fn is_moments(text: &str) -> bool {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let is_end = |end: &str| end.is_empty() || is_moment(end);
    // A hyphen before an offset from UTC reads as one between moments, of which the latter is long ago.
    let digits = |end: &str| end.bytes().take_while(u8::is_ascii_digit).count();
    let exact = digits(from).min(digits(to)).min(14);
    let is_forward = from.is_empty() || to.is_empty() || from.get(..exact) <= to.get(..exact);
    !(from.is_empty() && to.is_empty()) && is_end(from) && is_end(to) && is_forward
}

/// YYYYMMDDHHMMSS.FFFFFF and an offset from UTC; what comes last may be missing (PS3.5 6.2).
fn is_moment(text: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (moment, offset) = text.split_once('+').unwrap_or((text, "0000"));
    if !moment.is_ascii() || offset.len() != 4 || !is_digits(offset) {
        return false;
    }
    let (date, time) = moment.split_at(moment.len().min(8));
    // Without month or day: the first.
    let date = match date.len() {
        4 => format!("{date}0101"),
        6 => format!("{date}01"),
        _ => date.to_owned(),
    };
    is_date(&date) && (time.is_empty() || full_time(time, b'0').is_some())
}

impl Condition {
    fn holds(&self, set: &DataSet, depth: usize) -> bool {
        let Some(attribute) = self.path.get(depth).and_then(|tag| set.get(tag)) else { return false };
        let values = attribute["Value"].as_array();
        let mut values = values.into_iter().flatten();
        if depth + 1 < self.path.len() {
            return values.filter_map(Value::as_object).any(|item| self.holds(item, depth + 1));
        }
        let vr = attribute["vr"].as_str().unwrap_or_default();
        values.any(|value| self.is(vr, value))
    }

    fn is(&self, vr: &str, value: &Value) -> bool {
        let wanted = self.value.as_str();
        match (vr, value) {
            ("PN", Value::Object(groups)) => groups
                .values()
                .filter_map(Value::as_str)
                .any(|name| is_like(&wanted.to_lowercase(), &name.to_lowercase())),
            ("UI", Value::String(uid)) => wanted.split([',', '\\']).any(|one| one.trim() == uid),
            ("DA" | "DT" | "TM", Value::String(moment)) => in_range(wanted, moment),
            (_, Value::String(text)) => is_like(wanted, text),
            (_, Value::Number(number)) => wanted == number.to_string(),
            _ => false,
        }
    }
}

/// `from-to`, `from-`, `-to`, or one moment; a moment that is less exact covers what is within it.
fn in_range(wanted: &str, moment: &str) -> bool {
    let within = |edge: &str| moment.get(..edge.len().min(moment.len())).unwrap_or(moment).to_owned();
    match wanted.split_once('-') {
        None => moment.starts_with(wanted),
        Some((from, to)) => {
            (from.is_empty() || within(from).as_str() >= from) && (to.is_empty() || within(to).as_str() <= to)
        }
    }
}

/// Wildcards `*` and `?`, without going back more often than there are stars.
fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    (p, t) = (place + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions() {
        let set = json!({
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "O'Brien^Anna" }] },
            "00404005": { "vr": "DT", "Value": ["20260102030405"] },
            "00404018": { "vr": "SQ", "Value": [{ "00080100": { "vr": "SH", "Value": ["126000"] } }] },
            "00080018": { "vr": "UI", "Value": ["1.2.3"] },
            "00741200": { "vr": "CS", "Value": ["HIGH"] },
        });
        let Value::Object(set) = set else { panic!() };
        for (query, wanted) in [
            ("", true),
            ("ScheduledProcedureStepPriority=HIGH", true),
            ("00741200=LOW", false),
            ("00741200=", true),
            ("PatientName=o'brien*", true),
            ("PatientName=*anna", true),
            ("PatientName=O%27Brien%5EAnn?", true),
            ("PatientName=Brien", false),
            ("ScheduledWorkitemCodeSequence.CodeValue=126000", true),
            ("00404018.00080100=126001", false),
            ("SOPInstanceUID=1.2.9,1.2.3", true),
            ("ScheduledProcedureStepStartDateTime=20260101-20260102", true),
            ("ScheduledProcedureStepStartDateTime=20260102", true),
            ("ScheduledProcedureStepStartDateTime=20260103-", false),
            ("ScheduledProcedureStepStartDateTime=-20260101", false),
            ("PatientID=P", false),
        ] {
            assert_eq!(Search::parse(query).unwrap().matches(&set), wanted, "{query}");
        }
        let search =
            Search::parse("limit=5&offset=2&ProcedureStepState=SCHEDULED&fuzzymatching=true&includefield=all").unwrap();
        assert_eq!((search.limit, search.offset, search.is_fuzzy), (Some(5), 2, true));
        assert_eq!(search.states, [UpsState::Scheduled]);
        for bad in [
            "limit=x",
            "offset=-1",
            "NoSuchAttribute=1",
            "00741000=DONE",
            "ScheduledWorkitemCodeSequence.x=1",
            "ScheduledProcedureStepStartDateTime=abc",
            "ScheduledProcedureStepStartDateTime=20261301",
            "ScheduledProcedureStepStartDateTime=20260102T0304",
            "ScheduledProcedureStepStartDateTime=20260102030405-0500",
            "00404005=-",
            "PatientBirthDate=abc",
            "PatientBirthDate=20260230-",
            "StudyTime=9900",
            "ScheduledProcedureStepPriority=URGENT",
            "00741200=HIGH,LOW",
        ] {
            assert!(Search::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_as_they_may_be() {
        for good in [
            "ScheduledProcedureStepStartDateTime=2026",
            "ScheduledProcedureStepStartDateTime=202601-202602",
            "ScheduledProcedureStepStartDateTime=20260102030405.123456%2B0100",
            "ScheduledProcedureStepStartDateTime=2026010203-",
            "ScheduledProcedureStepStartDateTime=*",
            "PatientBirthDate=19500101",
            "StudyTime=-1200",
            "ScheduledProcedureStepPriority=M*",
        ] {
            assert!(Search::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn wildcards_do_not_run_away() {
        let text = "a".repeat(5_000);
        assert!(!is_like(&format!("{}b", "a*".repeat(200)), &text));
        assert!(is_like("*", "") && is_like("a**", "a") && !is_like("", "a"));
    }
}
