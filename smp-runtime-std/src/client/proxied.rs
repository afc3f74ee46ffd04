//! The sessions with other relays that a client has been given by its own, the proxy.
//!
//! Owns: which were given. A session is asked for before the first command to a relay, and again when the proxy says that
//! it is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smp_proto::client::ProxiedRelay;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::error::{ProxyError, SmpError};

use super::ClientError;

/// How many are remembered: whoever needs more asks again, which costs one command.
const REMEMBERED: usize = 1024;

/// Sessions by the addresses that were asked for.
#[derive(Debug, Default)]
pub struct ProxiedSessions(Mutex<Vec<(ServerAddress, Arc<ProxiedRelay>)>>);

impl ProxiedSessions {
    fn known(&self) -> MutexGuard<'_, Vec<(ServerAddress, Arc<ProxiedRelay>)>> {
        // A list is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session with this relay, if one was given.
    #[must_use]
    pub fn find(&self, relay: &ServerAddress) -> Option<Arc<ProxiedRelay>> {
        let known = self.known();
        known.iter().find(|(address, _)| address == relay).map(|(_, session)| Arc::clone(session))
    }

    /// A session was given, in place of the one before.
    pub fn remember(&self, relay: &ServerAddress, session: &Arc<ProxiedRelay>) {
        let mut known = self.known();
        known.retain(|(address, _)| address != relay);
        if known.len() >= REMEMBERED {
            known.remove(0);
        }
        known.push((relay.clone(), Arc::clone(session)));
    }

    /// A session is gone, unless another one was given meanwhile.
    pub fn forget(&self, session: &Arc<ProxiedRelay>) {
        self.known().retain(|(_, known)| !Arc::ptr_eq(known, session));
    }

    /// Whether an error says that the session is gone and nothing was forwarded, so that it can be asked for again.
    #[must_use]
    pub const fn is_gone(error: &ClientError) -> bool {
        matches!(error, ClientError::NotForwarded(SmpError::Proxy(ProxyError::NoSession)))
    }
}
