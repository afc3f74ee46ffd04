//! Addresses of relays, as text and as bytes (WIRE-FACTS 1, 11.1, 11.5).

use alloc::string::String;
use alloc::vec::Vec;

/// Where a relay is and who it is: hosts, port, and the fingerprint of its identity certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// SHA-256 of the DER of the relay's identity certificate: 32 bytes normally.
    pub fingerprint: Vec<u8>,
    /// At least one host.
    pub hosts: Vec<Host>,
    /// Decimal text as it was given, empty for the default (5223).
    pub port: String,
}

/// One host of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(core::net::IpAddr),
    /// An onion name.
    Onion(String),
    /// A domain name.
    Domain(String),
}
