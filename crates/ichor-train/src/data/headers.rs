//! Headers of many DICOM files, read once: who, which study and series, and where along the patient.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::file::ReadPreamble;
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::DataError;
use crate::progress::Progress;

/// What is known of a file before its pixels are read. Identifiers are taken as they stand: those of published sets are no UIDs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Card {
    pub(super) patient: String,
    pub(super) study: String,
    pub(super) series: String,
    pub(super) instance: String,
    pub(super) accession: String,
    /// Along the normal of the slice, mm.
    pub(super) position: f64,
    /// Instance Number, for slices at one position.
    pub(super) number: f64,
}

/// A file with its card, or why it has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Filed {
    pub(super) path: PathBuf,
    length: u64,
    changed: Option<std::time::Duration>,
    pub(super) card: Result<Card, String>,
}

/// Files between two words to whoever waits.
const GROUP: usize = 4096;

/// Cards of all files, in their order; read from the list in `cache` where a file has not changed since.
///
/// # Errors
/// [`DataError::Io`] if the list cannot be written.
pub(super) fn cards(
    name: &str,
    files: Vec<PathBuf>,
    cache: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<Filed>, DataError> {
    let list = cache.join(format!("headers-{}.jsonl", &hex::encode(Sha256::digest(name))[..16]));
    let io = |source| DataError::Io { path: list.clone(), source };
    let known = read_list(&list);
    let (mut filed, mut fresh) = (Vec::with_capacity(files.len()), 0);
    for group in files.chunks(GROUP) {
        let cards: Vec<(Filed, bool)> = group.par_iter().map(|path| file(path, &known)).collect();
        fresh += cards.iter().filter(|(_, is_new)| *is_new).count();
        filed.extend(cards.into_iter().map(|(filed, _)| filed));
        if fresh > 0 {
            progress.note(&format!("{name}: {} of {} headers read", filed.len(), files.len()));
        }
    }
    if fresh > 0 {
        std::fs::create_dir_all(cache).map_err(io)?;
        let partial = list.with_extension("partial");
        let write = || {
            let mut file = BufWriter::new(std::fs::File::create(&partial)?);
            for filed in &filed {
                serde_json::to_writer(&mut file, filed)?;
                file.write_all(b"\n")?;
            }
            file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
            std::fs::rename(&partial, &list)
        };
        write().map_err(io)?;
    }
    Ok(filed)
}

/// A list that cannot be read is as good as none: headers are read again.
fn read_list(path: &Path) -> HashMap<PathBuf, Filed> {
    let Ok(file) = std::fs::File::open(path) else { return HashMap::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let filed = lines.filter_map(|line| serde_json::from_str::<Filed>(&line).ok());
    filed.map(|filed| (filed.path.clone(), filed)).collect()
}

fn file(path: &Path, known: &HashMap<PathBuf, Filed>) -> (Filed, bool) {
    let stamp = std::fs::metadata(path).map(|file| {
        (file.len(), file.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()))
    });
    let (length, changed) = stamp.unwrap_or_default();
    if let Some(filed) = known.get(path).filter(|filed| (filed.length, filed.changed) == (length, changed)) {
        return (filed.clone(), false);
    }
    (Filed { path: path.to_owned(), length, changed, card: card(path) }, true)
}

fn card(path: &Path) -> Result<Card, String> {
    let read = || {
        let options = OpenFileOptions::new().read_until(tags::PIXEL_DATA);
        options.open_file(path).or_else(|error| {
            let options = OpenFileOptions::new().read_until(tags::PIXEL_DATA).read_preamble(ReadPreamble::Always);
            options.from_reader(with_plain_meta(path).map_err(|_| error)?)
        })
    };
    // A parser that panics over a corrupt file must not end the run.
    let object = std::panic::catch_unwind(read).map_err(|_| "the parser gave up".to_owned())?;
    let object = object.map_err(|error| error.to_string())?;
    let needed = |tag, name: &str| text(&object, tag).ok_or_else(|| format!("has no {name}"));
    let [rx, ry, rz, cx, cy, cz] = numbers(&object, tags::IMAGE_ORIENTATION_PATIENT, "Image Orientation (Patient)")?;
    let [x, y, z] = numbers(&object, tags::IMAGE_POSITION_PATIENT, "Image Position (Patient)")?;
    let normal = [ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx];
    let number = text(&object, tags::INSTANCE_NUMBER).and_then(|text| text.parse().ok());
    Ok(Card {
        patient: needed(tags::PATIENT_ID, "Patient ID")?,
        study: needed(tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
        series: needed(tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
        instance: needed(tags::SOP_INSTANCE_UID, "SOP Instance UID")?,
        accession: text(&object, tags::ACCESSION_NUMBER).unwrap_or_default(),
        position: normal[0] * x + normal[1] * y + normal[2] * z,
        number: number.unwrap_or_default(),
    })
}

/// Bytes of the file, the Media Storage SOP Instance UID (0002,0003) replaced by digits where it is no UID: identifiers of published
/// sets are none, and the parser refuses the file for it. The data set is left as it is.
pub(super) fn with_plain_meta(path: &Path) -> std::io::Result<impl Read> {
    const ELEMENT: [u8; 6] = [0x02, 0x00, 0x03, 0x00, b'U', b'I'];
    let mut file = std::fs::File::open(path)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(1024).read_to_end(&mut head)?;
    let place = head.windows(ELEMENT.len()).position(|bytes| bytes == ELEMENT).map(|at| at + ELEMENT.len());
    if let Some([low, high, value @ ..]) = place.and_then(|at| head.get_mut(at..)) {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(value.len());
        let is_uid = |byte: &u8| byte.is_ascii_digit() || [b'.', b' ', 0].contains(byte);
        if !value[..length].iter().all(is_uid) {
            value[..length].fill(b'1');
        }
    }
    Ok(Cursor::new(head).chain(file))
}

fn text(object: &DefaultDicomObject, tag: Tag) -> Option<String> {
    let value = object.element_opt(tag).ok().flatten()?.to_str().ok()?;
    let value = value.trim_matches(['\0', ' ']);
    (!value.is_empty()).then(|| value.to_owned())
}

fn numbers<const N: usize>(object: &DefaultDicomObject, tag: Tag, name: &str) -> Result<[f64; N], String> {
    let element = object.element_opt(tag).ok().flatten().ok_or_else(|| format!("has no {name}"))?;
    let values = element.to_multi_float64().map_err(|error| format!("{name}: {error}"))?;
    let values: Result<[f64; N], _> = values.try_into();
    values
        .ok()
        .filter(|values| values.iter().all(|v| v.is_finite()))
        .ok_or_else(|| format!("{name} is not {N} numbers"))
}

/// Orders slices along the patient.
pub(super) fn along(a: &Card, b: &Card) -> std::cmp::Ordering {
    a.position.total_cmp(&b.position).then(a.number.total_cmp(&b.number)).then_with(|| a.instance.cmp(&b.instance))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use dicom_core::{DataElement, PrimitiveValue, VR};
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

    /// What a test file says of itself.
    #[derive(Debug, Clone)]
    pub(in crate::data) struct Said<'a> {
        pub(in crate::data) patient: &'a str,
        pub(in crate::data) study: &'a str,
        pub(in crate::data) series: &'a str,
        pub(in crate::data) instance: &'a str,
        pub(in crate::data) z: f64,
        pub(in crate::data) bright: bool,
    }

    /// Writes a CT image of 32 × 32 pixels in explicit little endian: grey, with a bright square if `bright`.
    pub(in crate::data) fn write(path: &Path, said: &Said<'_>) {
        let mut object = InMemDicomObject::new_empty();
        let mut put = |tag, vr, value: PrimitiveValue| drop(object.put(DataElement::new(tag, vr, value)));
        put(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.2".into());
        put(tags::SOP_INSTANCE_UID, VR::UI, said.instance.into());
        put(tags::MODALITY, VR::CS, "CT".into());
        put(
            tags::IMAGE_TYPE,
            VR::CS,
            PrimitiveValue::Strs(["ORIGINAL", "PRIMARY", "AXIAL"].map(str::to_owned).into_iter().collect()),
        );
        put(tags::BODY_PART_EXAMINED, VR::CS, "HEAD".into());
        put(tags::PATIENT_ID, VR::LO, said.patient.into());
        put(tags::STUDY_INSTANCE_UID, VR::UI, said.study.into());
        put(tags::SERIES_INSTANCE_UID, VR::UI, said.series.into());
        put(tags::ACCESSION_NUMBER, VR::SH, format!("A{}", said.patient).into());
        put(tags::SLICE_THICKNESS, VR::DS, "5".into());
        put(tags::IMAGE_POSITION_PATIENT, VR::DS, format!("-112\\-112\\{}", said.z).into());
        put(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0".into());
        put(tags::SAMPLES_PER_PIXEL, VR::US, 1u16.into());
        put(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".into());
        put(tags::ROWS, VR::US, 32u16.into());
        put(tags::COLUMNS, VR::US, 32u16.into());
        put(tags::PIXEL_SPACING, VR::DS, "7\\7".into());
        put(tags::BITS_ALLOCATED, VR::US, 16u16.into());
        put(tags::BITS_STORED, VR::US, 16u16.into());
        put(tags::HIGH_BIT, VR::US, 15u16.into());
        put(tags::PIXEL_REPRESENTATION, VR::US, 1u16.into());
        put(tags::WINDOW_CENTER, VR::DS, "36\\36".into());
        put(tags::WINDOW_WIDTH, VR::DS, "80\\80".into());
        put(tags::RESCALE_INTERCEPT, VR::DS, "-1024".into());
        put(tags::RESCALE_SLOPE, VR::DS, "1".into());
        let value = |at: usize| -> u16 {
            let (x, y) = (at % 32, at / 32);
            let inside = said.bright && (10..20).contains(&x) && (12..22).contains(&y);
            if inside { 1094 } else { 1054 + ((at * 7 + said.z.abs() as usize) % 9) as u16 }
        };
        let pixels: Vec<u16> = (0..32 * 32).map(value).collect();
        put(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into()));
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax("1.2.840.10008.1.2.1")
            .media_storage_sop_class_uid("1.2.840.10008.5.1.4.1.1.2")
            .media_storage_sop_instance_uid(said.instance);
        object.with_meta(meta).unwrap().write_to_file(path).unwrap();
    }

    #[test]
    fn headers_are_read_once() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("a.dcm");
        let said = Said { patient: "ID_p", study: "ID_s", series: "ID_r", instance: "ID_i", z: -30.0, bright: false };
        write(&path, &said);
        std::fs::write(folder.path().join("b.dcm"), "no image").unwrap();
        let files = vec![path.clone(), folder.path().join("b.dcm")];
        let first = cards("x", files.clone(), cache.path(), &mut ()).unwrap();
        let card = first[0].card.clone().unwrap();
        assert_eq!((card.patient.as_str(), card.series.as_str(), card.position), ("ID_p", "ID_r", -30.0));
        assert!(first[1].card.is_err());
        let list = std::fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(&list).unwrap().replace("ID_p", "ID_q");
        std::fs::write(&list, text).unwrap();
        let again = cards("x", files.clone(), cache.path(), &mut ()).unwrap();
        assert_eq!(again[0].card.as_ref().unwrap().patient, "ID_q", "the list was used");
        write(&path, &Said { patient: "ID_longer", ..said });
        let changed = cards("x", files, cache.path(), &mut ()).unwrap();
        assert_eq!(changed[0].card.as_ref().unwrap().patient, "ID_longer", "a changed file is read again");
    }
}
