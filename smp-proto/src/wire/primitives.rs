//! Primitive encodings (WIRE-FACTS 1): a reader over a slice, and a writer over anything that takes bytes.
//!
//! All integers are big-endian. The reader borrows, and is total: it returns `None` where the input is too short or
//! impossible, and never panics. The writer fails with [`Full`] when the bytes do not fit, and a length that does not
//! fit its prefix counts as not fitting.

use alloc::vec::Vec;

use super::identifier::Identifier;
use super::version::{Version, VersionRange};
use crate::keys::{AuthKey, PublicKey, X25519Public};

/// The space that separates a tag from its first parameter.
pub const SPACE: u8 = b' ';

/// Reads values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// `Some` only when everything has been read: what a "parse all" parser ends with.
    #[must_use]
    pub const fn end(&self) -> Option<()> {
        if self.rest.is_empty() { Some(()) } else { None }
    }

    /// The next byte, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(head)
    }

    /// The next `LENGTH` bytes.
    pub fn array<const LENGTH: usize>(&mut self) -> Option<&'a [u8; LENGTH]> {
        let (head, tail) = self.rest.split_first_chunk()?;
        self.rest = tail;
        Some(head)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    /// One byte that must be this one.
    pub fn expect(&mut self, byte: u8) -> Option<()> {
        (self.byte()? == byte).then_some(())
    }

    /// A space, and the parameters after it.
    pub fn spaced<T>(&mut self, parameters: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.expect(SPACE)?;
        parameters(self)
    }

    /// `T` or `F`.
    pub fn bool(&mut self) -> Option<bool> {
        match self.byte()? {
            b'T' => Some(true),
            b'F' => Some(false),
            _ => None,
        }
    }

    /// 2 bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// 8 bytes, signed.
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(|bytes| i64::from_be_bytes(*bytes))
    }

    /// A short string: 1 length byte and up to 255 bytes.
    pub fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.bytes(usize::from(length))
    }

    /// A large string: 2 length bytes and up to 65,535 bytes.
    pub fn large(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    /// Everything that is left.
    pub const fn tail(&mut self) -> &'a [u8] {
        let tail = self.rest;
        self.rest = &[];
        tail
    }

    /// `0`, or `1` and a value.
    pub fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            b'0' => Some(None),
            b'1' => value(self).map(Some),
            _ => None,
        }
    }

    /// A count byte, and as many items; fewer than `least` are an error.
    pub fn list<T>(&mut self, least: u8, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.byte().filter(|count| *count >= least)?;
        // Room is made item by item: a count costs its sender nothing.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    /// A short string that names something.
    pub fn identifier(&mut self) -> Option<Identifier> {
        self.short().and_then(Identifier::new)
    }

    /// A version.
    pub fn version(&mut self) -> Option<Version> {
        self.u16().map(Version)
    }

    /// A version range; an empty one is an error.
    pub fn version_range(&mut self) -> Option<VersionRange> {
        let min = self.version()?;
        VersionRange::new(min, self.version()?)
    }

    /// A public key of any algorithm: a short string of its DER.
    pub fn public_key(&mut self) -> Option<PublicKey> {
        self.short().and_then(|der| PublicKey::from_der(der).ok())
    }

    /// A key that may authorize: Ed25519, Ed448 or X25519.
    pub fn auth_key(&mut self) -> Option<AuthKey> {
        self.short().and_then(|der| AuthKey::from_der(der).ok())
    }

    /// An X25519 key.
    pub fn x25519(&mut self) -> Option<X25519Public> {
        self.short().and_then(|der| X25519Public::from_der(der).ok())
    }
}

/// The bytes do not fit where they should be written, or into their length prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("the encoded bytes do not fit")
    }
}

impl core::error::Error for Full {}

/// Takes encoded bytes, one value after another.
pub trait Writer {
    /// Appends bytes as they are.
    ///
    /// # Errors
    /// [`Full`] when they do not fit; then none of them are written.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full>;

    /// Appends one byte.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn byte(&mut self, byte: u8) -> Result<(), Full> {
        self.put(&[byte])
    }

    /// `T` or `F`.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn bool(&mut self, value: bool) -> Result<(), Full> {
        self.byte(if value { b'T' } else { b'F' })
    }

    /// 2 bytes.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn u16(&mut self, value: u16) -> Result<(), Full> {
        self.put(&value.to_be_bytes())
    }

    /// 8 bytes.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn i64(&mut self, value: i64) -> Result<(), Full> {
        self.put(&value.to_be_bytes())
    }

    /// A short string.
    ///
    /// # Errors
    /// [`Full`] also when there are more than 255 bytes.
    fn short(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.byte(u8::try_from(bytes.len()).map_err(|_| Full)?)?;
        self.put(bytes)
    }

    /// A large string.
    ///
    /// # Errors
    /// [`Full`] also when there are more than 65,535 bytes.
    fn large(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.u16(u16::try_from(bytes.len()).map_err(|_| Full)?)?;
        self.put(bytes)
    }

    /// `0`, or `1` and the value that `write` writes.
    ///
    /// # Errors
    /// What `write` fails with.
    fn maybe<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T) -> Result<(), Full>,
    ) -> Result<(), Full>
    where
        Self: Sized,
    {
        match value {
            None => self.byte(b'0'),
            Some(value) => {
                self.byte(b'1')?;
                write(self, value)
            }
        }
    }

    /// A count byte, and the items.
    ///
    /// # Errors
    /// What `write` fails with; [`Full`] also when there are more than 255 items.
    fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T) -> Result<(), Full>) -> Result<(), Full>
    where
        Self: Sized,
    {
        self.byte(u8::try_from(items.len()).map_err(|_| Full)?)?;
        items.iter().try_for_each(|item| write(self, item))
    }

    /// An identifier.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn identifier(&mut self, identifier: &Identifier) -> Result<(), Full> {
        self.short(identifier.as_bytes())
    }

    /// A version range.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn version_range(&mut self, range: VersionRange) -> Result<(), Full> {
        self.u16(range.min().0)?;
        self.u16(range.max().0)
    }

    /// A key that may authorize.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn auth_key(&mut self, key: &AuthKey) -> Result<(), Full> {
        self.short(key.to_der().as_bytes())
    }

    /// An X25519 key.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Self::put).
    fn x25519(&mut self, key: &X25519Public) -> Result<(), Full> {
        self.short(key.to_der().as_bytes())
    }
}

impl Writer for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Writes from the front of a slice.
#[derive(Debug)]
pub struct SliceWriter<'a> {
    buffer: &'a mut [u8],
    written: usize,
}

impl<'a> SliceWriter<'a> {
    /// A writer into `buffer`, from its start.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, written: 0 }
    }

    /// How many bytes have been written.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.written
    }

    /// What was written from `position` on, to be signed.
    #[must_use]
    pub fn written_since(&self, position: usize) -> &[u8] {
        self.buffer.get(position..self.written).unwrap_or_default()
    }

    /// Takes back what was written after `position`.
    pub fn truncate(&mut self, position: usize) {
        self.written = self.written.min(position);
    }

    /// Leaves room for `length` bytes and hands it out, for what is made in place.
    ///
    /// # Errors
    /// [`Full`] when there is less room.
    pub fn reserve(&mut self, length: usize) -> Result<&mut [u8], Full> {
        let end = self.written.checked_add(length).ok_or(Full)?;
        let room = self.buffer.get_mut(self.written..end).ok_or(Full)?;
        self.written = end;
        Ok(room)
    }

    /// Overwrites bytes that were written before, for lengths that are known only afterwards.
    ///
    /// # Errors
    /// [`Full`] when they were not all written.
    pub fn overwrite(&mut self, position: usize, bytes: &[u8]) -> Result<(), Full> {
        let end = position.checked_add(bytes.len()).filter(|end| *end <= self.written).ok_or(Full)?;
        self.buffer.get_mut(position..end).ok_or(Full)?.copy_from_slice(bytes);
        Ok(())
    }
}

impl Writer for SliceWriter<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.reserve(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
}
