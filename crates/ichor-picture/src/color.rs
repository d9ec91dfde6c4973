//! Colours.

/// Red, green, blue.
pub type Color = [u8; 3];

/// Nine colours of matplotlib's "inferno" (CC0), evenly spaced: brightness grows evenly from the lowest value to the
/// highest, so that it reads in grey and by those who see few colours.
const INFERNO: [Color; 9] = [
    [0, 0, 4],
    [33, 12, 74],
    [87, 16, 110],
    [138, 34, 106],
    [188, 55, 84],
    [228, 89, 50],
    [249, 140, 10],
    [249, 201, 50],
    [252, 255, 164],
];

/// The colour of a value from 0 to 1; what is not a number is black.
#[must_use]
pub fn map_color(value: f32) -> Color {
    if value.is_nan() {
        return [0; 3];
    }
    let steps = INFERNO.len() - 1;
    let at = value.clamp(0.0, 1.0) * steps as f32;
    let low = (at as usize).min(steps - 1);
    let share = at - low as f32;
    std::array::from_fn(|channel| {
        let (a, b) = (f32::from(INFERNO[low][channel]), f32::from(INFERNO[low + 1][channel]));
        (a + (b - a) * share).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brighter_means_more() {
        let brightness = |value: f32| {
            let [red, green, blue] = map_color(value).map(f32::from);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        let values: Vec<f32> = (0..=50).map(|step| brightness(step as f32 / 50.0)).collect();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");
        assert_eq!((map_color(-1.0), map_color(2.0), map_color(f32::NAN)), (INFERNO[0], INFERNO[8], [0; 3]));
        assert_eq!(map_color(0.5), INFERNO[4]);
    }
}
