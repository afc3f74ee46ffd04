//! Commands that come through a proxy: the destination relay's part (WIRE-FACTS 10, steps 5 and 6).
//!
//! A proxy hands over one encrypted command at a time in `RFWD`. The session opens both boxes around it
//! ([`ServerSession::verify`] does, and says so in [`Verified::into_forwarded`]); what comes out is an ordinary request of
//! its own version, which goes the ordinary way: looked up, [verified](ServerSession::verify_forwarded), executed. Its
//! answer is boxed for the client, and that box for the proxy, when it is packed into `RRES`.
//!
//! The client's key and its connection stay unknown: commands are verified with the session between proxy and relay, and
//! only those are allowed that need no connection of their own: `SEND`, `SKEY`, `LKEY`, `LGET`, and `READ`.

use alloc::boxed::Box;
use alloc::sync::Arc;

use bytes::BytesMut;

use super::blocks::OpenedBlock;
use super::forwarding::FirstStepEnvelope;
use super::request::{Authority, Request, Verified};
use super::server::ServerSession;
use crate::crypto::{BoxKey, proxy_layers};
use crate::crypto::{Nonce, Provider, TAG_LENGTH, nacl_box, padding};
use crate::keys::X25519Public;
use crate::wire::CorrelationId;
use crate::wire::error::{BrokerError, CommandError, ProxyError, SmpError, TransportError};
use crate::wire::identifier::Identifier;
use crate::wire::transmission::{Batch, Malformed, SessionLayout, Transmission};
use crate::wire::version::Version;

/// How the answer to a forwarded command is boxed, and to whom it goes. Its keys are wiped on drop.
#[derive(Debug)]
pub enum Envelope {
    /// It came through a deployed proxy, over whose connection the answer goes back in an `RRES`.
    Proxy(ProxyEnvelope),
    /// It came through a first-step relay; the answer is the [`forwarding`](crate::forwarding) room's.
    FirstStep(FirstStepEnvelope),
}

/// The envelope of a command that came through a deployed proxy.
pub struct ProxyEnvelope {
    /// The proxy's correlation, of the `RFWD`.
    pub(super) proxy_correlation: CorrelationId,
    /// The client's correlation, as the proxy gave it: the nonce of the inner box.
    pub(super) correlation: CorrelationId,
    /// The version of the command, and of its answer.
    pub(super) version: Version,
    outer: BoxKey,
    inner: BoxKey,
}

impl core::fmt::Debug for ProxyEnvelope {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "ProxyEnvelope(version {})", self.version.0)
    }
}

/// A command that came in an `RFWD`, decrypted and not read yet.
#[derive(Debug)]
pub struct Forwarded {
    content: OpenedBlock,
    version: Version,
    envelope: Arc<Envelope>,
}

impl Forwarded {
    /// What the command borrows from: to be given to [`Broker::execute`](crate::broker::Broker::execute) with it.
    #[must_use]
    pub const fn block(&self) -> &OpenedBlock {
        &self.content
    }

    /// The version at which it is processed.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    pub(super) fn envelope(&self) -> Arc<Envelope> {
        Arc::clone(&self.envelope)
    }
}

impl ServerSession {
    /// Opens what a proxy has forwarded.
    ///
    /// # Errors
    /// What the proxy is answered: `CRYPTO` when a box cannot be opened, `CMD SYNTAX` when the outer one does not hold what it
    /// should, `BLOCK` when the inner one does not hold exactly one transmission, and that a key is missing when the
    /// proxy gave none in its hello.
    pub(super) fn open_forwarded(
        &self,
        correlation: &CorrelationId,
        sealed: &[u8],
    ) -> Result<Box<Forwarded>, SmpError> {
        let provider = self.config.provider;
        let secret = self.hello_secret().ok_or(SmpError::Proxy(ProxyError::Broker(
            BrokerError::Transport(TransportError::NoAuthorization),
        )))?;
        let outer = secret.box_key();
        let mut buffer = BytesMut::from(sealed);
        let text =
            proxy_layers::open_forwarded_command(provider, &outer, correlation.as_bytes(), &mut buffer)
                .map_err(|_| SmpError::Crypto)?;
        let (client_correlation, version, client_key, length) = read_outer(text)?;
        // Of later versions than ours only the number is known here: what they changed, their clients do without.
        let version = version.min(self.config.versions.max());
        if version < self.config.versions.min() {
            return Err(CommandError::Syntax.into());
        }
        let inner = BoxKey::agree(provider, &self.secret, &client_key);
        let start = buffer.len().saturating_sub(length);
        let sealed = buffer.get_mut(start..).unwrap_or_default();
        let text = proxy_layers::open_command(provider, &inner, client_correlation.as_bytes(), sealed)
            .map_err(|_| SmpError::Crypto)?;
        if Batch::parse(text).is_none_or(|batch| batch.len() != 1) {
            return Err(SmpError::Block);
        }
        let content_length = text.len();
        let content_start = start + TAG_LENGTH + padding::LENGTH_BYTES;
        let content = OpenedBlock::part_of(buffer.freeze(), content_start, content_length);
        let envelope = ProxyEnvelope {
            proxy_correlation: correlation.clone(),
            correlation: client_correlation,
            version,
            outer,
            inner,
        };
        Ok(Box::new(Forwarded { content, version, envelope: Arc::new(Envelope::Proxy(envelope)) }))
    }

    /// The command in what was forwarded, to be looked up and then [verified](Self::verify_forwarded). What may not come
    /// through a proxy is an error already: it is not even looked up.
    #[must_use]
    pub fn forwarded_request<'f>(&self, forwarded: &'f Forwarded) -> Request<'f> {
        let layout =
            SessionLayout { version: forwarded.version(), session: self.facts.session_id.as_bytes() };
        request_in(&forwarded.content, layout)
    }
}

/// The command in what was forwarded. What may not be forwarded is an error already.
pub(super) fn request_in<'f>(content: &'f OpenedBlock, layout: SessionLayout<'_>) -> Request<'f> {
    let bytes = Batch::parse(content.content()).and_then(|mut batch| batch.next());
    let decoded =
        bytes.map_or(Err(Malformed::UNREADABLE), |bytes| Transmission::decode_command(bytes, layout));
    match decoded {
        Ok(transmission) if transmission.content.may_be_forwarded() => {
            Request::Command { transmission, authority: Authority::NotLookedUp }
        }
        Ok(Transmission { correlation, entity, .. }) => {
            Request::Malformed { correlation, entity, error: CommandError::Prohibited.into() }
        }
        Err(Malformed { correlation, entity, error }) => Request::Malformed { correlation, entity, error },
    }
}

/// Client's correlation, version, client's key, and the length of the inner box at the end.
fn read_outer(text: &[u8]) -> Result<(Identifier, Version, X25519Public, usize), SmpError> {
    let read = proxy_layers::ForwardedCommand::parse(text).and_then(|command| {
        let correlation = Identifier::new(command.correlation)?;
        Some((correlation, Version(command.version), command.client_key, command.sealed.len()))
    });
    read.ok_or(CommandError::Syntax.into())
}

impl ProxyEnvelope {
    /// The length of the parameter of `RRES`.
    pub(super) fn sealed_length(&self) -> usize {
        TAG_LENGTH + 1 + self.correlation.as_bytes().len() + proxy_layers::INNER_SEALED_LENGTH
    }

    /// Fills `sealed`, of [`sealed_length`](Self::sealed_length) bytes, with the parameter of `RRES`; `write` writes the
    /// content of the inner box and returns its length.
    ///
    /// # Errors
    /// Those of `write`, and [`nacl_box::BoxError`] when `sealed` has another length.
    pub(super) fn seal<E: From<nacl_box::BoxError>>(
        &self,
        provider: &dyn Provider,
        sealed: &mut [u8],
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let too_long = || E::from(nacl_box::BoxError::TooLong);
        let correlation = self.correlation.as_bytes();
        let head = sealed.get_mut(TAG_LENGTH..).ok_or_else(too_long)?;
        let (length, head) = head.split_first_mut().ok_or_else(too_long)?;
        *length = u8::try_from(correlation.len()).map_err(|_| too_long())?;
        let (name, inner) = head.split_at_mut_checked(correlation.len()).ok_or_else(too_long)?;
        name.copy_from_slice(correlation);
        let content = inner.get_mut(TAG_LENGTH + padding::LENGTH_BYTES..).ok_or_else(too_long)?;
        let written = write(content)?;
        let nonce = Nonce::from_id(correlation).reversed();
        nacl_box::seal_padded_in_place(provider, &self.inner, &nonce, inner, written)?;
        let nonce = Nonce::from_id(self.proxy_correlation.as_bytes()).reversed();
        nacl_box::seal(provider, &self.outer, &nonce, sealed)?;
        Ok(())
    }
}

/// Puts what answers a forwarded command on its way back.
pub(super) fn through_proxy<'f>(verified: Verified<'f>, forwarded: &Forwarded) -> Verified<'f> {
    Verified { forwarded: Some(forwarded.envelope()), ..verified }
}
