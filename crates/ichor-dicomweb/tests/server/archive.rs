//! An archive in memory: three studies, one of them with a file that is lost.

use std::io::Read;
use std::sync::{Arc, Mutex};

use ichor_core::Uid;
use ichor_dicomweb::server::{
    Access, Archive, ArchiveFault, Candidates, FrameBytes, Held, HeldStudy, JsonDataSet, Rendering, Sender,
};
use serde_json::json;

use crate::support::Server;
use ichor_dicomweb::server::ServerOptions;

pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";

/// What was looked at: client, action, study.
pub(crate) type Looks = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) looks: Looks,
    /// Length of each file.
    pub(crate) file_bytes: usize,
    /// The instance whose file has lost its last byte.
    pub(crate) short: Option<&'static str>,
    /// Instances of series 1.1.1 that are no longer kept.
    pub(crate) given_up: u64,
    /// Nobody can be written down.
    pub(crate) is_audit_broken: bool,
}

pub(crate) fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

/// Study 1.1 with two CT series (1.1.1 of three, 1.1.2 of one in JPEG-LS) and a report; 1.2 whose second file is lost; 1.3.
const HELD: [(&str, &str, &str, &str); 8] = [
    ("1.1", "1.1.1", "1.1.1.1", EXPLICIT),
    ("1.1", "1.1.1", "1.1.1.2", EXPLICIT),
    ("1.1", "1.1.1", "1.1.1.3", EXPLICIT),
    ("1.1", "1.1.2", "1.1.2.1", JPEG_LS),
    ("1.1", "1.1.3", "1.1.3.1", EXPLICIT),
    ("1.2", "1.2.1", "1.2.1.1", EXPLICIT),
    ("1.2", "1.2.1", "1.2.1.2", EXPLICIT),
    ("1.3", "1.3.1", "1.3.1.1", EXPLICIT),
];
const STUDIES: [(&str, &str, &str); 3] =
    [("1.1", "MÜLLER^ANNA", "20260101"), ("1.2", "Smith^John", "20260202"), ("1.3", "Smithers^Jo", "20260303")];

fn held((study, series, instance, syntax): (&str, &str, &str, &str)) -> Held {
    let modality = if series == "1.1.3" { "SR" } else { "CT" };
    let attributes = json!({ "00080060": { "vr": "CS", "Value": [modality] } });
    Held {
        study: uid(study),
        series: uid(series),
        instance: uid(instance),
        sop_class: uid("1.2.840.10008.5.1.4.1.1.2"),
        transfer_syntax: uid(syntax),
        size: 0,
        tag: instance.replace('.', "x"),
        attributes: attributes.as_object().unwrap().clone(),
        place: instance.into(),
    }
}

fn is_lost(held: &Held) -> bool {
    held.instance.as_str() == "1.2.1.2"
}

fn lost(held: &Held) -> ArchiveFault {
    ArchiveFault::Broken(format!("instance {} cannot be read", held.instance))
}

/// A file that ends before its end, when it is read.
struct Torn(usize);

impl Read for Torn {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("the disk is gone"));
        }
        let count = buffer.len().min(self.0);
        buffer[..count].fill(b'x');
        self.0 -= count;
        Ok(count)
    }
}

impl Archive for Shelf {
    fn studies(&self, candidates: &Candidates, after: Option<i64>, _: u32) -> Result<Vec<HeldStudy>, ArchiveFault> {
        let study = |(place, (study, name, date)): (i64, (&str, &str, &str))| HeldStudy {
            place,
            study: uid(study),
            attributes: json!({
                "00100010": { "vr": "PN", "Value": [{ "Alphabetic": name }] },
                "00080020": { "vr": "DA", "Value": [date] },
            })
            .as_object()
            .unwrap()
            .clone(),
        };
        let all = (0..).zip(STUDIES).map(study);
        let asked = |study: &HeldStudy| candidates.studies.is_empty() || candidates.studies.contains(&study.study);
        Ok(all.filter(|study| after.is_none_or(|after| study.place > after) && asked(study)).collect())
    }

    fn instances(&self, study: &Uid, series: Option<&Uid>, instance: Option<&Uid>) -> Result<Vec<Held>, ArchiveFault> {
        let size = self.file_bytes.max(20) as u64;
        let all = HELD.into_iter().map(held).filter(|held| held.study == *study).map(|held| Held { size, ..held });
        let all = all.filter(|held| series.is_none_or(|series| held.series == *series));
        Ok(all.filter(|held| instance.is_none_or(|instance| held.instance == *instance)).collect())
    }

    fn given_up(&self, study: &Uid, series: Option<&Uid>) -> Result<u64, ArchiveFault> {
        let is_it = study.as_str() == "1.1" && series.is_none_or(|series| series.as_str() == "1.1.1");
        Ok(if is_it { self.given_up } else { 0 })
    }

    fn holder_of(&self, instance: &Uid) -> Result<Option<(Uid, Uid)>, ArchiveFault> {
        Ok(HELD.into_iter().map(held).find(|held| held.instance == *instance).map(|held| (held.study, held.series)))
    }

    fn audit(&self, who: &Sender, access: &Access) -> Result<(), ArchiveFault> {
        if self.is_audit_broken {
            return Err(ArchiveFault::Unavailable("the audit trail cannot be written".to_owned()));
        }
        let study = access.study.as_ref().map(ToString::to_string);
        self.looks.lock().unwrap().push((who.client.clone(), access.action.to_owned(), study));
        Ok(())
    }

    fn metadata(&self, held: &Held, bulk: &str) -> Result<JsonDataSet, ArchiveFault> {
        if is_lost(held) {
            return Err(lost(held));
        }
        let number: u32 = held.instance.as_str().rsplit('.').next().unwrap().parse().unwrap();
        let data_set = json!({
            "00080018": { "vr": "UI", "Value": [held.instance] },
            "00200013": { "vr": "IS", "Value": [number] },
            "00181210": { "vr": "SH", "Value": ["H30s"] },
            "7FE00010": { "vr": "OW", "BulkDataURI": format!("{bulk}/7FE00010") },
        });
        Ok(data_set.as_object().unwrap().clone())
    }

    fn open(&self, held: &Held) -> Result<Box<dyn Read + Send>, ArchiveFault> {
        match held.instance.as_str() {
            _ if is_lost(held) => Err(lost(held)),
            "1.3.1.1" => Ok(Box::new(Torn(self.file_bytes))),
            instance => {
                let file = format!("file {instance} ").into_bytes();
                let length = self.file_bytes.max(20) - usize::from(self.short == Some(instance));
                Ok(Box::new(std::io::Cursor::new(file.into_iter().cycle().take(length).collect::<Vec<_>>())))
            }
        }
    }

    fn transcoded(&self, held: &Held) -> Result<Vec<u8>, ArchiveFault> {
        Ok(format!("transcoded {}", held.instance).into_bytes())
    }

    fn frames(&self, held: &Held) -> Result<u32, ArchiveFault> {
        match held.series.as_str() {
            "1.1.3" => Err(ArchiveFault::Unsupported("it is no image".to_owned())),
            _ => Ok(2),
        }
    }

    fn frame(&self, held: &Held, frame: u32, is_native: bool) -> Result<FrameBytes, ArchiveFault> {
        let transfer_syntax = if is_native { uid(EXPLICIT) } else { held.transfer_syntax.clone() };
        Ok(FrameBytes { transfer_syntax, bytes: format!("frame {frame} of {}", held.instance).into_bytes() })
    }

    fn rendered(&self, held: &Held, frame: u32, rendering: &Rendering) -> Result<Vec<u8>, ArchiveFault> {
        Ok(format!("picture {frame} of {} {:?}", held.instance, rendering.viewport).into_bytes())
    }

    fn bulk(&self, held: &Held, way: &[(String, u32)], tag: &str) -> Result<Vec<u8>, ArchiveFault> {
        match (way, tag) {
            ([], "7FE00010") => Ok(format!("pixels of {}", held.instance).into_bytes()),
            _ => Err(ArchiveFault::NotThere("the instance holds no such binary value".to_owned())),
        }
    }
}

/// A server over such an archive.
pub(crate) async fn serve(options: ServerOptions, shelf: Shelf) -> (Server, Looks) {
    let looks = Arc::clone(&shelf.looks);
    (Server::start_with(options, Some(Arc::new(shelf))).await, looks)
}
