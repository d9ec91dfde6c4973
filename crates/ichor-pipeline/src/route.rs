//! Routing rules: which destinations get a study's results, which of their objects, and how soon. The first rule whose
//! conditions all hold decides; without one, every destination gets what it asks for.

use std::path::{Path, PathBuf};

use dicom_core::DataDictionary as _;
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use ichor_core::{AeTitle, Reason, chain};
use ichor_store::{Timestamp, Verdict};
use tokio::task::spawn_blocking;

use crate::analyse::{DestinationObjects, ObjectKind};
use crate::deliver::Hours;

/// Longest value of an attribute that is compared, in characters.
const LONGEST_VALUE: usize = 1024;

/// What a study came to, as rules ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Hemorrhage.
    Positive,
    /// None detected.
    Negative,
    /// Nothing in it may be analysed.
    NotAnalysed,
}

impl Outcome {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::NotAnalysed => "not-analysed",
        }
    }
}

/// A rule: conditions, of which all that are given must hold, and what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Unique; stands in the job log.
    pub name: String,
    /// AE titles of which one sent the study; empty: any.
    pub sources: Vec<AeTitle>,
    /// Keywords of attributes with patterns for their values.
    pub tags: Vec<(String, Pattern)>,
    /// Outcomes; empty: any.
    pub outcomes: Vec<Outcome>,
    /// Codes of the reason why a study was not analysed; empty: any, or none.
    pub reasons: Vec<String>,
    /// When the outcome is known.
    pub hours: Option<Hours>,
    /// Which destinations get results; `None`: all.
    pub destinations: Option<Vec<String>>,
    /// Names of the kinds of objects that they get, of those that they ask for; `None`: all.
    pub objects: Option<Vec<String>>,
    /// Whether results go before others; `None`: if positive.
    pub urgent: Option<bool>,
}

/// A pattern for a value: `*` stands for any characters, `?` for one; case does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Takes any text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_lowercase())
    }

    /// Whether a value fits as a whole.
    #[must_use]
    pub fn fits(&self, value: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let value: Vec<char> = value.trim().to_lowercase().chars().take(LONGEST_VALUE).collect();
        // The last star is the only one that ever needs to take more.
        let (mut p, mut v, mut star) = (0, 0, None);
        while v < value.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, v));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == value[v] => (p, v) = (p + 1, v + 1),
                _ => {
                    let Some((at, taken)) = star else { return false };
                    star = Some((at, taken + 1));
                    (p, v) = (at + 1, taken + 1);
                }
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

/// What rules are asked about.
pub struct Facts<'a> {
    /// Who sent the study.
    pub source: Option<&'a str>,
    /// The first instance that arrived, if it can be read.
    pub instance: Option<&'a DefaultDicomObject>,
    /// What the study came to; `None`: not known yet.
    pub outcome: Option<Outcome>,
    /// The code of the reason, where it was not analysed.
    pub reason: Option<&'a str>,
    /// The moment.
    pub now: Timestamp,
}

/// What the rules came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing<'a> {
    /// The rule that fired.
    pub fired: Option<&'a Rule>,
    /// The rules before it, and why each did not.
    pub passed_over: Vec<(&'a Rule, String)>,
}

/// Asks the rules in their order.
#[must_use]
pub fn route<'a>(rules: &'a [Rule], facts: &Facts<'_>) -> Routing<'a> {
    let mut passed_over = Vec::new();
    for rule in rules {
        match rule.judge(facts) {
            Ok(()) => return Routing { fired: Some(rule), passed_over },
            Err(why) => passed_over.push((rule, why)),
        }
    }
    Routing { fired: None, passed_over }
}

impl Rule {
    /// Why it does not fire.
    fn judge(&self, facts: &Facts<'_>) -> Result<(), String> {
        let one_of = |what: &str, wanted: Vec<&str>, found: Option<&str>| match found {
            _ if wanted.is_empty() => Ok(()),
            Some(found) if wanted.contains(&found) => Ok(()),
            found => Err(format!("{what} is {}, not {}", found.unwrap_or("not known"), wanted.join(" or "))),
        };
        one_of("the source", self.sources.iter().map(AeTitle::as_str).collect(), facts.source)?;
        let outcome = facts.outcome.map(Outcome::as_str);
        one_of("the verdict", self.outcomes.iter().map(|outcome| outcome.as_str()).collect(), outcome)?;
        one_of("the reason", self.reasons.iter().map(String::as_str).collect(), facts.reason)?;
        if let Some(hours) = &self.hours
            && !hours.are_open(facts.now)
        {
            return Err(format!("it is not between {hours}"));
        }
        for (keyword, pattern) in &self.tags {
            match facts.instance.and_then(|instance| value(instance, keyword)) {
                Some(found) if pattern.fits(&found) => {}
                // The value may speak of the patient, and this is for the job log.
                Some(_) => return Err(format!("{keyword} does not fit {:?}", pattern.0)),
                None => return Err(format!("{keyword} is absent")),
            }
        }
        Ok(())
    }

    /// What a destination gets by this rule, of what it asks for; `None`: nothing.
    #[must_use]
    pub fn narrow(&self, destination: &DestinationObjects) -> Option<DestinationObjects> {
        if self.destinations.as_ref().is_some_and(|names| !names.contains(&destination.name)) {
            return None;
        }
        let mut narrowed = destination.clone();
        if let Some(names) = &self.objects {
            let is_wanted = |name: &str| names.iter().any(|wanted| wanted == name);
            narrowed.objects.retain(|kind| is_wanted(kind.name()));
            if !is_wanted("segmentation") {
                // What does not go there is not referred to.
                narrowed.objects.iter_mut().for_each(ObjectKind::without_segmentation);
            }
        }
        (!narrowed.objects.is_empty()).then_some(narrowed)
    }
}

/// A verdict as rules ask for it, and the code of its reason.
#[must_use]
pub fn outcome_of(verdict: &Verdict) -> (Outcome, Option<&Reason>) {
    match verdict {
        Verdict::Analysed(finding) if finding.is_positive() => (Outcome::Positive, None),
        Verdict::Analysed(_) => (Outcome::Negative, None),
        Verdict::NotAnalysed(reason) => (Outcome::NotAnalysed, Some(reason)),
    }
}

/// Whether an attribute has this keyword (PS3.6 chapter 6).
#[must_use]
pub fn is_keyword(keyword: &str) -> bool {
    StandardDataDictionary.by_name(keyword).is_some()
}

/// Reads the first instance of a study, if any rule looks into it.
///
/// # Errors
/// A sentence: what the rules would say is not known as long as it cannot be read.
pub(crate) async fn look_into(rules: &[Rule], first: Option<PathBuf>) -> Result<Option<DefaultDicomObject>, String> {
    let Some(path) = first.filter(|_| rules.iter().any(|rule| !rule.tags.is_empty())) else { return Ok(None) };
    let read = spawn_blocking(move || read_instance(&path)).await;
    read.unwrap_or_else(|error| Err(error.to_string())).map(Some)
}

/// Reads what rules may ask for from a file, up to its pixel data.
///
/// # Errors
/// A sentence.
pub fn read_instance(path: &Path) -> Result<DefaultDicomObject, String> {
    OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(path).map_err(|error| chain(&error))
}

/// The value of an attribute of the data set's top level as text; several values stay together, with backslashes.
fn value(instance: &DefaultDicomObject, keyword: &str) -> Option<String> {
    instance.element_by_name(keyword).ok()?.to_str().ok().map(|text| text.trim_matches([' ', '\0']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, value, fits) in [
            ("ER*", "er-ct-1", true),
            ("ER*", "CT ER", false),
            ("*er", "CT ER ", true),
            ("*", "", true),
            ("", "", true),
            ("?", "", false),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--c", false),
            ("h??d", "HEAD", true),
            ("*a*a*a*a*a*a*b", &"a".repeat(1000), false),
        ] {
            assert_eq!(Pattern::new(pattern).fits(value), fits, "{pattern} {value}");
        }
    }

    fn facts(source: &'static str, outcome: Option<Outcome>) -> Facts<'static> {
        let noon = 12 * 3_600_000;
        Facts { source: Some(source), instance: None, outcome, reason: None, now: Timestamp::from_millis(noon) }
    }

    fn rule(name: &str) -> Rule {
        Rule { name: name.to_owned(), ..Rule::default() }
    }

    #[test]
    fn first_rule_that_fits_decides_and_the_others_say_why_not() {
        let er = vec![AeTitle::parse("CT_ER").unwrap()];
        let rules = [
            Rule { sources: er.clone(), outcomes: vec![Outcome::Positive], ..rule("urgent") },
            Rule { hours: Some(Hours::parse("19:00-06:30", &ichor_core::Zone::UTC).unwrap()), ..rule("night") },
            Rule { tags: vec![("StationName".to_owned(), Pattern::new("ER*"))], ..rule("station") },
            Rule { reasons: vec!["single-slice".to_owned()], ..rule("reason") },
            Rule { sources: er, ..rule("er") },
            rule("rest"),
        ];
        let fired = |facts: &Facts<'_>| route(&rules, facts).fired.unwrap().name.clone();
        assert_eq!(fired(&facts("CT_ER", Some(Outcome::Positive))), "urgent");
        assert_eq!(fired(&facts("CT_ER", Some(Outcome::Negative))), "er");
        assert_eq!(fired(&facts("CT_1", Some(Outcome::Positive))), "rest");
        let single = Facts { reason: Some("single-slice"), ..facts("CT_1", Some(Outcome::NotAnalysed)) };
        assert_eq!(fired(&single), "reason");
        let midnight = Facts { now: Timestamp::from_millis(0), ..facts("CT_1", None) };
        assert_eq!(fired(&midnight), "night");
        let unknown = facts("CT_ER", None);
        let routing = route(&rules, &unknown);
        let words: Vec<&str> = routing.passed_over.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(
            words,
            [
                "the verdict is not known, not positive",
                "it is not between 19:00-06:30 UTC",
                "StationName is absent",
                "the reason is not known, not single-slice"
            ]
        );
        assert_eq!(route(&rules[..1], &facts("X", None)).fired, None);
    }

    #[test]
    fn rule_narrows_what_destinations_ask_for() {
        let form = ichor_result::SegmentationForm::default();
        let asked = DestinationObjects {
            name: "pacs".to_owned(),
            objects: vec![ObjectKind::Segmentation(form), ObjectKind::Report(Some(form)), ObjectKind::Presentation],
            report_on: crate::analyse::ReportOn { negative: true, not_analysed: true },
        };
        assert_eq!(rule("all").narrow(&asked), Some(asked.clone()));
        let elsewhere = Rule { destinations: Some(vec!["vna".to_owned()]), ..rule("elsewhere") };
        assert_eq!(elsewhere.narrow(&asked), None);
        let report = Rule { objects: Some(vec!["report".to_owned()]), ..rule("report") };
        assert_eq!(report.narrow(&asked).unwrap().objects, [ObjectKind::Report(None)]);
        let capture = Rule { objects: Some(vec!["capture".to_owned()]), ..rule("capture") };
        assert_eq!(capture.narrow(&asked), None);
    }

    #[tokio::test]
    async fn instance_that_cannot_be_read_is_not_one_without_tags() {
        let scratch = tempfile::TempDir::new().unwrap();
        let unreadable = Some(scratch.path().join("absent"));
        let looks = Rule { tags: vec![("StationName".to_owned(), Pattern::new("ER*"))], ..rule("station") };
        assert!(look_into(&[rule("rest"), looks.clone()], unreadable.clone()).await.is_err());
        assert!(look_into(&[rule("rest")], unreadable).await.unwrap().is_none(), "nobody looks");
        assert!(look_into(&[looks], None).await.unwrap().is_none());
    }

    #[test]
    fn keywords_are_known() {
        assert!(is_keyword("StationName") && !is_keyword("stationname") && !is_keyword("Station Name"));
    }
}
