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

/// The part of the colours that lies over slices: its darkest can be told from black, and its brightest from the white of blood.
const OVER: [f32; 2] = [0.25, 0.8];
/// How much of a slice the highest value covers: what lies under it is still to be seen.
const OVER_MOST: f32 = 0.7;

/// The colour of a value over a slice, and how much of it is seen, both from 0 to 1: a value of 0 leaves the slice as it is,
/// and more covers more.
#[must_use]
pub fn heat_color(value: u8) -> (Color, f32) {
    let value = f32::from(value) / 255.0;
    (map_color(OVER[0] + (OVER[1] - OVER[0]) * value), OVER_MOST * value)
}

/// A colour over another, of which `share` is seen.
pub(crate) fn blended(under: Color, over: Color, share: f32) -> Color {
    std::array::from_fn(|channel| {
        let (under, over) = (f32::from(under[channel]), f32::from(over[channel]));
        (under + (over - under) * share).round() as u8
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

    #[test]
    fn heat_covers_more_the_more_there_is() {
        assert_eq!(heat_color(0).1, 0.0);
        assert_eq!(heat_color(255), (map_color(OVER[1]), OVER_MOST));
        let distance = |grey: u8, value: u8| {
            let (color, share) = heat_color(value);
            let seen = blended([grey; 3], color, share);
            seen.iter().map(|channel| u32::from(channel.abs_diff(grey))).sum::<u32>()
        };
        for grey in [0, 60, 128, 200, 255] {
            let steps: Vec<u32> = [0, 64, 128, 192, 255].iter().map(|value| distance(grey, *value)).collect();
            assert_eq!(steps[0], 0);
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "over {grey}: {steps:?}");
        }
    }
}
