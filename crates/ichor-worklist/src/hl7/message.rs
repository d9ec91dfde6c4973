//! Messages from templates. A template is text with one segment a line, in Jinja's language; every value is escaped on its
//! way in, so that no name can break a message. The shipped ones are `templates/*.hl7`; docs/telling.md lists the values.

use std::path::Path;

use ichor_core::{Subject, Verdict};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use time::OffsetDateTime;
use time::macros::format_description;

use super::escape::{escape, person_name};
use super::{Hl7Options, Template};
use crate::{Announcement, SetupError, TellError};

/// The only template of the environment.
const NAME: &str = "message";

/// Largest message, in bytes.
const LONGEST: usize = 1 << 20;

/// Largest template file, in bytes.
const LONGEST_TEMPLATE: u64 = 256 << 10;

/// MSH-18, and how characters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// `UNICODE UTF-8`.
    Utf8,
    /// `8859/1`; what it lacks becomes a question mark.
    Latin1,
    /// None named: ASCII; what it lacks becomes a question mark.
    Ascii,
}

impl Charset {
    const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UNICODE UTF-8",
            Self::Latin1 => "8859/1",
            Self::Ascii => "",
        }
    }

    fn encode(self, text: &str) -> Vec<u8> {
        let last = match self {
            Self::Utf8 => return text.as_bytes().to_vec(),
            Self::Latin1 => 0xFF,
            Self::Ascii => 0x7F,
        };
        text.chars().map(|c| u8::try_from(u32::from(c)).ok().filter(|byte| *byte <= last).unwrap_or(b'?')).collect()
    }
}

/// Makes messages out of announcements.
#[derive(Debug)]
pub struct Encoder {
    environment: Environment<'static>,
    sender: Value,
    receiver: Value,
    processing_id: String,
    charset: Charset,
}

impl Encoder {
    /// Reads the template and tries it on a sample of each subject.
    ///
    /// # Errors
    /// [`SetupError::File`], [`SetupError::Template`].
    pub fn new(options: &Hl7Options) -> Result<Self, SetupError> {
        let (name, text) = match &options.template {
            Template::Oru => ("oru".to_owned(), include_str!("../../templates/oru_r01.hl7").to_owned()),
            Template::Orm => ("orm".to_owned(), include_str!("../../templates/orm_o01.hl7").to_owned()),
            Template::Omg => ("omg".to_owned(), include_str!("../../templates/omg_o19.hl7").to_owned()),
            Template::File(path) => (path.display().to_string(), read(path)?),
        };
        let fault = |why: String| SetupError::Template { name: name.clone(), why };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::Custom("hl7"));
        environment.set_formatter(|out, state, value| {
            if value.is_undefined() {
                // Says which one, with its line.
                return minijinja::escape_formatter(out, state, value);
            }
            let text = match value {
                value if value.is_none() => String::new(),
                value if value.is_safe() => value.to_string(),
                value => escape(&value.to_string()),
            };
            out.write_str(&text).map_err(minijinja::Error::from)
        });
        environment.add_template_owned(NAME, text).map_err(|error| fault(format!("{error:#}")))?;
        let pair = |(application, facility): &(String, String)| context! { application, facility };
        let encoder = Self {
            environment,
            sender: pair(&options.sending),
            receiver: pair(&options.receiving),
            processing_id: options.processing_id.clone(),
            charset: options.charset,
        };
        for sample in Announcement::samples() {
            encoder.message(&sample).map_err(|error| fault(error.to_string()))?;
        }
        Ok(encoder)
    }

    /// The message, its segments ended by carriage returns.
    ///
    /// # Errors
    /// [`TellError::Message`] if the template fails on it, or what it makes does not begin with MSH or is too long.
    pub fn message(&self, announcement: &Announcement) -> Result<Vec<u8>, TellError> {
        let fault = |why: String| TellError::Message(why);
        let template = self.environment.get_template(NAME).map_err(|error| fault(error.to_string()))?;
        let text = template.render(self.values(announcement)).map_err(|error| fault(format!("{error:#}")))?;
        let segments: Vec<&str> = text.lines().map(str::trim_end).filter(|segment| !segment.is_empty()).collect();
        if !segments.first().is_some_and(|segment| segment.starts_with("MSH|^~\\&|")) {
            return Err(fault("it does not begin with MSH|^~\\&|".to_owned()));
        }
        let mut message = self.charset.encode(&segments.join("\r"));
        message.push(b'\r');
        if message.len() > LONGEST {
            return Err(fault(format!("it is longer than {LONGEST} bytes")));
        }
        Ok(message)
    }

    fn values(&self, announcement: &Announcement) -> Value {
        let Announcement { study, finding, alert, reason, .. } = announcement;
        let patient = study.patient.clone().unwrap_or_default();
        let name = person_name(patient.name.as_deref().unwrap_or_default());
        context! {
            message => context! {
                id => announcement.id,
                time => timestamp(OffsetDateTime::now_utc()),
                event_time => timestamp(announcement.at),
                processing_id => self.processing_id,
                charset => self.charset.name(),
            },
            sender => self.sender,
            receiver => self.receiver,
            subject => announcement.subject.as_str(),
            urgent => announcement.urgent,
            priority => if announcement.urgent { "S" } else { "R" },
            status => status(announcement),
            text => announcement.text,
            version => announcement.version,
            patient => context! { id => patient.id, name => Value::from_safe_string(name) },
            study => context! {
                uid => study.study_instance_uid.as_str(),
                accession_number => study.accession_number,
                date => study.study_date,
                description => study.description,
                source_ae => study.source_ae,
            },
            finding => Value::from_serialize(finding),
            alert => Value::from_serialize(alert),
            reason => Value::from_serialize(reason),
            model => announcement.model,
            notice => announcement.notice,
            software => announcement.software,
            observations => observations(announcement),
        }
    }
}

/// Whether a message is about an order (ORM, OMG) and says in none of its ORC segments which (ORC-2 and ORC-3, chapter
/// 4.5.1): no receiver could change one by it.
pub(super) fn changes_no_order(message: &[u8]) -> bool {
    let fields = |segment: &[u8], name: &[u8]| {
        let fields: Vec<&[u8]> = segment.split(|byte| *byte == b'|').collect();
        (fields.first() == Some(&name)).then(|| fields.iter().map(|field| field.to_vec()).collect::<Vec<_>>())
    };
    let segments = || message.split(|byte| *byte == b'\r');
    // The separator itself is MSH-1.
    let kind = segments().find_map(|segment| fields(segment, b"MSH")?.get(8).cloned()).unwrap_or_default();
    let names_one = |orc: Vec<Vec<u8>>| orc.iter().skip(2).take(2).any(|number| !number.is_empty());
    let is_of_order = kind.starts_with(b"ORM") || kind.starts_with(b"OMG");
    is_of_order && !segments().filter_map(|segment| fields(segment, b"ORC")).any(names_one)
}

fn read(path: &Path) -> Result<String, SetupError> {
    let file = |source| SetupError::File { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(file)?.len();
    if length > LONGEST_TEMPLATE {
        let why = format!("{length} bytes; the longest allowed is {LONGEST_TEMPLATE}");
        return Err(SetupError::Template { name: path.display().to_string(), why });
    }
    std::fs::read_to_string(path).map_err(file)
}

/// TS (chapter 2A.83).
fn timestamp(at: OffsetDateTime) -> String {
    at.format(format_description!("[year][month][day][hour][minute][second].[subsecond digits:3]+0000"))
        .unwrap_or_default()
}

/// OBR-25 and OBX-11 (tables 0123 and 0085): preliminary, final, corrected, or no result.
fn status(announcement: &Announcement) -> &'static str {
    match announcement.subject {
        Subject::Alert | Subject::DeliveryDead => "P",
        Subject::AlertWithdrawn => "C",
        Subject::Positive | Subject::Negative if announcement.version.is_some_and(|version| version > 1) => "C",
        Subject::Positive | Subject::Negative => "F",
        Subject::NotAnalysed | Subject::Failed if announcement.result_stands() => "C",
        Subject::NotAnalysed | Subject::Failed if announcement.alert_stands() => "P",
        Subject::NotAnalysed | Subject::Failed => "X",
    }
}

/// One OBX: its type, OBX-3, OBX-5, OBX-6 and OBX-8.
fn observation(kind: &str, code: [&str; 3], value: String, units: &str, flag: &str) -> Value {
    context! {
        type => kind,
        identifier => coded(code),
        value => Value::from_safe_string(value),
        units => Value::from_safe_string(units.to_owned()),
        flag,
    }
}

/// CWE: code, text, coding system.
fn coded(parts: [&str; 3]) -> Value {
    Value::from_safe_string(parts.map(escape).join("^"))
}

fn observations(announcement: &Announcement) -> Vec<Value> {
    const PROBABILITY: [&str; 3] =
        ["ICH-PROBABILITY", "Probability of intracranial hemorrhage by algorithm", "99ICHOR"];
    const NO_UNIT: &str = "1^no units^UCUM";
    let mut all = Vec::new();
    let verdict = match (announcement.subject, announcement.finding.as_ref().map(|finding| finding.verdict)) {
        (Subject::Alert, _) => Some(("415684004^Suspected^SCT", "A")),
        (_, Some(Verdict::Positive)) => Some(("52101004^Present^SCT", "A")),
        // Of what an algorithm did not detect it is not known that it is absent.
        (_, Some(Verdict::Negative)) => Some(("260415000^Not detected^SCT", "N")),
        (_, None) if announcement.alert_stands() => Some(("415684004^Suspected^SCT", "A")),
        (_, None) => None,
    };
    if let Some((value, flag)) = verdict {
        all.push(observation("CWE", ["1386000", "Intracranial hemorrhage", "SCT"], value.to_owned(), "", flag));
    }
    if let Some(alert) = &announcement.alert {
        all.push(observation("NM", PROBABILITY, format!("{:.3}", alert.probability), NO_UNIT, ""));
        let code = ["ICH-SLICES", "Neighbouring suspicious slices", "99ICHOR"];
        all.push(observation("NM", code, alert.slices.len().to_string(), NO_UNIT, ""));
    }
    if let Some(finding) = &announcement.finding {
        all.push(observation("NM", PROBABILITY, format!("{:.3}", finding.probability), NO_UNIT, ""));
        let code = ["ICH-VOLUME", "Volume of hemorrhage by algorithm", "99ICHOR"];
        all.push(observation("NM", code, format!("{:.1}", finding.volume_ml), "mL^milliliter^UCUM", ""));
        let code = ["ICH-SLICES", "Slices called positive", "99ICHOR"];
        all.push(observation("NM", code, finding.positive_slices.to_string(), NO_UNIT, ""));
    }
    if let Some(reason) = &announcement.reason {
        let code = ["ICH-REASON", "Why there is no result", "99ICHOR"];
        all.push(observation("ST", code, escape(&reason.to_string()), "", ""));
    }
    let is_told = matches!(announcement.subject, Subject::AlertWithdrawn | Subject::DeliveryDead);
    if is_told || announcement.alert_stands() || announcement.result_stands() {
        let code = ["ICH-EVENT", "What happened", "99ICHOR"];
        all.push(observation("ST", code, escape(&announcement.text), "", ""));
    }
    let study = announcement.study.study_instance_uid.as_str();
    all.push(observation("ST", ["110180", "Study Instance UID", "DCM"], escape(study), "", ""));
    if let Some(model) = &announcement.model {
        all.push(observation("ST", ["111001", "Algorithm Name", "DCM"], escape(model), "", ""));
    }
    all
}

#[cfg(test)]
mod tests;
