//! Pictures of slices, and the objects' files.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ichor_core::Uid;
use ichor_store::StudyKey;
use serde::Deserialize;
use serde_json::json;
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};

use super::{maps, uid};
use crate::App;
use crate::access::{AsViewer, Caller, audit};
use crate::picture::{Overlay, PRESETS, PictureFault, WantedPicture};
use crate::problem::Problem;
use crate::seen::View;

/// How a slice is shown.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PictureQuery {
    /// `brain` (default), `blood`, `subdural`, `stroke` or `bone`; or `center,width` in HU.
    window: Option<String>,
    /// What lies over the slice: `false` (default) nothing, `mask` or `true` the outline of the mask, `map` the attribution map
    /// in colours, where there is one.
    overlay: WantedOverlay,
    /// The frame, counted from 1, of a multi-frame instance.
    frame: Option<u32>,
}

/// What lies over a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WantedOverlay {
    #[default]
    False,
    True,
    Mask,
    Map,
}

/// A slice as a PNG, with the outline of its mask or its attribution map if you like
///
/// A map says where the classifier looked; where there is none, the answer says why (404, 410, 422).
/// The first picture of a study in an hour, by the same user, stands in the audit trail.
#[utoipa::path(get, path = "/api/studies/{study}/slices/{instance}/picture", tag = "studies",
    params(("study" = String, Path, description = "Study Instance UID"),
        ("instance" = String, Path, description = "SOP Instance UID of the slice"), PictureQuery),
    responses((status = 200, content_type = "image/png", body = Vec<u8>),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The file is no longer kept", body = Problem,
         content_type = "application/problem+json"),
        (status = 422, description = "It cannot be shown, with the reason", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn picture(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    Path((study, instance)): Path<(String, String)>,
    query: Result<Query<PictureQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let (study, instance) = (uid(&study)?, uid(&instance)?);
    let window = window(query.window.as_deref().unwrap_or("brain"))?;
    let file = app.facts.store.instance_file(&study, &instance).await?;
    let overlay = match query.overlay {
        WantedOverlay::False => Overlay::None,
        WantedOverlay::True | WantedOverlay::Mask => outline(&app, &study).await?,
        WantedOverlay::Map => Overlay::Map(maps::kept(&app, &study, &instance, query.frame).await?),
    };
    note_view(&app, &caller, study).await?;
    let wanted = WantedPicture { file, sop_instance: instance, frame: query.frame, window, overlay };
    let unavailable = |what: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, what);
    let permit = Arc::clone(&app.easels).acquire_owned().await.map_err(|error| unavailable(error.to_string()))?;
    let pictures = Arc::clone(&app.facts.pictures);
    let drawn = tokio::task::spawn_blocking(move || {
        let drawn = pictures.draw(&wanted);
        drop(permit);
        drawn
    });
    let png = drawn.await.map_err(|_| unavailable("drawing crashed".to_owned()))?.map_err(|fault| match fault {
        PictureFault::Unreadable(why) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why),
        PictureFault::Unavailable(why) => unavailable(why),
    })?;
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, png).into_response())
}

/// The mask of the newest result; nothing where there is none.
async fn outline(app: &App, study: &Uid) -> Result<Overlay, Problem> {
    let detail = app.facts.store.study(&StudyKey::Uid(study.clone())).await?;
    let version = detail.summary.result_version;
    let newest = detail.objects.into_iter().rev().find(|object| {
        object.kind.starts_with("seg") && Some(object.version) == version && object.removed_at.is_none()
    });
    Ok(newest.map_or(Overlay::None, |object| Overlay::Outline(object.sop_instance, object.path)))
}

/// Writes into the audit trail that somebody looks at a study's slices, once an hour.
pub(super) async fn note_view(app: &App, caller: &Caller, study: Uid) -> Result<(), Problem> {
    let view = View::Pictures(study.clone());
    if app.seen.is_new(caller.admitted.user, &view, Instant::now()) {
        audit(app, caller, "slices-viewed", Some(&study), json!({})).await?;
        app.seen.written(caller.admitted.user, view, Instant::now());
    }
    Ok(())
}

/// A window by its name, or `center,width`.
fn window(text: &str) -> Result<(f64, f64), Problem> {
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == text) {
        return Ok((preset.center, preset.width));
    }
    let parse = || {
        let (center, width) = text.split_once(',')?;
        let (center, width): (f64, f64) = (center.trim().parse().ok()?, width.trim().parse().ok()?);
        ((-2_000.0..=4_000.0).contains(&center) && (1.0..=8_000.0).contains(&width)).then_some((center, width))
    };
    parse().ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        Problem::bad(format!("window {text:?} is none of {} and no center,width in HU", names.join(", ")))
    })
}

/// A result object: the Part 10 file
///
/// The download stands in the audit trail.
#[utoipa::path(get, path = "/api/studies/{study}/objects/{instance}", tag = "studies",
    params(("study" = String, Path, description = "Study Instance UID"),
        ("instance" = String, Path, description = "SOP Instance UID of the object")),
    responses((status = 200, content_type = "application/dicom", body = Vec<u8>),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The file is no longer kept", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn object(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    Path((study, instance)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (study, instance) = (uid(&study)?, uid(&instance)?);
    let detail = app.facts.store.study(&StudyKey::Uid(study.clone())).await?;
    let object = detail.objects.into_iter().find(|object| object.sop_instance == instance);
    let object = object.ok_or_else(|| Problem::not_found(format!("object {instance} of study {study}")))?;
    if object.removed_at.is_some() {
        return Err(Problem::new(StatusCode::GONE, format!("object {instance} of study {study} is no longer kept")));
    }
    let file = tokio::fs::File::open(&object.path).await.map_err(|error| {
        tracing::error!(%error, %instance, "the file of an object cannot be read");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the file of object {instance} cannot be read"))
    })?;
    audit(&app, &caller, "object-downloaded", Some(&study), json!({ "object": instance })).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/dicom".to_owned()),
        (header::CONTENT_LENGTH, object.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{instance}.dcm\"")),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        assert_eq!(window("brain").unwrap(), (40.0, 80.0));
        assert_eq!(window("100, 2000").unwrap(), (100.0, 2000.0));
        for bad in ["", "liver", "1", "1,0", "1,-5", "NaN,5", "1,inf", "99999,5"] {
            assert!(window(bad).is_err(), "{bad:?}");
        }
    }
}
