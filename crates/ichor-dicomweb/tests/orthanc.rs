//! The client against a real Orthanc with its DICOMweb plug-in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ichor_core::Uid;
use ichor_dicomweb::{Credentials, InstanceOutcome, StowClient, StowError, StowInstance, StowOptions};

const PLUGIN: &str = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so";

/// A running Orthanc, stopped when dropped.
struct Orthanc {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts an Orthanc with an empty store on a free port; `None` with a printed reason where there is none.
fn start(user: Option<(&str, &str)>) -> Option<Orthanc> {
    drop(rustls::crypto::ring::default_provider().install_default());
    if !Path::new(PLUGIN).exists() {
        eprintln!("skipped: no {PLUGIN}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let users = user.map_or(serde_json::json!({}), |(name, password)| serde_json::json!({ name: password }));
    let configuration = serde_json::json!({
        "StorageDirectory": dir.path().join("store"),
        "IndexDirectory": dir.path().join("store"),
        "HttpPort": port,
        "DicomServerEnabled": false,
        "AuthenticationEnabled": user.is_some(),
        "RegisteredUsers": users,
        "RemoteAccessAllowed": false,
        "Plugins": [PLUGIN],
        "DicomWeb": { "Enable": true, "Root": "/dicom-web/" },
    });
    let file = dir.path().join("orthanc.json");
    std::fs::write(&file, configuration.to_string()).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let binary = if Path::new("/usr/sbin/Orthanc").exists() { "/usr/sbin/Orthanc" } else { "Orthanc" };
    let child = match Command::new(binary).arg(&file).stdout(Stdio::null()).stderr(log).spawn() {
        Ok(child) => child,
        Err(e) => {
            eprintln!("skipped: {binary} cannot be started: {e}");
            return None;
        }
    };
    let orthanc = Orthanc { child, url: format!("http://127.0.0.1:{port}/dicom-web"), _dir: dir };
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30), "Orthanc does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(orthanc)
}

/// A small secondary capture of the study.
fn write(dir: &Path, instance: &str, study: &str) -> StowInstance {
    let object = InMemDicomObject::from_element_iter([
        DataElement::new(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE),
        DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, instance),
        DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, study),
        DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.5"),
        DataElement::new(tags::PATIENT_ID, VR::LO, "P"),
        DataElement::new(tags::MODALITY, VR::CS, "OT"),
    ]);
    let path: PathBuf = dir.join(format!("{instance}.dcm"));
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object.with_meta(meta).unwrap().write_to_file(&path).unwrap();
    StowInstance { sop_instance: Uid::parse(instance).unwrap(), path }
}

#[tokio::test]
async fn stored_and_stored_again() {
    let Some(orthanc) = start(None) else { return };
    let dir = tempfile::tempdir().unwrap();
    let client = StowClient::new(StowOptions::new(&orthanc.url)).unwrap();
    let one = write(dir.path(), "2.25.101", "2.25.9");
    println!("Orthanc: {}", client.store_one(&one.sop_instance, &one.path).await.unwrap());
    // The same object once more, as after a crash between sending and recording.
    client.store_one(&one.sop_instance, &one.path).await.unwrap();

    let study = Uid::parse("2.25.9").unwrap();
    let both = [write(dir.path(), "2.25.102", "2.25.9"), write(dir.path(), "2.25.103", "2.25.9")];
    let outcome = client.store(Some(&study), &both).await.unwrap();
    assert!(outcome.instances.iter().all(|(_, o)| matches!(o, InstanceOutcome::Accepted { .. })), "{outcome:?}");

    // Another study than the URL says: refused by name.
    let stray = write(dir.path(), "2.25.104", "2.25.8");
    let outcome = client.store(Some(&study), std::slice::from_ref(&stray)).await;
    println!("Orthanc on a stray instance: {outcome:?}");
    let accepted =
        matches!(&outcome, Ok(o) if o.instances.iter().any(|(_, o)| matches!(o, InstanceOutcome::Accepted { .. })));
    assert!(!accepted, "{outcome:?}");

    // Acknowledged under its own name, not under the one that we claim.
    let claimed = Uid::parse("2.25.999").unwrap();
    let error = client.store_one(&claimed, &one.path).await.unwrap_err();
    assert!(matches!(error, StowError::Unconfirmed { .. }), "{error}");

    let nonsense = dir.path().join("nonsense.dcm");
    std::fs::write(&nonsense, b"not DICOM").unwrap();
    let error = client.store_one(&claimed, &nonsense).await.unwrap_err();
    println!("Orthanc on nonsense: {error}");
}

#[tokio::test]
async fn credentials_are_asked_for() {
    let Some(orthanc) = start(Some(("ichor", "secret"))) else { return };
    let dir = tempfile::tempdir().unwrap();
    let one = write(dir.path(), "2.25.101", "2.25.9");
    let with = |credentials| {
        let mut options = StowOptions::new(&orthanc.url);
        options.credentials = credentials;
        StowClient::new(options).unwrap()
    };
    let error = with(None).store_one(&one.sop_instance, &one.path).await.unwrap_err();
    assert!(!error.is_permanent() && matches!(error, StowError::Status { status: 401, .. }), "{error}");
    let basic = Credentials::Basic { user: "ichor".to_owned(), password: "secret".to_owned() };
    with(Some(basic)).store_one(&one.sop_instance, &one.path).await.unwrap();
}
