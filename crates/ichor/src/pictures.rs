//! Slices drawn for the pages: the source in its window, and the outline of the newest Segmentation.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ichor_admin::{PictureFault, Pictures, WantedPicture};
use ichor_core::Uid;
use ichor_ct::header::InstanceHeader;
use ichor_ct::volume::{PlacedSlice, Slice};
use ichor_decode::{DecodeError, Decoder, DecoderOptions};
use ichor_picture::{Color, Contour, Image, Window};
use ichor_result::{ReadSegmentation, read_segmentation};

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
        if let Some((uid, path)) = &wanted.segmentation {
            let segmentation = self.segmentation(uid, path)?;
            let mask = mask_of(&segmentation, &wanted.sop_instance, wanted.frame, rows * columns);
            image.contour(&Contour { mask: &mask, color: OUTLINE, thickness: 1 }).map_err(failed)?;
        }
        image.png(&[]).map_err(failed)
    }
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
