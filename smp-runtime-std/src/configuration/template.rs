//! The `smp-server.ini` that `init` writes: every key, with its meaning and its default.

use core::fmt::Write;

use super::CreatePassword;
use super::catalogue::{KEYS, SECTIONS};

/// What `init` was asked to set; everything else is written as a comment with its default.
#[derive(Clone, Debug, Default)]
pub struct Initial {
    /// `[TRANSPORT] host`
    pub hosts: Vec<String>,
    /// `[TRANSPORT] port`
    pub ports: Vec<u16>,
    /// `[TRANSPORT] listen`: as text, empty for the default.
    pub listen: Vec<std::net::IpAddr>,
    /// `[AUTH] create_password`
    pub create_password: Option<CreatePassword>,
}

/// The text of a new configuration file.
#[must_use]
pub fn render(initial: &Initial) -> String {
    let mut text = String::from(
        "# Configuration of smp-server. A line that begins with # is a comment; a commented key has the value shown.\n\
         # Changes take effect at the next start.\n",
    );
    for (section, about) in SECTIONS {
        let _ = write!(text, "\n# {about}\n[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            text.push('\n');
            for line in key.comment.lines() {
                let _ = writeln!(text, "# {line}");
            }
            match initial.value(section, key.name) {
                Some(value) => {
                    let _ = writeln!(text, "{}: {value}", key.name);
                }
                None if key.default.is_empty() => {
                    let _ = writeln!(text, "# {}:", key.name);
                }
                None => {
                    let _ = writeln!(text, "# {}: {}", key.name, key.default);
                }
            }
        }
    }
    text
}

impl Initial {
    fn value(&self, section: &str, key: &str) -> Option<String> {
        match (section, key) {
            ("TRANSPORT", "host") => list(&self.hosts),
            ("TRANSPORT", "port") => list(&self.ports),
            ("TRANSPORT", "listen") => list(&self.listen),
            ("AUTH", "create_password") => {
                self.create_password.as_ref().map(|password| password.as_str().to_owned())
            }
            _ => None,
        }
    }
}

fn list<T: ToString>(items: &[T]) -> Option<String> {
    let texts: Vec<_> = items.iter().map(T::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}
