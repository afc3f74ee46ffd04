//! Percent-encoding as addresses and links use it (WIRE-FACTS 11.2–11.4, 18).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Undoes percent-encoding; a `%` that does not begin one stays. Each byte that is not UTF-8 becomes `?`.
#[must_use]
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match after.first_chunk::<2>().filter(|_| byte == b'%').and_then(|[high, low]| hex_pair(*high, *low))
        {
            Some(escaped) => {
                bytes.push(escaped);
                rest = after.get(2..).unwrap_or_default();
            }
            None => bytes.push(byte),
        }
    }
    Cow::Owned(decode_utf8(&bytes))
}

/// Like [`unescape`] for a value in a query, where `+` is a space.
#[must_use]
pub fn unescape_query(text: &str) -> String {
    unescape(&text.replace('+', " ")).into_owned()
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Text of bytes that should be UTF-8: each byte that is not becomes `?`.
#[must_use]
pub fn decode_utf8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}

/// Shows text with everything escaped that is not a letter, a digit or one of `-_.~`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                fmt::Write::write_char(formatter, char::from(byte))?;
            } else {
                write!(formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// The parameters of a query: names and values as they are between `&` and `=`.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(pub &'a str);

impl<'a> Query<'a> {
    /// The first value of this name; the empty text when it has no `=`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn escaping_is_undone() {
        let text = "smp://é @:/?#[]=&%,;+~-_.";
        assert_eq!(unescape(&Escaped(text).to_string()), text);
        assert_eq!(Escaped("a b+c/é").to_string(), "a%20b%2Bc%2F%C3%A9");
    }

    #[test]
    fn what_is_not_an_escape_stays() {
        for text in ["%", "%2", "%zz", "a%", "%é"] {
            assert_eq!(unescape(text), text);
        }
        assert_eq!(unescape("%3d%3D%%41"), "==%A");
        assert_eq!(unescape("a%ff%fe%C3%A9%C3"), "a??é?");
        assert_eq!(unescape_query("a+b%2Bc"), "a b+c");
    }

    #[test]
    fn the_first_value_of_a_name_counts() {
        let query = Query("v=1&data&x=a=b&v=2");
        assert_eq!((query.get("v"), query.get("data"), query.get("x")), (Some("1"), Some(""), Some("a=b")));
        assert_eq!(query.get("y"), None);
    }
}
