//! An `ichor serve` of our own, and its command line beside it.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::orthanc::Orthanc;
use super::raw::RawAssociation;
use super::scratch::Scratch;
use super::tools::python;
use super::{eventually, free_port, seconds};

/// The binary under test.
pub(crate) const ICHOR: &str = env!("CARGO_BIN_EXE_ichor");

/// The bearer token of the STOW-RS client.
pub(crate) const WEB_TOKEN: &str = "test-token-0123456789";

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The settings that the scenarios vary.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) quiet_period_s: f64,
    pub(crate) min_free_mib: u64,
    pub(crate) max_associations: usize,
    /// Blobs elsewhere than in the daemon's own folder.
    pub(crate) blobs: Option<PathBuf>,
    pub(crate) idle_timeout_s: f64,
    pub(crate) pdu_timeout_s: f64,
    pub(crate) destinations: Vec<Destination>,
    /// `[analysis]`, as TOML.
    pub(crate) analysis: String,
    /// Further sections of the configuration, as TOML.
    pub(crate) sections: String,
    /// Whether there is a DICOMweb service.
    pub(crate) stow: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            quiet_period_s: 1.0,
            min_free_mib: 16,
            max_associations: 16,
            blobs: None,
            idle_timeout_s: 20.0,
            pdu_timeout_s: 30.0,
            destinations: Vec::new(),
            // Daemons and counterparts share the cores: a model that runs on idle ones only would wait for all of them.
            analysis: "idle_cores_only = false\n".to_owned(),
            sections: String::new(),
            stow: false,
        }
    }
}

/// Where results go.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// C-STORE to a port on loopback, called ORTHANC.
    CStore { name: &'static str, port: u16, timeout_s: f64 },
    /// STOW-RS to a base URL.
    StowRs { name: &'static str, url: String },
}

impl Destination {
    /// Orthanc's Storage SCP.
    pub(crate) fn c_store(orthanc: &Orthanc) -> Self {
        Self::CStore { name: "pacs", port: orthanc.dicom_port, timeout_s: 10.0 }
    }

    /// Orthanc's DICOMweb plug-in.
    pub(crate) fn stow_rs(orthanc: &Orthanc) -> Self {
        Self::StowRs { name: "web", url: orthanc.dicom_web_url() }
    }

    fn toml(&self) -> String {
        match self {
            Self::CStore { name, port, timeout_s } => format!(
                "\n[[destination]]\nname = {name:?}\nkind = \"c-store\"\naddress = \"127.0.0.1:{port}\"\n\
                 ae_title = \"ORTHANC\"\nfirst_backoff_s = 0.3\nmax_backoff_s = 1.0\ntimeout_s = {timeout_s:?}\n"
            ),
            Self::StowRs { name, url } => format!(
                "\n[[destination]]\nname = {name:?}\nkind = \"stow-rs\"\nurl = {url:?}\nfirst_backoff_s = 0.3\n\
                 max_backoff_s = 1.0\ntimeout_s = 10.0\n"
            ),
        }
    }
}

impl Settings {
    /// Sends results to these.
    pub(crate) fn to(destinations: impl Into<Vec<Destination>>) -> Self {
        Self { destinations: destinations.into(), ..Self::default() }
    }

    fn toml(&self, folder: &Path, port: u16, web_port: u16) -> String {
        let blobs = self.blobs.clone().unwrap_or_else(|| folder.join("blobs"));
        let weights = repository("models/demo/demo.safetensors");
        let mut text = format!(
            "[store]\ndatabase = {:?}\nblobs = {blobs:?}\nmin_free_mib = {}\n\n\
             [listen]\naddress = \"127.0.0.1:{port}\"\nae_title = \"ICHOR\"\nmax_associations = {}\n\
             idle_timeout_s = {:?}\npdu_timeout_s = {:?}\n\n\
             [[source]]\nae_title = \"STORESCU\"\nnetworks = [\"127.0.0.0/8\"]\nquiet_period_s = {:?}\n\n\
             [model]\nweights = {weights:?}\ndevice = \"cpu\"\nthreads = 2\n\n\
             [log]\nlevel = \"info\"\n\n\
             # Small studies are whole heads in few slices.\n\
             [gate]\nmin_slices = 5\nmax_spacing_mm = 40.0\n\n\
             [analysis]\n{}",
            folder.join("ichor.db"),
            self.min_free_mib,
            self.max_associations,
            self.idle_timeout_s,
            self.pdu_timeout_s,
            self.quiet_period_s,
            self.analysis,
        );
        if self.stow {
            let _ = write!(
                text,
                "\n[dicomweb]\naddress = \"127.0.0.1:{web_port}\"\nbody_idle_timeout_s = 5.0\n\n\
                 [[dicomweb.client]]\nname = \"WEB\"\ntoken_file = \"web.token\"\n\
                 networks = [\"127.0.0.0/8\"]\nquiet_period_s = {:?}\nmay = [\"store\", \"search\", \"retrieve\", \"worklist\"]\n",
                self.quiet_period_s,
            );
        }
        for destination in &self.destinations {
            let _ = write!(text, "{}", destination.toml());
        }
        let _ = write!(text, "\n{}", self.sections);
        text
    }
}

/// A daemon in a temporary folder; it is killed with the value.
pub(crate) struct Daemon {
    child: Option<Child>,
    pub(crate) port: u16,
    /// Where STOW-RS is spoken, if it is.
    pub(crate) web_port: u16,
    pub(crate) config: PathBuf,
    pub(crate) blobs: PathBuf,
    // Dropped last: the folder outlives the process.
    scratch: Scratch,
}

/// Resident memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) resident: u64,
    /// The most so far.
    pub(crate) peak: u64,
}

impl Daemon {
    /// Writes a configuration, starts the daemon and waits until it answers a C-ECHO.
    pub(crate) fn start(settings: &Settings) -> Self {
        let scratch = Scratch::new("ichor");
        let (port, web_port) = (free_port(), free_port());
        let config = scratch.path().join("ichor.toml");
        std::fs::write(&config, settings.toml(scratch.path(), port, web_port)).unwrap();
        let token = scratch.path().join("web.token");
        std::fs::write(&token, format!("{WEB_TOKEN}\n")).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let blobs = settings.blobs.clone().unwrap_or_else(|| scratch.path().join("blobs"));
        let mut daemon = Self { child: None, port, web_port, config, blobs, scratch };
        daemon.start_again();
        daemon
    }

    /// What `ichor serve` says when it cannot start with these settings.
    pub(crate) fn refuses_to_start(settings: &Settings) -> String {
        let scratch = Scratch::new("ichor");
        let config = scratch.path().join("ichor.toml");
        std::fs::write(&config, settings.toml(scratch.path(), free_port(), free_port())).unwrap();
        let output = Command::new(ICHOR).args(["serve", "--config"]).arg(&config).output().unwrap();
        assert!(!output.status.success(), "it started and ended with success");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The job log.
    pub(crate) fn database(&self) -> PathBuf {
        self.scratch.path().join("ichor.db")
    }

    /// Rows of the audit trail: actor, action, study.
    pub(crate) fn audited(&self) -> Vec<(String, String, Option<String>)> {
        let query = "import json, sqlite3, sys; rows = sqlite3.connect(sys.argv[1]).execute('SELECT a.actor, a.action, \
                     s.study_instance FROM audit a LEFT JOIN study s ON s.id = a.study_id ORDER BY a.id'); \
                     print(json.dumps(rows.fetchall()))";
        let output = Command::new(python()).args(["-c", query]).arg(self.database()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Details of the audit trail's rows with this action, oldest first.
    pub(crate) fn audit_details(&self, action: &str) -> Vec<Value> {
        let query = "import json, sqlite3, sys; rows = sqlite3.connect(sys.argv[1]).execute('SELECT detail FROM audit \
                     WHERE action = ? ORDER BY id', sys.argv[2:]); \
                     print(json.dumps([json.loads(row[0]) for row in rows]))";
        let output = Command::new(python()).args(["-c", query]).arg(self.database()).arg(action).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts the daemon on the folder that it had before.
    pub(crate) fn start_again(&mut self) {
        self.start_with(&[]);
    }

    /// The same with further arguments of `ichor serve`.
    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        assert!(self.child.is_none(), "the daemon is running");
        let log = OpenOptions::new().create(true).append(true).open(self.scratch.path().join("ichor.log")).unwrap();
        let child = Command::new(ICHOR)
            .args(["serve", "--config"])
            .arg(&self.config)
            .args(arguments)
            // What is set for the tests is not set for a daemon; it must find libtorch by itself.
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("LIBTORCH")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        loop {
            if RawAssociation::open(self.port).and_then(|mut a| a.echo()).is_ok_and(|status| status.code == 0) {
                return;
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("ichor serve ended with {status}");
            }
            assert!(begun.elapsed() < seconds(60), "ichor serve does not answer a C-ECHO");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Base URL of the STOW-RS service.
    pub(crate) fn web_url(&self) -> String {
        format!("http://127.0.0.1:{}/dicom-web", self.web_port)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon is not running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; returns whether the daemon ended by itself with success within the limit.
    pub(crate) fn terminate(&mut self, limit: Duration) -> bool {
        let mut child = self.child.take().expect("the daemon is not running");
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon is not running").id()
    }

    /// Whether the process is there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Nice value and scheduling policy of the daemon's threads, by the beginning of their names (`/proc/PID/task`).
    pub(crate) fn priorities_of(&self, name: &str) -> Vec<(i64, i64)> {
        let pid = self.child.as_ref().expect("the daemon is not running").id();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
        stats
            .filter(|stat| stat.split_once('(').is_some_and(|(_, rest)| rest.starts_with(name)))
            // The name ends with a bracket; the 17th and the 39th field behind it (proc_pid_stat(5)).
            .map(|stat| {
                let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
                (fields[16].parse().unwrap(), fields[38].parse().unwrap())
            })
            .collect()
    }

    /// Resident memory of the daemon (`/proc/PID/status`).
    pub(crate) fn memory(&self) -> Memory {
        let pid = self.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        Memory { resident: field("VmRSS:"), peak: field("VmHWM:") }
    }

    /// What the daemon logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("ichor.log")).unwrap_or_default()
    }

    /// A folder beside the daemon's files, kept with them when the test fails.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.scratch.folder(name)
    }

    /// Runs `ichor studies …` with the daemon's configuration.
    pub(crate) fn studies(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().unwrap();
        Command::new(ICHOR)
            .args(["studies", command, "--config"])
            .arg(&self.config)
            .args(rest)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs `ichor …` with the daemon's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(ICHOR);
        command.args(arguments).arg("--config").arg(&self.config).stdin(Stdio::null());
        command.output().unwrap()
    }

    pub(crate) fn studies_json(&self, arguments: &[&str]) -> Value {
        json(&self.studies(&[arguments, &["--json"]].concat()))
    }

    /// Requests for storage commitment, newest first, as `commitments list` gives them.
    pub(crate) fn commitments(&self) -> Vec<Value> {
        let mut command = Command::new(ICHOR);
        command.args(["commitments", "list", "--json", "--config"]).arg(&self.config);
        json(&command.output().unwrap()).as_array().expect("a list of requests").clone()
    }

    /// The studies of the job log, as `studies list` gives them.
    pub(crate) fn list(&self) -> Vec<Value> {
        self.studies_json(&["list"]).as_array().expect("a list of studies").clone()
    }

    /// One study of the list, if it is there.
    pub(crate) fn find(&self, study_uid: &str) -> Option<Value> {
        self.list().into_iter().find(|study| study["study_instance"] == study_uid)
    }

    /// Everything about one study.
    pub(crate) fn show(&self, study_uid: &str) -> Value {
        self.studies_json(&["show", study_uid])
    }

    /// Every reason that is recorded for a study and its series, as `code: text`.
    pub(crate) fn reasons(&self, study_uid: &str) -> Vec<String> {
        let study = self.show(study_uid);
        let of_series = study["series"].as_array().unwrap().iter().flat_map(|s| s["reasons"].as_array().unwrap());
        let all = of_series.chain([&study["summary"]["reason"]]).filter(|reason| !reason.is_null());
        all.map(|reason| format!("{}: {}", reason["code"].as_str().unwrap(), reason["text"].as_str().unwrap()))
            .collect()
    }

    /// Waits until a study's only object is accepted by a destination, and returns the number of attempts.
    pub(crate) fn wait_for_acceptance(&self, study_uid: &str, destination: &str, limit: Duration) -> u64 {
        eventually(limit, &format!("accepted by {destination}"), || {
            let deliveries = self.deliveries(study_uid, destination);
            match deliveries.as_slice() {
                [(status, attempts)] if status == "accepted" => Ok(*attempts),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Status and attempts of a study's deliveries to a destination.
    pub(crate) fn deliveries(&self, study_uid: &str, destination: &str) -> Vec<(String, u64)> {
        let study = self.show(study_uid);
        let all = study["deliveries"].as_array().unwrap().iter();
        all.filter(|delivery| delivery["destination"] == destination)
            .map(|delivery| (delivery["status"].as_str().unwrap().to_owned(), delivery["attempts"].as_u64().unwrap()))
            .collect()
    }

    /// One study's timeline, for people.
    pub(crate) fn why(&self, study_uid: &str) -> String {
        let output = self.studies(&["why", study_uid]);
        assert!(output.status.success(), "ichor studies why: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The first acknowledgement of a message about a study comes within seconds of the slice that it rests on; prints after
    /// how long.
    #[track_caller]
    pub(crate) fn is_told_in_time(&self, study_uid: &str) {
        let why = self.studies_json(&["why", study_uid]);
        let told: Vec<&Value> = (why["timeline"].as_array().unwrap().iter())
            .filter(|event| event["kind"] == "message-acknowledged")
            .collect();
        let latency = told[0]["detail"]["latency_ms"].as_i64().unwrap();
        println!("{latency} ms from the first suspicious slice to the acknowledgement: {}", told[0]["text"]);
        assert!((0..10_000).contains(&latency), "{latency} ms from the first suspicious slice to the acknowledgement");
    }

    /// Waits until a study has a given status and returns its entry in the list.
    pub(crate) fn wait_for_status(&self, study_uid: &str, status: &str, limit: Duration) -> Value {
        eventually(limit, &format!("study {status}"), || match self.find(study_uid) {
            Some(study) if study["status"] == status => Ok(study),
            Some(study) => Err(study.to_string()),
            None => Err("the job log does not know it".to_owned()),
        })
    }

    /// Waits until a study is in a final state, whichever, and returns its entry in the list.
    pub(crate) fn wait_for_end(&self, study_uid: &str, limit: Duration) -> Value {
        eventually(limit, "a final state", || match self.find(study_uid) {
            Some(s) if ["analysed", "not-analysed", "failed"].iter().any(|end| s["status"] == *end) => Ok(s),
            Some(study) => Err(study.to_string()),
            None => Err("the job log does not know it".to_owned()),
        })
    }

    /// Data sets that lie in the blob folder under a SOP Instance UID, whatever ichor says of them.
    pub(crate) fn stored_data_sets(&self) -> std::collections::HashMap<String, Vec<Vec<u8>>> {
        let mut found: std::collections::HashMap<String, Vec<Vec<u8>>> = std::collections::HashMap::new();
        for file in super::part10::part10_files_below(&self.blobs) {
            let object = super::part10::header(&file);
            let uid = super::part10::text(&object, dicom_dictionary_std::tags::SOP_INSTANCE_UID);
            found.entry(uid).or_default().push(super::part10::data_set(&file));
        }
        found
    }
}

/// What a command of ichor printed.
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e} in {output:?}"))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
