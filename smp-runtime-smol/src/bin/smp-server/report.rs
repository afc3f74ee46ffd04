//! What the operator sees: text for people, or one JSON object a line for programs. Never on behalf of one client.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

/// Where reports go.
#[derive(Clone, Copy)]
pub(crate) struct Report {
    json: bool,
}

impl Report {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Something that happened, on standard output. `event` names it for programs, `text` says it to people.
    pub(crate) fn event(self, event: &str, mut facts: Value, text: &str) {
        let line = if self.json {
            if let Some(object) = facts.as_object_mut() {
                object.insert("event".into(), event.into());
            }
            facts.to_string()
        } else {
            text.to_owned()
        };
        // When nobody reads standard output any more the relay goes on.
        let mut output = std::io::stdout().lock();
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }

    /// Something that went wrong, on standard error: one line.
    pub(crate) fn error(self, message: &str) {
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut output = std::io::stderr().lock();
        let _ = if self.json {
            writeln!(output, "{}", json!({ "event": "error", "message": message }))
        } else {
            writeln!(output, "smp-server: {message}")
        };
    }

    /// Something that the operator may want to know, on standard error: one line.
    pub(crate) fn note(self, message: &str) {
        let mut output = std::io::stderr().lock();
        let _ = if self.json {
            writeln!(output, "{}", json!({ "event": "note", "message": message }))
        } else {
            writeln!(output, "smp-server: {message}")
        };
    }

    /// How far loading is, on standard error when that is a terminal.
    pub(crate) fn progress(self) -> ProgressBar {
        let target = if self.json || !std::io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("loading queues: {pos} ({per_sec}, {elapsed})") {
            bar.set_style(style);
        }
        bar
    }
}

/// The text as a QR code of block characters, for terminals; `None` when it is too long for one.
pub(crate) fn qr_code(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}
