//! A relay of either runtime inside the test, on a free port of the loopback interface.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use smp_proto::broker::storage::{ActionId, Completion, StorageAction};
use smp_proto::proxy::hosts::SocksMode;
use smp_proto::storage_model::StorageModel;
use smp_proto::wire::address::ServerAddress;
use smp_runtime_smol::service::Service;
use smp_runtime_smol::workers::Workers;
use smp_runtime_std::blocking_relay::BlockingRelay;
use smp_runtime_std::certificates::{Algorithm, Fingerprint, LoadedIdentity, NewIdentity, Validity};
use smp_runtime_std::configuration::Configuration;
use smp_runtime_std::relay::{ActionQueue, Completions, Relay, RelayBuilder};

use crate::raw_client::{PATIENCE, RawClient};

/// Who drives the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Tasks on smol, as `smp-server`.
    Smol,
    /// A thread for each connection.
    Blocking,
}

/// What may differ between relays.
#[derive(Clone, Default)]
pub struct Options {
    pub message_quota: Option<usize>,
    pub password: Option<&'static str>,
    /// Whether it forwards to relays on the loopback interface.
    pub private_destinations: bool,
    /// Whether it holds for others; by default it does.
    pub hold: Option<bool>,
    /// Whether it takes what others held; by default it does.
    pub accept: Option<bool>,
    /// The SOCKS proxy for onion hosts.
    pub socks_proxy: Option<SocketAddr>,
}

/// A running relay.
pub struct RelayUnderTest {
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
    running: Option<Running>,
}

enum Running {
    Smol(Workers, Service),
    Blocking(BlockingRelay),
}

impl RelayUnderTest {
    pub fn start(runtime: Runtime, options: Options) -> Self {
        let made = NewIdentity::make("localhost", Algorithm::Ed25519, Validity::days_from_now(100)).unwrap();
        let fingerprint = made.fingerprint();
        let identity = LoadedIdentity {
            credentials: made.online,
            fingerprint,
            host: None,
            not_after: u64::MAX,
            warnings: Vec::new(),
        };
        let mut configuration = Configuration::default();
        if let Some(quota) = options.message_quota {
            configuration.limits.message_quota = quota;
        }
        configuration.proxy.policy.allow_private = options.private_destinations;
        if let Some(address) = options.socks_proxy {
            configuration.proxy.socks_proxy = Some(address.to_string());
            configuration.proxy.policy.socks = SocksMode::Onion;
        }
        configuration.first_step.hold = options.hold.unwrap_or(true);
        configuration.first_step.accept = options.accept.unwrap_or(true);
        configuration.create_password = options.password.map(|password| password.parse().unwrap());
        let relay = RelayBuilder::new(&configuration, &identity)
            .unwrap()
            .finish(|completions| Ok::<_, std::convert::Infallible>(Memory::start(completions)))
            .unwrap();
        let relay = Arc::new(relay);
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        match runtime {
            Runtime::Smol => {
                let workers = Workers::start(Some(2), None).unwrap();
                let listener = TcpListener::bind(loopback).unwrap();
                listener.set_nonblocking(true).unwrap();
                let service = Service::start(relay, vec![listener], &workers).unwrap();
                let address = *service.addresses().first().unwrap();
                Self { address, fingerprint, running: Some(Running::Smol(workers, service)) }
            }
            Runtime::Blocking => {
                let relay = BlockingRelay::bind(loopback, relay).unwrap();
                Self { address: relay.address(), fingerprint, running: Some(Running::Blocking(relay)) }
            }
        }
    }

    /// What is running.
    pub fn relay(&self) -> &Arc<Relay> {
        match self.running.as_ref().unwrap() {
            Running::Smol(_, service) => service.relay(),
            Running::Blocking(relay) => relay.relay(),
        }
    }

    /// The relay's address for clients.
    pub fn server_address(&self) -> ServerAddress {
        address(self.fingerprint, self.address)
    }

    /// A plain client.
    pub fn raw(&self) -> RawClient {
        RawClient::connect(self.address, self.fingerprint).unwrap()
    }

    /// Stops in order; false when something was left.
    pub fn stop(mut self) -> bool {
        match self.running.take().unwrap() {
            Running::Smol(workers, service) => {
                let stopped = async_io::block_on(service.stop(PATIENCE));
                workers.stop();
                stopped
            }
            Running::Blocking(relay) => relay.stop(PATIENCE),
        }
    }
}

pub fn address(fingerprint: Fingerprint, at: SocketAddr) -> ServerAddress {
    format!("smp://{fingerprint}@{at}").parse().unwrap()
}

/// Storage that keeps bodies in memory, on a thread of its own.
struct Memory(Mutex<mpsc::Sender<Vec<(ActionId, StorageAction)>>>);

impl Memory {
    fn start(completions: Completions) -> Box<dyn ActionQueue> {
        let (sender, receiver) = mpsc::channel::<Vec<(ActionId, StorageAction)>>();
        thread::spawn(move || {
            let mut storage = StorageModel::default();
            for batch in receiver {
                let done: Vec<Completion> =
                    batch.into_iter().map(|(id, action)| storage.apply(id, action)).collect();
                storage.sync();
                completions.complete(done);
            }
        });
        Box::new(Self(Mutex::new(sender)))
    }
}

impl ActionQueue for Memory {
    fn submit(&self, actions: &mut Vec<(ActionId, StorageAction)>) {
        self.0.lock().unwrap().send(std::mem::take(actions)).unwrap();
    }
}
