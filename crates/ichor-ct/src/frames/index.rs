//! Where in a file the pixels of each frame lie, found without reading them.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek, SeekFrom};

use dicom_core::header::{HasLength as _, Header as _};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::TransferSyntaxIndex as _;
use dicom_encoding::text::SpecificCharacterSet;
use dicom_object::FileMetaTable;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_parser::stateful::decode::{DynStatefulDecoder, StatefulDecode as _};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::error::CtError;

/// Preamble before the prefix `DICM` (PS3.10 7.1).
const PREAMBLE: u64 = 128;
/// Longest file meta information.
const MOST_META_BYTES: u64 = 64 * 1024;
/// Most fragments of one file.
const MOST_FRAGMENTS: usize = 1 << 20;

/// Longest offset table, in bytes.
const LONGEST_TABLE: u32 = 1 << 20;

/// Start and length in the file.
type Span = (u64, u64);

/// Where the frames' pixels lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PixelIndex {
    /// One after the other.
    Native {
        /// Start of the first, in the file.
        start: u64,
        /// Bytes of all of them.
        length: u64,
    },
    /// The fragments of each frame.
    Fragments(Vec<Vec<Span>>),
}

fn parse(error: impl std::fmt::Display) -> CtError {
    CtError::Parse(error.to_string())
}

impl PixelIndex {
    /// Finds the pixels of a Part 10 file of so many frames.
    pub(super) fn of(file: &mut File, frames: u32) -> Result<Self, CtError> {
        let mut source = BufReader::new(file);
        source.seek(SeekFrom::Start(PREAMBLE)).map_err(parse)?;
        let meta = FileMetaTable::from_reader((&mut source).take(MOST_META_BYTES)).map_err(parse)?;
        let uid = meta.transfer_syntax();
        if uid == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN {
            return Err(CtError::Unsupported("a deflated multi-frame image"));
        }
        let syntax =
            TransferSyntaxRegistry.get(uid).ok_or_else(|| parse(format!("transfer syntax {uid} is not known")))?;
        let base = source.stream_position().map_err(parse)?;
        let decoder =
            DynStatefulDecoder::new_with(source, syntax, SpecificCharacterSet::default(), base).map_err(parse)?;
        let mut reader = LazyDataSetReader::new(decoder);
        let (mut depth, mut in_pixels) = (0usize, false);
        let (mut table, mut extended, mut items) = (Vec::<u64>::new(), Vec::<u64>::new(), Vec::<Span>::new());
        let mut is_table = false;
        while let Some(token) = reader.advance() {
            match token.map_err(parse)? {
                LazyDataToken::PixelSequenceStart if depth == 0 => (in_pixels, depth) = (true, 1),
                LazyDataToken::PixelSequenceStart | LazyDataToken::SequenceStart { .. } => depth += 1,
                LazyDataToken::SequenceEnd if in_pixels && depth == 1 => break,
                LazyDataToken::SequenceEnd => depth = depth.saturating_sub(1),
                LazyDataToken::ItemStart { len } if in_pixels => {
                    is_table = items.is_empty() && !is_table;
                    if !is_table || len.get() != Some(0) {
                        continue;
                    }
                    // An empty table has no value.
                    items.push((0, 0));
                }
                LazyDataToken::LazyItemValue { len, decoder } if in_pixels => {
                    let start = decoder.position();
                    if items.is_empty() {
                        if len > LONGEST_TABLE {
                            return Err(parse(format!("an offset table of {len} bytes")));
                        }
                        let mut offsets = Vec::new();
                        decoder.read_u32_to_vec(len, &mut offsets).map_err(parse)?;
                        table = offsets.into_iter().map(u64::from).collect();
                        items.push((start, u64::from(len)));
                        continue;
                    }
                    if items.len() > MOST_FRAGMENTS {
                        return Err(parse(format!("more than {MOST_FRAGMENTS} fragments")));
                    }
                    items.push((start, u64::from(len)));
                    LazyDataToken::LazyItemValue { len, decoder }.skip().map_err(parse)?;
                }
                LazyDataToken::LazyValue { header, decoder } if depth == 0 && header.tag() == tags::PIXEL_DATA => {
                    let length = header.length().get().unwrap_or(0);
                    return Ok(Self::Native { start: decoder.position(), length: u64::from(length) });
                }
                LazyDataToken::LazyValue { header, decoder }
                    if depth == 0
                        && header.tag() == tags::EXTENDED_OFFSET_TABLE
                        && header.length().get().is_some_and(|length| length <= LONGEST_TABLE) =>
                {
                    let value = LazyDataToken::LazyValue { header, decoder }.into_value().map_err(parse)?;
                    extended = value.to_multi_int::<u64>().unwrap_or_default();
                }
                token @ (LazyDataToken::LazyValue { .. } | LazyDataToken::LazyItemValue { .. }) => {
                    token.skip().map_err(parse)?;
                }
                _ => {}
            }
        }
        if !in_pixels {
            return Err(CtError::Missing("Pixel Data"));
        }
        let offsets = if extended.is_empty() { table } else { extended };
        assign(&items[items.len().min(1)..], &offsets, frames as usize).map(Self::Fragments)
    }
}

/// Which fragments belong to which frame (PS3.5 A.4): as many as frames, or as the offset table says.
fn assign(fragments: &[Span], offsets: &[u64], frames: usize) -> Result<Vec<Vec<Span>>, CtError> {
    if fragments.len() == frames {
        return Ok(fragments.iter().map(|fragment| vec![*fragment]).collect());
    }
    if frames == 1 {
        return Ok(vec![fragments.to_vec()]);
    }
    let first = fragments.first().map_or(0, |(start, _)| *start);
    let at: Vec<u64> = fragments.iter().map(|(start, _)| start - first).collect();
    let starts: Option<Vec<usize>> = offsets.iter().map(|offset| at.iter().position(|at| at == offset)).collect();
    match starts {
        Some(starts)
            if starts.len() == frames
                && starts.first() == Some(&0)
                && starts.windows(2).all(|pair| pair[0] < pair[1]) =>
        {
            let ends = starts.iter().skip(1).copied().chain([fragments.len()]);
            Ok(starts.iter().zip(ends).map(|(start, end)| fragments[*start..end].to_vec()).collect())
        }
        _ => Err(CtError::Codestream(format!(
            "{} fragments cannot be told apart into {frames} frames: the offset table has {} entries",
            fragments.len(),
            offsets.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_assigned_by_the_table_or_not_at_all() {
        let span = |start: u64| (start, 10u64);
        let fragments = [span(108), span(126), span(144), span(162)];
        let check = |offsets: &[u64], frames| assign(&fragments, offsets, frames);
        assert_eq!(check(&[], 4).unwrap(), fragments.map(|one| vec![one]));
        assert_eq!(check(&[], 1).unwrap(), [fragments.to_vec()]);
        assert_eq!(check(&[0, 36], 2).unwrap(), [fragments[..2].to_vec(), fragments[2..].to_vec()]);
        assert_eq!(check(&[0, 18, 54], 3).unwrap()[1], fragments[1..3]);
        for offsets in [&[][..], &[0], &[0, 37], &[18, 36], &[36, 0], &[0, 0], &[0, 18, 36]] {
            assert!(check(offsets, 2).is_err(), "{offsets:?}");
        }
    }
}
