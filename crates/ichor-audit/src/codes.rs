//! Codes of audit messages (PS3.15 A.5, PS3.16 CIDs 400 to 406), and those of RFC 3881 that they refer to.

use crate::Code;

const fn dcm(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "DCM", meaning }
}

/// CID 400: an application has started or stopped.
pub const APPLICATION_ACTIVITY: Code = dcm("110100", "Application Activity");
/// CID 400: instances were viewed, used or changed.
pub const INSTANCES_ACCESSED: Code = dcm("110103", "DICOM Instances Accessed");
/// CID 400: instances went from one node to another.
pub const INSTANCES_TRANSFERRED: Code = dcm("110104", "DICOM Instances Transferred");
/// CID 400: a study was deleted.
pub const STUDY_DELETED: Code = dcm("110105", "DICOM Study Deleted");
/// CID 400: something was asked.
pub const QUERY: Code = dcm("110112", "Query");
/// CID 400: something that security has to know of.
pub const SECURITY_ALERT: Code = dcm("110113", "Security Alert");
/// CID 400: somebody came in, went out, or tried.
pub const USER_AUTHENTICATION: Code = dcm("110114", "User Authentication");

/// CID 401: an application starts.
pub const APPLICATION_START: Code = dcm("110120", "Application Start");
/// CID 401: an application stops.
pub const APPLICATION_STOP: Code = dcm("110121", "Application Stop");
/// CID 401: somebody comes in.
pub const LOGIN: Code = dcm("110122", "Login");
/// CID 401: somebody goes out.
pub const LOGOUT: Code = dcm("110123", "Logout");
/// CID 403: a node is not who it should be.
pub const NODE_AUTHENTICATION: Code = dcm("110126", "Node Authentication");
/// CID 403: what the software does was changed.
pub const SOFTWARE_CONFIGURATION: Code = dcm("110131", "Software Configuration");
/// CID 403: something was done that not everybody may do.
pub const USE_OF_RESTRICTED_FUNCTION: Code = dcm("110132", "Use of Restricted Function");
/// CID 403: what a user may do, or shows to come in, was changed.
pub const USER_SECURITY_ATTRIBUTES_CHANGED: Code = dcm("110137", "User Security Attributes Changed");

/// CID 402: the program that reports.
pub const APPLICATION: Code = dcm("110150", "Application");
/// CID 402: where something goes.
pub const DESTINATION_ROLE: Code = dcm("110152", "Destination Role ID");
/// CID 402: where something comes from, or who asks.
pub const SOURCE_ROLE: Code = dcm("110153", "Source Role ID");

/// CID 404: what identifies a study.
pub const STUDY_INSTANCE_UID: Code = dcm("110180", "Study Instance UID");
/// CID 404: what identifies a node.
pub const NODE_ID: Code = dcm("110182", "Node ID");
/// RFC 3881 5.5.4: what identifies a patient.
pub const PATIENT_NUMBER: Code = Code { value: "2", scheme: "RFC-3881", meaning: "Patient Number" };
/// RFC 3881 5.5.4: what identifies a question.
pub const SEARCH_CRITERIA: Code = Code { value: "10", scheme: "RFC-3881", meaning: "Search Criteria" };
