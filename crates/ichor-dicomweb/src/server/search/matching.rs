//! Which values fit (PS3.4 C.2.2.2), in the DICOM JSON Model.

use ichor_core::Uid;
use serde_json::Value;

use super::query::Condition;
use crate::server::archive::JsonDataSet;

/// What must hold of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Nothing: it is only wanted in the answer.
    Any,
    /// It is one of these.
    Uids(Vec<Uid>),
    /// It lies within.
    Dates(DateRange),
    /// It lies within.
    Times(TimeRange),
    /// It is one of these.
    Numbers(Vec<f64>),
    /// A name that fits, in lower case, in any of its forms of writing.
    Name(Pattern),
    /// It fits any of these.
    Words(Vec<Pattern>),
}

/// A pattern with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    characters: Vec<char>,
}

impl Pattern {
    /// Makes one. Spaces at the end, and carets of a name, do not count.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut characters: Vec<char> = text.trim_end_matches([' ', '^']).chars().collect();
        // Stars side by side are one.
        characters.dedup_by(|next, before| *next == '*' && *before == '*');
        Self { characters }
    }

    /// Whether a text fits, in time at most the product of both lengths.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.trim_end_matches([' ', '^']).chars().collect();
        let (mut at, mut pattern) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.characters.get(pattern) {
                Some('*') => {
                    star = Some((pattern, at));
                    pattern += 1;
                }
                Some('?') => (at, pattern) = (at + 1, pattern + 1),
                Some(wanted) if *wanted == text[at] => (at, pattern) = (at + 1, pattern + 1),
                _ => {
                    let Some((of_star, from)) = star else { return false };
                    star = Some((of_star, from + 1));
                    (pattern, at) = (of_star + 1, from + 1);
                }
            }
        }
        self.characters[pattern..].iter().all(|rest| *rest == '*')
    }

    /// The pattern as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.characters.iter().collect()
    }
}

/// Days, both ends inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateRange {
    /// YYYYMMDD.
    pub from: Option<String>,
    /// YYYYMMDD.
    pub to: Option<String>,
}

impl DateRange {
    /// Reads a date or a range; `None` if it is neither, or ends before it begins.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = ends(text)?;
        let is_good = |date: &Option<String>| date.as_deref().is_none_or(is_date);
        (is_good(&from) && is_good(&to) && is_forward(from.as_ref(), to.as_ref())).then_some(Self { from, to })
    }

    fn holds(&self, date: &str) -> bool {
        is_date(date)
            && self.from.as_deref().is_none_or(|from| date >= from)
            && self.to.as_deref().is_none_or(|to| date <= to)
    }
}

/// Times of a day, both ends inclusive, each as precise as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeRange {
    from: Option<String>,
    to: Option<String>,
}

impl TimeRange {
    /// Reads a time or a range; `None` if it is neither, or ends before it begins.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = ends(text)?;
        let full = |time: Option<String>, fill: u8| match time {
            None => Some(None),
            Some(time) => full_time(&time, fill).map(Some),
        };
        let (from, to) = (full(from, b'0')?, full(to, b'9')?);
        is_forward(from.as_ref(), to.as_ref()).then_some(Self { from, to })
    }

    fn holds(&self, time: &str) -> bool {
        let Some(time) = full_time(time, b'0') else { return false };
        self.from.as_ref().is_none_or(|from| time >= *from) && self.to.as_ref().is_none_or(|to| time <= *to)
    }
}

fn is_forward(from: Option<&String>, to: Option<&String>) -> bool {
    from.zip(to).is_none_or(|(from, to)| from <= to)
}

/// Both ends of a range; of a single value, that value twice.
fn ends(text: &str) -> Option<(Option<String>, Option<String>)> {
    let end = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
    match text.split_once('-') {
        None => Some((end(text), end(text))),
        Some((from, to)) => {
            let (from, to) = (end(from), end(to));
            (from.is_some() || to.is_some()).then_some((from, to))
        }
    }
}

/// Whether a text is a day of the calendar, YYYYMMDD.
pub(in crate::server) fn is_date(text: &str) -> bool {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(0);
    let (year, month, day) = (number(0..4), number(4..6), number(6..8));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(is_leap),
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// Twelve digits of a time HHMMSS.FFFFFF; what it leaves out is filled.
pub(in crate::server) fn full_time(text: &str, fill: u8) -> Option<String> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if ![2, 4, 6].contains(&whole.len()) || !is_digits(whole) || fraction.len() > 6 || !is_digits(fraction) {
        return None;
    }
    if whole.len() < 6 && !fraction.is_empty() {
        return None;
    }
    let most = [23, 59, 60];
    for (index, most) in most.into_iter().enumerate().take(whole.len() / 2) {
        if whole[index * 2..index * 2 + 2].parse::<u32>().ok()? > most {
            return None;
        }
    }
    let fill = char::from(fill);
    Some(format!("{whole}{fraction}").chars().chain(std::iter::repeat(fill)).take(12).collect())
}

/// Whether all conditions hold of a data set.
pub(super) fn fits(conditions: &[Condition], data_set: &JsonDataSet) -> bool {
    conditions.iter().all(|condition| condition.test == Test::Any || holds(&condition.way, &condition.test, data_set))
}

fn holds(way: &[String], test: &Test, data_set: &JsonDataSet) -> bool {
    let Some((tag, rest)) = way.split_first() else { return false };
    let values = data_set.get(tag).and_then(|attribute| attribute.get("Value")).and_then(Value::as_array);
    let mut values = values.into_iter().flatten();
    if rest.is_empty() {
        return values.any(|value| is_met(test, value));
    }
    values.any(|item| item.as_object().is_some_and(|item| holds(rest, test, item)))
}

/// Whether one value meets a test.
fn is_met(test: &Test, value: &Value) -> bool {
    let text = |met: &dyn Fn(&str) -> bool| match value {
        Value::String(text) => met(text.trim_end_matches('\0').trim()),
        Value::Number(number) => met(&number.to_string()),
        _ => false,
    };
    match test {
        Test::Any => true,
        Test::Uids(uids) => text(&|found| uids.iter().any(|uid| uid.as_str() == found)),
        Test::Dates(range) => text(&|found| range.holds(found)),
        Test::Times(range) => text(&|found| range.holds(found)),
        Test::Words(patterns) => text(&|found| patterns.iter().any(|pattern| pattern.fits(found))),
        Test::Numbers(numbers) => {
            let found = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            found.is_some_and(|found| numbers.contains(&found))
        }
        Test::Name(pattern) => {
            let forms = value.as_object().into_iter().flat_map(|forms| forms.values());
            forms.filter_map(Value::as_str).any(|name| pattern.fits(name.to_lowercase().trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, wanted) in [
            ("", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("smith^john", "smith^john^^", true),
            ("smith", "smith^john", false),
            ("*é?", "caféx", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(Pattern::new(pattern).fits(text), wanted, "{pattern} {text}");
        }
        let begun = std::time::Instant::now();
        assert!(!Pattern::new(&"*a".repeat(2000)).fits(&"a".repeat(1000).replace("aa", "ab")));
        assert!(begun.elapsed().as_secs() < 5, "a pattern takes for ever");
    }

    #[test]
    fn dates_and_times() {
        let dates = |text| DateRange::parse(text).unwrap();
        assert!(dates("20260228").holds("20260228") && !dates("20260228").holds("20260301"));
        assert!(dates("-20260228").holds("20000229") && !dates("20260101-").holds("20251231"));
        assert!(!dates("20260101-").holds("unknown"));
        assert_eq!(DateRange::parse("20260229"), None);
        let times = |text| TimeRange::parse(text).unwrap();
        assert!(times("10").holds("105959.999999") && !times("10").holds("11"));
        assert!(times("0930-1000").holds("100059") && !times("0930-1000").holds("092959"));
        for reversed in ["20260301-20260228", "20270101-20260101"] {
            assert_eq!(DateRange::parse(reversed), None, "{reversed}");
        }
        for none in ["1", "10:30", "2400", "106060.1", "10.5", "--", "1000-0930"] {
            assert_eq!(TimeRange::parse(none), None, "{none}");
        }
    }

    #[test]
    fn values_of_all_kinds() {
        let set = json!({
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎" }] },
            "00200013": { "vr": "IS", "Value": [7] },
            "00400275": { "vr": "SQ", "Value": [{}, { "00400009": { "vr": "SH", "Value": ["B"] } }] },
            "00081030": { "vr": "LO" },
        });
        let set = set.as_object().unwrap();
        let holds = |way: &[&str], test: Test| {
            let way = way.iter().map(|tag| (*tag).to_owned()).collect();
            fits(&[Condition { way, test }], set)
        };
        assert!(holds(&["00100010"], Test::Name(Pattern::new("yamada*"))));
        assert!(holds(&["00100010"], Test::Name(Pattern::new("山田*"))));
        assert!(!holds(&["00100010"], Test::Name(Pattern::new("tarou"))));
        assert!(holds(&["00200013"], Test::Numbers(vec![1.0, 7.0])));
        assert!(holds(&["00400275", "00400009"], Test::Words(vec![Pattern::new("B")])));
        assert!(!holds(&["00081030"], Test::Words(vec![Pattern::new("?*")])));
        assert!(holds(&["00081030"], Test::Any) && holds(&["00999999"], Test::Any));
    }

    proptest! {
        #[test]
        fn a_text_fits_itself_and_a_star(text in "[a-c^ é]{0,20}") {
            prop_assert!(Pattern::new(&text).fits(&text));
            prop_assert!(Pattern::new("*").fits(&text));
            let _ = (DateRange::parse(&text), TimeRange::parse(&text));
        }
    }
}
