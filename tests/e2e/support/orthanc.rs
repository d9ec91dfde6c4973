//! An Orthanc of our own, with its DICOMweb plug-in.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answering_peer::ScheduledStep;
use super::scratch::Scratch;
use super::study::Study;
use super::tools::{DICOM_WEB_PLUGIN, WORKLIST_PLUGIN, find};
use super::{free_port, http, seconds};

/// A PACS. It ends with the value.
pub(crate) struct Orthanc {
    child: Child,
    pub(crate) http_port: u16,
    pub(crate) dicom_port: u16,
    scratch: Scratch,
}

/// Starts the program on the configuration in a folder.
fn spawn(folder: &Path) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(folder.join("orthanc.log")).unwrap();
    Command::new(find("Orthanc").unwrap())
        .arg(folder.join("orthanc.json"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A Segmentation in the PACS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredSegmentation {
    pub(crate) sop_instance: String,
    orthanc_id: String,
}

impl Orthanc {
    /// Starts one on free ports.
    pub(crate) fn start() -> Self {
        Self::start_on(free_port(), free_port())
    }

    /// Starts one on given ports and waits until it answers.
    pub(crate) fn start_on(http_port: u16, dicom_port: u16) -> Self {
        Self::start_as(http_port, dicom_port, &[])
    }

    /// Starts one that is a worklist, too.
    pub(crate) fn with_worklist(steps: &[ScheduledStep<'_>]) -> Self {
        Self::start_as(free_port(), free_port(), steps)
    }

    fn start_as(http_port: u16, dicom_port: u16, steps: &[ScheduledStep<'_>]) -> Self {
        let scratch = Scratch::new("orthanc");
        let worklist = scratch.folder("worklist");
        steps.iter().for_each(|step| step.write(&worklist));
        let plugins = if steps.is_empty() { vec![DICOM_WEB_PLUGIN] } else { vec![DICOM_WEB_PLUGIN, WORKLIST_PLUGIN] };
        let configuration = json!({
            "Worklists": { "Enable": !steps.is_empty(), "Database": worklist },
            "Name": "ichor-test",
            "StorageDirectory": scratch.folder("storage"),
            "IndexDirectory": scratch.folder("index"),
            "Plugins": plugins,
            "HttpPort": http_port,
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": false,
            "DicomAet": "ORTHANC",
            "DicomPort": dicom_port,
            "DicomCheckCalledAet": true,
            "DicomAlwaysAllowStore": true,
            "DicomModalities": { "ichor": ["ICHOR", "127.0.0.1", 104] },
            "UnknownSopClassAccepted": false,
            "DicomWeb": { "Enable": true, "Root": "/dicom-web/", "EnableWado": false },
        });
        let file = scratch.path().join("orthanc.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&configuration).unwrap()).unwrap();
        let child = spawn(scratch.path());
        let mut orthanc = Self { child, http_port, dicom_port, scratch };
        orthanc.wait_until_ready();
        orthanc
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it on what it had kept.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.scratch.path());
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        while http::get_json(self.http_port, "/system").is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("Orthanc ended with {status}");
            }
            assert!(begun.elapsed() < seconds(30), "Orthanc does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a study on by STOW-RS, and returns Orthanc's answer.
    pub(crate) fn stow(&self, url: &str, token: &str, study: &Study) -> Result<Value, String> {
        self.keep(study);
        let server = json!({ "Url": url, "HttpHeaders": { "Authorization": format!("Bearer {token}") } });
        http::put(self.http_port, "/dicom-web/servers/ichor", server.to_string().as_bytes())?;
        let found = self.ask("/studies");
        let [Value::String(id)] = found.as_array().unwrap().as_slice() else { panic!("{found} in Orthanc") };
        let order = json!({ "Resources": [id], "Synchronous": true });
        let answer = http::post(self.http_port, "/dicom-web/servers/ichor/stow", order.to_string().as_bytes())?;
        serde_json::from_slice(&answer).map_err(|error| error.to_string())
    }

    /// Sends a study to ichor by C-STORE and asks for storage commitment; returns the Transaction UID.
    pub(crate) fn store_and_commit(&self, port: u16, study: &Study) -> String {
        self.knows_ichor(port);
        let ids: Vec<Value> =
            study.instances.iter().map(|instance| self.upload(&instance.path)["ID"].clone()).collect();
        let order = json!({ "Resources": ids, "Synchronous": true, "StorageCommitment": true });
        let job = self.post("/modalities/ichor/store", &order);
        job["StorageCommitmentTransactionUID"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned()
    }

    /// Asks ichor for storage commitment of instances, each a SOP Class UID and a SOP Instance UID; returns the
    /// Transaction UID.
    pub(crate) fn ask_for_commitment(&self, instances: &[(&str, &str)]) -> String {
        let answer = self.post("/modalities/ichor/storage-commitment", &json!({ "DicomInstances": instances }));
        answer["ID"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// What Orthanc knows of a transaction; its `Status` is `Pending` until there is a report.
    pub(crate) fn commitment_report(&self, transaction: &str) -> Value {
        self.ask(&format!("/storage-commitment/{transaction}"))
    }

    /// Tells it where ichor listens, for reports and for sending.
    pub(crate) fn knows_ichor(&self, port: u16) {
        self.knows_ichor_as("ICHOR", port);
    }

    /// Lets it take another title for ichor's.
    pub(crate) fn forgets_ichor(&self) {
        self.knows_ichor_as("ELSEWHERE", 104);
    }

    /// Tells it a title and a port by the name of ichor.
    pub(crate) fn knows_ichor_as(&self, title: &str, port: u16) {
        let modality = json!({ "AET": title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": true });
        http::put(self.http_port, "/modalities/ichor", modality.to_string().as_bytes()).unwrap();
    }

    /// Puts a study into the PACS.
    pub(crate) fn keep(&self, study: &Study) {
        for instance in &study.instances {
            self.upload(&instance.path);
        }
    }

    fn upload(&self, file: &Path) -> Value {
        serde_json::from_slice(&http::post(self.http_port, "/instances", &std::fs::read(file).unwrap()).unwrap())
            .unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        serde_json::from_slice(&http::post(self.http_port, path, body.to_string().as_bytes()).unwrap()).unwrap()
    }

    /// Base of the DICOMweb service.
    pub(crate) fn dicom_web_url(&self) -> String {
        format!("http://127.0.0.1:{}/dicom-web", self.http_port)
    }

    fn ask(&self, path: &str) -> Value {
        http::get_json(self.http_port, path).unwrap()
    }

    /// The Segmentations of a study, each SOP instance once.
    pub(crate) fn segmentations(&self, study_uid: &str) -> Vec<StoredSegmentation> {
        self.objects(study_uid, "SEG")
    }

    /// Loses a Segmentation.
    pub(crate) fn lose(&self, segmentation: &StoredSegmentation) {
        http::delete(self.http_port, &format!("/instances/{}", segmentation.orthanc_id)).unwrap();
    }

    /// The objects of a modality in a study.
    pub(crate) fn objects(&self, study_uid: &str, modality: &str) -> Vec<StoredSegmentation> {
        let mut found = Vec::new();
        for series in self.ask("/series?expand").as_array().unwrap() {
            if series["MainDicomTags"]["Modality"] != modality {
                continue;
            }
            let study = self.ask(&format!("/studies/{}", series["ParentStudy"].as_str().unwrap()));
            if study["MainDicomTags"]["StudyInstanceUID"] != study_uid {
                continue;
            }
            for id in series["Instances"].as_array().unwrap() {
                let orthanc_id = id.as_str().unwrap().to_owned();
                let instance = self.ask(&format!("/instances/{orthanc_id}"));
                let sop_instance = instance["MainDicomTags"]["SOPInstanceUID"].as_str().unwrap().to_owned();
                found.push(StoredSegmentation { sop_instance, orthanc_id });
            }
        }
        found
    }

    /// Everything in the PACS, counted.
    pub(crate) fn instance_count(&self) -> usize {
        self.ask("/instances").as_array().unwrap().len()
    }

    /// SOP Instance UIDs of everything in the PACS.
    pub(crate) fn every_instance(&self) -> Vec<String> {
        let all = self.ask("/instances?expand");
        let uid = |one: &Value| one["MainDicomTags"]["SOPInstanceUID"].as_str().unwrap().to_owned();
        all.as_array().unwrap().iter().map(uid).collect()
    }

    /// Waits for the one Segmentation of a study.
    pub(crate) fn wait_for_segmentation(&self, study_uid: &str, limit: Duration) -> StoredSegmentation {
        self.wait_for_object(study_uid, "SEG", limit)
    }

    /// The one object of a modality, once it is there.
    pub(crate) fn wait_for_object(&self, study_uid: &str, modality: &str, limit: Duration) -> StoredSegmentation {
        super::eventually(limit, "an object in Orthanc", || match self.objects(study_uid, modality).as_slice() {
            [one] => Ok(one.clone()),
            several => Err(format!("{} of {modality}", several.len())),
        })
    }

    /// Watches for `span` that a study's only Segmentation stays the only one.
    #[track_caller]
    pub(crate) fn keeps_only(&self, study_uid: &str, segmentation: &StoredSegmentation, span: Duration) {
        super::stays(span, || assert_eq!(self.segmentations(study_uid), std::slice::from_ref(segmentation)));
    }

    /// What the PACS shows of an image: a PNG.
    pub(crate) fn preview(&self, image: &StoredSegmentation) -> Vec<u8> {
        http::get(self.http_port, &format!("/instances/{}/preview", image.orthanc_id)).unwrap()
    }

    /// Fetches an object as the PACS returns it.
    pub(crate) fn fetch(&self, segmentation: &StoredSegmentation) -> PathBuf {
        let bytes = http::get(self.http_port, &format!("/instances/{}/file", segmentation.orthanc_id)).unwrap();
        let path = self.scratch.path().join(format!("{}.dcm", segmentation.sop_instance));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
