//! What is kept, as the services that search and retrieve it see it.

use std::io::Read;

use ichor_core::Uid;
use serde_json::{Map, Value};
use thiserror::Error;

use super::handler::Sender;

/// A data set in the DICOM JSON Model (PS3.18 F.2).
pub type JsonDataSet = Map<String, Value>;

/// Why something kept cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArchiveFault {
    /// There is no such thing: 404.
    #[error("{0}")]
    NotThere(String),
    /// It cannot be had in this form: 406.
    #[error("{0}")]
    Unsupported(String),
    /// It should be there, and cannot be read: 500.
    #[error("{0}")]
    Broken(String),
    /// Something needed is not available just now: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// Which studies may answer a search; what they leave is matched again. Empty fields do not filter. Texts are patterns with
/// `*` and `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Any of these studies.
    pub studies: Vec<Uid>,
    /// Holding any of these series.
    pub series: Vec<Uid>,
    /// Holding any of these instances.
    pub instances: Vec<Uid>,
    /// Patient ID.
    pub patient_id: Option<String>,
    /// Patient's Name, whatever its case.
    pub patient_name: Option<String>,
    /// Accession Number.
    pub accession_number: Option<String>,
    /// Study Date from and to, YYYYMMDD, both inclusive.
    pub dates: (Option<String>, Option<String>),
}

/// A study.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldStudy {
    /// Where the next page begins.
    pub place: i64,
    /// Study Instance UID.
    pub study: Uid,
    /// What the index knows of it: stands where no header says it.
    pub attributes: JsonDataSet,
}

/// An instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// Transfer Syntax UID of the stored file.
    pub transfer_syntax: Uid,
    /// Length of the stored file, in bytes.
    pub size: u64,
    /// What tells its bytes from all others: letters and digits.
    pub tag: String,
    /// What the index knows of its series.
    pub attributes: JsonDataSet,
    /// The archive's own name for its bytes.
    pub place: std::path::PathBuf,
}

/// What was looked at, for the audit trail.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Stable word, such as `studies-searched`.
    pub action: &'static str,
    /// The study; absent of a search over several.
    pub study: Option<Uid>,
    /// What exactly.
    pub detail: Value,
    /// Whether more of the same within a while is the same view: frames and pictures of a study, one after the other.
    pub is_part: bool,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameBytes {
    /// Transfer Syntax UID that they are in.
    pub transfer_syntax: Uid,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A function from values to greys (PS3.3 C.11.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiFunction {
    /// LINEAR.
    Linear,
    /// LINEAR_EXACT.
    LinearExact,
    /// SIGMOID.
    Sigmoid,
}

/// Form of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureForm {
    /// image/png.
    Png,
    /// image/jpeg of this quality, 1 to 100.
    Jpeg(u8),
}

/// How a picture is to be drawn (PS3.18 8.3.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rendering {
    /// Centre, width and function; absent: what the object says, else all of its values.
    pub window: Option<(f64, f64, VoiFunction)>,
    /// Largest width and height.
    pub viewport: Option<(u32, u32)>,
    /// Left, top, width and height of the part of the image that is shown, in its pixels.
    pub region: Option<(u32, u32, u32, u32)>,
    /// What it is written as.
    pub form: PictureForm,
}

/// What is kept. Every function may block; they are called on threads that may be blocked.
pub trait Archive: Send + Sync + 'static {
    /// Studies that may fit, in a lasting order, a page of at most `limit`; `after` is the place of the last one seen.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn studies(&self, candidates: &Candidates, after: Option<i64>, limit: u32) -> Result<Vec<HeldStudy>, ArchiveFault>;

    /// Instances of a study, of a series of it, or one instance, series by series; none if there is no such thing.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn instances(&self, study: &Uid, series: Option<&Uid>, instance: Option<&Uid>) -> Result<Vec<Held>, ArchiveFault>;

    /// How many instances of a study, or of a series of it, were here and are no longer kept.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn given_up(&self, study: &Uid, series: Option<&Uid>) -> Result<u64, ArchiveFault>;

    /// Study and series of an instance.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn holder_of(&self, instance: &Uid) -> Result<Option<(Uid, Uid)>, ArchiveFault>;

    /// Writes down who looks at what. Nothing is answered before this has returned.
    ///
    /// # Errors
    /// [`ArchiveFault`]: then nothing is answered.
    fn audit(&self, who: &Sender, access: &Access) -> Result<(), ArchiveFault>;

    /// The data set without pixels. Binary values are left out longer than a few bytes, and stand as `BulkDataURI`, which
    /// begins with `bulk`, and goes on with the tag (PS3.18 F.2.2), for one in a sequence with those of the way there.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn metadata(&self, held: &Held, bulk: &str) -> Result<JsonDataSet, ArchiveFault>;

    /// The stored file.
    ///
    /// # Errors
    /// [`ArchiveFault`], if it is not as long as [`Held::size`] says, too.
    fn open(&self, held: &Held) -> Result<Box<dyn Read + Send>, ArchiveFault>;

    /// The file in Explicit VR Little Endian.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn transcoded(&self, held: &Held) -> Result<Vec<u8>, ArchiveFault>;

    /// How many frames an image has.
    ///
    /// # Errors
    /// [`ArchiveFault`], if it is none, too.
    fn frames(&self, held: &Held) -> Result<u32, ArchiveFault>;

    /// A frame, counted from 1: as it is stored, or uncompressed in little endian order.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn frame(&self, held: &Held, frame: u32, is_native: bool) -> Result<FrameBytes, ArchiveFault>;

    /// A picture of a frame, counted from 1.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn rendered(&self, held: &Held, frame: u32, rendering: &Rendering) -> Result<Vec<u8>, ArchiveFault>;

    /// A binary value: its tag, behind those of the sequences on the way there, each with the number of its item from 1.
    ///
    /// # Errors
    /// [`ArchiveFault`].
    fn bulk(&self, held: &Held, way: &[(String, u32)], tag: &str) -> Result<Vec<u8>, ArchiveFault>;
}
