//! Transmissions and batches: what is inside a block (WIRE-FACTS 4.7, 4.8).

use super::block::BATCH_LENGTH;
use super::command::Command;
use super::error::SmpError;
use super::identifier::{CorrelationId, EntityId};
use super::primitives::{Full, Reader, SliceWriter, Writer};
use super::response::Response;
use super::version::Version;

/// The raw authorization of a client's transmission. Its length tells its kind; it is not verified here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authorization<'a> {
    /// No authorization.
    None,
    /// 80 bytes: an X25519 authenticator.
    Authenticator(&'a [u8; 80]),
    /// 64 bytes: an Ed25519 signature.
    Ed25519(&'a [u8; 64]),
    /// 114 bytes: an Ed448 signature.
    Ed448(&'a [u8; 114]),
}

impl core::fmt::Debug for Authorization<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Authenticator(_) => "Authenticator(..)",
            Self::Ed25519(_) => "Ed25519(..)",
            Self::Ed448(_) => "Ed448(..)",
        })
    }
}

/// One transmission of a client, parsed but not verified.
///
/// `T` is what was parsed out of it: a command for a relay, a response for a client.
#[derive(Clone, Debug)]
pub struct Transmission<'a, T> {
    /// Who says so.
    pub authorization: Authorization<'a>,
    /// v16: the service's Ed25519 signature over `entity ‖ command` with the session.
    pub service_signature: Option<&'a [u8; 64]>,
    /// Ties the response to the command.
    pub correlation: CorrelationId,
    /// What the command is about.
    pub entity: EntityId,
    /// The bytes from the correlation id's length byte to the end: with the session id in front they are what is
    /// signed (`authorized` of WIRE-FACTS 4.8).
    pub signed_tail: &'a [u8],
    /// The command or response.
    pub content: T,
}

/// The transmissions of one block, counted and cut, but not read yet.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    count: u8,
    rest: Reader<'a>,
}

impl<'a> Batch<'a> {
    /// Cuts the content of a block. `None` when count and lengths do not add up to exactly the content: a relay answers
    /// one `ERR BLOCK` with empty correlation and entity.
    #[must_use]
    pub fn parse(content: &'a [u8]) -> Option<Self> {
        let mut read = Reader::new(content);
        let count = read.byte().filter(|count| *count > 0)?;
        let batch = Self { count, rest: read.clone() };
        for _ in 0..count {
            read.large()?;
        }
        read.end()?;
        Some(batch)
    }

    /// How many transmissions are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none are left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.count = self.count.checked_sub(1)?;
        self.rest.large()
    }
}

/// What a transmission must agree with: the session that it came in.
#[derive(Clone, Copy, Debug)]
pub struct SessionLayout<'s> {
    /// The version of the session.
    pub version: Version,
    /// The session id, which transmissions carry below v7.
    pub session: &'s [u8],
}

/// A transmission that is not a command, and what a relay answers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The correlation to answer with; empty when none could be read.
    pub correlation: CorrelationId,
    /// The entity to answer with; empty when none could be read.
    pub entity: EntityId,
    /// The error.
    pub error: SmpError,
}

impl Malformed {
    /// What cannot be read at all.
    pub const UNREADABLE: Self =
        Self { correlation: CorrelationId::EMPTY, entity: EntityId::EMPTY, error: SmpError::Block };
}

/// The parts of a transmission, before its command or response is read.
struct Parts<'a> {
    authorization: &'a [u8],
    service_signature: Option<&'a [u8; 64]>,
    session: Option<&'a [u8]>,
    correlation: CorrelationId,
    entity: EntityId,
    signed_tail: &'a [u8],
    content: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8], version: Version) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let authorization = read.short()?;
        let service_signature = if version >= Version::SERVICES && !authorization.is_empty() {
            read.maybe(|read| read.short()?.try_into().ok())?
        } else {
            None
        };
        let session = if version < Version::IMPLIED_SESSION { Some(read.short()?) } else { None };
        let signed_tail = read.rest();
        let correlation = read.identifier()?;
        let entity = read.identifier()?;
        Some(Self {
            authorization,
            service_signature,
            session,
            correlation,
            entity,
            signed_tail,
            content: read.tail(),
        })
    }
}

impl<'a> Authorization<'a> {
    /// Tells by its length what kind of authorization this is; `None` for a length that none has.
    #[must_use]
    pub fn of_length(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::None);
        }
        if let Ok(signature) = bytes.try_into() {
            return Some(Self::Ed25519(signature));
        }
        if let Ok(authenticator) = bytes.try_into() {
            return Some(Self::Authenticator(authenticator));
        }
        bytes.try_into().ok().map(Self::Ed448)
    }

    /// The bytes; empty for no authorization.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::None => &[],
            Self::Authenticator(bytes) => *bytes,
            Self::Ed25519(bytes) => *bytes,
            Self::Ed448(bytes) => *bytes,
        }
    }
}

impl<'a> Transmission<'a, Command<'a>> {
    /// Reads a client's transmission, and checks that it has the credentials that its command needs (WIRE-FACTS 4.7,
    /// 4.8, 18: the order of errors).
    ///
    /// # Errors
    /// What a relay answers.
    pub fn decode_command(bytes: &'a [u8], layout: SessionLayout<'_>) -> Result<Self, Malformed> {
        let Some(parts) = Parts::read(bytes, layout.version) else { return Err(Malformed::UNREADABLE) };
        let Parts { correlation, entity, .. } = parts;
        if parts.session.is_some_and(|session| session != layout.session) {
            return Err(Malformed { correlation, entity: EntityId::EMPTY, error: SmpError::Session });
        }
        let Some(authorization) = Authorization::of_length(parts.authorization) else {
            return Err(Malformed { correlation, entity: EntityId::EMPTY, error: SmpError::Block });
        };
        let authorized = !matches!(authorization, Authorization::None);
        let command = Command::decode(parts.content, layout.version)
            .and_then(|command| command.check_credentials(authorized, &entity).map(|()| command));
        match command {
            Ok(content) => Ok(Self {
                authorization,
                service_signature: parts.service_signature,
                correlation,
                entity,
                signed_tail: parts.signed_tail,
                content,
            }),
            Err(error) => Err(Malformed { correlation, entity, error: error.into() }),
        }
    }
}

impl<'a> Transmission<'a, Response<'a>> {
    /// Reads a relay's transmission. Its authorization is always empty.
    ///
    /// # Errors
    /// What is wrong with it; a client cannot answer it.
    pub fn decode_response(bytes: &'a [u8], layout: SessionLayout<'_>) -> Result<Self, Malformed> {
        let Some(parts) = Parts::read(bytes, layout.version) else { return Err(Malformed::UNREADABLE) };
        let Parts { correlation, entity, .. } = parts;
        if parts.session.is_some_and(|session| session != layout.session) {
            return Err(Malformed { correlation, entity: EntityId::EMPTY, error: SmpError::Session });
        }
        if !parts.authorization.is_empty() {
            return Err(Malformed { correlation, entity, error: SmpError::Block });
        }
        match Response::decode(parts.content, layout.version) {
            Ok(content) => Ok(Self {
                authorization: Authorization::None,
                service_signature: None,
                correlation,
                entity,
                signed_tail: parts.signed_tail,
                content,
            }),
            Err(error) => Err(Malformed { correlation, entity, error: error.into() }),
        }
    }
}

/// Writes what is before the command or response in a transmission.
///
/// # Errors
/// [`Full`] when it does not fit.
pub fn write_head(
    authorization: Authorization<'_>,
    service_signature: Option<&[u8; 64]>,
    layout: SessionLayout<'_>,
    correlation: &CorrelationId,
    entity: &EntityId,
    out: &mut impl Writer,
) -> Result<(), Full> {
    out.short(authorization.as_bytes())?;
    if layout.version >= Version::SERVICES && !matches!(authorization, Authorization::None) {
        out.maybe(service_signature, |out, signature| out.short(signature.as_slice()))?;
    }
    if layout.version < Version::IMPLIED_SESSION {
        out.short(layout.session)?;
    }
    out.identifier(correlation)?;
    out.identifier(entity)
}

/// Fills the content of a block with transmissions, as many as fit: at most 255, and [`BATCH_LENGTH`] bytes.
#[derive(Debug)]
pub struct BatchWriter<'a> {
    out: SliceWriter<'a>,
    count: u8,
}

impl<'a> BatchWriter<'a> {
    /// A writer into the content of a block: at most 16,366 bytes of `content` are used.
    ///
    /// # Errors
    /// [`Full`] when there is not even room for the count.
    pub fn new(content: &'a mut [u8]) -> Result<Self, Full> {
        let length = content.len().min(1 + BATCH_LENGTH);
        let mut out = SliceWriter::new(content.get_mut(..length).ok_or(Full)?);
        out.byte(0)?;
        Ok(Self { out, count: 0 })
    }

    /// Adds one transmission, which `write` writes; it may make parts of it in place with
    /// [`SliceWriter::reserve`].
    ///
    /// # Errors
    /// What `write` fails with, or that the transmission does not fit; the batch is then as it was before. A
    /// transmission that does not fit in an empty batch fits in none.
    pub fn add<E: From<Full>>(
        &mut self,
        write: impl FnOnce(&mut SliceWriter<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let count = self.count.checked_add(1).ok_or(Full)?;
        let start = self.out.written();
        let added = self.out.u16(0).map_err(E::from).and_then(|()| {
            write(&mut self.out)?;
            // A writer that takes back more than its own has nothing to add.
            let length = self.out.written().checked_sub(start + 2).and_then(|length| length.try_into().ok());
            let length: u16 = length.ok_or(Full)?;
            self.out.overwrite(start, &length.to_be_bytes())?;
            self.out.overwrite(0, &[count])?;
            Ok(())
        });
        match added {
            Ok(()) => self.count = count,
            Err(_) => self.out.truncate(start),
        }
        added
    }

    /// How many transmissions there are.
    #[must_use]
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// How long the content is: what goes into the block.
    #[must_use]
    pub const fn finish(self) -> usize {
        self.out.written()
    }
}
