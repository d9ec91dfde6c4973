//! The Native DICOM Model in XML (PS3.19 A.1) as DICOM JSON, as far as a response module needs it: attributes, items
//! and values. No DTD, no entities but the five of XML, a cap on nesting.

use serde_json::{Map, Value, json};

/// Deepest nesting of elements.
const MAX_DEPTH: usize = 64;

/// An element that is open.
enum Open {
    /// `NativeDicomModel` or `Item`.
    DataSet(Map<String, Value>),
    /// `DicomAttribute` with its tag, and the values or items in it.
    Attribute(String, Vec<Value>),
    /// `Value`.
    Text(String),
    /// Anything else; what it holds is passed over.
    Other,
}

/// Reads a document; `None` if it is not a Native DICOM Model.
pub(crate) fn parse(xml: &str) -> Option<Value> {
    let mut open: Vec<Open> = Vec::new();
    let mut rest = xml;
    loop {
        let start = rest.find('<')?;
        if let Some(Open::Text(text)) = open.last_mut() {
            text.push_str(&unescape(&rest[..start]));
        }
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = &comment[comment.find("-->")? + 3..];
            continue;
        }
        let end = tag_end(rest)?;
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        match tag.as_bytes().first()? {
            b'?' => {}
            b'!' => return None,
            b'/' => {
                if let Some(document) = close(&mut open)? {
                    return Some(document);
                }
            }
            _ => {
                let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
                if open.len() >= MAX_DEPTH {
                    return None;
                }
                let element = start_tag(tag);
                if open.is_empty() && !matches!(element, Open::DataSet(_)) {
                    return None;
                }
                open.push(element);
                if empty && let Some(document) = close(&mut open)? {
                    return Some(document);
                }
            }
        }
    }
}

/// Closes the innermost element: `None` if there is none, `Some(Some(_))` when it was the outermost.
#[expect(clippy::option_option, reason = "malformed, not finished, finished")]
fn close(open: &mut Vec<Open>) -> Option<Option<Value>> {
    let done = open.pop()?;
    match (open.last_mut(), done) {
        (None, Open::DataSet(data_set)) => return Some(Some(Value::Object(data_set))),
        (Some(Open::DataSet(outer)), Open::Attribute(tag, values)) => {
            outer.insert(tag, json!({ "Value": values }));
        }
        (Some(Open::Attribute(_, values)), Open::DataSet(item)) => values.push(Value::Object(item)),
        (Some(Open::Attribute(_, values)), Open::Text(text)) => values.push(Value::String(text.trim().to_owned())),
        _ => {}
    }
    Some(None)
}

/// What a start tag opens; namespace prefixes do not matter.
fn start_tag(tag: &str) -> Open {
    let name = tag.split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
    match name.rsplit(':').next().unwrap_or_default() {
        "NativeDicomModel" | "Item" => Open::DataSet(Map::new()),
        "DicomAttribute" => Open::Attribute(attribute(tag, "tag").unwrap_or_default().to_ascii_uppercase(), Vec::new()),
        "Value" => Open::Text(String::new()),
        _ => Open::Other,
    }
}

/// Where the tag ends: the first `>` outside of quotes.
fn tag_end(tag: &str) -> Option<usize> {
    let mut quote = None;
    tag.char_indices().find_map(|(i, c)| {
        match (quote, c) {
            (None, '>') => return Some(i),
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
        None
    })
}

/// An XML attribute's value.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.match_indices(name).find_map(|(i, _)| {
        if !tag[..i].ends_with(|c: char| c.is_ascii_whitespace()) {
            return None;
        }
        let value = tag[i + name.len()..].trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        value[1..].split(quote).next()
    })
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_module() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?><!-- > -->
          <NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">
            <DicomAttribute keyword="RetrieveURL" tag="00081190" vr="UR"><Value number="1">http://a/b?c=1&amp;d</Value></DicomAttribute>
            <dcm:DicomAttribute vr='SQ' tag='0008119a' keyword="a>b"/>
            <DicomAttribute tag="00081199" vr="SQ"><Item number="1">
              <DicomAttribute tag="00081155" vr="UI"><Value number="1"> 2.25.1 </Value></DicomAttribute>
              <DicomAttribute tag="00081197" vr="US"><Value number="1">272</Value><PersonName>x</PersonName></DicomAttribute>
            </Item></DicomAttribute>
          </NativeDicomModel> behind"#;
        let expected = json!({
            "00081190": { "Value": ["http://a/b?c=1&d"] },
            "0008119A": { "Value": [] },
            "00081199": { "Value": [{ "00081155": { "Value": ["2.25.1"] }, "00081197": { "Value": ["272"] } }] },
        });
        assert_eq!(parse(xml), Some(expected));
    }

    #[test]
    fn what_is_none() {
        let deep = "<Item>".repeat(MAX_DEPTH + 1);
        for xml in [
            "<html><Item/></html>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><NativeDicomModel/>",
            "<NativeDicomModel>",
            "</NativeDicomModel>",
            "<NativeDicomModel",
            "<>",
            "<!-- ",
            &deep,
        ] {
            assert_eq!(parse(xml), None, "{xml}");
        }
    }
}
