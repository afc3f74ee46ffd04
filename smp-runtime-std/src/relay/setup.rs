//! Making a relay: from a configuration, an identity and what storage holds, to a broker with storage beside it.

use std::path::Path;
use std::sync::Arc;

use smp_proto::broker::storage::{Completion, StoredQueue};
use smp_proto::broker::{Broker, BrokerConfig, Limits, RestoreError};
use smp_proto::crypto::signatures::Signature;
use smp_proto::first_step::{FirstStep, FirstStepConfig, FirstStepLimits};
use smp_proto::forwarding::{self, Forwarding, ForwardingConfig};
use smp_proto::proxy::{Proxy, ProxyConfig, ProxyLimits};
use smp_proto::server::{RecordError, Roles};
use smp_proto::session::identity::{IdentityError, ServerIdentity, SessionSigner, SigningFailed};
use smp_proto::session::server::ServerSessionConfig;
use zeroize::Zeroizing;

use super::Relay;
use super::admission::Admission;
use super::clock::Clock;
use super::dial::Reaching;
use super::entropy::{NoRandomness, ProcessEntropy};
use super::held::{ActionQueue, Held};
use crate::certificates::{Algorithm, LoadedIdentity, PrivateKey};
use crate::configuration::{self, Configuration};
use crate::fast_cryptography::FAST;
use crate::storage::{Durability, Embedded, Engine, StorageError, StorageReport, StorageThread};
use crate::tls::{ApplicationProtocol, ServerTls, ServerTlsOptions, TlsError};

/// Why there is no relay. Prints as one line for the operator.
#[derive(Debug)]
pub enum SetupError {
    /// The operating system has no randomness.
    Randomness(NoRandomness),
    /// The certificates are not those of a relay.
    Identity(IdentityError),
    /// TLS does not take the certificates.
    Tls(TlsError),
    /// What is stored cannot be taken over.
    Stored(RestoreError),
    /// Storage cannot be opened or read.
    Storage(StorageError),
    /// The system gives no thread for storage.
    Thread(std::io::Error),
}

impl core::fmt::Display for SetupError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Randomness(error) => error.fmt(formatter),
            Self::Identity(error) => error.fmt(formatter),
            Self::Tls(error) => error.fmt(formatter),
            Self::Stored(RestoreError::TooManyQueues) => {
                formatter.write_str("there are more queues in storage than [LIMITS] queues allows: raise it")
            }
            Self::Stored(error) => write!(formatter, "{error}: restore the folder `store` from a backup"),
            Self::Storage(error) => error.fmt(formatter),
            Self::Thread(error) => write!(formatter, "the system gives no thread for storage: {error}"),
        }
    }
}

impl core::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(match self {
            Self::Randomness(error) => error,
            Self::Identity(error) => error,
            Self::Tls(error) => error,
            Self::Stored(error) => error,
            Self::Storage(error) => error,
            Self::Thread(error) => error,
        })
    }
}

/// A relay that is being made: it takes over what is stored, then gets its storage.
pub struct RelayBuilder {
    broker: Broker,
    first_step: FirstStep,
    forwarding: Option<Forwarding>,
    clock: Clock,
    entropy: ProcessEntropy,
    tls: ServerTls,
    sessions: Arc<ServerSessionConfig>,
    configuration: Configuration,
}

/// Where storage hands over what it has done.
#[derive(Clone)]
pub struct Completions {
    held: Arc<Held>,
    clock: Clock,
}

impl Completions {
    /// Hands over a group of completions, best all those of one commit: the relay's lock is taken once for them.
    pub fn complete(&self, completions: Vec<Completion>) {
        self.held.complete(completions, self.clock.now());
    }
}

/// Signs session keys with the key of the leaf certificate, as it was loaded.
struct LoadedKey(PrivateKey);

impl SessionSigner for LoadedKey {
    fn sign(&self, message: &[u8]) -> Result<Signature, SigningFailed> {
        let signature = self.0.sign(message);
        match self.0.algorithm() {
            Algorithm::Ed25519 => signature.try_into().map(Signature::Ed25519).map_err(|_| SigningFailed),
            Algorithm::Ed448 => signature.try_into().map(Signature::Ed448).map_err(|_| SigningFailed),
        }
    }
}

impl RelayBuilder {
    /// A relay with these settings and this identity, and nothing stored yet.
    ///
    /// # Errors
    /// [`SetupError`], except about what is stored.
    pub fn new(configuration: &Configuration, identity: &LoadedIdentity) -> Result<Self, SetupError> {
        let entropy = ProcessEntropy::from_system().map_err(SetupError::Randomness)?;
        let credentials = &identity.credentials;
        let options = ServerTlsOptions { protocols: protocols(configuration), ..ServerTlsOptions::default() };
        let tls = ServerTls::with_options(credentials, &options).map_err(SetupError::Tls)?;
        let chain = credentials.chain.iter().map(|certificate| certificate.to_vec()).collect();
        let signer = Arc::new(LoadedKey(credentials.key.clone()));
        let session_identity = ServerIdentity::new(chain, signer).map_err(SetupError::Identity)?;
        let sessions = ServerSessionConfig {
            handshake_time_limit: configuration.limits.smp_handshake,
            ..ServerSessionConfig::new(session_identity, &FAST)
        };
        let clock = Clock::start();
        let mut broker = entropy.with(|entropy| Broker::new(broker_configuration(configuration), entropy));
        let connection =
            if roles(configuration).destination { broker.connect(clock.now()).ok() } else { None };
        let forwarding = connection.map(|connection| {
            let (settings, identity) = (forwarding_configuration(configuration), sessions.identity.clone());
            entropy.with(|entropy| Forwarding::new(settings, &FAST, identity, connection, entropy))
        });
        Ok(Self {
            broker,
            first_step: FirstStep::new(first_step_configuration(configuration)),
            forwarding,
            clock,
            entropy,
            tls,
            sessions: Arc::new(sessions),
            configuration: configuration.clone(),
        })
    }

    /// Takes over a stored queue.
    ///
    /// # Errors
    /// [`SetupError::Stored`].
    pub fn restore(&mut self, stored: StoredQueue) -> Result<(), SetupError> {
        self.broker.restore(stored).map_err(SetupError::Stored)
    }

    /// Takes over a record of what is held for other relays, or was forwarded to this one.
    ///
    /// # Errors
    /// When no relay has written it.
    pub fn restore_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        if !key.starts_with(&forwarding::PREFIX) {
            return self.first_step.restore(key, value).map_err(RecordError::FirstStep);
        }
        match &mut self.forwarding {
            Some(forwarding) => {
                forwarding.take_over(key, value, self.clock.now()).map_err(RecordError::Forwarding)
            }
            // It is kept for when the relay takes such commands again.
            None => Ok(()),
        }
    }

    /// The relay, with the storage that `start` starts: it gets the place where completions are handed over.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn finish<E>(
        mut self,
        start: impl FnOnce(Completions) -> Result<Box<dyn ActionQueue>, E>,
    ) -> Result<Relay, E> {
        let settings = &self.configuration.proxy;
        let proxy = ProxyConfig {
            connect_time_limit: settings.connect_time_limit,
            command_time_limit: settings.command_time_limit,
            idle_after: settings.idle_after,
            own_domains: settings.own_domains.clone(),
            limits: ProxyLimits {
                destinations: settings.destinations,
                dials: settings.dials,
                ..ProxyLimits::default()
            },
            ..ProxyConfig::new(&FAST)
        };
        let reaching = Reaching {
            policy: settings.policy,
            socks: settings.socks_proxy.clone(),
            timeout: settings.connect_time_limit,
        };
        let roles = roles(&self.configuration);
        let now = self.clock.now();
        self.first_step.begin(now);
        if let Some(forwarding) = &mut self.forwarding {
            self.entropy.with(|entropy| forwarding.begin(now, entropy));
        }
        let held = Held::new(self.broker, Proxy::new(proxy), self.first_step, self.forwarding, self.clock);
        let held = Arc::new(held);
        let storage = start(Completions { held: Arc::clone(&held), clock: self.clock })?;
        held.attach(storage);
        Ok(Relay {
            held,
            admission: Arc::new(Admission::new(&self.configuration.limits)),
            clock: self.clock,
            entropy: self.entropy,
            tls: self.tls,
            sessions: self.sessions,
            limits: self.configuration.limits,
            inactive_after: self.configuration.inactive_after,
            roles,
            reaching: Arc::new(reaching),
            storage: None,
        })
    }
}

impl Relay {
    /// The relay of a folder of storage: opens it, takes over every queue, and starts the thread that writes.
    /// `loaded` is told now and then how many queues there are so far, `report` when storage fails and recovers.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn open(
        configuration: &Configuration,
        identity: &LoadedIdentity,
        store: &Path,
        mut loaded: impl FnMut(u64),
        report: impl FnMut(StorageReport<'_>) + Send + 'static,
    ) -> Result<Self, SetupError> {
        /// Telling costs more than loading a queue.
        const TOLD_EVERY: u64 = 1024;
        let mut builder = RelayBuilder::new(configuration, identity)?;
        let mut engine = Embedded::open(store).map_err(SetupError::Storage)?;
        let mut count = 0;
        let mut refused = None;
        let services = engine.load_services(&mut |number, record| {
            builder
                .broker
                .restore_service(number, record)
                .map_err(|error| StorageError::restore(store, error))
        });
        services.map_err(SetupError::Storage)?;
        let blobs = engine.load_blobs(&mut |id, record| {
            builder.broker.restore_blob(id, record).map_err(|error| StorageError::restore(store, error))
        });
        blobs.map_err(SetupError::Storage)?;
        let prefixes = FirstStep::LOADED.iter().map(<[u8; 2]>::as_slice);
        for prefix in prefixes.chain([forwarding::PREFIX.as_slice()]) {
            let records = engine.load_records(prefix, &mut |key, value| {
                builder.restore_record(&key, &value).map_err(|error| StorageError::restore(store, error))
            });
            records.map_err(SetupError::Storage)?;
        }
        let result = engine.load(&mut |stored| {
            count += 1;
            if count % TOLD_EVERY == 0 {
                loaded(count);
            }
            builder.broker.restore(stored).map_err(|error| {
                refused = Some(error);
                StorageError::restore(store, error)
            })
        });
        if let Some(error) = refused {
            return Err(SetupError::Stored(error));
        }
        result.map_err(SetupError::Storage)?;
        let durability = match configuration.durability {
            configuration::Durability::Commit => Durability::Commit,
            configuration::Durability::Relaxed(window) => Durability::Relaxed(window),
        };
        let mut thread = None;
        let mut relay = builder.finish(|completions| {
            let complete = move |group| completions.complete(group);
            let (queue, started) =
                StorageThread::start(engine, durability, complete, report).map_err(SetupError::Thread)?;
            thread = Some(started);
            Ok(Box::new(queue) as Box<dyn ActionQueue>)
        })?;
        relay.storage = thread;
        Ok(relay)
    }
}

fn roles(configuration: &Configuration) -> Roles {
    Roles { first_step: configuration.first_step.hold, destination: configuration.first_step.accept }
}

/// What is spoken, the preferred first.
fn protocols(configuration: &Configuration) -> Vec<ApplicationProtocol> {
    // Stock clients offer one or the other, by the port of their address; both are served at every port.
    let mut protocols = vec![ApplicationProtocol::Smp1, ApplicationProtocol::Http11];
    let roles = roles(configuration);
    if roles.first_step || roles.destination {
        protocols.push(ApplicationProtocol::SmpProxy1);
    }
    protocols
}

fn first_step_configuration(configuration: &Configuration) -> FirstStepConfig {
    let (settings, proxy) = (&configuration.first_step, &configuration.proxy);
    FirstStepConfig {
        password: password(configuration),
        private_destinations: proxy.policy.allow_private,
        longest_hold: settings.longest_hold,
        connect_timeout: proxy.connect_time_limit,
        answer_timeout: proxy.command_time_limit,
        longest_delay: settings.longest_delay,
        limits: FirstStepLimits {
            destinations: proxy.destinations,
            dials: proxy.dials,
            held_by_client: settings.held_by_client,
            held_for_destination: settings.held_for_destination,
            held: settings.held,
            ..FirstStepLimits::default()
        },
        ..FirstStepConfig::default()
    }
}

fn forwarding_configuration(configuration: &Configuration) -> ForwardingConfig {
    let rotation = configuration.first_step.key_rotation;
    ForwardingConfig { rotation, validity: rotation * 2, ..ForwardingConfig::default() }
}

fn password(configuration: &Configuration) -> Option<Zeroizing<Vec<u8>>> {
    configuration
        .create_password
        .as_ref()
        .map(|password| Zeroizing::new(password.as_str().as_bytes().to_vec()))
}

fn broker_configuration(configuration: &Configuration) -> BrokerConfig {
    let limits = &configuration.limits;
    let small = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
    let large = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    BrokerConfig {
        new_queues: configuration.new_queues,
        create_password: password(configuration),
        message_quota: small(limits.message_quota),
        message_time_to_live: configuration.message_expiry,
        notification_time_to_live: configuration.notification_expiry,
        unsecured_time_to_live: configuration.unused_invitation_expiry,
        blob_time_to_live: configuration.blob_expiry,
        proxied_at_once: if configuration.proxy.enabled { configuration.proxy.client_concurrency } else { 0 },
        limits: Limits {
            // Commands that other relays held have a connection of their own.
            connections: large(limits.connections.saturating_add(1)),
            queues: large(limits.queues),
            blobs: large(limits.blobs),
            blob_length: small(limits.blob_bytes),
            blob_writes_of_connection: small(limits.blob_writes_of_connection),
            blob_writes: large(limits.blob_writes),
            commands_in_flight: small(limits.commands_in_flight),
            deliveries_in_flight: small(limits.outgoing_blocks),
            ..Limits::default()
        },
        ..BrokerConfig::default()
    }
}
