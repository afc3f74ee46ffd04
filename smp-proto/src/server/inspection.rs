//! Looking at a whole relay: whether everything fits together, and whether two are equal.

use sha2::{Digest, Sha256};

use super::Server;
use super::links::DestinationSession;
use crate::broker::Inconsistency;

impl Server {
    /// A digest of the whole state: equal for equal inputs. For simulations.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.broker.digest());
        for peer in self.peers.iter().flatten() {
            digest.update(peer.id.slot().to_be_bytes());
            peer.speaks.digest_into(&mut digest);
        }
        digest.update(self.proxy.digest());
        for (id, link) in self.links.iter().flatten() {
            digest.update(id.slot().to_be_bytes());
            digest.update(link.digest());
        }
        digest.update(self.first_step.digest());
        if let Some(destination) = &self.forwarding {
            digest.update(destination.room.digest());
        }
        for session in self.destinations.values() {
            if let DestinationSession::Open(session) = session {
                digest.update(session.digest());
            }
        }
        digest.finalize().into()
    }

    /// Checks the invariants. For simulations and tests.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(Inconsistency(what)) };
        let mut deadlines = 0;
        for (slot, peer) in self.peers.iter().enumerate() {
            let Some(peer) = peer else { continue };
            ensure(peer.id.slot() == slot, "a connection is not in its place")?;
            ensure(self.broker.knows(peer.id), "a connection that the broker does not know")?;
            if let Some(at) = peer.deadline {
                deadlines += 1;
                ensure(self.deadlines.contains(&(at, peer.id)), "a deadline that nobody waits for")?;
            }
            ensure(
                peer.speaks.next_deadline().is_none() || peer.deadline.is_some(),
                "a handshake may take forever",
            )?;
            ensure(
                peer.waiting_since.is_none() || peer.deadline.is_some(),
                "a client may leave what it is sent untaken forever",
            )?;
        }
        ensure(deadlines == self.deadlines.len(), "a deadline of nobody")?;
        self.proxy.check()?;
        self.first_step.check()?;
        if let Some(destination) = &self.forwarding {
            destination.room.check()?;
        }
        self.broker.check()
    }
}
