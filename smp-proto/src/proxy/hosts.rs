//! Which hosts of a destination's address a proxy may use, and where it must never connect.
//!
//! Decides only: names are resolved by whoever dials, and what they resolve to is asked again
//! ([`is_public`]), so that a name cannot be changed in between. A proxy dials whatever clients name: without these
//! rules it would be a way into its own network.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::address::{Host, ServerAddress};

/// Which host is preferred when a destination has several (`host_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HostMode {
    /// Names and addresses of the open internet.
    #[default]
    Public,
    /// Onion names.
    Onion,
}

/// What goes through a SOCKS proxy (`socks_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SocksMode {
    /// Nothing: there is none.
    #[default]
    Never,
    /// Onion names.
    Onion,
    /// Everything.
    Always,
}

/// How destinations are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HostPolicy {
    /// Which hosts are preferred.
    pub mode: HostMode,
    /// Whether only hosts of that kind may be used (`required_host_mode`).
    pub required: bool,
    /// What goes through SOCKS.
    pub socks: SocksMode,
    /// Whether private and loopback addresses may be dialled: for tests, and relays of one private network.
    pub allow_private: bool,
}

/// One way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// Connect to it; a name is resolved here, and every address that it has is to be checked.
    Direct(&'a Host),
    /// Have the SOCKS proxy connect to it, and resolve its name.
    Socks(&'a Host),
}

impl HostPolicy {
    /// The ways to a destination, best first; none when no host of the address may be used.
    #[must_use]
    pub fn ways<'a>(&self, address: &'a ServerAddress) -> Vec<Way<'a>> {
        let wants_onion = self.mode == HostMode::Onion && self.socks != SocksMode::Never;
        let preferred = |host: &&Host| is_onion(host) == wants_onion;
        let others = address.hosts.iter().filter(|host| !preferred(host) && !self.required);
        address.hosts.iter().filter(preferred).chain(others).filter_map(|host| self.way(host)).collect()
    }

    fn way<'a>(&self, host: &'a Host) -> Option<Way<'a>> {
        match (host, self.socks) {
            (Host::Ip(ip), _) if !self.may_dial(*ip) => None,
            (Host::Onion(_), SocksMode::Never) => None,
            (Host::Onion(_), _) | (_, SocksMode::Always) => Some(Way::Socks(host)),
            _ => Some(Way::Direct(host)),
        }
    }

    /// Whether this address may be connected to.
    #[must_use]
    pub fn may_dial(&self, ip: IpAddr) -> bool {
        self.allow_private || is_public(ip)
    }
}

const fn is_onion(host: &Host) -> bool {
    matches!(host, Host::Onion(_))
}

/// Whether a host may be one of the open internet, as far as can be told without looking up its name.
#[must_use]
pub fn may_be_public(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => is_public(*ip),
        Host::Domain(name) => {
            let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
            !last.eq_ignore_ascii_case("localhost")
        }
        Host::Onion(_) => true,
    }
}

/// Whether an address is one of the open internet: not loopback, private, link-local, shared, reserved or multicast,
/// and no IPv6 form of such an IPv4 address.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

const fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(inside) = ip.to_ipv4() {
        // Mapped and (deprecated) compatible addresses, and with them `::` and `::1`.
        return is_public_v4(inside) && !ip.is_loopback() && !ip.is_unspecified();
    }
    let [a, b, c, d, .., g, h] = ip.segments();
    let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        // 6to4 and NAT64 lead to IPv4 addresses.
        (0x2002, _) => embedded(b, c),
        (0x0064, 0xff9b) => c == 0 && d == 0 && embedded(g, h),
        // Teredo, benchmarking, ORCHID, documentation: the special part of 2001::/16.
        (0x2001, 0..=0x01ff | 0x0db8) => false,
        (0x3fff, 0..=0x0fff) => false,
        // Global unicast.
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(hosts: &str) -> ServerAddress {
        alloc::format!("smp://AAAA@{hosts}").parse().unwrap()
    }

    fn ways(policy: HostPolicy, hosts: &str) -> Vec<alloc::string::String> {
        let address = address(hosts);
        policy
            .ways(&address)
            .into_iter()
            .map(|way| match way {
                Way::Direct(host) => alloc::format!("{host}"),
                Way::Socks(host) => alloc::format!("socks {host}"),
            })
            .collect()
    }

    #[test]
    fn hosts_are_chosen_by_mode() {
        let both = "smp.example.com,abc.onion";
        let public = HostPolicy::default();
        assert_eq!(ways(public, both), ["smp.example.com"]);
        assert!(ways(public, "abc.onion").is_empty());
        let tor = HostPolicy { socks: SocksMode::Onion, ..public };
        assert_eq!(ways(tor, both), ["smp.example.com", "socks abc.onion"]);
        assert_eq!(ways(HostPolicy { required: true, ..tor }, both), ["smp.example.com"]);
        assert!(ways(HostPolicy { required: true, ..tor }, "abc.onion").is_empty());
        let onion = HostPolicy { mode: HostMode::Onion, ..tor };
        assert_eq!(ways(onion, both), ["socks abc.onion", "smp.example.com"]);
        assert_eq!(ways(HostPolicy { required: true, ..onion }, both), ["socks abc.onion"]);
        assert!(ways(HostPolicy { required: true, ..onion }, "smp.example.com").is_empty());
        let always = HostPolicy { socks: SocksMode::Always, ..public };
        assert_eq!(ways(always, both), ["socks smp.example.com", "socks abc.onion"]);
        // Without a SOCKS proxy an onion host cannot be preferred.
        assert_eq!(ways(HostPolicy { mode: HostMode::Onion, ..public }, both), ["smp.example.com"]);
    }

    #[test]
    fn private_addresses_are_no_way_even_through_socks() {
        for socks in [SocksMode::Never, SocksMode::Always] {
            let policy = HostPolicy { socks, ..HostPolicy::default() };
            assert!(ways(policy, "127.0.0.1,10.0.0.1,[::1],[::ffff:192.168.1.1]").is_empty());
            assert_eq!(ways(policy, "10.0.0.1,8.8.8.8").len(), 1);
            assert_eq!(ways(HostPolicy { allow_private: true, ..policy }, "127.0.0.1").len(), 1);
        }
    }

    #[test]
    fn what_is_not_of_the_open_internet_is_known() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2a00::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}
