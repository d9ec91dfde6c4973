//! What rivals are trained on: model inputs with labels and, for those that need them, masks. Where they come from is a
//! source's business; phantoms are one.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ichor_ct::input::{HuImage, InputPreset, PREPROCESSING_VERSION, model_input};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tch::{Kind, TchError, Tensor};
use thiserror::Error;

use crate::labels::SliceLabel;
use crate::phantoms::{PhantomError, PhantomMix, generator_fingerprint, slice_set, study};
use crate::progress::Progress;
use crate::seeds::SeedRange;
use crate::slices::{SliceSet, SliceSetError};

/// Examples cannot be had, or do not serve.
#[derive(Debug, Error)]
pub enum ExamplesError {
    /// Phantoms cannot be made or cached.
    #[error(transparent)]
    Phantoms(#[from] PhantomError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] SliceSetError),
    /// Numbers of inputs and masks differ, or their sizes do.
    #[error("masks do not fit the slices: {0}")]
    Fit(String),
    /// A supervised rival meets slices without masks.
    #[error("the training slices have no masks, and a supervised network learns from nothing else")]
    NoMasks,
    /// Slices are labelled as bleeding, and no mask shows where.
    #[error("{0} training slices are labelled as bleeding, and all their masks are empty")]
    EmptyMasks(usize),
    /// The training slices cannot be split.
    #[error("the training slices cannot be split: {0}")]
    Split(String),
}

/// Masks on the input's grid, a bit a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Masks {
    size: usize,
    count: usize,
    bits: Vec<u8>,
}

const MAGIC: &[u8; 8] = b"ICHORMK1";

impl Masks {
    fn new(size: usize) -> Self {
        Self { size, count: 0, bits: Vec::new() }
    }

    fn push(&mut self, mask: &[u8]) {
        let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit != 0));
        self.bits.extend(mask.chunks(8).map(byte));
        self.count += 1;
    }

    fn append(&mut self, mut other: Self) {
        self.bits.append(&mut other.bits);
        self.count += other.count;
    }

    fn bytes(&self) -> usize {
        (self.size * self.size).div_ceil(8)
    }

    fn get(&self, index: usize) -> impl Iterator<Item = u8> {
        let packed = &self.bits[index * self.bytes()..][..self.bytes()];
        (0..self.size * self.size).map(move |at| packed[at / 8] >> (at % 8) & 1)
    }

    fn any(&self) -> bool {
        self.bits.iter().any(|byte| *byte != 0)
    }

    fn write(&self, path: &Path) -> Result<(), SliceSetError> {
        let io = |source| SliceSetError::Io { path: path.to_owned(), source };
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut header = MAGIC.to_vec();
        header.extend((self.size as u64).to_le_bytes());
        header.extend((self.count as u64).to_le_bytes());
        let write = || {
            let mut file = fs::File::create(&partial)?;
            file.write_all(&header)?;
            file.write_all(&self.bits)?;
            file.sync_all()?;
            fs::rename(&partial, path)
        };
        write().map_err(io)
    }

    /// `None` if there is no such file.
    fn read(path: &Path) -> Result<Option<Self>, SliceSetError> {
        let io = |source| SliceSetError::Io { path: path.to_owned(), source };
        let damaged = |why| SliceSetError::Damaged(path.to_owned(), why);
        let mut bytes = Vec::new();
        match fs::File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes).map_err(io)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let extent = |at| word(at).and_then(|word| usize::try_from(word).ok()).ok_or_else(|| damaged("no header"));
        if bytes.get(..8) != Some(MAGIC) {
            return Err(damaged("not a cache of masks"));
        }
        let (size, count) = (extent(8)?, extent(16)?);
        let body = size.checked_mul(size).map(|pixels| pixels.div_ceil(8)).and_then(|bytes| bytes.checked_mul(count));
        if body.and_then(|body| body.checked_add(24)) != Some(bytes.len()) {
            return Err(damaged("cut short or too long"));
        }
        Ok(Some(Self { size, count, bits: bytes.split_off(24) }))
    }
}

/// Labelled model inputs, scan after scan, with or without masks.
#[derive(Debug, Clone)]
pub struct Examples {
    slices: SliceSet,
    masks: Option<Masks>,
}

/// Examples set apart by study: indices of slices, those of one study together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// What is trained on.
    pub training: Vec<usize>,
    /// What chooses the epoch.
    pub validation: Vec<usize>,
}

impl Examples {
    /// Slices with labels only.
    #[must_use]
    pub fn labelled(slices: SliceSet) -> Self {
        Self { slices, masks: None }
    }

    /// An empty set with masks, for inputs of side `size`.
    #[must_use]
    pub fn with_masks(size: usize) -> Self {
        Self { slices: SliceSet::new(size), masks: Some(Masks::new(size)) }
    }

    /// Adds a slice (3·S·S values 0..1) with its mask (S·S, non-zero = hemorrhage) to a set with masks.
    ///
    /// # Errors
    /// [`ExamplesError`] if a size differs, or the set is one without masks.
    pub fn push(&mut self, input: &[f32], label: SliceLabel, mask: &[u8], study: u64) -> Result<(), ExamplesError> {
        let pixels = self.slices.size() * self.slices.size();
        let masks = self.masks.as_mut().ok_or(ExamplesError::NoMasks)?;
        if input.len() != 3 * pixels || mask.len() != pixels {
            return Err(ExamplesError::Fit(format!(
                "an input of {} values and a mask of {} pixels, where a slice has {pixels} pixels",
                input.len(),
                mask.len()
            )));
        }
        self.slices.push(input, label, study);
        masks.push(mask);
        Ok(())
    }

    /// The slices.
    #[must_use]
    pub fn slices(&self) -> &SliceSet {
        &self.slices
    }

    /// Checks that there is a mask to learn from.
    ///
    /// # Errors
    /// [`ExamplesError::NoMasks`], or [`ExamplesError::EmptyMasks`] if slices bleed and all masks are empty.
    pub fn check_masks(&self) -> Result<(), ExamplesError> {
        let masks = self.masks.as_ref().ok_or(ExamplesError::NoMasks)?;
        let bleeding = self.slices.labels().iter().filter(|label| label.any()).count();
        if bleeding > 0 && !masks.any() { Err(ExamplesError::EmptyMasks(bleeding)) } else { Ok(()) }
    }

    /// Inputs of the named slices, `[slices, 3, S, S]`, values 0..1.
    ///
    /// # Errors
    /// The libtorch error.
    pub fn inputs(&self, indices: &[usize]) -> Result<Tensor, TchError> {
        let bytes: Vec<u8> = indices.iter().flat_map(|&index| self.slices.input(index)).copied().collect();
        let size = side(self.slices.size());
        Tensor::f_from_slice(&bytes)?.f_reshape([-1, 3, size, size])?.f_to_kind(Kind::Float)?.f_mul_scalar(1.0 / 255.0)
    }

    /// Masks of the named slices, `[slices, S, S]`, 0 or 1; `None` in a set without masks.
    ///
    /// # Errors
    /// The libtorch error.
    pub fn masks(&self, indices: &[usize]) -> Result<Option<Tensor>, TchError> {
        let Some(masks) = &self.masks else { return Ok(None) };
        let bytes: Vec<u8> = indices.iter().flat_map(|&index| masks.get(index)).collect();
        let size = side(self.slices.size());
        Tensor::f_from_slice(&bytes)?.f_reshape([-1, size, size])?.f_to_kind(Kind::Float).map(Some)
    }

    /// Whether each of the named slices bleeds.
    #[must_use]
    pub fn bleeding(&self, indices: &[usize]) -> Vec<bool> {
        indices.iter().map(|&index| self.slices.labels()[index].any()).collect()
    }

    /// Sets a `share` of the studies apart for validation, bleeding and other ones alike, at least one bleeding study. With
    /// a share of 0 both parts are the whole set.
    ///
    /// # Errors
    /// [`ExamplesError::Split`] if either part would have no bleeding study.
    pub fn split(&self, share: f64, seed: u64) -> Result<Parts, ExamplesError> {
        if share <= 0.0 {
            let all: Vec<usize> = (0..self.slices.len()).collect();
            return Ok(Parts { training: all.clone(), validation: all });
        }
        let runs: Vec<_> = self.slices.runs().map(|(_, run)| run).collect();
        let bleeds = |run: &std::ops::Range<usize>| run.clone().any(|index| self.slices.labels()[index].any());
        let (mut with, mut without): (Vec<_>, Vec<_>) = runs.iter().cloned().partition(|run| bleeds(run));
        if with.len() < 2 {
            let why = format!("{} of {} studies bleed, training and validation need one each", with.len(), runs.len());
            return Err(ExamplesError::Split(why));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        with.shuffle(&mut rng);
        without.shuffle(&mut rng);
        let apart = |count: usize, least: usize| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a count"
            )]
            let share = (count as f64 * share).round() as usize;
            share.clamp(least, count.saturating_sub(1).max(least))
        };
        let (kept_with, kept_without) = (apart(with.len(), 1), apart(without.len(), 0));
        let (validation_with, training_with) = with.split_at(kept_with);
        let (validation_without, training_without) = without.split_at(kept_without);
        let indices = |a: &[std::ops::Range<usize>], b: &[std::ops::Range<usize>]| {
            let mut runs: Vec<_> = a.iter().chain(b).cloned().collect();
            runs.sort_by_key(|run| run.start);
            runs.into_iter().flatten().collect()
        };
        Ok(Parts {
            training: indices(training_with, training_without),
            validation: indices(validation_with, validation_without),
        })
    }

    /// The scans among the named slices, each the indices of its slices in order.
    #[must_use]
    pub fn scans(&self, indices: &[usize]) -> Vec<Vec<usize>> {
        let same = |a: &usize, b: &usize| self.slices.studies()[*a] == self.slices.studies()[*b];
        indices.chunk_by(same).map(<[usize]>::to_vec).collect()
    }
}

fn side(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Where examples come from.
pub trait ExampleSource {
    /// The examples, with masks if `masks` is set.
    ///
    /// # Errors
    /// [`ExamplesError`].
    fn examples(&self, masks: bool, progress: &mut dyn Progress) -> Result<Examples, ExamplesError>;
}

/// Phantoms as a source: masks are what the generator drew, brought to the input's grid.
#[derive(Debug, Clone)]
pub struct PhantomExamples {
    /// What they are called in progress.
    pub name: String,
    /// The studies.
    pub seeds: SeedRange,
    /// What phantoms they are.
    pub mix: PhantomMix,
    /// Windows of the input.
    pub preset: InputPreset,
    /// Side of the input.
    pub size: usize,
    /// Folder in which they are kept.
    pub cache: PathBuf,
}

impl PhantomExamples {
    fn file(&self, ending: &str) -> PathBuf {
        let key = serde_json::json!({
            "seeds": self.seeds, "mix": self.mix, "preset": self.preset, "size": self.size, "masks": true,
            "preprocessing": PREPROCESSING_VERSION, "generator": generator_fingerprint(),
        });
        let digest = hex::encode(Sha256::digest(key.to_string()));
        self.cache.join(format!("{}.{ending}", &digest[..24]))
    }

    fn study(&self, seed: u64) -> Result<Examples, ExamplesError> {
        let mut examples = Examples::with_masks(self.size);
        for slice in study(seed, &self.mix)?.slices {
            let (rows, columns) = (slice.plane.rows as usize, slice.plane.columns as usize);
            let image = HuImage { rows, columns, spacing: slice.plane.spacing, hu: &slice.hu, window: None };
            let input = model_input(image, self.preset, self.size);
            examples.push(&input.channels, slice.label, &input.grid.mask_to_input(&slice.mask), seed)?;
        }
        Ok(examples)
    }
}

impl ExampleSource for PhantomExamples {
    fn examples(&self, masks: bool, progress: &mut dyn Progress) -> Result<Examples, ExamplesError> {
        if !masks {
            let set = slice_set(&self.name, self.seeds, &self.mix, self.preset, self.size, &self.cache, progress)?;
            return Ok(Examples::labelled(set));
        }
        let (slices, masks) = (self.file("slices"), self.file("masks"));
        if let (Some(set), Some(read)) = (SliceSet::read(&slices)?, Masks::read(&masks)?) {
            if set.len() != read.count || set.size() != read.size {
                return Err(SliceSetError::Damaged(masks, "it belongs to other slices").into());
            }
            return Ok(Examples { slices: set, masks: Some(read) });
        }
        let (mut set, mut drawn) = (SliceSet::new(self.size), Masks::new(self.size));
        let all: Vec<u64> = self.seeds.seeds().collect();
        for (done, group) in all.chunks(8).enumerate() {
            let parts: Vec<Examples> = group.par_iter().map(|&seed| self.study(seed)).collect::<Result<_, _>>()?;
            for part in parts {
                set.append(part.slices);
                part.masks.into_iter().for_each(|masks| drawn.append(masks));
            }
            progress.prepared(&self.name, (done * 8 + group.len()).min(all.len()), all.len());
        }
        set.write(&slices)?;
        drawn.write(&masks)?;
        Ok(Examples { slices: set, masks: Some(drawn) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ichor_core::HemorrhageSubtype;
    use ichor_phantom::BleedRanges;

    fn mix() -> PhantomMix {
        PhantomMix {
            positive_share: 1.0,
            matrices: vec![60],
            min_spacing_mm: 15.0,
            bleeds: BleedRanges::easy(),
            real_head: None,
        }
    }

    #[test]
    fn masks_come_back_as_drawn_and_lie_where_the_bleed_is() {
        let folder = tempfile::tempdir().unwrap();
        let source = PhantomExamples {
            name: "test".to_owned(),
            seeds: SeedRange { first: 4, studies: 2 },
            mix: mix(),
            preset: InputPreset::PhysioNet,
            size: 32,
            cache: folder.path().to_owned(),
        };
        let made = source.examples(true, &mut ()).unwrap();
        made.check_masks().unwrap();
        let all: Vec<usize> = (0..made.slices().len()).collect();
        let masks = made.masks(&all).unwrap().unwrap();
        let area: Vec<f64> = all.iter().map(|&i| masks.get(i as i64).sum(Kind::Double).double_value(&[])).collect();
        for (index, bleeds) in made.bleeding(&all).into_iter().enumerate() {
            assert!(bleeds || area[index] == 0.0, "slice {index}");
        }
        assert!(area.iter().sum::<f64>() > 20.0, "{area:?}");
        // In the brain window, blood is brighter than the rest of the head on the whole.
        let brain = made.inputs(&all).unwrap().select(1, 0);
        let inside = (&brain * &masks).sum(Kind::Double).double_value(&[]) / masks.sum(Kind::Double).double_value(&[]);
        assert!(inside > brain.mean(Kind::Double).double_value(&[]) + 0.1, "{inside}");
        let again = source.examples(true, &mut ()).unwrap();
        assert_eq!((again.slices, again.masks.unwrap()), (made.slices, made.masks.unwrap()));
        let path = source.file("masks");
        let whole = fs::read(&path).unwrap();
        for (bytes, what) in
            [(&whole[..whole.len() - 1], "cut short"), (&whole[..3], "not a cache"), (&whole[..20], "no header")]
        {
            fs::write(&path, bytes).unwrap();
            let error = source.examples(true, &mut ()).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(source.examples(false, &mut ()).unwrap().check_masks().unwrap_err().to_string().contains("no masks"));
    }

    fn studies(bleeding: &[bool]) -> Examples {
        let mut examples = Examples::with_masks(2);
        for (study, &bleeds) in bleeding.iter().enumerate() {
            for slice in 0..3 {
                let shows = bleeds && slice == 1;
                let label = if shows { SliceLabel::of([HemorrhageSubtype::Epidural]) } else { SliceLabel::NONE };
                examples.push(&[0.5; 12], label, &[0; 4], study as u64).unwrap();
            }
        }
        examples
    }

    #[test]
    fn a_split_keeps_studies_whole_and_both_kinds_on_both_sides() {
        let bleeding: Vec<bool> = (0..20).map(|study| study % 4 == 0).collect();
        let examples = studies(&bleeding);
        let parts = examples.split(0.2, 7).unwrap();
        assert_eq!((parts.training.len(), parts.validation.len()), (16 * 3, 4 * 3));
        for part in [&parts.training, &parts.validation] {
            assert!(examples.scans(part).iter().all(|scan| scan.len() == 3));
            assert!(examples.bleeding(part).contains(&true) && examples.bleeding(part).contains(&false));
        }
        assert!(parts.training.iter().all(|index| !parts.validation.contains(index)));
        assert_eq!(examples.split(0.2, 7).unwrap(), parts);
        assert_ne!(examples.split(0.2, 8).unwrap(), parts);
        let whole = examples.split(0.0, 7).unwrap();
        assert_eq!((whole.training.len(), whole.training), (60, whole.validation));
    }

    #[test]
    fn slices_that_do_not_serve_are_refused() {
        let mut examples = studies(&[true, false]);
        let split = examples.split(0.5, 1).unwrap_err().to_string();
        assert!(split.contains("1 of 2 studies bleed"), "{split}");
        let empty = examples.check_masks().unwrap_err().to_string();
        assert!(empty.contains("1 training slices are labelled as bleeding, and all their masks are empty"), "{empty}");
        let size = examples.push(&[0.5; 12], SliceLabel::NONE, &[0; 5], 1).unwrap_err().to_string();
        assert!(size.contains("mask of 5 pixels"), "{size}");
        let mut labelled = Examples::labelled(SliceSet::new(2));
        assert!(matches!(labelled.push(&[0.5; 12], SliceLabel::NONE, &[0; 4], 1), Err(ExamplesError::NoMasks)));
        assert!(labelled.masks(&[]).unwrap().is_none());
    }
}
