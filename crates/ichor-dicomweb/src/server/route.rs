//! Which resource a path names (PS3.18 10.4.1.1, 10.6.1.1).

use ichor_core::Uid;
use thiserror::Error;

/// Longest way to a value in nested sequences.
const DEEPEST: usize = 16;

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Studies.
    Study,
    /// Series.
    Series,
    /// Instances.
    Instance,
}

/// A study, a series or an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Option<Uid>,
    /// SOP Instance UID.
    pub instance: Option<Uid>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A search, within a study and a series if those are given.
    Search(Level, Option<Uid>, Option<Uid>),
    /// Files.
    Objects(Target),
    /// Their metadata.
    Metadata(Target),
    /// A picture: of this frame, else of the first.
    Rendered(Target, Option<u32>),
    /// A small picture, as [`Self::Rendered`]; of a series or study, of one of its images.
    Thumbnail(Target, Option<u32>),
    /// Frames, counted from 1.
    Frames(Target, Vec<u32>),
    /// A binary value: sequences on the way and their items from 1, and its tag.
    Bulk(Target, Vec<(String, u32)>, String),
}

/// Why a path names nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteError {
    /// 400.
    #[error("{0}")]
    Malformed(String),
    /// 404.
    #[error("{0}")]
    Unknown(String),
}

fn malformed<T>(what: impl Into<String>) -> Result<T, RouteError> {
    Err(RouteError::Malformed(what.into()))
}

fn unknown<T>() -> Result<T, RouteError> {
    Err(RouteError::Unknown("there is no such resource here; docs/dicomweb.md names those there are".to_owned()))
}

fn uid(text: &str, what: &str) -> Result<Uid, RouteError> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return malformed(format!("the {what} in the URL is no UID: it begins with no digit"));
    }
    Uid::parse(text).or_else(|error| malformed(format!("the {what} in the URL is no UID: {error}")))
}

/// The resource of a path behind the prefix. Of a list at most `most_frames` are taken.
///
/// # Errors
/// [`RouteError`].
pub fn resource(path: &str, most_frames: usize) -> Result<Resource, RouteError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let Some(path) = path.strip_prefix('/') else { return unknown() };
    let parts: Vec<&str> = path.split('/').take(2 * DEEPEST + 16).collect();
    let (target, rest) = match parts.as_slice() {
        ["studies"] => return Ok(Resource::Search(Level::Study, None, None)),
        ["series"] => return Ok(Resource::Search(Level::Series, None, None)),
        ["instances"] => return Ok(Resource::Search(Level::Instance, None, None)),
        ["studies", study, "series"] => {
            return Ok(Resource::Search(Level::Series, Some(uid(study, "study")?), None));
        }
        ["studies", study, "instances"] => {
            return Ok(Resource::Search(Level::Instance, Some(uid(study, "study")?), None));
        }
        ["studies", study, "series", series, "instances"] => {
            let (study, series) = (uid(study, "study")?, uid(series, "series")?);
            return Ok(Resource::Search(Level::Instance, Some(study), Some(series)));
        }
        ["studies", study, "series", series, "instances", instance, rest @ ..] => {
            let (study, series) = (uid(study, "study")?, uid(series, "series")?);
            (Target { study, series: Some(series), instance: Some(uid(instance, "instance")?) }, rest)
        }
        ["studies", study, "series", series, rest @ ..] => {
            (Target { study: uid(study, "study")?, series: Some(uid(series, "series")?), instance: None }, rest)
        }
        ["studies", study, rest @ ..] => (Target { study: uid(study, "study")?, series: None, instance: None }, rest),
        _ => return unknown(),
    };
    match (target.instance.is_some(), rest) {
        (_, []) => Ok(Resource::Objects(target)),
        (_, ["metadata"]) => Ok(Resource::Metadata(target)),
        (_, ["thumbnail"]) => Ok(Resource::Thumbnail(target, None)),
        (true, ["rendered"]) => Ok(Resource::Rendered(target, None)),
        (false, ["rendered"]) => {
            Err(RouteError::Unknown("pictures are made of instances and frames, not of whole series".to_owned()))
        }
        (true, ["frames", list]) => Ok(Resource::Frames(target, frames(list, most_frames)?)),
        (true, ["frames", list, "rendered"]) => Ok(Resource::Rendered(target, Some(one(list)?))),
        (true, ["frames", list, "thumbnail"]) => Ok(Resource::Thumbnail(target, Some(one(list)?))),
        (true, ["bulkdata", way @ .., tag]) => bulk(target, way, tag),
        _ => unknown(),
    }
}

fn one(list: &str) -> Result<u32, RouteError> {
    match frames(list, 1)?.as_slice() {
        [frame] => Ok(*frame),
        _ => malformed("one frame can be drawn at a time"),
    }
}

fn frames(list: &str, most: usize) -> Result<Vec<u32>, RouteError> {
    let mut frames = Vec::new();
    // A comma may come encoded.
    for text in list.replace("%2C", ",").replace("%2c", ",").split(',') {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let frame = text.parse::<u32>().ok().filter(|frame| is_number && *frame > 0);
        let Some(frame) = frame else { return malformed("frames are whole numbers from 1 on, with commas between") };
        if frames.len() >= most {
            return malformed(format!("more than {most} frames are asked for at once"));
        }
        frames.push(frame);
    }
    Ok(frames)
}

fn bulk(target: Target, way: &[&str], tag: &str) -> Result<Resource, RouteError> {
    let is_tag = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pairs = way.chunks_exact(2);
    if !pairs.remainder().is_empty() || way.len() / 2 > DEEPEST || !is_tag(tag) {
        return malformed("bulk data are named by tags of eight hexadecimal digits, with items between");
    }
    let mut steps = Vec::new();
    for pair in pairs {
        match pair[1].parse::<u32>() {
            Ok(item) if is_tag(pair[0]) && item > 0 => steps.push((pair[0].to_ascii_uppercase(), item)),
            _ => return malformed("a sequence is named by its tag and the number of an item from 1 on"),
        }
    }
    Ok(Resource::Bulk(target, steps, tag.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(path: &str) -> u16 {
        match resource(path, 3) {
            Ok(_) => 200,
            Err(RouteError::Malformed(_)) => 400,
            Err(RouteError::Unknown(_)) => 404,
        }
    }

    #[test]
    fn resources() {
        let target = |series: bool, instance: bool| Target {
            study: Uid::parse("1.2").unwrap(),
            series: series.then(|| Uid::parse("1.3").unwrap()),
            instance: instance.then(|| Uid::parse("1.4").unwrap()),
        };
        let at = |rest: &str| resource(&format!("/studies/1.2/series/1.3/instances/1.4{rest}"), 3).unwrap();
        assert_eq!(resource("/studies/", 3).unwrap(), Resource::Search(Level::Study, None, None));
        assert_eq!(resource("/studies/1.2", 3).unwrap(), Resource::Objects(target(false, false)));
        assert_eq!(resource("/studies/1.2/series/1.3/metadata", 3).unwrap(), Resource::Metadata(target(true, false)));
        assert_eq!(at("/frames/1,2%2C3"), Resource::Frames(target(true, true), vec![1, 2, 3]));
        assert_eq!(at("/frames/2/rendered"), Resource::Rendered(target(true, true), Some(2)));
        assert_eq!(at("/thumbnail"), Resource::Thumbnail(target(true, true), None));
        let way = vec![("00081001".to_owned(), 2)];
        assert_eq!(at("/bulkdata/00081001/2/7fe00010"), Resource::Bulk(target(true, true), way, "7FE00010".to_owned()));
    }

    #[test]
    fn what_is_none() {
        for (path, wanted) in [
            ("", 404),
            ("/", 404),
            ("/patients", 404),
            ("/studies/../../etc/passwd", 400),
            ("/studies/..%2f..%2fetc", 400),
            ("/studies/1.2/series/..", 400),
            ("/studies/1.2/series/1.3/instances/1.4/../../x", 404),
            ("/studies/1.2%00", 400),
            ("/studies//series", 400),
            ("/studies/1.2/rendered", 404),
            ("/studies/1.2/series/1.3/instances/1.4/frames/0", 400),
            ("/studies/1.2/series/1.3/instances/1.4/frames/-1", 400),
            ("/studies/1.2/series/1.3/instances/1.4/frames/+1", 400),
            ("/studies/1.2/series/1.3/instances/1.4/frames/1,2,3,4", 400),
            ("/studies/1.2/series/1.3/instances/1.4/frames/4294967296", 400),
            ("/studies/1.2/series/1.3/instances/1.4/frames/1,2/rendered", 400),
            ("/studies/1.2/series/1.3/instances/1.4/bulkdata/x", 400),
            ("/studies/1.2/series/1.3/instances/1.4/bulkdata/7FE00010/7FE00010", 400),
            ("/studies/1.2/series/1.3/instances/1.4/bulkdata", 404),
        ] {
            assert_eq!(status(path), wanted, "{path}");
        }
        let deep = "/00081001/1".repeat(1000);
        assert_eq!(status(&format!("/studies/1.2/series/1.3/instances/1.4/bulkdata{deep}/00081001")), 400);
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/|studies|series|instances|frames|bulkdata|[0-9.,%]|\\PC){0,40}") {
            let _ = resource(&path, 10);
        }
    }
}
