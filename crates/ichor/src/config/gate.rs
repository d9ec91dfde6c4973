//! `[gate]`: which series are analysed.

use ichor_ct::gate::{GateOptions, GateRule};
use serde::{Deserialize, Serialize};

use super::{Fault, at_least_one, between, fault};

/// `[gate]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GateConfig {
    /// Fewest slices of an eligible series.
    pub(crate) min_slices: usize,
    /// Smallest extent of an eligible series, in mm.
    pub(crate) min_coverage_mm: f64,
    /// Largest distance of neighbouring slices, in mm.
    pub(crate) max_spacing_mm: f64,
    /// Most slices that may be missing in a gap.
    pub(crate) max_missing_slices: u32,
    /// Largest angle between the slices' normal and the patient's axis, in degrees (gantry tilt).
    pub(crate) max_tilt_degrees: f64,
    /// Youngest patient, in years.
    pub(crate) min_age_years: f64,
    /// Whether the pixels are looked at where no attribute names the head.
    pub(crate) look_at_pixels: bool,
    /// Whether multi-frame CT is analysed, each frame as a slice.
    pub(crate) multi_frame: bool,
    /// Names of rules that are not asked.
    pub(crate) off: Vec<String>,
}

impl Default for GateConfig {
    fn default() -> Self {
        let gate = GateOptions::default();
        Self {
            min_slices: gate.min_slices,
            min_coverage_mm: gate.min_coverage_mm,
            max_spacing_mm: gate.max_spacing_mm,
            max_missing_slices: gate.max_missing_slices,
            max_tilt_degrees: gate.max_tilt_degrees,
            min_age_years: gate.min_age_years,
            look_at_pixels: gate.look_at_pixels,
            multi_frame: gate.multi_frame,
            off: Vec::new(),
        }
    }
}

impl GateConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("gate.min_slices", self.min_slices)?;
        between("gate.min_coverage_mm", self.min_coverage_mm, 1000.0)?;
        between("gate.max_spacing_mm", self.max_spacing_mm, 100.0)?;
        between("gate.max_tilt_degrees", self.max_tilt_degrees, 90.0)?;
        between("gate.min_age_years", self.min_age_years, 150.0)?;
        for name in &self.off {
            match name.parse::<GateRule>() {
                Err(error) => return fault("gate.off", error.to_string()),
                Ok(rule) if !rule.may_be_off() => {
                    return fault("gate.off", format!("the analysis cannot do without {name:?}"));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The settings as the gate takes them.
    pub(crate) fn options(&self) -> GateOptions {
        GateOptions {
            min_slices: self.min_slices,
            min_coverage_mm: self.min_coverage_mm,
            max_spacing_mm: self.max_spacing_mm,
            max_missing_slices: self.max_missing_slices,
            max_tilt_degrees: self.max_tilt_degrees,
            min_age_years: self.min_age_years,
            look_at_pixels: self.look_at_pixels,
            multi_frame: self.multi_frame,
            off: self.off.iter().filter_map(|name| name.parse().ok()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_switched_off_by_name() {
        let off = |name: &str| GateConfig { off: vec![name.to_owned()], ..GateConfig::default() };
        assert!(off("adult").check().is_ok());
        assert!(off("adult").options().is_off(GateRule::Adult));
        let (key, message) = off("adults").check().unwrap_err();
        assert!(key == "gate.off" && message.contains("not-phantom"), "{message}");
        assert!(off("hounsfield").check().unwrap_err().1.contains("cannot do without"));
    }
}
