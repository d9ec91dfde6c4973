//! A set of labelled model inputs, in memory and on disk.
//!
//! An epoch must be pure computation: slices go through the preprocessing once, are quantised to 8 bits (the brain
//! window spans 120 HU, so one level is under half a HU, far below the noise) and lie in one file that is read in bulk.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::labels::SliceLabel;

const MAGIC: &[u8; 8] = b"ICHORSL1";

/// A cache file cannot be written or read.
#[derive(Debug, Error)]
pub enum SliceSetError {
    /// The file system refused.
    #[error("slice cache {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The file is not a slice cache, or is cut short.
    #[error("slice cache {0} is damaged: {1}")]
    Damaged(PathBuf, &'static str),
}

/// Labelled model inputs, wherever they lie.
pub trait Slices: Sync {
    /// Side of an input in pixels.
    fn size(&self) -> usize;

    /// The labels in order.
    fn labels(&self) -> &[SliceLabel];

    /// The number of each slice's study.
    fn studies(&self) -> &[u64];

    /// Appends the quantised input of slice `index` to `bytes`: 3·S·S of them.
    ///
    /// # Errors
    /// [`SliceSetError`] if it cannot be read.
    fn read_input(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), SliceSetError>;
}

/// Tenth of its study, counted from the foot, that each slice lies in: 0 to 9.
#[must_use]
pub fn levels(studies: &[u64]) -> Vec<usize> {
    let runs = studies.chunk_by(|a, b| a == b);
    runs.flat_map(|run| (0..run.len()).map(move |at| at * 10 / run.len())).collect()
}

/// Labelled model inputs, quantised to 8 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceSet {
    size: usize,
    inputs: Vec<u8>,
    labels: Vec<SliceLabel>,
    studies: Vec<u64>,
}

impl SliceSet {
    /// An empty set of inputs of `size` × `size`.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { size, inputs: Vec::new(), labels: Vec::new(), studies: Vec::new() }
    }

    /// Adds one input (3·S·S values 0..1, channel by channel) of the study with seed `study`.
    pub fn push(&mut self, channels: &[f32], label: SliceLabel, study: u64) {
        debug_assert_eq!(channels.len(), self.slice_len());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255 first")]
        let quantised = channels.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8);
        self.inputs.extend(quantised);
        self.labels.push(label);
        self.studies.push(study);
    }

    /// Appends another set of the same size.
    pub fn append(&mut self, mut other: Self) {
        debug_assert_eq!(self.size, other.size);
        self.inputs.append(&mut other.inputs);
        self.labels.append(&mut other.labels);
        self.studies.append(&mut other.studies);
    }

    /// Side of an input in pixels.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of slices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels in order.
    #[must_use]
    pub fn labels(&self) -> &[SliceLabel] {
        &self.labels
    }

    /// The seed of each slice's study.
    #[must_use]
    pub fn studies(&self) -> &[u64] {
        &self.studies
    }

    /// The seed of each study and the range of its slices.
    pub fn runs(&self) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
        self.studies.chunk_by(|a, b| a == b).scan(0, |start, run| {
            let range = *start..*start + run.len();
            *start = range.end;
            Some((run[0], range))
        })
    }

    /// Tenth of its study, counted from the foot, that each slice lies in: 0 to 9.
    #[must_use]
    pub fn levels(&self) -> Vec<usize> {
        levels(&self.studies)
    }

    /// The quantised input of slice `index`: 3·S·S bytes.
    #[must_use]
    pub fn input(&self, index: usize) -> &[u8] {
        &self.inputs[index * self.slice_len()..][..self.slice_len()]
    }

    fn slice_len(&self) -> usize {
        3 * self.size * self.size
    }

    /// Writes the set beside its final name and renames it into place, so that a killed run leaves no half file.
    ///
    /// # Errors
    /// [`SliceSetError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), SliceSetError> {
        let io = |source| SliceSetError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut file = fs::File::create(&partial).map_err(io)?;
        let mut header = MAGIC.to_vec();
        header.extend((self.size as u64).to_le_bytes());
        header.extend((self.len() as u64).to_le_bytes());
        header.extend(self.labels.iter().map(|label| label.bits()));
        header.extend(self.studies.iter().flat_map(|study| study.to_le_bytes()));
        file.write_all(&header).and_then(|()| file.write_all(&self.inputs)).map_err(io)?;
        file.sync_all().and_then(|()| fs::rename(&partial, path)).map_err(io)
    }

    /// Reads what a cache file holds, but for the inputs; `None` if there is no such file.
    ///
    /// # Errors
    /// As [`SliceSet::read`].
    pub fn read_head(path: &Path) -> Result<Option<SliceHead>, SliceSetError> {
        Ok(SliceHead::open(path)?.map(|(head, _)| head))
    }

    /// Reads a set back; `None` if there is no such file.
    ///
    /// # Errors
    /// [`SliceSetError`] if the file cannot be read, is no slice cache, or is cut short.
    pub fn read(path: &Path) -> Result<Option<Self>, SliceSetError> {
        let Some((head, mut file)) = SliceHead::open(path)? else { return Ok(None) };
        let mut inputs = vec![0; head.slice_len() * head.labels.len()];
        file.read_exact(&mut inputs).map_err(|source| SliceSetError::Io { path: path.to_owned(), source })?;
        Ok(Some(Self { size: head.size, inputs, labels: head.labels, studies: head.studies }))
    }
}

impl Slices for SliceSet {
    fn size(&self) -> usize {
        self.size
    }

    fn labels(&self) -> &[SliceLabel] {
        &self.labels
    }

    fn studies(&self) -> &[u64] {
        &self.studies
    }

    fn read_input(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), SliceSetError> {
        bytes.extend_from_slice(self.input(index));
        Ok(())
    }
}

/// What a cache file holds, but for the inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceHead {
    /// Side of an input in pixels.
    pub size: usize,
    /// The labels in order.
    pub labels: Vec<SliceLabel>,
    /// The number of each slice's study.
    pub studies: Vec<u64>,
}

impl SliceHead {
    /// Bytes of one input.
    #[must_use]
    pub fn slice_len(&self) -> usize {
        3 * self.size * self.size
    }

    /// Where in the file the input of slice `index` begins.
    #[must_use]
    pub fn place_of(&self, index: usize) -> u64 {
        (24 + 9 * self.labels.len() + index * self.slice_len()) as u64
    }

    /// Checks the file's form and extent; the file is left where the inputs begin.
    fn open(path: &Path) -> Result<Option<(Self, fs::File)>, SliceSetError> {
        let io = |source| SliceSetError::Io { path: path.to_owned(), source };
        let damaged = |why| SliceSetError::Damaged(path.to_owned(), why);
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mut header = [0; 24];
        file.read_exact(&mut header).map_err(|_| damaged("no header"))?;
        if &header[..8] != MAGIC {
            return Err(damaged("not a slice cache"));
        }
        let word = |at: usize| header[at..at + 8].iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        let extent = |at| usize::try_from(word(at)).map_err(|_| damaged("sizes out of range"));
        let (size, count) = (extent(8)?, extent(16)?);
        let slice =
            size.checked_mul(size).and_then(|n| n.checked_mul(3)).ok_or_else(|| damaged("sizes out of range"))?;
        let body =
            slice.checked_add(9).and_then(|n| n.checked_mul(count)).ok_or_else(|| damaged("sizes out of range"))?;
        if file.metadata().map_err(io)?.len() != 24 + body as u64 {
            return Err(damaged("cut short or too long"));
        }
        let mut bytes = |length: usize| {
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes).map_err(io).map(|()| bytes)
        };
        let labels = bytes(count)?.into_iter().map(SliceLabel::from_bits).collect::<Option<Vec<_>>>();
        let studies = bytes(8 * count)?
            .chunks_exact(8)
            .map(|chunk| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
            .collect();
        let labels = labels.ok_or_else(|| damaged("a label contradicts itself"))?;
        Ok(Some((Self { size, labels, studies }, file)))
    }
}
