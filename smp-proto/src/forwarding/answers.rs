//! What a first-step relay is told.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::crypto::Provider;
use crate::keys::X25519Public;
use crate::session::forwarding::Answer;
use crate::wire::first_step::{
    Correlation, FirstStepError, Message, PublishedKey, Registered, RelayNumber, SEALED_LENGTH, Transmission,
    write_response_head,
};
use crate::wire::primitives::{Full, SliceWriter};

/// A forwarding key as it is published: with the certificates and the signature of the leaf.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) number: RelayNumber,
    pub(super) until: i64,
    pub(super) key: X25519Public,
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) signature: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Said {
    Key(Arc<Publication>),
    Answer(Answer),
    Error(FirstStepError),
}

/// One transmission for a first-step relay: the content of a block.
#[derive(Debug)]
pub struct ToRelay {
    pub(super) correlation: Correlation,
    pub(super) relay: RelayNumber,
    pub(super) said: Said,
}

impl ToRelay {
    /// Whether it is an answer of a command (`R`), rather than `I` or `E`.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(self.said, Said::Answer(_))
    }

    /// Writes it, and seals the answer where it stands. `out` has room for the content of an encrypted block. It is
    /// expensive, and needs nothing that is shared: no lock is to be held.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(&self, provider: &'static dyn Provider, out: &mut SliceWriter<'_>) -> Result<(), Full> {
        let message = match &self.said {
            Said::Answer(answer) => {
                let start = out.written();
                write_response_head(self.correlation, self.relay, out)?;
                if answer.seal(provider, out.reserve(SEALED_LENGTH)?) {
                    return Ok(());
                }
                out.truncate(start);
                Message::Error(FirstStepError::Internal)
            }
            Said::Error(error) => Message::Error(*error),
            Said::Key(published) => Message::Registered(Registered {
                until: published.until,
                key: PublishedKey {
                    number: published.number,
                    until: published.until,
                    key: published.key,
                    chain: published.chain.iter().map(Vec::as_slice).collect(),
                    signature: &published.signature,
                },
            }),
        };
        Transmission { correlation: self.correlation, relay: self.relay, message }.encode(out)
    }
}
