//! Small constructors of data elements, and the text forms of numbers and times.

use dicom_core::value::{DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use time::{OffsetDateTime, UtcOffset};

/// A data element of a data set in memory.
pub(crate) type Element = InMemElement;

/// A text element. Backslashes separate values.
pub(crate) fn text(tag: Tag, vr: VR, value: impl Into<String>) -> Element {
    DataElement::new(tag, vr, PrimitiveValue::from(value.into()))
}

/// An element without a value (Type 2).
pub(crate) fn empty(tag: Tag, vr: VR) -> Element {
    DataElement::new(tag, vr, PrimitiveValue::Empty)
}

/// An unsigned 16-bit element.
pub(crate) fn us(tag: Tag, value: u16) -> Element {
    DataElement::new(tag, VR::US, PrimitiveValue::from(value))
}

/// A sequence of undefined length.
pub(crate) fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> Element {
    DataElement::new(tag, VR::SQ, DataSetSequence::new(items, Length::UNDEFINED))
}

/// Decimal strings (VR DS) joined by backslashes.
pub(crate) fn decimals(tag: Tag, values: &[f64]) -> Element {
    let parts: Vec<String> = values.iter().map(|v| decimal_string(*v)).collect();
    text(tag, VR::DS, parts.join("\\"))
}

/// Longest decimal string (PS3.5 6.2, VR DS).
const DECIMAL_STRING_LENGTH: usize = 16;

/// Writes a finite number as the decimal string of at most 16 characters that is nearest to it. A number that was read
/// from a decimal string of up to 15 digits comes out with the very same value.
pub(crate) fn decimal_string(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let shortest = format!("{value}");
    if shortest.len() <= DECIMAL_STRING_LENGTH {
        return shortest;
    }
    let rounded = (0..=15usize).flat_map(|p| [format!("{value:.p$}"), format!("{value:.p$e}")]);
    let error = |s: &String| s.parse::<f64>().map_or(f64::INFINITY, |v| (v - value).abs());
    std::iter::once(format!("{value:e}"))
        .chain(rounded)
        .filter(|s| s.len() <= DECIMAL_STRING_LENGTH)
        .min_by(|a, b| error(a).total_cmp(&error(b)))
        .unwrap_or_else(|| "0".to_owned())
}

/// Date (VR DA), `YYYYMMDD`; `None` outside the years 1 to 9999.
pub(crate) fn date(at: OffsetDateTime) -> Option<String> {
    let year = u16::try_from(at.year()).ok().filter(|y| (1..=9999).contains(y))?;
    Some(format!("{year:04}{:02}{:02}", u8::from(at.month()), at.day()))
}

/// Time (VR TM), `HHMMSS.FFFFFF`.
pub(crate) fn time_of_day(at: OffsetDateTime) -> String {
    format!("{:02}{:02}{:02}.{:06}", at.hour(), at.minute(), at.second(), at.microsecond())
}

/// Offset from UTC as in Timezone Offset From UTC (0008,0201), `±HHMM`.
pub(crate) fn utc_offset(offset: UtcOffset) -> String {
    let minutes = offset.whole_minutes();
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// Reads `±HHMM`.
pub(crate) fn parse_utc_offset(text: &str) -> Option<UtcOffset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i8, i8) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

/// Cuts a text to so many characters (not bytes).
pub(crate) fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::{datetime, offset};

    #[test]
    fn decimal_strings() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (-123.540_456_9, "-123.5404569"),
            (0.488_281_2, "0.4882812"),
            (1e-7, "0.0000001"),
            (1.5e-20, "1.5e-20"),
            (-0.317_304_656_405_092, "-0.3173046564051"),
            (1.0 / 3.0, "0.33333333333333"),
        ];
        for (value, expected) in cases {
            assert_eq!(decimal_string(value), expected);
        }
    }

    #[test]
    fn times() {
        let at = datetime!(2026-03-04 05:06:07.000089 +05:30);
        assert_eq!((date(at).unwrap(), time_of_day(at)), ("20260304".to_owned(), "050607.000089".to_owned()));
        for (text, parsed) in [("+0530", offset!(+5:30)), ("-0330", offset!(-3:30)), ("+0000", offset!(UTC))] {
            assert_eq!(parse_utc_offset(text), Some(parsed));
            assert_eq!(utc_offset(parsed), text);
        }
        for bad in ["", "+", "0530", "+05:30", "+9900", "+05é", "é530"] {
            assert_eq!(parse_utc_offset(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_number_fits_and_stays_near(value in -1e9f64..1e9) {
            let text = decimal_string(value);
            prop_assert!(text.len() <= 16, "{}", text);
            let back: f64 = text.parse().unwrap();
            prop_assert!((back - value).abs() <= 1e-8 * value.abs().max(1e-3), "{} {}", value, text);
        }

        #[test]
        fn what_was_a_decimal_string_keeps_its_value(digits in -999_999_999_999i64..999_999_999_999, shift in 0u32..9) {
            let value: f64 = format!("{digits}e-{shift}").parse().unwrap();
            prop_assert_eq!(decimal_string(value).parse::<f64>().unwrap(), value);
        }
    }
}
