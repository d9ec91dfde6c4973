//! The query of a search: percent-decoded parameters, and what they say (PS3.18 8.3.4).

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use ichor_core::Uid;

use super::attributes::level_of;
use super::matching::{DateRange, Pattern, Test, TimeRange};
use crate::server::route::Level;

/// Longest value of a parameter, in bytes.
const LONGEST: usize = 8192;
/// Most UIDs, or words, of a list.
const MOST_IN_LIST: usize = 500;
/// Deepest way into sequences.
const DEEPEST: usize = 4;

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The attribute, behind the sequences that it lies in: each eight hexadecimal digits.
    pub way: Vec<String>,
    /// What must hold of it.
    pub test: Test,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// What is searched for.
    pub level: Level,
    /// Within this study.
    pub study: Option<Uid>,
    /// Within this series.
    pub series: Option<Uid>,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// Attributes that are wanted besides.
    pub include: Vec<String>,
    /// Whether every attribute of the level is wanted.
    pub include_all: bool,
    /// Most results, if it says so.
    pub limit: Option<usize>,
    /// Results that are left out at the beginning.
    pub offset: usize,
    /// Whether names that sound alike were asked for, which they are not here.
    pub is_fuzzy: bool,
}

/// Decodes a query into names and values; there must not be more than `most`.
///
/// # Errors
/// In words.
pub fn pairs(query: &str, most: usize) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        if pairs.len() >= most {
            return Err(format!("the query has more than {most} parameters"));
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        pairs.push((decoded(name)?, decoded(value)?));
    }
    Ok(pairs)
}

/// Percent-decodes a part of a query; a plus sign is a space.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = (rest.next(), rest.next());
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(digits.0), digit(digits.1)) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err("a percent sign without two hexadecimal digits behind it".to_owned()),
                }
            }
            other => other,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| "a parameter is not UTF-8".to_owned())?;
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err(format!("a parameter is longer than {LONGEST} bytes, or holds control characters"));
    }
    Ok(text)
}

/// What a query says.
///
/// # Errors
/// In words.
pub fn parse(
    level: Level,
    study: Option<Uid>,
    series: Option<Uid>,
    pairs: Vec<(String, String)>,
) -> Result<Search, String> {
    let mut search = Search {
        level,
        study,
        series,
        conditions: Vec::new(),
        include: Vec::new(),
        include_all: false,
        limit: None,
        offset: 0,
        is_fuzzy: false,
    };
    let mut offset = None;
    for (name, value) in pairs {
        match name.to_ascii_lowercase().as_str() {
            "limit" => once(&mut search.limit, number(&name, &value)?, &name)?,
            "offset" => once(&mut offset, number(&name, &value)?, &name)?,
            "fuzzymatching" => search.is_fuzzy = boolean(&name, &value)?,
            // Both say how an empty or a repeated value is to be taken; here it is taken as by C-FIND.
            "emptyvaluematching" | "multiplevaluematching" => {
                if boolean(&name, &value)? {
                    return Err(format!("{name} is not supported"));
                }
            }
            // The media type is negotiated elsewhere.
            "accept" => {}
            "includefield" => search.include(&value)?,
            _ => search.condition(&name, &value)?,
        }
    }
    search.offset = offset.unwrap_or(0);
    Ok(search)
}

fn once(place: &mut Option<usize>, value: usize, name: &str) -> Result<(), String> {
    if place.replace(value).is_some() { Err(format!("{name} stands twice")) } else { Ok(()) }
}

fn number(name: &str, value: &str) -> Result<usize, String> {
    let is_plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_plain).ok_or_else(|| format!("{name} is not a whole number"))
}

fn boolean(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{name} is neither true nor false")),
    }
}

/// Tag and VR of an attribute by its keyword, or by its tag in hexadecimal digits.
fn attribute(name: &str) -> Result<(Tag, VR), String> {
    let unknown = || {
        let name: String = name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
        format!("{name:?} is neither a parameter nor an attribute of PS3.6")
    };
    let is_tag = name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_tag {
        let number = u32::from_str_radix(name, 16).map_err(|_| unknown())?;
        let tag = Tag((number >> 16) as u16, (number & 0xFFFF) as u16);
        let entry = StandardDataDictionary.by_tag(tag).ok_or_else(unknown)?;
        return Ok((tag, entry.vr().exact().unwrap_or(VR::UN)));
    }
    let entry = StandardDataDictionary.by_name(name).ok_or_else(unknown)?;
    Ok((entry.tag(), entry.vr().exact().unwrap_or(VR::UN)))
}

fn hex(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

impl Search {
    fn include(&mut self, value: &str) -> Result<(), String> {
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "all" {
                self.include_all = true;
                continue;
            }
            // What lies in a sequence comes with the sequence.
            let (tag, _) = attribute(name.split('.').next().unwrap_or(name))?;
            if self.include.len() >= MOST_IN_LIST {
                return Err(format!("includefield names more than {MOST_IN_LIST} attributes"));
            }
            self.include.push(hex(tag));
        }
        Ok(())
    }

    fn condition(&mut self, name: &str, value: &str) -> Result<(), String> {
        let names: Vec<&str> = name.split('.').collect();
        if names.len() > DEEPEST {
            return Err(format!("an attribute lies in more than {DEEPEST} sequences"));
        }
        let mut way = Vec::new();
        let mut last = None;
        for (index, name) in names.iter().enumerate() {
            let (tag, vr) = attribute(name)?;
            if (vr == VR::SQ) == (index + 1 == names.len()) {
                return Err(format!("{name} is {} sequence", if vr == VR::SQ { "a" } else { "no" }));
            }
            way.push(hex(tag));
            last = Some((tag, vr, *name));
        }
        let Some((_, vr, name)) = last else { return Err("an attribute without name".to_owned()) };
        let level = level_of(&way[0]);
        if level > self.level {
            return Err(format!("{name} is of {level:?}, and {:?} is searched for", self.level));
        }
        let test = test(name, &way, vr, value)?;
        self.conditions.push(Condition { way, test });
        Ok(())
    }

    /// What a condition on an attribute of the top level says.
    pub(super) fn test(&self, tag: &str) -> Option<&Test> {
        let on = |condition: &&Condition| condition.way.len() == 1 && condition.way[0] == tag;
        self.conditions.iter().find(on).map(|condition| &condition.test)
    }
}

/// What a value asks of an attribute (PS3.4 C.2.2.2).
fn test(name: &str, way: &[String], vr: VR, value: &str) -> Result<Test, String> {
    let value = value.trim();
    if value.is_empty() || value == "*" {
        return Ok(Test::Any);
    }
    let list = || -> Result<Vec<&str>, String> {
        let items: Vec<&str> = value.split([',', '\\']).map(str::trim).filter(|item| !item.is_empty()).collect();
        if items.len() > MOST_IN_LIST {
            Err(format!("{name} lists more than {MOST_IN_LIST} values"))
        } else {
            Ok(items)
        }
    };
    match vr {
        VR::UI => {
            let uid = |text: &str| Uid::parse(text).map_err(|error| format!("{name}: {error}"));
            list()?.into_iter().map(uid).collect::<Result<_, _>>().map(Test::Uids)
        }
        VR::DA => DateRange::parse(value).map(Test::Dates).ok_or_else(|| {
            format!("{name} is no date YYYYMMDD and no range of two of them, the earlier first, with a hyphen between")
        }),
        VR::TM => TimeRange::parse(value).map(Test::Times).ok_or_else(|| {
            format!("{name} is no time HHMMSS and no range of two of them, the earlier first, with a hyphen between")
        }),
        VR::IS | VR::DS | VR::US | VR::UL | VR::SS | VR::SL | VR::FL | VR::FD | VR::SV | VR::UV => {
            let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
            let numbers: Option<Vec<f64>> = list()?.into_iter().map(number).collect();
            numbers.map(Test::Numbers).ok_or_else(|| format!("{name} is not a number"))
        }
        VR::PN => Ok(Test::Name(Pattern::new(&value.to_lowercase()))),
        // Modalities are words of few letters: a list of them is no text with a comma in it.
        VR::CS => Ok(Test::Words(list()?.into_iter().map(Pattern::new).collect())),
        VR::AE | VR::AS | VR::LO | VR::LT | VR::SH | VR::ST | VR::UC | VR::UR | VR::UT => {
            Ok(Test::Words(vec![Pattern::new(value)]))
        }
        VR::DT if way.len() == 1 => Ok(Test::Words(vec![Pattern::new(value)])),
        other => Err(format!("{name} is of VR {other}, which is not matched")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(level: Level, query: &str) -> Result<Search, String> {
        parse(level, None, None, pairs(query, 50)?)
    }

    #[test]
    fn what_is_asked() {
        let search = asked(
            Level::Study,
            "PatientName=m%C3%BCl*&00100020=4711&StudyDate=20260101-&ModalitiesInStudy=CT%2CMR&includefield=all&limit=5&\
             offset=10&includefield=00081030,PatientBirthDate&StudyInstanceUID=1.2\\1.3&fuzzymatching=true",
        )
        .unwrap();
        assert_eq!((search.limit, search.offset, search.is_fuzzy, search.include_all), (Some(5), 10, true, true));
        assert_eq!(search.include, ["00081030", "00100030"]);
        assert_eq!(search.test("00100010"), Some(&Test::Name(Pattern::new("mül*"))));
        assert_eq!(search.test("00100020"), Some(&Test::Words(vec![Pattern::new("4711")])));
        assert_eq!(
            search.test("00080020"),
            Some(&Test::Dates(DateRange { from: Some("20260101".to_owned()), to: None }))
        );
        assert_eq!(search.test("00080061"), Some(&Test::Words(vec![Pattern::new("CT"), Pattern::new("MR")])));
        assert!(matches!(search.test("0020000D"), Some(Test::Uids(uids)) if uids.len() == 2));
        let nested = asked(Level::Series, "RequestAttributesSequence.ScheduledProcedureStepID=A").unwrap();
        assert_eq!(nested.conditions[0].way, ["00400275", "00400009"]);
    }

    #[test]
    fn what_is_refused() {
        let long = format!("PatientID={}", "x".repeat(9000));
        for (query, word) in [
            ("PatientIdentity=1", "neither a parameter"),
            ("00091001=1", "neither a parameter"),
            ("StudyInstanceUID=1.2.x", "StudyInstanceUID"),
            ("StudyInstanceUID=1.*", "StudyInstanceUID"),
            ("StudyDate=20260230", "no date"),
            ("StudyDate=2026-01-01", "no date"),
            ("StudyDate=-", "no date"),
            ("StudyDate=20260228-20260101", "the earlier first"),
            ("StudyTime=12-10", "the earlier first"),
            ("StudyTime=2500", "no time"),
            ("limit=-1", "limit"),
            ("limit=+1", "limit"),
            ("limit=1&limit=2", "twice"),
            ("offset=x", "offset"),
            ("fuzzymatching=perhaps", "fuzzymatching"),
            ("Modality=CT", "Series"),
            ("InstanceNumber=1", "Instance"),
            ("NumberOfStudyRelatedSeries=x", "number"),
            ("ReferencedStudySequence=1", "sequence"),
            ("PatientName.PatientID=1", "sequence"),
            ("PatientID=%zz", "percent"),
            ("PatientID=%ff", "UTF-8"),
            ("PatientID=a%0d%0aX:%20y", "control"),
            (long.as_str(), "longer"),
            ("includefield=Nonsense", "neither a parameter"),
        ] {
            let error = asked(Level::Study, query).unwrap_err();
            assert!(error.contains(word), "{query}: {error}");
        }
        assert!(pairs(&"a=b&".repeat(51), 50).unwrap_err().contains("more than 50"));
        assert!(pairs(&"&".repeat(5000), 50).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(query in "(&|=|%|[0-9a-fA-F*?.,+-]|Study(Date|Time|InstanceUID)=|limit=|PatientName=|\\PC){0,40}") {
            for level in [Level::Study, Level::Series, Level::Instance] {
                let _ = asked(level, &query);
            }
        }
    }
}
