//! Text of any DICOM character set to Unicode (PS3.3 C.12.1.1.2, PS3.5 6.1), ISO 2022 code extensions included, which
//! dicom-rs does not decode.

use encoding_rs::Encoding;

/// A decoded text value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedText {
    /// The text. Backslashes separate values; padding is still there.
    pub text: String,
    /// Whether something was not valid in the declared character sets and had to be guessed or replaced.
    pub lossy: bool,
}

/// What the bytes below 0x80 mean at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum G0 {
    Ascii,
    /// JIS X 0201 katakana moved to the left half.
    Katakana,
    /// JIS X 0208, two bytes a character.
    JisX0208,
    /// JIS X 0212, two bytes a character.
    JisX0212,
}

/// What the bytes from 0x80 on mean.
#[derive(Clone, Copy)]
struct G1 {
    encoding: &'static Encoding,
    two_bytes: bool,
}

const fn one_byte(encoding: &'static Encoding) -> Option<G1> {
    Some(G1 { encoding, two_bytes: false })
}

const fn two_bytes(encoding: &'static Encoding) -> Option<G1> {
    Some(G1 { encoding, two_bytes: true })
}

/// Decodes one element's value. `declared` are the values of Specific Character Set (0008,0005); `person_name` makes
/// `^` and `=` reset code extensions, as PS3.5 6.1.2.5.3 has it for VR PN.
#[must_use]
pub fn decode_text(bytes: &[u8], declared: &[&str], person_name: bool) -> DecodedText {
    if bytes.is_ascii() && !bytes.contains(&ESCAPE) {
        return DecodedText { text: String::from_utf8_lossy(bytes).into_owned(), lossy: false };
    }
    let first = normal(declared.first().copied().unwrap_or_default());
    let whole = match first.as_str() {
        "192" => Some(encoding_rs::UTF_8),
        "GB18030" => Some(encoding_rs::GB18030),
        "GBK" | "GB2312" => Some(encoding_rs::GBK),
        _ => None,
    };
    if let Some(encoding) = whole {
        let (text, lossy) = encoding.decode_without_bom_handling(bytes);
        return DecodedText { text: text.into_owned(), lossy };
    }
    let initial = initial_g1(&first);
    let undeclared = initial.is_none() && !bytes.contains(&ESCAPE);
    if undeclared && let Ok(text) = std::str::from_utf8(bytes) {
        // Nothing was declared for these bytes, and UTF-8 does not come about by accident.
        return DecodedText { text: text.to_owned(), lossy: true };
    }
    CodeExtensions { initial, g0: G0::Ascii, g1: initial, person_name, text: String::new(), lossy: false }.decode(bytes)
}

const ESCAPE: u8 = 0x1b;

/// `ISO_IR 100`, `ISO 2022 IR 100` and the underscored misspelling of either become `100`.
fn normal(term: &str) -> String {
    let term = term.trim_matches(['\0', ' ']).replace('_', " ");
    term.strip_prefix("ISO 2022 IR ").or_else(|| term.strip_prefix("ISO IR ")).map_or(term.clone(), str::to_owned)
}

/// What bytes from 0x80 on mean before any escape sequence, by the first declared set. The multi-byte sets are not
/// allowed to stand first, and do in the field.
fn initial_g1(first: &str) -> Option<G1> {
    match first {
        "100" => one_byte(encoding_rs::WINDOWS_1252),
        "101" => one_byte(encoding_rs::ISO_8859_2),
        "109" => one_byte(encoding_rs::ISO_8859_3),
        "110" => one_byte(encoding_rs::ISO_8859_4),
        "126" => one_byte(encoding_rs::ISO_8859_7),
        "127" => one_byte(encoding_rs::ISO_8859_6),
        "138" => one_byte(encoding_rs::ISO_8859_8),
        "144" => one_byte(encoding_rs::ISO_8859_5),
        "148" => one_byte(encoding_rs::WINDOWS_1254),
        "203" => one_byte(encoding_rs::ISO_8859_15),
        "166" => one_byte(encoding_rs::WINDOWS_874),
        "13" => one_byte(encoding_rs::SHIFT_JIS),
        "149" => two_bytes(encoding_rs::EUC_KR),
        "58" => two_bytes(encoding_rs::GBK),
        _ => None,
    }
}

/// The state of ISO 2022 code extensions while one value is read.
struct CodeExtensions {
    initial: Option<G1>,
    g0: G0,
    g1: Option<G1>,
    person_name: bool,
    text: String,
    lossy: bool,
}

impl CodeExtensions {
    fn decode(mut self, mut rest: &[u8]) -> DecodedText {
        while let Some(&byte) = rest.first() {
            let taken = match byte {
                ESCAPE => self.escape(rest),
                0x80.. => self.upper_half(rest),
                // Controls and spaces mean themselves in every set.
                0..=0x20 => self.plain(byte),
                _ => match self.g0 {
                    G0::Ascii => self.plain(byte),
                    G0::Katakana => self.run(&[byte | 0x80], encoding_rs::SHIFT_JIS, 1),
                    G0::JisX0208 => self.japanese(rest, &[]),
                    G0::JisX0212 => self.japanese(rest, &[0x8f]),
                },
            };
            rest = &rest[taken.min(rest.len())..];
        }
        DecodedText { text: self.text, lossy: self.lossy }
    }

    /// A byte that is ASCII; delimiters set everything back to the first declared set (PS3.5 6.1.2.5.3).
    fn plain(&mut self, byte: u8) -> usize {
        let delimiter = matches!(byte, b'\\' | b'\r' | b'\n' | b'\t' | 0x0c)
            || (self.person_name && self.g0 == G0::Ascii && matches!(byte, b'^' | b'='));
        if delimiter {
            (self.g0, self.g1) = (G0::Ascii, self.initial);
        }
        self.text.push(char::from(byte));
        1
    }

    /// Decodes a run and says how many source bytes it stands for.
    fn run(&mut self, bytes: &[u8], encoding: &'static Encoding, taken: usize) -> usize {
        let (text, lossy) = encoding.decode_without_bom_handling(bytes);
        self.text.push_str(&text);
        self.lossy |= lossy;
        taken
    }

    /// One two-byte character of JIS X 0208, or with the prefix 0x8F of JIS X 0212, by way of EUC-JP.
    fn japanese(&mut self, rest: &[u8], prefix: &[u8]) -> usize {
        let [first, second, ..] = *rest else {
            self.text.push(char::REPLACEMENT_CHARACTER);
            self.lossy = true;
            return 1;
        };
        let mut bytes = prefix.to_vec();
        bytes.extend([first | 0x80, second | 0x80]);
        self.run(&bytes, encoding_rs::EUC_JP, 2)
    }

    /// All bytes from 0x80 on that follow one another.
    fn upper_half(&mut self, rest: &[u8]) -> usize {
        let length = rest.iter().take_while(|b| **b >= 0x80).count();
        match self.g1 {
            Some(G1 { encoding, two_bytes }) => {
                self.lossy |= two_bytes && length % 2 == 1;
                self.run(&rest[..length], encoding, length)
            }
            None => {
                // Not declared: Latin-1 is the commonest truth.
                self.lossy = true;
                self.run(&rest[..length], encoding_rs::WINDOWS_1252, length)
            }
        }
    }

    /// An escape sequence of PS3.3 tables C.12-3 and C.12-4; an unknown one loses its ESC and is kept visible.
    fn escape(&mut self, rest: &[u8]) -> usize {
        let upper = |byte: u8| match byte {
            b'A' => initial_g1("100"),
            b'B' => initial_g1("101"),
            b'C' => initial_g1("109"),
            b'D' => initial_g1("110"),
            b'F' => initial_g1("126"),
            b'G' => initial_g1("127"),
            b'H' => initial_g1("138"),
            b'L' => initial_g1("144"),
            b'M' => initial_g1("148"),
            b'T' => initial_g1("166"),
            b'b' => initial_g1("203"),
            _ => None,
        };
        match *rest {
            [_, b'$', b'(', b'D', ..] => self.left(G0::JisX0212, 4),
            [_, b'$', b')', b'C', ..] => self.right(initial_g1("149"), 4),
            [_, b'$', b')', b'A', ..] => self.right(initial_g1("58"), 4),
            [_, b'$', b'B' | b'@', ..] => self.left(G0::JisX0208, 3),
            [_, b'(', b'B' | b'J', ..] => self.left(G0::Ascii, 3),
            [_, b'(', b'I', ..] => self.left(G0::Katakana, 3),
            [_, b')', b'I', ..] => self.right(initial_g1("13"), 3),
            [_, b'-', set, ..] if upper(set).is_some() => self.right(upper(set), 3),
            _ => {
                self.lossy = true;
                1
            }
        }
    }

    fn left(&mut self, g0: G0, taken: usize) -> usize {
        self.g0 = g0;
        taken
    }

    fn right(&mut self, g1: Option<G1>, taken: usize) -> usize {
        self.g1 = g1;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of PS3.5 annexes H, I, J and K, and what else occurs.
    #[test]
    fn examples_of_the_standard() {
        let cases: [(&[&str], &[u8], &str); 11] = [
            (
                &["", "ISO 2022 IR 87"],
                b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
                "Yamada^Tarou=山田^太郎=やまだ^たろう",
            ),
            (
                &["ISO 2022 IR 13", "ISO 2022 IR 87"],
                b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
                "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
            ),
            (
                &["", "ISO 2022 IR 149"],
                b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
                "Hong^Gildong=洪^吉洞=홍^길동",
            ),
            (
                &["", "ISO 2022 IR 58"],
                b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
                "Zhang^XiaoDong=张^小东=",
            ),
            (&["ISO_IR 100"], b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
            (&["ISO_IR 127"], b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
            (&["ISO_IR 148"], b"\xddnan^\xdeule", "İnan^Şule"),
            (&["ISO_IR 192"], "王^小東".as_bytes(), "王^小東"),
            (&["GB18030"], b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
            (&["ISO 2022 IR 100", "ISO 2022 IR 144"], b"J\xe9^\x1b-L\xbb\xee", "Jé^Лю"),
            (&["", "ISO 2022 IR 159"], b"\x1b$(D\x30\x21\x1b(B", "丂"),
        ];
        for (declared, bytes, expected) in cases {
            let decoded = decode_text(bytes, declared, true);
            assert_eq!((decoded.text.as_str(), decoded.lossy), (expected, false), "{declared:?}");
        }
    }

    #[test]
    fn a_backslash_byte_inside_a_character_separates_nothing() {
        // GB18030 0x88 0x5C is one character; JIS X 0208 0x3D 0x5C too.
        let decoded = decode_text(b"\x88\x5c", &["GB18030"], true);
        assert_eq!(decoded.text.chars().count(), 1, "{}", decoded.text);
        let decoded = decode_text(b"\x1b$B=\x5c\x1b(B\\A", &["", "ISO 2022 IR 87"], false);
        assert_eq!(decoded, DecodedText { text: "旬\\A".to_owned(), lossy: false });
    }

    #[test]
    fn what_was_not_declared_is_guessed_and_says_so() {
        let cases: [(&[u8], &str); 3] =
            [("Müller".as_bytes(), "Müller"), (b"M\xfcller", "Müller"), (b"A\x1b?B", "A?B")];
        for (bytes, expected) in cases {
            assert_eq!(decode_text(bytes, &[], false), DecodedText { text: expected.to_owned(), lossy: true });
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), set in 0usize..6) {
            let sets: [&[&str]; 6] =
                [&[], &["", "ISO 2022 IR 87"], &["ISO_IR 192"], &["", "ISO 2022 IR 149"], &["ISO_IR 13"], &["x"]];
            let _ = decode_text(&bytes, sets[set], true);
        }
    }
}
