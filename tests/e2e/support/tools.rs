//! Tools that a scenario needs, and what happens without them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A counterpart or judge outside this repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tool {
    /// storescu, echoscu and the converters.
    Dcmtk,
    /// GDCM's converter, for JPEG 2000.
    Gdcm,
    /// Orthanc with its DICOMweb plug-in.
    Orthanc,
    /// David Clunie's validators.
    Dciodvfy,
    /// A Python with fhir.resources.
    FhirResources,
    /// A Python with highdicom.
    Highdicom,
    /// A Python with pynetdicom.
    Pynetdicom,
    /// A Python with dicomweb-client.
    DicomwebClient,
    /// A Python with opentelemetry-proto.
    OpentelemetryProto,
    /// A Python with oidc-provider-mock.
    OidcProvider,
    /// A Python with websocket-client.
    WebsocketClient,
    /// rsyslog, with TLS.
    Rsyslog,
    /// libxml2's xmllint.
    Xmllint,
    /// cornerstone3D, built, with Node and Chromium to run it.
    Viewer,
}

impl Tool {
    fn missing(self) -> Option<&'static str> {
        let found = match self {
            Self::Dcmtk => ["storescu", "echoscu", "dcmcjpeg", "dcmcjpls", "dcmcrle"].iter().all(|t| find(t).is_some()),
            Self::Gdcm => find("gdcmconv").is_some(),
            Self::Orthanc => find("Orthanc").is_some() && Path::new(DICOM_WEB_PLUGIN).exists(),
            Self::Dciodvfy => find("dciodvfy").is_some() && find("dcentvfy").is_some(),
            Self::FhirResources => imports("fhir.resources"),
            Self::Highdicom => imports("highdicom"),
            Self::Pynetdicom => imports("pynetdicom"),
            Self::DicomwebClient => imports("dicomweb_client"),
            Self::OpentelemetryProto => imports("opentelemetry.proto.collector.trace.v1.trace_service_pb2"),
            Self::OidcProvider => imports("oidc_provider_mock"),
            Self::WebsocketClient => imports("websocket"),
            Self::Rsyslog => find("rsyslogd").is_some() && RSYSLOG_TLS.iter().any(|file| Path::new(file).exists()),
            Self::Xmllint => find("xmllint").is_some(),
            Self::Viewer => find("node").is_some() && Path::new(CHROMIUM).exists() && viewer().is_some(),
        };
        (!found).then_some(match self {
            Self::Dcmtk => "DCMTK is not installed",
            Self::Gdcm => "gdcmconv is not installed",
            Self::Orthanc => "Orthanc with its DICOMweb plug-in is not installed",
            Self::Dciodvfy => "dciodvfy (dicom3tools) is not installed",
            Self::FhirResources => "the Python of ICHOR_TEST_PYTHON has no fhir.resources",
            Self::Highdicom => "the Python of ICHOR_TEST_PYTHON has no highdicom",
            Self::Pynetdicom => "the Python of ICHOR_TEST_PYTHON has no pynetdicom",
            Self::DicomwebClient => "the Python of ICHOR_TEST_PYTHON has no dicomweb-client",
            Self::OpentelemetryProto => "the Python of ICHOR_TEST_PYTHON has no opentelemetry-proto",
            Self::OidcProvider => "the Python of ICHOR_TEST_PYTHON has no oidc-provider-mock",
            Self::WebsocketClient => "the Python of ICHOR_TEST_PYTHON has no websocket-client",
            Self::Rsyslog => "rsyslog with rsyslog-gnutls is not installed",
            Self::Xmllint => "xmllint (libxml2-utils) is not installed",
            Self::Viewer => "Node, Chromium, or the viewer of ICHOR_TEST_VIEWER (scripts/setup_viewer.sh) is not there",
        })
    }
}

/// Where Debian puts rsyslog's TLS.
const RSYSLOG_TLS: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so", "/usr/lib/aarch64-linux-gnu/rsyslog/lmnsd_gtls.so"];

/// Where Debian puts Orthanc's DICOMweb plug-in.
pub(crate) const DICOM_WEB_PLUGIN: &str = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so";

/// And its worklist plug-in, which comes with Orthanc itself.
pub(crate) const WORKLIST_PLUGIN: &str = "/usr/share/orthanc/plugins/libModalityWorklists.so";

/// The Python of the judges.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("ICHOR_TEST_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Where Debian puts Chromium.
pub(crate) const CHROMIUM: &str = "/usr/bin/chromium";

/// The folder that `scripts/setup_viewer.sh` has built.
pub(crate) fn viewer() -> Option<PathBuf> {
    std::env::var_os("ICHOR_TEST_VIEWER").map(PathBuf::from).filter(|folder| folder.join("complete").exists())
}

/// Whether the Python has a package.
fn imports(package: &str) -> bool {
    let mut command = Command::new(python());
    command.args(["-c", &format!("import {package}")]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An executable on the path, or among the system's daemons.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Whether all the tools are there. If not, says so past the test runner's capture; under `ICHOR_REQUIRE_TOOLS=1` it
/// panics instead.
pub(crate) fn available(tools: &[Tool]) -> bool {
    let Some(reason) = tools.iter().find_map(|tool| tool.missing()) else { return true };
    assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none_or(|v| v != "1"), "{reason}");
    skipped(reason);
    false
}

/// Prints that the present test tests nothing, and why.
pub(crate) fn skipped(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    // Not eprintln!, which the test runner captures: a skip must be seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

/// Ends the test unless all the tools are there.
macro_rules! requires {
    ($($tool:ident),+ $(,)?) => {
        if !$crate::support::tools::available(&[$($crate::support::tools::Tool::$tool),+]) {
            return;
        }
    };
}
pub(crate) use requires;
