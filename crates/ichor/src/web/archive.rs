//! The store as DICOMweb sees it.

use std::fs::File;
use std::io::Read;
use std::time::Instant;

use ichor_core::Uid;
use ichor_decode::DecoderOptions;
use ichor_dicomweb::server::{
    Access, Archive, ArchiveFault, Candidates, FrameBytes, Held, HeldStudy, JsonDataSet, Rendering, Sender,
};
use ichor_store::{HeldFilter, HeldInstance, NewAudit, Store, StoreError};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::frames::Frames;
use super::seen::Seen;
use super::{json as model, picture, transcode};

/// What the store holds. Its functions are called on threads that may block.
pub(super) struct Holdings {
    store: Store,
    runtime: Handle,
    frames: Frames,
    seen: Seen,
}

impl Holdings {
    /// Made within the runtime that the store belongs to. `most_bytes`: of an instance, uncompressed.
    pub(super) fn new(store: Store, decoder: DecoderOptions, most_bytes: u64) -> Self {
        Self { store, runtime: Handle::current(), frames: Frames::new(decoder, most_bytes), seen: Seen::default() }
    }

    fn ask<T>(&self, question: impl Future<Output = Result<T, StoreError>>) -> Result<T, ArchiveFault> {
        self.runtime.block_on(question).map_err(|error| ArchiveFault::Unavailable(error.to_string()))
    }
}

fn put(data_set: &mut JsonDataSet, tag: &str, vr: &str, value: Option<Value>) {
    if let Some(value) = value {
        data_set.insert(tag.to_owned(), json!({ "vr": vr, "Value": [value] }));
    }
}

fn of_study(study: ichor_store::HeldStudy) -> HeldStudy {
    let mut attributes = JsonDataSet::new();
    put(&mut attributes, "00080020", "DA", study.study_date.map(Value::from));
    put(&mut attributes, "00080050", "SH", study.accession_number.map(Value::from));
    put(&mut attributes, "00081030", "LO", study.description.map(Value::from));
    let name = study.patient_name.map(|name| {
        let forms = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(name.split('='));
        Value::Object(
            forms.filter(|(_, name)| !name.is_empty()).map(|(form, name)| (form.into(), json!(name))).collect(),
        )
    });
    put(&mut attributes, "00100010", "PN", name);
    put(&mut attributes, "00100020", "LO", study.patient_id.map(Value::from));
    HeldStudy { place: study.place, study: study.study_instance, attributes }
}

fn of_instance(instance: HeldInstance) -> Held {
    let mut attributes = JsonDataSet::new();
    put(&mut attributes, "00080060", "CS", instance.modality.map(Value::from));
    put(&mut attributes, "0008103E", "LO", instance.series_description.map(Value::from));
    put(&mut attributes, "00200011", "IS", instance.series_number.map(Value::from));
    Held {
        study: instance.study_instance,
        series: instance.series_instance,
        instance: instance.sop_instance,
        sop_class: instance.sop_class,
        transfer_syntax: instance.transfer_syntax,
        size: instance.size,
        tag: instance.digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
        attributes,
        place: instance.path,
    }
}

/// The file of an instance, if it is as long as it was stored.
pub(super) fn whole_file(held: &Held) -> Result<File, ArchiveFault> {
    let broken = |why: String| ArchiveFault::Broken(format!("instance {} cannot be read: {why}", held.instance));
    let file = File::open(&held.place).map_err(|error| broken(error.to_string()))?;
    let length = file.metadata().map_err(|error| broken(error.to_string()))?.len();
    if length != held.size {
        return Err(broken(format!("its file has {length} bytes, and had {} when it was stored", held.size)));
    }
    Ok(file)
}

impl Archive for Holdings {
    fn studies(&self, candidates: &Candidates, after: Option<i64>, limit: u32) -> Result<Vec<HeldStudy>, ArchiveFault> {
        let Candidates { studies, series, instances, patient_id, patient_name, accession_number, dates } =
            candidates.clone();
        let (date_from, date_to) = dates;
        let filter =
            HeldFilter { studies, series, instances, patient_id, patient_name, accession_number, date_from, date_to };
        let found = self.ask(self.store.held_studies(&filter, after, limit))?;
        Ok(found.into_iter().map(of_study).collect())
    }

    fn instances(&self, study: &Uid, series: Option<&Uid>, instance: Option<&Uid>) -> Result<Vec<Held>, ArchiveFault> {
        let found = self.ask(self.store.held_instances(study, series, instance))?;
        Ok(found.into_iter().map(of_instance).collect())
    }

    fn given_up(&self, study: &Uid, series: Option<&Uid>) -> Result<u64, ArchiveFault> {
        self.ask(self.store.given_up_instances(study, series))
    }

    fn holder_of(&self, instance: &Uid) -> Result<Option<(Uid, Uid)>, ArchiveFault> {
        self.ask(self.store.holder_of(instance))
    }

    fn audit(&self, who: &Sender, access: &Access) -> Result<(), ArchiveFault> {
        let now = Instant::now();
        let view = access
            .study
            .as_ref()
            .filter(|_| access.is_part)
            .map(|study| (who.client.clone(), who.address.ip(), access.action, study.clone()));
        if view.as_ref().is_some_and(|view| !self.seen.is_new(view, now)) {
            return Ok(());
        }
        let (at, client) = (ichor_pipeline::now(), (who.client.as_str(), who.address.ip()));
        let (study, detail) = (access.study.clone(), access.detail.clone());
        let entry = NewAudit::of_dicomweb(at, client, access.action, study, detail);
        self.ask(self.store.audit(&entry))?;
        if let Some(view) = view {
            self.seen.written(view, now);
        }
        Ok(())
    }

    fn metadata(&self, held: &Held, bulk: &str) -> Result<JsonDataSet, ArchiveFault> {
        whole_file(held)?;
        self.frames.check_inflation(held)?;
        let header = model::header(&held.place, held.instance.as_str())?;
        Ok(model::metadata(&header, bulk))
    }

    fn open(&self, held: &Held) -> Result<Box<dyn Read + Send>, ArchiveFault> {
        Ok(Box::new(whole_file(held)?))
    }

    fn transcoded(&self, held: &Held) -> Result<Vec<u8>, ArchiveFault> {
        whole_file(held)?;
        transcode::transcoded(&self.frames, held)
    }

    fn frames(&self, held: &Held) -> Result<u32, ArchiveFault> {
        Ok(self.frames.open(held)?.description().frames)
    }

    fn frame(&self, held: &Held, frame: u32, is_native: bool) -> Result<FrameBytes, ArchiveFault> {
        self.frames.frame(held, frame, is_native)
    }

    fn rendered(&self, held: &Held, frame: u32, rendering: &Rendering) -> Result<Vec<u8>, ArchiveFault> {
        picture::draw(&self.frames, held, frame, rendering)
    }

    fn bulk(&self, held: &Held, way: &[(String, u32)], tag: &str) -> Result<Vec<u8>, ArchiveFault> {
        whole_file(held)?;
        self.frames.check_inflation(held)?;
        if way.is_empty() && tag == "7FE00010" {
            return transcode::pixel_data(&self.frames, held);
        }
        let header = model::header(&held.place, held.instance.as_str())?;
        model::bulk(&header, way, tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> DecoderOptions {
        DecoderOptions::new("no decoder is started".into())
    }

    #[test]
    fn a_file_of_another_length_is_not_the_instance() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("instance");
        let uid = |text| Uid::parse(text).unwrap();
        let held = Held {
            study: uid("1.1"),
            series: uid("1.1.1"),
            instance: uid("1.1.1.1"),
            sop_class: uid("1.2.840.10008.5.1.4.1.1.2"),
            transfer_syntax: uid("1.2.840.10008.1.2.1"),
            size: 5,
            tag: String::new(),
            attributes: JsonDataSet::new(),
            place: place.clone(),
        };
        for (bytes, is_whole) in [("whole", true), ("cut", false), ("longer", false)] {
            std::fs::write(&place, bytes).unwrap();
            // Frames are read from it after this look only.
            for found in [whole_file(&held).map(drop), Frames::new(options(), 1 << 20).open(&held).map(drop)] {
                match found {
                    Ok(()) => assert!(is_whole, "{bytes}"),
                    Err(ArchiveFault::Broken(why)) => {
                        assert!(why.contains("1.1.1.1"), "{why}");
                        assert_eq!(why.contains("when it was stored"), !is_whole, "{why}");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}
