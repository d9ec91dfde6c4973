//! What the peer says became of each instance: the Store Instances Response Module (PS3.18 I.2, 10.5.3).

use std::fmt;

use ichor_core::Uid;
use serde_json::Value;

use crate::native_xml;

const REFERENCED_SOP_SEQUENCE: &str = "00081199";
const FAILED_SOP_SEQUENCE: &str = "00081198";
const OTHER_FAILURES_SEQUENCE: &str = "0008119A";
const REFERENCED_SOP_INSTANCE_UID: &str = "00081155";
const FAILURE_REASON: &str = "00081197";
const WARNING_REASON: &str = "00081196";

/// Failure Reason (0008,1197) of an instance; the codes are those of the Storage service (PS3.4 table B.2-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureReason(pub Option<u16>);

impl FailureReason {
    /// Whether the same object will be refused again. Out of resources, a processing failure and a missing code may
    /// pass.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        !matches!(self.0, None | Some(0x0110 | 0xa700..=0xa7ff))
    }

    /// Whether the peer says that it has an instance of this UID already.
    #[must_use]
    pub const fn is_duplicate(self) -> bool {
        matches!(self.0, Some(0x0111))
    }

    /// What the code means.
    const fn meaning(self) -> &'static str {
        match self.0 {
            None => "no reason given",
            Some(0x0110) => "processing failure",
            Some(0x0111) => "duplicate SOP instance",
            Some(0x0117) => "invalid object instance",
            Some(0x0122) => "SOP class not supported",
            Some(0x0124) => "not authorized",
            Some(0xa700..=0xa7ff) => "out of resources",
            Some(0xa900..=0xa9ff) => "data set does not match SOP class",
            Some(0xc122) => "transfer syntax not supported",
            Some(0xc000..=0xcfff) => "cannot understand",
            Some(_) => "unknown reason",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(code) => write!(f, "{} (0x{code:04X})", self.meaning()),
            None => f.write_str(self.meaning()),
        }
    }
}

/// What became of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceOutcome {
    /// The peer has it, with a Warning Reason (0008,1196) perhaps.
    Accepted {
        /// Such as 0xB000, coercion of data elements.
        warning: Option<u16>,
    },
    /// The peer names it among the failed.
    Failed(FailureReason),
    /// The peer says nothing of it.
    Unmentioned,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StowOutcome {
    /// HTTP status: 200, 202 or 409.
    pub status: u16,
    /// One outcome an instance, in the order in which they were given.
    pub instances: Vec<(Uid, InstanceOutcome)>,
    /// The peer's words, cut and cleaned.
    pub words: String,
}

/// The response module, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseModule {
    accepted: Vec<(Uid, Option<u16>)>,
    failed: Vec<(Uid, FailureReason)>,
    other: Option<FailureReason>,
}

impl ResponseModule {
    /// Reads DICOM JSON (PS3.18 F), or the Native DICOM Model in XML (PS3.19 A.1) of peers that know nothing else;
    /// `None` if it is neither.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}').trim();
        let value = if text.starts_with('<') { native_xml::parse(text)? } else { serde_json::from_str(text).ok()? };
        // Some services put the data set into an array, as for queries.
        let data_set = value.as_array().map_or(Some(&value), |array| array.first())?.as_object()?;
        let items = |tag: &str| {
            data_set.get(tag).and_then(|a| a.get("Value")).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
        };
        let reason = |item: &Value| FailureReason(number(item, FAILURE_REASON));
        Some(Self {
            accepted: items(REFERENCED_SOP_SEQUENCE)
                .iter()
                .filter_map(|item| Some((uid(item)?, number(item, WARNING_REASON))))
                .collect(),
            failed: items(FAILED_SOP_SEQUENCE).iter().filter_map(|item| Some((uid(item)?, reason(item)))).collect(),
            other: items(OTHER_FAILURES_SEQUENCE).first().map(reason),
        })
    }

    /// What it says of one instance. Failure wins over acceptance where a peer says both.
    pub(crate) fn of(&self, instance: &Uid) -> InstanceOutcome {
        if let Some((_, reason)) = self.failed.iter().find(|(uid, _)| uid == instance) {
            return InstanceOutcome::Failed(*reason);
        }
        match self.accepted.iter().find(|(uid, _)| uid == instance) {
            Some((_, warning)) => InstanceOutcome::Accepted { warning: *warning },
            None => InstanceOutcome::Unmentioned,
        }
    }

    /// A failure that the peer could not pin to an instance (PS3.18 I.2.2).
    pub(crate) const fn other_failure(&self) -> Option<FailureReason> {
        self.other
    }
}

/// The first value of an attribute of an item.
fn value<'a>(item: &'a Value, tag: &str) -> Option<&'a Value> {
    item.get(tag)?.get("Value")?.get(0)
}

fn uid(item: &Value) -> Option<Uid> {
    Uid::parse(value(item, REFERENCED_SOP_INSTANCE_UID)?.as_str()?).ok()
}

/// A 16-bit number, which XML and some services write as text.
fn number(item: &Value, tag: &str) -> Option<u16> {
    let value = value(item, tag)?;
    value.as_u64().and_then(|n| u16::try_from(n).ok()).or_else(|| value.as_str()?.trim().parse().ok())
}

/// Longest text of a peer that is kept, in characters.
const WORDS: usize = 300;

/// The peer's words in one line, without control characters and runs of spaces.
pub(crate) fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * WORDS)]);
    let line: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = line.join(" ");
    if line.is_empty() { "no words".to_owned() } else { line.chars().take(WORDS).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uids(a: &str) -> Uid {
        Uid::parse(a).unwrap()
    }

    #[test]
    fn json_of_every_kind() {
        let json = r#"{"00081190":{"vr":"UR","Value":["http://pacs/studies/1"]},
            "00081199":{"vr":"SQ","Value":[{"00081150":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.66.4"]},
              "00081155":{"vr":"UI","Value":["2.25.1"]},"00081196":{"vr":"US","Value":[45056]}},
              {"00081155":{"vr":"UI","Value":["2.25.3"]}}]},
            "00081198":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["2.25.2"]},"00081197":{"vr":"US","Value":["42752"]}},
              {"00081155":{"vr":"UI","Value":["2.25.3"]},"00081197":{"vr":"US","Value":[272]}},
              {"00081155":{"vr":"UI"}}]}}"#;
        for text in [json.to_owned(), format!("[{json}]"), format!("\u{feff} {json}\n")] {
            let module = ResponseModule::parse(text.as_bytes()).unwrap();
            assert_eq!(module.of(&uids("2.25.1")), InstanceOutcome::Accepted { warning: Some(0xb000) });
            assert_eq!(module.of(&uids("2.25.2")), InstanceOutcome::Failed(FailureReason(Some(0xa700))));
            assert_eq!(
                module.of(&uids("2.25.3")),
                InstanceOutcome::Failed(FailureReason(Some(0x0110))),
                "both is failed"
            );
            assert_eq!(module.of(&uids("2.25.4")), InstanceOutcome::Unmentioned);
        }
        for nothing in ["", "[]", "null", "42", "\"x\"", "{", "<html>", "OK"] {
            assert_eq!(ResponseModule::parse(nothing.as_bytes()), None, "{nothing}");
        }
        assert_eq!(ResponseModule::parse(b"{}"), Some(ResponseModule::default()));
        let other = br#"{"0008119A":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[49152]}}]}}"#;
        assert_eq!(ResponseModule::parse(other).unwrap().other_failure(), Some(FailureReason(Some(0xc000))));
    }

    #[test]
    fn reasons() {
        for (code, permanent, text) in [
            (Some(0xa700), false, "out of resources (0xA700)"),
            (Some(0x0110), false, "processing failure (0x0110)"),
            (None, false, "no reason given"),
            (Some(0xa900), true, "data set does not match SOP class (0xA900)"),
            (Some(0xc122), true, "transfer syntax not supported (0xC122)"),
            (Some(0x0122), true, "SOP class not supported (0x0122)"),
        ] {
            let reason = FailureReason(code);
            assert_eq!((reason.is_permanent(), reason.to_string().as_str()), (permanent, text));
        }
    }

    #[test]
    fn words_are_one_clean_line() {
        assert_eq!(words(b"<h1>\n  Not\x07 here</h1>\r\n"), "<h1> Not here</h1>");
        assert_eq!(words(b" \n"), "no words");
        assert_eq!(words(&[b'x'; 10_000]).len(), WORDS);
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), xml in "(<[/]?(Item|Value|DicomAttribute tag=\"0008119[89A]\"|x)[/]?>|[a-z&;]|<!--|\\?>){0,40}") {
            let _ = (ResponseModule::parse(&body), ResponseModule::parse(xml.as_bytes()), words(&body));
        }
    }
}
