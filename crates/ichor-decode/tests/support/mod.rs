//! Slices in every syntax, made from a phantom by the counterparts' tools, and decoders with children of their own.

#![expect(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use ichor_core::Reason;
use ichor_ct::header::InstanceHeader;
use ichor_ct::volume::PlacedSlice;
use ichor_decode::{DecodeError, Decoder, DecoderOptions};
use ichor_phantom::{PhantomOptions, write_study};
use tempfile::TempDir;

/// A codec: its name in reasons, and the converter with its options.
pub const CODECS: [(&str, &str, &[&str]); 7] = [
    ("JPEG lossless", "dcmcjpeg", &["+e1"]),
    ("JPEG lossless", "dcmcjpeg", &["+el"]),
    ("JPEG-LS", "dcmcjpls", &["+el"]),
    ("JPEG 2000", "gdcmconv", &["--j2k"]),
    ("RLE", "dcmcrle", &[]),
    ("JPEG baseline", "dcmcjpeg", &["+eb"]),
    ("deflate", "dcmconv", &["+td"]),
];

/// The real child.
pub const WORKER: &str = env!("CARGO_BIN_EXE_ichor-decode-test-worker");
const MISBEHAVING: &str = env!("CARGO_BIN_EXE_ichor-decode-test-misbehaving");

/// Options with the real child.
pub fn options() -> DecoderOptions {
    DecoderOptions { processes: 2, ..DecoderOptions::new(PathBuf::from(WORKER)) }
}

pub fn decoder() -> Decoder {
    Decoder::new(options()).unwrap()
}

/// Writes an uncompressed phantom slice.
pub fn plain(folder: &Path, side: u32) -> PathBuf {
    let options = PhantomOptions::default().with_matrix(side).with_slices(6);
    let study = write_study(3, &options, &folder.join(format!("plain-{side}"))).unwrap();
    study.files[3].clone()
}

/// Converts a file; `None`, said aloud, where the tool is missing.
pub fn converted(from: &Path, tool: &str, arguments: &[&str]) -> Option<PathBuf> {
    let to = from.with_extension(format!("{tool}{}.dcm", arguments.concat()));
    match Command::new(tool).args(arguments).arg(from).arg(&to).output() {
        Ok(output) if output.status.success() => Some(to),
        Ok(output) => panic!("{tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none_or(|v| v != "1"), "{tool}: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED {tool} {arguments:?}: {error}");
            None
        }
    }
}

/// A slice of `side` × `side` in every codec, with the codec's name.
pub fn compressed(folder: &Path, side: u32) -> Vec<(&'static str, PathBuf)> {
    let plain = plain(folder, side);
    CODECS.into_iter().filter_map(|(name, tool, options)| Some((name, converted(&plain, tool, options)?))).collect()
}

/// A copy of a file in a transfer syntax whose codestream is at hand.
pub fn encapsulated_like(original: &Path, to: &Path, transfer_syntax: &str, stream: &[u8]) {
    let mut object = open_file(original).unwrap();
    object.meta_mut().transfer_syntax = transfer_syntax.to_owned();
    let mut fragment = stream.to_vec();
    fragment.resize(stream.len().next_multiple_of(2), 0);
    let pixels = PixelFragmentSequence::new(Vec::<u32>::new(), vec![fragment]);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, pixels));
    object.write_to_file(to).unwrap();
}

/// A deflated slice, which needs no tool.
pub fn deflated(folder: &Path, side: u32) -> PathBuf {
    let from = plain(folder, side);
    let mut object = open_file(&from).unwrap();
    object.meta_mut().transfer_syntax = "1.2.840.10008.1.2.1.99".to_owned();
    let to = from.with_extension("deflated.dcm");
    object.write_to_file(&to).unwrap();
    to
}

/// A slice of 64 × 64 signed 16-bit values around a codestream.
pub fn encapsulated(folder: &Path, transfer_syntax: &str, stream: &[u8]) -> PathBuf {
    let from = plain(folder, 64);
    let mut object = open_file(&from).unwrap();
    object.meta_mut().transfer_syntax = transfer_syntax.to_owned();
    let pixels = PixelFragmentSequence::new_fragments(vec![stream.to_vec()]);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, pixels));
    let to = from.with_extension("encapsulated.dcm");
    object.write_to_file(&to).unwrap();
    to
}

/// A file in its place, by its own header.
pub fn placed(path: &Path) -> PlacedSlice {
    let header = InstanceHeader::read(path).unwrap();
    let plane = header.plane.clone().unwrap();
    PlacedSlice { header, plane, offset_mm: 0.0, slab_mm: 5.0 }
}

/// Reads a slice; the reason if it has one.
pub fn read(decoder: &Decoder, path: &Path) -> Result<Vec<i16>, Reason> {
    match decoder.read_slice(&placed(path)) {
        Ok(slice) => Ok(slice.hu),
        Err(DecodeError::Slice(reason)) => Err(reason),
        Err(DecodeError::Unavailable(error)) => panic!("{error}"),
    }
}

/// Writes a copy with other Rows and Columns.
pub fn with_matrix(from: &Path, rows: u16, columns: u16) -> PathBuf {
    let mut object = open_file(from).unwrap();
    for (tag, value) in [(tags::ROWS, rows), (tags::COLUMNS, columns)] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    let to = from.with_extension(format!("{rows}x{columns}.dcm"));
    object.write_to_file(&to).unwrap();
    to
}

/// Writes an uncompressed slice of noise, which takes a decoder long.
pub fn noise(folder: &Path, side: u16) -> PathBuf {
    let mut object = open_file(plain(folder, 64)).unwrap();
    for tag in [tags::ROWS, tags::COLUMNS] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(side)));
    }
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 21) as u16
    };
    let pixels: Vec<u16> = (0..u32::from(side) * u32::from(side)).map(|_| next()).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())));
    let to = folder.join(format!("noise-{side}.dcm"));
    object.write_to_file(&to).unwrap();
    to
}

/// Where the first occurrence of some bytes begins.
pub fn find(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).position(|window| window == pattern).expect("the pattern")
}

/// Start of the first fragment with bytes in it, behind the Pixel Data element of an encapsulated file.
pub fn codestream(bytes: &[u8]) -> std::ops::Range<usize> {
    let mut at = find(bytes, &[0xE0, 0x7F, 0x10, 0x00, b'O']) + 12;
    loop {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let is_table = at == find(bytes, &[0xE0, 0x7F, 0x10, 0x00, b'O']) + 12;
        at += 8;
        if length > 0 && !is_table {
            return at..at + length;
        }
        at += length;
    }
}

/// Resident memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    status_field(pid, "VmRSS:")
}

fn status_field(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)).map_or(0, |value| value.parse().unwrap())
}

/// The living children of a process.
pub fn children_of(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, its_parent) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        its_parent == parent.to_string() && state != "Z"
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(is_child).collect()
}

/// Those among the children of this process that run a program: the tests of one binary run beside each other.
pub fn children(program: &Path) -> Vec<u32> {
    let runs = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).next() == Some(program.to_str().unwrap().as_bytes())
    };
    children_of(std::process::id()).into_iter().filter(runs).collect()
}

/// Asks until there is an answer, for half a minute.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed().as_secs() < 30, "not within 30 s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A link to the real child under a name of its own, so that its processes can be told from those of other tests.
pub fn own_worker(folder: &TempDir) -> PathBuf {
    let link = folder.path().join("worker");
    std::os::unix::fs::symlink(WORKER, &link).unwrap();
    link
}

/// A link to the misbehaving child under the name of what it is to do.
pub fn misbehaving(folder: &TempDir, act: &str) -> PathBuf {
    let link = folder.path().join(format!("child-{act}"));
    std::os::unix::fs::symlink(MISBEHAVING, &link).unwrap();
    link
}
