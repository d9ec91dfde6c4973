//! The DICOM Audit Message Schema (PS3.15 A.5.1), as far as ichor has something to say.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use quick_xml::Writer;
use quick_xml::events::BytesText;
use time::OffsetDateTime;
use time::macros::format_description;

/// Longest message, in bytes: what every repository must take (RFC 5425 4.3.1 asks for less, PS3.15 A.6 for as much).
pub const MOST_BYTES: usize = 32 << 10;

/// Longest text, in characters.
const LONGEST_TEXT: usize = 256;
/// Longest value of a detail or of a query, in bytes.
const LONGEST_VALUE: usize = 4 << 10;
/// Most classes of instances that are counted in one message.
const MOST_CLASSES: usize = 32;

/// A coded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code.
    pub value: &'static str,
    /// Its scheme.
    pub scheme: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// What was done with the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Made.
    Create,
    /// Read.
    Read,
    /// Changed.
    Update,
    /// Deleted.
    Delete,
    /// Run.
    Execute,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It failed, and may be tried again.
    MinorFailure,
    /// It failed, and was ended.
    SeriousFailure,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Of which kind.
    pub id: Code,
    /// Which of it.
    pub types: Vec<Code>,
    /// What was done.
    pub action: Action,
    /// When.
    pub at: OffsetDateTime,
    /// What came of it.
    pub outcome: Outcome,
    /// That in words.
    pub words: Option<String>,
}

/// Who took part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Participant {
    /// Name of the user, or of the process.
    pub user: String,
    /// AE titles of a process: `AETITLES=…`.
    pub alternative: Option<String>,
    /// For people.
    pub name: Option<String>,
    /// Whether it was done by their word.
    pub is_requestor: bool,
    /// Their part in it.
    pub role: Option<Code>,
    /// From which address or machine.
    pub place: Option<String>,
}

/// Of what kind an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A person: the patient.
    Patient,
    /// A system object: a study.
    Study,
    /// A system object: a question.
    Query,
    /// A system object: what an alert is about.
    SecurityResource,
}

/// What an object holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectDescription {
    /// Accession Number.
    pub accession: Option<String>,
    /// SOP classes, each with how many instances.
    pub classes: Vec<(String, u64)>,
}

/// What it was about.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Of what kind.
    pub kind: ObjectKind,
    /// What [`Self::id`] is.
    pub id_type: Code,
    /// Which.
    pub id: String,
    /// Its name; not of a query.
    pub name: String,
    /// What was asked; of a query only.
    pub query: Option<Vec<u8>>,
    /// More about it.
    pub details: Vec<(&'static str, Vec<u8>)>,
    /// What it holds.
    pub description: Option<ObjectDescription>,
}

/// Who reports.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditSource {
    /// The site.
    pub site: Option<String>,
    /// The system.
    pub id: String,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditMessage {
    /// What happened.
    pub subject: Subject,
    /// Who took part; one at least.
    pub participants: Vec<Participant>,
    /// What it was about.
    pub objects: Vec<Object>,
}

impl AuditMessage {
    /// The message as XML, of at most [`MOST_BYTES`]. What XML cannot say is replaced, what is too long is cut: a message that
    /// cannot be made would be lost.
    ///
    /// # Errors
    /// None that can come of writing to memory.
    pub fn xml(&self, source: &AuditSource) -> io::Result<Vec<u8>> {
        let whole = self.write(source, true)?;
        if whole.len() <= MOST_BYTES { Ok(whole) } else { self.write(source, false) }
    }

    fn write(&self, source: &AuditSource, with_details: bool) -> io::Result<Vec<u8>> {
        let mut xml = Writer::new(br#"<?xml version="1.0" encoding="UTF-8"?>"#.to_vec());
        xml.create_element("AuditMessage").write_inner_content(|xml| {
            self.subject.write(xml)?;
            self.participants.iter().try_for_each(|participant| participant.write(xml))?;
            let element = xml.create_element("AuditSourceIdentification");
            let element = match &source.site {
                Some(site) => element.with_attribute(("AuditEnterpriseSiteID", tame(site).as_str())),
                None => element,
            };
            element.with_attribute(("AuditSourceID", tame(&source.id).as_str())).write_inner_content(|xml| {
                // An application server's process (PS3.15 A.5.1.2.1).
                xml.create_element("AuditSourceTypeCode").with_attribute(("csd-code", "4")).write_empty()?;
                Ok(())
            })?;
            self.objects.iter().try_for_each(|object| object.write(xml, with_details))
        })?;
        Ok(xml.into_inner())
    }
}

type Xml = Writer<Vec<u8>>;

fn code(xml: &mut Xml, element: &str, code: Code) -> io::Result<()> {
    xml.create_element(element)
        .with_attribute(("csd-code", code.value))
        .with_attribute(("codeSystemName", code.scheme))
        .with_attribute(("originalText", code.meaning))
        .write_empty()?;
    Ok(())
}

impl Subject {
    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let action = match self.action {
            Action::Create => "C",
            Action::Read => "R",
            Action::Update => "U",
            Action::Delete => "D",
            Action::Execute => "E",
        };
        let outcome = match self.outcome {
            Outcome::Success => "0",
            Outcome::MinorFailure => "4",
            Outcome::SeriousFailure => "8",
        };
        xml.create_element("EventIdentification")
            .with_attribute(("EventActionCode", action))
            .with_attribute(("EventDateTime", moment(self.at).as_str()))
            .with_attribute(("EventOutcomeIndicator", outcome))
            .write_inner_content(|xml| {
                code(xml, "EventID", self.id)?;
                self.types.iter().try_for_each(|one| code(xml, "EventTypeCode", *one))?;
                if let Some(words) = &self.words {
                    let element = xml.create_element("EventOutcomeDescription");
                    element.write_text_content(BytesText::new(&tame(words)))?;
                }
                Ok(())
            })?;
        Ok(())
    }
}

impl Participant {
    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let mut element = xml.create_element("ActiveParticipant").with_attribute(("UserID", tame(&self.user).as_str()));
        if let Some(alternative) = &self.alternative {
            element = element.with_attribute(("AlternativeUserID", tame(alternative).as_str()));
        }
        if let Some(name) = &self.name {
            element = element.with_attribute(("UserName", tame(name).as_str()));
        }
        element = element.with_attribute(("UserIsRequestor", if self.is_requestor { "true" } else { "false" }));
        if let Some(place) = &self.place {
            // 1: a machine's name, 2: an address.
            let kind = if place.parse::<std::net::IpAddr>().is_ok() { "2" } else { "1" };
            element = element
                .with_attribute(("NetworkAccessPointID", tame(place).as_str()))
                .with_attribute(("NetworkAccessPointTypeCode", kind));
        }
        match self.role {
            Some(role) => element.write_inner_content(|xml| code(xml, "RoleIDCode", role))?,
            None => element.write_empty()?,
        };
        Ok(())
    }
}

impl Object {
    fn write(&self, xml: &mut Xml, with_details: bool) -> io::Result<()> {
        // Person or system object; patient, report, query or security resource (PS3.15 A.5.1.2.2).
        let (kind, role) = match self.kind {
            ObjectKind::Patient => ("1", "1"),
            ObjectKind::Study => ("2", "3"),
            ObjectKind::Query => ("2", "24"),
            ObjectKind::SecurityResource => ("2", "13"),
        };
        xml.create_element("ParticipantObjectIdentification")
            .with_attribute(("ParticipantObjectID", tame(&self.id).as_str()))
            .with_attribute(("ParticipantObjectTypeCode", kind))
            .with_attribute(("ParticipantObjectTypeCodeRole", role))
            .write_inner_content(|xml| {
                code(xml, "ParticipantObjectIDTypeCode", self.id_type)?;
                match &self.query {
                    Some(query) => {
                        let query = if with_details { cut(query) } else { b"" };
                        let element = xml.create_element("ParticipantObjectQuery");
                        element.write_text_content(BytesText::new(&BASE64.encode(query)))?;
                    }
                    None => {
                        let element = xml.create_element("ParticipantObjectName");
                        element.write_text_content(BytesText::new(&tame(&self.name)))?;
                    }
                }
                for (name, value) in self.details.iter().filter(|_| with_details) {
                    xml.create_element("ParticipantObjectDetail")
                        .with_attribute(("type", *name))
                        .with_attribute(("value", BASE64.encode(cut(value)).as_str()))
                        .write_empty()?;
                }
                self.description.as_ref().map_or(Ok(()), |description| description.write(xml))
            })?;
        Ok(())
    }
}

impl ObjectDescription {
    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        xml.create_element("ParticipantObjectDescription").write_inner_content(|xml| {
            if let Some(accession) = &self.accession {
                xml.create_element("Accession").with_attribute(("Number", tame(accession).as_str())).write_empty()?;
            }
            for (class, count) in self.classes.iter().take(MOST_CLASSES) {
                xml.create_element("SOPClass")
                    .with_attribute(("UID", tame(class).as_str()))
                    .with_attribute(("NumberOfInstances", count.to_string().as_str()))
                    .write_empty()?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// A text as XML can say it (XML 1.0, 2.2), of bounded length; what it cannot say, and what would only be a new line in
/// somebody's log, is replaced.
fn tame(text: &str) -> String {
    let is_foreign = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}');
    let mut kept: String =
        text.chars().map(|c| if is_foreign(c) { '\u{fffd}' } else { c }).take(LONGEST_TEXT).collect();
    if text.chars().nth(LONGEST_TEXT).is_some() {
        kept.push('…');
    }
    kept
}

fn cut(value: &[u8]) -> &[u8] {
    value.get(..LONGEST_VALUE).unwrap_or(value)
}

/// `2026-01-31T12:00:00.000Z`.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    at.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_else(|_| "1970-01-01T00:00:00.000Z".to_owned())
}

#[cfg(test)]
mod tests;
