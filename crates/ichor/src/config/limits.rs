//! `[limits]`: how large studies and data sets may be.

use serde::{Deserialize, Serialize};

use super::{Fault, at_least_one, fault};

/// `[limits]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// Instances of one study.
    pub(crate) study_instances: u32,
    /// Depth of nested sequences in a data set.
    pub(crate) nesting: u32,
    /// Elements and items of a data set, all levels together.
    pub(crate) elements: u64,
    /// What a deflated data set may inflate to, in MiB.
    pub(crate) inflated_mib: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { study_instances: 20_000, nesting: 32, elements: 2_000_000, inflated_mib: 4096 }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("limits.study_instances", self.study_instances as usize)?;
        at_least_one("limits.elements", usize::try_from(self.elements).unwrap_or(usize::MAX))?;
        at_least_one("limits.inflated_mib", usize::try_from(self.inflated_mib).unwrap_or(usize::MAX))?;
        // Parsers behind the walk follow the nesting with their stack.
        if self.nesting > 256 {
            return fault("limits.nesting", format!("{} is not between 0 and 256", self.nesting));
        }
        Ok(())
    }
}
