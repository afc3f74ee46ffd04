//! What `smp` prints: text for people, or one JSON object a line for programs.
//!
//! Results go to the standard output, and only they: progress and notices go to the standard error. What came from
//! somebody else is printed to a terminal without its control characters, which could rewrite the screen.

use std::io::{self, IsTerminal, Write};

use base64ct::{Base64, Encoding};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Prints the results of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    json: bool,
    terminal: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    /// Whether results are JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// A result: `text` for people, `event` and `value`'s fields for programs. It is out when this returns.
    pub(crate) fn result(self, event: &str, value: &impl Serialize, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", line(event, value))?;
        } else {
            writeln!(out, "{text}")?;
        }
        out.flush()
    }

    /// A message that was received. It is out when this returns.
    pub(crate) fn message(self, queue: &str, timestamp: i64, body: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let mut value = json!({ "queue": queue, "time": timestamp });
            match std::str::from_utf8(body) {
                Ok(text) => value["text"] = text.into(),
                Err(_) => value["base64"] = Base64::encode_string(body).into(),
            }
            writeln!(out, "{}", line("message", &value))?;
        } else if self.terminal {
            writeln!(out, "{}", printable(&String::from_utf8_lossy(body)))?;
        } else {
            out.write_all(body)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Something worth knowing that is not a result.
    pub(crate) fn notice(self, text: &str) {
        // Nobody can be told when even the standard error is closed.
        let _ = if self.json {
            writeln!(io::stderr().lock(), "{}", line("notice", &json!({ "message": text })))
        } else {
            writeln!(io::stderr().lock(), "{text}")
        };
    }

    /// Why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        let _ = if self.json {
            let value = json!({
                "kind": failure.kind.name(), "message": failure.what, "advice": failure.advice,
            });
            writeln!(io::stderr().lock(), "{}", line("error", &value))
        } else {
            writeln!(io::stderr().lock(), "error: {}", printable(&failure.to_string()))
        };
    }
}

/// One JSON object with `event` first.
fn line(event: &str, value: &impl Serialize) -> String {
    let fields = match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Value::Object(fields).to_string(),
        Ok(other) => json!({ "value": other }).to_string(),
        Err(error) => json!({ "error": error.to_string() }).to_string(),
    };
    let event = Value::from(event);
    match fields.strip_prefix('{') {
        None | Some("}") => format!("{{\"event\":{event}}}"),
        Some(fields) => format!("{{\"event\":{event},{fields}"),
    }
}

/// Text without what a terminal would obey: control characters and the marks that reorder text.
pub(crate) fn printable(text: &str) -> String {
    let reorders = |character| matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|character| match character {
            '\n' | '\t' => character,
            _ if character.is_control() || reorders(character) => '\u{fffd}',
            _ => character,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_somebody_else_wrote() {
        assert_eq!(
            printable("a\tb\nc\x1b[2Jd\u{9b}e\u{202e}f\r"),
            "a\tb\nc\u{fffd}[2Jd\u{fffd}e\u{fffd}f\u{fffd}"
        );
    }

    #[test]
    fn a_json_line_starts_with_its_event_and_has_no_line_break() {
        let text = line("message", &json!({ "a": "one\ntwo" }));
        assert_eq!(text, r#"{"event":"message","a":"one\ntwo"}"#);
        assert_eq!(line("end", &json!({})), r#"{"event":"end"}"#);
    }
}
