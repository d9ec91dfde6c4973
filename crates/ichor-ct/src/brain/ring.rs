//! The skull as a ring seen from the middle of the head, and an arc where a piece of it is missing.
//!
//! Along each ray the skull is sought from the skin inwards. Where it is missing (a craniectomy), the inside ends as far
//! below the skin as it does at either side of the gap: the skin shows how the brain bulges or sinks there.

use super::{BONE_HU, Work};
use crate::distance::distance_to;

/// Rays.
const RAYS: usize = 256;
/// From this value on it is no air, in HU.
const HEAD_HU: i16 = -250;
/// Couch, head rest and ears are thinner than twice this, in mm; the head is not.
const OPENING_MM: f32 = 5.0;
/// The skull begins no further below the skin than this, in mm.
const SCALP_MM: f32 = 30.0;
/// Soft layers between the tables of the skull are no thicker than this, in mm.
const DIPLOE_MM: f32 = 5.0;
/// A ring with larger gaps than this share of the rays is no skull.
const MOST_OPEN: f64 = 0.45;
/// A gap of fewer rays than this is a suture.
const SHORTEST_GAP: usize = 4;

/// What one ray met.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ray {
    /// Skin, then skull: the distance of the skin from the middle, and how far below it the skull ends, in mm.
    Closed { skin: f32, depth: f32 },
    /// Skin without a skull.
    Open { skin: f32 },
    /// The picture ends within the head.
    Cut,
}

/// The missing part of a skull.
pub(super) struct Arc {
    /// Pixels where the skull would end, as if they were bone.
    pub(super) pixels: Vec<usize>,
    /// What the ring with the arc encloses, in mm².
    pub(super) area_mm2: f64,
}

/// The arc that closes the skull; `None` if it is closed, or if this is no skull.
pub(super) fn missing_arc(work: &Work<'_>) -> Option<Arc> {
    let head = head(work)?;
    let middle = centroid(&head, work.columns)?;
    let mut rays: Vec<Ray> = (0..RAYS).map(|ray| cast(work, &head, middle, direction(ray))).collect();
    close_sutures(&mut rays);
    let open = rays.iter().filter(|ray| matches!(ray, Ray::Open { .. })).count();
    let closed = rays.iter().filter(|ray| matches!(ray, Ray::Closed { .. })).count();
    if open == 0 || closed == 0 || open as f64 > MOST_OPEN * RAYS as f64 {
        return None;
    }
    let radii: Vec<Option<f32>> = (0..RAYS).map(|ray| radius(&rays, ray)).collect();
    let mut pixels = Vec::new();
    let mut area_mm2 = 0.0;
    for ray in 0..RAYS {
        let next = (ray + 1) % RAYS;
        let (Some(from), Some(to)) = (radii[ray], radii[next]) else { continue };
        area_mm2 += 0.5 * f64::from(from * to) * (std::f64::consts::TAU / RAYS as f64).sin();
        let is_open = |ray: usize| matches!(rays[ray], Ray::Open { .. });
        if is_open(ray) || is_open(next) {
            draw(work, middle, [(direction(ray), from), (direction(next), to)], &mut pixels);
        }
    }
    Some(Arc { pixels, area_mm2 })
}

fn direction(ray: usize) -> [f32; 2] {
    let (sin, cos) = (ray as f32 / RAYS as f32 * std::f32::consts::TAU).sin_cos();
    [sin, cos]
}

/// The largest thing that is thick and no air.
fn head(work: &Work<'_>) -> Option<Vec<bool>> {
    let air: Vec<bool> = work.hu.iter().zip(&work.padding).map(|(hu, padding)| *hu < HEAD_HU || *padding).collect();
    let from_air = distance_to(&air, work.rows, work.columns, work.mm);
    let thick: Vec<bool> = from_air.iter().map(|distance| *distance > OPENING_MM).collect();
    let mut seen = vec![false; thick.len()];
    let mut largest: Vec<usize> = Vec::new();
    for start in 0..thick.len() {
        if thick[start] && !seen[start] {
            let region = work.flood(&[start], &thick, &mut seen);
            if region.len() > largest.len() {
                largest = region;
            }
        }
    }
    if largest.is_empty() {
        return None;
    }
    let mut core = vec![false; thick.len()];
    largest.into_iter().for_each(|at| core[at] = true);
    let from_core = distance_to(&core, work.rows, work.columns, work.mm);
    Some(from_core.iter().zip(&air).map(|(distance, air)| *distance <= OPENING_MM && !air).collect())
}

fn centroid(head: &[bool], columns: usize) -> Option<[f32; 2]> {
    let (mut sum, mut count) = ([0.0f64; 2], 0.0f64);
    for at in (0..head.len()).filter(|at| head[*at]) {
        sum[0] += (at / columns) as f64;
        sum[1] += (at % columns) as f64;
        count += 1.0;
    }
    (count > 0.0).then(|| sum.map(|sum| (sum / count) as f32))
}

/// What a ray meets, from the skin inwards.
fn cast(work: &Work<'_>, head: &[bool], middle: [f32; 2], direction: [f32; 2]) -> Ray {
    let step_mm = 0.5 * work.mm[0].min(work.mm[1]) as f32;
    let at = |mm: f32| work.pixel(middle, direction, mm);
    let mut skin = 0.0;
    let mut steps = 0u16;
    let edge = loop {
        let mm = f32::from(steps) * step_mm;
        match at(mm) {
            Some(pixel) if head[pixel] => skin = mm,
            Some(pixel) if work.padding[pixel] => break Some(mm),
            Some(_) => {}
            None => break Some(mm),
        }
        steps += 1;
        if steps == u16::MAX {
            break None;
        }
    };
    // The picture ends where the head still is: two pixels, for the edge of the padding is not sharp.
    if edge.is_some_and(|edge| edge - skin <= 4.0 * step_mm) {
        return Ray::Cut;
    }
    let (mut outer, mut inner) = (None, None);
    let mut depth = 0.0f32;
    while depth < skin {
        let is_bone = at(skin - depth).is_some_and(|pixel| work.hu[pixel] >= BONE_HU);
        match (is_bone, inner) {
            (true, _) => (outer, inner) = (outer.or(Some(depth)), Some(depth)),
            (false, None) if depth > SCALP_MM => break,
            (false, Some(last)) if depth - last > DIPLOE_MM => break,
            (false, _) => {}
        }
        depth += step_mm;
    }
    match (outer, inner) {
        (Some(_), Some(inner)) => Ray::Closed { skin, depth: inner + 0.5 * step_mm },
        _ => Ray::Open { skin },
    }
}

/// Gaps of a few rays are sutures, which closing by a few millimetres closes anyhow.
fn close_sutures(rays: &mut [Ray]) {
    let is_open = |ray: &Ray| matches!(ray, Ray::Open { .. });
    let Some(start) = rays.iter().position(|ray| !is_open(ray)) else { return };
    let mut at = 0;
    while at < RAYS {
        let run = (at..RAYS).take_while(|offset| is_open(&rays[(start + offset) % RAYS])).count();
        if (1..SHORTEST_GAP).contains(&run) {
            for offset in at..at + run {
                let before = rays[(start + offset + RAYS - 1) % RAYS];
                let ray = &mut rays[(start + offset) % RAYS];
                if let (Ray::Open { skin }, Ray::Closed { depth, .. }) = (*ray, before) {
                    *ray = Ray::Closed { skin, depth };
                }
            }
        }
        at += run.max(1);
    }
}

/// Where the inside ends along a ray; `None` where the picture ends before.
fn radius(rays: &[Ray], ray: usize) -> Option<f32> {
    let skin = match rays[ray] {
        Ray::Closed { skin, depth } => return Some((skin - depth).max(0.0)),
        Ray::Cut => return None,
        Ray::Open { skin } => skin,
    };
    // A median of the nearest closed rays on either side: at the very edge of a gap bone is worn thin.
    let side = |step: usize| {
        let mut depths = Vec::with_capacity(5);
        let mut first = 0;
        for offset in 1..RAYS {
            if let Ray::Closed { depth, .. } = rays[(ray + offset * step) % RAYS] {
                if depths.is_empty() {
                    first = offset;
                }
                depths.push(depth);
                if depths.len() == 5 {
                    break;
                }
            }
        }
        depths.sort_by(f32::total_cmp);
        depths.get(depths.len() / 2).map(|depth| (first as f32, *depth))
    };
    let ((after, a), (before, b)) = (side(1)?, side(RAYS - 1)?);
    let depth = (a * before + b * after) / (before + after);
    Some((skin - depth).max(0.0))
}

/// Marks the pixels between the ends of two rays.
fn draw(work: &Work<'_>, middle: [f32; 2], ends: [([f32; 2], f32); 2], pixels: &mut Vec<usize>) {
    const PARTS: u8 = 16;
    for part in 0..=PARTS {
        let t = f32::from(part) / f32::from(PARTS);
        let at: [f32; 2] = std::array::from_fn(|axis| {
            let end = |(direction, mm): ([f32; 2], f32)| direction[axis] * mm;
            end(ends[0]) * (1.0 - t) + end(ends[1]) * t
        });
        pixels.extend(work.pixel(middle, at, 1.0));
    }
}

impl Work<'_> {
    /// The pixel so many mm from a place (row and column) in a direction; `None` outside of the picture.
    fn pixel(&self, from: [f32; 2], direction: [f32; 2], mm: f32) -> Option<usize> {
        let row = (from[0] + direction[0] * mm / self.mm[0] as f32).round();
        let column = (from[1] + direction[1] * mm / self.mm[1] as f32).round();
        let inside = row >= 0.0 && column >= 0.0 && row < self.rows as f32 && column < self.columns as f32;
        inside.then(|| row as usize * self.columns + column as usize)
    }
}
