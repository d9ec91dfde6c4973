//! Escape sequences (HL7 v2.5.1, chapter 2.7), and names.

/// `text` so that it can stand in a field, a component or a subcomponent.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' => escaped.push_str("\\E\\"),
            '|' => escaped.push_str("\\F\\"),
            '^' => escaped.push_str("\\S\\"),
            '&' => escaped.push_str("\\T\\"),
            '~' => escaped.push_str("\\R\\"),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' | '\n' => escaped.push_str("\\.br\\"),
            // Would end the MLLP block or the segment, or is nothing that a field may hold.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A DICOM Person Name (PS3.5 6.2.1) as repetitions of an XPN: family, given, middle, suffix, prefix, and in XPN.8 which
/// group it is (A alphabetic, I ideographic, P phonetic).
pub(super) fn person_name(name: &str) -> String {
    let group = |(group, code): (&str, &str)| {
        let mut parts = group.split('^').map(|part| escape(part.trim()));
        let mut part = || parts.next().unwrap_or_default();
        // PN has the prefix before the suffix, XPN after it.
        let (family, given, middle, prefix, suffix) = (part(), part(), part(), part(), part());
        let is_empty = [&family, &given, &middle, &prefix, &suffix].iter().all(|part| part.is_empty());
        (!is_empty).then(|| format!("{family}^{given}^{middle}^{suffix}^{prefix}^^L^{code}"))
    };
    name.split('=').zip(["A", "I", "P"]).filter_map(group).collect::<Vec<_>>().join("~")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text that a receiver reads out of a field.
    fn read(field: &str) -> String {
        let mut text = String::new();
        let mut rest = field;
        while let Some(begin) = rest.find('\\') {
            text.push_str(&rest[..begin]);
            let end = begin + 1 + rest[begin + 1..].find('\\').expect("every escape ends");
            text.push_str(match &rest[begin + 1..end] {
                "E" => "\\",
                "F" => "|",
                "S" => "^",
                "T" => "&",
                "R" => "~",
                ".br" => "\n",
                other => panic!("unknown escape {other:?}"),
            });
            rest = &rest[end + 1..];
        }
        text + rest
    }

    #[test]
    fn delimiters_and_line_ends_are_escaped() {
        assert_eq!(escape("a|b^c&d~e\\f"), "a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f");
        assert_eq!(escape("one\r\ntwo\nthree\rfour"), "one\\.br\\two\\.br\\three\\.br\\four");
        assert_eq!(escape("\u{b}\u{1c}x\0"), "  x ");
        assert_eq!(escape("山田"), "山田");
    }

    #[test]
    fn names_change_their_order() {
        assert_eq!(
            person_name("Adams^John Robert Quincy^^Rev.^B.A. M.Div."),
            "Adams^John Robert Quincy^^B.A. M.Div.^Rev.^^L^A"
        );
        assert_eq!(person_name("O'Brien"), "O'Brien^^^^^^L^A");
        assert_eq!(
            person_name("Yamada^Tarou=山田^太郎=やまだ^たろう"),
            "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"
        );
        assert_eq!(person_name("=山田^太郎"), "山田^太郎^^^^^L^I");
        assert_eq!(person_name("A|B^C&D"), "A\\F\\B^C\\T\\D^^^^^L^A");
        assert_eq!(person_name("^^^^"), "");
        assert_eq!(person_name(""), "");
    }

    proptest! {
        /// Nothing of a value gets out of its field, and all of it can be read back.
        #[test]
        fn a_field_holds_any_text(text in "\\PC{0,40}|[|^&~\\\\\r\n\u{b}\u{1c}a]{0,40}") {
            let field = escape(&text);
            prop_assert!(!field.contains(['|', '^', '&', '~']) && !field.chars().any(char::is_control), "{field:?}");
            let kept = text.replace("\r\n", "\n").replace('\r', "\n");
            let kept: String = kept.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
            prop_assert_eq!(read(&field), kept);
        }

        /// A name has at most three repetitions of eight components.
        #[test]
        fn a_name_holds_any_text(text in "[a^=|~&\\\\\r]{0,40}") {
            let field = person_name(&text);
            let repetitions: Vec<&str> = field.split('~').collect();
            prop_assert!(repetitions.len() <= 3);
            prop_assert!(field.is_empty() || repetitions.iter().all(|name| name.split('^').count() == 8), "{}", field);
            prop_assert!(!field.contains(['|', '&', '\r']));
        }
    }
}
