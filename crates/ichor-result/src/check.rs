//! The check that every result passes before it leaves: the modules' mandatory attributes, counts, lengths and
//! references, read back from the very bytes that will be sent.

use std::collections::HashSet;
use std::io::{BufReader, Read, Seek};

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{InMemDicomObject, OpenFileOptions};
use ichor_core::Uid;
use thiserror::Error;

use crate::bits;
use crate::form::{SegmentationForm, SegmentationType};
use crate::walk::{FrameShape, FrameWalk};

/// What is wrong with an object; it must not leave.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the object is not valid: {}", problems.join("; "))]
pub struct CheckFailed {
    /// Every problem found, at least one.
    pub problems: Vec<String>,
}

/// Type 1 attributes of the Segmentation IOD that must have a value (PS3.3 A.51.3).
const TYPE_1: &[(Tag, &str)] = &[
    (tags::SOP_CLASS_UID, "SOP class UID"),
    (tags::SOP_INSTANCE_UID, "SOP instance UID"),
    (tags::STUDY_INSTANCE_UID, "study instance UID"),
    (tags::SERIES_INSTANCE_UID, "series instance UID"),
    (tags::MODALITY, "modality"),
    (tags::SERIES_NUMBER, "series number"),
    (tags::FRAME_OF_REFERENCE_UID, "frame of reference UID"),
    (tags::MANUFACTURER, "manufacturer"),
    (tags::MANUFACTURER_MODEL_NAME, "manufacturer's model name"),
    (tags::DEVICE_SERIAL_NUMBER, "device serial number"),
    (tags::SOFTWARE_VERSIONS, "software versions"),
    (tags::IMAGE_TYPE, "image type"),
    (tags::INSTANCE_NUMBER, "instance number"),
    (tags::CONTENT_LABEL, "content label"),
    (tags::CONTENT_DATE, "content date"),
    (tags::CONTENT_TIME, "content time"),
    (tags::SAMPLES_PER_PIXEL, "samples per pixel"),
    (tags::PHOTOMETRIC_INTERPRETATION, "photometric interpretation"),
    (tags::NUMBER_OF_FRAMES, "number of frames"),
    (tags::ROWS, "rows"),
    (tags::COLUMNS, "columns"),
    (tags::BITS_ALLOCATED, "bits allocated"),
    (tags::BITS_STORED, "bits stored"),
    (tags::HIGH_BIT, "high bit"),
    (tags::PIXEL_REPRESENTATION, "pixel representation"),
    (tags::LOSSY_IMAGE_COMPRESSION, "lossy image compression"),
    (tags::SEGMENTATION_TYPE, "segmentation type"),
    (tags::SEGMENT_SEQUENCE, "segment sequence"),
    (tags::DIMENSION_ORGANIZATION_SEQUENCE, "dimension organization sequence"),
    (tags::DIMENSION_INDEX_SEQUENCE, "dimension index sequence"),
    (tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, "shared functional groups sequence"),
    (tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, "per-frame functional groups sequence"),
    (tags::REFERENCED_SERIES_SEQUENCE, "referenced series sequence"),
];

/// Type 2 attributes: there, maybe empty.
const TYPE_2: &[(Tag, &str)] = &[
    (tags::PATIENT_NAME, "patient's name"),
    (tags::PATIENT_ID, "patient ID"),
    (tags::PATIENT_BIRTH_DATE, "patient's birth date"),
    (tags::PATIENT_SEX, "patient's sex"),
    (tags::STUDY_DATE, "study date"),
    (tags::STUDY_TIME, "study time"),
    (tags::ACCESSION_NUMBER, "accession number"),
    (tags::REFERRING_PHYSICIAN_NAME, "referring physician's name"),
    (tags::STUDY_ID, "study ID"),
    (tags::POSITION_REFERENCE_INDICATOR, "position reference indicator"),
    (tags::CONTENT_DESCRIPTION, "content description"),
    (tags::CONTENT_CREATOR_NAME, "content creator's name"),
];

/// Type 1 attributes of every segment (PS3.3 C.8.20.4).
const SEGMENT_TYPE_1: &[(Tag, &str)] = &[
    (tags::SEGMENT_LABEL, "label"),
    (tags::SEGMENT_ALGORITHM_TYPE, "algorithm type"),
    (tags::SEGMENT_ALGORITHM_NAME, "algorithm name"),
    (tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, "property category"),
    (tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, "property type"),
];

/// Values that are the same in every object made here.
const FIXED: &[(Tag, &str, &str)] = &[
    (tags::SPECIFIC_CHARACTER_SET, "specific character set", "ISO_IR 192"),
    (tags::MODALITY, "modality", "SEG"),
    (tags::PHOTOMETRIC_INTERPRETATION, "photometric interpretation", "MONOCHROME2"),
    (tags::SAMPLES_PER_PIXEL, "samples per pixel", "1"),
    (tags::PIXEL_REPRESENTATION, "pixel representation", "0"),
    (tags::SEGMENTS_OVERLAP, "segments overlap", "NO"),
];

/// Values that the form fixes besides (PS3.3 C.8.20.2).
fn fixed_by(kind: SegmentationType) -> &'static [(Tag, &'static str, &'static str)] {
    match kind {
        SegmentationType::Binary => &[],
        SegmentationType::Fractional => &[
            (tags::SEGMENTATION_FRACTIONAL_TYPE, "segmentation fractional type", "PROBABILITY"),
            (tags::MAXIMUM_FRACTIONAL_VALUE, "maximum fractional value", "255"),
        ],
        SegmentationType::LabelMap => &[(tags::PIXEL_PADDING_VALUE, "pixel padding value", "0")],
    }
}

/// Checks a Part 10 file, from its start, as a segmentation of this form. Its frames are read one at a time.
///
/// # Errors
/// [`CheckFailed`] lists everything that is wrong.
pub fn check(mut file: impl Read + Seek + 'static, form: SegmentationForm) -> Result<(), CheckFailed> {
    let failed = |problem: String| CheckFailed { problems: vec![problem] };
    let until_pixels = OpenFileOptions::new().read_until(tags::PIXEL_DATA);
    let header = until_pixels.from_reader(BufReader::new(&mut file));
    let header = header.map_err(|e| failed(format!("cannot be read back: {e}")))?;
    file.rewind().map_err(|e| failed(format!("cannot be read back: {e}")))?;
    let mut findings = Findings { problems: Vec::new(), form };
    let meta = header.meta();
    let wanted = form.encoding().transfer_syntax();
    findings.expect(meta.transfer_syntax() == wanted, || {
        format!("transfer syntax is {}, not {wanted}", meta.transfer_syntax())
    });
    let object: &InMemDicomObject = &header;
    for (tag, name, file_meta) in [
        (tags::SOP_CLASS_UID, "class", meta.media_storage_sop_class_uid()),
        (tags::SOP_INSTANCE_UID, "instance", meta.media_storage_sop_instance_uid()),
    ] {
        findings.expect(value(object, tag).as_deref() == Some(file_meta), || {
            format!("media storage SOP {name} UID differs from the data set")
        });
    }
    findings.attributes(object);
    findings.segments(object);
    let shown = findings.frames(object);
    if let Err(problem) = findings.pixels(object, file, &shown) {
        findings.problems.push(problem);
    }
    if findings.problems.is_empty() { Ok(()) } else { Err(CheckFailed { problems: findings.problems }) }
}

/// A text or number as text, without padding; `None` where there is none.
pub(crate) fn value(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.to_str().ok()?;
    let text = text.trim_matches(['\0', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(object: &InMemDicomObject, tag: Tag) -> Option<usize> {
    value(object, tag)?.parse().ok()
}

/// A number of values of a decimal or other text element.
fn values(object: &InMemDicomObject, tag: Tag) -> Option<Vec<f64>> {
    object.get(tag)?.to_multi_float64().ok()
}

pub(crate) fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.get(tag).and_then(|e| e.items()).unwrap_or_default()
}

/// The first item of a sequence: of a code, or of a functional group.
fn item(object: &InMemDicomObject, tag: Tag) -> Option<&InMemDicomObject> {
    items(object, tag).first()
}

/// Problems as they are found.
struct Findings {
    problems: Vec<String>,
    form: SegmentationForm,
}

impl Findings {
    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    /// Attributes by type, fixed values, and UIDs.
    fn attributes(&mut self, object: &InMemDicomObject) {
        for (tag, name) in TYPE_1 {
            let filled = object.get(*tag).is_some_and(|e| match e.items() {
                Some(items) => !items.is_empty(),
                None => !e.to_bytes().is_ok_and(|b| b.is_empty()),
            });
            self.expect(filled, || format!("{name} is missing"));
        }
        for (tag, name) in TYPE_2 {
            self.expect(object.get(*tag).is_some(), || format!("{name} is absent"));
        }
        let kind = self.form.kind();
        let class_and_type = [
            (tags::SOP_CLASS_UID, "SOP class UID", kind.sop_class()),
            (tags::SEGMENTATION_TYPE, "segmentation type", kind.defined_term()),
        ];
        for (tag, name, fixed) in FIXED.iter().chain(fixed_by(kind)).chain(&class_and_type) {
            let found = value(object, *tag);
            self.expect(found.as_deref() == Some(*fixed), || format!("{name} is {found:?}, not {fixed}"));
        }
        for tag in
            [tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::FRAME_OF_REFERENCE_UID]
        {
            let uid = value(object, tag).unwrap_or_default();
            self.expect(Uid::parse(&uid).is_ok(), || format!("{uid:?} at {tag} is not a UID"));
        }
    }

    /// Number of the first segment: a label map describes its background too.
    fn first_segment(&self) -> usize {
        usize::from(self.form.kind() != SegmentationType::LabelMap)
    }

    /// Segments are numbered one after another and described.
    fn segments(&mut self, object: &InMemDicomObject) {
        let mut tracked = HashSet::new();
        for (i, segment) in items(object, tags::SEGMENT_SEQUENCE).iter().enumerate() {
            let n = i + self.first_segment();
            self.expect(number(segment, tags::SEGMENT_NUMBER) == Some(n), || format!("segment {n} is not number {n}"));
            for (tag, name) in SEGMENT_TYPE_1 {
                let filled = match item(segment, *tag) {
                    Some(code) => [tags::CODE_VALUE, tags::CODING_SCHEME_DESIGNATOR, tags::CODE_MEANING]
                        .iter()
                        .all(|t| value(code, *t).is_some()),
                    None => value(segment, *tag).is_some(),
                };
                self.expect(filled, || format!("segment {n} has no {name}"));
            }
            if n > 0 {
                let tracking = [tags::TRACKING_ID, tags::TRACKING_UID].map(|tag| value(segment, tag));
                let is_new = tracking.iter().all(Option::is_some) && tracked.insert(tracking[1].clone());
                self.expect(is_new, || format!("segment {n} is tracked as {tracking:?}"));
            }
        }
    }

    /// Bits allocated, stored and high agree with the form.
    fn bits(&mut self, object: &InMemDicomObject) -> Option<usize> {
        let bits = [tags::BITS_ALLOCATED, tags::BITS_STORED, tags::HIGH_BIT].map(|tag| number(object, tag));
        let allocated = bits[0].filter(|allocated| match self.form.kind() {
            SegmentationType::Binary => *allocated == 1,
            SegmentationType::Fractional => *allocated == 8,
            SegmentationType::LabelMap => matches!(allocated, 8 | 16),
        });
        let whole = allocated.filter(|a| bits == [Some(*a), Some(*a), a.checked_sub(1)]);
        self.expect(whole.is_some(), || format!("bits allocated, stored and high are {bits:?}"));
        whole
    }

    /// Pixels there are as many as frames × rows × columns, every frame has some that are set, unless empty ones are
    /// kept, and every segment has some. `shown` holds the segment of each frame.
    fn pixels(
        &mut self,
        object: &InMemDicomObject,
        file: impl Read + Seek + 'static,
        shown: &[Option<usize>],
    ) -> Result<(), String> {
        let size = [tags::NUMBER_OF_FRAMES, tags::ROWS, tags::COLUMNS].map(|tag| number(object, tag).unwrap_or(0));
        let [frames, rows, columns] = size;
        let shape = (rows.checked_mul(columns)).filter(|pixels| *pixels > 0 && frames > 0).zip(self.bits(object));
        let (pixels, bits) = shape.ok_or_else(|| format!("{frames} frames of {rows} rows x {columns} columns"))?;
        let mut walk = FrameWalk::open(file, FrameShape { pixels, bits })?;
        if let Some(found) = walk.native_length() {
            let expected = bits::packed_length(frames, pixels * bits).map_err(|e| e.to_string())?;
            if found as usize != expected {
                return Err(format!(
                    "pixel data of {found} bytes, {expected} expected for {frames} frames of {pixels} pixels"
                ));
            }
        }
        let segments = items(object, tags::SEGMENT_SEQUENCE).len() + self.first_segment() - 1;
        let (mut seen, mut empty) = (vec![false; segments], 0usize);
        for number in 1..=frames {
            let frame = walk.next_frame(number)?;
            empty += usize::from(frame.iter().all(|byte| *byte == 0));
            self.see(&frame, number, bits, shown.get(number - 1).copied().flatten(), &mut seen)?;
        }
        self.expect(empty == 0 || self.form.empty_frames(), || format!("{empty} frames without mask"));
        let unseen: Vec<usize> = (1..).zip(&seen).filter(|(_, seen)| !**seen).map(|(segment, _)| segment).collect();
        self.expect(unseen.is_empty(), || format!("segments {unseen:?} have no pixel"));
        walk.fault_at_end(frames).map_or(Ok(()), Err)
    }

    /// Notes which segments a frame shows.
    fn see(
        &self,
        frame: &[u8],
        number: usize,
        bits: usize,
        segment: Option<usize>,
        seen: &mut [bool],
    ) -> Result<(), String> {
        let mut see = |segment: usize| match segment.checked_sub(1).map(|at| seen.get_mut(at)) {
            None => Ok(()),
            Some(Some(seen)) => {
                *seen = true;
                Ok(())
            }
            Some(None) => Err(format!("frame {number} shows segment {segment}, which is not described")),
        };
        match (self.form.kind(), bits) {
            (SegmentationType::LabelMap, 16) => {
                frame.chunks_exact(2).try_for_each(|label| see(usize::from(u16::from_le_bytes([label[0], label[1]]))))
            }
            (SegmentationType::LabelMap, _) => frame.iter().try_for_each(|label| see(usize::from(*label))),
            _ if frame.iter().any(|value| *value != 0) => see(segment.unwrap_or(0)),
            _ => Ok(()),
        }
    }

    /// Functional groups: as many items as frames, a plane and a source for each, unique dimension indices. Returns the
    /// segment of each frame.
    fn frames(&mut self, object: &InMemDicomObject) -> Vec<Option<usize>> {
        let per_frame = items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let frames = number(object, tags::NUMBER_OF_FRAMES);
        self.expect(frames == Some(per_frame.len()), || {
            format!("number of frames is {frames:?}, functional groups describe {}", per_frame.len())
        });
        let Some(shared) = item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE) else { return Vec::new() };
        let series = items(object, tags::REFERENCED_SERIES_SEQUENCE);
        let references: HashSet<String> = series
            .iter()
            .flat_map(|s| items(s, tags::REFERENCED_INSTANCE_SEQUENCE))
            .filter_map(|i| value(i, tags::REFERENCED_SOP_INSTANCE_UID))
            .collect();
        self.expect(series.iter().all(|s| value(s, tags::SERIES_INSTANCE_UID).is_some()), || {
            "a referenced series has no series instance UID".to_owned()
        });
        let dimensions = items(object, tags::DIMENSION_INDEX_SEQUENCE).len();
        let segments = items(object, tags::SEGMENT_SEQUENCE).len();
        let (mut indices, mut shown) = (HashSet::new(), Vec::with_capacity(per_frame.len()));
        for (i, frame) in per_frame.iter().enumerate() {
            let groups = FrameGroups { number: i + 1, frame, shared };
            self.plane(&groups);
            self.lengths(&groups);
            self.source(&groups, &references);
            let segment = groups
                .item(tags::SEGMENT_IDENTIFICATION_SEQUENCE)
                .and_then(|g| number(g, tags::REFERENCED_SEGMENT_NUMBER));
            // A frame of a label map shows all segments.
            let is_right = match self.form.kind() {
                SegmentationType::LabelMap => segment.is_none(),
                _ => segment.is_some_and(|s| (1..=segments).contains(&s)),
            };
            self.expect(is_right, || format!("frame {} belongs to segment {segment:?} of {segments}", groups.number));
            shown.push(segment);
            let index: Vec<u32> = item(frame, tags::FRAME_CONTENT_SEQUENCE)
                .and_then(|g| g.get(tags::DIMENSION_INDEX_VALUES))
                .and_then(|e| e.to_multi_int().ok())
                .unwrap_or_default();
            self.expect(index.len() == dimensions && !index.contains(&0) && indices.insert(index.clone()), || {
                format!("frame {} has the dimension index {index:?}", groups.number)
            });
        }
        shown
    }

    /// Position, orientation and spacing of a frame.
    fn plane(&mut self, groups: &FrameGroups<'_>) {
        for (group, tag, count, name) in [
            (tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT, 3, "position"),
            (tags::PLANE_ORIENTATION_SEQUENCE, tags::IMAGE_ORIENTATION_PATIENT, 6, "orientation"),
            (tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING, 2, "pixel spacing"),
        ] {
            let found = groups.item(group).and_then(|g| values(g, tag)).unwrap_or_default();
            self.expect(found.len() == count && found.iter().all(|v| v.is_finite()), || {
                format!("frame {} has no valid {name}: {found:?}", groups.number)
            });
        }
    }

    /// Thickness and spacing of a frame, where given, are lengths.
    fn lengths(&mut self, groups: &FrameGroups<'_>) {
        let Some(measures) = groups.item(tags::PIXEL_MEASURES_SEQUENCE) else { return };
        for tag in [tags::PIXEL_SPACING, tags::SLICE_THICKNESS, tags::SPACING_BETWEEN_SLICES] {
            let Some(element) = measures.get(tag) else { continue };
            let lengths = element.to_multi_float64().unwrap_or_default();
            self.expect(!lengths.is_empty() && lengths.iter().all(|v| v.is_finite() && *v > 0.0), || {
                format!("frame {} has {lengths:?} mm at {tag}", groups.number)
            });
        }
    }

    /// The source image of a frame, which must be among the referenced instances, and of a multi-frame image the one
    /// frame of it (PS3.3 table 10-3).
    fn source(&mut self, groups: &FrameGroups<'_>, references: &HashSet<String>) {
        let image = groups.item(tags::DERIVATION_IMAGE_SEQUENCE).and_then(|d| item(d, tags::SOURCE_IMAGE_SEQUENCE));
        let source = image.and_then(|s| value(s, tags::REFERENCED_SOP_INSTANCE_UID));
        let class = image.and_then(|s| value(s, tags::REFERENCED_SOP_CLASS_UID)).unwrap_or_default();
        let frame = image.and_then(|s| value(s, tags::REFERENCED_FRAME_NUMBER));
        let is_multi_frame =
            [uids::ENHANCED_CT_IMAGE_STORAGE, uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE].contains(&&*class);
        let is_frame = frame.as_ref().is_some_and(|n| n.parse().is_ok_and(|n: u32| n > 0));
        self.expect(is_frame == is_multi_frame && frame.is_some() == is_multi_frame, || {
            format!("frame {} names frame {frame:?} of a source of SOP class {class}", groups.number)
        });
        self.expect(source.as_ref().is_some_and(|s| references.contains(s)), || {
            format!("frame {} has the source {source:?}, which is not a referenced instance", groups.number)
        });
    }
}

/// The functional groups that hold for one frame.
struct FrameGroups<'a> {
    number: usize,
    frame: &'a InMemDicomObject,
    shared: &'a InMemDicomObject,
}

impl<'a> FrameGroups<'a> {
    fn item(&self, group: Tag) -> Option<&'a InMemDicomObject> {
        item(self.frame, group).or_else(|| item(self.shared, group))
    }
}
