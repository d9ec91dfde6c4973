//! Frames, pictures and bulk data of an instance.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;

use super::accept::{self, Choice, Kind};
use super::objects::location;
use super::parts::Parts;
use super::{Refused, Reply, ReplyBody, Retrieval, parameters};
use crate::server::archive::{Held, PictureForm};
use crate::server::route::Target;
use crate::server::stream::Pipe;

/// Largest side of a thumbnail, unless a viewport is asked for.
const THUMBNAIL: u32 = 128;

impl Retrieval<'_> {
    fn one(&self, target: &Target) -> Result<Held, Refused> {
        let held = self.held(target)?;
        // Of a study its largest series, and of that the middle, which shows more than the first.
        let series = held.chunk_by(|one, next| one.series == next.series).max_by_key(|instances| instances.len());
        let series = series.unwrap_or(&held);
        Ok(series[series.len() / 2].clone())
    }

    /// An instance that has the frame.
    fn with_frame(&self, held: &Held, frame: u32) -> Result<(), Refused> {
        let frames = self.archive.frames(held)?;
        if (1..=frames).contains(&frame) {
            return Ok(());
        }
        let why = format!("instance {} has {frames} frames, and no frame {frame}", held.instance);
        Err(Refused::new(StatusCode::NOT_FOUND, why))
    }

    pub(super) fn frames(&self, target: &Target, frames: &[u32]) -> Result<Reply, Refused> {
        self.only(&[])?;
        let not_acceptable = |why: String| Refused::new(StatusCode::NOT_ACCEPTABLE, why);
        let held = self.one(target)?;
        let (is_multipart, ranges) =
            accept::of_kind(&self.accept, Kind::Frames, frames.len() == 1).map_err(not_acceptable)?;
        let stored = held.transfer_syntax.as_str();
        let choice = accept::choose(&ranges, Kind::Frames, stored).ok_or_else(|| {
            let media = accept::media_of(stored);
            not_acceptable(format!("its frames can be had as {media} in {stored}, or as application/octet-stream"))
        })?;
        for frame in frames {
            self.with_frame(&held, *frame)?;
        }
        let is_native = choice == Choice::Native;
        let first = self.archive.frame(&held, frames[0], is_native)?;
        self.audit("frames-retrieved", target, true, json!({ "series": held.series, "sop_instance": held.instance }))?;
        let media = accept::media_of(first.transfer_syntax.as_str());
        let content_type = format!("{media}; transfer-syntax={}", first.transfer_syntax);
        if !is_multipart {
            let tag = format!("{}-{}-f{}", held.tag, choice.word(), frames[0]);
            return Ok(self.reply(content_type, Some(tag), ReplyBody::Whole(first.bytes)));
        }
        let parts = Parts::new(held.instance.as_str());
        let whole_type = parts.content_type(media);
        let tag = (frames.len() == 1).then(|| format!("{}-{}-m{}", held.tag, choice.word(), frames[0]));
        let (archive, url, frames) = (Arc::clone(self.archive), location(self.base, &held), frames.to_vec());
        let produce = move |pipe: &mut Pipe| {
            let mut first = Some(first);
            for frame in frames {
                let read = match first.take() {
                    Some(read) => read,
                    None => archive.frame(&held, frame, is_native)?,
                };
                parts.begin(pipe, &content_type, &format!("{url}/frames/{frame}"))?;
                pipe.write(&read.bytes)?;
            }
            Ok(parts.end(pipe)?)
        };
        Ok(self.reply(whole_type, tag, ReplyBody::Stream(Box::new(produce))))
    }

    pub(super) fn picture(&self, target: &Target, frame: Option<u32>, is_thumbnail: bool) -> Result<Reply, Refused> {
        let bad = |why: String| Refused::new(StatusCode::BAD_REQUEST, why);
        let form = accept::picture(&self.accept).map_err(|why| Refused::new(StatusCode::NOT_ACCEPTABLE, why))?;
        let mut rendering = parameters::rendering(&self.pairs, form).map_err(bad)?;
        if is_thumbnail && rendering.viewport.is_none() {
            rendering.viewport = Some((THUMBNAIL, THUMBNAIL));
        }
        let held = self.one(target)?;
        let frame = match frame {
            Some(frame) => frame,
            None if is_thumbnail => self.archive.frames(&held)?.div_ceil(2),
            None => 1,
        };
        self.with_frame(&held, frame)?;
        let bytes = self.archive.rendered(&held, frame, &rendering)?;
        self.audit(
            "pictures-retrieved",
            target,
            true,
            json!({ "series": held.series, "sop_instance": held.instance }),
        )?;
        let content_type = match rendering.form {
            PictureForm::Png => "image/png",
            PictureForm::Jpeg(_) => "image/jpeg",
        };
        Ok(self.reply(content_type.to_owned(), None, ReplyBody::Whole(bytes)))
    }

    pub(super) fn bulk(&self, target: &Target, way: &[(String, u32)], tag: &str) -> Result<Reply, Refused> {
        self.only(&[])?;
        let held = self.one(target)?;
        let is_multipart = accept::bulk(&self.accept).map_err(|why| Refused::new(StatusCode::NOT_ACCEPTABLE, why))?;
        let bytes = self.archive.bulk(&held, way, tag)?;
        self.audit("frames-retrieved", target, true, json!({ "series": held.series, "sop_instance": held.instance }))?;
        let part = "application/octet-stream";
        if !is_multipart {
            return Ok(self.reply(part.to_owned(), None, ReplyBody::Whole(bytes)));
        }
        let parts = Parts::new(held.instance.as_str());
        let (whole_type, url) = (parts.content_type(part), location(self.base, &held));
        let steps: String = way.iter().map(|(tag, item)| format!("{tag}/{item}/")).collect();
        let url = format!("{url}/bulkdata/{steps}{tag}");
        let produce = move |pipe: &mut Pipe| {
            parts.begin(pipe, part, &url)?;
            pipe.write(&bytes)?;
            Ok(parts.end(pipe)?)
        };
        Ok(self.reply(whole_type, None, ReplyBody::Stream(Box::new(produce))))
    }
}
