//! Media types of requests and answers (RFC 9110 8.3.1, 12.5.1; PS3.18 8.7).

use thiserror::Error;

/// Longest boundary, in characters. RFC 2046 (5.1.1) says 70, but Orthanc sends 73: two UUIDs.
const MAX_BOUNDARY: usize = 200;

/// A media type with its parameters, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// `type/subtype`, in lower case.
    pub(super) essence: String,
    /// Parameters in the order given, quotes and escapes removed.
    pub(super) parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Parses one media type; `None` if it is none.
    #[must_use]
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (essence, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        let essence = essence.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut parameters = Vec::new();
        while let Some(after) = rest.trim_start().strip_prefix(';') {
            let after = after.trim_start();
            if after.is_empty() || after.starts_with(';') {
                rest = after;
                continue;
            }
            let (name, value) = after.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            let (value, behind) = parameter_value(value)?;
            if !is_token(&name) {
                return None;
            }
            parameters.push((name, value));
            rest = behind;
        }
        rest.trim().is_empty().then_some(Self { essence, parameters })
    }

    /// The first value of a parameter.
    #[must_use]
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A token or quoted string, and what stands behind it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let value = text[..end].trim_end();
        // Slashes and equals signs are no token, and common in `type=application/dicom` and in boundaries.
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | ',' | '\\');
        return (!value.is_empty() && value.chars().all(is_plain)).then(|| (value.to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// What a request's body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// One Part 10 file.
    Single,
    /// Parts between boundaries.
    Multipart {
        /// The boundary, without its leading hyphens.
        boundary: String,
    },
}

/// Why a body is not read at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum MediaError {
    /// Not what this service takes: 415.
    #[error("{0}")]
    Unsupported(String),
    /// A multipart body whose header is broken: 400.
    #[error("{0}")]
    Malformed(String),
}

/// What the Content-Type of a request says of its body (PS3.18 10.5.1). A single `application/dicom` is more than the
/// standard allows; many senders know nothing else.
pub(crate) fn body_kind(content_type: Option<&str>) -> Result<BodyKind, MediaError> {
    let unsupported = |why: String| Err(MediaError::Unsupported(why));
    let Some(text) = content_type else {
        return unsupported("the request has no Content-Type; multipart/related; type=\"application/dicom\" is".into());
    };
    let Some(media) = MediaType::parse(text) else {
        return Err(MediaError::Malformed("the Content-Type is no media type".to_owned()));
    };
    match media.essence.as_str() {
        "application/dicom" => Ok(BodyKind::Single),
        "multipart/related" => {
            if let Some(kind) = media.parameter("type") {
                part_kind(kind)?;
            }
            let boundary = media.parameter("boundary").unwrap_or_default();
            check_boundary(boundary)?;
            Ok(BodyKind::Multipart { boundary: boundary.to_owned() })
        }
        other => unsupported(format!("{} is not taken; {EXPECTED}", short(other))),
    }
}

const EXPECTED: &str = "send multipart/related; type=\"application/dicom\" with whole DICOM files as parts";

/// Whether a part of this media type is taken.
pub(crate) fn part_kind(content_type: &str) -> Result<(), MediaError> {
    let essence = MediaType::parse(content_type).map(|media| media.essence).unwrap_or_default();
    match essence.as_str() {
        "application/dicom" => Ok(()),
        "application/dicom+json" | "application/dicom+xml" | "application/json" => Err(MediaError::Unsupported(
            format!("metadata and bulk data in separate parts ({essence}) are not taken; {EXPECTED}"),
        )),
        _ => Err(MediaError::Unsupported(format!("parts of {} are not taken; {EXPECTED}", short(content_type)))),
    }
}

fn check_boundary(boundary: &str) -> Result<(), MediaError> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    let malformed = |why: &str| Err(MediaError::Malformed(why.to_owned()));
    match boundary {
        "" => malformed("the Content-Type of the request names no boundary"),
        long if long.len() > MAX_BOUNDARY => {
            Err(MediaError::Malformed(format!("the boundary is longer than {MAX_BOUNDARY} characters")))
        }
        bad if bad.ends_with(' ') || !bad.bytes().all(is_allowed) => {
            malformed("the boundary holds characters that RFC 2046 does not allow")
        }
        _ => Ok(()),
    }
}

/// A peer's text, short and printable.
fn short(text: &str) -> String {
    let clean: String = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(80).collect();
    if clean.is_empty() { "an unnamed media type".to_owned() } else { clean }
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// `application/dicom+json` (PS3.18 F).
    Json,
    /// `application/dicom+xml`, the Native DICOM Model (PS3.19 A.1).
    Xml,
}

impl AnswerForm {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/dicom+json",
            Self::Xml => "application/dicom+xml",
        }
    }

    /// Chooses by the Accept fields, all of them joined; `None` if the peer takes neither form. JSON wins a tie.
    pub(super) fn negotiate(accept: &str) -> Option<Self> {
        if accept.trim().is_empty() {
            return Some(Self::Json);
        }
        // `application/json` is another name of the same thing (PS3.18 8.7.3).
        let json = quality(accept, &["application/dicom+json", "application/json"]);
        let xml = quality(accept, &["application/dicom+xml"]);
        match (json, xml) {
            (0, 0) => None,
            (json, xml) if xml > json => Some(Self::Xml),
            _ => Some(Self::Json),
        }
    }
}

/// How much a media type, under any of its names, is wanted, in thousandths; the most specific range counts (RFC 9110 12.5.1).
fn quality(accept: &str, names: &[&str]) -> u16 {
    let mut best = (0, 0);
    for range in split_outside_quotes(accept) {
        let Some(media) = MediaType::parse(range) else { continue };
        let specific = match media.essence.as_str() {
            "*/*" => 1,
            "application/*" => 2,
            essence if names.contains(&essence) => 3,
            _ => continue,
        };
        let q = media.parameter("q").map_or(Some(1.0), |q| q.parse::<f32>().ok()).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000 before")]
        let thousandths = (q.clamp(0.0, 1.0) * 1000.0) as u16;
        if (specific, thousandths) > best {
            best = (specific, thousandths);
        }
    }
    best.1
}

pub(super) fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn boundary_of(content_type: &str, wanted: Option<&str>) {
        let found = match body_kind(Some(content_type)) {
            Ok(BodyKind::Multipart { boundary }) => Some(boundary),
            Ok(BodyKind::Single) | Err(_) => None,
        };
        assert_eq!(found.as_deref(), wanted, "{content_type}");
    }

    #[test]
    fn boundaries() {
        boundary_of("multipart/related; type=\"application/dicom\"; boundary=abc", Some("abc"));
        boundary_of(
            "Multipart/Related;Boundary=\"a b'()+_,-./:=?c\" ; TYPE=\"Application/DICOM\"",
            Some("a b'()+_,-./:=?c"),
        );
        boundary_of("multipart/related; boundary=--=_x; type=application/dicom;", Some("--=_x"));
        boundary_of("multipart/related; boundary=\"a\\-b\"", Some("a-b"));
        boundary_of("multipart/related; type=\"application/dicom\"", None);
        boundary_of("multipart/related; boundary=\"\"", None);
        boundary_of("multipart/related; boundary=\"open", None);
        boundary_of("multipart/related; boundary=\"a \"", None);
        boundary_of("multipart/related; boundary=\"a\r\nb\"", None);
        boundary_of(&format!("multipart/related; boundary={}", "x".repeat(201)), None);
        boundary_of(&format!("multipart/related; boundary={}", "x".repeat(200)), Some(&"x".repeat(200)));
        boundary_of("multipart/form-data; boundary=abc", None);
    }

    #[test]
    fn what_is_not_taken() {
        for kind in ["application/dicom+json", "application/dicom+xml"] {
            let error = body_kind(Some(&format!("multipart/related; type=\"{kind}\"; boundary=x"))).unwrap_err();
            assert!(matches!(&error, MediaError::Unsupported(why) if why.contains(kind)), "{error}");
        }
        assert!(matches!(body_kind(None), Err(MediaError::Unsupported(_))));
        assert!(matches!(body_kind(Some("application/zip")), Err(MediaError::Unsupported(_))));
        assert!(matches!(body_kind(Some("x")), Err(MediaError::Malformed(_))));
        assert_eq!(body_kind(Some("application/dicom; transfer-syntax=*")), Ok(BodyKind::Single));
        assert_eq!(part_kind("application/dicom; transfer-syntax=1.2.840.10008.1.2.1"), Ok(()));
    }

    #[test]
    fn forms_of_answers() {
        for (accept, wanted) in [
            ("", Some(AnswerForm::Json)),
            ("*/*", Some(AnswerForm::Json)),
            ("application/dicom+xml", Some(AnswerForm::Xml)),
            ("application/dicom+xml, application/dicom+json", Some(AnswerForm::Json)),
            ("application/dicom+xml;q=0.9, application/dicom+json;q=0.1", Some(AnswerForm::Xml)),
            ("application/dicom+json;q=0, */*", Some(AnswerForm::Xml)),
            ("application/json", Some(AnswerForm::Json)),
            ("application/*;q=0.5", Some(AnswerForm::Json)),
            ("text/html", None),
            ("*/*;q=0", None),
            ("nonsense", None),
        ] {
            assert_eq!(AnswerForm::negotiate(accept), wanted, "{accept:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z/;=\"\\\\, *+.é\r\n]{0,60}") {
            let _ = (body_kind(Some(&text)), part_kind(&text), AnswerForm::negotiate(&text));
        }
    }
}
