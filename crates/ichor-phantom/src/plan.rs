//! From a plan to lesions: where bleeds lie, and how large they must be to hold the volume asked for.

use ichor_core::HemorrhageSubtype;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::bleed::{Form, Lesion, ball_radius};
use crate::brain::{Brain, Spot};
use crate::geometry::{V3, cross, scale, unit};
use crate::head::Head;
use crate::options::{BleedPlan, BleedRanges, BleedSpec};

/// Points at which a form's volume is measured.
const PROBES: usize = 6000;
/// Steps of the search for a form's scale.
const STEPS: usize = 14;

/// Lays the bleeds of a plan into a head.
pub(crate) fn lay(plan: &BleedPlan, head: &Head, brain: &Brain, rng: &mut ChaCha8Rng) -> Vec<Lesion> {
    let specs = match plan {
        BleedPlan::None => Vec::new(),
        BleedPlan::Random(ranges) => draw(ranges, rng),
        BleedPlan::Listed(specs) => specs.clone(),
    };
    specs.iter().map(|spec| Planner { head, brain }.lesion(spec, rng)).collect()
}

/// The bleeds of one head, drawn from ranges.
pub(crate) fn draw(ranges: &BleedRanges, rng: &mut ChaCha8Rng) -> Vec<BleedSpec> {
    let [least, most] = ranges.count;
    let mut count = least;
    while count < most && rng.random_bool(0.28) {
        count += 1;
    }
    (0..count)
        .map(|_| {
            let subtype = ranges.subtypes[rng.random_range(0..ranges.subtypes.len())];
            let [low, high] = ranges.volume_ml.map(f32::ln);
            let volume_ml = (low + (high - low) * rng.random::<f32>()).exp();
            let dense = ranges.hu[0] + (ranges.hu[1] - ranges.hu[0]) * rng.random::<f32>();
            let faint = rng.random_range(42.0..50.0f32);
            let hu = if rng.random_bool(ranges.faint_share) { faint } else { dense };
            BleedSpec { subtype, volume_ml, hu }
        })
        .collect()
}

struct Planner<'a> {
    head: &'a Head,
    brain: &'a Brain,
}

impl Planner<'_> {
    fn lesion(&self, spec: &BleedSpec, rng: &mut ChaCha8Rng) -> Lesion {
        let form = match spec.subtype {
            HemorrhageSubtype::Epidural => self.epidural(spec.volume_ml, rng),
            HemorrhageSubtype::Subdural => self.subdural(spec.volume_ml, rng),
            HemorrhageSubtype::Intraparenchymal => self.intraparenchymal(spec.volume_ml, rng),
            HemorrhageSubtype::Intraventricular => intraventricular(rng),
            HemorrhageSubtype::Subarachnoid => self.subarachnoid(rng),
        };
        let form = self.sized(&form, spec.volume_ml);
        let edge = rng.random_range(0.5..1.2);
        let oedema = (spec.subtype == HemorrhageSubtype::Intraparenchymal && rng.random_bool(0.75))
            .then(|| (rng.random_range(4.0..12.0), rng.random_range(2.0..8.0)));
        Lesion::new(spec.subtype, form, spec.hu, edge, oedema, spec.volume_ml)
    }

    /// The point of the vault in a direction, and two directions along it: backwards, and upwards.
    fn on_vault(&self, direction: V3) -> (V3, [V3; 2]) {
        let u = unit(direction);
        let middle = scale(u, self.head.wall(u).inner);
        let level = unit(cross([0.0, 0.0, 1.0], u));
        (middle, [level, cross(u, level)])
    }

    fn epidural(&self, volume_ml: f32, rng: &mut ChaCha8Rng) -> Form {
        let side = sign(rng);
        let direction = match rng.random_range(0..10u32) {
            0 => [side * 0.35, -1.0, rng.random_range(0.1..0.6)],
            1 => [side * rng.random_range(0.3..0.7f32), 1.0, rng.random_range(-0.5..-0.25)],
            _ => [side, rng.random_range(-0.7..0.6), rng.random_range(-0.1..0.8)],
        };
        let (middle, along) = self.on_vault(direction);
        let ratio = rng.random_range(0.34..0.72f32);
        // A lens of radius R and thickness ratio·R holds about π/2·ratio·R³.
        let radius = (volume_ml * 1000.0 / (1.57 * ratio)).cbrt();
        let oval = rng.random_range(0.8..1.25f32);
        Form::Sheet {
            middle,
            along,
            extent: [radius * oval, radius / oval],
            thickness: radius * ratio,
            power: 2,
            stops_at_folds: false,
        }
    }

    fn subdural(&self, volume_ml: f32, rng: &mut ChaCha8Rng) -> Form {
        let side = sign(rng);
        match rng.random_range(0..20u32) {
            0..=1 => Form::Falx {
                side,
                middle: [[-58.0, 30.0], [52.0, 22.0], [10.0, 56.0]][rng.random_range(0..3usize)],
                extent: [rng.random_range(18.0..30.0), rng.random_range(12.0..22.0)],
                thickness: rng.random_range(2.5..6.0),
            },
            2 => Form::Tentorium { side, extent: rng.random_range(18.0..30.0), thickness: rng.random_range(2.5..5.0) },
            _ => {
                let direction = [side, rng.random_range(-0.35..0.45), rng.random_range(0.05..0.75)];
                let (middle, along) = self.on_vault(direction);
                let thickness = rng.random_range(2.2..4.2) * volume_ml.powf(0.36);
                let area = volume_ml * 1000.0 / thickness;
                let oval = rng.random_range(1.2..1.9f32);
                let radius = (area / 2.2).sqrt();
                Form::Sheet {
                    middle,
                    along,
                    extent: [radius * oval.sqrt(), radius / oval.sqrt()],
                    thickness,
                    power: 4,
                    stops_at_folds: true,
                }
            }
        }
    }

    fn intraparenchymal(&self, volume_ml: f32, rng: &mut ChaCha8Rng) -> Form {
        let side = sign(rng);
        let radius = ball_radius(volume_ml);
        let mut middle = match rng.random_range(0..20u32) {
            0..=5 => [side * 26.0, -3.0, 5.0],
            6..=8 => [side * 13.0, 10.0, 6.0],
            9..=10 if volume_ml < 25.0 => [side * 22.0, 52.0, -34.0],
            11 if volume_ml < 8.0 => [0.0, 15.0, -28.0],
            _ => self.lobe(side, radius, rng),
        };
        middle = middle.map(|x| x + rng.random_range(-4.0..4.0f32));
        let stretch: V3 = std::array::from_fn(|_| rng.random_range(0.72..1.35f32));
        let even = (stretch[0] * stretch[1] * stretch[2]).cbrt();
        let first = unit(std::array::from_fn(|_| rng.random_range(-1.0..1.0f32)));
        let second = unit(cross(first, [0.31, 0.52, 0.79]));
        Form::Lump {
            middle,
            axes: [first, second, cross(first, second)],
            radii: stretch.map(|s| radius * s / even),
            ragged: rng.random_range(0.16..0.42),
        }
    }

    fn lobe(&self, side: f32, radius: f32, rng: &mut ChaCha8Rng) -> V3 {
        let u =
            unit([side * rng.random_range(0.25..1.0f32), rng.random_range(-1.0..1.0), rng.random_range(-0.15..0.9)]);
        let deepest = (self.head.wall(u).inner - 0.85 * radius - 4.0).max(22.0);
        scale(u, deepest * rng.random_range(0.75..1.0f32))
    }

    fn subarachnoid(&self, rng: &mut ChaCha8Rng) -> Form {
        let side = sign(rng);
        let middle = match rng.random_range(0..10u32) {
            0..=2 => [side * 44.0, -10.0, 4.0],
            3..=4 => [side * 4.0, -8.0, -15.0],
            5 => [0.0, -50.0, 20.0],
            6 => [0.0, 20.0, -6.0],
            _ => {
                let (on_vault, _) = self.on_vault([side, rng.random_range(-0.9..0.9), rng.random_range(0.0..1.1)]);
                scale(on_vault, 0.9)
            }
        };
        Form::Sulcal { middle, radius: 24.0, widened: rng.random_range(0.5..1.5) }
    }

    /// Finds the scale at which a form holds the volume; where the anatomy has no room for it, the largest.
    fn sized(&self, form: &Form, volume_ml: f32) -> Form {
        let widest = form.scaled(largest_scale(form));
        let (centre, radius) = widest.bounds();
        let (centre, half) = within_head(centre, radius, self.head.reach);
        let probes: Vec<Spot> = (0..PROBES).filter_map(|i| self.probe(i, centre, half)).collect();
        let cell_ml = 8.0 * half[0] * half[1] * half[2] / 1000.0 / PROBES as f32;
        let volume = |s: f32| {
            let tried = form.scaled(s);
            probes.iter().filter(|spot| tried.inside(spot, self.brain.noise()) > 0.0).count() as f32 * cell_ml
        };
        let (mut low, mut high) = (0.25f32, largest_scale(form));
        for _ in 0..STEPS {
            let middle = 0.5 * (low + high);
            if volume(middle) < volume_ml { low = middle } else { high = middle }
        }
        form.scaled(0.5 * (low + high))
    }

    fn probe(&self, index: usize, centre: V3, half: V3) -> Option<Spot> {
        // Additive recurrence of Roberts: covers a box evenly without a lattice's bias.
        const STEP: [f64; 3] = [0.819_172_513_396_164_4, 0.671_043_606_703_789_3, 0.549_700_477_901_970_3];
        let p: V3 = std::array::from_fn(|i| {
            let t = (0.5 + STEP[i] * index as f64).fract() as f32;
            centre[i] + (2.0 * t - 1.0) * half[i]
        });
        let place = self.head.place(p);
        (place.depth() > 0.0).then(|| self.brain.spot(p, p, 0.0, &place))
    }
}

fn intraventricular(rng: &mut ChaCha8Rng) -> Form {
    let side = sign(rng);
    if rng.random_bool(0.5) {
        let side = if rng.random_bool(0.5) { 0.0 } else { side };
        return Form::Layer { side, level: 20.0 };
    }
    let middle = [[side * 9.0, -30.0, 9.0], [side * 9.0, 2.0, 22.0], [side * 24.0, 34.0, 11.0], [0.0, 36.0, -33.0]]
        [rng.random_range(0..4usize)];
    Form::Cast { middle, radius: 18.0 }
}

fn largest_scale(form: &Form) -> f32 {
    match form {
        Form::Layer { .. } => 2.2,
        Form::Cast { .. } => 5.0,
        Form::Sulcal { .. } => 3.2,
        Form::Falx { .. } | Form::Tentorium { .. } => 2.0,
        Form::Sheet { .. } => 1.7,
        Form::Lump { .. } => 1.6,
    }
}

/// The box around a ball, cut at the head.
fn within_head(centre: V3, radius: f32, reach: f32) -> (V3, V3) {
    let low: V3 = std::array::from_fn(|i| (centre[i] - radius).max(-reach));
    let high: V3 = std::array::from_fn(|i| (centre[i] + radius).min(reach));
    (std::array::from_fn(|i| 0.5 * (low[i] + high[i])), std::array::from_fn(|i| 0.5 * (high[i] - low[i]).max(1.0)))
}

fn sign(rng: &mut ChaCha8Rng) -> f32 {
    if rng.random_bool(0.5) { 1.0 } else { -1.0 }
}
