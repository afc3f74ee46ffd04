//! The little DER that is needed to find a key in a certificate and a signature around a key.
//!
//! Reads what is there and nothing else: it validates no certificate. Every length is checked before use.

/// `INTEGER`
pub(super) const INTEGER: u8 = 0x02;
/// `BIT STRING`
pub(super) const BIT_STRING: u8 = 0x03;
/// `OBJECT IDENTIFIER`
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
/// `SEQUENCE`
pub(super) const SEQUENCE: u8 = 0x30;
/// `UTCTime`
pub(super) const UTC_TIME: u8 = 0x17;
/// `GeneralizedTime`
pub(super) const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, explicit: a certificate's version.
pub(super) const VERSION: u8 = 0xA0;

/// Where a reader stands.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

/// One element: with its header, and without.
pub(super) struct Element<'a> {
    pub(super) whole: &'a [u8],
    pub(super) content: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next_tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element, which must have this tag. `None` leaves the reader where it was.
    pub(super) fn element(&mut self, tag: u8) -> Option<Element<'a>> {
        let (&[found, first], rest) = self.0.split_first_chunk::<2>()?;
        if found != tag {
            return None;
        }
        let (length, after_length) = match first {
            0..=0x7F => (usize::from(first), rest),
            // One to three more bytes; DER wants the shortest form.
            0x81..=0x83 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x0F))?;
                let length = bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
                if length < 0x80 || bytes.first() == Some(&0) {
                    return None;
                }
                (length, after)
            }
            _ => return None,
        };
        let content = after_length.get(..length)?;
        let header = self.0.len() - after_length.len();
        let (whole, after) = self.0.split_at_checked(header + length)?;
        self.0 = after;
        Some(Element { whole, content })
    }

    /// The next element's content, as something to read in turn.
    pub(super) fn enter(&mut self, tag: u8) -> Option<Self> {
        self.element(tag).map(|element| Self(element.content))
    }
}

/// The header of an element of `length` bytes: 2 to 4 bytes. `None` above 65,535.
pub(super) fn header(tag: u8, length: usize) -> Option<heapless::Vec<u8, 4>> {
    let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
    let bytes: &[u8] = match length {
        0..=0x7F => &[tag, low],
        0x80..=0xFF => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    heapless::Vec::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn elements_of_every_length_come_back_and_cut_ones_do_not() {
        for length in [0, 1, 127, 128, 255, 256, 65_535] {
            let mut bytes = header(SEQUENCE, length).unwrap_or_default().to_vec();
            bytes.resize(bytes.len() + length, 5);
            let mut reader = Reader::new(&bytes);
            let element = reader.element(SEQUENCE);
            assert_eq!(
                element.map(|element| (element.whole.len(), element.content.len())),
                Some((bytes.len(), length))
            );
            assert!(reader.is_at_end());
            assert!(Reader::new(&bytes[..bytes.len() - 1]).element(SEQUENCE).is_none());
            assert!(Reader::new(&bytes).element(INTEGER).is_none());
        }
        assert!(header(SEQUENCE, 65_536).is_none());
    }

    #[test]
    fn long_forms_of_short_lengths_and_indefinite_lengths_are_refused() {
        let mut padded = vec![SEQUENCE, 0x82, 0, 0x80];
        padded.resize(4 + 0x80, 0);
        for bytes in
            [&[SEQUENCE, 0x81, 1, 0][..], &padded, &[SEQUENCE, 0x80, 0, 0], &[SEQUENCE, 0x84, 0, 0, 0, 0]]
        {
            assert!(Reader::new(bytes).element(SEQUENCE).is_none());
        }
        assert!(Reader::new(&[SEQUENCE]).element(SEQUENCE).is_none());
        assert!(Reader::new(&[]).element(SEQUENCE).is_none());
    }
}
