//! QR codes in a terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, EcLevel, QrCode};
use serde_json::{Value, json};

use crate::failure::{Failure, Kind};

/// A QR code.
pub(crate) struct Code(QrCode);

impl Code {
    /// The code of a text, with the lowest redundancy: a screen has no stains, and links are long.
    pub(crate) fn of(text: &str) -> Result<Self, Failure> {
        QrCode::with_error_correction_level(text, EcLevel::L).map(Self).map_err(|_| {
            Failure::new(Kind::Usage, format!("{} characters do not fit into a QR code", text.len()))
                .advise("only a short link does: this one has keys in it that cannot be left out")
        })
    }

    /// For a terminal: light modules are drawn, as most terminals are dark; with the margin that scanners need.
    pub(crate) fn to_text(&self) -> String {
        self.0.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
    }

    /// For programs: a text for each row, `1` for a dark module; without a margin.
    pub(crate) fn to_json(&self) -> Value {
        let row = |row: &[Color]| {
            row.iter().map(|color| if *color == Color::Dark { '1' } else { '0' }).collect::<String>()
        };
        let modules = self.0.to_colors();
        let rows: Vec<String> = modules.chunks(self.0.width().max(1)).map(row).collect();
        json!({ "size": self.0.width(), "rows": rows })
    }
}
