//! Pictures of frames (PS3.18 8.3.5): window, part and size as asked, PNG or JPEG.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use ichor_ct::frames::{PixelDescription, StoredPixels};
use ichor_dicomweb::server::{ArchiveFault, Held, PictureForm, Rendering, VoiFunction};
use ichor_picture::Raster;

use super::frames::Frames;

/// Draws a frame.
pub(super) fn draw(frames: &Frames, held: &Held, frame: u32, rendering: &Rendering) -> Result<Vec<u8>, ArchiveFault> {
    let pixels = frames.open(held)?;
    let described = pixels.description();
    if described.frame_bytes() > frames.most_bytes {
        return Err(frames.too_large(held));
    }
    let bytes = frames.native(held, &pixels, frame)?;
    let unsupported =
        |what: &str| ArchiveFault::Unsupported(format!("instance {} cannot be drawn: {what}", held.instance));
    let raster = match (described.photometric.as_str(), described.samples, described.allocated) {
        ("MONOCHROME1" | "MONOCHROME2", 1, 1 | 8 | 16) => grey(&pixels, &bytes, rendering),
        ("RGB", 3, 8) => Raster::rgb(described.columns, described.rows, interleaved(described, bytes)),
        (other, samples, allocated) => {
            return Err(unsupported(&format!("{other:.20} of {samples} samples of {allocated} bits")));
        }
    };
    let mut raster = raster.map_err(|error| unsupported(&error.to_string()))?;
    if let Some((left, top, width, height)) = rendering.region {
        raster = raster.part(left, top, width, height).map_err(|error| unsupported(&error.to_string()))?;
    }
    if let Some((width, height)) = rendering.viewport {
        raster = raster.fitted(width, height);
    }
    match rendering.form {
        PictureForm::Png => raster.png().map_err(|error| unsupported(&error.to_string())),
        PictureForm::Jpeg(quality) => jpeg(&raster, quality).map_err(|error| unsupported(&error)),
    }
}

fn jpeg(raster: &Raster, quality: u8) -> Result<Vec<u8>, String> {
    let side = |side: u32| u16::try_from(side).map_err(|_| "it is too large for a JPEG".to_owned());
    let (width, height) = (side(raster.width())?, side(raster.height())?);
    let color = if raster.is_rgb() { jpeg_encoder::ColorType::Rgb } else { jpeg_encoder::ColorType::Luma };
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
    encoder.encode(raster.samples(), width, height, color).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Colours pixel by pixel.
fn interleaved(described: &PixelDescription, bytes: Vec<u8>) -> Vec<u8> {
    if !described.is_planar {
        return bytes;
    }
    let plane = bytes.len() / 3;
    (0..plane).flat_map(|at| [bytes[at], bytes[plane + at], bytes[2 * plane + at]]).collect()
}

fn number(object: &DefaultDicomObject, tag: Tag) -> Option<f64> {
    let values = object.element_opt(tag).ok().flatten()?.to_multi_float64().ok()?;
    values.first().copied().filter(|value| value.is_finite())
}

fn grey(pixels: &StoredPixels, bytes: &[u8], rendering: &Rendering) -> Result<Raster, ichor_picture::PictureError> {
    let (described, header) = (pixels.description(), pixels.header());
    let slope = number(header, tags::RESCALE_SLOPE).filter(|slope| *slope != 0.0).unwrap_or(1.0);
    let intercept = number(header, tags::RESCALE_INTERCEPT).unwrap_or(0.0);
    let wanted = described.rows as usize * described.columns as usize;
    let values: Vec<f64> = stored(described, bytes, wanted).map(|value| value * slope + intercept).collect();
    let window = rendering.window.unwrap_or_else(|| usual_window(header, described, &values));
    let is_inverse = described.photometric == "MONOCHROME1";
    let greys = values.into_iter().map(|value| {
        let share = share(value, window);
        ((if is_inverse { 1.0 - share } else { share }) * 255.0).round() as u8
    });
    Raster::grey(described.columns, described.rows, greys.collect())
}

/// Stored values of a frame, row by row.
fn stored<'a>(described: &PixelDescription, bytes: &'a [u8], wanted: usize) -> Box<dyn Iterator<Item = f64> + 'a> {
    let (bits, is_signed) = (described.stored.clamp(1, 16), described.is_signed);
    let value = move |cell: u16| {
        let shift = 16 - bits;
        // What lies above the stored bits is no part of the value.
        if is_signed { f64::from(((cell << shift) as i16) >> shift) } else { f64::from(cell << shift >> shift) }
    };
    match described.allocated {
        1 => Box::new((0..wanted).map(|at| f64::from(bytes.get(at / 8).copied().unwrap_or(0) >> (at % 8) & 1))),
        8 => Box::new(bytes.iter().take(wanted).map(move |cell| value(u16::from(*cell)))),
        _ => Box::new(bytes.chunks_exact(2).take(wanted).map(move |c| value(u16::from_le_bytes([c[0], c[1]])))),
    }
}

type Window = (f64, f64, VoiFunction);

/// The window that an object names; of a Segmentation from nothing to all; else all values of the frame.
fn usual_window(header: &DefaultDicomObject, described: &PixelDescription, values: &[f64]) -> Window {
    let most = number(header, tags::MAXIMUM_FRACTIONAL_VALUE);
    if let Some(most) = most.or((described.allocated == 1).then_some(1.0)).filter(|most| *most > 0.0) {
        return (most / 2.0, most, VoiFunction::LinearExact);
    }
    let named = number(header, tags::WINDOW_CENTER).zip(number(header, tags::WINDOW_WIDTH));
    if let Some((center, width)) = named.filter(|(_, width)| *width >= 1.0) {
        let function = header.element_opt(tags::VOILUT_FUNCTION).ok().flatten();
        let function = function.and_then(|element| element.to_str().ok().map(|text| text.trim().to_owned()));
        let function = match function.as_deref() {
            Some("SIGMOID") => VoiFunction::Sigmoid,
            Some("LINEAR_EXACT") => VoiFunction::LinearExact,
            _ => VoiFunction::Linear,
        };
        return (center, width, function);
    }
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let width = (high - low).max(f64::MIN_POSITIVE);
    ((low + high) / 2.0, width, VoiFunction::LinearExact)
}

/// How bright a value is, from 0 to 1 (PS3.3 C.11.2.1.2, C.11.2.1.3).
fn share(value: f64, (center, width, function): Window) -> f64 {
    let share = match function {
        VoiFunction::Linear if width <= 1.0 => f64::from(u8::from(value > center - 0.5)),
        VoiFunction::Linear => (value - (center - 0.5)) / (width - 1.0) + 0.5,
        VoiFunction::LinearExact => (value - center) / width + 0.5,
        VoiFunction::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
    };
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_standard() {
        let linear = |value| share(value, (2048.0, 4096.0, VoiFunction::Linear));
        assert_eq!((linear(-1.0), linear(0.0), linear(4095.0), linear(5000.0)), (0.0, 0.0, 1.0, 1.0));
        let step = |value| share(value, (10.0, 1.0, VoiFunction::Linear));
        assert_eq!((step(9.0), step(10.0)), (0.0, 1.0));
        let exact = |value| share(value, (0.5, 1.0, VoiFunction::LinearExact));
        assert_eq!((exact(0.0), exact(0.25), exact(1.0)), (0.0, 0.25, 1.0));
        let sigmoid = |value| share(value, (40.0, 80.0, VoiFunction::Sigmoid));
        assert!((sigmoid(40.0) - 0.5).abs() < 1e-12 && sigmoid(-1e6) < 1e-6 && sigmoid(1e6) > 1.0 - 1e-6);
    }

    #[test]
    fn values_have_their_sign_and_their_bits() {
        let described = |allocated, stored, is_signed| PixelDescription {
            rows: 1,
            columns: 2,
            frames: 1,
            samples: 1,
            allocated,
            stored,
            is_signed,
            is_planar: false,
            photometric: "MONOCHROME2".to_owned(),
        };
        let of = |described: &PixelDescription, bytes: &[u8]| stored(described, bytes, 2).collect::<Vec<_>>();
        assert_eq!(of(&described(16, 12, true), &[0xFF, 0x0F, 0x01, 0xF0]), [-1.0, 1.0]);
        assert_eq!(of(&described(16, 16, false), &[0xFF, 0xFF, 0x01, 0x00]), [65535.0, 1.0]);
        assert_eq!(of(&described(8, 8, true), &[0xFF, 0x7F]), [-1.0, 127.0]);
        assert_eq!(of(&described(1, 1, false), &[0b10]), [0.0, 1.0]);
    }

    #[test]
    fn planes_become_pixels() {
        let described = PixelDescription {
            rows: 1,
            columns: 2,
            frames: 1,
            samples: 3,
            allocated: 8,
            stored: 8,
            is_signed: false,
            is_planar: true,
            photometric: "RGB".to_owned(),
        };
        assert_eq!(interleaved(&described, vec![1, 2, 3, 4, 5, 6]), [1, 3, 5, 2, 4, 6]);
    }
}
