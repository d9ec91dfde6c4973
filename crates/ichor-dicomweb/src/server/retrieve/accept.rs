//! What a client takes (RFC 9110 12.5.1, PS3.18 8.7): media types, and transfer syntaxes within them.

use crate::server::archive::PictureForm;
use crate::server::media::{MediaType, split_outside_quotes};

/// Explicit VR Little Endian.
pub(super) const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
/// Most media ranges that are looked at.
const MOST: usize = 64;
/// Quality of a JPEG unless another is asked for.
const QUALITY: u8 = 90;

/// A media range of an Accept field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whether it is multipart/related; the other fields are about its parts then.
    pub is_multipart: bool,
    /// `type/subtype` in lower case; empty for a multipart without a type.
    pub essence: String,
    /// The transfer syntax that it names.
    pub syntax: Option<String>,
    /// How much it is wanted, in thousandths, more than 0.
    pub quality: u16,
}

/// Reads Accept fields, all of them joined, the most wanted range first. Nothing at all is everything.
///
/// # Errors
/// In words: there are too many of them, or none can be read.
pub fn ranges(accept: &str) -> Result<Vec<Wanted>, String> {
    let accept = if accept.trim().is_empty() { "*/*" } else { accept };
    let mut wanted = Vec::new();
    for (index, range) in split_outside_quotes(accept).enumerate() {
        if index >= MOST {
            return Err(format!("the Accept field has more than {MOST} media ranges"));
        }
        let Some(media) = MediaType::parse(range) else { continue };
        let quality = media.parameter("q").map_or(Some(1.0), |q| q.parse::<f32>().ok()).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000 before")]
        let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
        let is_multipart = media.essence == "multipart/related";
        let essence = if is_multipart {
            media.parameter("type").unwrap_or_default().to_ascii_lowercase()
        } else {
            media.essence.clone()
        };
        let syntax = media.parameter("transfer-syntax").filter(|syntax| *syntax != "*").map(str::to_owned);
        let is_any = media.parameter("transfer-syntax") == Some("*");
        let syntax = if is_any { Some("*".to_owned()) } else { syntax };
        if quality > 0 {
            wanted.push(Wanted { is_multipart, essence, syntax, quality });
        }
    }
    if wanted.is_empty() {
        return Err("the Accept field names nothing that is wanted".to_owned());
    }
    wanted.sort_by_key(|range| std::cmp::Reverse(range.quality));
    Ok(wanted)
}

/// What is retrieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Objects,
    Frames,
}

/// In which form something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// As it is stored.
    Stored,
    /// Uncompressed, Explicit VR Little Endian.
    Native,
}

impl Choice {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Native => "native",
        }
    }

    /// The transfer syntax that it gives.
    pub(super) const fn syntax(self, stored: &str) -> &str {
        match self {
            Self::Stored => stored,
            Self::Native => EXPLICIT_LITTLE_ENDIAN,
        }
    }
}

/// Media type of frames in a transfer syntax (PS3.18 tables 8.7.3-2, -4 and -5).
pub(super) fn media_of(syntax: &str) -> &'static str {
    match syntax.strip_prefix("1.2.840.10008.1.2.").unwrap_or_default() {
        "4.50" | "4.51" | "4.57" | "4.70" => "image/jpeg",
        "4.80" | "4.81" => "image/jls",
        "4.90" | "4.91" => "image/jp2",
        "4.92" | "4.93" => "image/jpx",
        "4.201" | "4.202" | "4.203" => "image/jphc",
        "5" => "image/dicom-rle",
        _ => "application/octet-stream",
    }
}

fn is_native(syntax: &str) -> bool {
    ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"].contains(&syntax)
}

/// The ranges that are about this kind, and whether the answer has parts. Without parts only a single thing can be sent.
pub(super) fn of_kind(accept: &[Wanted], kind: Kind, is_single: bool) -> Result<(bool, Vec<Wanted>), String> {
    let is_about = |range: &&Wanted| match (kind, range.essence.as_str()) {
        (_, "*/*") => true,
        (_, "") => range.is_multipart,
        (Kind::Objects, essence) => ["application/dicom", "application/*"].contains(&essence),
        (Kind::Frames, essence) => {
            essence.starts_with("image/") || ["application/octet-stream", "application/*"].contains(&essence)
        }
    };
    let has_parts = |range: &Wanted| range.is_multipart || range.essence.ends_with("/*");
    let about: Vec<&Wanted> = accept.iter().filter(is_about).collect();
    let fitting = about.iter().find(|range| is_single || has_parts(range));
    let Some(first) = fitting else {
        let part = match kind {
            Kind::Objects => "application/dicom",
            Kind::Frames => "application/octet-stream",
        };
        let single = if is_single || about.is_empty() { "" } else { "; without parts one thing can be had at a time" };
        return Err(format!("accept multipart/related; type=\"{part}\"{single}"));
    };
    let is_multipart = has_parts(first);
    let ranges = about.iter().filter(|range| has_parts(range) == is_multipart).map(|range| (*range).clone());
    Ok((is_multipart, ranges.collect()))
}

/// In which form something stored so can be sent, if in any. Of ranges that are wanted as much as each other, one that takes
/// it as it is stored.
pub(super) fn choose(ranges: &[Wanted], kind: Kind, stored: &str) -> Option<Choice> {
    let takes = |range: &Wanted, choice: Choice| {
        let gives = choice.syntax(stored);
        if kind == Kind::Objects {
            // The standard's default would be Explicit VR Little Endian; as it is stored costs nothing, and every file says
            // what it is in.
            return match range.syntax.as_deref() {
                None | Some("*") => choice == Choice::Stored,
                Some(wanted) => wanted == gives,
            };
        }
        let media = if is_native(gives) { "application/octet-stream" } else { media_of(gives) };
        let names_media = range.essence == media
            || (range.essence == "image/*" && media.starts_with("image/"))
            || (range.essence == "image/x-dicom-rle" && media == "image/dicom-rle");
        let is_open = ["*/*", "application/*", ""].contains(&range.essence.as_str());
        match range.syntax.as_deref() {
            None => {
                (names_media || (is_open && choice == Choice::Native))
                    && (media != "application/octet-stream" || choice == Choice::Native)
            }
            // Any transfer syntax: its own media type tells which.
            Some("*") => {
                choice == Choice::Stored && (names_media || is_open || range.essence == "application/octet-stream")
            }
            Some(wanted) => wanted == gives && (names_media || is_open),
        }
    };
    for tier in ranges.chunk_by(|one, next| one.quality == next.quality) {
        for choice in [Choice::Stored, Choice::Native] {
            if tier.iter().any(|range| takes(range, choice)) {
                return Some(choice);
            }
        }
    }
    None
}

/// Whether DICOM JSON is taken.
pub(in crate::server) fn json(accept: &[Wanted]) -> Result<(), String> {
    let takes = |range: &Wanted| {
        !range.is_multipart
            && ["application/dicom+json", "application/json", "application/*", "*/*"].contains(&range.essence.as_str())
    };
    if accept.iter().any(takes) { Ok(()) } else { Err("metadata and results are application/dicom+json".to_owned()) }
}

/// The form of a picture.
pub(super) fn picture(accept: &[Wanted]) -> Result<PictureForm, String> {
    let form = |range: &Wanted| match range.essence.as_str() {
        _ if range.is_multipart => None,
        "image/jpeg" | "image/*" | "*/*" => Some(PictureForm::Jpeg(QUALITY)),
        "image/png" => Some(PictureForm::Png),
        _ => None,
    };
    accept.iter().find_map(form).ok_or_else(|| "pictures are image/jpeg or image/png".to_owned())
}

/// Whether bulk data go into a part.
pub(super) fn bulk(accept: &[Wanted]) -> Result<bool, String> {
    let part = |range: &Wanted| match range.essence.as_str() {
        "" | "*/*" | "application/octet-stream" | "application/*" => {
            Some(range.is_multipart || range.essence.ends_with("/*"))
        }
        _ => None,
    };
    accept.iter().find_map(part).ok_or_else(|| "bulk data are application/octet-stream".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
    const IMPLICIT: &str = "1.2.840.10008.1.2";

    fn chosen(accept: &str, kind: Kind, stored: &str, is_single: bool) -> Option<(bool, Choice)> {
        let (is_multipart, ranges) = of_kind(&ranges(accept).ok()?, kind, is_single).ok()?;
        choose(&ranges, kind, stored).map(|choice| (is_multipart, choice))
    }

    #[test]
    fn objects() {
        let multipart = |rest: &str| format!("multipart/related; type=\"application/dicom\"{rest}");
        for (accept, stored, is_single, wanted) in [
            (String::new(), JPEG_LS, false, Some((true, Choice::Stored))),
            ("*/*".to_owned(), JPEG_LS, true, Some((true, Choice::Stored))),
            ("application/dicom".to_owned(), JPEG_LS, true, Some((false, Choice::Stored))),
            ("application/dicom".to_owned(), JPEG_LS, false, None),
            (multipart("; transfer-syntax=*"), JPEG_LS, false, Some((true, Choice::Stored))),
            (multipart("; transfer-syntax=1.2.840.10008.1.2.1"), JPEG_LS, false, Some((true, Choice::Native))),
            (multipart("; transfer-syntax=1.2.840.10008.1.2.4.70"), JPEG_LS, false, None),
            (multipart("; transfer-syntax=1.2.840.10008.1.2.4.80"), JPEG_LS, false, Some((true, Choice::Stored))),
            (multipart("; transfer-syntax=1.2.840.10008.1.2.1"), IMPLICIT, false, Some((true, Choice::Native))),
            ("application/zip".to_owned(), JPEG_LS, false, None),
            ("application/dicom;q=0".to_owned(), JPEG_LS, true, None),
        ] {
            assert_eq!(chosen(&accept, Kind::Objects, stored, is_single), wanted, "{accept:?} {stored}");
        }
    }

    #[test]
    fn frames() {
        for (accept, stored, wanted) in [
            ("", JPEG_LS, Some((true, Choice::Native))),
            ("multipart/related; type=\"application/octet-stream\"", JPEG_LS, Some((true, Choice::Native))),
            (
                "multipart/related; type=application/octet-stream; transfer-syntax=*",
                JPEG_LS,
                Some((true, Choice::Stored)),
            ),
            ("multipart/related; type=\"image/jls\"", JPEG_LS, Some((true, Choice::Stored))),
            ("multipart/related; type=\"image/jp2\"", JPEG_LS, None),
            ("multipart/related; type=\"image/jls\"", IMPLICIT, None),
            ("application/octet-stream", IMPLICIT, Some((false, Choice::Native))),
            ("image/jls;q=0.5, application/octet-stream;q=0.4", JPEG_LS, Some((false, Choice::Stored))),
            ("image/jls;q=0.4, application/octet-stream;q=0.5", JPEG_LS, Some((false, Choice::Native))),
            (
                "multipart/related; type=\"application/octet-stream\"; transfer-syntax=*",
                IMPLICIT,
                Some((true, Choice::Stored)),
            ),
        ] {
            assert_eq!(chosen(accept, Kind::Frames, stored, true), wanted, "{accept:?} {stored}");
        }
    }

    #[test]
    fn pictures_json_and_bulk() {
        let of = |accept: &str| ranges(accept).unwrap();
        assert_eq!(picture(&of("image/png;q=0.9,image/jpeg;q=0.8")).unwrap(), PictureForm::Png);
        assert_eq!(picture(&of("")).unwrap(), PictureForm::Jpeg(QUALITY));
        assert!(picture(&of("image/gif")).is_err());
        assert!(
            json(&of("application/json")).is_ok()
                && json(&of("multipart/related; type=\"application/dicom+xml\"")).is_err()
        );
        assert_eq!(bulk(&of("application/octet-stream")), Ok(false));
        assert_eq!(bulk(&of("*/*")), Ok(true));
        assert!(bulk(&of("image/jpeg")).is_err());
    }

    #[test]
    fn a_deep_field_is_refused() {
        assert!(ranges(&"application/dicom,".repeat(100)).unwrap_err().contains("64"));
        assert!(ranges("nonsense").is_err() && ranges("a/b;q=0").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(accept in "(,|;|=|\"|q=0\\.[0-9]|\\*|/|application|multipart|related|image|type|transfer-syntax|\\PC){0,30}") {
            if let Ok(ranges) = ranges(&accept) {
                for kind in [Kind::Objects, Kind::Frames] {
                    if let Ok((_, about)) = of_kind(&ranges, kind, true) {
                        let _ = choose(&about, kind, JPEG_LS);
                    }
                }
                let _ = (json(&ranges), picture(&ranges), bulk(&ranges));
            }
        }
    }
}
