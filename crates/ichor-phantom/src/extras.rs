//! What most heads are spared: a flap of the skull taken out, metal, a couch and a pillow in the picture, a head that is
//! turned or not wholly in the field of view. None by default; masks of the brain are judged on them.

use serde::{Deserialize, Serialize};

use crate::error::PhantomError;
use crate::geometry::{V3, bell, lerp, norm, ramp, smooth, sub, unit};
use crate::head::Place;
use crate::outside::AIR;

/// Attenuation of metal, where the scale ends, in HU.
const METAL: f32 = 3071.0;
/// Attenuation of scar and muscle in place of a flap, in HU.
const SCAR: f32 = 42.0;
/// Metal in the head: middle and radius in mm. A clip at the base, two fillings, two screws of a plate.
const PIECES: [(V3, f32); 5] = [
    ([9.0, -12.0, -8.0], 3.0),
    ([21.0, -62.0, -68.0], 4.5),
    ([-22.0, -58.0, -68.0], 4.5),
    ([-52.0, 30.0, 46.0], 2.5),
    ([-56.0, 8.0, 48.0], 2.5),
];

/// Extras of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Extras {
    /// Diameter of the flap that has been taken out of the skull's side, in mm; 0: none.
    pub craniectomy_mm: f32,
    /// Whether there is metal, with its streaks.
    pub metal: bool,
    /// Whether there is air below the frontal bone, as after an operation.
    pub air: bool,
    /// Whether the couch is in the picture. It lies 105 mm behind the middle of the field of view.
    pub couch: bool,
    /// Whether a pillow and pads hold the head.
    pub pillow: bool,
    /// Turn of the head about the table's axis, in degrees, on top of the seed's.
    pub roll_degrees: f32,
    /// Shift of the head to the left and to the back, in mm, on top of the seed's.
    pub shift_mm: [f32; 2],
}

impl Extras {
    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn checked(&self) -> Result<(), PhantomError> {
        let bounds = [
            (self.craniectomy_mm, 0.0..=140.0),
            (self.roll_degrees, -180.0..=180.0),
            (self.shift_mm[0], -200.0..=200.0),
            (self.shift_mm[1], -200.0..=200.0),
        ];
        match bounds.into_iter().find(|(value, range)| !range.contains(value)) {
            Some((value, range)) => {
                let why = format!("{value} is not within {} to {}", range.start(), range.end());
                Err(PhantomError::Option { name: "extras", why })
            }
            None => Ok(()),
        }
    }

    /// Attenuation at a point of the head outside the cavity: `hu` is what it would be without the extras.
    #[inline]
    pub(crate) fn outside(&self, hu: f32, place: &Place, half: f32) -> f32 {
        if self.craniectomy_mm <= 0.0 {
            return hu;
        }
        // Over the temple and the side, as decompressions are made.
        let middle = unit([1.0, -0.15, 0.45]);
        let chord = norm(sub(place.direction, middle));
        let radius = self.craniectomy_mm / 2.0 / place.wall.inner.max(1.0);
        let edge = 1.5 / place.wall.inner.max(1.0);
        let gone = smooth(radius + edge, radius - edge, chord);
        let in_bone = ramp(place.wall.skull + 0.5 + place.depth(), half);
        lerp(hu, SCAR, gone * in_bone * f32::from(u8::from(place.floor > -2.0)))
    }

    /// Attenuation at a point of the head, metal included.
    #[inline]
    pub(crate) fn metal(&self, hu: f32, p: V3, half: f32) -> f32 {
        if !self.metal {
            return hu;
        }
        PIECES.iter().fold(hu, |hu, (middle, radius)| lerp(hu, METAL, ramp(radius - norm(sub(p, *middle)), half)))
    }

    /// Attenuation at a point of the head, air within it included.
    #[inline]
    pub(crate) fn air(&self, hu: f32, p: V3, half: f32) -> f32 {
        if !self.air {
            return hu;
        }
        let k = norm([p[0] / 30.0, (p[1] + 58.0) / 14.0, (p[2] - 34.0) / 16.0]);
        lerp(hu, AIR, ramp((1.0 - k) * 14.0, half))
    }

    /// What metal adds around it, in HU: bright and dark spokes in its own slices.
    #[inline]
    pub(crate) fn streaks(&self, p: V3) -> f32 {
        if !self.metal {
            return 0.0;
        }
        let spokes = |(middle, radius): &(V3, f32)| {
            let d = sub(p, *middle);
            let away = (d[0] * d[0] + d[1] * d[1]).sqrt();
            let near = bell(d[2] / (radius + 2.0)) * radius * 60.0 / (away + 3.0 * radius);
            near * (9.0 * d[1].atan2(d[0])).sin()
        };
        PIECES.iter().map(spokes).sum()
    }

    /// What lies where the head is not, at a point of the room against the middle of the field of view: `air` if
    /// nothing.
    #[inline]
    pub(crate) fn around(&self, air: f32, x: f32, y: f32) -> f32 {
        let mut hu = air;
        if self.pillow {
            let cushion = y > 30.0 && y < 104.0 && x.abs() < 110.0 - 0.002 * (y - 104.0).powi(2);
            let pad = y.abs() < 45.0 && (92.0..108.0).contains(&x.abs());
            let cover = (103.0..104.5).contains(&y) && x.abs() < 108.0;
            hu = match (cushion || pad, cover) {
                (_, true) => -120.0,
                (true, _) => -880.0,
                _ => hu,
            };
        }
        if self.couch {
            let top = 105.0 - x * x / 900.0;
            let within = y - top;
            if (0.0..24.0).contains(&within) && x.abs() < 200.0 {
                let is_skin = !(2.0..=22.0).contains(&within);
                let is_rail = (within - 12.0).powi(2) + (x.abs() - 85.0).powi(2) < 25.0;
                hu = match (is_rail, is_skin) {
                    (true, _) => 1400.0,
                    (_, true) => 260.0,
                    _ => AIR + 60.0,
                };
            }
        }
        hu
    }
}
