//! The header of a source instance: what a result takes over from it.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use dicom_core::header::{HasLength, Header};
use dicom_core::{Length, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_object::InMemDicomObject;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use ichor_core::Uid;
use thiserror::Error;

use crate::attributes::{Rule, wanted};
use crate::charset::decode_text;
use crate::element::{Element, sequence, text};
use crate::meta::transfer_syntax;

/// Why a source instance cannot be the base of a result.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("source instance cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Not a DICOM file, or broken before its pixel data.
    #[error("source instance cannot be parsed: {0}")]
    Parse(String),
    /// A transfer syntax nobody knows.
    #[error("source instance has the unknown transfer syntax {0}")]
    TransferSyntax(String),
    /// A UID without which no result can be filed.
    #[error("source instance has no valid {0}")]
    Missing(&'static str),
}

/// Longest value that is taken over, in bytes.
const MAX_VALUE: u32 = 64 * 1024;
/// Most items that are taken over of one sequence.
const MAX_ITEMS: usize = 256;
/// Deepest nesting of sequences that is taken over.
const MAX_DEPTH: usize = 8;
/// Most elements that are read before the pixel data.
const MAX_TOKENS: usize = 1_000_000;
/// Most of a deflated data set that is inflated to find the header.
const MAX_INFLATED: u64 = 16 * 1024 * 1024;

/// Patient, study, frame of reference and equipment of one source instance, as Unicode.
#[derive(Clone, Debug)]
pub struct SourceHeader {
    pub(crate) object: InMemDicomObject,
    study: Uid,
    series: Uid,
    frame_of_reference: Option<Uid>,
    guessed: Vec<Tag>,
}

impl SourceHeader {
    /// Reads the header of a Part 10 file; pixel data are not touched. Character sets of any kind, code extensions
    /// included, become Unicode.
    ///
    /// # Errors
    /// [`SourceError`] if it is no DICOM file or lacks Study or Series Instance UID.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        Self::from_reader(BufReader::new(File::open(path)?))
    }

    /// The same from anything that holds a Part 10 file, preamble included.
    ///
    /// # Errors
    /// As [`SourceHeader::read`].
    pub fn from_reader(mut file: impl Read + Seek) -> Result<Self, SourceError> {
        let uid = transfer_syntax(&mut file)?;
        let syntax = TransferSyntaxRegistry.get(&uid).ok_or(SourceError::TransferSyntax(uid))?;
        let raw = if let Codec::Dataset(Some(adapter)) = syntax.codec() {
            let mut inflated = Vec::new();
            // A header that ends within the limit is whole even where the pixel data behind it are cut.
            adapter.adapt_reader(Box::new(&mut file)).take(MAX_INFLATED).read_to_end(&mut inflated)?;
            collect(LazyDataSetReader::new_with_ts(Cursor::new(inflated), syntax).map_err(parse_error)?)?
        } else {
            collect(LazyDataSetReader::new_with_ts(file, syntax).map_err(parse_error)?)?
        };
        Self::from_raw(&raw)
    }

    fn from_raw(raw: &[RawElement]) -> Result<Self, SourceError> {
        let declared = raw
            .iter()
            .find_map(|e| match &e.value {
                RawValue::Bytes(bytes) if e.tag == tags::SPECIFIC_CHARACTER_SET => {
                    Some(String::from_utf8_lossy(bytes).into_owned())
                }
                _ => None,
            })
            .unwrap_or_default();
        let mut decoder = Decoder { sets: declared.split('\\').collect(), guessed: Vec::new() };
        let object = decoder.object(raw, true);
        let guessed = decoder.guessed;
        let uid = |tag| object.get(tag).and_then(|e| e.to_str().ok()).and_then(|s| Uid::parse(&s).ok());
        let study = uid(tags::STUDY_INSTANCE_UID).ok_or(SourceError::Missing("study instance UID"))?;
        let series = uid(tags::SERIES_INSTANCE_UID).ok_or(SourceError::Missing("series instance UID"))?;
        let frame_of_reference = uid(tags::FRAME_OF_REFERENCE_UID);
        Ok(Self { object, study, series, frame_of_reference, guessed })
    }

    /// Study Instance UID.
    #[must_use]
    pub const fn study(&self) -> &Uid {
        &self.study
    }

    /// Series Instance UID.
    #[must_use]
    pub const fn series(&self) -> &Uid {
        &self.series
    }

    /// Frame of Reference UID, if the source has one.
    #[must_use]
    pub const fn frame_of_reference(&self) -> Option<&Uid> {
        self.frame_of_reference.as_ref()
    }

    /// Rescale Slope and Intercept, if the instance has one pair for all of its pixels (PS3.3 C.11.1).
    #[must_use]
    pub fn rescale(&self) -> Option<[f64; 2]> {
        Some([self.number(tags::RESCALE_SLOPE)?, self.number(tags::RESCALE_INTERCEPT)?])
    }

    /// Attributes whose text was not valid in the declared character set and had to be guessed: worth a warning
    /// (the tags, never the values).
    #[must_use]
    pub fn guessed_text(&self) -> &[Tag] {
        &self.guessed
    }

    /// A text attribute with a value.
    pub(crate) fn text(&self, tag: Tag) -> Option<String> {
        let value = self.object.get(tag)?.to_str().ok()?;
        if value.is_empty() { None } else { Some(value.into_owned()) }
    }

    /// A number in decimal or integer string form.
    pub(crate) fn number<T: std::str::FromStr>(&self, tag: Tag) -> Option<T> {
        self.text(tag)?.trim().parse().ok()
    }
}

fn parse_error(error: impl std::error::Error) -> SourceError {
    SourceError::Parse(error.to_string())
}

/// An element as it stands in the file.
struct RawElement {
    tag: Tag,
    vr: VR,
    value: RawValue,
}

enum RawValue {
    Bytes(Vec<u8>),
    Items(Vec<Vec<RawElement>>),
}

/// An open item, or the open sequence around it, while tokens come in.
struct OpenSequence {
    tag: Tag,
    items: Vec<Vec<RawElement>>,
    current: Vec<RawElement>,
}

/// Elements that are kept, and the sequences that are open around the next one.
#[derive(Default)]
struct Collector {
    top: Vec<RawElement>,
    open: Vec<OpenSequence>,
    /// Sequences that are open and not wanted.
    unwanted: usize,
    /// Whether each open level, wanted or not, is an item.
    levels: Vec<bool>,
}

/// Reads tokens up to the pixel data and keeps the wanted elements.
fn collect<S: StatefulDecode>(mut reader: LazyDataSetReader<S>) -> Result<Vec<RawElement>, SourceError> {
    let mut collector = Collector::default();
    for _ in 0..MAX_TOKENS {
        let Some(token) = reader.advance() else { return Ok(collector.top) };
        match token.map_err(parse_error)? {
            LazyDataToken::ElementHeader(header) if collector.levels.is_empty() && is_pixels(header.tag()) => {
                return Ok(collector.top);
            }
            LazyDataToken::PixelSequenceStart => return Ok(collector.top),
            LazyDataToken::SequenceStart { tag, .. } => collector.start_sequence(tag),
            LazyDataToken::ItemStart { .. } => collector.levels.push(true),
            LazyDataToken::ItemEnd => collector.end_item()?,
            LazyDataToken::SequenceEnd => collector.end_sequence()?,
            LazyDataToken::LazyValue { header, decoder } => {
                let length = header.length();
                if length != Length::UNDEFINED && length.0 <= MAX_VALUE && collector.keeps(header.tag()) {
                    let mut bytes = Vec::new();
                    decoder.read_to_vec(length.0, &mut bytes).map_err(parse_error)?;
                    let value = RawValue::Bytes(bytes);
                    collector.push(RawElement { tag: header.tag(), vr: header.vr(), value });
                } else {
                    decoder.skip_bytes(length.0).map_err(parse_error)?;
                }
            }
            token @ LazyDataToken::LazyItemValue { .. } => token.skip().map_err(parse_error)?,
            _ => {}
        }
    }
    Err(SourceError::Parse(format!("more than {MAX_TOKENS} elements before the pixel data")))
}

impl Collector {
    fn push(&mut self, element: RawElement) {
        self.open.last_mut().map_or(&mut self.top, |outer| &mut outer.current).push(element);
    }

    /// Whether an element here is kept: a wanted one at the top, anything inside a wanted sequence.
    fn keeps(&self, tag: Tag) -> bool {
        let wanted_here = !self.open.is_empty() || tag == tags::SPECIFIC_CHARACTER_SET || wanted(tag).is_some();
        self.unwanted == 0 && wanted_here
    }

    fn start_sequence(&mut self, tag: Tag) {
        self.levels.push(false);
        if self.keeps(tag) && self.open.len() < MAX_DEPTH {
            self.open.push(OpenSequence { tag, items: Vec::new(), current: Vec::new() });
        } else {
            self.unwanted += 1;
        }
    }

    /// Delimiters must pair: the reader does not check it, and panics some tokens later.
    fn close(&mut self, item: bool) -> Result<(), SourceError> {
        if self.levels.pop() == Some(item) {
            Ok(())
        } else {
            Err(SourceError::Parse("delimiters of sequences and items do not pair".to_owned()))
        }
    }

    fn end_item(&mut self) -> Result<(), SourceError> {
        self.close(true)?;
        if self.unwanted == 0
            && let Some(sequence) = self.open.last_mut()
        {
            let item = std::mem::take(&mut sequence.current);
            if sequence.items.len() < MAX_ITEMS {
                sequence.items.push(item);
            }
        }
        Ok(())
    }

    fn end_sequence(&mut self) -> Result<(), SourceError> {
        self.close(false)?;
        if self.unwanted > 0 {
            self.unwanted -= 1;
        } else if let Some(done) = self.open.pop() {
            self.push(RawElement { tag: done.tag, vr: VR::SQ, value: RawValue::Items(done.items) });
        }
        Ok(())
    }
}

/// Pixel data of any kind, or what comes behind.
fn is_pixels(tag: Tag) -> bool {
    tag >= tags::FLOAT_PIXEL_DATA
}

/// Turns raw elements into a data set in Unicode.
struct Decoder<'a> {
    sets: Vec<&'a str>,
    guessed: Vec<Tag>,
}

impl Decoder<'_> {
    fn object(&mut self, raw: &[RawElement], top_level: bool) -> InMemDicomObject {
        let elements: Vec<Element> = raw.iter().filter_map(|e| self.element(e, top_level)).collect();
        InMemDicomObject::from_element_iter(elements)
    }

    fn element(&mut self, raw: &RawElement, top_level: bool) -> Option<Element> {
        let vr = if top_level { wanted(raw.tag)?.vr } else { raw.vr };
        match &raw.value {
            RawValue::Items(items) => {
                let items = items.iter().map(|i| self.object(i, false));
                let items: Vec<_> = items.filter(|i| i.iter().next().is_some()).collect();
                (vr == VR::SQ && !items.is_empty()).then(|| sequence(raw.tag, items))
            }
            RawValue::Bytes(bytes) => {
                let value = self.value(raw.tag, vr, bytes)?;
                (!value.is_empty()).then(|| text(raw.tag, vr, value))
            }
        }
    }

    /// The text of a value; `None` for a VR that is no text.
    fn value(&mut self, tag: Tag, vr: VR, bytes: &[u8]) -> Option<String> {
        let multi_line = matches!(vr, VR::LT | VR::ST | VR::UT);
        let decoded = match vr {
            VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT => {
                let decoded = decode_text(bytes, &self.sets, vr == VR::PN);
                if decoded.lossy {
                    self.guessed.push(tag);
                }
                decoded.text
            }
            VR::AE | VR::AS | VR::CS | VR::DA | VR::DS | VR::DT | VR::IS | VR::TM | VR::UI | VR::UR => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            _ => return None,
        };
        let clean: String =
            decoded.chars().filter(|c| !c.is_control() || (multi_line && matches!(c, '\r' | '\n' | '\t'))).collect();
        Some(if multi_line { clean.trim_end().to_owned() } else { clean.trim().to_owned() })
    }
}

/// The attributes that are copied as they are, by their rule: elements with values, and the empty Type 2 ones.
pub(crate) fn copied(header: &SourceHeader) -> Vec<Element> {
    crate::attributes::ATTRIBUTES
        .iter()
        .filter_map(|attribute| match (attribute.rule, header.object.get(attribute.tag)) {
            (Rule::ReadOnly, _) | (Rule::Optional, None) => None,
            (_, Some(element)) => Some(element.clone()),
            (Rule::Type2, None) => Some(crate::element::empty(attribute.tag, attribute.vr)),
        })
        .collect()
}
