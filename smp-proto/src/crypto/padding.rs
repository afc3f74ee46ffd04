//! Padding, so that lengths say nothing (WIRE-FACTS 3): `length (2 bytes) ‖ text ‖ '#' up to the end`.
//!
//! The reader takes the text that the length names and does not look at the rest.

/// The bytes before the text: its length, big-endian.
pub const LENGTH_BYTES: usize = 2;
/// The longest text that can be padded, whatever the buffer.
pub const MAX_TEXT: usize = 65_533;
/// What fills the rest.
const FILL: u8 = b'#';

/// A text is too long for the length that it should be padded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl core::fmt::Display for TooLong {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("the text is longer than its padded form allows")
    }
}

impl core::error::Error for TooLong {}

/// The bytes do not begin with the length of a text that they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPadded;

impl core::fmt::Display for NotPadded {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("the padded text is shorter than it claims")
    }
}

impl core::error::Error for NotPadded {}

/// Whether a text of `text` bytes can be padded to `padded` bytes.
#[must_use]
pub const fn fits(text: usize, padded: usize) -> bool {
    text <= MAX_TEXT && text <= padded.saturating_sub(LENGTH_BYTES) && padded >= LENGTH_BYTES
}

/// Writes `text`, padded to the whole of `out`.
///
/// # Errors
/// [`TooLong`] when it does not fit; `out` is then unchanged.
pub fn pad(text: &[u8], out: &mut [u8]) -> Result<(), TooLong> {
    let place = out.get_mut(LENGTH_BYTES..).and_then(|rest| rest.get_mut(..text.len())).ok_or(TooLong)?;
    if text.len() > MAX_TEXT {
        return Err(TooLong);
    }
    place.copy_from_slice(text);
    pad_in_place(out, text.len())
}

/// Pads a text that is already in the buffer, at offset 2, to the whole of `buffer`.
///
/// # Errors
/// [`TooLong`] when `buffer` cannot hold `text_length` bytes and their length.
pub fn pad_in_place(buffer: &mut [u8], text_length: usize) -> Result<(), TooLong> {
    let prefix = u16::try_from(text_length).map_err(|_| TooLong)?.to_be_bytes();
    if text_length > MAX_TEXT {
        return Err(TooLong);
    }
    let (length, rest) = buffer.split_first_chunk_mut::<LENGTH_BYTES>().ok_or(TooLong)?;
    rest.get_mut(text_length..).ok_or(TooLong)?.fill(FILL);
    *length = prefix;
    Ok(())
}

/// The text of padded bytes.
///
/// # Errors
/// [`NotPadded`] when there are fewer bytes than the length at their beginning says.
pub fn unpad(padded: &[u8]) -> Result<&[u8], NotPadded> {
    let (length, rest) = padded.split_first_chunk::<LENGTH_BYTES>().ok_or(NotPadded)?;
    rest.get(..usize::from(u16::from_be_bytes(*length))).ok_or(NotPadded)
}

/// The text of padded bytes, to be changed further.
///
/// # Errors
/// [`NotPadded`] when there are fewer bytes than the length at their beginning says.
pub fn unpad_mut(padded: &mut [u8]) -> Result<&mut [u8], NotPadded> {
    let (length, rest) = padded.split_first_chunk_mut::<LENGTH_BYTES>().ok_or(NotPadded)?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*length))).ok_or(NotPadded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn what_fits_comes_back_and_what_does_not_is_refused() {
        for padded in 0..40 {
            for text in 0..40 {
                let mut out = vec![1; padded];
                let result = pad(&vec![9; text], &mut out);
                assert_eq!(result.is_ok(), fits(text, padded), "{text} into {padded}");
                if result.is_ok() {
                    assert_eq!(unpad(&out), Ok(&*vec![9; text]));
                    assert!(out[text + 2..].iter().all(|&byte| byte == b'#'));
                } else {
                    assert!(out.iter().all(|&byte| byte == 1));
                }
            }
        }
    }

    #[test]
    fn no_text_is_longer_than_its_limit() {
        let mut out = vec![0; 70_000];
        assert_eq!(pad(&vec![0; MAX_TEXT], &mut out), Ok(()));
        assert_eq!(pad(&vec![0; MAX_TEXT + 1], &mut out), Err(TooLong));
        assert_eq!(pad_in_place(&mut out, 65_534), Err(TooLong));
        assert_eq!(pad_in_place(&mut out, usize::MAX), Err(TooLong));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        assert_eq!(unpad(b""), Err(NotPadded));
        assert_eq!(unpad(&[0]), Err(NotPadded));
        assert_eq!(unpad(&[0, 2, 1]), Err(NotPadded));
        assert_eq!(unpad_mut(&mut [0, 1, 7, 7]), Ok(&mut [7][..]));
    }
}
