//! `objects` of a `[[destination]]` and `[destination.segmentation]`: which result objects it gets, in which form.

use ichor_pipeline::analyse::{ObjectKind, ReportOn};
use ichor_result::{Encoding, SegmentationForm, SegmentationType};
use serde::{Deserialize, Serialize};

/// A kind of result object by its name in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ObjectName {
    /// DICOM Segmentation.
    Segmentation,
    /// Structured report.
    Report,
    /// Key Object Selection.
    KeyObjects,
}

/// `[destination.key_objects]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeyObjectsConfig {
    /// Most slices that are selected.
    pub(crate) slices: usize,
}

impl Default for KeyObjectsConfig {
    fn default() -> Self {
        Self { slices: 5 }
    }
}

/// `[destination.report]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReportConfig {
    /// Whether studies without hemorrhage have a report too.
    pub(crate) negative: bool,
    /// Whether studies that cannot be analysed have one, which says why.
    pub(crate) not_analysed: bool,
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self { negative: true, not_analysed: false }
    }
}

impl From<ReportConfig> for ReportOn {
    fn from(config: ReportConfig) -> Self {
        Self { negative: config.negative, not_analysed: config.not_analysed }
    }
}

/// `[destination.segmentation]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SegmentationConfig {
    /// `binary`, `fractional` or `labelmap`.
    #[serde(rename = "type")]
    pub(crate) kind: SegmentationKind,
    /// `explicit-little-endian`, `deflated` or `rle`.
    pub(crate) transfer_syntax: SegmentationEncoding,
    /// Whether slices without mask have frames too.
    pub(crate) empty_frames: bool,
}

/// Segmentation Type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SegmentationKind {
    /// One bit a pixel.
    #[default]
    Binary,
    /// The probability of each pixel.
    Fractional,
    /// The segment's number in each pixel.
    Labelmap,
}

/// Transfer syntax of a Segmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SegmentationEncoding {
    /// Explicit VR Little Endian.
    #[default]
    ExplicitLittleEndian,
    /// Deflated Explicit VR Little Endian.
    Deflated,
    /// RLE Lossless.
    Rle,
}

impl SegmentationConfig {
    fn form(self) -> Result<SegmentationForm, String> {
        let kind = match self.kind {
            SegmentationKind::Binary => SegmentationType::Binary,
            SegmentationKind::Fractional => SegmentationType::Fractional,
            SegmentationKind::Labelmap => SegmentationType::LabelMap,
        };
        let encoding = match self.transfer_syntax {
            SegmentationEncoding::ExplicitLittleEndian => Encoding::ExplicitLittleEndian,
            SegmentationEncoding::Deflated => Encoding::Deflated,
            SegmentationEncoding::Rle => Encoding::RleLossless,
        };
        SegmentationForm::new(kind, encoding, self.empty_frames)
            .map_err(|error| format!("segmentation.transfer_syntax: {error}"))
    }
}

/// What a destination gets unless it says otherwise.
pub(super) fn default_objects() -> Vec<ObjectName> {
    vec![ObjectName::Segmentation]
}

/// The kinds of `objects` with the settings of each.
///
/// # Errors
/// A sentence about the kind that is missing, named twice, or has settings that cannot be.
pub(super) fn object_kinds(
    objects: &[ObjectName],
    segmentation: Option<SegmentationConfig>,
    report: Option<ReportConfig>,
    key_objects: Option<KeyObjectsConfig>,
) -> Result<Vec<ObjectKind>, String> {
    if objects.is_empty() {
        return Err("objects must name at least one kind".to_owned());
    }
    if let Some((at, twice)) = objects.iter().enumerate().find(|(at, name)| objects[..*at].contains(name)) {
        return Err(format!("objects names {twice:?} twice, again at place {}", at + 1));
    }
    if segmentation.is_some() && !objects.contains(&ObjectName::Segmentation) {
        return Err("settings of segmentation do nothing without \"segmentation\" in objects".to_owned());
    }
    if report.is_some() && !objects.contains(&ObjectName::Report) {
        return Err("settings of report do nothing without \"report\" in objects".to_owned());
    }
    if key_objects.is_some() && !objects.contains(&ObjectName::KeyObjects) {
        return Err("settings of key_objects do nothing without \"key-objects\" in objects".to_owned());
    }
    let slices = key_objects.unwrap_or_default().slices;
    if slices == 0 {
        return Err("key_objects.slices must be at least 1".to_owned());
    }
    let form = segmentation.unwrap_or_default().form()?;
    let together = objects.contains(&ObjectName::Segmentation).then_some(form);
    let kind = |name: &ObjectName| match name {
        ObjectName::Segmentation => ObjectKind::Segmentation(form),
        ObjectName::Report => ObjectKind::Report(together),
        ObjectName::KeyObjects => ObjectKind::KeyObjects(slices, together),
    };
    Ok(objects.iter().map(kind).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_what_cannot_be() {
        let of = |text: &str| object_kinds(&default_objects(), Some(toml::from_str(text).unwrap()), None, None);
        let form =
            |kind, encoding, empty| ObjectKind::Segmentation(SegmentationForm::new(kind, encoding, empty).unwrap());
        let binary = form(SegmentationType::Binary, Encoding::ExplicitLittleEndian, false);
        assert_eq!(object_kinds(&default_objects(), None, None, None), Ok(vec![binary.clone()]));
        assert_eq!(of("").unwrap(), [binary]);
        let map = form(SegmentationType::LabelMap, Encoding::RleLossless, true);
        assert_eq!(of("type = 'labelmap'\ntransfer_syntax = 'rle'\nempty_frames = true").unwrap(), [map]);
        let fractional = form(SegmentationType::Fractional, Encoding::Deflated, false);
        assert_eq!(of("type = 'fractional'\ntransfer_syntax = 'deflated'").unwrap(), [fractional]);
        let error = of("transfer_syntax = 'rle'").unwrap_err();
        assert!(error.contains("one bit a pixel") && error.contains("segmentation.transfer_syntax"), "{error}");
        assert!(object_kinds(&[], None, None, None).unwrap_err().contains("at least one"));
        assert!(object_kinds(&[ObjectName::Segmentation; 2], None, None, None).unwrap_err().contains("twice"));

        let both = [ObjectName::Report, ObjectName::Segmentation];
        let deflated = Some(toml::from_str("transfer_syntax = 'deflated'").unwrap());
        let form = SegmentationForm::new(SegmentationType::Binary, Encoding::Deflated, false).unwrap();
        let kinds = [ObjectKind::Report(Some(form)), ObjectKind::Segmentation(form)];
        assert_eq!(
            object_kinds(&both, deflated, None, None).unwrap(),
            kinds,
            "of the Segmentation that goes there too"
        );
        let alone = object_kinds(&[ObjectName::Report], None, Some(ReportConfig::default()), None);
        assert_eq!(alone.unwrap(), [ObjectKind::Report(None)]);
        let error = object_kinds(&default_objects(), None, Some(ReportConfig::default()), None).unwrap_err();
        assert!(error.contains("settings of report"), "{error}");
        let keys =
            |text: &str| object_kinds(&[ObjectName::KeyObjects], None, None, Some(toml::from_str(text).unwrap()));
        assert_eq!(keys("slices = 3").unwrap(), [ObjectKind::KeyObjects(3, None)]);
        assert!(keys("slices = 0").unwrap_err().contains("key_objects.slices"));
        assert!(toml::from_str::<SegmentationConfig>("type = 'surface'").is_err());
    }
}
