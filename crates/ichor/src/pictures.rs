//! Slices drawn for the pages: the source in its window, and over it the outline of the newest Segmentation or a map.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ichor_admin::{Overlay, PictureFault, Pictures, WantedPicture};
use ichor_core::Uid;
use ichor_ct::header::InstanceHeader;
use ichor_ct::volume::{PlacedSlice, Slice};
use ichor_decode::{DecodeError, Decoder, DecoderOptions};
use ichor_picture::{Color, Contour, Image, Raster, Window};
use ichor_result::{ReadSegmentation, read_segmentation};
use ichor_store::MapFile;

/// Colour of the outline: it stands out against every grey, and from the red that means danger.
const OUTLINE: Color = [255, 196, 0];

/// Draws. The Segmentation that was read last is kept: its slices are asked for one after the other.
pub(crate) struct Easel {
    decoder: io::Result<Decoder>,
    last: Mutex<Option<(Uid, Arc<ReadSegmentation>)>>,
}

impl Easel {
    /// A decoder that starts its children when they are needed.
    pub(crate) fn new(options: DecoderOptions) -> Self {
        Self { decoder: Decoder::new(options), last: Mutex::new(None) }
    }

    fn slice(&self, wanted: &WantedPicture) -> Result<Slice, PictureFault> {
        let unreadable = |error: &dyn std::fmt::Display| {
            PictureFault::Unreadable(format!("instance {} cannot be shown: {error}", wanted.sop_instance))
        };
        let headers = InstanceHeader::read_all(&wanted.file).map_err(|error| unreadable(&error))?;
        let header = match wanted.frame {
            Some(frame) => headers.into_iter().find(|header| header.frame == Some(frame)),
            None => headers.into_iter().next(),
        };
        let header = header.ok_or_else(|| unreadable(&"there is no such frame"))?;
        let plane = header.plane.clone().map_err(|reason| unreadable(&reason))?;
        let placed = PlacedSlice { header, plane, offset_mm: 0.0, slab_mm: 0.0 };
        let decoder = self.decoder.as_ref().map_err(|error| PictureFault::Unavailable(error.to_string()))?;
        decoder.read_slice(&placed).map_err(|error| match error {
            DecodeError::Slice(reason) => unreadable(&reason),
            DecodeError::Unavailable(error) => PictureFault::Unavailable(error.to_string()),
        })
    }

    fn segmentation(&self, uid: &Uid, path: &Path) -> Result<Arc<ReadSegmentation>, PictureFault> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((kept, segmentation)) = last.as_ref()
            && kept == uid
        {
            return Ok(Arc::clone(segmentation));
        }
        let read = read_segmentation(path);
        let read = read.map_err(|error| PictureFault::Unreadable(format!("segmentation {uid}: {error}")))?;
        let read = Arc::new(read);
        *last = Some((uid.clone(), Arc::clone(&read)));
        Ok(read)
    }
}

impl Pictures for Easel {
    fn draw(&self, wanted: &WantedPicture) -> Result<Vec<u8>, PictureFault> {
        let slice = self.slice(wanted)?;
        let (rows, columns) = (slice.plane.rows as usize, slice.plane.columns as usize);
        let failed = |error: ichor_picture::PictureError| PictureFault::Unreadable(error.to_string());
        let (center, width) = wanted.window;
        let mut image = Image::slice(&slice.hu, rows, columns, Window { center, width }, 1).map_err(failed)?;
        match &wanted.overlay {
            Overlay::None => {}
            Overlay::Outline(uid, path) => {
                let segmentation = self.segmentation(uid, path)?;
                let mask = mask_of(&segmentation, &wanted.sop_instance, wanted.frame, rows * columns);
                image.contour(&Contour { mask: &mask, color: OUTLINE, thickness: 1 }).map_err(failed)?;
            }
            Overlay::Map(file) => {
                let map = read_map(file).map_err(|error| {
                    PictureFault::Unreadable(format!("the map of slice {}: {error}", wanted.sop_instance))
                })?;
                image.heat(map.samples()).map_err(failed)?;
            }
        }
        image.png(&[]).map_err(failed)
    }
}

/// Reads one map of the file that holds those of a study.
fn read_map(map: &MapFile) -> io::Result<Raster> {
    let mut file = File::open(&map.path)?;
    file.seek(SeekFrom::Start(map.place.offset))?;
    let mut png = vec![0; map.place.bytes as usize];
    file.read_exact(&mut png)?;
    Raster::read_grey(&png).map_err(io::Error::other)
}

/// Every segment's frames of one slice together.
fn mask_of(segmentation: &ReadSegmentation, instance: &Uid, frame: Option<u32>, pixels: usize) -> Vec<u8> {
    let mut mask = vec![0; pixels];
    let is_of_slice = |read: &&ichor_result::ReadFrame| {
        read.source_sop_instance == *instance && (frame.is_none() || read.source_frame == frame)
    };
    for read in segmentation.frames.iter().filter(is_of_slice).filter(|read| read.mask.len() == pixels) {
        mask.iter_mut().zip(&read.mask).for_each(|(pixel, value)| *pixel |= u8::from(*value != 0));
    }
    mask
}

#[cfg(test)]
mod tests {
    /// The page's legend is a gradient of its own: it must be of the colours that are drawn.
    #[test]
    fn the_legend_has_the_colours_of_the_map() {
        let css = include_str!("../../ichor-admin/assets/ichor.css");
        let gradient = css.split_once("linear-gradient(to right, ").unwrap().1.split_once(')').unwrap().0;
        let stops: Vec<&str> = gradient.split(", ").collect();
        assert_eq!(stops.len(), 5);
        for (place, stop) in (0u8..).zip(stops) {
            let (color, _) = ichor_picture::heat_color((f32::from(place) * 63.75).round() as u8);
            for (channel, drawn) in color.iter().enumerate() {
                let shown = u8::from_str_radix(&stop[1 + channel * 2..3 + channel * 2], 16).unwrap();
                assert!(shown.abs_diff(*drawn) <= 2, "stop {place}: {stop} is not {color:?}");
            }
        }
    }
}
