//! What the gate has to know of the patient, read once and kept as what it means, not as what it says.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;

use crate::attribute::text;
use crate::words::words;

/// Days of a year.
const YEAR: f64 = 365.25;

/// Parts of words that only phantoms have: "Wasserphantom", "fantôme".
const PHANTOM: [&str; 3] = ["PHANTOM", "FANTOM", "CATPHAN"];

/// Words of quality assurance.
const QUALITY: [&str; 14] = [
    "CALIBRATION",
    "CALIBRACION",
    "CALIBRAZIONE",
    "CONSTANCY",
    "ETALONNAGE",
    "FANTOCCIO",
    "KALIBRIERUNG",
    "KONSTANZPRUEFUNG",
    "KONSTANZPRUFUNG",
    "MANIQUI",
    "QA",
    "QAP",
    "QC",
    "QUALITYCHECK",
];

/// The attribute by which an instance is of a phantom or of quality assurance; `None`: of a patient.
///
/// A person may be called "Qa": of names and numbers of patients only the words for a phantom count.
pub(crate) fn says_phantom(object: &DefaultDicomObject) -> Option<&'static str> {
    let said = |tag: Tag, also: &[&str]| {
        let words = words(&text(object, tag).unwrap_or_default());
        let is_phantom = |word: &String| PHANTOM.iter().any(|part| word.contains(part));
        words.iter().any(|word| is_phantom(word) || also.contains(&word.as_str()))
    };
    let attributes: [(Tag, &'static str, &[&str]); 5] = [
        (tags::PATIENT_NAME, "Patient's Name", &[]),
        (tags::PATIENT_ID, "Patient ID", &[]),
        (tags::STUDY_DESCRIPTION, "Study Description", &QUALITY),
        (tags::SERIES_DESCRIPTION, "Series Description", &QUALITY),
        (tags::PROTOCOL_NAME, "Protocol Name", &QUALITY),
    ];
    attributes.into_iter().find_map(|(tag, name, also)| said(tag, also).then_some(name))
}

/// The patient's age in years, from Patient's Age or from birth and study date; `None` if neither says.
pub(crate) fn adult_age(object: &DefaultDicomObject) -> Option<f64> {
    let declared = text(object, tags::PATIENT_AGE).and_then(|age| years(&age));
    declared.or_else(|| {
        let date = |tag| days(&text(object, tag)?);
        let age = (date(tags::STUDY_DATE)? - date(tags::PATIENT_BIRTH_DATE)?) / YEAR;
        (0.0..150.0).contains(&age).then_some(age)
    })
}

/// An Age String (PS3.5 6.2) in years. "000Y" is what de-identification leaves, not an age.
fn years(age: &str) -> Option<f64> {
    let (digits, unit) = age.split_at_checked(age.len().checked_sub(1)?)?;
    let number: u32 = digits.parse().ok()?;
    let days = match unit {
        "D" => 1.0,
        "W" => 7.0,
        "M" => YEAR / 12.0,
        "Y" if number > 0 => YEAR,
        _ => return None,
    };
    Some(f64::from(number) * days / YEAR)
}

/// Days of a date (PS3.5 6.2, with the dots of ACR-NEMA) since the year 0, to the precision of an age.
fn days(date: &str) -> Option<f64> {
    let digits: String = date.chars().filter(|c| *c != '.').collect();
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits[from..to].parse::<u32>().ok().map(f64::from);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    ((1.0..=12.0).contains(&month) && (1.0..=31.0).contains(&day))
        .then_some(year * YEAR + (month - 1.0) * (YEAR / 12.0) + day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let cases = [
            ("063Y", Some(63.0)),
            ("018Y", Some(18.0)),
            ("006M", Some(0.5)),
            ("052W", Some(52.0 * 7.0 / YEAR)),
            ("000Y", None),
            ("63", None),
            ("Y", None),
            ("", None),
            ("-1Y", None),
            ("06ä", None),
        ];
        for (age, expected) in cases {
            assert_eq!(years(age), expected, "{age}");
        }
    }

    #[test]
    fn dates() {
        let age = |birth, study| days(study).zip(days(birth)).map(|(a, b)| (a - b) / YEAR);
        assert!((age("20000101", "20180101").unwrap() - 18.0).abs() < 1e-9);
        assert!(age("20000102", "20180101").unwrap() < 18.0);
        assert!((age("1980.06.15", "20250615").unwrap() - 45.0).abs() < 1e-9);
        for bad in ["", "2018", "20181301", "20180100", "2018010a", "äääädd"] {
            assert_eq!(days(bad), None, "{bad}");
        }
    }
}
