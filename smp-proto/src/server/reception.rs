//! Who comes over a connection of `smp-proxy/1`: a client that wants commands held, or a first-step relay that brings them.
//!
//! Its first `S` says it: with an address it is a client's, without one a first-step relay's. [`Reception`] owns that decision and
//! the answers to what can be given to nobody; the rest of the connection is the business of
//! [`FirstStep`](crate::first_step::FirstStep) or of the room that takes what is forwarded. The same for every driver.

use alloc::collections::VecDeque;

use crate::wire::first_step::{Correlation, FirstStepError, Message, RelayNumber, Transmission};
use crate::wire::primitives::Writer;

/// Answers that wait to be sent: no further block is taken.
const MOST: usize = 8;

/// What whoever came over a connection is to this relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client: this relay is its first-step relay.
    Client,
    /// A first-step relay: this relay is its destination.
    Relay,
}

/// Which roles a relay takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Whether it holds commands of clients for other relays.
    pub first_step: bool,
    /// Whether it takes commands that first-step relays forward.
    pub destination: bool,
}

/// Decides whose the contents of a connection are. See the module's documentation.
#[derive(Debug)]
pub struct Reception {
    roles: Roles,
    role: Option<Role>,
    refusals: VecDeque<(Correlation, RelayNumber, FirstStepError)>,
}

impl Reception {
    /// Nothing has been said.
    #[must_use]
    pub const fn new(roles: Roles) -> Self {
        Self { roles, role: None, refusals: VecDeque::new() }
    }

    /// Who came, once that is decided.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        self.role
    }

    /// Whose the content of a block is; `None` when it is nobody's, and is answered here.
    pub fn take(&mut self, content: &[u8]) -> Option<Role> {
        let Some(Transmission { correlation, relay, message }) = Transmission::decode(content) else {
            return self.refuse(Correlation(0), RelayNumber(0), FirstStepError::Syntax);
        };
        let wanted = match &message {
            Message::Register(register) if register.address.is_some() => Some(Role::Client),
            Message::Register(_) => Some(Role::Relay),
            Message::Forward(_) | Message::Check { .. } => self.role,
            Message::Registered(_) | Message::Response(_) | Message::Error(_) => {
                return self.refuse(correlation, relay, FirstStepError::Syntax);
            }
        };
        let Some(role) = wanted else { return self.refuse(correlation, relay, FirstStepError::NoRelay) };
        let taken_on = match role {
            Role::Client => self.roles.first_step,
            Role::Relay => self.roles.destination,
        };
        if !taken_on {
            return self.refuse(correlation, relay, FirstStepError::NoRelay);
        }
        if *self.role.get_or_insert(role) != role {
            return self.refuse(correlation, relay, FirstStepError::Syntax);
        }
        Some(role)
    }

    fn refuse(
        &mut self,
        correlation: Correlation,
        relay: RelayNumber,
        error: FirstStepError,
    ) -> Option<Role> {
        self.refusals.push_back((correlation, relay, error));
        None
    }

    /// Writes the content of the next answer. False, when there is none.
    pub fn poll(&mut self, out: &mut impl Writer) -> bool {
        let Some((correlation, relay, error)) = self.refusals.pop_front() else { return false };
        // An error has at most 11 bytes.
        Transmission { correlation, relay, message: Message::Error(error) }.encode(out).is_ok()
    }

    /// Whether another block may be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.refusals.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::X25519Public;
    use crate::wire::address::ServerAddress;
    use crate::wire::first_step::{Forward, ForwardOptions, Register, SEALED_LENGTH};
    use alloc::vec::Vec;

    const BOTH: Roles = Roles { first_step: true, destination: true };

    fn content(message: Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        Transmission { correlation: Correlation(7), relay: RelayNumber(0), message }
            .encode(&mut out)
            .unwrap();
        out
    }

    fn register(address: Option<&str>) -> Vec<u8> {
        let address: Option<ServerAddress> = address.map(|text| text.parse().unwrap());
        content(Message::Register(Register { token: [1; 32], address, password: None }))
    }

    fn forward() -> Vec<u8> {
        let sealed = [0; SEALED_LENGTH];
        let (options, acknowledged) = (ForwardOptions::default(), Correlation(0));
        let forward =
            Forward { options, acknowledged, delay: 0, key: X25519Public([1; 32]), sealed: &sealed };
        content(Message::Forward(forward))
    }

    fn refusal(reception: &mut Reception) -> Option<FirstStepError> {
        let mut out = Vec::new();
        if !reception.poll(&mut out) {
            return None;
        }
        match Transmission::decode(&out).unwrap().message {
            Message::Error(error) => Some(error),
            _ => panic!("not an error"),
        }
    }

    #[test]
    fn the_first_registration_says_who_came() {
        let (client, relay) = (register(Some("smp://AAAA@example.org")), register(None));
        for (first, other, role) in [(&client, &relay, Role::Client), (&relay, &client, Role::Relay)] {
            let mut reception = Reception::new(BOTH);
            assert_eq!(reception.take(&forward()), None);
            assert_eq!(refusal(&mut reception), Some(FirstStepError::NoRelay), "before any registration");
            assert_eq!(reception.take(first), Some(role));
            assert_eq!(reception.take(&forward()), Some(role));
            assert_eq!(reception.take(&content(Message::Check { acknowledged: Correlation(0) })), Some(role));
            assert_eq!(reception.take(other), None);
            assert_eq!(refusal(&mut reception), Some(FirstStepError::Syntax), "of the other role");
            assert_eq!(reception.take(first), Some(role), "again");
            assert_eq!((refusal(&mut reception), reception.role()), (None, Some(role)));
        }
    }

    #[test]
    fn roles_that_are_not_taken_on_are_refused() {
        for (roles, refused) in [
            (Roles { first_step: false, destination: true }, register(Some("smp://AAAA@example.org"))),
            (Roles { first_step: true, destination: false }, register(None)),
        ] {
            let mut reception = Reception::new(roles);
            assert_eq!(reception.take(&refused), None);
            assert_eq!(refusal(&mut reception), Some(FirstStepError::NoRelay));
            assert_eq!(reception.role(), None);
        }
    }

    #[test]
    fn noise_and_answers_are_answered_and_whoever_does_not_listen_is_not_heard() {
        let mut reception = Reception::new(BOTH);
        for noise in [&b""[..], b"noise", &content(Message::Error(FirstStepError::Syntax))] {
            assert_eq!(reception.take(noise), None);
        }
        while reception.has_room() {
            assert_eq!(reception.take(b""), None);
        }
        assert_eq!(reception.refusals.len(), MOST);
        assert_eq!(refusal(&mut reception), Some(FirstStepError::Syntax));
        assert!(reception.has_room());
    }
}
