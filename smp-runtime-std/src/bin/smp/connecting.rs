//! Addresses that the user typed, and what goes wrong on the way to a relay.

use smp_proto::client::ClosedBecause;
use smp_proto::entropy::SeededEntropy;
use smp_proto::session::close::CloseReason;
use smp_proto::wire::address::{AddressWithPassword, ServerAddress};
use smp_proto::wire::error::{ProxyError, SmpError};
use smp_runtime_std::client::ClientError;
use smp_runtime_std::dialing::DialError;
use smp_runtime_std::relay::entropy::ProcessEntropy;
use smp_runtime_std::tls::{TlsError, TlsFailure};
use zeroize::Zeroize;

use crate::failure::{Failure, Kind};

/// A relay's address, with the password for making queues there.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) server: ServerAddress,
    pub(crate) password: Option<Vec<u8>>,
}

impl Address {
    /// Reads what the user typed.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let parsed: AddressWithPassword = text.trim().parse().map_err(|error| {
            Failure::new(Kind::Usage, format!("this is not the address of a relay: {error}")).advise(
                "an address looks like smp://FINGERPRINT@HOST or smp://FINGERPRINT:PASSWORD@HOST:PORT",
            )
        })?;
        let password = parsed.password.map(|password| password.to_vec());
        Ok(Self { server: parsed.address, password })
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

/// A relay that cannot be reached.
pub(crate) fn failure_of_dialing(error: &DialError) -> Failure {
    let failure = |kind| Failure::new(kind, error.to_string());
    match error {
        DialError::OnlyOnion => failure(Kind::Network).advise("ask for an address with another host"),
        DialError::Address => failure(Kind::Usage).advise("was the address cut?"),
        DialError::Name { .. } => {
            failure(Kind::Network).advise("check the name, and whether this machine is online")
        }
        DialError::Connect { .. } => failure(Kind::Network)
            .advise("check host and port, whether the relay runs, and whether a firewall is in between"),
    }
}

/// A TLS connection that cannot be made, or cannot go on.
pub(crate) fn failure_of_tls(error: &TlsError) -> Failure {
    match &error.failure {
        TlsFailure::Certificates(_) => Failure::new(Kind::Identity, error.to_string()).advise(
            "this is not the relay of the address: check the address with whoever gave it to you, and do not go on if it is right",
        ),
        TlsFailure::NotTls | TlsFailure::NoCommonProtocol | TlsFailure::NoCommonCryptography => {
            Failure::new(Kind::Identity, error.to_string()).advise("check host and port: something else listens there")
        }
        _ => Failure::new(Kind::Network, error.to_string()),
    }
}

/// A client that cannot do what it was asked for; `what` is the command.
pub(crate) fn failure_of_client(what: &str, error: &ClientError) -> Failure {
    match error {
        ClientError::Dial(error) => failure_of_dialing(error),
        ClientError::Tls(error) => failure_of_tls(error),
        ClientError::Refused(SmpError::Quota) => Failure::new(Kind::Full, "the queue is full"),
        ClientError::NotTheRelay(_) => Failure::new(Kind::Identity, error.to_string())
            .advise("check the address with whoever gave it to you, and use another relay if it is right"),
        ClientError::NotForwarded(SmpError::Proxy(ProxyError::Broker(_) | ProxyError::NoSession)) => {
            Failure::new(Kind::Network, format!("{what}: {error}"))
                .advise("the relay that was to forward it cannot reach the other one: try again later")
        }
        ClientError::NotForwarded(_) => Failure::new(Kind::Refused, format!("{what}: {error}"))
            .advise("it may need a password in its address, or may not forward at all"),
        ClientError::Refused(error) => {
            Failure::new(Kind::Refused, format!("the relay answered {what} with {error}"))
        }
        ClientError::Closed(ClosedBecause::Session(
            CloseReason::WrongRelayFound | CloseReason::WrongSession | CloseReason::KeyNotVerified,
        )) => Failure::new(Kind::Identity, error.to_string())
            .advise("check the address with whoever gave it to you, and do not go on if it is right"),
        ClientError::Lost(_) | ClientError::Closed(_) | ClientError::NotSent | ClientError::NoAnswer => {
            Failure::new(Kind::Network, format!("{what}: {error}"))
                .advise("try again; a longer --timeout helps with slow networks")
        }
        ClientError::Unexpected | ClientError::TooLarge | ClientError::NoRelayKey => {
            Failure::new(Kind::Refused, format!("{what}: {error}"))
                .advise("the relay may be too old, or not a relay of this protocol")
        }
        _ => Failure::new(Kind::Unexpected, format!("{what}: {error}")),
    }
}

/// A database that cannot be used.
#[cfg(unix)]
pub(crate) fn failure_of_database(error: &smp_runtime_std::agent::database::DatabaseError) -> Failure {
    use smp_runtime_std::agent::database::DatabaseError;
    let failure = Failure::new(Kind::State, error.to_string());
    match error {
        DatabaseError::InUse(_) => failure.advise("end the other program and try again"),
        DatabaseError::Foreign(_) => failure.advise("name another folder with --data or SMP_DATA"),
        DatabaseError::Damaged(..) => {
            failure.advise("restore it from a backup; it holds the keys of your connections")
        }
        DatabaseError::WrongPassphrase(_) => failure.advise("try again; without it nobody can open the file"),
        DatabaseError::Io(_, error) if error.kind() == std::io::ErrorKind::StorageFull => {
            failure.advise("the disk is full: make room")
        }
        DatabaseError::Io(..) | DatabaseError::NoRandomness(_) | DatabaseError::TooLong => failure,
    }
}

/// Randomness seeded by the operating system.
pub(crate) fn entropy_of_system() -> Result<SeededEntropy, Failure> {
    let process =
        ProcessEntropy::from_system().map_err(|error| Failure::new(Kind::Unexpected, error.to_string()))?;
    Ok(process.with(|entropy| {
        let mut seed = [0; 32];
        smp_proto::entropy::Entropy::fill_secret(entropy, &mut seed);
        let seeded = SeededEntropy::new(seed);
        seed.zeroize();
        seeded
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn passwords_are_taken_out_of_addresses() {
        let text = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=:secret@localhost:7001";
        let address = Address::parse(text).unwrap();
        assert_eq!(address.password.as_deref(), Some(&b"secret"[..]));
        assert!(!address.server.to_string().contains("secret"));
        let failure = Address::parse("localhost:7001").err().unwrap();
        assert_eq!(failure.kind, Kind::Usage);
    }
}
