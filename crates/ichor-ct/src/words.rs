//! Free text as words: what scanners and radiographers write into Contrast/Bolus Agent and Series Description, in
//! the languages they write it in.

use crate::body::is_trunk;

/// What says that nothing was given.
const NEGATIONS: [&str; 36] = [
    "AUCUN",
    "AUCUNE",
    "KEIN",
    "KEINE",
    "KEINEN",
    "KEINS",
    "NATIF",
    "NATIV",
    "NATIVE",
    "NATIVO",
    "NCCT",
    "NECT",
    "NEIN",
    "NENHUM",
    "NESSUN",
    "NESSUNO",
    "NICHT",
    "NIL",
    "NINGUNO",
    "NO",
    "NOCONTRAST",
    "NON",
    "NONCON",
    "NONCONTRAST",
    "NONE",
    "NOT",
    "OHNE",
    "OKM",
    "PLAIN",
    "SANS",
    "SEM",
    "SENZA",
    "SIN",
    "UNENHANCED",
    "WITHOUT",
    "WO",
];

/// What stands in Contrast/Bolus Agent where nobody said.
const UNKNOWN: [&str; 4] = ["N", "NA", "UNK", "UNKNOWN"];

/// What an agent is called without being named.
const CONTRAST: [&str; 11] = [
    "CONTRAST",
    "CONTRASTE",
    "CONTRASTO",
    "INJ",
    "INJECTE",
    "INJECTION",
    "KM",
    "KONTRAST",
    "KONTRASTMITTEL",
    "MDC",
    "PDC",
];

/// What may stand beside a negation without naming an agent.
const FILLERS: [&str; 18] = [
    "ADMINISTERED",
    "AGENT",
    "APPLIED",
    "BOLUS",
    "CT",
    "DE",
    "DI",
    "GIVEN",
    "INJECTED",
    "IV",
    "MC",
    "MEDIA",
    "MEDIUM",
    "MEZZO",
    "ML",
    "PC",
    "PRODUIT",
    "USED",
];

/// What tells of the images before an injection.
const BEFORE: [&str; 7] = ["ANTES", "AVANT", "PRE", "PRECONTRAST", "PREKM", "PRIMA", "VOR"];

/// What is never made without an agent.
const ANGIOGRAPHY: [&str; 15] = [
    "ANGIO",
    "ANGIOCT",
    "ANGIOGRAFIA",
    "ANGIOGRAFIE",
    "ANGIOGRAM",
    "ANGIOGRAPHIE",
    "ANGIOGRAPHY",
    "ANGIOSCANNER",
    "ANGIOTAC",
    "ANGIOTC",
    "CTA",
    "CTP",
    "PERFUSAO",
    "PERFUSION",
    "PERFUSIONE",
];

/// Bone images.
const BONE: [&str; 13] = [
    "BONE", "BONES", "BONEPLUS", "HUESO", "KNOCHEN", "OS", "OSEA", "OSEO", "OSSEA", "OSSEO", "OSSEUX", "OSSO", "SHARP",
];

/// The words of a text in upper-case ASCII, without accents. Each plus sign is a word, everything else that is no
/// letter and no digit stands between words; "w/o" and "n/a" are one.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for character in text.chars().flat_map(char::to_uppercase) {
        match folded(character) {
            Some(letters) => words.iter_mut().last().into_iter().for_each(|word| word.push_str(letters)),
            None if character.is_ascii_alphanumeric() => {
                words.iter_mut().last().into_iter().for_each(|word| word.push(character));
            }
            None if character == '+' => words.extend(["+".to_owned(), String::new()]),
            None => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    for (first, second) in [("W", "O"), ("N", "A")] {
        while let Some(at) = words.windows(2).position(|pair| pair[0] == first && pair[1] == second) {
            words.splice(at..at + 2, [format!("{first}{second}")]);
        }
    }
    words
}

/// A letter without its accent; nothing of a combining accent. `None`: not an accented letter.
fn folded(character: char) -> Option<&'static str> {
    Some(match character {
        'À'..='Å' => "A",
        'Æ' => "AE",
        'Ç' => "C",
        'È'..='Ë' => "E",
        'Ì'..='Ï' => "I",
        'Ñ' => "N",
        'Ò'..='Ö' | 'Ø' => "O",
        'Œ' => "OE",
        'Ù'..='Ü' => "U",
        'Ý' => "Y",
        '\u{300}'..='\u{36F}' => "",
        _ => return None,
    })
}

/// Whether a Contrast/Bolus Agent says that there was none, or that nobody knows. Whatever may be an agent's name
/// is one: "non-ionic" is.
pub(crate) fn is_no_agent(agent: &str) -> bool {
    let words = words(agent);
    let is_none = |word: &str| is_negation(&words, word) || UNKNOWN.contains(&word) || is_zero(word);
    let is_filler = |word: &str| CONTRAST.contains(&word) || FILLERS.contains(&word) || ["C", "S"].contains(&word);
    words.is_empty()
        || words.iter().any(|word| is_none(word)) && words.iter().all(|word| is_none(word) || is_filler(word))
}

/// Whether a word denies what the text is about: one of the negations, or "s" and "o" before a contrast word, as in
/// "s/contraste" and "o. KM".
fn is_negation(words: &[String], word: &str) -> bool {
    let shortened = |pair: &[String]| {
        pair[0] == word && (["S", "O"].contains(&word)) && (pair[1] == "C" || CONTRAST.contains(&pair[1].as_str()))
    };
    NEGATIONS.contains(&word) || words.windows(2).any(shortened)
}

/// "0", "00", "0ml".
fn is_zero(word: &str) -> bool {
    let digits = word.strip_suffix("ML").unwrap_or(word);
    !digits.is_empty() && digits.chars().all(|c| c == '0')
}

/// What a Series Description says about a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description {
    /// The word for an angiography or perfusion, where nothing says that the images are from before it.
    pub(crate) angiography: Option<&'static str>,
    /// Images with an agent, as far as one can tell.
    pub(crate) contrast: bool,
    /// Parts of the body beyond the head.
    pub(crate) trunk: bool,
    /// Images for bone.
    pub(crate) bone: bool,
}

impl Description {
    /// Reads whole words only: a part of a word says nothing.
    pub(crate) fn new(text: &str) -> Self {
        let words = words(text);
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        let native = words.iter().any(|word| is_negation(&words, word)) || has(&BEFORE);
        let angiography = ANGIOGRAPHY.into_iter().find(|known| has(&[known]));
        Self {
            angiography: angiography.filter(|_| !native),
            contrast: angiography.is_some() || is_after_injection(&words) || !native && has(&CONTRAST[..]),
            trunk: is_trunk(&words),
            bone: has(&BONE),
        }
    }
}

/// "post contrast", "+C", "C+", but neither "post op" nor "head + C-spine".
fn is_after_injection(words: &[String]) -> bool {
    let at = |index: usize| words.get(index).map_or("", String::as_str);
    (0..words.len()).any(|i| match at(i) {
        "POST" | "NACH" | "APRES" | "DOPO" => at(i + 1) == "C" || CONTRAST.contains(&at(i + 1)),
        "POSTCONTRAST" | "POSTKM" | "CECT" => true,
        "+" => at(i + 1) == "C" && at(i + 2) != "SPINE",
        "C" => at(i + 1) == "+",
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_whole() {
        let cases: [(&str, &[&str]); 6] = [
            ("Schädel nativ", &["SCHADEL", "NATIV"]),
            ("Cra\u{302}ne, tête", &["CRANE", "TETE"]),
            ("CT_HEAD W/O (5.0)", &["CT", "HEAD", "WO", "5", "0"]),
            ("Brain+C", &["BRAIN", "+", "C"]),
            ("Fuß", &["FUSS"]),
            (" - ", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn agents() {
        for none in [
            "",
            "-",
            "0",
            "0 ml",
            "NO",
            "None",
            "NON",
            "no contrast",
            "NO IV CONTRAST",
            "NON-CONTRAST",
            "NOCONTRAST",
            "W/O",
            "w/o contrast",
            "WITHOUT",
            "WO",
            "N",
            "N/A",
            "NA",
            "UNK",
            "Unknown",
            "OHNE",
            "ohne KM",
            "o. KM",
            "KEIN",
            "KEINE",
            "kein Kontrastmittel",
            "SANS",
            "sans injection",
            "SIN",
            "sin contraste",
            "s/contraste",
            "SENZA",
            "senza mdc",
            "SEM",
            "sem contraste",
            "NATIV",
            "NATIVE",
            "PLAIN",
            "Contrast: none",
            "not given",
        ] {
            assert!(is_no_agent(none), "{none}");
        }
        for agent in [
            "OMNIPAQUE",
            "Omnipaque 350",
            "IV",
            "CONTRAST",
            "YES",
            "KM",
            "APPLIED",
            "NON-IONIC",
            "Nonionic contrast",
            "NO REACTION OMNIPAQUE",
            "ISOVUE W/O COMPLICATION",
            "DIATRIZOATE NA",
            "ORAL",
            "NOVATRAST",
            "80",
            "+",
            "100 ML",
            "Sinografin",
        ] {
            assert!(!is_no_agent(agent), "{agent}");
        }
    }

    #[test]
    fn descriptions() {
        let plain = Description::default();
        let contrast = Description { contrast: true, ..plain };
        let trunk = Description { trunk: true, ..plain };
        let bone = Description { bone: true, ..plain };
        let angiography = |word| Description { angiography: Some(word), ..contrast };
        let cases = [
            ("Head 5.0 Hr38", plain),
            ("HEAD WITHOUT CONTRAST", plain),
            ("Brain w/o contrast", plain),
            ("Head W/WO contrast", plain),
            ("Schädel ohne KM", plain),
            ("Schädel o.KM", plain),
            ("Cráneo s/contraste", plain),
            ("tête sans injection", plain),
            ("Non-contrast head", plain),
            ("Pre contrast", plain),
            ("Post op head", plain),
            ("Octagon actas perfusional spineless bonehead", plain),
            ("Contrastless necklace chestnut", plain),
            ("HEAD +C", contrast),
            ("HEAD C+", contrast),
            ("Head post contrast", contrast),
            ("Schädel mit KM", contrast),
            ("Schädel nativ, nach KM", contrast),
            ("Head with contrast", contrast),
            ("tête avec injection", contrast),
            ("PRE CTA HEAD", contrast),
            ("NCCT before perfusion", contrast),
            ("NECK", trunk),
            ("Head/C-Spine", trunk),
            ("Head + C-Spine", trunk),
            ("CERVICAL 2.0", trunk),
            ("HWS", trunk),
            ("Thorax", trunk),
            ("CHEST", trunk),
            ("Abdomen", trunk),
            ("Head bone", bone),
            ("Knochen 1.0", bone),
            ("tête os", bone),
            ("HUESO", bone),
            ("SHARP", bone),
            ("CTA HEAD", angiography("CTA")),
            ("Angio 0.6", angiography("ANGIO")),
            ("Perfusion 4D", angiography("PERFUSION")),
            ("CTA head/neck", Description { trunk: true, ..angiography("CTA") }),
        ];
        for (text, expected) in cases {
            assert_eq!(Description::new(text), expected, "{text}");
        }
    }
}
