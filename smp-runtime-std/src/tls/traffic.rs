//! A TLS connection after its handshake: what records mean (RFC 8446 4.6, 5, 6).
//!
//! Owns: the keys of both directions, key updates, alerts, and messages of the handshake protocol that arrive late.
//! Inputs: the incoming buffer, at a boundary between records. Outputs: where plaintext is in it, records in the
//! outgoing buffer. It must never accept anything without protection, nor without bound.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets};

use super::buffer::Buffer;
use super::error::{Side, TlsFailure};
use super::record::{ContentType, HEADER, MAX_PLAINTEXT, RecordError, RecordKey, protected_record_length};

/// How many records without data may follow each other: tickets, key updates, warnings, empty ones.
const MAX_WITHOUT_DATA: u8 = 32;

/// The most bytes of an incomplete late handshake message: a ticket of OpenSSL holds the client's whole chain.
const MAX_LATE_HANDSHAKE: usize = 4 + 65_535;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Where the next keys come from: rustls, on either side.
pub(super) trait KeySchedule: Send + Sync {
    fn next_send(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;
    fn next_receive(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;
}

impl KeySchedule for KernelConnection<ServerConnectionData> {
    fn next_send(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_tx_secret()
    }
    fn next_receive(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_rx_secret()
    }
}

impl KeySchedule for KernelConnection<ClientConnectionData> {
    fn next_send(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_tx_secret()
    }
    fn next_receive(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.update_rx_secret()
    }
}

/// What the next record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Plaintext lies right after the header, `length` bytes of it, in a record of `record` bytes.
    Data { length: usize, record: usize },
    /// The peer will send nothing more.
    PeerClosed,
    /// No whole record is there.
    Incomplete,
}

/// A fatal end: what to tell the driver, and what to tell the peer.
pub(super) struct Fatal {
    pub(super) failure: TlsFailure,
    pub(super) alert: Option<AlertDescription>,
}

impl Fatal {
    fn misbehaved(rule: &str) -> Self {
        Self {
            failure: TlsFailure::Misbehaved { rule: rule.into() },
            alert: Some(AlertDescription::UnexpectedMessage),
        }
    }

    fn internal(reason: impl ToString) -> Self {
        Self {
            failure: TlsFailure::Internal { reason: reason.to_string() },
            alert: Some(AlertDescription::InternalError),
        }
    }
}

impl From<RecordError> for Fatal {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Corrupt => {
                Self { failure: TlsFailure::CorruptRecord, alert: Some(AlertDescription::BadRecordMac) }
            }
            RecordError::TooLong => Self {
                failure: TlsFailure::Misbehaved { rule: "a record that is too long".into() },
                alert: Some(AlertDescription::RecordOverflow),
            },
            RecordError::Unexpected(what) => Self::misbehaved(what),
            RecordError::Exhausted => Self::internal("all sequence numbers are used up"),
            RecordError::Cipher => Self::internal("the cipher failed"),
        }
    }
}

/// Both directions of an established connection.
pub(super) struct Traffic {
    us: Side,
    send: RecordKey,
    receive: RecordKey,
    keys: Box<dyn KeySchedule>,
    late_handshake: Vec<u8>,
    without_data: u8,
}

impl Traffic {
    pub(super) fn new(
        us: Side,
        secrets: ExtractedSecrets,
        keys: Box<dyn KeySchedule>,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            us,
            send: RecordKey::new(secrets.tx)?,
            receive: RecordKey::new(secrets.rx)?,
            keys,
            late_handshake: Vec::new(),
            without_data: 0,
        })
    }

    /// One record of application data, of at most [`MAX_PLAINTEXT`] bytes.
    pub(super) fn send_data(&mut self, plaintext: &[u8], outgoing: &mut Buffer) -> Result<(), Fatal> {
        Ok(self.send.seal(ContentType::ApplicationData, plaintext, outgoing)?)
    }

    /// One alert. RFC 8446 6: `close_notify` is a warning (1), the others are fatal (2).
    pub(super) fn send_alert(&mut self, alert: AlertDescription, outgoing: &mut Buffer) -> Result<(), Fatal> {
        let level = if alert == AlertDescription::CloseNotify { 1 } else { 2 };
        Ok(self.send.seal(ContentType::Alert, &[level, u8::from(alert)], outgoing)?)
    }

    /// Decrypts records at the front of `incoming`, and deals with all that carry no data, until there is data or no
    /// whole record left.
    pub(super) fn receive(
        &mut self,
        incoming: &mut Buffer,
        outgoing: &mut Buffer,
    ) -> Result<Received, Fatal> {
        loop {
            let Some(length) = protected_record_length(incoming.filled())? else {
                return Ok(Received::Incomplete);
            };
            let Some(record) = incoming.filled_mut().get_mut(..length) else {
                return Ok(Received::Incomplete);
            };
            let (content, plaintext) = self.receive.open(record)?;
            if plaintext > MAX_PLAINTEXT {
                return Err(RecordError::TooLong.into());
            }
            if content != ContentType::Handshake && !self.late_handshake.is_empty() {
                return Err(Fatal::misbehaved("another record inside a handshake message"));
            }
            if content == ContentType::ApplicationData && plaintext > 0 {
                self.without_data = 0;
                return Ok(Received::Data { length: plaintext, record: length });
            }
            self.without_data += 1;
            if self.without_data > MAX_WITHOUT_DATA {
                return Err(Fatal::misbehaved("too many records without data"));
            }
            let Some(plaintext) = record.get(HEADER..HEADER + plaintext) else {
                return Err(RecordError::Corrupt.into());
            };
            let closed = match content {
                ContentType::ApplicationData => false,
                ContentType::Alert => receive_alert(plaintext)?,
                ContentType::Handshake => {
                    if plaintext.is_empty() {
                        return Err(Fatal::misbehaved("an empty handshake record"));
                    }
                    self.late_handshake.extend_from_slice(plaintext);
                    self.receive_late_handshake(outgoing)?;
                    false
                }
            };
            incoming.consume(length);
            if closed {
                return Ok(Received::PeerClosed);
            }
        }
    }

    fn receive_late_handshake(&mut self, outgoing: &mut Buffer) -> Result<(), Fatal> {
        while let Some([kind, high, middle, low]) = self.late_handshake.first_chunk::<4>() {
            let kind = *kind;
            let length = 4 + (usize::from(*high) << 16) + (usize::from(*middle) << 8) + usize::from(*low);
            if length > MAX_LATE_HANDSHAKE {
                return Err(Fatal::misbehaved("a handshake message that is too long"));
            }
            let Some(content) = self.late_handshake.get(4..length) else {
                break;
            };
            match (kind, content) {
                // Tickets are for resumption, which SMP does not use.
                (NEW_SESSION_TICKET, _) if self.us == Side::Client => {}
                (KEY_UPDATE, [answer @ (0 | 1)]) => {
                    let answer = *answer == 1;
                    if self.late_handshake.len() > length {
                        return Err(Fatal::misbehaved("a handshake message across a change of keys"));
                    }
                    self.receive = RecordKey::new(self.keys.next_receive().map_err(Fatal::internal)?)?;
                    if answer {
                        self.update_send_key(outgoing)?;
                    }
                }
                _ => return Err(Fatal::misbehaved("a handshake message after the handshake")),
            }
            self.late_handshake.drain(..length);
        }
        if self.late_handshake.is_empty() {
            self.late_handshake = Vec::new();
        }
        Ok(())
    }

    /// Says that new keys follow, with the old key, and changes to them.
    fn update_send_key(&mut self, outgoing: &mut Buffer) -> Result<(), Fatal> {
        self.send.seal(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, 0], outgoing)?;
        self.send = RecordKey::new(self.keys.next_send().map_err(Fatal::internal)?)?;
        Ok(())
    }
}

/// Whether the peer closes its direction; a warning is passed over, everything else ends the connection.
fn receive_alert(alert: &[u8]) -> Result<bool, Fatal> {
    let [_level, code] = alert else {
        return Err(Fatal {
            failure: TlsFailure::Misbehaved { rule: "a malformed alert".into() },
            alert: Some(AlertDescription::DecodeError),
        });
    };
    match AlertDescription::from(*code) {
        AlertDescription::CloseNotify => Ok(true),
        AlertDescription::UserCanceled => Ok(false),
        other => Err(Fatal { failure: TlsFailure::alert(other), alert: None }),
    }
}
