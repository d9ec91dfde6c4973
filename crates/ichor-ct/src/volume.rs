//! Slices in Hounsfield units, in their order along the patient, one at a time.

use std::io::Read;
use std::path::Path;

use dicom_dictionary_std::tags;
use dicom_object::file::ReadPreamble;
use dicom_object::{DefaultDicomObject, OpenFileOptions, open_file};
use dicom_pixeldata::PixelDecoder;
use ichor_core::{ImagePlane, Reason, Uid, chain};

use crate::attribute::{count, number, numbers, text};
use crate::codestream::{self, Coding, Expected};
use crate::error::CtError;
use crate::header::InstanceHeader;
use crate::jpeg12;

/// What padding becomes: outside of everything, below air.
pub const PADDING_HU: i16 = -1024;

/// Largest matrix that is decoded.
const LARGEST_SIDE: u32 = 4096;

/// Positions closer than this are the same, in mm.
const SAME_POSITION_MM: f64 = 1e-3;

/// A slice in its place, not yet decoded.
#[derive(Clone, Debug)]
pub struct PlacedSlice {
    /// The instance.
    pub header: InstanceHeader,
    /// Its plane.
    pub plane: ImagePlane,
    /// Distance along the normal from the first slice, in mm.
    pub offset_mm: f64,
    /// Extent along the normal that the slice stands for, in mm.
    pub slab_mm: f64,
}

/// The slices of a series in order along their normal.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    /// In order, foot to head for axial head-first images.
    pub slices: Vec<PlacedSlice>,
    /// Instances that are not in it, each with its reason.
    pub left_out: Vec<(Uid, Reason)>,
}

/// A decoded slice.
#[derive(Clone, Debug)]
pub struct Slice {
    /// `rows × columns` values, row by row; padding is [`PADDING_HU`].
    pub hu: Vec<i16>,
    /// The plane.
    pub plane: ImagePlane,
    /// Window Center and Width, first values.
    pub window: Option<(f32, f32)>,
}

impl Stack {
    /// Orders instances along their normal. Of several at one position the one with the lowest Instance Number (then
    /// SOP Instance UID) stays; the others are left out with a reason.
    ///
    /// The headers must be parallel planes, as [`crate::series::choose_series`] gives them.
    #[must_use]
    pub fn new(headers: Vec<InstanceHeader>) -> Self {
        let mut stack = Self::default();
        let mut planes: Vec<(InstanceHeader, ImagePlane)> = Vec::with_capacity(headers.len());
        for header in headers {
            match header.plane.clone() {
                Ok(plane) => planes.push((header, plane)),
                Err(reason) => stack.left_out.push((header.sop_instance, reason)),
            }
        }
        let Some((_, reference)) = planes.first().cloned() else { return stack };
        let along = |plane: &ImagePlane| reference.normal().iter().zip(plane.position).map(|(n, p)| n * p).sum::<f64>();
        let mut placed: Vec<PlacedSlice> = planes
            .into_iter()
            .map(|(header, plane)| PlacedSlice { header, plane, offset_mm: along(&plane), slab_mm: 0.0 })
            .collect();
        // By position alone: "the same position" is not transitive, so it has no place in an order.
        placed.sort_by(|a, b| a.offset_mm.total_cmp(&b.offset_mm));
        let start = placed.first().map_or(0.0, |slice| slice.offset_mm);
        let number = |slice: &PlacedSlice| slice.header.instance_number.unwrap_or(f64::INFINITY);
        let mut pending = placed.into_iter().peekable();
        while let Some(first) = pending.next() {
            let end = first.offset_mm + SAME_POSITION_MM;
            let mut here = vec![first];
            while let Some(other) = pending.next_if(|slice| slice.offset_mm < end) {
                here.push(other);
            }
            here.sort_by(|a, b| {
                number(a).total_cmp(&number(b)).then_with(|| a.header.sop_instance.cmp(&b.header.sop_instance))
            });
            let mut here = here.into_iter();
            let Some(mut kept) = here.next() else { break };
            kept.offset_mm -= start;
            for other in here {
                let frame = other.header.frame.map_or_else(String::new, |frame| format!("frame {frame} "));
                let text = format!("{frame}lies at the position of {}", kept.header.label());
                stack.left_out.push((other.header.sop_instance, Reason::new("duplicate-position", text)));
            }
            stack.slices.push(kept);
        }
        stack.fill_slabs();
        stack
    }

    /// Each slice stands for half of the distance to either neighbour; a gap of more than twice the median distance
    /// is not filled but counted as the median, and the outer halves of the first and last slice are half of their
    /// thickness, or of the neighbour's distance where the thickness is not known.
    fn fill_slabs(&mut self) {
        let mut distances: Vec<f64> =
            self.slices.windows(2).map(|pair| pair[1].offset_mm - pair[0].offset_mm).collect();
        let ordered = distances.clone();
        distances.sort_by(f64::total_cmp);
        let median = distances.get(distances.len() / 2).copied();
        let count = self.slices.len();
        for (index, slice) in self.slices.iter_mut().enumerate() {
            let thickness = slice.header.slice_thickness.or(median).unwrap_or(1.0);
            let half = |neighbour: Option<f64>| {
                let distance = match (neighbour, median) {
                    (Some(distance), Some(median)) if distance > 2.0 * median => median,
                    (Some(distance), _) => distance,
                    (None, _) => thickness,
                };
                distance / 2.0
            };
            let below = index.checked_sub(1).map(|before| ordered[before]);
            let above = (index + 1 < count).then(|| ordered[index]);
            slice.slab_mm = half(below) + half(above);
        }
    }
}

/// Decodes one single-frame CT image into Hounsfield units.
///
/// # Errors
/// [`CtError`] names what is wrong with the image; the rest of a series is not affected.
pub fn read_slice(path: &Path) -> Result<Slice, CtError> {
    let object = open_file(path).map_err(|error| CtError::Parse(error.to_string()))?;
    read_object(&object)
}

/// Decodes one single-frame CT image from the bytes of a Part 10 file.
///
/// # Errors
/// As [`read_slice`].
pub fn read_slice_from(file: impl Read) -> Result<Slice, CtError> {
    let options = OpenFileOptions::new().read_preamble(ReadPreamble::Always);
    let object = options.from_reader(file).map_err(|error| CtError::Parse(error.to_string()))?;
    read_object(&object)
}

pub(crate) fn read_object(object: &DefaultDicomObject) -> Result<Slice, CtError> {
    let (rows, columns) = sides(object)?;
    let (slope, intercept) = rescale(object)?;
    let stored = Stored::decode(object, rows, columns)?;
    let padding = Padding::read(object, &stored);
    let to_hu = |value: i32| {
        if padding.is_some_and(|padding| padding.covers(value)) {
            return PADDING_HU;
        }
        (f64::from(value) * slope + intercept).round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
    };
    let hu = stored.values.into_iter().map(to_hu).collect();
    let header_plane = crate::header::plane(object)?;
    Ok(Slice { hu, plane: header_plane, window: window(object) })
}

/// Rows and columns.
fn sides(object: &DefaultDicomObject) -> Result<(u32, u32), CtError> {
    let (rows, columns) = (count(object, tags::ROWS, "Rows")?, count(object, tags::COLUMNS, "Columns")?);
    if rows == 0 || columns == 0 || rows > LARGEST_SIDE || columns > LARGEST_SIDE {
        let problem = format!("are {rows} and {columns}, each must be 1 to {LARGEST_SIDE}");
        return Err(CtError::Attribute { name: "Rows and Columns", problem });
    }
    Ok((rows, columns))
}

/// Rescale Slope and Intercept. Both are Type 1 in CT images (PS3.3 C.8.2.1): nothing says what a file without them
/// holds.
pub(crate) fn rescale(object: &DefaultDicomObject) -> Result<(f64, f64), CtError> {
    if object.element_opt(tags::MODALITY_LUT_SEQUENCE).ok().flatten().is_some() {
        return Err(CtError::ModalityLut);
    }
    let first = |tag, name| {
        let values = numbers(object, tag, name)?;
        values.and_then(|values| values.first().copied()).ok_or(CtError::Missing(name))
    };
    if let Some(unit) = text(object, tags::RESCALE_TYPE).filter(|unit| !is_hounsfield(unit)) {
        return Err(CtError::RescaleType(unit));
    }
    let slope = first(tags::RESCALE_SLOPE, "Rescale Slope")?;
    let intercept = first(tags::RESCALE_INTERCEPT, "Rescale Intercept")?;
    if !slope.is_finite() || slope == 0.0 || !intercept.is_finite() {
        let problem = format!("{slope} with intercept {intercept} does not give Hounsfield units");
        return Err(CtError::Attribute { name: "Rescale Slope", problem });
    }
    Ok((slope, intercept))
}

/// Whether a Rescale Type (PS3.3 C.11.1.1.2) is that of Hounsfield units; scanners also write US, "unspecified".
fn is_hounsfield(unit: &str) -> bool {
    ["HU", "US"].iter().any(|known| unit.trim().eq_ignore_ascii_case(known))
}

/// Window Center and Width, first values, if they make a window.
fn window(object: &DefaultDicomObject) -> Option<(f32, f32)> {
    let (centre, width) = (number(object, tags::WINDOW_CENTER)?, number(object, tags::WINDOW_WIDTH)?);
    (width >= 1.0).then_some((centre as f32, width as f32))
}

/// Stored values, signed ones with their sign.
struct Stored {
    values: Vec<i32>,
    is_signed: bool,
    /// Bits of a cell that were read as the value, the sign included.
    bits: u32,
}

impl Stored {
    fn decode(object: &DefaultDicomObject, rows: u32, columns: u32) -> Result<Self, CtError> {
        let allocated = count(object, tags::BITS_ALLOCATED, "Bits Allocated")?;
        let bits = count(object, tags::BITS_STORED, "Bits Stored").unwrap_or(allocated);
        let is_signed = count(object, tags::PIXEL_REPRESENTATION, "Pixel Representation")? == 1;
        check_cells(object, allocated, bits)?;
        let cells = cells(object, rows, columns, allocated)?;
        // Old images keep an overlay in the unused high bits, and decoders as well as some writers leave those of
        // negative values at zero. Otherwise the whole cell is the value, because padding outside of Bits Stored
        // occurs (-3024 in 12 bits).
        let is_narrow = is_signed && cells.iter().all(|cell| cell >> bits == 0);
        let bits = if is_narrow || has_embedded_overlay(object) { bits } else { allocated };
        let mask = (1u32 << bits) - 1;
        let value = |cell: u32| if is_signed { extended(cell & mask, bits) } else { (cell & mask) as i32 };
        Ok(Self { values: cells.into_iter().map(value).collect(), is_signed, bits })
    }
}

fn check_cells(object: &DefaultDicomObject, allocated: u32, bits: u32) -> Result<(), CtError> {
    if count(object, tags::SAMPLES_PER_PIXEL, "Samples per Pixel").is_ok_and(|samples| samples != 1) {
        return Err(CtError::Attribute { name: "Samples per Pixel", problem: "is not 1".to_owned() });
    }
    if ![8, 16].contains(&allocated) || bits == 0 || bits > allocated {
        let problem = format!("is {allocated} with {bits} bits stored, 8 or 16 are supported");
        return Err(CtError::Attribute { name: "Bits Allocated", problem });
    }
    Ok(())
}

/// The cells of an image as they are stored, decoded.
fn cells(object: &DefaultDicomObject, rows: u32, columns: u32, allocated: u32) -> Result<Vec<u32>, CtError> {
    let wanted = rows as usize * columns as usize * (allocated as usize / 8);
    let expected = Expected { rows, columns, allocated };
    match check_length(object, wanted, expected)? {
        Coding::LossyJpeg12(stream) => {
            let samples = jpeg12::decode(&stream, rows, columns).map_err(CtError::Decode)?;
            Ok(samples.into_iter().map(u32::from).collect())
        }
        Coding::Usual => {
            let decoded = object.decode_pixel_data_frame(0).map_err(|error| CtError::Decode(chain(&error)))?;
            let bytes = decoded.data();
            if bytes.len() < wanted {
                return Err(CtError::ShortPixelData { found: bytes.len(), wanted, rows, columns });
            }
            let bytes = &bytes[..wanted];
            Ok(match allocated {
                8 => bytes.iter().map(|byte| u32::from(*byte)).collect(),
                _ => bytes.chunks_exact(2).map(|b| u32::from(u16::from_ne_bytes([b[0], b[1]]))).collect(),
            })
        }
    }
}

/// Cells of an image as they are stored, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// One or two bytes a cell, little endian, row by row.
    pub bytes: Vec<u8>,
}

/// Decodes one single-frame image of one sample a pixel from the bytes of a Part 10 file, its values as they are stored.
///
/// # Errors
/// As [`read_slice`].
pub fn read_cells_from(file: impl Read) -> Result<Cells, CtError> {
    let options = OpenFileOptions::new().read_preamble(ReadPreamble::Always);
    let object = options.from_reader(file).map_err(|error| CtError::Parse(error.to_string()))?;
    let (rows, columns) = sides(&object)?;
    let allocated = count(&object, tags::BITS_ALLOCATED, "Bits Allocated")?;
    check_cells(&object, allocated, count(&object, tags::BITS_STORED, "Bits Stored").unwrap_or(allocated))?;
    let cells = cells(&object, rows, columns, allocated)?;
    let width = allocated as usize / 8;
    let bytes = cells.into_iter().flat_map(|cell| cell.to_le_bytes().into_iter().take(width)).collect();
    Ok(Cells { rows, columns, bytes })
}

/// The two's complement number in the lowest `bits` bits of a cell that has no others set; at most 16.
fn extended(cell: u32, bits: u32) -> i32 {
    if cell >> (bits - 1) & 1 == 1 { cell as i32 - (1i32 << bits) } else { cell as i32 }
}

/// Native pixel data must hold as many bytes as its matrix says; compressed ones must say the same matrix.
fn check_length(object: &DefaultDicomObject, wanted: usize, expected: Expected) -> Result<Coding, CtError> {
    let element = object.element_opt(tags::PIXEL_DATA).ok().flatten().ok_or(CtError::Missing("Pixel Data"))?;
    if let Some(fragments) = element.fragments() {
        return codestream::check(object, fragments, expected);
    }
    if let Ok(bytes) = element.to_bytes()
        && bytes.len() < wanted
    {
        let Expected { rows, columns, .. } = expected;
        return Err(CtError::ShortPixelData { found: bytes.len(), wanted, rows, columns });
    }
    Ok(Coding::Usual)
}

/// Overlay Bit Position without Overlay Data: the overlay lies in the pixel cells (PS3.5 8.1.2, retired).
fn has_embedded_overlay(object: &DefaultDicomObject) -> bool {
    let in_cells = number(object, dicom_core::Tag(0x6000, 0x0102)).is_some_and(|position| position > 0.0);
    in_cells && object.element_opt(dicom_core::Tag(0x6000, 0x3000)).ok().flatten().is_none()
}

/// Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2), on stored values.
#[derive(Clone, Copy, Debug)]
struct Padding {
    low: i32,
    high: i32,
}

impl Padding {
    fn read(object: &DefaultDicomObject, stored: &Stored) -> Option<Self> {
        // The VR (US or SS) may not agree with Pixel Representation: the bits count. A value that fits into those of
        // the pixels has its sign where they have it.
        let value = |tag| {
            let raw = number(object, tag)? as i64;
            let cell = u32::from(raw as u16);
            if !stored.is_signed {
                return Some(cell as i32);
            }
            Some(extended(cell, if cell >> stored.bits == 0 { stored.bits } else { 16 }))
        };
        let first = value(tags::PIXEL_PADDING_VALUE)?;
        let limit = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(first);
        Some(Self { low: first.min(limit), high: first.max(limit) })
    }

    fn covers(&self, value: i32) -> bool {
        (self.low..=self.high).contains(&value)
    }
}
