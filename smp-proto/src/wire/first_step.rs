//! `smp-proxy/1`: what clients, first-step relays and destination relays say to each other (EXTENSIONS, First-step relay;
//! seeds, first-step-relays).
//!
//! One transmission a block, and blocks are encrypted as those of SMP: all have one size, and nobody outside sees which is
//! which. A transmission is `correlation (8 bytes) ‖ relay (4 bytes) ‖ tag (1 byte) ‖ parameters`. The same six tags go
//! over both connections of a first-step relay; what is different is said with each.
//!
//! **Overhead.** Around the padded command of a forward there are [`FORWARD_OVERHEAD`] = 74 bytes, the budget of the
//! first-step-relays document: correlation 8, relay 4, tag 1, options 1, acknowledged 8, delay 2, key 32, and in the sealed
//! part 2 of length and 16 of authentication.

use alloc::vec::Vec;
use core::fmt;

use super::address::ServerAddress;
use super::primitives::{Full, Reader, Writer};
use crate::keys::X25519Public;

/// The name by which TLS negotiates this protocol.
pub const ALPN: &[u8] = b"smp-proxy/1";

/// The only version there is, in the hellos of such connections.
pub const VERSION: u16 = 1;

/// What a command or its answer is padded to, as in the deployed proxy protocol: 16,226 bytes.
pub const PADDED_LENGTH: usize = 16_226;
/// A padded command or answer, sealed: 16,242 bytes.
pub const SEALED_LENGTH: usize = PADDED_LENGTH + 16;

/// Bytes of a forward beside the command in it: 74.
pub const FORWARD_OVERHEAD: usize = HEAD_LENGTH + FORWARD_PARAMETERS + SEALED_LENGTH - PADDED_LENGTH + 2;

/// Correlation, relay and tag: 13 bytes.
pub const HEAD_LENGTH: usize = 8 + 4 + 1;
/// Options, acknowledged, delay and key: 43 bytes.
const FORWARD_PARAMETERS: usize = 1 + 8 + 2 + 32;

/// A client's number for what it asks: 1 and upwards, larger each time, across connections. 0 names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Correlation(pub u64);

/// On the way to a first-step relay: its number for a destination, within what a client has registered. On the way to a
/// destination: which of its forwarding keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayNumber(pub u32);

/// One transmission. What is opaque is borrowed from the block.
#[derive(Clone, PartialEq, Eq)]
pub struct Transmission<'a> {
    /// Which question this is, or is about.
    pub correlation: Correlation,
    /// Which destination, or which key.
    pub relay: RelayNumber,
    /// What is said.
    pub message: Message<'a>,
}

/// What is said.
#[derive(Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// `S`: a client registers a destination, or a first-step relay asks a destination for its keys.
    Register(Register<'a>),
    /// `I`: the destination's number, and its forwarding keys.
    Registered(Registered<'a>),
    /// `F`: a command for the destination.
    Forward(Forward<'a>),
    /// `R`: the destination's answer: [`SEALED_LENGTH`] bytes, sealed for the client.
    Response(&'a [u8]),
    /// `C`: what became of a forward? The answer is `R` or `E`.
    Check {
        /// Answers up to this one have arrived, and can be forgotten.
        acknowledged: Correlation,
    },
    /// `E`: there is no answer of the destination, or not yet.
    Error(FirstStepError),
}

/// The parameters of `S`.
#[derive(Clone, PartialEq, Eq)]
pub struct Register<'a> {
    /// A client's secret: whoever shows it again finds what is held for it. A fresh one for each destination keeps them
    /// apart. Zeros between relays.
    pub token: [u8; 32],
    /// The destination; `None` between relays: the one that is asked.
    pub address: Option<ServerAddress>,
    /// The first-step relay's password.
    pub password: Option<&'a [u8]>,
}

/// The parameters of `I`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered<'a> {
    /// Until when the number can be used, in seconds since 1970; then the destination is registered again.
    pub until: i64,
    /// The destination's forwarding key, signed by it.
    pub key: PublishedKey<'a>,
}

/// A forwarding key as its relay publishes it: nothing of it is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey<'a> {
    /// Its number.
    pub number: RelayNumber,
    /// Until when commands under it are taken, in seconds since 1970.
    pub until: i64,
    /// The key.
    pub key: X25519Public,
    /// The destination's certificates, the leaf first.
    pub chain: Vec<&'a [u8]>,
    /// The leaf's signature.
    pub signature: &'a [u8],
}

/// The parameters of `F`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Forward<'a> {
    /// What the first-step relay may do for it.
    pub options: ForwardOptions,
    /// Answers up to this one have arrived, and can be forgotten. 0 between relays.
    pub acknowledged: Correlation,
    /// How many minutes to hold it before it is sent: up to 45 days. 0 between relays.
    pub delay: u16,
    /// The client's key, for this command alone.
    pub key: X25519Public,
    /// The command: [`SEALED_LENGTH`] bytes, sealed for the destination.
    pub sealed: &'a [u8],
}

/// What a first-step relay may do for a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardOptions {
    /// Try again while the destination says that the queue takes no such command: it may not be secured yet. This tells
    /// the first-step relay that there is such a queue on that destination.
    pub while_unsecured: bool,
    /// Try again while the queue is full. This tells the first-step relay that there is such a queue on that destination.
    pub while_full: bool,
    /// For how long.
    pub hold: Hold,
}

/// How long a first-step relay holds what it cannot deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Not at all: there is an answer at once, or an error.
    #[default]
    Never,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// Three weeks.
    Weeks,
}

impl Hold {
    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Never => 0,
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::Weeks => 21 * 86_400,
        }
    }
}

impl ForwardOptions {
    /// One byte: unsecured 1, full 2, hold 4 and 8.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        let hold = match self.hold {
            Hold::Never => 0,
            Hold::Hour => 4,
            Hold::Day => 8,
            Hold::Weeks => 12,
        };
        hold | self.while_unsecured as u8 | (self.while_full as u8) << 1
    }

    /// Reads that byte; the other bits must be zero.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        let hold = match byte & 12 {
            0 => Hold::Never,
            4 => Hold::Hour,
            8 => Hold::Day,
            _ => Hold::Weeks,
        };
        if byte >= 16 {
            return None;
        }
        Some(Self { while_unsecured: byte & 1 != 0, while_full: byte & 2 != 0, hold })
    }
}

/// Why there is no answer of the destination, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirstStepError {
    /// Not an error: the command is held, and is tried again.
    Held {
        /// How often it was tried.
        attempts: u16,
        /// When it is tried next, in seconds since 1970.
        next: i64,
    },
    /// It was held as long as allowed. `last` is why it could not be delivered: a code of this list.
    Expired {
        /// Why the last attempt failed.
        last: RelayFailure,
    },
    /// The destination cannot be reached, or is not who it should be.
    Relay(RelayFailure),
    /// The transmission cannot be read, or does not belong here.
    Syntax,
    /// The first-step relay asks for a password.
    Password,
    /// Destinations like this one are refused: a private network, say.
    Address,
    /// There is no such registration, or it is over: register again.
    NoRelay,
    /// There is no such question, or its answer was acknowledged.
    Unknown,
    /// The forwarding key is not, or no longer, the destination's: seal for a newer one.
    NoKey,
    /// The command cannot be opened.
    Crypto,
    /// The command came before. It was executed then; its answer is not kept.
    Repeated,
    /// As many are held for this client or this destination as are allowed.
    Quota,
    /// Between relays only: the queue does not take it now, and the client has allowed to try again.
    NotYet,
    /// Something is wrong inside the relay.
    Internal,
}

/// How a first-step relay failed at a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelayFailure {
    /// There is no connection.
    #[default]
    Network,
    /// There is no answer.
    Timeout,
    /// It is somebody else: its certificates are not those of the address.
    Identity,
    /// It does not know this protocol: a stock relay.
    NotSpoken,
    /// It answered that the queue does not take it now.
    NotYet,
    /// It answered with an error.
    Refused,
    /// No host of its address may be connected to: a private network, say.
    Address,
}

impl RelayFailure {
    const ALL: [Self; 7] = [
        Self::Network,
        Self::Timeout,
        Self::Identity,
        Self::NotSpoken,
        Self::NotYet,
        Self::Refused,
        Self::Address,
    ];

    /// One byte.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Network => 0,
            Self::Timeout => 1,
            Self::Identity => 2,
            Self::NotSpoken => 3,
            Self::NotYet => 4,
            Self::Refused => 5,
            Self::Address => 6,
        }
    }

    /// Reads that byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

impl fmt::Display for RelayFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Network => "the destination relay cannot be reached",
            Self::Timeout => "the destination relay does not answer",
            Self::Identity => "at the destination's address there is another relay",
            Self::NotSpoken => "the destination relay cannot take commands that were held",
            Self::NotYet => "the queue does not take it yet",
            Self::Refused => "the destination relay refused it",
            Self::Address => "the first-step relay may not connect to the destination's address",
        })
    }
}

impl fmt::Display for FirstStepError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Held { attempts, .. } => {
                return write!(formatter, "held by the first-step relay after {attempts} attempts");
            }
            Self::Expired { last } => {
                return write!(formatter, "given up by the first-step relay: {last}");
            }
            Self::Relay(failure) => return failure.fmt(formatter),
            Self::Syntax => "the first-step relay did not understand",
            Self::Password => "the first-step relay asks for a password",
            Self::Address => "the first-step relay refuses this destination",
            Self::NoRelay => "the destination must be registered again",
            Self::Unknown => "the first-step relay does not know of it",
            Self::NoKey => "the destination's key has changed",
            Self::Crypto => "the destination relay could not open it",
            Self::Repeated => "it was executed before, and its answer is lost",
            Self::Quota => "the first-step relay holds as much as it allows",
            Self::NotYet => "the queue does not take it yet",
            Self::Internal => "something is wrong in the first-step relay",
        })
    }
}

impl core::error::Error for FirstStepError {}

impl<'a> Transmission<'a> {
    /// Reads the content of a block; `None` when it is anything else.
    #[must_use]
    pub fn decode(content: &'a [u8]) -> Option<Self> {
        let mut read = Reader::new(content);
        let correlation = Correlation(u64::from_be_bytes(*read.array()?));
        let relay = RelayNumber(u32::from_be_bytes(*read.array()?));
        let message = match read.byte()? {
            b'S' => Message::Register(Register::read(&mut read)?),
            b'I' => Message::Registered(Registered::read(&mut read)?),
            b'F' => Message::Forward(Forward::read(&mut read)?),
            b'R' => Message::Response(read.bytes(SEALED_LENGTH)?),
            b'C' => Message::Check { acknowledged: Correlation(u64::from_be_bytes(*read.array()?)) },
            b'E' => Message::Error(FirstStepError::read(&mut read)?),
            _ => return None,
        };
        read.end()?;
        Some(Self { correlation, relay, message })
    }

    /// Writes the content of a block.
    ///
    /// # Errors
    /// [`Full`] when it does not fit, or an opaque part does not have its length.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.put(&self.correlation.0.to_be_bytes())?;
        out.put(&self.relay.0.to_be_bytes())?;
        match &self.message {
            Message::Register(register) => {
                out.byte(b'S')?;
                register.write(out)
            }
            Message::Registered(registered) => {
                out.byte(b'I')?;
                registered.write(out)
            }
            Message::Forward(forward) => {
                out.byte(b'F')?;
                forward.write(out)
            }
            Message::Response(sealed) => {
                out.byte(b'R')?;
                write_sealed(sealed, out)
            }
            Message::Check { acknowledged } => {
                out.byte(b'C')?;
                out.put(&acknowledged.0.to_be_bytes())
            }
            Message::Error(error) => {
                out.byte(b'E')?;
                error.write(out)
            }
        }
    }
}

/// Writes `R` up to what is sealed: whoever seals an answer where it stands writes [`SEALED_LENGTH`] bytes after it.
///
/// # Errors
/// [`Full`] when it does not fit.
pub fn write_response_head(
    correlation: Correlation,
    relay: RelayNumber,
    out: &mut impl Writer,
) -> Result<(), Full> {
    out.put(&correlation.0.to_be_bytes())?;
    out.put(&relay.0.to_be_bytes())?;
    out.byte(b'R')
}

fn write_sealed(sealed: &[u8], out: &mut impl Writer) -> Result<(), Full> {
    if sealed.len() != SEALED_LENGTH {
        return Err(Full);
    }
    out.put(sealed)
}

impl<'a> Register<'a> {
    fn read(read: &mut Reader<'a>) -> Option<Self> {
        let token = *read.array()?;
        let address = read.maybe(ServerAddress::read)?;
        let password = read.maybe(Reader::short)?;
        Some(Self { token, address, password })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.put(&self.token)?;
        out.maybe(self.address.as_ref(), |out, address| address.write(out))?;
        out.maybe(self.password.as_ref(), |out, password| out.short(password))
    }
}

impl<'a> Registered<'a> {
    fn read(read: &mut Reader<'a>) -> Option<Self> {
        Some(Self { until: read.i64()?, key: PublishedKey::read(read)? })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.i64(self.until)?;
        self.key.write(out)
    }
}

impl<'a> PublishedKey<'a> {
    /// Reads a key that was published.
    pub fn read(read: &mut Reader<'a>) -> Option<Self> {
        let number = RelayNumber(u32::from_be_bytes(*read.array()?));
        let until = read.i64()?;
        let key = X25519Public(*read.array()?);
        let count = read.byte()?;
        let mut chain = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            chain.push(read.large()?);
        }
        Some(Self { number, until, key, chain, signature: read.short()? })
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.put(&self.number.0.to_be_bytes())?;
        out.i64(self.until)?;
        out.put(&self.key.0)?;
        out.byte(u8::try_from(self.chain.len()).map_err(|_| Full)?)?;
        self.chain.iter().try_for_each(|certificate| out.large(certificate))?;
        out.short(self.signature)
    }
}

impl<'a> Forward<'a> {
    fn read(read: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            options: ForwardOptions::from_byte(read.byte()?)?,
            acknowledged: Correlation(u64::from_be_bytes(*read.array()?)),
            delay: read.u16()?,
            key: X25519Public(*read.array()?),
            sealed: read.bytes(SEALED_LENGTH)?,
        })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.byte(self.options.to_byte())?;
        out.put(&self.acknowledged.0.to_be_bytes())?;
        out.u16(self.delay)?;
        out.put(&self.key.0)?;
        write_sealed(self.sealed, out)
    }
}

impl FirstStepError {
    /// Reads it: 1 to 11 bytes.
    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(match read.byte()? {
            b'H' => Self::Held { attempts: read.u16()?, next: read.i64()? },
            b'X' => Self::Expired { last: RelayFailure::from_byte(read.byte()?)? },
            b'D' => Self::Relay(RelayFailure::from_byte(read.byte()?)?),
            b'S' => Self::Syntax,
            b'P' => Self::Password,
            b'A' => Self::Address,
            b'N' => Self::NoRelay,
            b'U' => Self::Unknown,
            b'K' => Self::NoKey,
            b'C' => Self::Crypto,
            b'R' => Self::Repeated,
            b'Q' => Self::Quota,
            b'Y' => Self::NotYet,
            b'I' => Self::Internal,
            _ => return None,
        })
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Held { attempts, next } => {
                out.byte(b'H')?;
                out.u16(attempts)?;
                out.i64(next)
            }
            Self::Expired { last } => out.put(&[b'X', last.to_byte()]),
            Self::Relay(failure) => out.put(&[b'D', failure.to_byte()]),
            Self::Syntax => out.byte(b'S'),
            Self::Password => out.byte(b'P'),
            Self::Address => out.byte(b'A'),
            Self::NoRelay => out.byte(b'N'),
            Self::Unknown => out.byte(b'U'),
            Self::NoKey => out.byte(b'K'),
            Self::Crypto => out.byte(b'C'),
            Self::Repeated => out.byte(b'R'),
            Self::Quota => out.byte(b'Q'),
            Self::NotYet => out.byte(b'Y'),
            Self::Internal => out.byte(b'I'),
        }
    }
}

/// Tokens, passwords and commands are never printed.
impl fmt::Debug for Transmission<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.message {
            Message::Register(_) => "S",
            Message::Registered(_) => "I",
            Message::Forward(_) => "F",
            Message::Response(_) => "R",
            Message::Check { .. } => "C",
            Message::Error(error) => return write!(formatter, "Transmission({error:?})"),
        };
        write!(formatter, "Transmission({name})")
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Message(..)")
    }
}

impl fmt::Debug for Register<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Register(..)")
    }
}

impl fmt::Debug for Forward<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Forward({:?}, {} minutes)", self.options, self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::chain_keys::MAX_ENCRYPTED_CONTENT;

    fn round_trip(message: Message<'_>) -> usize {
        let transmission =
            Transmission { correlation: Correlation(0x0102_0304_0506_0708), relay: RelayNumber(9), message };
        let mut bytes = Vec::new();
        transmission.encode(&mut bytes).unwrap();
        assert_eq!(Transmission::decode(&bytes), Some(transmission));
        for shorter in 0..bytes.len().min(200) {
            assert_eq!(Transmission::decode(&bytes[..shorter]), None, "cut to {shorter}");
        }
        bytes.push(0);
        assert_eq!(Transmission::decode(&bytes), None, "trailing byte");
        bytes.len() - 1
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        let sealed = [7; SEALED_LENGTH];
        let address = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@example.org,abc.onion:5224";
        let address: ServerAddress = address.parse().unwrap();
        for (address, password) in [(Some(address), Some(&b"secret"[..])), (None, None)] {
            round_trip(Message::Register(Register { token: [1; 32], address, password }));
        }
        let key = PublishedKey {
            number: RelayNumber(3),
            until: 5,
            key: X25519Public([4; 32]),
            chain: alloc::vec![&[1; 300], &[2; 400]],
            signature: &[5; 114],
        };
        round_trip(Message::Registered(Registered { until: -1, key }));
        round_trip(Message::Response(&sealed));
        let mut response = Vec::new();
        write_response_head(Correlation(1), RelayNumber(2), &mut response).unwrap();
        response.extend_from_slice(&sealed);
        let message = Message::Response(&sealed);
        let expected = Transmission { correlation: Correlation(1), relay: RelayNumber(2), message };
        assert_eq!(Transmission::decode(&response), Some(expected));
        round_trip(Message::Check { acknowledged: Correlation(u64::MAX) });
        let failures = RelayFailure::ALL;
        let mut errors: Vec<_> = failures.into_iter().map(FirstStepError::Relay).collect();
        errors.extend(failures.into_iter().map(|last| FirstStepError::Expired { last }));
        errors.push(FirstStepError::Held { attempts: 2, next: 3 });
        use FirstStepError as E;
        errors.extend([E::Syntax, E::Password, E::Address, E::NoRelay, E::Unknown, E::NoKey, E::Crypto]);
        errors.extend([E::Repeated, E::Quota, E::NotYet, E::Internal]);
        for error in errors {
            round_trip(Message::Error(error));
        }
        for failure in failures {
            assert_eq!(RelayFailure::from_byte(failure.to_byte()), Some(failure));
        }
        for byte in 0..16 {
            let options = ForwardOptions::from_byte(byte).unwrap();
            assert_eq!(options.to_byte(), byte);
            let key = X25519Public([3; 32]);
            let forward = Forward { options, acknowledged: Correlation(4), delay: 5, key, sealed: &sealed };
            let length = round_trip(Message::Forward(forward));
            assert_eq!(length + 2 - PADDED_LENGTH, FORWARD_OVERHEAD, "less the command, more its length");
            assert!(length <= MAX_ENCRYPTED_CONTENT);
        }
        assert_eq!(ForwardOptions::from_byte(16), None);
    }

    #[test]
    fn the_overhead_is_the_documents_budget() {
        assert_eq!(FORWARD_OVERHEAD, 74);
    }

    #[test]
    fn opaque_parts_have_their_length() {
        for length in [0, SEALED_LENGTH - 1, SEALED_LENGTH + 1] {
            let sealed = alloc::vec![0; length];
            let message = Message::Response(&sealed);
            let wrong = Transmission { correlation: Correlation(1), relay: RelayNumber(1), message };
            assert_eq!(wrong.encode(&mut Vec::new()), Err(Full));
        }
    }
}
