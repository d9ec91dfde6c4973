//! `objects` of a `[[destination]]` and `[destination.segmentation]`: which result objects it gets, in which form.

use ichor_pipeline::analyse::{ObjectKind, ReportOn};
use ichor_result::{CaptureLook, Encoding, SegmentationForm, SegmentationType};
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
    /// Secondary Captures.
    Capture,
    /// Presentation state with the contours.
    PresentationState,
}

impl ObjectName {
    /// The name, as [`ObjectKind::name`] has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Segmentation => "segmentation",
            Self::Report => "report",
            Self::KeyObjects => "key-objects",
            Self::Capture => "capture",
            Self::PresentationState => "presentation-state",
        }
    }
}

/// `[destination.capture]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CaptureConfig {
    /// Centre of the window, in HU.
    pub(crate) window_center: i16,
    /// Width of the window, in HU.
    pub(crate) window_width: u16,
    /// How much of a pixel's colour the mask takes, in percent.
    pub(crate) opacity_percent: u8,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        let CaptureLook { window_center, window_width, opacity_percent } = CaptureLook::default();
        Self { window_center, window_width, opacity_percent }
    }
}

impl CaptureConfig {
    fn look(self) -> Result<CaptureLook, String> {
        let Self { window_center, window_width, opacity_percent } = self;
        if window_width < 2 || opacity_percent > 100 {
            return Err("capture: window_width must be at least 2, opacity_percent at most 100".to_owned());
        }
        Ok(CaptureLook { window_center, window_width, opacity_percent })
    }
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

/// The settings of each kind, where a destination has some.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjectSettings {
    pub(super) segmentation: Option<SegmentationConfig>,
    pub(super) report: Option<ReportConfig>,
    pub(super) key_objects: Option<KeyObjectsConfig>,
    pub(super) capture: Option<CaptureConfig>,
}

/// What a destination gets unless it says otherwise.
pub(super) fn default_objects() -> Vec<ObjectName> {
    vec![ObjectName::Segmentation]
}

/// The kinds of `objects` with the settings of each.
///
/// # Errors
/// A sentence about the kind that is missing, named twice, or has settings that cannot be.
pub(super) fn object_kinds(objects: &[ObjectName], settings: ObjectSettings) -> Result<Vec<ObjectKind>, String> {
    let ObjectSettings { segmentation, report, key_objects, capture } = settings;
    if let Some((at, twice)) = objects.iter().enumerate().find(|(at, name)| objects[..*at].contains(name)) {
        return Err(format!("objects names {twice:?} twice, again at place {}", at + 1));
    }
    let given = [
        (segmentation.is_some(), ObjectName::Segmentation, "segmentation"),
        (report.is_some(), ObjectName::Report, "report"),
        (key_objects.is_some(), ObjectName::KeyObjects, "key_objects"),
        (capture.is_some(), ObjectName::Capture, "capture"),
    ];
    if let Some((_, _, section)) = given.iter().find(|(given, name, _)| *given && !objects.contains(name)) {
        let name = section.replace('_', "-");
        return Err(format!("settings of {section} do nothing without \"{name}\" in objects"));
    }
    let look = capture.unwrap_or_default().look()?;
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
        ObjectName::Capture => ObjectKind::Captures(look),
        ObjectName::PresentationState => ObjectKind::Presentation,
    };
    Ok(objects.iter().map(kind).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(objects: &[ObjectName], settings: &str) -> Result<Vec<ObjectKind>, String> {
        #[derive(Deserialize)]
        struct Given {
            segmentation: Option<SegmentationConfig>,
            report: Option<ReportConfig>,
            key_objects: Option<KeyObjectsConfig>,
            capture: Option<CaptureConfig>,
        }
        let Given { segmentation, report, key_objects, capture } = toml::from_str(settings).unwrap();
        object_kinds(objects, ObjectSettings { segmentation, report, key_objects, capture })
    }

    fn form(kind: SegmentationType, encoding: Encoding, empty_frames: bool) -> SegmentationForm {
        SegmentationForm::new(kind, encoding, empty_frames).unwrap()
    }

    #[test]
    fn forms_of_the_segmentation() {
        let of = |settings: &str| kinds(&default_objects(), settings);
        let segmentation = |kind, encoding, empty| vec![ObjectKind::Segmentation(form(kind, encoding, empty))];
        let binary = segmentation(SegmentationType::Binary, Encoding::ExplicitLittleEndian, false);
        assert_eq!((of(""), of("[segmentation]")), (Ok(binary.clone()), Ok(binary)));
        let map = segmentation(SegmentationType::LabelMap, Encoding::RleLossless, true);
        assert_eq!(of("[segmentation]\ntype = 'labelmap'\ntransfer_syntax = 'rle'\nempty_frames = true").unwrap(), map);
        let fractional = segmentation(SegmentationType::Fractional, Encoding::Deflated, false);
        assert_eq!(of("[segmentation]\ntype = 'fractional'\ntransfer_syntax = 'deflated'").unwrap(), fractional);
        let error = of("[segmentation]\ntransfer_syntax = 'rle'").unwrap_err();
        assert!(error.contains("one bit a pixel") && error.contains("segmentation.transfer_syntax"), "{error}");
        assert!(toml::from_str::<SegmentationConfig>("type = 'surface'").is_err());
    }

    #[test]
    fn documents_speak_of_the_segmentation_that_goes_there_too() {
        let together = [ObjectName::Report, ObjectName::Segmentation, ObjectName::KeyObjects];
        let deflated = form(SegmentationType::Binary, Encoding::Deflated, false);
        let wanted = [
            ObjectKind::Report(Some(deflated)),
            ObjectKind::Segmentation(deflated),
            ObjectKind::KeyObjects(5, Some(deflated)),
        ];
        assert_eq!(kinds(&together, "[segmentation]\ntransfer_syntax = 'deflated'").unwrap(), wanted);
        assert_eq!(kinds(&[ObjectName::Report], "[report]").unwrap(), [ObjectKind::Report(None)]);
        let keys = [ObjectName::KeyObjects];
        assert_eq!(kinds(&keys, "[key_objects]\nslices = 3").unwrap(), [ObjectKind::KeyObjects(3, None)]);
        let look = CaptureLook { window_center: 80, window_width: 200, opacity_percent: 25 };
        let capture = kinds(&[ObjectName::Capture], "[capture]\nwindow_center = 80\nwindow_width = 200").unwrap();
        assert_eq!(capture, [ObjectKind::Captures(look)]);
        assert_eq!(kinds(&[ObjectName::PresentationState], "").unwrap(), [ObjectKind::Presentation]);
        // For what is forwarded alone; the whole configuration asks for such a rule.
        assert_eq!(kinds(&[], "").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |objects: &[ObjectName], settings: &str, words: &str| {
            let error = kinds(objects, settings).unwrap_err();
            assert!(error.contains(words), "{words:?} is not in {error:?}");
        };
        refused(&[ObjectName::Segmentation; 2], "", "twice");
        refused(&[ObjectName::Report], "[segmentation]", "settings of segmentation");
        refused(&default_objects(), "[report]", "settings of report");
        refused(&default_objects(), "[key_objects]", "without \"key-objects\"");
        refused(&default_objects(), "[capture]", "settings of capture");
        refused(&[ObjectName::KeyObjects], "[key_objects]\nslices = 0", "key_objects.slices");
        refused(&[ObjectName::Capture], "[capture]\nopacity_percent = 101", "opacity_percent");
        refused(&[ObjectName::Capture], "[capture]\nwindow_width = 1", "window_width");
    }
}
