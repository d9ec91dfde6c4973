//! Files and metadata of studies, series and instances.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::accept::{self, Choice, Kind};
use super::parts::Parts;
use super::{Refused, Reply, ReplyBody, Retrieval, Stopped};
use crate::server::archive::{Archive, ArchiveFault, Held};
use crate::server::route::Target;
use crate::server::stream::Pipe;

/// Bytes that are read from a file in one go.
const READ: usize = 64 << 10;

impl Retrieval<'_> {
    pub(super) fn objects(&self, target: &Target) -> Result<Reply, Refused> {
        self.only(&[])?;
        let held = self.held(target)?;
        let is_single = target.instance.is_some();
        let not_acceptable = |why: String| Refused::new(StatusCode::NOT_ACCEPTABLE, why);
        let (is_multipart, ranges) = accept::of_kind(&self.accept, Kind::Objects, is_single).map_err(not_acceptable)?;
        let mut chosen = Vec::with_capacity(held.len());
        for one in held {
            let choice = accept::choose(&ranges, Kind::Objects, one.transfer_syntax.as_str());
            let choice = choice.ok_or_else(|| {
                let (instance, stored) = (&one.instance, &one.transfer_syntax);
                let other = accept::EXPLICIT_LITTLE_ENDIAN;
                not_acceptable(format!("instance {instance} can be had as it is stored ({stored}), or in {other}"))
            })?;
            chosen.push((one, choice));
        }
        // What is not there at all, or not whole, is said before anything is sent.
        for (one, _) in &chosen {
            drop(self.archive.open(one)?);
        }
        let (first, first_choice) = chosen[0].clone();
        let detail = json!({ "series": target.series, "sop_instance": target.instance, "instances": chosen.len() });
        if !is_multipart {
            let stored = first.transfer_syntax.as_str();
            let content_type = format!("application/dicom; transfer-syntax={}", first_choice.syntax(stored));
            // A transcoding that fails is said before anything is sent.
            let ready = self.ready(&first, first_choice)?;
            self.audit("study-retrieved", target, true, detail)?;
            let archive = Arc::clone(self.archive);
            let tag = format!("{}-{}", first.tag, first_choice.word());
            let body = ReplyBody::Stream(Box::new(move |pipe| send(&*archive, &first, ready, pipe)));
            return Ok(self.reply(content_type, Some(tag), body));
        }
        let parts = Parts::new(first.instance.as_str());
        let content_type = parts.content_type("application/dicom");
        let tag = is_single.then(|| format!("{}-{}-m", first.tag, first_choice.word()));
        let ready = self.ready(&first, first_choice)?;
        let warning = self.warning(target)?;
        self.audit("study-retrieved", target, is_single, detail)?;
        let (archive, base) = (Arc::clone(self.archive), self.base.to_owned());
        let produce = move |pipe: &mut Pipe| {
            let mut first = Some(ready);
            for (one, choice) in chosen {
                let syntax = choice.syntax(one.transfer_syntax.as_str());
                let ready = match first.take() {
                    Some(ready) => ready,
                    None => prepare(&*archive, &one, choice)?,
                };
                let content_type = format!("application/dicom; transfer-syntax={syntax}");
                parts.begin(pipe, &content_type, &location(&base, &one))?;
                send(&*archive, &one, ready, pipe)?;
            }
            Ok(parts.end(pipe)?)
        };
        Ok(Reply { warning, ..self.reply(content_type, tag, ReplyBody::Stream(Box::new(produce))) })
    }

    fn ready(&self, held: &Held, choice: Choice) -> Result<Ready, Refused> {
        Ok(prepare(&**self.archive, held, choice)?)
    }

    pub(super) fn metadata(&self, target: &Target) -> Result<Reply, Refused> {
        self.only(&[])?;
        accept::json(&self.accept).map_err(|why| Refused::new(StatusCode::NOT_ACCEPTABLE, why))?;
        let held = self.held(target)?;
        let base = self.base.to_owned();
        let first = self.archive.metadata(&held[0], &bulk(&base, &held[0]))?;
        let tag = target.instance.is_some().then(|| format!("{}-json", held[0].tag));
        let detail = json!({ "series": target.series, "sop_instance": target.instance, "instances": held.len(),
            "what": "metadata" });
        let warning = self.warning(target)?;
        self.audit("study-retrieved", target, target.instance.is_some(), detail)?;
        let archive = Arc::clone(self.archive);
        let produce = move |pipe: &mut Pipe| {
            pipe.write(b"[")?;
            pipe.write(Value::Object(first).to_string().as_bytes())?;
            for one in held.iter().skip(1) {
                let data_set = archive.metadata(one, &bulk(&base, one))?;
                pipe.write(b",\n")?;
                pipe.write(Value::Object(data_set).to_string().as_bytes())?;
            }
            Ok(pipe.write(b"]\n")?)
        };
        let body = ReplyBody::Stream(Box::new(produce));
        Ok(Reply { warning, ..self.reply("application/dicom+json".to_owned(), tag, body) })
    }
}

/// The URL of an instance.
pub(super) fn location(base: &str, held: &Held) -> String {
    let Held { study, series, instance, .. } = held;
    format!("{base}/studies/{study}/series/{series}/instances/{instance}")
}

fn bulk(base: &str, held: &Held) -> String {
    format!("{}/bulkdata", location(base, held))
}

/// What is about to be sent.
enum Ready {
    File,
    Bytes(Vec<u8>),
}

fn prepare(archive: &dyn Archive, held: &Held, choice: Choice) -> Result<Ready, ArchiveFault> {
    match choice {
        Choice::Stored => Ok(Ready::File),
        Choice::Native if held.transfer_syntax.as_str() == accept::EXPLICIT_LITTLE_ENDIAN => Ok(Ready::File),
        Choice::Native => archive.transcoded(held).map(Ready::Bytes),
    }
}

fn send(archive: &dyn Archive, held: &Held, ready: Ready, pipe: &mut Pipe) -> Result<(), Stopped> {
    let mut file = match ready {
        Ready::Bytes(bytes) => return Ok(pipe.write(&bytes)?),
        Ready::File => archive.open(held)?,
    };
    let mut buffer = vec![0; READ];
    let broken = |why: String| ArchiveFault::Broken(format!("instance {}: {why}", held.instance));
    let mut sent = 0;
    loop {
        let count = file.read(&mut buffer).map_err(|error| broken(error.to_string()))?;
        sent += count as u64;
        // A file that was cut or has grown is not the instance: the answer must not look complete.
        if sent > held.size || (count == 0 && sent < held.size) {
            return Err(broken(format!("its file is not as long as it was stored ({} bytes)", held.size)).into());
        }
        if count == 0 {
            return Ok(());
        }
        pipe.write(&buffer[..count])?;
    }
}
