//! One picture in every form of stored values and every transfer syntax that CT comes in, written by DCMTK, GDCM and
//! OpenJPH, decoded in the children: lossless ones to the same Hounsfield units, lossy ones within their bound.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use ichor_ct::volume::PADDING_HU;
use support::{converted, decoder, encapsulated_like, plain, read};
use tempfile::TempDir;

const ROWS: u16 = 80;
const COLUMNS: u16 = 96;

/// How Hounsfield units are stored.
struct Form {
    name: &'static str,
    bits: u16,
    is_signed: bool,
    slope: f64,
    intercept: f64,
    /// Pixel Padding Value and Range Limit, as stored.
    padding: Option<[i32; 2]>,
    /// Cells of negative values have zeroes above Bits Stored.
    is_zeroed: bool,
}

const FORMS: [Form; 7] = [
    Form {
        name: "unsigned 12",
        bits: 12,
        is_signed: false,
        slope: 1.0,
        intercept: -1024.0,
        padding: None,
        is_zeroed: false,
    },
    Form { name: "signed 12", bits: 12, is_signed: true, slope: 1.0, intercept: 0.0, padding: None, is_zeroed: false },
    Form {
        name: "signed 12, zeroed",
        bits: 12,
        is_signed: true,
        slope: 1.0,
        intercept: 0.0,
        padding: None,
        is_zeroed: true,
    },
    Form {
        name: "signed 16, padded",
        bits: 16,
        is_signed: true,
        slope: 1.0,
        intercept: -1024.0,
        padding: Some([-2000, -2000]),
        is_zeroed: false,
    },
    Form {
        name: "unsigned 16, fine",
        bits: 16,
        is_signed: false,
        slope: 0.0625,
        intercept: -1024.0,
        padding: None,
        is_zeroed: false,
    },
    Form {
        name: "signed 16, half steps",
        bits: 16,
        is_signed: true,
        slope: 0.5,
        intercept: -8192.0,
        padding: Some([-32768, -32000]),
        is_zeroed: false,
    },
    Form {
        name: "unsigned 16, padding range",
        bits: 16,
        is_signed: false,
        slope: 1.0,
        intercept: -8192.0,
        padding: Some([65_535, 65_000]),
        is_zeroed: false,
    },
];

/// A head of sorts in Hounsfield units; `None` is padding.
fn picture(form: &Form) -> Vec<Option<i16>> {
    (0..usize::from(ROWS) * usize::from(COLUMNS))
        .map(|at| {
            let (row, column) = ((at / usize::from(COLUMNS)) as f64 - 39.5, (at % usize::from(COLUMNS)) as f64 - 47.5);
            let (radius, grain) = (row.hypot(column), ((at * 7919) % 13) as i16 - 6);
            match radius {
                r if r > 45.0 && form.padding.is_some() => None,
                r if r > 36.0 => Some(-1000 + grain),
                r if r > 30.0 => Some(1200 + 20 * grain),
                r if r > 28.0 => Some(2047),
                _ => Some(35 + grain + (row / 4.0) as i16),
            }
        })
        .collect()
}

fn stored(form: &Form, hu: Option<i16>) -> i32 {
    hu.map_or_else(|| form.padding.unwrap()[0], |hu| ((f64::from(hu) - form.intercept) / form.slope).round() as i32)
}

/// Writes the picture, uncompressed, and gives its Hounsfield units.
fn write(folder: &Path, form: &Form) -> (PathBuf, Vec<i16>) {
    let mut object = open_file(plain(folder, 64)).unwrap();
    let mut short = |tag, value: i32| {
        let value = PrimitiveValue::from(value as u16);
        object.put(DataElement::new(tag, VR::US, value));
    };
    short(tags::ROWS, i32::from(ROWS));
    short(tags::COLUMNS, i32::from(COLUMNS));
    short(tags::BITS_STORED, i32::from(form.bits));
    short(tags::HIGH_BIT, i32::from(form.bits) - 1);
    short(tags::PIXEL_REPRESENTATION, i32::from(form.is_signed));
    // They lie: nobody is to believe them.
    short(tags::SMALLEST_IMAGE_PIXEL_VALUE, 1040);
    short(tags::LARGEST_IMAGE_PIXEL_VALUE, 1041);
    object.remove_element(tags::PIXEL_PADDING_VALUE);
    if let Some([value, limit]) = form.padding {
        for (tag, value) in [(tags::PIXEL_PADDING_VALUE, value), (tags::PIXEL_PADDING_RANGE_LIMIT, limit)] {
            let element = match form.is_signed {
                true => DataElement::new(tag, VR::SS, PrimitiveValue::from(value as i16)),
                false => DataElement::new(tag, VR::US, PrimitiveValue::from(value as u16)),
            };
            object.put(element);
        }
    }
    object.put(DataElement::new(tags::RESCALE_SLOPE, VR::DS, form.slope.to_string()));
    object.put(DataElement::new(tags::RESCALE_INTERCEPT, VR::DS, form.intercept.to_string()));
    let picture = picture(form);
    let mask = if form.is_zeroed { (1u32 << form.bits) - 1 } else { 0xFFFF };
    let cells: Vec<u16> = picture.iter().map(|hu| (stored(form, *hu) as u32 & mask) as u16).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(cells.into())));
    let path = folder.join("original.dcm");
    object.write_to_file(&path).unwrap();
    (path, picture.into_iter().map(|hu| hu.unwrap_or(PADDING_HU)).collect())
}

/// Transfer syntax, converter and its options.
type Case = (&'static str, &'static str, &'static [&'static str]);

const LOSSLESS: [Case; 24] = [
    ("1.2.840.10008.1.2", "dcmconv", &["+ti"]),
    ("1.2.840.10008.1.2.2", "dcmconv", &["+tb"]),
    ("1.2.840.10008.1.2.1.99", "dcmconv", &["+td"]),
    ("1.2.840.10008.1.2.4.70", "dcmcjpeg", &["+e1"]),
    ("1.2.840.10008.1.2.4.70", "dcmcjpeg", &["+e1", "+fs", "1"]),
    ("1.2.840.10008.1.2.4.70", "dcmcjpeg", &["+e1", "-ot"]),
    ("1.2.840.10008.1.2.4.57", "dcmcjpeg", &["+el", "+sv", "1"]),
    ("1.2.840.10008.1.2.4.57", "dcmcjpeg", &["+el", "+sv", "2"]),
    ("1.2.840.10008.1.2.4.57", "dcmcjpeg", &["+el", "+sv", "3"]),
    ("1.2.840.10008.1.2.4.57", "dcmcjpeg", &["+el", "+sv", "4"]),
    ("1.2.840.10008.1.2.4.57", "dcmcjpeg", &["+el", "+sv", "5"]),
    ("1.2.840.10008.1.2.4.57", "dcmcjpeg", &["+el", "+sv", "6"]),
    ("1.2.840.10008.1.2.4.57", "dcmcjpeg", &["+el", "+sv", "7"]),
    ("1.2.840.10008.1.2.4.80", "dcmcjpls", &["+el"]),
    ("1.2.840.10008.1.2.4.80", "dcmcjpls", &["+el", "+fs", "1"]),
    ("1.2.840.10008.1.2.5", "dcmcrle", &[]),
    ("1.2.840.10008.1.2.4.70", "gdcmconv", &["--jpeg"]),
    ("1.2.840.10008.1.2.4.80", "gdcmconv", &["--jpegls"]),
    ("1.2.840.10008.1.2.4.90", "gdcmconv", &["--j2k"]),
    ("1.2.840.10008.1.2.5", "gdcmconv", &["--rle"]),
    ("1.2.840.10008.1.2", "gdcmconv", &["--raw", "--implicit"]),
    ("1.2.840.10008.1.2.4.201", "ojph_compress", &["-reversible", "true"]),
    ("1.2.840.10008.1.2.4.202", "ojph_compress", &["-reversible", "true", "-prog_order", "RPCL", "-num_decomps", "3"]),
    ("1.2.840.10008.1.2.4.203", "ojph_compress", &["-reversible", "true"]),
];

/// Converts, with OpenJPH by way of a raw picture; `None`, said aloud, where the tool is missing.
fn convert(form: &Form, original: &Path, (uid, tool, arguments): Case) -> Option<PathBuf> {
    if tool != "ojph_compress" {
        let path = converted(original, tool, arguments)?;
        assert_eq!(open_file(&path).unwrap().meta().transfer_syntax(), uid, "{tool} {arguments:?}");
        return Some(path);
    }
    if form.is_signed {
        // It reads each raw picture as unsigned, whatever it is told, and writes values that are out of their range.
        // Signed values stand in `codecs.rs`, written by the library.
        return None;
    }
    if Command::new(tool).output().is_err() {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none_or(|v| v != "1"), "{tool} is missing");
        println!("SKIPPED {tool}");
        return None;
    }
    let (raw, stream) = (original.with_extension("raw"), original.with_extension("j2c"));
    let values = picture(form).into_iter().map(|hu| stored(form, hu));
    std::fs::write(&raw, values.flat_map(|value| (value as u16).to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let output = Command::new(tool)
        .args(["-i", raw.to_str().unwrap(), "-o", stream.to_str().unwrap()])
        .args(["-dims", &format!("{{{COLUMNS},{ROWS}}}"), "-num_comps", "1", "-downsamp", "{1,1}"])
        .args(["-bit_depth", &form.bits.to_string(), "-signed", &form.is_signed.to_string()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let path = original.with_extension(format!("{uid}.dcm"));
    encapsulated_like(original, &path, uid, &std::fs::read(&stream).unwrap());
    Some(path)
}

#[test]
fn lossless_syntaxes_give_the_same_hounsfield_units_in_every_form() {
    let decoder = decoder();
    let mut failed = Vec::new();
    for form in &FORMS {
        let folder = TempDir::new().unwrap();
        let (original, hu) = write(folder.path(), form);
        assert!(read(&decoder, &original).unwrap() == hu, "{}: uncompressed", form.name);
        for case in LOSSLESS {
            let Some(path) = convert(form, &original, case) else { continue };
            match read(&decoder, &path) {
                Ok(found) if found == hu => {}
                Ok(found) => {
                    let wrong = found.iter().zip(&hu).filter(|(a, b)| a != b).count();
                    let first = found.iter().zip(&hu).find(|(a, b)| a != b);
                    failed.push(format!("{} {case:?}: {wrong} values differ, such as {first:?}", form.name));
                }
                Err(reason) => failed.push(format!("{} {case:?}: {reason}", form.name)),
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Lossy: transfer syntax, converter and options, and who else decodes it. DCMTK cannot write signed ones.
const LOSSY: [(Case, (&str, &[&str])); 8] = [
    (("1.2.840.10008.1.2.4.81", "dcmcjpls", &["+en", "+md", "1"]), ("dcmdjpls", &[])),
    (("1.2.840.10008.1.2.4.81", "dcmcjpls", &["+en", "+md", "5"]), ("dcmdjpls", &[])),
    (("1.2.840.10008.1.2.4.91", "gdcmconv", &["--j2k", "--lossy", "-r", "10"]), ("gdcmconv", &["--raw"])),
    (("1.2.840.10008.1.2.4.50", "dcmcjpeg", &["+eb", "+q", "95", "+sr"]), ("dcmdjpeg", &[])),
    (("1.2.840.10008.1.2.4.51", "dcmcjpeg", &["+ee", "+be", "+q", "95", "+sr"]), ("dcmdjpeg", &[])),
    (("1.2.840.10008.1.2.4.51", "dcmcjpeg", &["+ee", "+bt", "+q", "100"]), ("dcmdjpeg", &[])),
    (("1.2.840.10008.1.2.4.51", "dcmcjpeg", &["+ee", "+bt", "+q", "80", "+fs", "1"]), ("dcmdjpeg", &[])),
    (("1.2.840.10008.1.2.4.203", "ojph_compress", &["-qstep", "0.0005"]), ("", &[])),
];

/// Largest difference of two pictures, in HU.
fn off_by(a: &[i16], b: &[i16]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max)
}

#[test]
fn lossy_syntaxes_stay_within_their_bound_and_decode_as_elsewhere() {
    let decoder = decoder();
    for form in FORMS.iter().filter(|form| form.padding.is_none() && !form.is_signed) {
        let folder = TempDir::new().unwrap();
        let (original, hu) = write(folder.path(), form);
        for (case, (other_tool, other_arguments)) in LOSSY {
            let Some(path) = convert(form, &original, case) else { continue };
            let found = read(&decoder, &path).unwrap_or_else(|reason| panic!("{} {case:?}: {reason}", form.name));
            println!("{} {case:?}: {} HU from the original", form.name, off_by(&found, &hu));
            // What the encoder promises, in stored values: Near of JPEG-LS, some steps of the quantizer of HTJ2K.
            let promised = match case {
                (_, "dcmcjpls", [_, _, near]) => near.parse().unwrap(),
                (_, "ojph_compress", _) => 0.0005 * f64::from(1u32 << form.bits) * 4.0,
                _ => f64::INFINITY,
            };
            assert!(off_by(&found, &hu) <= (promised * form.slope).ceil(), "{} {case:?}", form.name);
            if other_tool.is_empty() {
                continue;
            }
            let Some(elsewhere) = converted(&path, other_tool, other_arguments) else { continue };
            let elsewhere = read(&decoder, &elsewhere).unwrap();
            // Decoders round differently: by one stored value. Those of 8 bits stand for several HU each.
            let step = open_file(&path).unwrap().element(tags::RESCALE_SLOPE).unwrap().to_float64().unwrap();
            assert!(
                off_by(&found, &elsewhere) <= step.ceil(),
                "{} {case:?}: {}",
                form.name,
                off_by(&found, &elsewhere)
            );
        }
    }
}
