//! WADO-RS (PS3.18 10.4): files, metadata, frames, pictures and bulk data of what is held.

pub(super) mod accept;
mod objects;
pub(super) mod parameters;
mod parts;
mod pixels;

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::Value;

use super::archive::{Access, Archive, ArchiveFault, Held};
use super::handler::Sender;
use super::route::{Resource, Target};
use super::stream::{Gone, Pipe};
use accept::Wanted;

/// Why a request is not answered as it was meant.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl From<ArchiveFault> for Refused {
    fn from(fault: ArchiveFault) -> Self {
        let status = match &fault {
            ArchiveFault::NotThere(_) => StatusCode::NOT_FOUND,
            ArchiveFault::Unsupported(_) => StatusCode::NOT_ACCEPTABLE,
            ArchiveFault::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ArchiveFault::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, fault.to_string())
    }
}

/// Makes the rest of an answer.
pub(super) type Producer = Box<dyn FnOnce(&mut Pipe) -> Result<(), Stopped> + Send>;

/// An answer that is about to be sent.
pub(super) struct Reply {
    pub(super) content_type: String,
    /// What tells this answer from another one of the same resource.
    pub(super) tag: Option<String>,
    pub(super) body: ReplyBody,
    /// What the answer lacks.
    pub(super) warning: Option<String>,
}

pub(super) enum ReplyBody {
    Whole(Vec<u8>),
    Stream(Producer),
    /// The peer has it.
    NotModified,
}

/// Why an answer ends before its end.
pub(super) enum Stopped {
    Gone,
    Fault(ArchiveFault),
}

impl From<Gone> for Stopped {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<ArchiveFault> for Stopped {
    fn from(fault: ArchiveFault) -> Self {
        Self::Fault(fault)
    }
}

/// A retrieval, its header read.
pub(super) struct Retrieval<'a> {
    pub(super) archive: &'a Arc<dyn Archive>,
    pub(super) who: &'a Sender,
    /// The URL that resources begin with.
    pub(super) base: &'a str,
    pub(super) accept: Vec<Wanted>,
    pub(super) pairs: Vec<(String, String)>,
    /// If-None-Match.
    pub(super) known: Option<String>,
    pub(super) most_instances: usize,
}

impl Retrieval<'_> {
    pub(super) fn answer(&self, resource: &Resource) -> Result<Reply, Refused> {
        match resource {
            Resource::Objects(target) => self.objects(target),
            Resource::Metadata(target) => self.metadata(target),
            Resource::Frames(target, frames) => self.frames(target, frames),
            Resource::Rendered(target, frame) => self.picture(target, *frame, false),
            Resource::Thumbnail(target, frame) => self.picture(target, *frame, true),
            Resource::Bulk(target, way, tag) => self.bulk(target, way, tag),
            Resource::Search(..) => Err(Refused::new(StatusCode::NOT_FOUND, "a search is no retrieval")),
        }
    }

    fn held(&self, target: &Target) -> Result<Vec<Held>, Refused> {
        let held = self.archive.instances(&target.study, target.series.as_ref(), target.instance.as_ref())?;
        if held.is_empty() {
            let what = match (&target.series, &target.instance) {
                (_, Some(_)) => "instance",
                (Some(_), None) => "series",
                (None, None) => "study",
            };
            return Err(Refused::new(StatusCode::NOT_FOUND, format!("there is no such {what} here")));
        }
        if held.len() > self.most_instances {
            let why = format!("{} instances are more than go into one answer ({})", held.len(), self.most_instances);
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Ok(held)
    }

    /// Only what means something here may be asked.
    fn only(&self, names: &[&str]) -> Result<(), Refused> {
        let is_known = |name: &str| name.eq_ignore_ascii_case("accept") || names.contains(&name);
        match self.pairs.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
                Err(Refused::new(StatusCode::BAD_REQUEST, format!("{name:?} is no parameter of this resource")))
            }
        }
    }

    fn audit(&self, action: &'static str, target: &Target, is_part: bool, detail: Value) -> Result<(), Refused> {
        let study = Some(target.study.clone());
        Ok(self.archive.audit(self.who, &Access { action, study, detail, is_part })?)
    }

    fn reply(&self, content_type: String, tag: Option<String>, body: ReplyBody) -> Reply {
        let is_known = tag.as_ref().is_some_and(|tag| {
            let known = self.known.as_deref().unwrap_or_default();
            known.split(',').map(|one| one.trim().trim_start_matches("W/").trim_matches('"')).any(|one| one == tag)
        });
        Reply { content_type, tag, body: if is_known { ReplyBody::NotModified } else { body }, warning: None }
    }

    /// An answer about several instances says that there were more.
    fn warning(&self, target: &Target) -> Result<Option<String>, Refused> {
        if target.instance.is_some() {
            return Ok(None);
        }
        let gone = self.archive.given_up(&target.study, target.series.as_ref())?;
        let what = if target.series.is_some() { "series" } else { "study" };
        Ok((gone > 0).then(|| format!("{gone} instances of this {what} are no longer kept here (retention)")))
    }
}
