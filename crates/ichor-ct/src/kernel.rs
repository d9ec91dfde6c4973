//! Convolution kernels of the large manufacturers.

/// Sharpness from which on a Siemens kernel is for bone.
const SHARP: u32 = 60;

/// Sharpness from which on the older kernels for body, head and inner ear are.
const SHARP_BHJ: u32 = 55;

/// Whether a Convolution Kernel is made for bone or lung.
pub(crate) fn is_sharp_kernel(kernel: &str) -> bool {
    let first = kernel.split('\\').next().unwrap_or_default().trim();
    let upper = first.to_uppercase();
    if ["BONE", "EDGE", "LUNG", "SHARP", "ULTRA"].iter().any(|word| upper.contains(word)) {
        return true;
    }
    let digits: String = upper.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let number = digits.parse::<u32>().ok();
    // Toshiba and Canon: FC30-FC39 are for bone, FC50-FC59 for lung, FC80-FC89 for inner ear.
    if upper.starts_with("FC") {
        return number.is_some_and(|n| matches!(n, 30..=39 | 50..=59 | 80..=89));
    }
    if upper.starts_with(['B', 'H', 'J']) && number.is_some_and(|n| (SHARP_BHJ..100).contains(&n)) {
        return true;
    }
    // Philips: D is for bone, L for lung; EB and EC, with more detail, are for soft tissue.
    ["D", "E", "L", "YB", "YC", "YD", "YE"].contains(&upper.as_str())
        || siemens_sharpness(first).is_some_and(|sharpness| sharpness >= SHARP)
}

/// The sharpness in the name of a Siemens kernel: what it is for (a capital, often a small letter), two digits, and
/// mostly another letter.
fn siemens_sharpness(kernel: &str) -> Option<u32> {
    let rest = kernel.strip_prefix(|c: char| c.is_ascii_uppercase())?;
    let rest = rest.strip_prefix(|c: char| c.is_ascii_lowercase()).unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, version) = rest.split_at(end);
    let is_whole = version.is_empty() || version.starts_with(|c: char| c.is_ascii_lowercase());
    (digits.len() == 2 && is_whole).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        for sharp in [
            "BONE", "BONEPLUS", "EDGE", "H60s", "Hr64h\\3", "B70f", "J70h", "FC30", "FC81", "YD", "I70f", "I70f\\2",
            "U90", "V80u", "Ur77u", "T80", "Hr64", "Qr69d", "Hp60f", "H57s", "D", "L", "YB", "YC", "E",
        ] {
            assert!(is_sharp_kernel(sharp), "{sharp}");
        }
        for soft in [
            "STANDARD", "SOFT", "STD+", "H31s", "J40s\\2", "B30f", "FC21", "FC68", "UB", "UA", "UC", "EB", "EC",
            "Hr38h", "Hr40f\\3", "Qr40", "I41s", "U30u", "T20f", "A", "C", "12", "H1", "FL04", "I700", "DETAIL", "",
        ] {
            assert!(!is_sharp_kernel(soft), "{soft}");
        }
    }
}
