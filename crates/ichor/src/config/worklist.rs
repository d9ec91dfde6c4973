//! `[worklist]`: workitems for those who read and those who process (UPS-RS), at the address of `[dicomweb]`.

use ichor_core::AeTitle;
use serde::{Deserialize, Serialize};

use super::{Fault, at_least_one, fault};

/// `[worklist]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WorklistConfig {
    /// Whether each finished study makes a workitem for whoever reads it.
    pub(crate) reading: bool,
    /// Where the images of such a workitem can be had by C-MOVE or C-GET; absent: ichor's own AE title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retrieve_ae_title: Option<AeTitle>,
    /// Longest body of a request, in KiB.
    pub(crate) max_workitem_kib: usize,
    /// Most workitems in the answer to a search.
    pub(crate) max_results: u32,
}

impl Default for WorklistConfig {
    fn default() -> Self {
        Self { reading: true, retrieve_ae_title: None, max_workitem_kib: 1024, max_results: 1000 }
    }
}

impl WorklistConfig {
    pub(super) fn check(&self, has_dicomweb: bool) -> Result<(), Fault> {
        at_least_one("worklist.max_workitem_kib", self.max_workitem_kib)?;
        at_least_one("worklist.max_results", self.max_results as usize)?;
        if !has_dicomweb {
            return fault("worklist", "workitems are served at the address of [dicomweb], which is missing".to_owned());
        }
        Ok(())
    }
}
