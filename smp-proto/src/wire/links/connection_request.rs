//! Connection requests: full links, and what short links lead to (WIRE-FACTS 8.1, 11.3).
//!
//! Text: `simplex:/invitation#/?v=…&smp=…&e2e=…[&data=…]` or `simplex:/contact#/?v=…&smp=…[&data=…]`; readers also take
//! `https://` and any host in place of `simplex:`, and forget it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::str::FromStr;

use super::ratchet_parameters::RatchetParameters;
use super::{LinkError, RatchetPart, split_scheme};
use crate::wire::address::read_authority;
use crate::wire::command::QueueMode;
use crate::wire::percent_encoding::{Escaped, Query, decode_utf8, unescape_query};
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::queue_uri::{QueueUri, TextVersions, read_versions};
use crate::wire::version::{Version, VersionRange};

/// What somebody needs to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionRequest {
    /// `I`: for one person, once.
    Invitation(RequestData, RatchetParameters),
    /// `C`: an address, for anybody.
    Contact(RequestData),
}

/// What both kinds of connection requests have.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestData {
    /// Versions of the agent's protocol, not of SMP: 2 to 7.
    pub versions: VersionRange,
    /// At least one queue.
    pub queues: Vec<QueueUri>,
    /// What the application wants to tell.
    pub client_data: Option<String>,
}

/// What applications tell is not shown.
impl fmt::Debug for RequestData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RequestData")
            .field("versions", &self.versions)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// The oldest version of the agent's protocol that contact addresses are for; older ones are read as this one.
const OLDEST_OF_CONTACT: Version = Version(2);

impl ConnectionRequest {
    /// What both kinds have.
    #[must_use]
    pub const fn data(&self) -> &RequestData {
        match self {
            Self::Invitation(data, _) | Self::Contact(data) => data,
        }
    }

    /// Reads the binary form.
    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        match read.byte()? {
            b'I' => Some(Self::Invitation(RequestData::read(read)?, RatchetParameters::read(read)?)),
            b'C' => RequestData::read(read).map(Self::Contact),
            _ => None,
        }
    }

    /// Writes the binary form.
    ///
    /// # Errors
    /// [`Full`] when it does not fit, or there are more than 255 queues.
    pub fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Invitation(data, ratchet) => {
                out.byte(b'I')?;
                data.write(out)?;
                ratchet.write(out)
            }
            Self::Contact(data) => {
                out.byte(b'C')?;
                data.write(out)
            }
        }
    }
}

impl RequestData {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let versions = read.version_range()?;
        let queues = read.list(1, |read| {
            let mut queue = QueueUri::read(read)?;
            // Contact addresses are older than modes.
            queue.mode = queue.mode.or(Some(QueueMode::Contact));
            Some(queue)
        })?;
        let client_data = read.maybe(Reader::large)?.map(decode_utf8);
        Some(Self { versions, queues, client_data })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.version_range(self.versions)?;
        out.list(&self.queues, |out, queue| queue.write(out))?;
        out.maybe(self.client_data.as_ref(), |out, data| out.large(data.as_bytes()))
    }
}

impl FromStr for ConnectionRequest {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (authority, rest) = split_scheme(text)?;
        if let Some(authority) = authority {
            // A web page, which is forgotten.
            let (hosts, _) = read_authority(authority).map_err(|_| LinkError::Scheme)?;
            if hosts.len() != 1 {
                return Err(LinkError::Scheme);
            }
        }
        let (invitation, rest) = match (rest.strip_prefix("/invitation"), rest.strip_prefix("/contact")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(LinkError::Kind),
        };
        let query = Query(rest.strip_prefix('/').unwrap_or(rest).strip_prefix("#/?").ok_or(LinkError::Kind)?);
        let versions = query.get("v").and_then(read_versions).ok_or(LinkError::Versions)?;
        let queues = query.get("smp").map(unescape_query).ok_or(LinkError::Queues)?;
        let queues = queues.split(';').map(str::parse).collect::<Result<_, _>>().map_err(LinkError::Queue)?;
        let mut data = RequestData { versions, queues, client_data: query.get("data").map(unescape_query) };
        if invitation {
            let ratchet = query.get("e2e").map(unescape_query);
            let ratchet = ratchet.ok_or(LinkError::Ratchet(RatchetPart::Missing))?;
            return Ok(Self::Invitation(data, ratchet.parse().map_err(LinkError::Ratchet)?));
        }
        let not_older = |version: Version| version.max(OLDEST_OF_CONTACT);
        data.versions = VersionRange::between(not_older(versions.min()), not_older(versions.max()));
        Ok(Self::Contact(data))
    }
}

impl fmt::Display for ConnectionRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Invitation(..) => "simplex:/invitation#/?",
            Self::Contact(_) => "simplex:/contact#/?",
        })?;
        let RequestData { versions, queues, client_data } = self.data();
        write!(formatter, "v={}&smp=", TextVersions(*versions))?;
        let mut list = String::new();
        for queue in queues {
            let separator = if list.is_empty() { "" } else { ";" };
            write!(list, "{separator}{queue}")?;
        }
        Escaped(&list).fmt(formatter)?;
        if let Self::Invitation(_, ratchet) = self {
            write!(formatter, "&e2e={}", Escaped(&ratchet.to_string()))?;
        }
        match client_data {
            Some(data) => write!(formatter, "&data={}", Escaped(data)),
            None => Ok(()),
        }
    }
}
