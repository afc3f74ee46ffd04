//! Test vectors: files of JSON lines, computed with the reference implementation (`tests/vectors/README.md`).
//!
//! A test runs one *kind* of line of one file. It fails with a list of all lines that differ, and also when the folder of
//! this repository has no line of that kind: a renamed kind must not make a test pass silently. The folder is
//! `tests/vectors`, or what `SMP_VECTORS` names; another folder may lack files and kinds.
//!
//! ```no_run
//! use smp_tests::vectors;
//!
//! vectors::run("crypto.jsonl", "unpad", |vector| {
//!     let padded = vector.input.bytes("padded")?;
//!     match smp_proto::crypto::padding::unpad(&padded) {
//!         Ok(text) => vector.output.expect_bytes("msg", text),
//!         Err(_) => vector.output.expect_error(),
//!     }
//! });
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// What a check returns: `Err` says how the line differs.
pub type Outcome = Result<(), String>;

/// One line of a file.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Unique in the file.
    pub id: String,
    /// What is tested.
    pub kind: String,
    /// One sentence about it.
    pub about: String,
    /// What goes in.
    pub input: Fields,
    /// What must come out.
    pub output: Fields,
}

/// A JSON object (or any other value), with readers for the conventions of the vector files.
#[derive(Clone, Debug)]
pub struct Fields(pub Value);

/// The folder with the vectors, and whether it is the repository's own.
#[must_use]
pub fn folder() -> (PathBuf, bool) {
    match std::env::var_os("SMP_VECTORS") {
        Some(folder) => (folder.into(), false),
        None => (Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors"), true),
    }
}

/// All lines of a file, in order. Empty when another folder than the repository's lacks the file.
///
/// # Panics
/// When the file cannot be read, a line is not what the README describes, or an id occurs twice.
#[must_use]
pub fn read(file: &str) -> Vec<Vector> {
    let (folder, own) = folder();
    let path = folder.join(file);
    if !own && !path.exists() {
        return Vec::new();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut seen = BTreeMap::new();
    let mut vectors = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{file}, line {number}: {error}"));
        let name = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_else(|| panic!("{file}, line {number}: no {key}"))
                .to_owned()
        };
        let vector = Vector {
            id: name("id"),
            kind: name("kind"),
            about: value.get("about").and_then(Value::as_str).unwrap_or_default().to_owned(),
            input: Fields(value.get("in").cloned().unwrap_or(Value::Null)),
            output: Fields(value.get("out").cloned().unwrap_or(Value::Null)),
        };
        if let Some(earlier) = seen.insert(vector.id.clone(), number) {
            panic!("{file}: the id {} is used in lines {earlier} and {number}", vector.id);
        }
        vectors.push(vector);
    }
    vectors
}

/// Runs `check` on every line of `kind`, and returns how many there were.
///
/// # Panics
/// When a line differs, or the repository's own folder has none of this kind.
pub fn run(file: &str, kind: &str, check: impl Fn(&Vector) -> Outcome) -> usize {
    run_except(file, kind, &[], check)
}

/// Like [`run`], with lines that differ on purpose: `(id, reason)`. Such a line must really differ.
///
/// # Panics
/// When another line differs, one of the exceptions does not (or no longer exists), or the repository's own folder has
/// none of this kind.
pub fn run_except(
    file: &str,
    kind: &str,
    exceptions: &[(&str, &str)],
    check: impl Fn(&Vector) -> Outcome,
) -> usize {
    let (_, own) = folder();
    let vectors: Vec<_> = read(file).into_iter().filter(|vector| vector.kind == kind).collect();
    assert!(!vectors.is_empty() || !own, "{file} has no line of kind {kind}");
    let mut report = String::new();
    let mut failed = 0;
    for vector in &vectors {
        let outcome = catch_unwind(AssertUnwindSafe(|| check(vector)))
            .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_text(&*panic))));
        let reason = exceptions.iter().find(|(id, _)| *id == vector.id).map(|(_, reason)| reason);
        let complaint = match (outcome, reason) {
            (Ok(()), None) | (Err(_), Some(_)) => continue,
            (Err(difference), None) => difference,
            (Ok(()), Some(reason)) => {
                format!("does not differ, though it is listed as an exception: {reason}")
            }
        };
        failed += 1;
        let _ = write!(report, "\n  {} ({}): {complaint}", vector.id, vector.about);
    }
    for (id, reason) in exceptions {
        if own && !vectors.iter().any(|vector| vector.id == *id) {
            failed += 1;
            let _ = write!(report, "\n  {id}: listed as an exception ({reason}), but there is no such line");
        }
    }
    assert!(failed == 0, "{file}, kind {kind}: {failed} of {} lines differ:{report}", vectors.len());
    println!("{file}, kind {kind}: {} lines agree", vectors.len());
    vectors.len()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

impl Fields {
    /// The value under `key`; JSON `null` when there is none.
    #[must_use]
    pub fn get(&self, key: &str) -> Self {
        Self(self.0.get(key).cloned().unwrap_or(Value::Null))
    }

    /// Whether there is a value under `key`, `null` included.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    /// Whether this is `null`, or absent.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The items, when this is a list.
    ///
    /// # Errors
    /// When it is something else.
    pub fn items(&self) -> Result<Vec<Self>, String> {
        let items = self.0.as_array().ok_or_else(|| format!("not a list: {}", self.shown()))?;
        Ok(items.iter().cloned().map(Self).collect())
    }

    /// The bytes under `key`: hex, or a generated pattern.
    ///
    /// # Errors
    /// When there are none.
    pub fn bytes(&self, key: &str) -> Result<Vec<u8>, String> {
        self.get(key).as_bytes().map_err(|error| format!("{key}: {error}"))
    }

    /// The bytes under `key`, `None` for `null`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn optional_bytes(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let value = self.get(key);
        if value.is_null() {
            return Ok(None);
        }
        value.as_bytes().map(Some).map_err(|error| format!("{key}: {error}"))
    }

    /// The `LENGTH` bytes under `key`.
    ///
    /// # Errors
    /// When there are none, more, or fewer.
    pub fn array<const LENGTH: usize>(&self, key: &str) -> Result<[u8; LENGTH], String> {
        let bytes = self.bytes(key)?;
        let length = bytes.len();
        bytes.try_into().map_err(|_| format!("{key}: {length} bytes, not {LENGTH}"))
    }

    /// The integer under `key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn integer(&self, key: &str) -> Result<i64, String> {
        self.get(key).0.as_i64().ok_or_else(|| format!("{key}: not an integer"))
    }

    /// The size or count under `key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn size(&self, key: &str) -> Result<usize, String> {
        self.integer(key)?.try_into().map_err(|_| format!("{key}: not a size"))
    }

    /// The text under `key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self, key: &str) -> Result<String, String> {
        self.get(key).0.as_str().map(str::to_owned).ok_or_else(|| format!("{key}: not text"))
    }

    /// The truth value under `key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn boolean(&self, key: &str) -> Result<bool, String> {
        self.get(key).0.as_bool().ok_or_else(|| format!("{key}: neither true nor false"))
    }

    /// This value as bytes: hex, or `{"gen":"mod251","len":N}`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn as_bytes(&self) -> Result<Vec<u8>, String> {
        if let Some(text) = self.0.as_str() {
            return decode_hex(text);
        }
        if self.0.get("gen").and_then(Value::as_str) == Some("mod251") {
            let length = self.size("len")?;
            return Ok((0..=250).cycle().take(length).collect());
        }
        Err(format!("not bytes: {}", self.shown()))
    }

    /// Compares `actual` with the bytes under `key`, which may be given by length and digest only: `x_len`, `x_sha256`,
    /// `x_first32`, `x_last16`, or an object of `long_len`, `long_sha256`, `long_first32`.
    ///
    /// # Errors
    /// When they differ, or nothing is given.
    pub fn expect_bytes(&self, key: &str, actual: &[u8]) -> Outcome {
        let value = self.get(key);
        let mut compared = false;
        if value.0.is_string() || value.has("gen") {
            compare(key, &value.as_bytes()?, actual)?;
            compared = true;
        } else if value.has("long_sha256") {
            value.expect_digest("long", key, actual)?;
            compared = true;
        } else if !value.is_null() {
            return Err(format!("{key}: got {}, expected {}", hex(actual), value.shown()));
        }
        if self.has(&format!("{key}_sha256")) {
            self.expect_digest(key, key, actual)?;
            compared = true;
        }
        if compared { Ok(()) } else { Err(format!("{key}: got {}, expected nothing", hex(actual))) }
    }

    fn expect_digest(&self, prefix: &str, name: &str, actual: &[u8]) -> Outcome {
        let length = self.size(&format!("{prefix}_len"))?;
        if length != actual.len() {
            return Err(format!("{name}: {} bytes, expected {length}", actual.len()));
        }
        if let Some(first) = self.optional_bytes(&format!("{prefix}_first32"))? {
            compare(&format!("{name}, first bytes"), &first, &actual[..first.len().min(length)])?;
        }
        if let Some(last) = self.optional_bytes(&format!("{prefix}_last16"))? {
            compare(&format!("{name}, last bytes"), &last, &actual[length.saturating_sub(last.len())..])?;
        }
        compare(
            &format!("{name}, SHA-256"),
            &self.bytes(&format!("{prefix}_sha256"))?,
            &Sha256::digest(actual),
        )
    }

    /// Compares `actual` with the bytes under `key`, where `None` is `null`.
    ///
    /// # Errors
    /// When they differ.
    pub fn expect_optional_bytes(&self, key: &str, actual: Option<&[u8]>) -> Outcome {
        match actual {
            Some(actual) => self.expect_bytes(key, actual),
            None if self.get(key).is_null() => Ok(()),
            None => Err(format!("{key}: got nothing, expected {}", self.get(key).shown())),
        }
    }

    /// Compares `actual` with the value under `key`.
    ///
    /// # Errors
    /// When they differ.
    pub fn expect(&self, key: &str, actual: impl Into<Value>) -> Outcome {
        let (expected, actual) = (self.get(key), actual.into());
        if expected.0 == actual {
            return Ok(());
        }
        Err(format!("{key}: got {}, expected {}", Self(actual).shown(), expected.shown()))
    }

    /// Expects that this is an output of failure: it has an `error`.
    ///
    /// # Errors
    /// When it is an output of success.
    pub fn expect_error(&self) -> Outcome {
        if self.has("error") { Ok(()) } else { Err(format!("refused, expected {}", self.shown())) }
    }

    /// The value as text, cut when it is long.
    #[must_use]
    pub fn shown(&self) -> String {
        cut(&self.0.to_string())
    }
}

fn compare(name: &str, expected: &[u8], actual: &[u8]) -> Outcome {
    if expected == actual {
        return Ok(());
    }
    let place = expected.iter().zip(actual).take_while(|(one, other)| one == other).count();
    Err(format!(
        "{name}: got {} ({} bytes), expected {} ({} bytes), first difference at byte {place}",
        hex(actual),
        actual.len(),
        hex(expected),
        expected.len()
    ))
}

/// Decodes hex.
///
/// # Errors
/// When the text is not hex.
pub fn decode_hex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
            .ok_or_else(|| format!("not hex: {}", cut(text)))
    };
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(format!("hex of odd length: {}", cut(text)));
    }
    pairs.map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Bytes as hex, cut when there are many.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(60) {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > 60 { text + "…" } else { text }
}

fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(200).collect();
    if chars.next().is_some() { start + "…" } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_line_of_every_file_is_readable() {
        let (_, own) = folder();
        let files = [
            "commands",
            "crypto",
            "hello",
            "links",
            "messages",
            "proxy",
            "ratchet",
            "responses",
            "transmissions",
        ];
        for file in files {
            assert!(!read(&format!("{file}.jsonl")).is_empty() || !own, "{file}");
        }
    }

    #[test]
    fn bytes_are_hex_or_generated() {
        let fields = Fields(
            json!({"hex": "00ff", "odd": "0", "bad": "zz", "long": {"gen": "mod251", "len": 253}, "n": null}),
        );
        assert_eq!(fields.bytes("hex"), Ok(vec![0, 255]));
        assert!(fields.bytes("odd").is_err() && fields.bytes("bad").is_err() && fields.bytes("n").is_err());
        assert_eq!(
            fields.bytes("long").map(|bytes| (bytes.len(), bytes[250], bytes[251])),
            Ok((253, 250, 0))
        );
        assert_eq!(fields.optional_bytes("n"), Ok(None));
    }

    #[test]
    fn comparisons_find_differences() {
        let long = vec![7; 3000];
        let digest =
            Sha256::digest(&long).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let fields = Fields(json!({
            "x": "0102", "y_len": 3000, "y_sha256": digest, "y_first32": "07".repeat(32), "y_last16": "07".repeat(16),
            "z": {"long_len": 3000, "long_sha256": digest, "long_first32": "07".repeat(32)}, "nothing": null, "n": 5,
        }));
        assert_eq!(fields.expect_bytes("x", &[1, 2]), Ok(()));
        assert!(fields.expect_bytes("x", &[1]).is_err());
        assert!(fields.expect_bytes("absent", &[]).is_err());
        assert!(fields.expect_bytes("nothing", &[]).is_err());
        for key in ["y", "z"] {
            assert_eq!(fields.expect_bytes(key, &long), Ok(()));
            assert!(fields.expect_bytes(key, &long[1..]).is_err());
            let mut changed = long.clone();
            changed[100] = 0;
            assert!(fields.expect_bytes(key, &changed).is_err());
        }
        assert_eq!(fields.expect_optional_bytes("nothing", None), Ok(()));
        assert!(fields.expect_optional_bytes("x", None).is_err());
        assert_eq!(fields.expect("n", 5), Ok(()));
        assert!(fields.expect("n", 6).is_err());
        assert!(fields.expect_error().is_err());
    }

    #[test]
    fn a_difference_an_empty_kind_and_a_stale_exception_fail() {
        if std::env::var_os("SMP_VECTORS").is_some() {
            return; // This is about the repository's own lines.
        }
        let fails = |run: &dyn Fn() -> usize| catch_unwind(AssertUnwindSafe(run)).is_err();
        assert!(fails(&|| run("crypto.jsonl", "no-such-kind", |_| Ok(()))));
        assert!(fails(&|| run("crypto.jsonl", "unpad", |_| Err("differs".to_owned()))));
        assert!(fails(&|| run("crypto.jsonl", "unpad", |_| panic!("panics"))));
        assert!(fails(&|| run_except("crypto.jsonl", "unpad", &[("unpad-empty", "why")], |_| Ok(()))));
        assert!(fails(&|| run_except("crypto.jsonl", "unpad", &[("no-such-id", "why")], |_| Ok(()))));
        assert_eq!(run("crypto.jsonl", "unpad", |_| Ok(())), 8);
    }
}
