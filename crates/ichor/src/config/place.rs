//! Where in the file something stands: the line of a key, for faults that the types cannot see.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The first table or key at the top that a document has and a type has not, and its line. A table that is missing for it would
/// be named instead: what is read looks for its own keys first.
pub(super) fn unknown_at_the_top<'de, T: Deserialize<'de>>(text: &str) -> Option<(usize, String)> {
    let document = DeTable::parse(text).ok()?;
    let known = fields_of::<T>();
    let unknown = document.get_ref().keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
    let first = unknown.min_by_key(|key| key.span().start)?;
    let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    let words = format!("unknown table or key `{}`, expected one of {}", first.get_ref(), names.join(", "));
    Some((line(text, &first.span()), words))
}

/// The line of a key as faults name it, such as `listen.tls.client_auth` or `rule "night" tags`, or of the nearest table above
/// it that is there. Among several of one kind that have no name it is the one whose value the message quotes.
pub(super) fn line_of(text: &str, key: &str, message: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut found) = (document.get_ref(), None);
    let steps = steps(key);
    let mut rest = steps.as_slice();
    while let [Step::Key(name), after @ ..] = rest {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == *name) else { break };
        found = Some(key.span());
        rest = after;
        table = match value.get_ref() {
            DeValue::Table(inner) => inner,
            DeValue::Array(items) => {
                let chosen = match rest {
                    [Step::Name(name), after @ ..] => {
                        rest = after;
                        items.iter().find(|item| is_called(item, name))
                    }
                    [Step::Key(key), ..] => quoted(items, key, message),
                    [] => None,
                };
                let Some(item) = chosen else { break };
                found = Some(item.span());
                let DeValue::Table(inner) = item.get_ref() else { break };
                inner
            }
            _ => break,
        };
    }
    found.map(|span| line(text, &span))
}

/// A part of a fault's key.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    /// Which of several.
    Name(String),
}

fn steps(key: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = key;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            // As Rust quotes it: the name's own quotes have a backslash.
            let mut before = ' ';
            let end = quoted.find(|c| {
                let is_end = c == '"' && before != '\\';
                before = c;
                is_end
            });
            let end = end.unwrap_or(quoted.len());
            steps.push(Step::Name(quoted[..end].replace("\\\"", "\"")));
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else {
            let end = rest.find([' ', '.', '"']).unwrap_or(rest.len());
            if end > 0 {
                steps.push(Step::Key(&rest[..end]));
            }
            rest = rest[end..].trim_start_matches([' ', '.']);
        }
    }
    steps
}

fn is_called(item: &Spanned<DeValue<'_>>, name: &str) -> bool {
    let DeValue::Table(table) = item.get_ref() else { return false };
    matches!(table.get("name").map(Spanned::get_ref), Some(DeValue::String(text)) if text.as_ref() == name)
}

/// The only table that has a key, or the last whose value the message quotes.
fn quoted<'a, 'de>(items: &'a [Spanned<DeValue<'de>>], key: &str, message: &str) -> Option<&'a Spanned<DeValue<'de>>> {
    let with_key = items.iter().filter_map(|item| match item.get_ref() {
        DeValue::Table(table) => table.get(key).map(|value| (item, value.get_ref())),
        _ => None,
    });
    let with_key: Vec<_> = with_key.collect();
    if let [(only, _)] = with_key.as_slice() {
        return Some(only);
    }
    let is_quoted = |value: &DeValue<'_>| match value {
        DeValue::String(text) => message.contains(&format!("{text:?}")),
        DeValue::Integer(number) => begins_with(message, number.as_str()),
        DeValue::Float(number) => begins_with(message, number.as_str()),
        _ => false,
    };
    with_key.into_iter().rfind(|(_, value)| is_quoted(value)).map(|(item, _)| item)
}

fn begins_with(message: &str, number: &str) -> bool {
    let first = message.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    first.is_some() && first == number.replace('_', "").parse().ok()
}

/// The line of the first byte, from 1.
fn line(text: &str, span: &Range<usize>) -> usize {
    1 + text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
}

/// The names of a struct's fields in a document.
fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    let _it_never_gets_a_value = T::deserialize(Fields(&mut fields));
    fields
}

/// Asks a struct what its fields are.
struct Fields<'a>(&'a mut &'static [&'static str]);

/// The end of the question.
#[derive(Debug)]
struct Asked;

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only asked for its fields")
    }
}

impl std::error::Error for Asked {}

impl serde::de::Error for Asked {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Asked;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Asked> {
        *self.0 = fields;
        Err(Asked)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const FILE: &str = r#"# a comment
[listen]
address = "0.0.0.0:104"

[listen.tls]
client_auth = "perhaps"

[[source]]
ae_title = "A"
quiet_period_s = 10.0
[[source]]
ae_title = "B"
quiet_period_s = -1.0
[[destination]]
name = "pacs"
[[destination]]
name = "p \"2\""
first_backoff_s = -3
[destination.proof]
batch = 0
[[rule]]
name = "pacs"
[[retention.rule]]
name = "x"
[[retention.rule]]
name = "x"
"#;

    fn at(words: &str) -> usize {
        1 + FILE.lines().position(|line| line == words).unwrap_or_else(|| panic!("{words}"))
    }

    #[test]
    fn faults_have_lines() {
        for (key, message, words) in [
            ("listen.tls.client_auth", "", "client_auth = \"perhaps\""),
            // A default: the section that it belongs to.
            ("listen.max_pdu", "", "[listen]"),
            ("destination \"pacs\" objects", "", "[[destination]]"),
            (&format!("destination {:?} first_backoff_s", "p \"2\""), "", "first_backoff_s = -3"),
            (&format!("destination {:?} proof.batch", "p \"2\""), "", "batch = 0"),
            ("source.quiet_period_s", "-1 is not between 0 and 31536000 seconds", "quiet_period_s = -1.0"),
        ] {
            assert_eq!(line_of(FILE, key, message), Some(at(words)), "{key}");
        }
        // The second of two.
        let twice = line_of(FILE, "retention.rule.name", "\"x\" stands twice").unwrap();
        assert_eq!(twice, FILE.lines().count());
        assert_eq!(line_of(FILE, "admin.max_connections", ""), None, "nowhere in the file");
        assert_eq!(line_of("not TOML", "listen", ""), None);
    }

    #[test]
    fn an_unknown_table_is_named_rather_than_what_is_missing_for_it() {
        let shipped = include_str!("../../../../deploy/ichor.toml");
        assert_eq!(unknown_at_the_top::<Config>(shipped), None);
        let renamed = shipped.replacen("\n[dicomweb]\n", "\n[dicomwebx]\n", 1);
        let (line, words) = unknown_at_the_top::<Config>(&renamed).unwrap();
        assert_eq!(line, 1 + renamed.lines().position(|line| line == "[dicomwebx]").unwrap());
        assert!(words.contains("`dicomwebx`") && words.contains("`dicomweb`") && words.contains("`source`"), "{words}");
    }
}
