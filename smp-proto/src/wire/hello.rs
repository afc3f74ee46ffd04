//! The hello messages of the SMP handshake (WIRE-FACTS 4.5): contents of blocks, without their padding.

use super::error::TransportError;
use super::identifier::Identifier;
use super::primitives::{Full, Reader, Writer};
use super::version::{Version, VersionRange};
use crate::keys::X25519Public;

/// Whose hellos these are: which version of SMP says what fields they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloLayout {
    /// SMP's: the version in the hello says it.
    Smp,
    /// Those of `smp-proxy/1`, whose versions count from 1: versions, session id, certificates and signed key; version,
    /// fingerprint and key. There is no flag for proxies and no service.
    FirstStep,
}

impl HelloLayout {
    /// The version of SMP whose hellos have the fields that hellos of this version have.
    #[must_use]
    pub const fn fields_of(self, version: Version) -> Version {
        match self {
            Self::Smp => version,
            Self::FirstStep => Version::IMPLIED_SESSION,
        }
    }
}

/// A chain of DER certificates, leaf first, as it is on the wire: a count byte, then each with a 2-byte length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateChain<'a>(&'a [u8]);

/// A DER public key signed by a certificate's key (WIRE-FACTS 2), without its 2-byte length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedKey<'a>(pub &'a [u8]);

impl<'a> CertificateChain<'a> {
    /// Reads a chain: a count byte, then each certificate with a 2-byte length.
    pub fn read(read: &mut Reader<'a>) -> Option<Self> {
        let start = read.rest();
        for _ in 0..read.byte()? {
            read.large()?;
        }
        Some(Self(start.get(..start.len() - read.rest().len())?))
    }

    /// The certificates' DER, leaf first.
    pub fn certificates(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut read = Reader::new(self.0.get(1..).unwrap_or_default());
        core::iter::from_fn(move || read.large())
    }

    /// How many certificates there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.first().map_or(0, |count| usize::from(*count))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chain as it is on the wire.
    #[must_use]
    pub const fn as_wire(&self) -> &'a [u8] {
        self.0
    }

    /// Writes a chain of DER certificates, leaf first.
    ///
    /// # Errors
    /// [`Full`] when it does not fit, or there are more than 255 certificates.
    pub fn write<C: AsRef<[u8]>>(certificates: &[C], out: &mut impl Writer) -> Result<(), Full> {
        out.byte(u8::try_from(certificates.len()).map_err(|_| Full)?)?;
        certificates.iter().try_for_each(|certificate| out.large(certificate.as_ref()))
    }
}

/// The first block of a session, from the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello<'a> {
    /// The versions that the relay offers.
    pub versions: VersionRange,
    /// The session id: what the relay received as the client's TLS Finished.
    pub session: &'a [u8],
    /// The relay's certificates and its session key signed by the leaf; from v7, and absent when unreadable.
    pub authentication: Option<(CertificateChain<'a>, SignedKey<'a>)>,
}

impl<'a> ServerHello<'a> {
    /// Reads the content of a hello block; what follows the known fields is ignored.
    #[must_use]
    pub fn decode(content: &'a [u8]) -> Option<Self> {
        Self::decode_in(HelloLayout::Smp, content)
    }

    /// Reads the content of a hello block of this layout.
    #[must_use]
    pub fn decode_in(layout: HelloLayout, content: &'a [u8]) -> Option<Self> {
        let mut read = Reader::new(content);
        let versions = read.version_range()?;
        let session = read.short()?;
        let authentication = if layout.fields_of(versions.max()) >= Version::IMPLIED_SESSION {
            CertificateChain::read(&mut read).and_then(|chain| Some((chain, SignedKey(read.large()?))))
        } else {
            None
        };
        Some(Self { versions, session, authentication })
    }

    /// Writes the content of a hello block, without authentication when the offered versions have none.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode<C: AsRef<[u8]>>(
        versions: VersionRange,
        session: &[u8],
        certificates: &[C],
        signed_key: &[u8],
        out: &mut impl Writer,
    ) -> Result<(), Full> {
        Self::encode_in(HelloLayout::Smp, versions, session, certificates, signed_key, out)
    }

    /// Writes the content of a hello block of this layout.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode_in<C: AsRef<[u8]>>(
        layout: HelloLayout,
        versions: VersionRange,
        session: &[u8],
        certificates: &[C],
        signed_key: &[u8],
        out: &mut impl Writer,
    ) -> Result<(), Full> {
        out.version_range(versions)?;
        out.short(session)?;
        if layout.fields_of(versions.max()) >= Version::IMPLIED_SESSION {
            CertificateChain::write(certificates, out)?;
            out.large(signed_key)?;
        }
        Ok(())
    }
}

/// The second block of a session, from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The version of the session.
    pub version: Version,
    /// The fingerprint of the relay that the client wants to talk to.
    pub fingerprint: &'a [u8],
    /// v7: the client's session key; without it there is no block encryption.
    pub key: Option<X25519Public>,
    /// v14: whether the client is a proxy.
    pub proxy: bool,
    /// v16: the client's service.
    pub service: Option<ClientService<'a>>,
}

/// A service's part of the client hello (v16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientService<'a> {
    /// What kind of service it is.
    pub role: ServiceRole,
    /// Its certificates, leaf first; the same as in TLS.
    pub chain: CertificateChain<'a>,
    /// Its Ed25519 session key, signed by the leaf.
    pub key: SignedKey<'a>,
}

/// What kind of service a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceRole {
    /// `M`: receives messages.
    Messaging,
    /// `N`: receives notifications.
    Notifier,
    /// `P`: forwards commands.
    Proxy,
}

impl ServiceRole {
    /// Its letter on the wire.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Messaging => b'M',
            Self::Notifier => b'N',
            Self::Proxy => b'P',
        }
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        match read.byte()? {
            b'M' => Some(Self::Messaging),
            b'N' => Some(Self::Notifier),
            b'P' => Some(Self::Proxy),
            _ => None,
        }
    }
}

impl<'a> ClientHello<'a> {
    /// Reads the content of a hello block; what follows the known fields is ignored.
    #[must_use]
    pub fn decode(content: &'a [u8]) -> Option<Self> {
        Self::decode_in(HelloLayout::Smp, content)
    }

    /// Reads the content of a hello block of this layout.
    #[must_use]
    pub fn decode_in(layout: HelloLayout, content: &'a [u8]) -> Option<Self> {
        let mut read = Reader::new(content);
        let version = read.version()?;
        let fields = layout.fields_of(version);
        let fingerprint = read.short()?;
        let mut hello = Self { version, fingerprint, key: None, proxy: false, service: None };
        if fields >= Version::IMPLIED_SESSION {
            // The key is optional without a marker: what cannot be read as one is not one.
            let mut ahead = read.clone();
            if let Some(key) = ahead.x25519() {
                hello.key = Some(key);
                read = ahead;
            }
        }
        if fields >= Version::PROXY_FLAG {
            hello.proxy = read.bool()?;
        }
        if fields >= Version::SERVICES {
            hello.service = read.maybe(|read| {
                Some(ClientService {
                    role: ServiceRole::read(read)?,
                    chain: CertificateChain::read(read)?,
                    key: SignedKey(read.large()?),
                })
            })?;
        }
        Some(hello)
    }

    /// Writes the content of a hello block, without the fields that its version does not have.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        self.encode_in(HelloLayout::Smp, out)
    }

    /// Writes the content of a hello block of this layout.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode_in(&self, layout: HelloLayout, out: &mut impl Writer) -> Result<(), Full> {
        let fields = layout.fields_of(self.version);
        out.u16(self.version.0)?;
        out.short(self.fingerprint)?;
        if let (true, Some(key)) = (fields >= Version::IMPLIED_SESSION, &self.key) {
            out.x25519(key)?;
        }
        if fields >= Version::PROXY_FLAG {
            out.bool(self.proxy)?;
        }
        if fields >= Version::SERVICES {
            out.maybe(self.service.as_ref(), |out, service| {
                out.byte(service.role.letter())?;
                out.put(service.chain.as_wire())?;
                out.large(service.key.0)
            })?;
        }
        Ok(())
    }
}

/// The third block of a service's handshake, from the relay (v16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceResponse {
    /// `R`: accepted under this service id.
    Accepted(Identifier),
    /// `E`: refused; the relay then closes.
    Refused(TransportError),
}

impl ServiceResponse {
    /// Reads the content of the block; what follows an id is ignored.
    #[must_use]
    pub fn decode(content: &[u8]) -> Option<Self> {
        let mut read = Reader::new(content);
        match read.byte()? {
            b'R' => read.identifier().map(Self::Accepted),
            b'E' => TransportError::decode(read.tail()).map(Self::Refused),
            _ => None,
        }
    }

    /// Writes the content of the block.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Accepted(service) => {
                out.byte(b'R')?;
                out.identifier(service)
            }
            Self::Refused(error) => {
                out.byte(b'E')?;
                error.encode(out)
            }
        }
    }
}
