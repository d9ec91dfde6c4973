//! Errors in words.

use std::error::Error;

/// An error and what caused it, in one line; a cause that has been said already is not said again.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !line.contains(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
        cause = inner.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Said(&'static str, Option<Box<Said>>);

    impl fmt::Display for Said {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Said {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|inner| inner as &(dyn Error + 'static))
        }
    }

    #[test]
    fn causes_are_said_once() {
        let chained = |words: &[&'static str]| {
            let errors = words.iter().rev().fold(None, |inner, words| Some(Box::new(Said(words, inner))));
            chain(&*errors.unwrap())
        };
        assert_eq!(chained(&["cannot read x"]), "cannot read x");
        assert_eq!(chained(&["cannot read x", "no such file"]), "cannot read x: no such file");
        let manifest = ["manifest m: cannot be read: no such file", "cannot be read: no such file", "no such file"];
        assert_eq!(chained(&manifest), manifest[0]);
        assert_eq!(chained(&["self-test", "a: b", "b", "c"]), "self-test: a: b: c");
    }
}
