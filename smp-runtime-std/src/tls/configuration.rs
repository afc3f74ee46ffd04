//! What the two sides of SMP's TLS are set up with (WIRE-FACTS 4.1), once for many connections.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use super::error::{Side, TlsError};
use super::provider::{provider, record};
use super::verification::{ClientVerifier, ServerVerifier};
use crate::certificates::{Credentials, Fingerprint};

/// The application protocols (ALPN) under which SMP is spoken, and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationProtocol {
    /// `smp/1`: at SMP's own port.
    Smp1,
    /// `smp-proxy/1`: between clients, first-step relays and destinations, at the same port.
    SmpProxy1,
    /// `http/1.1`: what deployed clients offer at port 443, so as to look like everybody else.
    Http11,
}

impl ApplicationProtocol {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Smp1 => b"smp/1",
            Self::SmpProxy1 => smp_proto::wire::first_step::ALPN,
            Self::Http11 => b"http/1.1",
        }
    }

    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Smp1, Self::SmpProxy1, Self::Http11].into_iter().find(|protocol| protocol.name() == name)
    }
}

/// What may differ between servers.
#[derive(Clone)]
pub struct ServerTlsOptions {
    /// Ask clients for a certificate, as services have one. They may always come without. Default: yes.
    pub ask_for_client_certificate: bool,
    /// Accept Ed448 certificates from clients. Default: no. The reference makes Ed25519 ones for services, and verifying
    /// a chain of Ed448 takes so long that anybody could keep a relay busy with it.
    pub accept_ed448_from_clients: bool,
    /// The protocols to agree on, when the client offers any. Default: `smp/1`; add `http/1.1` at port 443.
    pub protocols: Vec<ApplicationProtocol>,
    /// The clock by which the dates of certificates are judged. Default: the system's.
    pub clock: Arc<dyn TimeProvider>,
}

impl Default for ServerTlsOptions {
    fn default() -> Self {
        Self {
            ask_for_client_certificate: true,
            accept_ed448_from_clients: false,
            protocols: vec![ApplicationProtocol::Smp1],
            clock: Arc::new(DefaultTimeProvider),
        }
    }
}

/// The TLS of one server identity. Cheap to clone; clones share the credentials.
#[derive(Clone)]
pub struct ServerTls {
    configuration: Arc<ServerConfig>,
    hosted: Arc<Hosted>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ServerTls")
    }
}

/// Certificates and key in use, which can be replaced while the server runs.
struct Hosted(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Hosted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hosted")
    }
}

impl ResolvesServerCert for Hosted {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl ServerTls {
    /// A server with the default options.
    ///
    /// # Errors
    /// When the key does not belong to the leaf certificate.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Self::with_options(credentials, &ServerTlsOptions::default())
    }

    /// A server.
    ///
    /// # Errors
    /// When the key does not belong to the leaf certificate.
    pub fn with_options(credentials: &Credentials, options: &ServerTlsOptions) -> Result<Self, TlsError> {
        let hosted = Arc::new(Hosted(RwLock::new(certified_key(credentials, Side::Server)?)));
        let builder = ServerConfig::builder_with_details(provider(), options.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::internal(Side::Server, error))?;
        let builder = if options.ask_for_client_certificate {
            builder.with_client_cert_verifier(ClientVerifier::shared(options.accept_ed448_from_clients))
        } else {
            builder.with_no_client_auth()
        };
        let mut configuration = builder.with_cert_resolver(hosted.clone());
        configuration.alpn_protocols =
            options.protocols.iter().map(|protocol| protocol.name().to_vec()).collect();
        // A session is one connection: without resumption its id is always that of a full handshake.
        configuration.send_tls13_tickets = 0;
        configuration.session_storage = Arc::new(NoServerSessionStorage {});
        // The record layer takes the keys over when the handshake is complete.
        configuration.enable_secret_extraction = true;
        Ok(Self { configuration: Arc::new(configuration), hosted })
    }

    /// Uses other credentials for connections from now on, such as a renewed certificate.
    ///
    /// # Errors
    /// When the key does not belong to the leaf certificate; the ones in use stay.
    pub fn replace_credentials(&self, credentials: &Credentials) -> Result<(), TlsError> {
        let replacement = certified_key(credentials, Side::Server)?;
        *self.hosted.0.write().unwrap_or_else(PoisonError::into_inner) = replacement;
        Ok(())
    }

    pub(super) fn rustls(&self) -> Arc<ServerConfig> {
        self.configuration.clone()
    }
}

fn certified_key(credentials: &Credentials, us: Side) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = credentials.key.for_tls().map_err(|error| TlsError::internal(us, error))?;
    let certified = CertifiedKey::new(credentials.chain.clone(), key);
    certified.keys_match().map_err(|error| TlsError::internal(us, error))?;
    Ok(Arc::new(certified))
}

/// What may differ between clients.
#[derive(Clone)]
pub struct ClientTlsOptions {
    /// The protocol to offer. Default: `smp/1`; `http/1.1` for port 443 of the preset servers; `None` offers none.
    pub protocol: Option<ApplicationProtocol>,
    /// A service's certificate, for a server that asks for it. Default: none.
    pub credentials: Option<Credentials>,
    /// The clock by which the dates of certificates are judged. Default: the system's.
    pub clock: Arc<dyn TimeProvider>,
}

impl Default for ClientTlsOptions {
    fn default() -> Self {
        Self {
            protocol: Some(ApplicationProtocol::Smp1),
            credentials: None,
            clock: Arc::new(DefaultTimeProvider),
        }
    }
}

/// The TLS of a client towards one server identity. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    configuration: Arc<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientTls")
    }
}

/// The client's certificate, if it has one; notices whether the server asks for it.
struct ClientCertificate(Option<Arc<CertifiedKey>>);

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientCertificate")
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        record(|recorder| recorder.certificate_requested = true);
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ClientTls {
    /// A client with the default options, for the server with this fingerprint.
    ///
    /// # Errors
    /// [`super::TlsFailure::Internal`] only.
    pub fn new(expected: Fingerprint) -> Result<Self, TlsError> {
        Self::with_options(expected, &ClientTlsOptions::default())
    }

    /// A client for the server with this fingerprint.
    ///
    /// # Errors
    /// When the key does not belong to the leaf certificate.
    pub fn with_options(expected: Fingerprint, options: &ClientTlsOptions) -> Result<Self, TlsError> {
        let certificate = match &options.credentials {
            Some(credentials) => Some(certified_key(credentials, Side::Client)?),
            None => None,
        };
        let mut configuration = ClientConfig::builder_with_details(provider(), options.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::internal(Side::Client, error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier { expected }))
            .with_client_cert_resolver(Arc::new(ClientCertificate(certificate)));
        configuration.alpn_protocols =
            options.protocol.iter().map(|protocol| protocol.name().to_vec()).collect();
        configuration.enable_sni = false;
        configuration.resumption = Resumption::disabled();
        configuration.enable_secret_extraction = true;
        Ok(Self { configuration: Arc::new(configuration) })
    }

    pub(super) fn rustls(&self) -> Arc<ClientConfig> {
        self.configuration.clone()
    }

    /// rustls wants a name for every server; it is neither sent nor compared with anything.
    pub(super) fn unused_name() -> ServerName<'static> {
        ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
    }
}
