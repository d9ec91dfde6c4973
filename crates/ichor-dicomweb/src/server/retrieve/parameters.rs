//! Parameters of pictures (PS3.18 8.3.5).

use crate::server::archive::{PictureForm, Rendering, VoiFunction};

/// Longest side of a picture.
const LARGEST: u32 = 8192;

/// What the parameters of a picture say; `form` is what was negotiated.
///
/// # Errors
/// In words.
pub fn rendering(pairs: &[(String, String)], form: PictureForm) -> Result<Rendering, String> {
    let mut rendering = Rendering { window: None, viewport: None, region: None, form };
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in pairs {
        let name = name.as_str();
        if seen.contains(&name) {
            return Err(format!("{name} stands twice"));
        }
        match name {
            "window" => rendering.window = Some(window(value)?),
            "viewport" => (rendering.viewport, rendering.region) = viewport(value)?,
            "quality" => {
                let quality = value.parse::<u8>().ok().filter(|quality| (1..=100).contains(quality));
                let quality = quality.ok_or("quality is no whole number from 1 to 100")?;
                if let PictureForm::Jpeg(of_form) = &mut rendering.form {
                    *of_form = quality;
                }
            }
            "accept" => {}
            "iccprofile" if value == "no" => {}
            "annotation" | "iccprofile" | "charset" => return Err(format!("{name}={value:.40} is not supported")),
            _ => {
                let name: String = name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
                return Err(format!("{name:?} is no parameter of a picture"));
            }
        }
        seen.push(name);
    }
    Ok(rendering)
}

fn window(value: &str) -> Result<(f64, f64, VoiFunction), String> {
    let wrong = || "window is no center,width,function, such as 40,80,linear".to_owned();
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let (center, width, function) = match parts.as_slice() {
        [center, width] => (*center, *width, "linear"),
        [center, width, function] => (*center, *width, *function),
        _ => return Err(wrong()),
    };
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && number.abs() < 1e9);
    let (center, width) = number(center).zip(number(width)).ok_or_else(wrong)?;
    let (function, least) = match function.to_ascii_lowercase().as_str() {
        "linear" => (VoiFunction::Linear, 1.0),
        "linear-exact" | "linear_exact" => (VoiFunction::LinearExact, f64::MIN_POSITIVE),
        "sigmoid" => (VoiFunction::Sigmoid, f64::MIN_POSITIVE),
        _ => return Err("the function of a window is linear, linear-exact or sigmoid".to_owned()),
    };
    if width < least {
        return Err(format!("a window of width {width} is none"));
    }
    Ok((center, width, function))
}

type Viewport = (Option<(u32, u32)>, Option<(u32, u32, u32, u32)>);

fn viewport(value: &str) -> Result<Viewport, String> {
    let wrong = || format!("viewport is no vw,vh or vw,vh,sx,sy,sw,sh of whole numbers, 1 to {LARGEST} wide and high");
    let mut numbers = Vec::new();
    for part in value.split(',').map(str::trim) {
        numbers.push(part.parse::<u32>().map_err(|_| wrong())?);
    }
    let is_size = |width: u32, height: u32| (1..=LARGEST).contains(&width) && (1..=LARGEST).contains(&height);
    match *numbers.as_slice() {
        [width, height] if is_size(width, height) => Ok((Some((width, height)), None)),
        [width, height, left, top, across, down] if is_size(width, height) && across > 0 && down > 0 => {
            Ok((Some((width, height)), Some((left, top, across, down))))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(name: &str, value: &str) -> Result<Rendering, String> {
        rendering(&[(name.to_owned(), value.to_owned())], PictureForm::Jpeg(90))
    }

    #[test]
    fn what_is_said() {
        assert_eq!(of("window", "40,80,linear").unwrap().window, Some((40.0, 80.0, VoiFunction::Linear)));
        assert_eq!(of("window", "-0.5,0.1,SIGMOID").unwrap().window, Some((-0.5, 0.1, VoiFunction::Sigmoid)));
        assert_eq!(of("viewport", "10,20,1,2,3,4").unwrap().region, Some((1, 2, 3, 4)));
        assert_eq!(of("quality", "7").unwrap().form, PictureForm::Jpeg(7));
        for (name, value) in [
            ("window", "40"),
            ("window", "40,0,linear"),
            ("window", "nan,80,linear"),
            ("window", "40,80,cubic"),
            ("viewport", "0,10"),
            ("viewport", "100000,10"),
            ("viewport", "10,10,0,0,0,10"),
            ("viewport", "-1,10"),
            ("quality", "101"),
            ("annotation", "patient"),
            ("color", "red"),
        ] {
            assert!(of(name, value).is_err(), "{name}={value}");
        }
        let twice = vec![("quality".to_owned(), "7".to_owned()); 2];
        assert!(rendering(&twice, PictureForm::Png).unwrap_err().contains("twice"));
    }

    proptest! {
        #[test]
        fn never_panics(name in "window|viewport|quality|x", value in "[0-9.,a-z-]{0,30}") {
            let _ = of(&name, &value);
        }
    }
}
