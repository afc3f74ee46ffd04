//! Short byte strings that name things on the wire: entities, correlations, messages (WIRE-FACTS 1, 4.7).
//!
//! Nearly all of them are 24 bytes, but a peer may send up to 255, and a relay must echo what it got. They are kept
//! inline up to 24 bytes, so that the usual ones cost no allocation.

use alloc::boxed::Box;
use core::cmp::Ordering;
use core::hash::{Hash, Hasher};

/// The length that relays and clients give to identifiers they make: 24 bytes, also the length of a box nonce.
pub const IDENTIFIER_LENGTH: usize = 24;

#[derive(Clone)]
enum Repr {
    Inline { length: u8, bytes: [u8; IDENTIFIER_LENGTH] },
    Long(Box<[u8]>),
}

/// A byte string of 0 to 255 bytes.
#[derive(Clone)]
pub struct Identifier(Repr);

impl Identifier {
    /// The empty identifier: "no entity", or the correlation of what a relay sends by itself.
    pub const EMPTY: Self = Self(Repr::Inline { length: 0, bytes: [0; IDENTIFIER_LENGTH] });

    /// Keeps a copy of `bytes`; `None` when there are more than 255.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > 255 {
            return None;
        }
        let mut inline = [0; IDENTIFIER_LENGTH];
        Some(Self(match inline.get_mut(..bytes.len()) {
            Some(start) => {
                start.copy_from_slice(bytes);
                Repr::Inline { length: u8::try_from(bytes.len()).ok()?, bytes: inline }
            }
            None => Repr::Long(bytes.into()),
        }))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Repr::Long(bytes) => bytes,
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The bytes as a full-length identifier, `None` when there are more or fewer than 24.
    #[must_use]
    pub fn as_full(&self) -> Option<&[u8; IDENTIFIER_LENGTH]> {
        match &self.0 {
            Repr::Inline { length, bytes } if usize::from(*length) == IDENTIFIER_LENGTH => Some(bytes),
            _ => None,
        }
    }
}

impl From<[u8; IDENTIFIER_LENGTH]> for Identifier {
    fn from(bytes: [u8; IDENTIFIER_LENGTH]) -> Self {
        Self(Repr::Inline { length: 24, bytes })
    }
}

impl PartialEq for Identifier {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
impl Eq for Identifier {}
impl PartialOrd for Identifier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Identifier {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}
impl Hash for Identifier {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}
impl Default for Identifier {
    fn default() -> Self {
        Self::EMPTY
    }
}
/// Identifiers are never printed: only how long they are.
impl core::fmt::Debug for Identifier {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Identifier({} bytes)", self.as_bytes().len())
    }
}

/// Names the entity that a command is about: a recipient, sender, notifier, link or service id, or nothing.
pub type EntityId = Identifier;
/// Ties a response to its command; clients send 24 random bytes, which also serve as a nonce.
pub type CorrelationId = Identifier;
