//! Small vectors and soft edges, in single precision: a slice asks for millions of them.

/// A point or direction in millimetres: x to the left, y to the back, z to the head.
pub(crate) type V3 = [f32; 3];

#[inline]
pub(crate) fn sub(a: V3, b: V3) -> V3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

#[inline]
pub(crate) fn add(a: V3, b: V3) -> V3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

#[inline]
pub(crate) fn scale(a: V3, s: f32) -> V3 {
    [a[0] * s, a[1] * s, a[2] * s]
}

#[inline]
pub(crate) fn dot(a: V3, b: V3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

#[inline]
pub(crate) fn norm(a: V3) -> f32 {
    dot(a, a).sqrt()
}

/// The unit vector along `a`; the zero vector stays.
#[inline]
pub(crate) fn unit(a: V3) -> V3 {
    let length = norm(a);
    if length > 0.0 { scale(a, 1.0 / length) } else { a }
}

#[inline]
pub(crate) fn cross(a: V3, b: V3) -> V3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

#[inline]
pub(crate) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Share of a voxel on the inner side of a surface at the signed distance `inside` (positive inside), for an edge that
/// is `2 · half` wide.
#[inline]
pub(crate) fn ramp(inside: f32, half: f32) -> f32 {
    (0.5 + 0.5 * inside / half).clamp(0.0, 1.0)
}

/// Hermite step from 0 at `from` to 1 at `to`.
#[inline]
pub(crate) fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Bell curve of height 1 at 0, near exp(−x²), 0 from 2.8 on; an exponential costs several times as much.
#[inline]
pub(crate) fn bell(x: f32) -> f32 {
    let s = (1.0 - x * x * 0.125).max(0.0);
    let (s2, s4) = (s * s, s * s * s * s);
    s2 * s2 * s4
}

/// Distance to the nearest whole number, with its sign.
#[inline]
pub(crate) fn off_whole(x: f32) -> f32 {
    // Truncation of a shifted value: `round` is a library call on the baseline instruction set.
    x - ((x + 1024.5) as i32 - 1024) as f32
}

/// A bell-like curve without an exponential: 1 at 0, 0 from 1 on.
#[inline]
pub(crate) fn bump(t: f32) -> f32 {
    let s = (1.0 - t * t).max(0.0);
    s * s
}

/// A rotation and a shift: from the scanner's room to the head's own axes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pose {
    rotation: [V3; 3],
    origin: V3,
}

impl Pose {
    /// Turns by `roll` about the head-foot axis, then `pitch` about left-right, then `yaw` about front-back (degrees);
    /// `origin` is where the middle of the head lies in the room.
    pub(crate) fn new(roll: f32, pitch: f32, yaw: f32, origin: V3) -> Self {
        let (sr, cr) = roll.to_radians().sin_cos();
        let (sp, cp) = pitch.to_radians().sin_cos();
        let (sy, cy) = yaw.to_radians().sin_cos();
        let about_z = [[cr, sr, 0.0], [-sr, cr, 0.0], [0.0, 0.0, 1.0]];
        let about_x = [[1.0, 0.0, 0.0], [0.0, cp, sp], [0.0, -sp, cp]];
        let about_y = [[cy, 0.0, -sy], [0.0, 1.0, 0.0], [sy, 0.0, cy]];
        Self { rotation: product(about_y, product(about_x, about_z)), origin }
    }

    /// A point of the room in the head's axes.
    #[inline]
    pub(crate) fn point(&self, p: V3) -> V3 {
        self.direction(sub(p, self.origin))
    }

    /// A direction of the room in the head's axes.
    #[inline]
    pub(crate) fn direction(&self, d: V3) -> V3 {
        [dot(self.rotation[0], d), dot(self.rotation[1], d), dot(self.rotation[2], d)]
    }
}

fn product(a: [V3; 3], b: [V3; 3]) -> [V3; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pose_keeps_lengths_and_angles() {
        let pose = Pose::new(13.0, -7.0, 4.0, [3.0, -2.0, 10.0]);
        assert!(norm(pose.point([3.0, -2.0, 10.0])) < 1e-5);
        let (a, b) = (pose.direction([1.0, 2.0, 3.0]), pose.direction([-2.0, 0.5, 1.0]));
        assert!((norm(a) - 14f32.sqrt()).abs() < 1e-4);
        assert!((dot(a, b) - 2.0).abs() < 1e-4);
    }

    #[test]
    fn half_of_a_voxel_lies_on_each_side_of_its_surface() {
        assert_eq!(ramp(0.0, 0.4), 0.5);
        assert_eq!(ramp(0.5, 0.4), 1.0);
        assert_eq!(ramp(-0.5, 0.4), 0.0);
    }
}
