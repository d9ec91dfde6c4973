//! The brain mask: what lies inside the skull.
//!
//! Slice by slice, so that it can be had as slices arrive and costs no volume of memory: bone is thresholded and
//! closed, what the closed ring encloses is the inside, and the inside grows back to the bone, so that thin blood at
//! the inner table stays in. Table, pillow and skin lie outside of the ring by construction. Where a piece of the skull is
//! missing, an [arc](ring) takes its place; where the picture ends within the head, so does the inside.

mod ring;

use crate::distance::distance_to;
use crate::volume::PADDING_HU;

/// Changes whenever [`brain_mask`] gives another mask for the same pixels. Caches of prepared studies carry it.
pub const BRAIN_MASK_VERSION: u32 = 3;

/// From this value on a pixel is bone, in HU: above clotted blood (up to 100) with partial volume in between.
const BONE_HU: i16 = 180;
/// The edge of the inside, in HU: up to halfway between soft tissue and the inner table. The scanner's blur spreads the
/// table over its neighbours, and the edge of a blurred step lies where it is half as high. Not air, as in a sinus.
const EDGE_HU: std::ops::Range<i16> = -150..450;
/// How far the inside grows into that edge, in mm.
const EDGE_MM: f64 = 1.0;
/// Closing radii that are tried, in mm, until the ring is closed: sutures, then foramina, then the skull base.
const CLOSING_MM: [f32; 3] = [3.0, 6.0, 10.0];
/// Soft tissue inside the skull, in HU.
const INSIDE_HU: std::ops::RangeInclusive<i16> = -30..=160;
/// Regions below this area are not brain, in mm².
const SMALLEST_MM2: f64 = 300.0;
/// A closed ring encloses at least this area at the levels where brain is seen, in mm²; below it a wider closing is
/// tried.
const ENOUGH_MM2: f64 = 2500.0;
/// Below this value it is air at the edge of the picture, in HU: there the outside begins.
const AIR_HU: i16 = -300;
/// A closed ring encloses at least this share of what the ring with its missing piece would; below it the piece is put in.
const CLOSED_SHARE: f64 = 0.8;
/// Fat, in HU. What a face and the fossa below the temple have and a brain has not.
const FAT_HU: std::ops::Range<i16> = -150..-30;
/// So near to air it is the blurred edge of the air, in mm.
const AIR_EDGE_MM: f32 = 2.5;
/// Most fat in what is brain, as a share of its area.
const MOST_FAT: f64 = 0.04;
/// Least soft tissue in what is brain, as a share; there may be air in it after an operation.
const SOFT_SHARE: f64 = 0.8;
/// The work is done on pixels of about this size, in mm.
const WORK_MM: f64 = 0.9;

/// The mask of one slice: 1 inside the skull, 0 elsewhere, `rows × columns` values.
///
/// `hu` must hold `rows × columns` values; `spacing` is \[between rows, between columns\] in mm.
#[must_use]
pub fn brain_mask(hu: &[i16], rows: usize, columns: usize, spacing: [f64; 2]) -> Vec<u8> {
    let factor = ((WORK_MM / spacing[0].min(spacing[1])).round() as usize).clamp(1, 8);
    let (small_rows, small_columns) = (rows.div_ceil(factor), columns.div_ceil(factor));
    let (small, padding) = shrink(hu, rows, columns, factor);
    let padding = at_border(padding, small_rows, small_columns);
    let mm = [spacing[0] * factor as f64, spacing[1] * factor as f64];
    let fat = fat(&small, small_rows, small_columns, mm);
    let work = Work { hu: &small, padding, fat, rows: small_rows, columns: small_columns, mm };
    let inside = work.inside();
    let mut fine = vec![false; rows * columns];
    for row in 0..rows {
        for column in 0..columns {
            let at = row * columns + column;
            let is_inside = inside[row / factor * small_columns + column / factor];
            // The coarse mask may reach into the inner table; full-resolution bone does not belong to it.
            fine[at] = is_inside && hu[at] < BONE_HU;
        }
    }
    let from_inside = distance_to(&fine, rows, columns, spacing);
    let in_edge = |distance: f32, hu: i16| f64::from(distance) <= EDGE_MM && EDGE_HU.contains(&hu);
    let edge = from_inside.iter().zip(hu).map(|(distance, hu)| in_edge(*distance, *hu));
    fine.iter().zip(edge).map(|(inside, edge)| u8::from(*inside || edge)).collect()
}

/// Means of `factor × factor` blocks without their padding, and which blocks are nothing else.
fn shrink(hu: &[i16], rows: usize, columns: usize, factor: usize) -> (Vec<i16>, Vec<bool>) {
    let (small_rows, small_columns) = (rows.div_ceil(factor), columns.div_ceil(factor));
    let mut out = Vec::with_capacity(small_rows * small_columns);
    let mut padding = Vec::with_capacity(small_rows * small_columns);
    for row in 0..small_rows {
        for column in 0..small_columns {
            let (mut sum, mut count) = (0i32, 0i32);
            for r in row * factor..((row + 1) * factor).min(rows) {
                for value in &hu[r * columns + column * factor..r * columns + ((column + 1) * factor).min(columns)] {
                    if *value > PADDING_HU {
                        sum += i32::from(*value);
                        count += 1;
                    }
                }
            }
            padding.push(count == 0);
            out.push(if count == 0 { PADDING_HU } else { (sum / count) as i16 });
        }
    }
    (out, padding)
}

/// Where there is fat, and not only the edge of air.
fn fat(hu: &[i16], rows: usize, columns: usize, mm: [f64; 2]) -> Vec<bool> {
    let air: Vec<bool> = hu.iter().map(|hu| *hu < FAT_HU.start).collect();
    let from_air = distance_to(&air, rows, columns, mm);
    hu.iter().zip(from_air).map(|(hu, distance)| FAT_HU.contains(hu) && distance > AIR_EDGE_MM).collect()
}

/// The padding that reaches the edge of the picture: metal casts shadows as deep within the head.
fn at_border(padding: Vec<bool>, rows: usize, columns: usize) -> Vec<bool> {
    let seeds: Vec<usize> = border(rows, columns).filter(|at| padding[*at]).collect();
    let mut reached = vec![false; padding.len()];
    flood(rows, columns, &seeds, &padding, &mut reached);
    reached
}

/// Each pixel at the edge of the picture, corners twice.
fn border(rows: usize, columns: usize) -> impl Iterator<Item = usize> {
    let top_and_bottom = (0..columns).flat_map(move |column| [column, (rows - 1) * columns + column]);
    let sides = (0..rows).flat_map(move |row| [row * columns, row * columns + columns - 1]);
    top_and_bottom.chain(sides)
}

/// 4-connected flood through `allowed`; gives and marks what it reached.
fn flood(rows: usize, columns: usize, seeds: &[usize], allowed: &[bool], seen: &mut [bool]) -> Vec<usize> {
    let mut reached: Vec<usize> = Vec::with_capacity(seeds.len());
    for seed in seeds {
        if !seen[*seed] {
            seen[*seed] = true;
            reached.push(*seed);
        }
    }
    let mut next = 0;
    while next < reached.len() {
        let at = reached[next];
        next += 1;
        let (row, column) = (at / columns, at % columns);
        let mut visit = |is_there: bool, neighbour: usize| {
            if is_there && allowed[neighbour] && !seen[neighbour] {
                seen[neighbour] = true;
                reached.push(neighbour);
            }
        };
        visit(row > 0, at.wrapping_sub(columns));
        visit(row + 1 < rows, at + columns);
        visit(column > 0, at.wrapping_sub(1));
        visit(column + 1 < columns, at + 1);
    }
    reached
}

/// Whether a region holds nearly all of another one.
fn is_most_of(region: &[bool], other: &[bool]) -> bool {
    let count = other.iter().filter(|inside| **inside).count();
    let both = region.iter().zip(other).filter(|(a, b)| **a && **b).count();
    both * 10 >= count * 9
}

/// One slice at the working resolution.
struct Work<'a> {
    hu: &'a [i16],
    /// Padding outside of what was scanned.
    padding: Vec<bool>,
    /// Fat.
    fat: Vec<bool>,
    rows: usize,
    columns: usize,
    mm: [f64; 2],
}

impl Work<'_> {
    fn inside(&self) -> Vec<bool> {
        let mut bone: Vec<bool> = self.hu.iter().map(|hu| *hu >= BONE_HU).collect();
        let (area, found) = self.closed(&bone);
        let Some(arc) = ring::missing_arc(self).filter(|arc| area < CLOSED_SHARE * arc.area_mm2) else { return found };
        arc.pixels.into_iter().for_each(|at| bone[at] = true);
        let (larger, with_arc) = self.closed(&bone);
        let inside = (0..with_arc.len()).filter(|at| with_arc[*at]);
        if larger > area && self.is_brain(inside) && is_most_of(&with_arc, &found) { with_arc } else { found }
    }

    /// Whether a region is brain: soft tissue with hardly any fat.
    fn is_brain(&self, region: impl Iterator<Item = usize>) -> bool {
        let (mut all, mut soft, mut fat) = (0usize, 0usize, 0usize);
        for at in region {
            all += 1;
            soft += usize::from(INSIDE_HU.contains(&self.hu[at]));
            fat += usize::from(self.fat[at]);
        }
        soft as f64 >= SOFT_SHARE * all as f64 && fat as f64 <= MOST_FAT * all as f64
    }

    /// What a skull encloses, closed as far as it takes, and its area in mm².
    fn closed(&self, bone: &[bool]) -> (f64, Vec<bool>) {
        let from_bone = distance_to(bone, self.rows, self.columns, self.mm);
        let pixel = self.mm[0] * self.mm[1];
        let mut best: (f64, Vec<bool>) = (0.0, vec![false; self.hu.len()]);
        for radius in CLOSING_MM {
            let found = self.enclosed(&from_bone, radius);
            let area = found.iter().filter(|inside| **inside).count() as f64 * pixel;
            if area > best.0 {
                best = (area, found);
            }
            if best.0 >= ENOUGH_MM2 {
                break;
            }
        }
        best
    }

    /// What the bone, grown by `radius` mm, encloses, grown back.
    fn enclosed(&self, from_bone: &[f32], radius: f32) -> Vec<bool> {
        let open: Vec<bool> = from_bone.iter().map(|distance| *distance > radius).collect();
        let outside = self.reachable_from_outside(&open);
        let core: Vec<bool> = open.iter().zip(&outside).map(|(open, outside)| *open && !outside).collect();
        let core = self.large_soft_regions(&core);
        let from_core = distance_to(&core, self.rows, self.columns, self.mm);
        // Back to the bone, not through it: a pixel is inside if the core is nearer than the ring was grown by, and it
        // is soft. The half pixel takes in the partial volume at the inner table.
        let reach = radius + 0.75 * self.mm[0].max(self.mm[1]) as f32;
        let grown: Vec<bool> = from_core
            .iter()
            .zip(self.hu)
            .map(|(distance, hu)| *distance <= reach && *hu < BONE_HU && *hu > *INSIDE_HU.start() - 120)
            .collect();
        self.connected_to(&core, &grown)
    }

    /// Keeps regions of a size that brain may have and of its tissue (no sinus, no orbit of fat).
    fn large_soft_regions(&self, core: &[bool]) -> Vec<bool> {
        let (mut out, mut seen) = (vec![false; core.len()], vec![false; core.len()]);
        let smallest = (SMALLEST_MM2 / (self.mm[0] * self.mm[1])) as usize;
        for start in 0..core.len() {
            if !core[start] || seen[start] {
                continue;
            }
            let region = self.flood(&[start], core, &mut seen);
            if region.len() >= smallest && self.is_brain(region.iter().copied()) {
                region.iter().for_each(|at| out[*at] = true);
            }
        }
        out
    }

    /// What the air around the head reaches. Where the picture ends within the head there is no air, so that the inside is
    /// not taken for the outside.
    fn reachable_from_outside(&self, open: &[bool]) -> Vec<bool> {
        let (rows, columns) = (self.rows, self.columns);
        let beside_padding = (0..open.len()).filter(|at| {
            let (row, column) = (at / columns, at % columns);
            (row > 0 && self.padding[at - columns])
                || (row + 1 < rows && self.padding[at + columns])
                || (column > 0 && self.padding[at - 1])
                || (column + 1 < columns && self.padding[at + 1])
        });
        let is_air = |at: &usize| open[*at] && !self.padding[*at] && self.hu[*at] < AIR_HU;
        let seeds: Vec<usize> = border(rows, columns).chain(beside_padding).filter(is_air).collect();
        let allowed: Vec<bool> = open.iter().zip(&self.padding).map(|(open, padding)| *open && !padding).collect();
        let mut seen = self.padding.clone();
        self.flood(&seeds, &allowed, &mut seen);
        seen
    }

    /// The part of `allowed` that touches `core`.
    fn connected_to(&self, core: &[bool], allowed: &[bool]) -> Vec<bool> {
        let seeds: Vec<usize> = (0..core.len()).filter(|at| core[*at] && allowed[*at]).collect();
        let mut seen = vec![false; core.len()];
        self.flood(&seeds, allowed, &mut seen);
        seen
    }

    fn flood(&self, seeds: &[usize], allowed: &[bool], seen: &mut [bool]) -> Vec<usize> {
        flood(self.rows, self.columns, seeds, allowed, seen)
    }
}
