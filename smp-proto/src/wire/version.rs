//! Protocol versions (WIRE-FACTS 6).

/// A version of SMP: 2 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16);

impl Version {
    /// The oldest version that deployed peers speak.
    pub const OLDEST: Self = Self(6);
    /// Keys in both hellos, authenticators, implied session id.
    pub const IMPLIED_SESSION: Self = Self(7);
    /// Proxied commands; bodies of at most 16,064 bytes.
    pub const PROXY: Self = Self(8);
    /// `SKEY`; queue modes.
    pub const SECURE_BY_SENDER: Self = Self(9);
    /// `DELD`.
    pub const DELETED_EVENT: Self = Self(10);
    /// Block encryption; bodies of at most 16,048 bytes.
    pub const BLOCK_ENCRYPTION: Self = Self(11);
    /// `BLOCKED`.
    pub const BLOCKED: Self = Self(12);
    /// The proxy flag in the client hello.
    pub const PROXY_FLAG: Self = Self(14);
    /// Short links.
    pub const SHORT_LINKS: Self = Self(15);
    /// Service certificates.
    pub const SERVICES: Self = Self(16);
    /// Notifier credentials in `NEW`.
    pub const NOTIFIER_IN_NEW: Self = Self(17);
    /// Notices in `BLOCKED`.
    pub const BLOCKED_NOTICE: Self = Self(18);

    /// The largest `SEND` body at this version, in bytes (WIRE-FACTS 6).
    #[must_use]
    pub const fn max_message_length(self) -> usize {
        match self.0 {
            0..8 => 16_088,
            8..11 => 16_064,
            _ => 16_048,
        }
    }
}

/// A range of versions that one side offers: 4 bytes on the wire. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    min: Version,
    max: Version,
}

impl VersionRange {
    /// The range from `min` to `max`, `None` when that is empty.
    #[must_use]
    pub const fn new(min: Version, max: Version) -> Option<Self> {
        if min.0 <= max.0 { Some(Self { min, max }) } else { None }
    }

    /// The range between two versions, whichever is the older.
    #[must_use]
    pub const fn between(one: Version, other: Version) -> Self {
        if one.0 <= other.0 { Self { min: one, max: other } } else { Self { min: other, max: one } }
    }

    /// A range of one version.
    #[must_use]
    pub const fn only(version: Version) -> Self {
        Self { min: version, max: version }
    }

    /// The oldest version in the range.
    #[must_use]
    pub const fn min(self) -> Version {
        self.min
    }

    /// The newest version in the range.
    #[must_use]
    pub const fn max(self) -> Version {
        self.max
    }

    /// Whether `version` is in the range.
    #[must_use]
    pub fn contains(self, version: Version) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// What both ranges have in common.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.min.max(other.min), self.max.min(other.max))
    }
}
