//! Data sets in the DICOM JSON Model (PS3.18 F).

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dicom_core::header::Header;
use dicom_core::value::{PrimitiveValue, Value as DicomValue};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::mem::InMemElement;
use dicom_object::{DefaultDicomObject, InMemDicomObject, OpenFileOptions};
use ichor_dicomweb::server::{ArchiveFault, JsonDataSet};
use serde_json::{Number, Value, json};

/// Longest binary value that stands in the JSON itself, in bytes.
const LONGEST_INLINE: usize = 1024;

/// Reads everything before the pixels of a Part 10 file.
pub(super) fn header(path: &Path, instance: &str) -> Result<DefaultDicomObject, ArchiveFault> {
    let read = OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(path);
    read.map_err(|error| ArchiveFault::Broken(format!("instance {instance} cannot be read: {error}")))
}

/// The metadata of a file. `bulk` is the URL that those of binary values begin with.
pub(super) fn metadata(object: &DefaultDicomObject, bulk: &str) -> JsonDataSet {
    let mut metadata = data_set(object, bulk);
    // Text is UTF-8 here, whatever it was in the file (F.2.2).
    if let Some(charset) = metadata.get_mut("00080005") {
        *charset = json!({ "vr": "CS", "Value": ["ISO_IR 192"] });
    }
    let number = |tag| object.element_opt(tag).ok().flatten().and_then(|element| element.to_int::<u32>().ok());
    // Pixels are not read here; an image has them.
    if let (Some(_), Some(allocated)) = (number(tags::ROWS), number(tags::BITS_ALLOCATED)) {
        let is_encoded = !["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
            .contains(&object.meta().transfer_syntax());
        let vr = if is_encoded || allocated <= 8 { "OB" } else { "OW" };
        metadata.insert("7FE00010".to_owned(), json!({ "vr": vr, "BulkDataURI": format!("{bulk}/7FE00010") }));
    }
    metadata
}

fn data_set(object: &InMemDicomObject, bulk: &str) -> JsonDataSet {
    let is_told = |element: &&InMemElement| {
        let Tag(group, number) = element.tag();
        // Group lengths and the file's own header are not of the data set; nor is padding.
        number != 0 && group != 2 && element.tag() != tags::DATA_SET_TRAILING_PADDING
    };
    object.iter().filter(is_told).map(|element| (hex(element.tag()), attribute(element, bulk))).collect()
}

fn hex(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

fn attribute(element: &InMemElement, bulk: &str) -> Value {
    let (vr, name) = (element.vr(), hex(element.tag()));
    let uri = || json!({ "vr": vr.to_string(), "BulkDataURI": format!("{bulk}/{name}") });
    let values = match element.value() {
        DicomValue::PixelSequence(_) => return uri(),
        DicomValue::Sequence(sequence) => {
            let items = sequence.items().iter().zip(1..);
            let items: Vec<Value> =
                items.map(|(item, number)| Value::Object(data_set(item, &format!("{bulk}/{name}/{number}")))).collect();
            return with_values("SQ", items);
        }
        DicomValue::Primitive(value) => value,
    };
    if is_binary(vr) {
        let bytes = values.to_bytes();
        return match bytes.len() {
            0 => json!({ "vr": vr.to_string() }),
            length if length > LONGEST_INLINE => uri(),
            _ => json!({ "vr": vr.to_string(), "InlineBinary": STANDARD.encode(&bytes) }),
        };
    }
    with_values(vr.to_string(), of_primitive(vr, values))
}

fn is_binary(vr: VR) -> bool {
    matches!(vr, VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN)
}

fn with_values(vr: &str, values: Vec<Value>) -> Value {
    if values.iter().all(Value::is_null) { json!({ "vr": vr }) } else { json!({ "vr": vr, "Value": values }) }
}

fn of_primitive(vr: VR, value: &PrimitiveValue) -> Vec<Value> {
    let integers = |values: &mut dyn Iterator<Item = i64>| values.map(|number| json!(number)).collect();
    match value {
        PrimitiveValue::Empty => Vec::new(),
        PrimitiveValue::Tags(tags) => tags.iter().map(|tag| json!(hex(*tag))).collect(),
        PrimitiveValue::U8(values) => integers(&mut values.iter().map(|value| i64::from(*value))),
        PrimitiveValue::I16(values) => integers(&mut values.iter().map(|value| i64::from(*value))),
        PrimitiveValue::U16(values) => integers(&mut values.iter().map(|value| i64::from(*value))),
        PrimitiveValue::I32(values) => integers(&mut values.iter().map(|value| i64::from(*value))),
        PrimitiveValue::U32(values) => integers(&mut values.iter().map(|value| i64::from(*value))),
        PrimitiveValue::I64(values) => values.iter().map(|value| json!(value)).collect(),
        PrimitiveValue::U64(values) => values.iter().map(|value| json!(value)).collect(),
        // By their shortest digits, not by those of a double.
        PrimitiveValue::F32(values) => values.iter().map(|value| float(&value.to_string())).collect(),
        PrimitiveValue::F64(values) => values.iter().map(|value| float(&value.to_string())).collect(),
        other => other.to_multi_str().iter().map(|text| of_text(vr, text)).collect(),
    }
}

/// A number, or the text where it is none.
fn float(text: &str) -> Value {
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    number.map_or_else(|| json!(text), Value::Number)
}

fn of_text(vr: VR, text: &str) -> Value {
    let text = text.trim_end_matches([' ', '\0']);
    let bare = text.trim();
    match vr {
        _ if text.is_empty() => Value::Null,
        VR::PN => {
            let names = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(text.split('='));
            let forms = names.filter(|(_, name)| !name.is_empty());
            Value::Object(forms.map(|(form, name)| (form.to_owned(), json!(name.trim()))).collect())
        }
        VR::IS => bare.parse::<i64>().map_or_else(|_| json!(bare), |number| json!(number)),
        VR::DS => float(bare),
        // Spaces at the beginning are part of a text.
        VR::LT | VR::ST | VR::UT => json!(text),
        _ => json!(bare),
    }
}

/// A binary value of a file.
pub(super) fn bulk(object: &InMemDicomObject, way: &[(String, u32)], tag: &str) -> Result<Vec<u8>, ArchiveFault> {
    let not_there = || ArchiveFault::NotThere("the instance holds no such binary value".to_owned());
    let parsed = |text: &str| {
        let number = u32::from_str_radix(text, 16).map_err(|_| not_there())?;
        Ok::<_, ArchiveFault>(Tag((number >> 16) as u16, (number & 0xFFFF) as u16))
    };
    let mut object = object;
    for (sequence, item) in way {
        let element = object.element_opt(parsed(sequence)?).ok().flatten().ok_or_else(not_there)?;
        let items = element.items().ok_or_else(not_there)?;
        object = (*item as usize).checked_sub(1).and_then(|index| items.get(index)).ok_or_else(not_there)?;
    }
    let element = object.element_opt(parsed(tag)?).ok().flatten().ok_or_else(not_there)?;
    match element.value() {
        DicomValue::Primitive(value) if is_binary(element.vr()) => Ok(value.to_bytes().into_owned()),
        DicomValue::PixelSequence(_) => {
            Err(ArchiveFault::Unsupported("compressed pixels in a sequence are not taken apart".to_owned()))
        }
        _ => Err(not_there()),
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, dicom_value};

    use super::*;

    fn object() -> InMemDicomObject {
        let item = InMemDicomObject::from_element_iter([
            DataElement::new(tags::CODE_VALUE, VR::SH, PrimitiveValue::from("1")),
            DataElement::new(Tag(0x0009, 0x1001), VR::OB, PrimitiveValue::from(vec![7u8; 2000])),
        ]);
        InMemDicomObject::from_element_iter([
            DataElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from("Yamada^Tarou=山田^太郎=やまだ^たろう")),
            DataElement::new(tags::PATIENT_ID, VR::LO, PrimitiveValue::from(" 4711 ")),
            DataElement::new(tags::PIXEL_SPACING, VR::DS, dicom_value!(Strs, ["0.488281", "+1e0 "])),
            DataElement::new(tags::INSTANCE_NUMBER, VR::IS, PrimitiveValue::from(" 7 ")),
            DataElement::new(tags::SLICE_THICKNESS, VR::DS, PrimitiveValue::from("thin")),
            DataElement::new(tags::IMAGE_TYPE, VR::CS, dicom_value!(Strs, ["ORIGINAL", "", "AXIAL"])),
            DataElement::new(tags::ACCESSION_NUMBER, VR::SH, PrimitiveValue::Empty),
            DataElement::new(tags::RECOMMENDED_DISPLAY_FRAME_RATE, VR::FL, PrimitiveValue::from(0.1f32)),
            DataElement::new(tags::FRAME_INCREMENT_POINTER, VR::AT, dicom_value!(Tags, [tags::FRAME_TIME])),
            DataElement::new(Tag(0x0009, 0x1002), VR::UN, PrimitiveValue::from(vec![1u8, 2])),
            DataElement::new(
                tags::PROCEDURE_CODE_SEQUENCE,
                VR::SQ,
                dicom_core::value::DataSetSequence::from(vec![item]),
            ),
        ])
    }

    #[test]
    fn values_are_those_of_the_model() {
        let set = Value::Object(data_set(&object(), "http://x/bulkdata"));
        let value = |tag: &str| &set[tag]["Value"];
        assert_eq!(value("00100010")[0]["Ideographic"], "山田^太郎");
        assert_eq!(value("00100010")[0]["Phonetic"], "やまだ^たろう");
        assert_eq!(value("00100020"), &json!(["4711"]));
        assert_eq!(value("00280030"), &json!([0.488281, 1.0]));
        assert_eq!(value("00200013"), &json!([7]));
        assert_eq!(value("00180050"), &json!(["thin"]));
        assert_eq!(value("00080008"), &json!(["ORIGINAL", null, "AXIAL"]));
        assert_eq!(set["00080050"], json!({ "vr": "SH" }));
        assert_eq!(value("00082144"), &json!([0.1]));
        assert_eq!(value("00280009"), &json!(["00181063"]));
        assert_eq!(set["00091002"], json!({ "vr": "UN", "InlineBinary": "AQI=" }));
        let item = &value("00081032")[0];
        assert_eq!(item["00091001"], json!({ "vr": "OB", "BulkDataURI": "http://x/bulkdata/00081032/1/00091001" }));
    }

    #[test]
    fn bulk_data_are_found_where_their_url_says() {
        let way = |item| vec![("00081032".to_owned(), item)];
        assert_eq!(bulk(&object(), &way(1), "00091001").unwrap(), [7; 2000]);
        assert_eq!(bulk(&object(), &[], "00091002").unwrap(), [1, 2]);
        for (way, tag) in [(way(2), "00091001"), (way(1), "00080100"), (vec![], "00091001"), (vec![], "00100010")] {
            assert!(matches!(bulk(&object(), &way, tag), Err(ArchiveFault::NotThere(_))), "{way:?} {tag}");
        }
    }
}
