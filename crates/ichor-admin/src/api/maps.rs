//! Attribution maps of slices: where the classifier looked.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ichor_core::Uid;
use ichor_store::{MapFile, SliceMap};
use serde::Deserialize;
use utoipa::IntoParams;

use super::slices::note_view;
use super::uid;
use crate::App;
use crate::access::AsViewer;
use crate::problem::Problem;

/// Which map.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MapQuery {
    /// The frame, counted from 1, of a multi-frame instance.
    frame: Option<u32>,
}

/// A slice's attribution map as a PNG of eight bits of grey, as large as the slice: 255 is 1
///
/// It says where the classifier looked, and is no probability of blood. The first picture of a study in an hour, by the same
/// user, stands in the audit trail.
#[utoipa::path(get, path = "/api/studies/{study}/slices/{instance}/map", tag = "studies",
    params(("study" = String, Path, description = "Study Instance UID"),
        ("instance" = String, Path, description = "SOP Instance UID of the slice"), MapQuery),
    responses((status = 200, content_type = "image/png", body = Vec<u8>),
        (status = 404, description = "No such slice, or its analysis kept no maps", body = Problem,
         content_type = "application/problem+json"),
        (status = 410, description = "The map is no longer kept", body = Problem,
         content_type = "application/problem+json"),
        (status = 422, description = "The study or the slice is not positive: it has none", body = Problem,
         content_type = "application/problem+json")))]
pub(crate) async fn map(
    State(app): State<Arc<App>>,
    AsViewer(caller): AsViewer,
    Path((study, instance)): Path<(String, String)>,
    query: Result<Query<MapQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let (study, instance) = (uid(&study)?, uid(&instance)?);
    let map = kept(&app, &study, &instance, query.frame).await?;
    note_view(&app, &caller, study).await?;
    let read = tokio::task::spawn_blocking(move || read(&map)).await;
    let png = read.map_err(std::io::Error::other).flatten().map_err(|error| {
        tracing::error!(%error, %instance, "the map of a slice cannot be read");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the map of slice {instance} cannot be read"))
    })?;
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, png).into_response())
}

/// The map of a slice, or why there is none.
pub(super) async fn kept(app: &App, study: &Uid, instance: &Uid, frame: Option<u32>) -> Result<MapFile, Problem> {
    let slice = match frame {
        Some(frame) => format!("frame {frame} of slice {instance}"),
        None => format!("slice {instance}"),
    };
    let none = |why: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    match app.facts.store.slice_map(study, instance, frame).await? {
        SliceMap::Kept(map) => Ok(map),
        SliceMap::NoFinding => {
            Err(none(format!("study {study} has no finding: only positive slices of positive studies have maps")))
        }
        SliceMap::NegativeStudy => {
            Err(none(format!("study {study} is not positive: only positive slices of positive studies have maps")))
        }
        SliceMap::NegativeSlice => Err(none(format!("{slice} is not positive: it has no map"))),
        SliceMap::OtherSlice => {
            Err(Problem::not_found(format!("{slice} is none that was analysed in study {study}: it has no map")))
        }
        SliceMap::NeverKept => Err(Problem::not_found(format!(
            "no maps of study {study} were kept: it was analysed by a version that kept none, or with \
             analysis.keep_maps off"
        ))),
        SliceMap::Removed(at) => Err(Problem::new(
            StatusCode::GONE,
            format!("the maps of study {study} are no longer kept, since {} ms", at.as_millis()),
        )),
    }
}

/// Reads the PNG of a map.
fn read(map: &MapFile) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(&map.path)?;
    file.seek(SeekFrom::Start(map.place.offset))?;
    let mut png = vec![0; map.place.bytes as usize];
    file.read_exact(&mut png)?;
    Ok(png)
}
