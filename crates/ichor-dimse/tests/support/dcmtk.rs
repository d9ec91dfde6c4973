//! DCMTK's tools as counterparts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ichor_core::Uid;
use ichor_dimse::part10::{Part10Meta, write_header};

use super::{CT, PATIENCE, uid};

/// Whether the tools are here; says so if not, and fails where they are required.
pub fn available(tools: &[&str]) -> bool {
    for tool in tools {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none(), "{tool} of DCMTK is required");
            eprintln!("skipped: {tool} of DCMTK is not installed");
            return false;
        }
    }
    true
}

/// Runs a tool to its end, off the runtime's threads.
pub async fn run(tool: &str, arguments: &[&str]) -> Output {
    let (tool, arguments) = (tool.to_owned(), arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    tokio::task::spawn_blocking(move || Command::new(&tool).args(&arguments).output().unwrap()).await.unwrap()
}

/// Runs a tool that must succeed.
pub async fn succeed(tool: &str, arguments: &[&str]) -> String {
    let output = run(tool, arguments).await;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {text}");
    text
}

/// A DICOM file in Explicit VR Little Endian.
pub fn write_file(folder: &Path, instance: &str, data_set: &[u8]) -> PathBuf {
    let meta = Part10Meta {
        sop_class: uid(CT),
        sop_instance: uid(instance),
        transfer_syntax: uid(super::EXPLICIT),
        source_ae: None,
    };
    write_part10(&folder.join(format!("{instance}.dcm")), &meta, data_set)
}

pub fn write_part10(path: &Path, meta: &Part10Meta, data_set: &[u8]) -> PathBuf {
    std::fs::write(path, [write_header(meta), data_set.to_vec()].concat()).unwrap();
    path.to_owned()
}

/// A data set as dcmdump tells it, without file meta information and comments.
pub async fn dump(path: &Path) -> String {
    let text = succeed("dcmdump", &["-q", "+L", "+R", "4096", path.to_str().unwrap()]).await;
    let data_set = text.lines().filter(|line| line.starts_with('(') && !line.starts_with("(0002"));
    // The lengths of sequences and items may be written either way.
    data_set.map(|line| line.split('#').next().unwrap_or_default().trim_end()).collect::<Vec<_>>().join("\n")
}

/// The pixels that DCMTK decodes, little endian.
pub async fn pixels(path: &Path, folder: &Path) -> Vec<u8> {
    let plain = folder.join("plain.dcm");
    let (from, to) = (path.to_str().unwrap(), plain.to_str().unwrap());
    let syntax = ichor_dimse::part10::read_header(path).unwrap().transfer_syntax;
    let decoder = match syntax.as_str() {
        "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => "dcmdjpls",
        "1.2.840.10008.1.2.4.57" | "1.2.840.10008.1.2.4.70" => "dcmdjpeg",
        "1.2.840.10008.1.2.5" => "dcmdrle",
        _ => "dcmconv",
    };
    if decoder == "dcmconv" {
        succeed(decoder, &["+te", from, to]).await;
    } else {
        succeed(decoder, &[from, to]).await;
    }
    let bytes = std::fs::read(&plain).unwrap();
    let at = bytes.windows(4).rposition(|w| w == [0xe0, 0x7f, 0x10, 0x00]).unwrap();
    bytes[at + 12..].to_vec()
}

/// A tool that listens until it is dropped.
pub struct Listener {
    child: Child,
    pub port: u16,
}

impl Listener {
    /// Starts storescp on a free port; its files go into the folder.
    pub fn storescp(folder: &Path, arguments: &[&str]) -> Self {
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new("storescp")
                .args(["-od", folder.to_str().unwrap()])
                .args(arguments)
                .arg(port.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let start = Instant::now();
            while start.elapsed() < PATIENCE {
                if child.try_wait().unwrap().is_some() {
                    break; // Somebody took the port in between.
                }
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, port };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("storescp does not start");
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The files of a folder that hold this instance.
pub fn received(folder: &Path, instance: &Uid) -> Vec<PathBuf> {
    let is_it =
        |path: &PathBuf| ichor_dimse::part10::read_header(path).is_ok_and(|header| header.sop_instance == *instance);
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_it).collect()
}
