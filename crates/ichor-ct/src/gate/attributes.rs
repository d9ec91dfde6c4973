//! Rules that one instance answers for itself.

use ichor_core::Reason;

use super::{GateOptions, GateRule};
use crate::body::{is_head, is_other_body_part};
use crate::header::InstanceHeader;
use crate::kernel::is_sharp_kernel;
use crate::words::{Description, is_no_agent, words};

/// What a rule says of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It keeps the rule.
    Passed(String),
    /// It does not say.
    Unknown(String),
    /// It breaks the rule.
    Failed(Reason),
}

fn passed(text: impl Into<String>) -> Judgement {
    Judgement::Passed(text.into())
}

fn unknown(text: impl Into<String>) -> Judgement {
    Judgement::Unknown(text.into())
}

fn failed(code: &'static str, text: impl Into<String>) -> Judgement {
    Judgement::Failed(Reason::new(code, text))
}

/// Asks a rule of one instance; `None`: only a stack of slices can answer it.
pub(crate) fn judge(rule: GateRule, header: &InstanceHeader, options: &GateOptions) -> Option<Judgement> {
    Some(match rule {
        GateRule::Ct => ct(header),
        GateRule::SingleFrame => single_frame(header, options),
        GateRule::Section => section(header),
        GateRule::NotPhantom => not_phantom(header),
        GateRule::Adult => adult(header, options),
        GateRule::Head => head(header),
        GateRule::NonContrast => non_contrast(header),
        GateRule::SoftTissueKernel => soft_tissue_kernel(header),
        GateRule::Hounsfield => hounsfield(header),
        GateRule::Geometry => geometry(header),
        GateRule::Axial => axial(header, options),
        GateRule::Slices | GateRule::Coverage | GateRule::Spacing | GateRule::Gaps => return None,
    })
}

/// What the Series Description says.
pub(crate) fn describe(header: &InstanceHeader) -> Description {
    header.series_description.as_deref().map_or_else(Description::default, Description::new)
}

fn ct(header: &InstanceHeader) -> Judgement {
    if header.is_ct_image() || header.is_enhanced_ct() {
        return passed("CT images");
    }
    failed("not-ct", format!("not a CT image: modality {:?}, SOP class {}", header.modality, header.sop_class))
}

fn single_frame(header: &InstanceHeader, options: &GateOptions) -> Judgement {
    match (header.is_enhanced_ct(), options.multi_frame) {
        (false, _) => passed("one frame an instance"),
        (true, true) if header.frame.is_some() => passed("multi-frame, each frame a slice"),
        (true, true) => failed("enhanced-ct", "multi-frame CT whose frames were not told apart"),
        (true, false) => failed("enhanced-ct", "multi-frame CT is not analysed here"),
    }
}

fn section(header: &InstanceHeader) -> Judgement {
    let is = |value: &str| header.image_type.iter().any(|part| part == value);
    if is("LOCALIZER") || is("SCOUT") {
        return failed("localizer", "localizer");
    }
    if let Some(kind) = view(&header.image_type) {
        return failed("reformatted", format!("a view of a volume ({kind})"));
    }
    match header.image_type.is_empty() {
        true => unknown("there is no Image Type"),
        false if is_reformatted(header) => passed("sections computed from others"),
        false => passed("sections"),
    }
}

/// The value of an Image Type that says that the pixels are a view of a volume, not a section through it.
fn view(image_type: &[String]) -> Option<&str> {
    const VIEWS: [&str; 7] = ["3D", "MINIP", "MIP", "PROJECTION", "SSD", "VOLREN", "VRT"];
    let is_original = image_type.first().is_some_and(|pixels| pixels == "ORIGINAL");
    let is_view = |value: &str| {
        // "3D" is said of the scan, too.
        let is_known = |word: &String| VIEWS.contains(&word.as_str()) && !(is_original && word == "3D");
        ["MAX_IP", "MIN_IP"].contains(&value) || words(value).iter().any(is_known)
    };
    image_type.iter().map(String::as_str).find(|value| is_view(value))
}

/// Whether images are sections computed from others, as Siemens (MPR) and GE (REFORMATTED) mark them.
pub(crate) fn is_reformatted(header: &InstanceHeader) -> bool {
    let marks = ["CSAPARALLEL", "MPR", "REFORMATTED"];
    header.image_type.iter().flat_map(|value| words(value)).any(|word| marks.contains(&word.as_str()))
}

fn not_phantom(header: &InstanceHeader) -> Judgement {
    match header.phantom {
        Some(attribute) => failed("phantom", format!("{attribute} is that of a phantom or of quality assurance")),
        None => passed("no name of a phantom or of quality assurance"),
    }
}

fn adult(header: &InstanceHeader, options: &GateOptions) -> Judgement {
    let least = options.min_age_years;
    match header.age_years {
        None => unknown("neither an age nor a date of birth is known"),
        Some(age) if age >= least => passed(format!("{least} years or older")),
        Some(_) => failed("not-adult", format!("younger than {least} years")),
    }
}

fn head(header: &InstanceHeader) -> Judgement {
    let part = header.body_part.as_deref();
    if let Some(part) = part.filter(|part| is_other_body_part(part)) {
        return failed("not-head", format!("Body Part Examined is {part:?}"));
    }
    if let Some(part) = part.filter(|part| is_head(part)) {
        return passed(format!("Body Part Examined is {part:?}"));
    }
    let texts = [
        ("Series Description", &header.series_description),
        ("Protocol Name", &header.protocol),
        ("Study Description", &header.study_description),
    ];
    let named = texts.iter().find(|(_, text)| text.as_deref().is_some_and(is_head));
    match (named, part) {
        (Some((name, _)), _) => passed(format!("{name} names the head")),
        (None, Some(part)) => unknown(format!("Body Part Examined is {part:?}, and no description names the head")),
        (None, None) => unknown("Body Part Examined is empty, and no description names the head"),
    }
}

fn non_contrast(header: &InstanceHeader) -> Judgement {
    if let Some(agent) = header.contrast.as_deref().filter(|agent| !is_no_agent(agent)) {
        return failed("contrast", format!("Contrast/Bolus Agent is {agent:?}"));
    }
    let description = describe(header);
    if let Some(word) = description.angiography {
        return failed("contrast", format!("Series Description tells of contrast ({word})"));
    }
    match (description.contrast, &header.contrast) {
        (true, _) => unknown("no agent is named, but Series Description tells of contrast"),
        (false, Some(agent)) => passed(format!("Contrast/Bolus Agent is {agent:?}")),
        (false, None) => passed("no agent is named"),
    }
}

fn soft_tissue_kernel(header: &InstanceHeader) -> Judgement {
    match header.kernel.as_deref() {
        None => unknown("there is no Convolution Kernel"),
        Some(kernel) if is_sharp_kernel(kernel) => {
            failed("bone-kernel", format!("Convolution Kernel {kernel:?} is for bone or lung"))
        }
        Some(kernel) => passed(format!("Convolution Kernel {kernel:?}")),
    }
}

fn hounsfield(header: &InstanceHeader) -> Judgement {
    match &header.unscaled {
        Some(reason) => Judgement::Failed(reason.clone()),
        None => passed("slope and intercept give Hounsfield units"),
    }
}

fn geometry(header: &InstanceHeader) -> Judgement {
    match &header.plane {
        Err(reason) => Judgement::Failed(reason.clone()),
        Ok(_) => passed("each image has its place"),
    }
}

fn axial(header: &InstanceHeader, options: &GateOptions) -> Judgement {
    let Ok(plane) = &header.plane else { return unknown("there is no plane") };
    let tilt = plane.normal()[2].abs().clamp(0.0, 1.0).acos().to_degrees();
    let most = options.max_tilt_degrees;
    if tilt > most {
        return failed("not-axial", format!("slices stand {tilt:.0} degrees off axial, at most {most} are accepted"));
    }
    passed(format!("{tilt:.1} degrees off axial"))
}
