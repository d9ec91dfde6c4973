//! Reading source headers: every data set encoding, and what a hostile sender may write.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Cursor;
use std::path::Path;
use std::sync::LazyLock;

use dicom_dictionary_std::{tags, uids};
use ichor_result::{SourceError, SourceHeader};
use proptest::prelude::*;
use support::{Series, blobs, build, code_sequence, tilted};

/// A written source, its first 132 bytes and meta group included.
fn source(dir: &Path) -> Vec<u8> {
    let mut series = Series::new(tilted(8, 8, 0.0, &[5.0]));
    series.extra = vec![
        code_sequence(tags::PROCEDURE_CODE_SEQUENCE, "24725-4", "LN", "CT Head"),
        code_sequence(tags::ANATOMIC_REGION_SEQUENCE, "69536005", "SCT", "Head"),
    ];
    std::fs::read(series.write_slice(dir, 0)).unwrap()
}

#[test]
fn every_data_set_encoding_gives_the_same_result() {
    let dir = tempfile::tempdir().unwrap();
    let explicit = source(dir.path());
    let (_, slices) = Series::new(tilted(8, 8, 0.0, &[5.0])).write(dir.path());
    let planes: Vec<_> = slices.iter().map(|s| s.plane).collect();
    let result = |bytes: &[u8]| {
        let header = SourceHeader::from_reader(Cursor::new(bytes)).unwrap();
        build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap()
    };
    let expected = result(&explicit);
    const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
    for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN] {
        let mut file = dicom_object::from_reader(Cursor::new(&explicit)).unwrap();
        file.meta_mut().transfer_syntax = syntax.to_owned();
        file.meta_mut().update_information_group_length();
        let mut bytes = Vec::new();
        file.write_all(&mut bytes).unwrap();
        assert!(result(&bytes) == expected, "{syntax}");
    }
}

#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let good = source(dir.path());
    let read = |bytes: &[u8]| SourceHeader::from_reader(Cursor::new(bytes.to_vec()));
    assert!(matches!(SourceHeader::read(dir.path().join("absent")), Err(SourceError::Io(_))));
    assert!(matches!(read(b"short"), Err(SourceError::Io(_))));
    assert!(matches!(read(&[0u8; 400]), Err(SourceError::Parse(_))));
    // A private meta element that claims 4 GiB.
    let claim =
        [&good[..132], &[0x02, 0x00, 0x02, 0x01, b'O', b'B', 0, 0, 0xfe, 0xff, 0xff, 0xff], &good[132..]].concat();
    assert!(matches!(read(&claim), Err(SourceError::Parse(_))));
    let mut unknown = Series::new(tilted(8, 8, 0.0, &[]));
    unknown.without = vec![tags::STUDY_INSTANCE_UID];
    let path = unknown.write_slice(dir.path(), 0);
    assert!(matches!(SourceHeader::read(path), Err(SourceError::Missing("study instance UID"))));
    let syntax = good.windows(19).position(|w| w == uids::EXPLICIT_VR_LITTLE_ENDIAN.as_bytes()).unwrap();
    let mut strange = good.clone();
    strange[syntax + 18] = b'7';
    assert!(matches!(read(&strange), Err(SourceError::TransferSyntax(ts)) if ts.ends_with('7')));
}

/// An element of the data set in explicit VR little endian, with a 32-bit length.
fn element(tag: dicom_core::Tag, vr: &[u8; 2], length: u32) -> Vec<u8> {
    let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    bytes.extend(vr);
    bytes.extend([0, 0]);
    bytes.extend(length.to_le_bytes());
    bytes
}

#[test]
fn hostile_structure_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let good = source(dir.path());
    // Behind the meta group: its length stands at byte 140, and counts from byte 144.
    let meta = 144 + u32::from_le_bytes(good[140..144].try_into().unwrap()) as usize;
    let with = |data_set: &[u8]| {
        let bytes = [&good[..meta], data_set].concat();
        SourceHeader::from_reader(Cursor::new(bytes))
    };
    let undefined = u32::MAX;
    let open = element(tags::PROCEDURE_CODE_SEQUENCE, b"SQ", undefined);
    let item = [0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff];
    let item_end = [0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0];
    let sequence_end = [0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0];
    let cases: Vec<Vec<u8>> = vec![
        [&open[..], &item_end, &item, &item].concat(),
        [&open[..], &item, &sequence_end, &item_end, &item_end, &item].concat(),
        [&open[..], &sequence_end, &sequence_end, &item_end].concat(),
        [&open[..], &item].concat().repeat(20_000),
        element(tags::PATIENT_COMMENTS, b"UT", 0xffff_fffe),
        element(tags::PATIENT_NAME, b"UN", 0x7fff_fffe),
        element(tags::PIXEL_DATA, b"OB", undefined),
    ];
    for case in cases {
        assert!(with(&case).is_err(), "{:?}", &case[..24.min(case.len())]);
    }
    // Deep nesting around good elements changes nothing but what is nested.
    let deep = [&open[..], &item].concat().repeat(1000);
    let closed = [&item_end[..], &sequence_end].concat().repeat(1000);
    let header = with(&[&deep, &closed, &good[meta..]].concat()).unwrap();
    assert_eq!(header.study().as_str(), support::STUDY);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_never_panic(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| source(tempfile::tempdir().unwrap().path()));
        let mut bytes = GOOD.clone();
        for (at, value) in damage {
            let at = 132 + at.index(bytes.len() - 132);
            bytes[at] = value;
        }
        let _ = SourceHeader::from_reader(Cursor::new(bytes));
    }
}
