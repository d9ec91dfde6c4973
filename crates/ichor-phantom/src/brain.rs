//! What lies inside the skull: fluid spaces, cortex, nuclei, dura.

use rand::Rng;

use crate::geometry::{V3, bell, dot, lerp, norm, off_whole, smooth, sub};
use crate::head::{HeadForm, Place};
use crate::noise::ValueNoise;

/// Distance to a structure that is nowhere near, in mm.
pub(crate) const FAR: f32 = -60.0;

/// Sizes of one brain, drawn from the seed.
pub(crate) struct BrainForm {
    /// 0 (young, full) to 1 (shrunken).
    pub(crate) atrophy: f32,
    /// Scale of the ventricles' radii, left and right of the image.
    ventricle: [f32; 2],
    third: f32,
    fourth: f32,
    cistern: f32,
    sylvian: f32,
    fissure: f32,
    sulcus: f32,
    sulcus_depth: f32,
    falx_half: f32,
    falx_reach: f32,
    sinus: f32,
    transverse: [f32; 2],
    tentorium_shift: f32,
    bend: f32,
    grey: f32,
    white: f32,
    csf: f32,
    dura: f32,
    sinus_hu: f32,
    leukoaraiosis: f32,
    phase: V3,
}

impl BrainForm {
    pub(crate) fn draw(rng: &mut impl Rng, atrophy: f32) -> Self {
        let ventricle = 0.45 + 0.75 * atrophy + rng.random_range(-0.08..0.35f32);
        let asymmetry = rng.random_range(-0.18..0.18f32);
        let transverse = rng.random_range(-1.4..1.4f32);
        let white = rng.random_range(26.5..29.5);
        Self {
            atrophy,
            ventricle: [ventricle * (1.0 + asymmetry), ventricle * (1.0 - asymmetry)],
            third: 0.8 + 2.4 * atrophy + rng.random_range(0.0..0.8f32),
            fourth: rng.random_range(0.75..1.25f32) + 0.2 * atrophy,
            cistern: rng.random_range(0.6..1.2f32) + 0.7 * atrophy,
            sylvian: 0.5 + 2.2 * atrophy * rng.random_range(0.6..1.2f32),
            fissure: 0.4 + 1.1 * atrophy,
            sulcus: 0.15 + 1.15 * atrophy * rng.random_range(0.7..1.2f32),
            sulcus_depth: rng.random_range(11.0..18.0),
            falx_half: rng.random_range(0.4..0.95),
            falx_reach: rng.random_range(0.0..10.0),
            sinus: rng.random_range(3.0..5.5),
            transverse: [(3.6 + transverse).max(1.8), (3.6 - transverse).max(1.8)],
            tentorium_shift: rng.random_range(-3.0..3.0),
            bend: rng.random_range(-3.0..3.0),
            grey: white + rng.random_range(6.5..9.5f32),
            white,
            csf: rng.random_range(3.0..9.0),
            dura: rng.random_range(44.0..62.0),
            sinus_hu: if rng.random_bool(0.2) { rng.random_range(60.0..72.0) } else { rng.random_range(46.0..58.0) },
            leukoaraiosis: atrophy * rng.random_range(0.0..9.0f32),
            phase: std::array::from_fn(|_| rng.random_range(0.0..16.0)),
        }
    }
}

/// What is known of a point inside the skull: distances in mm, positive within the structure named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// In the head's axes, before anything is pushed aside.
    pub(crate) head: V3,
    /// Where the anatomy comes from: `head` with the mass effect undone.
    pub(crate) p: V3,
    /// Depth within the skull's cavity.
    pub(crate) depth: f32,
    /// Point of the vault in this direction.
    pub(crate) surface: V3,
    /// Depth below the surface of the brain.
    pub(crate) brain: f32,
    /// The fluid around the brain: rim, sulci, fissures, cisterns.
    pub(crate) subarachnoid: f32,
    /// The ventricles.
    pub(crate) ventricle: f32,
    /// The tentorium's sheet: height above it.
    pub(crate) above_tentorium: f32,
    /// Whether the point lies in the posterior fossa.
    pub(crate) posterior_fossa: bool,
    /// Distance from the falx's plane.
    pub(crate) midline: f32,
    /// Whether the falx reaches here: distance within its sheet.
    pub(crate) falx: f32,
    /// Whether the tentorium reaches here.
    pub(crate) tentorium: f32,
    /// Dural sinuses.
    pub(crate) sinus: f32,
}

/// One brain.
pub(crate) struct Brain {
    form: BrainForm,
    noise: ValueNoise,
    ventricles: [[[f32; 4]; 9]; 2],
}

/// The lateral ventricle's course on the left: x, y, z, radius.
const LATERAL: [[f32; 4]; 9] = [
    [11.0, -36.0, 7.0, 3.6],
    [8.0, -25.0, 11.0, 4.6],
    [6.5, -8.0, 17.0, 4.0],
    [10.0, 8.0, 24.0, 4.8],
    [18.0, 26.0, 20.0, 5.8],
    [26.0, 36.0, 9.0, 7.2],
    [23.0, 57.0, 8.0, 2.4],
    [33.0, 16.0, -14.0, 2.6],
    [28.0, -4.0, -21.0, 2.0],
];
/// Which nodes of [`LATERAL`] are joined.
const JOINTS: [(usize, usize); 8] = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (5, 7), (7, 8)];
/// Cross-sections of the ventricles are taller than wide by this.
const TALL: f32 = 0.78;

impl Brain {
    pub(crate) fn new(form: BrainForm, noise: ValueNoise, rng: &mut impl Rng) -> Self {
        let ventricles = std::array::from_fn(|side| {
            LATERAL.map(|[x, y, z, r]| {
                let s = form.ventricle[side];
                // A wide ventricle grows outwards: its inner wall stays at the septum.
                let out = x + 0.55 * r * (s - 1.0);
                let jitter = |rng: &mut _, by: f32| -> f32 { Rng::random_range(rng, -by..by) };
                [out + jitter(rng, 1.0), y + jitter(rng, 2.5), (z + jitter(rng, 1.5)) * TALL, r * s]
            })
        });
        Self { form, noise, ventricles }
    }

    pub(crate) fn form(&self) -> &BrainForm {
        &self.form
    }

    /// Noise that structures of this brain share.
    pub(crate) fn noise(&self) -> &ValueNoise {
        &self.noise
    }

    /// Looks around a point inside the skull (or up to a few mm outside). `p` is where the anatomy comes from,
    /// `effaced` (0 to 1) how much the sulci are pressed shut there.
    pub(crate) fn spot(&self, head: V3, p: V3, effaced: f32, place: &Place) -> Spot {
        let form = &self.form;
        let depth = place.depth();
        let brain = depth - place.wall.rim * (1.0 - 0.8 * effaced);
        let above_tentorium = self.above_tentorium(p);
        let behind = p[1] - HeadForm::petrous_line(p[0].abs()).min(28.0) + 4.0;
        let posterior_fossa = above_tentorium < 0.0 && behind > 0.0;
        let along = p[1] * p[1] / 7000.0 + p[2] / 90.0;
        let midline = p[0] - form.bend * (1.0 - along).max(0.0);
        let callosum = 1.0 - (((p[1] + 1.0) / 38.0).powi(2) + ((p[2] - 7.0) / 25.0).powi(2)).sqrt();
        let surface = place.direction.map(|x| x * place.wall.inner);
        let mut subarachnoid = -brain;
        if posterior_fossa {
            subarachnoid = subarachnoid.max(self.folia(p, brain));
        } else {
            if brain < 26.0 {
                subarachnoid = subarachnoid.max(self.sulcus(place, brain, effaced));
            }
            let opening = if p[1] < 0.0 { 1.0 } else { 0.5 };
            let fissure = (form.fissure * (0.6 + opening) * (1.0 - 0.7 * effaced)
                + 0.5 * self.noise.at(p.map(|x| x / 9.0)))
            .max(0.1)
                - midline.abs();
            subarachnoid = subarachnoid.max(fissure.min(-callosum * 30.0)).max(self.sylvian(p, effaced));
        }
        subarachnoid = subarachnoid.max(self.cisterns(p) - 1.5 * effaced);
        let falx_inner = 1.0
            - ((p[1] / (50.0 - form.falx_reach)).powi(2) + ((p[2] - 6.0) / (44.0 - form.falx_reach)).powi(2)).sqrt();
        let falx = (form.falx_half - midline.abs()).min(-falx_inner * 40.0).min(above_tentorium + 1.0).min(p[2] + 14.0);
        let notch = ((p[0] / 21.0).powi(2) + ((p[1] - 12.0) / 22.0).powi(2)).sqrt() - 1.0;
        let tentorium = (0.8 - above_tentorium.abs()).min(notch * 20.0).min(behind);
        Spot {
            head,
            p,
            depth,
            surface,
            brain,
            subarachnoid,
            ventricle: self.ventricle(p),
            above_tentorium,
            posterior_fossa,
            midline,
            falx,
            tentorium,
            sinus: self.sinus(p, midline, depth, above_tentorium),
        }
    }

    fn above_tentorium(&self, p: V3) -> f32 {
        let (ax, back) = (p[0].abs(), (p[1] - 24.0).max(-10.0));
        let sheet = 3.0 + self.form.tentorium_shift - 0.30 * back - 0.42 * ax + 0.0022 * ax * ax;
        (p[2] - sheet) * 0.88
    }

    /// Sulci: sheets that stand on the brain's surface, where a smooth function of the direction is a whole number.
    fn sulcus(&self, place: &Place, brain: f32, effaced: f32) -> f32 {
        let form = &self.form;
        let twist = 0.22 * brain;
        let s: V3 = std::array::from_fn(|i| {
            place.direction[i] * 72.0 + form.phase[i] * 10.0 + [twist, -0.7 * twist, 0.4 * twist][i]
        });
        let (coarse, slope) = self.noise.with_gradient(s.map(|x| x / 34.0));
        let (fine, fine_slope) = self.noise.with_gradient(s.map(|x| x / 13.0 + 5.3));
        let phase = 2.3 * coarse + 0.62 * fine;
        let gradient: V3 = std::array::from_fn(|i| 2.3 * slope[i] / 34.0 + 0.62 * fine_slope[i] / 13.0);
        let radial = dot(gradient, place.direction);
        let steepness = (dot(gradient, gradient) - radial * radial).max(0.0012).sqrt();
        let shrink = (place.wall.inner - place.vault).max(20.0) / 72.0;
        let across = off_whole(phase) / steepness * shrink;
        let vary = self.noise.at(s.map(|x| x / 21.0 + 9.1));
        let half = form.sulcus * (0.55 + 0.75 * vary) * (1.0 - 0.85 * effaced) + 0.5 * form.sulcus * bell(brain / 3.0);
        let beyond = (brain - form.sulcus_depth * (1.0 + 0.35 * fine)).max(0.0);
        half - (across * across + beyond * beyond).sqrt()
    }

    /// Fine fissures of the cerebellum, running nearly level.
    fn folia(&self, p: V3, brain: f32) -> f32 {
        if brain > 16.0 {
            return FAR;
        }
        let phase = (p[2] * 0.55 + p[1] * 0.35) / 5.0 + 1.1 * self.noise.at(p.map(|x| x / 17.0));
        let across = off_whole(phase).abs() * 5.0;
        0.1 + 0.35 * self.form.atrophy - across - (brain - 9.0).max(0.0)
    }

    /// Sylvian fissure and the insular cistern: a T lying on its side.
    fn sylvian(&self, p: V3, effaced: f32) -> f32 {
        let ax = p[0].abs();
        if ax < 24.0 || p[2] < -24.0 || p[2] > 34.0 || p[1] < -34.0 || p[1] > 34.0 {
            return FAR;
        }
        let wobble = 2.5 * self.noise.at(p.map(|x| x / 14.0));
        let half = (self.form.sylvian * (1.0 + 0.25 * wobble)).max(0.2) * (1.0 - 0.8 * effaced);
        let course = -17.0 + 0.75 * (p[2] + 12.0);
        let insula_x = 37.0 - 0.012 * (p[1] + 3.0).powi(2) + wobble;
        let insula = half - (ax - insula_x).abs();
        let insula = insula.min(19.0 - (p[1] - course * 0.4).abs()).min(20.0 - (p[2] - 4.0).abs());
        let operculum = (half - (p[1] - course - wobble - 0.15 * (ax - 40.0)).abs() * 0.8).min(ax - insula_x);
        let operculum = operculum.min(24.0 - (p[2] - 5.0).abs());
        insula.max(operculum)
    }

    /// The five-pointed star above the sella.
    fn suprasellar(&self, p: V3) -> f32 {
        let (x, y, within) = (p[0], p[1] + 9.0, 8.0 - (p[2] + 15.0).abs());
        let r2 = x * x + y * y;
        if within < -4.0 || r2 > 400.0 {
            return FAR;
        }
        // Cosine of five times the angle from the y axis.
        let c = y / r2.sqrt().max(1e-3);
        let star = 1.0 + 0.28 * c * (16.0 * c * c * c * c - 20.0 * c * c + 5.0);
        let r = ((x / 12.0).powi(2) + (y / 10.0).powi(2)).sqrt() / star;
        ((1.0 - r) * 9.0 * self.form.cistern.min(1.2)).min(within)
    }

    fn cisterns(&self, p: V3) -> f32 {
        if p[2] > 16.0 || p[0].abs() > 40.0 {
            return FAR;
        }
        let c = self.form.cistern;
        // No fluid space is a drawn line: the stem's outline is warped before it is measured.
        let q = p.map(|x| x / 10.0);
        let p = [p[0] + 2.6 * self.noise.at(q), p[1] + 2.6 * self.noise.at(q.map(|x| x + 5.5)), p[2]];
        let suprasellar = self.suprasellar(p);
        let stem = smooth(-20.0, -30.0, p[2]);
        let medulla = smooth(-42.0, -54.0, p[2]);
        let (wide, long) = (lerp(lerp(17.0, 18.0, stem), 9.5, medulla), lerp(lerp(14.0, 14.5, stem), 8.5, medulla));
        let centre = lerp(10.0, 16.0, stem) + 8.0 * medulla;
        let k = ((p[0] / wide).powi(2) + ((p[1] - centre) / long).powi(2)).sqrt();
        let uneven = 0.75 + 0.8 * self.noise.at(p.map(|x| x / 8.0 + 11.0));
        let shell = 1.3 * c * uneven - (k - 1.0 - 0.07 * c - 0.06 * uneven).abs() * long;
        let before = smooth(4.0, -6.0, p[1] - centre);
        let around = smooth(-22.0, -14.0, p[2]).max(before).max(medulla);
        let behind = smooth(2.0, 12.0, p[1] - centre);
        let shell = shell.min((around - 0.4) * 12.0).min(-7.0 + 11.0 * behind - p[2]);
        let quadrigeminal =
            (2.6 * c - ((p[1] - 27.0).abs() + 0.12 * p[0].abs())).min(11.0 - p[0].abs()).min(9.0 - (p[2] + 2.0).abs());
        let magna = 7.0 * c - norm(sub(p, [0.0, 66.0, -50.0])) * 0.7;
        suprasellar.max(shell).max(quadrigeminal).max(magna)
    }

    fn ventricle(&self, p: V3) -> f32 {
        let mut inside = FAR;
        let side = usize::from(p[0] < 0.0);
        let mirrored = [p[0].abs(), p[1], p[2] * TALL];
        if mirrored[0] < 52.0 && p[2] > -30.0 && p[2] < 46.0 {
            for (from, to) in JOINTS {
                inside = inside.max(within_capsule(mirrored, &self.ventricles[side][from], &self.ventricles[side][to]));
            }
            if inside > -6.0 {
                inside += 0.9 * self.noise.at(p.map(|x| x / 8.0 + 3.0));
            }
        }
        if p[0].abs() < 14.0 {
            let third = 1.0 - ((p[1] - 2.0) / 14.0).powi(2) - ((p[2] - 0.5) / 9.5).powi(2);
            inside = inside.max((self.form.third * third.max(-4.0) - p[0].abs()).min(third * 12.0));
            let s = self.form.fourth;
            let roof = (p[1] - 36.0) / (5.5 * s);
            let k = ((p[0] / (7.0 * s)).powi(2) + roof * roof + ((p[2] + 32.0) / 11.0).powi(2)).sqrt();
            inside = inside.max((1.0 - k) * 5.5 * s);
        }
        inside
    }

    fn sinus(&self, p: V3, midline: f32, depth: f32, above_tentorium: f32) -> f32 {
        if depth > 14.0 {
            return FAR;
        }
        let form = &self.form;
        let grown = smooth(-75.0, 40.0, p[1]) * smooth(-30.0, -8.0, p[2]);
        let sagittal = form.sinus * (0.35 + 0.65 * grown) * 1.5 - (midline.abs() * 1.2 + depth * 0.9);
        let sagittal = if p[2] > -22.0 && (p[2] > 8.0 || p[1] > 40.0) { sagittal } else { FAR };
        let size = form.transverse[usize::from(p[0] < 0.0)] * smooth(24.0, 40.0, p[1]);
        let transverse = size * 1.25 - (above_tentorium * above_tentorium + depth * depth * 1.1).sqrt();
        let transverse = if p[1] > 24.0 { transverse } else { FAR };
        sagittal.max(transverse)
    }

    /// Attenuation at a point inside the skull, in HU, without any lesion. `half` is half the width of edges in mm.
    pub(crate) fn hu(&self, spot: &Spot, half: f32) -> f32 {
        let form = &self.form;
        let edge = half + 0.25;
        let soft = |inside: f32| crate::geometry::ramp(inside, edge);
        let p = spot.p;
        let texture = self.noise.at(p.map(|x| x / 11.0 + 1.7));
        let from_fluid = -spot.subarachnoid;
        let mut hu;
        if spot.posterior_fossa {
            let stem = 1.0 - ((p[0] / 17.0).powi(2) + ((p[1] - 16.0) / 15.0).powi(2)).sqrt();
            hu = form.grey - 2.5 - 3.0 * soft(stem * 10.0) + 1.5 * texture;
            let medullary = bell((p[0].abs() - 20.0) / 12.0) * bell((p[1] - 48.0) / 14.0);
            hu -= 3.5 * medullary;
        } else {
            let ribbon = crate::geometry::ramp(3.0 + 0.8 * texture - from_fluid, 1.2);
            hu = lerp(form.white + 0.9 * texture, form.grey + 0.8 * texture, ribbon.max(self.nuclei(p)));
            if spot.ventricle > -14.0 {
                hu -= form.leukoaraiosis * smooth(-13.0, 0.0, spot.ventricle) * (0.7 + 0.5 * texture);
            }
        }
        hu = lerp(hu, form.csf + 2.0, soft(spot.subarachnoid));
        hu = lerp(hu, form.csf, soft(spot.ventricle));
        hu = lerp(hu, form.dura, soft(spot.falx.max(spot.tentorium)));
        lerp(hu, form.sinus_hu, soft(spot.sinus))
    }

    /// Share of deep grey matter: caudate, lentiform nucleus, thalamus.
    fn nuclei(&self, p: V3) -> f32 {
        let ax = p[0].abs();
        if ax > 38.0 || p[1].abs() > 36.0 || !(-14.0..28.0).contains(&p[2]) {
            return 0.0;
        }
        let within = |c: V3, r: V3| {
            let k =
                (((ax - c[0]) / r[0]).powi(2) + ((p[1] - c[1]) / r[1]).powi(2) + ((p[2] - c[2]) / r[2]).powi(2)).sqrt();
            crate::geometry::ramp((1.0 - k) * r[0], 1.3)
        };
        within([14.5, -19.0, 12.0], [5.0, 9.0, 10.0])
            .max(within([25.5 + 0.16 * p[1], -3.0, 4.0], [6.5, 15.0, 10.0]))
            .max(within([10.5, 10.0, 6.0], [8.0, 12.5, 9.5]))
    }
}

/// Signed distance to a capsule whose radius goes from one end's to the other's, positive inside.
#[inline]
fn within_capsule(p: V3, a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let start = [a[0], a[1], a[2]];
    let axis = sub([b[0], b[1], b[2]], start);
    let from = sub(p, start);
    let t = (dot(from, axis) / dot(axis, axis)).clamp(0.0, 1.0);
    lerp(a[3], b[3], t) - norm(sub(from, axis.map(|x| x * t)))
}
