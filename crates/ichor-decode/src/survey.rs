//! What a file says of its pixel data, without holding any of it: header values and the lengths of fragments.
//!
//! Values are skipped, not read, so a survey allocates nothing from a declared length. A deflated data set is inflated
//! as a stream, up to its pixel data and no further than the cap.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use dicom_core::Tag;
use dicom_core::header::{HasLength, Header};
use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntaxIndex;
use dicom_encoding::text::SpecificCharacterSet;
use dicom_object::FileMetaTable;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_parser::stateful::decode::{DynStatefulDecoder, StatefulDecode};
use dicom_transfer_syntax_registry::{TransferSyntaxRegistry, entries};
use ichor_core::Reason;
use thiserror::Error;
use tracing::debug;

use crate::caps::Caps;

/// Preamble before the prefix `DICM` (PS3.10 7.1).
const PREAMBLE: u64 = 128;
/// Longest file meta information; ordinary ones have about 350 bytes.
const MOST_META_BYTES: u64 = 64 * 1024;
/// Deepest nesting that is followed.
const MOST_NESTED: usize = 256;
/// Longest value of a number among those that are read.
const LONGEST_NUMBER: u32 = 64;

/// How the pixel data lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are: no codec.
    Native,
    /// The whole data set deflated (PS3.5 A.5).
    Deflated,
    /// In fragments (PS3.5 A.4).
    Encapsulated,
}

/// What a file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) form: Form,
    /// The codec's name, for reasons.
    pub(crate) codec: Cow<'static, str>,
    /// Zero where absent, as the next two.
    pub(crate) rows: u64,
    pub(crate) columns: u64,
    /// One where absent, as the next.
    pub(crate) frames: u64,
    pub(crate) samples: u64,
    /// Bytes of the file.
    pub(crate) encoded_bytes: u64,
    /// Bytes from the data set's start to the end of its pixel data, inflated; as far as it was followed.
    pub(crate) inflated_bytes: u64,
    /// Fragments without the offset table; as far as they were followed.
    pub(crate) fragments: u64,
}

/// Why a file could not be surveyed.
#[derive(Debug, Error)]
pub(crate) enum SurveyError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("cannot be parsed: {0}")]
    Parse(String),
    #[error("sequences nest deeper than {MOST_NESTED}")]
    Nesting,
    #[error("fragments have {declared} bytes, the file {there}")]
    Fragments { declared: u64, there: u64 },
}

impl SurveyError {
    pub(crate) fn reason(&self) -> Reason {
        Reason::new("unreadable", self.to_string())
    }
}

impl Survey {
    /// Surveys a Part 10 file. It goes no further than one past a cap.
    pub(crate) fn of(path: &Path, caps: &Caps) -> Result<Self, SurveyError> {
        let file = File::open(path)?;
        let encoded_bytes = file.metadata()?.len();
        Self::read(BufReader::new(file), encoded_bytes, caps)
    }

    pub(crate) fn read(mut file: impl Read + Seek, encoded_bytes: u64, caps: &Caps) -> Result<Self, SurveyError> {
        file.seek(SeekFrom::Start(PREAMBLE))?;
        let meta = FileMetaTable::from_reader((&mut file).take(MOST_META_BYTES)).map_err(parse)?;
        let syntax = meta.transfer_syntax().to_owned();
        let (form, codec) = form_of(&syntax);
        let mut survey = Self {
            form,
            codec,
            rows: 0,
            columns: 0,
            frames: 1,
            samples: 1,
            encoded_bytes,
            inflated_bytes: 0,
            fragments: 0,
        };
        match form {
            Form::Deflated => {
                let inflated = flate2::read::DeflateDecoder::new(file).take(caps.max_inflated_bytes.saturating_add(1));
                survey.walk(BufReader::new(inflated), entries::EXPLICIT_VR_LITTLE_ENDIAN.uid(), caps)?;
            }
            Form::Encapsulated => survey.walk(file, &syntax, caps)?,
            // No decoder is to be guarded here: the reader of the slice names what is wrong with the file.
            Form::Native => {
                if let Err(error) = survey.walk(file, &syntax, caps) {
                    debug!(%error, "header of an uncompressed image");
                }
            }
        }
        Ok(survey)
    }

    fn walk(&mut self, source: impl Read, syntax: &str, caps: &Caps) -> Result<(), SurveyError> {
        let syntax = TransferSyntaxRegistry
            .get(syntax)
            .ok_or_else(|| SurveyError::Parse(format!("transfer syntax {syntax} is not known")))?;
        // Text is skipped, whatever its character set.
        let decoder =
            DynStatefulDecoder::new_with(source, syntax, SpecificCharacterSet::default(), 0).map_err(parse)?;
        let mut reader = LazyDataSetReader::new(decoder);
        let (mut depth, mut in_pixels, mut is_table, mut at, mut fragment_bytes) = (0usize, false, true, 0u64, 0u64);
        while let Some(token) = reader.advance() {
            match token.map_err(parse)? {
                LazyDataToken::PixelSequenceStart if depth == 0 => (in_pixels, depth) = (true, 1),
                // An icon's pixel data, deeper in.
                LazyDataToken::PixelSequenceStart | LazyDataToken::SequenceStart { .. } => depth += 1,
                LazyDataToken::SequenceEnd if in_pixels && depth == 1 => break,
                LazyDataToken::SequenceEnd => depth = depth.saturating_sub(1),
                LazyDataToken::ItemStart { .. } if in_pixels => {
                    // The first item is the offset table.
                    self.fragments += u64::from(!std::mem::take(&mut is_table));
                    if self.fragments > caps.max_fragments {
                        break;
                    }
                }
                LazyDataToken::ElementHeader(header) if depth == 0 && header.tag == tags::PIXEL_DATA => {
                    at = at.saturating_add(u64::from(header.length().get().unwrap_or(0)));
                    break;
                }
                token @ LazyDataToken::LazyValue { .. } => at = at.saturating_add(self.value(token, depth)?),
                LazyDataToken::LazyItemValue { len, decoder } => {
                    at = at.saturating_add(u64::from(len));
                    fragment_bytes = fragment_bytes.saturating_add(if in_pixels { u64::from(len) } else { 0 });
                    if fragment_bytes > self.encoded_bytes {
                        return Err(SurveyError::Fragments { declared: fragment_bytes, there: self.encoded_bytes });
                    }
                    skip(LazyDataToken::LazyItemValue { len, decoder })?;
                }
                _ => {}
            }
            if depth > MOST_NESTED {
                return Err(SurveyError::Nesting);
            }
            if self.form == Form::Deflated && at > caps.max_inflated_bytes {
                break;
            }
        }
        self.inflated_bytes = if self.form == Form::Deflated { at } else { 0 };
        Ok(())
    }

    /// Takes in a number that is asked for and skips all else; returns the value's length.
    fn value<D>(&mut self, token: LazyDataToken<D>, depth: usize) -> Result<u64, SurveyError>
    where
        D: StatefulDecode,
    {
        let LazyDataToken::LazyValue { header, .. } = &token else { return Ok(0) };
        let (tag, length) = (header.tag(), header.length().get().unwrap_or(0));
        match self.field(tag) {
            Some(field) if depth == 0 && length <= LONGEST_NUMBER => {
                let value = token.into_value().map_err(parse)?;
                // An unreadable number stays as if absent; the reader of the slice names it.
                if let Ok(number) = value.to_int::<u64>() {
                    *field = number;
                }
            }
            _ => skip(token)?,
        }
        Ok(u64::from(length))
    }

    fn field(&mut self, tag: Tag) -> Option<&mut u64> {
        match tag {
            tags::ROWS => Some(&mut self.rows),
            tags::COLUMNS => Some(&mut self.columns),
            tags::NUMBER_OF_FRAMES => Some(&mut self.frames),
            tags::SAMPLES_PER_PIXEL => Some(&mut self.samples),
            _ => None,
        }
    }
}

fn skip<D: StatefulDecode>(token: LazyDataToken<D>) -> Result<(), SurveyError> {
    token.skip().map_err(parse)
}

fn parse(error: impl std::fmt::Display) -> SurveyError {
    SurveyError::Parse(error.to_string())
}

/// Form and codec of a transfer syntax (PS3.5 annex A).
fn form_of(syntax: &str) -> (Form, Cow<'static, str>) {
    let codec = match syntax.strip_prefix("1.2.840.10008.1.2").unwrap_or(syntax) {
        "" | ".1" | ".2" => return (Form::Native, "no".into()),
        ".1.99" => return (Form::Deflated, "deflate".into()),
        ".4.50" => "JPEG baseline",
        ".4.51" => "JPEG extended",
        ".4.57" | ".4.70" => "JPEG lossless",
        ".4.80" | ".4.81" => "JPEG-LS",
        ".4.90" | ".4.91" | ".4.92" | ".4.93" => "JPEG 2000",
        ".4.201" | ".4.202" | ".4.203" => "HTJ2K",
        ".5" => "RLE",
        _ => return (Form::Encapsulated, format!("transfer syntax {syntax}").into()),
    };
    (Form::Encapsulated, codec.into())
}
