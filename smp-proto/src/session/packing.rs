//! What a relay says, encoded straight into the block that leaves: nothing is copied but message bodies, once.

use alloc::collections::VecDeque;

use bytes::BytesMut;

use super::blocks::BlockProtection;
use super::forwarded::{Envelope, ProxyEnvelope};
use super::forwarding::{COMMAND_VERSION, ForwardingKey};
use super::outgoing::{
    BlobAnswer, Delivery, DeliverySecret, NotificationDelivery, Outgoing, OutgoingContent,
};
use super::server::{ServerSession, State};
use super::shared_secrets::SharedSecrets;
use crate::crypto::message_body::{self, NOTIFICATION_SEALED_LENGTH, SEALED_LENGTH};
use crate::crypto::{BoxError, BoxKey, Nonce, Provider, TAG_LENGTH, blob};
use crate::keys::X25519Secret;
use crate::time::Now;
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::command::LinkData;
use crate::wire::error::SmpError;
use crate::wire::hello::{CertificateChain, SignedKey};
use crate::wire::identifier::Identifier;
use crate::wire::primitives::{Full, Reader, SliceWriter, Writer};
use crate::wire::response::Response;
use crate::wire::transmission::{Authorization, BatchWriter, SessionLayout, write_head};
use crate::wire::{CorrelationId, EntityId};

/// Why a transmission was not written.
enum NotWritten {
    /// It does not fit.
    Full,
    /// It could not be boxed.
    Unboxable,
}

impl From<Full> for NotWritten {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

impl From<BoxError> for NotWritten {
    fn from(_: BoxError) -> Self {
        Self::Unboxable
    }
}

impl ServerSession {
    /// Takes as many from the front of `outgoing` as fit one block, and returns that block, ready to be sent; `None`
    /// when there are none, or the session is not established.
    ///
    /// What fits in no block (an answer to a correlation so long that a message does not fit beside it) is replaced by
    /// `ERR INTERNAL`.
    pub fn pack(&mut self, outgoing: &mut VecDeque<Outgoing>, now: Now) -> Option<BytesMut> {
        if outgoing.is_empty() || (self.version().is_none() && !self.is_identifying()) {
            return None;
        }
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let bytes: &mut [u8; BLOCK_LENGTH] = block.as_mut().try_into().ok()?;
        self.pack_into(outgoing, bytes, now).then_some(block)
    }

    /// Like [`pack`](Self::pack), into the caller's block, all of which is overwritten. False when there was nothing.
    pub fn pack_into(
        &mut self,
        outgoing: &mut VecDeque<Outgoing>,
        block: &mut [u8; BLOCK_LENGTH],
        now: Now,
    ) -> bool {
        if self.is_identifying() {
            return self.pack_identification(outgoing, block, now);
        }
        let State::Established(established) = &mut self.state else { return false };
        let provider = self.config.provider;
        let layout =
            SessionLayout { version: established.version, session: self.facts.session_id.as_bytes() };
        let mut boxes = Boxes { provider, secrets: &mut self.deliveries, hello: &self.secret };
        let Some(length) = fill(&established.protection, outgoing, layout, &mut boxes, block) else {
            return false;
        };
        established.protection.seal(provider, block, length);
        self.was_active(now);
        true
    }
}

/// Writes the content of a block, and returns its length; `None` when there is nothing to say.
fn fill(
    protection: &BlockProtection,
    outgoing: &mut VecDeque<Outgoing>,
    layout: SessionLayout<'_>,
    boxes: &mut Boxes<'_>,
    block: &mut [u8; BLOCK_LENGTH],
) -> Option<usize> {
    let mut batch = BatchWriter::new(block.get_mut(protection.content_offset()..)?).ok()?;
    while let Some(next) = outgoing.front() {
        let written = batch.add(|out| match next.forwarded.as_deref() {
            Some(Envelope::Proxy(envelope)) => write_forwarded(next, envelope, layout, boxes, out),
            // Its way is not through a session.
            Some(Envelope::FirstStep(_)) => Err(NotWritten::Unboxable),
            None => write(next, layout, boxes, out),
        });
        match written {
            Ok(()) => {}
            Err(NotWritten::Full) if batch.count() > 0 => break,
            Err(_) => {
                let error = Response::Error(SmpError::Internal);
                let replaced = batch.add(|out| {
                    let (correlation, entity) = match next.forwarded.as_deref() {
                        Some(Envelope::Proxy(envelope)) => (&envelope.proxy_correlation, &EntityId::EMPTY),
                        _ => (&next.correlation, &next.entity),
                    };
                    write_head(Authorization::None, None, layout, correlation, entity, out)?;
                    error.encode(layout.version, out).map_err(NotWritten::from)
                });
                if matches!(replaced, Err(NotWritten::Full)) && batch.count() > 0 {
                    break;
                }
            }
        }
        outgoing.pop_front();
    }
    (batch.count() > 0).then(|| batch.finish())
}

/// `RRES`: the answer to a forwarded command, boxed for the client and then for the proxy, where it stands.
fn write_forwarded(
    outgoing: &Outgoing,
    envelope: &ProxyEnvelope,
    layout: SessionLayout<'_>,
    boxes: &mut Boxes<'_>,
    out: &mut SliceWriter<'_>,
) -> Result<(), NotWritten> {
    write_head(Authorization::None, None, layout, &envelope.proxy_correlation, &EntityId::EMPTY, out)?;
    out.put(b"RRES ")?;
    let sealed = out.reserve(envelope.sealed_length())?;
    let provider = boxes.provider;
    envelope.seal(provider, sealed, |content| {
        let layout = SessionLayout { version: envelope.version, ..layout };
        write_only(outgoing, layout, boxes, content)
    })
}

/// A batch of one answer. Returns its length.
fn write_only(
    outgoing: &Outgoing,
    layout: SessionLayout<'_>,
    boxes: &mut Boxes<'_>,
    content: &mut [u8],
) -> Result<usize, NotWritten> {
    let mut batch = BatchWriter::new(content)?;
    let written = batch.add(|out| write(outgoing, layout, boxes, out));
    if written.is_err() {
        // The client learns more from this than from silence.
        let Outgoing { correlation, entity, .. } = outgoing;
        let error = Response::Error(SmpError::Internal);
        batch.add(|out| {
            write_head(Authorization::None, None, layout, correlation, entity, out)?;
            error.encode(layout.version, out)
        })?;
    }
    Ok(batch.finish())
}

/// The answer to a command that came through a first-step relay, as a batch of one in `content`. Returns its length;
/// `None` when not even an error fits.
pub(super) fn write_answer(
    provider: &'static dyn Provider,
    key: &ForwardingKey,
    outgoing: &Outgoing,
    content: &mut [u8],
) -> Option<usize> {
    let layout = SessionLayout { version: COMMAND_VERSION, session: key.session().as_bytes() };
    // Nothing is delivered this way, so no secret of a recipient is needed.
    let mut secrets = SharedSecrets::new(0);
    let mut boxes = Boxes { provider, secrets: &mut secrets, hello: key.secret() };
    write_only(outgoing, layout, &mut boxes, content).ok()
}

fn write(
    outgoing: &Outgoing,
    layout: SessionLayout<'_>,
    boxes: &mut Boxes<'_>,
    out: &mut SliceWriter<'_>,
) -> Result<(), NotWritten> {
    write_head(Authorization::None, None, layout, &outgoing.correlation, &outgoing.entity, out)?;
    let version = layout.version;
    let response = match &outgoing.content {
        OutgoingContent::Message(delivery) => return boxes.message(delivery, out),
        OutgoingContent::Blob(answer) => return boxes.blob(answer, &outgoing.correlation, out),
        OutgoingContent::Notification(delivery) => return boxes.notification(delivery, out),
        OutgoingContent::Created(created) => return created.write(version, out).map_err(NotWritten::from),
        OutgoingContent::NotifierId(ids) => return ids.write_response(out).map_err(NotWritten::from),
        OutgoingContent::Error(error) => {
            out.put(b"ERR ")?;
            return error.for_version(version).encode(out).map_err(NotWritten::from);
        }
        OutgoingContent::Link(link) => Response::Link {
            sender: link.sender.into(),
            data: LinkData { fixed: &link.fixed, user: &link.user },
        },
        OutgoingContent::ProxySession(session) => {
            let mut chain = Reader::new(&session.chain);
            Response::ProxySession {
                session: session.session.clone(),
                versions: session.versions,
                chain: CertificateChain::read(&mut chain).ok_or(NotWritten::Unboxable)?,
                key: SignedKey(&session.signed_key),
            }
        }
        OutgoingContent::ProxyResponse(sealed) => Response::ProxyResponse(sealed),
        OutgoingContent::Information(json) => Response::Information(json),
        OutgoingContent::Ok => Response::Ok,
        OutgoingContent::Subscribed => Response::Subscribed { service: None },
        OutgoingContent::SubscribedService(id) => Response::Subscribed { service: Some((*id).into()) },
        OutgoingContent::ServiceSubscribed(count) => Response::ServiceSubscribed(*count),
        OutgoingContent::ServiceEnd(count) => Response::ServiceEnd(*count),
        // Said in the handshake, and in nothing else.
        OutgoingContent::ServiceAccepted(_) | OutgoingContent::ServiceRefused => {
            return Err(NotWritten::Unboxable);
        }
        OutgoingContent::Pong => Response::Pong,
        OutgoingContent::End => Response::End,
        OutgoingContent::Deleted => Response::Deleted,
    };
    response.encode(version, out).map_err(NotWritten::from)
}

/// What boxes messages and notifications.
struct Boxes<'s> {
    provider: &'static dyn Provider,
    secrets: &'s mut SharedSecrets,
    /// The relay's key in this connection's hello.
    hello: &'s X25519Secret,
}

impl Boxes<'_> {
    fn key(&mut self, secret: &DeliverySecret) -> BoxKey {
        self.secrets.agree(self.provider, &X25519Secret::from_bytes(secret.relay), &secret.peer)
    }

    /// `MSG`, its body boxed where it stands.
    fn message(&mut self, delivery: &Delivery, out: &mut SliceWriter<'_>) -> Result<(), NotWritten> {
        out.put(b"MSG ")?;
        out.identifier(&Identifier::from(delivery.id))?;
        // First the room, then the work: what does not fit any more costs nothing.
        let sealed: &mut [u8; SEALED_LENGTH] = out.reserve(SEALED_LENGTH)?.try_into().map_err(|_| Full)?;
        let key = self.key(&delivery.secret);
        let nonce = Nonce(delivery.id);
        match &delivery.message {
            Some(message) => message_body::seal_message(
                self.provider,
                &key,
                &nonce,
                delivery.timestamp,
                message.notification,
                &message.body,
                sealed,
            )?,
            None => {
                message_body::seal_quota_exceeded(self.provider, &key, &nonce, delivery.timestamp, sealed);
            }
        }
        Ok(())
    }

    /// `BLOB`, boxed where it stands.
    fn blob(
        &self,
        answer: &BlobAnswer,
        correlation: &CorrelationId,
        out: &mut SliceWriter<'_>,
    ) -> Result<(), NotWritten> {
        out.put(b"BLOB ")?;
        let sealed = out.reserve(TAG_LENGTH + answer.blob.len())?;
        sealed.get_mut(TAG_LENGTH..).ok_or(Full)?.copy_from_slice(&answer.blob);
        blob::seal_answer(self.provider, self.hello, &answer.reader, correlation.as_bytes(), sealed)?;
        Ok(())
    }

    /// `NMSG`, its metadata boxed where it stands.
    fn notification(
        &mut self,
        delivery: &NotificationDelivery,
        out: &mut SliceWriter<'_>,
    ) -> Result<(), NotWritten> {
        out.put(b"NMSG ")?;
        out.put(&delivery.nonce)?;
        out.byte(u8::try_from(NOTIFICATION_SEALED_LENGTH).map_err(|_| Full)?)?;
        let sealed: &mut [u8; NOTIFICATION_SEALED_LENGTH] =
            out.reserve(NOTIFICATION_SEALED_LENGTH)?.try_into().map_err(|_| Full)?;
        let key = self.key(&delivery.secret);
        message_body::seal_notification(
            self.provider,
            &key,
            &Nonce(delivery.nonce),
            &delivery.message,
            delivery.timestamp,
            sealed,
        )?;
        Ok(())
    }
}
