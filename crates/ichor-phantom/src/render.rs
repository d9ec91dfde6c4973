//! One slice: materials averaged over each voxel, then what the scanner makes of them.

use ichor_core::ImagePlane;

use crate::brain::Spot;
use crate::geometry::{V3, add, lerp, norm, ramp, scale, smooth, unit};
use crate::mimic::Mimics;
use crate::options::{generator, stream};
use crate::phantom::PhantomSlice;
use crate::scanner::{OUTSIDE, blur, grain, noise_share};
use crate::scene::Scene;

/// Most bleeds in one head.
pub(crate) const MOST_LESIONS: usize = 8;
/// Resolution at which the noise option is meant, in mm a pixel.
const NOISE_PIXEL_MM: f32 = 0.47;

/// A voxel's, or a part of a voxel's, content.
#[derive(Clone, Copy, Default)]
struct Content {
    /// Without blood.
    plain: f32,
    /// With it.
    hu: f32,
    /// Share that lies within the skull.
    brain: f32,
    /// Share of blood.
    blood: f32,
    lesion: usize,
}

impl Content {
    /// Whether what lies between two parts can be left out.
    #[inline]
    fn is_like(&self, other: &Self) -> bool {
        (self.plain - other.plain).abs() < 5.0 && self.brain == other.brain && self.blood == other.blood
    }
}

/// Images of a slice before the scanner's part.
struct Layers {
    plain: Vec<f32>,
    hu: Vec<f32>,
    brain: Vec<u8>,
    /// 0, or 1 + index of the lesion.
    lesion: Vec<u8>,
}

/// A slice's plane in the head's axes.
struct Grid {
    origin: V3,
    along_row: V3,
    along_column: V3,
    normal: V3,
}

impl Grid {
    fn new(scene: &Scene, plane: &ImagePlane) -> Self {
        let step = |d: [f64; 3], by: f64| scene.pose.direction(d.map(|x| (x * by) as f32));
        Self {
            origin: scene.to_head(plane.position),
            along_row: step(plane.row, plane.spacing[1]),
            along_column: step(plane.column, plane.spacing[0]),
            normal: unit(step(plane.normal(), 1.0)),
        }
    }

    #[inline]
    fn point(&self, row: usize, column: usize) -> V3 {
        let (r, c) = (row as f32, column as f32);
        std::array::from_fn(|i| self.origin[i] + self.along_row[i] * c + self.along_column[i] * r)
    }
}

/// What is the same for all voxels of a slice.
struct Renderer<'a> {
    scene: &'a Scene,
    grid: Grid,
    mimics: Mimics,
    lesions: Vec<usize>,
    /// Offsets of the parts of a voxel along the normal.
    parts: Vec<V3>,
    /// Half the width of an edge in mm.
    half: f32,
    /// A voxel whose middle is further than this from the skin holds nothing but air.
    clearance: f32,
}

/// Renders one slice of a scene.
pub(crate) fn slice(scene: &Scene, index: usize) -> PhantomSlice {
    let plane = scene.planes[index];
    let (rows, columns) = (plane.rows as usize, plane.columns as usize);
    let renderer = Renderer::new(scene, &plane);
    let mut layers = renderer.layers(rows, columns);
    let area = layers.lesion.iter().filter(|l| **l != 0).count() as f64 * plane.pixel_area();
    if area < scene.min_slice_area_mm2 {
        layers.lesion.fill(0);
        layers.hu = std::mem::take(&mut layers.plain);
    }
    let hu = renderer.scan(layers.hu, &plane, index);
    let mut voxels = [0u64; MOST_LESIONS];
    let bleed = layers
        .lesion
        .iter()
        .map(|lesion| match lesion.checked_sub(1).map(usize::from) {
            Some(lesion) => {
                voxels[lesion] += 1;
                1 + scene.lesions[lesion].subtype as u8
            }
            None => 0,
        })
        .collect();
    PhantomSlice { plane, slab_mm: scene.slabs_mm[index], hu, brain: layers.brain, bleed, lesion_pixels: voxels }
}

impl<'a> Renderer<'a> {
    fn new(scene: &'a Scene, plane: &ImagePlane) -> Self {
        let thickness = scene.options.slice_thickness_mm as f32;
        let grid = Grid::new(scene, plane);
        let count = match thickness {
            t if t <= 1.5 => 1,
            t if t <= 3.5 => 2,
            _ => 3,
        };
        let mut parts: Vec<V3> =
            (0..count).map(|i| scale(grid.normal, thickness * ((i as f32 + 0.5) / count as f32 - 0.5))).collect();
        // The outermost two first.
        if count > 2 {
            parts.swap(1, count - 1);
        }
        // Everything a slice shows is near the plane through its middle, however the head is turned.
        let middle = grid.point(plane.rows as usize / 2, plane.columns as usize / 2);
        let mimics = scene.mimics.near_plane(middle, grid.normal, thickness / 2.0);
        let lesions = scene.lesions_near(middle, grid.normal, thickness / 2.0);
        let half = 0.5 * (plane.spacing[0] as f32).max(0.5);
        Self { scene, grid, mimics, lesions, parts, half, clearance: thickness + half }
    }

    fn layers(&self, rows: usize, columns: usize) -> Layers {
        let count = rows * columns;
        let mut layers = Layers {
            plain: vec![OUTSIDE; count],
            hu: vec![OUTSIDE; count],
            brain: vec![0; count],
            lesion: vec![0; count],
        };
        for row in 0..rows {
            for column in 0..columns {
                let p = self.grid.point(row, column);
                if self.scene.is_air(p) {
                    continue;
                }
                if self.scene.is_clear_of_skin(p, self.clearance) {
                    continue;
                }
                let at = row * columns + column;
                let voxel = self.voxel(p);
                layers.plain[at] = voxel.plain;
                layers.hu[at] = voxel.hu;
                layers.brain[at] = u8::from(voxel.brain >= 0.5);
                layers.lesion[at] = if voxel.blood >= 0.5 { 1 + voxel.lesion as u8 } else { 0 };
            }
        }
        layers
    }

    /// Averages the parts of a voxel. The inner ones are looked at only where the outermost two differ.
    #[inline]
    fn voxel(&self, p: V3) -> Content {
        let mut sum = self.part(add(p, self.parts[0]));
        let mut most = sum.blood;
        let mut count = 1.0;
        for offset in &self.parts[1..] {
            let part = self.part(add(p, *offset));
            let alike = count == 1.0 && part.is_like(&sum);
            if part.blood > most {
                most = part.blood;
                sum.lesion = part.lesion;
            }
            sum.plain += part.plain;
            sum.hu += part.hu;
            sum.brain += part.brain;
            sum.blood += part.blood;
            count += 1.0;
            if alike {
                break;
            }
        }
        let share = 1.0 / count;
        Content {
            plain: sum.plain * share,
            hu: sum.hu * share,
            brain: sum.brain * share,
            blood: sum.blood * share,
            lesion: sum.lesion,
        }
    }

    /// What is at a point.
    fn part(&self, p: V3) -> Content {
        let scene = self.scene;
        let place = scene.head.place(p);
        let within = ramp(place.depth(), self.half);
        let mut content = Content { brain: within, ..Content::default() };
        if within > 0.0 {
            let (from, effaced) = scene.undo_pushes(p);
            let spot = scene.brain.spot(p, from, effaced, &place);
            self.inside(&spot, &mut content);
            content.plain = scene.options.extras.air(content.plain, p, self.half);
            content.hu = scene.options.extras.air(content.hu, p, self.half);
        }
        if within < 1.0 {
            let outside = scene.outside.hu(p, &place, &scene.head, scene.brain.noise(), self.half);
            let outside = scene.options.extras.outside(outside, &place, self.half);
            content.plain = lerp(outside, content.plain, within);
            content.hu = lerp(outside, content.hu, within);
            content.blood *= within;
        }
        content.plain = scene.options.extras.metal(content.plain, p, self.half);
        content.hu = scene.options.extras.metal(content.hu, p, self.half);
        content
    }

    /// Tissue and blood at a point inside the skull.
    fn inside(&self, spot: &Spot, content: &mut Content) {
        let scene = self.scene;
        let noise = scene.brain.noise();
        let mut hu = scene.brain.hu(spot, self.half);
        if !self.mimics.is_empty() {
            hu = self.mimics.apply(hu, spot.p, noise, self.half);
        }
        let near_bone = 1.0 + spot.depth.max(0.0) / 4.0;
        let cupping = scene.scanner.cupping / (near_bone * near_bone);
        let (mut blood, mut blood_hu) = (0.0, 0.0);
        for &index in &self.lesions {
            let lesion = &scene.lesions[index];
            if !lesion.near(spot.head) {
                continue;
            }
            let inside = lesion.form.inside(spot, noise);
            let share = ramp(inside, self.half.max(lesion.edge));
            if share > blood {
                blood = share;
                let clots = noise.at(spot.head.map(|x| x / 5.0)) + 0.6 * noise.at(spot.head.map(|x| x / 14.0 + 3.3));
                blood_hu = lesion.hu + 3.5 * clots;
                content.lesion = index;
            }
            if let Some((drop, reach)) = lesion.oedema {
                hu = hu.min(lerp(hu, hu.min(30.0) - drop, smooth(-reach, 0.0, inside)).max(14.0));
            }
        }
        content.plain = hu + cupping;
        content.blood = blood;
        content.hu = lerp(hu, blood_hu, blood) + cupping;
    }

    /// The scanner's part: motion, bands, blur, noise, rest, and whole numbers.
    fn scan(&self, mut image: Vec<f32>, plane: &ImagePlane, index: usize) -> Vec<i16> {
        let scene = self.scene;
        let (rows, columns) = (plane.rows as usize, plane.columns as usize);
        let pixel = plane.spacing[0] as f32;
        let sigma = scene.options.blur_mm / pixel;
        scene.scanner.shake(&mut image, columns, pixel);
        blur(&mut image, columns, sigma);
        let mut rng = generator(scene.seed, stream::SLICES + index as u64);
        let grain = grain(&mut rng, rows, columns, sigma.max(0.45));
        let noise_hu = scene.options.noise_hu * (NOISE_PIXEL_MM / pixel).sqrt().clamp(0.6, 1.2);
        let petrous_z = scene.head.petrous_z;
        let circle = scene.scanner.circle_mm.map(|radius| (radius / plane.spacing[0]) as f32);
        let middle = [(rows as f32 - 1.0) / 2.0, (columns as f32 - 1.0) / 2.0];
        let mut out = Vec::with_capacity(image.len());
        for row in 0..rows {
            for column in 0..columns {
                let at = row * columns + column;
                let mut hu = image[at];
                let (dx, dy) = ((column as f32 - middle[1]) * pixel, (row as f32 - middle[0]) * pixel);
                if hu < -900.0 {
                    hu = scene.options.extras.around(hu, dx, dy);
                    hu = self.scene.scanner.rest(dx, dy).map_or(hu, |rest| rest.max(hu));
                    hu += 1.6 * noise_hu * grain[at];
                } else {
                    let p = self.grid.point(row, column);
                    if scene.options.artefacts > 0.0 {
                        hu += scene.scanner.bands(p, petrous_z, scene.brain.noise());
                    }
                    hu += scene.options.extras.streaks(p);
                    hu += noise_hu * noise_share(p, petrous_z) * grain[at];
                }
                let outside = circle.is_some_and(|radius| norm([dx / pixel, dy / pixel, 0.0]) > radius);
                out.push(if outside { OUTSIDE as i16 } else { hu.clamp(-1024.0, 3071.0).round() as i16 });
            }
        }
        out
    }
}
