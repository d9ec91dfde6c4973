//! Who and what a phantom study says that it is. All of it follows from the seed and the options.

use ichor_core::Uid;
use rand::Rng;

use crate::error::PhantomError;
use crate::options::{PhantomOptions, generator, stream};

/// Makers whose kernels and models are imitated by name only in their kind: a phantom's maker is the program.
const KERNELS: [&str; 5] = ["SOFT", "STANDARD", "H31s", "J40s", "FC26"];

/// The study-level attributes of a phantom.
#[derive(Clone, Debug, PartialEq)]
pub struct DicomIdentity {
    /// Patient ID: `SYNTHETIC-<seed>`. Not "phantom": a gate sets series of scanner phantoms aside by that word.
    pub patient_id: String,
    /// Patient's Name.
    pub patient_name: String,
    /// Patient's Sex: M, F or empty.
    pub patient_sex: String,
    /// Patient's Age, as `063Y`.
    pub patient_age: String,
    /// Accession Number.
    pub accession: String,
    /// Study ID.
    pub study_id: String,
    /// Study Date, as `YYYYMMDD`.
    pub study_date: String,
    /// Study Time, as `HHMMSS`.
    pub study_time: String,
    /// Convolution Kernel of the soft-tissue series.
    pub kernel: String,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Frame of Reference UID, shared by all series.
    pub frame_of_reference: Uid,
    key: String,
}

impl DicomIdentity {
    /// The identity of a seed and its options; the same pair always has the same UIDs.
    ///
    /// # Errors
    /// [`PhantomError::Truth`] if the options cannot be put into JSON, which the UIDs are derived from.
    pub fn of(seed: u64, options: &PhantomOptions) -> Result<Self, PhantomError> {
        let key = format!("{seed} {}", serde_json::to_string(options)?);
        let mut rng = generator(seed, stream::IDENTITY);
        let (month, day) = (rng.random_range(1..=12u32), rng.random_range(1..=28u32));
        let (hour, minute) = (rng.random_range(0..24u32), rng.random_range(0..60u32));
        Ok(Self {
            patient_id: format!("SYNTHETIC-{seed}"),
            patient_name: format!("SYNTHETIC^SEED {seed}"),
            patient_sex: ["M", "F", ""][rng.random_range(0..3usize)].to_owned(),
            patient_age: format!("{:03}Y", rng.random_range(22..95u32)),
            accession: format!("PH{:014}", seed % 100_000_000_000_000),
            study_id: format!("{}", seed % 10_000_000_000),
            study_date: format!("2025{month:02}{day:02}"),
            study_time: format!("{hour:02}{minute:02}{:02}", rng.random_range(0..60u32)),
            kernel: KERNELS[rng.random_range(0..KERNELS.len())].to_owned(),
            study_instance: Uid::derive(["ichor-phantom", "study", &key]),
            frame_of_reference: Uid::derive(["ichor-phantom", "frame-of-reference", &key]),
            key,
        })
    }

    /// The UID of a series of this study.
    #[must_use]
    pub fn series(&self, kind: &str) -> Uid {
        Uid::derive(["ichor-phantom", "series", kind, &self.key])
    }

    /// The UID of the instance `index` of a series.
    #[must_use]
    pub fn instance(&self, kind: &str, index: usize) -> Uid {
        Uid::derive(["ichor-phantom", "instance", kind, &index.to_string(), &self.key])
    }
}
