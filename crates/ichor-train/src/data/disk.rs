//! Prepared slices on disk: a few scans a file, read where they lie, so that a set may be larger than memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ichor_ct::input::{HuImage, InputPreset, PREPROCESSING_VERSION, model_input};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::DataError;
use super::catalogue::{Catalogue, DataReport, Place, Scan};
use super::decode::{Decoded, decode};
use crate::labels::SliceLabel;
use crate::progress::{Progress, duration};
use crate::slices::{SliceHead, SliceSet, SliceSetError, Slices};

/// Scans in a file.
const SCANS_A_FILE: usize = 16;

/// Slices of a catalogue on disk, as model inputs.
#[derive(Debug, Clone)]
pub struct DiskSlices {
    size: usize,
    files: Arc<Vec<(PathBuf, SliceHead)>>,
    /// File and place in it of each slice.
    places: Vec<(usize, usize)>,
    labels: Vec<SliceLabel>,
    /// The catalogue's index of each slice's scan.
    studies: Vec<u64>,
}

impl Slices for DiskSlices {
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
        let (file, place) = self.places[index];
        let (path, head) = &self.files[file];
        let start = bytes.len();
        bytes.resize(start + head.slice_len(), 0);
        // Opened each time: a set may have more files than a process may hold open, and the slice is what takes time.
        let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes[start..], head.place_of(place)));
        read.map_err(|source| SliceSetError::Io { path: path.clone(), source })
    }
}

/// How slices are made ready.
#[derive(Clone, Copy)]
pub struct Preparation<'a> {
    /// What the source is called.
    pub name: &'a str,
    /// Windows.
    pub preset: InputPreset,
    /// Side of the input.
    pub size: usize,
    /// Folder of the files.
    pub cache: &'a Path,
    /// False once somebody has asked the run to stop.
    pub going: &'a (dyn Fn() -> bool + Sync),
}

/// The slices of the catalogue's scans `wanted`, prepared where they are not on disk yet. What cannot be decoded is counted and
/// named in the report, at this and at every later call.
///
/// # Errors
/// [`DataError`] if files cannot be written or read, nothing could be decoded, or the run was asked to stop; what is prepared by
/// then is kept.
pub fn prepare(
    catalogue: &Catalogue,
    wanted: &BTreeSet<usize>,
    how: Preparation<'_>,
    report: &mut DataReport,
    progress: &mut dyn Progress,
) -> Result<DiskSlices, DataError> {
    let groups = catalogue.scans.chunks(SCANS_A_FILE).enumerate();
    let groups: Vec<(usize, &[Scan])> = groups
        .map(|(at, scans)| (at * SCANS_A_FILE, scans))
        .filter(|(first, scans)| wanted.range(*first..first + scans.len()).next().is_some())
        .collect();
    let mut slices = DiskSlices {
        size: how.size,
        files: Arc::default(),
        places: Vec::new(),
        labels: Vec::new(),
        studies: Vec::new(),
    };
    let (mut files, mut made, started) = (Vec::new(), 0, Instant::now());
    for (done, (first, scans)) in groups.iter().enumerate() {
        let path = how.cache.join(format!("{}.slices", key(scans, &how)?));
        let kept = SliceSet::read_head(&path)?;
        let is_new = kept.is_none();
        let head = match kept {
            Some(head) => head,
            None if !(how.going)() => return Err(DataError::Stopped(how.name.to_owned())),
            None => make(scans, &path, &how)?,
        };
        for name in read_failures(&path)? {
            report.add("corrupt slices, left out", name);
        }
        for (place, (&label, &local)) in head.labels.iter().zip(&head.studies).enumerate() {
            let scan = first + usize::try_from(local).unwrap_or(usize::MAX);
            if wanted.contains(&scan) {
                slices.places.push((files.len(), place));
                slices.labels.push(label);
                slices.studies.push(scan as u64);
            }
        }
        files.push((path, head));
        if is_new {
            made += 1;
        }
        if is_new && (made % 10 == 0 || done + 1 == groups.len()) {
            let left = started.elapsed().as_secs_f64() / f64::from(made) * (groups.len() - done - 1) as f64;
            progress.note(&format!(
                "{}: {} of {} files of slices, {} left",
                how.name,
                done + 1,
                groups.len(),
                duration(left)
            ));
        }
    }
    slices.files = Arc::new(files);
    if slices.labels.is_empty() {
        return Err(DataError::Nothing { name: how.name.to_owned(), report: report.lines().collect() });
    }
    Ok(slices)
}

/// What decides a file's content.
fn key(scans: &[Scan], how: &Preparation<'_>) -> Result<String, DataError> {
    let mut digest = Sha256::new();
    digest.update(format!("{:?} {} {PREPROCESSING_VERSION}", how.preset, how.size));
    let mut stamp = |path: &Path| -> Result<(), DataError> {
        // A file that is gone will be named when it cannot be read.
        let (length, changed) = std::fs::metadata(path)
            .map(|file| (file.len(), file.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())))
            .unwrap_or_default();
        digest.update(format!("{} {length} {changed:?}", path.display()));
        Ok(())
    };
    let mut labels = Vec::new();
    for scan in scans {
        if let Some(volume) = &scan.volume {
            stamp(&volume.ct)?;
        }
        for slice in &scan.slices {
            match &slice.place {
                Place::Dicom(path) => stamp(path)?,
                Place::Volume(at) => labels.extend((*at as u64).to_le_bytes()),
            }
            labels.push(slice.label.bits());
        }
        labels.push(u8::MAX);
    }
    digest.update(labels);
    Ok(hex::encode(digest.finalize())[..24].to_owned())
}

#[derive(Serialize, Deserialize)]
struct Failures {
    slices: Vec<String>,
}

fn failures_of(path: &Path) -> PathBuf {
    path.with_extension("corrupt.json")
}

fn read_failures(path: &Path) -> Result<Vec<String>, DataError> {
    let path = failures_of(path);
    match std::fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice::<Failures>(&text)
            .map_err(|_| SliceSetError::Damaged(path, "not a list of corrupt slices"))?
            .slices),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(DataError::Io { path, source }),
    }
}

/// Decodes and prepares scans, and writes them with their names of what is corrupt; studies count from the first scan.
fn make(scans: &[Scan], path: &Path, how: &Preparation<'_>) -> Result<SliceHead, DataError> {
    let one = |(at, scan): (usize, &Scan)| {
        let (mut set, mut failed) = (SliceSet::new(how.size), Vec::new());
        decode(scan, |index, decoded| match decoded {
            Ok(Decoded { slice, .. }) => {
                let image = HuImage {
                    rows: slice.plane.rows as usize,
                    columns: slice.plane.columns as usize,
                    spacing: slice.plane.spacing,
                    hu: &slice.hu,
                    window: slice.window,
                };
                let input = model_input(image, how.preset, how.size);
                set.push(&input.channels, scan.slices[index].label, at as u64);
            }
            Err(why) => failed.push(why),
        });
        (set, failed)
    };
    let parts: Vec<(SliceSet, Vec<String>)> = scans.par_iter().enumerate().map(one).collect();
    let (mut set, mut failed) = (SliceSet::new(how.size), Vec::new());
    for (part, names) in parts {
        set.append(part);
        failed.extend(names);
    }
    std::fs::create_dir_all(how.cache).map_err(|source| DataError::Io { path: how.cache.to_owned(), source })?;
    if !failed.is_empty() {
        // First, so that a set is never there without its list.
        let (list, io) = (failures_of(path), |source| DataError::Io { path: failures_of(path), source });
        let text = serde_json::to_vec_pretty(&Failures { slices: failed }).map_err(|error| io(error.into()))?;
        std::fs::write(&list, text).map_err(io)?;
    }
    set.write(path)?;
    Ok(SliceHead { size: how.size, labels: set.labels().to_vec(), studies: set.studies().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rsna;

    const PRESET: InputPreset = InputPreset::Rsna;

    fn how<'a>(cache: &'a Path, going: &'a (dyn Fn() -> bool + Sync)) -> Preparation<'a> {
        Preparation { name: "rsna", preset: PRESET, size: 16, cache, going }
    }

    #[test]
    fn slices_lie_on_disk_and_corrupt_ones_are_named() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        rsna::tests::published(folder.path(), 20);
        // As ID_6431af929.dcm: the header is whole, the pixels are not.
        let corrupt = folder.path().join("stage_2_train/ID_00010.dcm");
        let whole = std::fs::read(&corrupt).unwrap();
        std::fs::write(&corrupt, &whole[..whole.len() - 700]).unwrap();
        let recipe = rsna::tests::recipe(folder.path());
        let found = rsna::catalogue(&recipe, cache.path(), &mut ()).unwrap();
        assert_eq!(found.report.lines().count(), 0, "the header says nothing of it");
        let wanted = BTreeSet::from([0, 1, 19]);
        // The second time everything is there already, and nobody needs to be going on.
        for going in [true, false] {
            let mut report = DataReport::default();
            let going = move || going;
            let slices = prepare(&found, &wanted, how(cache.path(), &going), &mut report, &mut ()).unwrap();
            assert_eq!(slices.labels().len(), 8);
            assert_eq!(slices.studies(), [0, 0, 0, 1, 1, 19, 19, 19]);
            let line = report.lines().next().unwrap();
            assert!(line.starts_with("1 corrupt slices, left out: ID_00010.dcm"), "{line}");
            // The bytes are those of the slice with its own window.
            let Place::Dicom(path) = &found.scans[0].slices[1].place else { unreachable!() };
            let slice =
                ichor_ct::volume::read_slice_from(crate::data::headers::with_plain_meta(path).unwrap()).unwrap();
            assert_eq!(slice.window, Some((36.0, 80.0)));
            let image = |window| HuImage { rows: 32, columns: 32, spacing: [7.0, 7.0], hu: &slice.hu, window };
            let expected = |window| {
                let channels = model_input(image(window), PRESET, 16).channels;
                channels.iter().map(|v| (v * 255.0).round() as u8).collect::<Vec<u8>>()
            };
            let mut bytes = vec![9];
            slices.read_input(1, &mut bytes).unwrap();
            assert_eq!(bytes[1..], expected(slice.window));
            assert_ne!(bytes[1..], expected(Some((36.0, 20.0))));
        }
        let stopped = prepare(
            &found,
            &wanted,
            Preparation { size: 8, ..how(cache.path(), &|| false) },
            &mut DataReport::default(),
            &mut (),
        );
        assert!(matches!(stopped, Err(DataError::Stopped(_))));
    }

    #[test]
    fn changed_labels_are_prepared_anew() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        rsna::tests::published(folder.path(), 2);
        let mut found = rsna::catalogue(&rsna::tests::recipe(folder.path()), cache.path(), &mut ()).unwrap();
        let wanted = BTreeSet::from([0, 1]);
        let labels = |found: &Catalogue| {
            let slices = prepare(found, &wanted, how(cache.path(), &|| true), &mut DataReport::default(), &mut ());
            slices.unwrap().labels().to_vec()
        };
        let before = labels(&found);
        found.scans[1].slices[0].label = SliceLabel::UNSPECIFIED;
        let after = labels(&found);
        assert_eq!((before[3], after[3]), (SliceLabel::NONE, SliceLabel::UNSPECIFIED));
    }
}
