//! DCMTK's tools as scanner and converter, and dciodvfy as judge.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry as _};
use dicom_dictionary_std::StandardDataDictionary;

use super::study::Study;
use super::tools::find;

/// What storescu said.
#[derive(Debug)]
pub(crate) struct StoreReport {
    pub(crate) success: bool,
    /// Its log, verbose.
    pub(crate) log: String,
}

impl StoreReport {
    fn of(output: &Output) -> Self {
        let log = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        Self { success: output.status.success(), log }
    }

    /// How many instances the peer acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.log.matches("Received Store Response (Success)").count()
    }

    /// Panics with the log unless everything was acknowledged.
    #[track_caller]
    pub(crate) fn expect_all(&self, count: usize) {
        assert!(self.success && self.acknowledged() == count, "not all {count} were acknowledged:\n{}", self.log);
    }
}

/// The scanner.
#[derive(Clone, Debug)]
pub(crate) struct StoreScu {
    port: u16,
    calling: &'static str,
    extra: Vec<String>,
}

impl StoreScu {
    /// Sends to ichor on a port, as STORESCU.
    pub(crate) fn to(port: u16) -> Self {
        Self { port, calling: "STORESCU", extra: Vec::new() }
    }

    pub(crate) fn calling(self, calling: &'static str) -> Self {
        Self { calling, ..self }
    }

    /// Adds an option such as `-xs`, or the value of the one before.
    pub(crate) fn option(mut self, option: &str) -> Self {
        self.extra.push(option.to_owned());
        self
    }

    /// Sends a study's instances on one association and waits for the end.
    pub(crate) fn send(&self, study: &Study) -> StoreReport {
        self.send_files(&study.paths())
    }

    /// Sends files on one association and waits for the end.
    pub(crate) fn send_files(&self, files: &[PathBuf]) -> StoreReport {
        let mut command = Command::new(find("storescu").unwrap());
        command.args(["-v", "-aet", self.calling, "-aec", "ICHOR", "-to", "10", "-td", "60"]).args(&self.extra);
        StoreReport::of(&command.args(["127.0.0.1", &self.port.to_string()]).args(files).output().unwrap())
    }
}

/// Whether a C-ECHO succeeds.
pub(crate) fn echo(port: u16, calling: &str) -> bool {
    Command::new(find("echoscu").unwrap())
        .args(["-aet", calling, "-aec", "ICHOR", "-to", "5", "-ta", "5", "-td", "5", "127.0.0.1", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

/// Writes a copy of a study through a converter, called with each input and output file.
pub(crate) fn converted(study: &Study, folder: &Path, tool: &str, options: &[&str]) -> Study {
    std::fs::create_dir_all(folder).unwrap();
    let tool = find(tool).unwrap();
    for (index, instance) in study.instances.iter().enumerate() {
        let target: PathBuf = folder.join(format!("{index:05}.dcm"));
        let output = Command::new(&tool).args(options).arg(&instance.path).arg(target).output().unwrap();
        assert!(output.status.success(), "{}: {}", tool.display(), String::from_utf8_lossy(&output.stderr));
    }
    Study::load(folder)
}

/// What dcentvfy says of an object beside its sources that it does not say of the sources alone: attributes of patient,
/// study or frame of reference that are not what they were.
pub(crate) fn dcentvfy_complaints(file: &Path, study: &Study) -> Vec<String> {
    let complaints = |files: &[PathBuf]| -> Vec<String> {
        let output = Command::new(find("dcentvfy").unwrap()).args(files).output().unwrap();
        let report = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        report
            .lines()
            .filter(|line| line.contains("Error") || line.contains("Warning"))
            .map(ToOwned::to_owned)
            .collect()
    };
    let sources = study.paths();
    let of_sources = complaints(&sources);
    let mut found = complaints(&[sources, vec![file.to_owned()]].concat());
    found.retain(|complaint| !of_sources.contains(complaint));
    // What the source lacks and the standard wants to be there at least empty (Type 2) is the source's own fault.
    let source = dicom_object::open_file(&study.instances[0].path).unwrap();
    let is_lacking = |complaint: &String| {
        let keyword =
            complaint.split_once("Element=<").and_then(|(_, rest)| rest.split_once('>')).map(|(name, _)| name);
        let tag = keyword.and_then(|keyword| StandardDataDictionary.by_name(keyword)).map(|entry| entry.tag());
        let is_about_presence = complaint.contains("present in one instance but not") || complaint.contains("is empty");
        let value = tag.and_then(|tag| source.element_opt(tag).unwrap()).and_then(|element| element.to_str().ok());
        is_about_presence && tag.is_some() && value.is_none_or(|value| value.trim().is_empty())
    };
    found.retain(|complaint| !is_lacking(complaint));
    found
}

/// What dciodvfy calls an error in a file; empty if it finds none.
pub(crate) fn dciodvfy_errors(file: &Path) -> Vec<String> {
    let output = Command::new(find("dciodvfy").unwrap()).arg(file).output().unwrap();
    let report = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    let is_known = |iod: &&str| report.lines().any(|line| line.trim() == *iod || line.contains(*iod));
    let known = [
        "Segmentation",
        "Comprehensive3DSR",
        "KeyObjectSelectionDocument",
        "SCImage",
        "GrayscaleSoftcopyPresentationState",
    ]
    .iter()
    .find(|iod| is_known(iod));
    assert!(known.is_some(), "dciodvfy did not see an object of ours:\n{report}");
    report.lines().filter(|line| line.starts_with("Error")).map(ToOwned::to_owned).collect()
}
