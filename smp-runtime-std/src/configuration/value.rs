//! Reading the values of `smp-server.ini`.

use core::ops::RangeInclusive;
use std::net::IpAddr;

/// What was wrong with a value: what would be allowed, for the operator.
pub(super) struct NotAllowed(pub(super) String);

pub(super) fn on_off(text: &str) -> Result<bool, NotAllowed> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(NotAllowed("`on` or `off`".into())),
    }
}

/// A key that is known for compatibility and has one value only.
pub(super) fn only(text: &str, allowed: &'static str) -> Result<(), NotAllowed> {
    if text == allowed { Ok(()) } else { Err(NotAllowed(format!("only `{allowed}`"))) }
}

pub(super) fn integer(text: &str, range: RangeInclusive<u64>) -> Result<u64, NotAllowed> {
    match text.parse::<u64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(NotAllowed(format!("a whole number from {} to {}", range.start(), range.end()))),
    }
}

pub(super) fn ports(text: &str) -> Result<Vec<u16>, NotAllowed> {
    let not_allowed = || NotAllowed("ports from 0 to 65535, separated by commas".into());
    let ports: Vec<u16> = text
        .split(',')
        .map(|port| port.trim().parse().map_err(|_| not_allowed()))
        .collect::<Result<_, _>>()?;
    let mut given: Vec<u16> = ports.iter().copied().filter(|port| *port != 0).collect();
    given.sort_unstable();
    if given.windows(2).any(|pair| matches!(pair, [first, second] if first == second)) {
        return Err(NotAllowed("each port once".into()));
    }
    Ok(ports)
}

/// IP addresses, IPv6 ones with or without brackets.
pub(super) fn addresses(text: &str, empty_allowed: bool) -> Result<Vec<IpAddr>, NotAllowed> {
    if empty_allowed && text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|address| {
            let address = address.trim();
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            bare.parse().map_err(|_| NotAllowed("IPv4 or IPv6 addresses, separated by commas".into()))
        })
        .collect()
}

/// Hosts as they appear in an address (WIRE-FACTS 11.5): kept as given, without white space around them.
pub(super) fn hosts(text: &str) -> Result<Vec<String>, NotAllowed> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|host| {
            let host = host.trim();
            let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
            let plausible = !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
            if plausible || bare.parse::<IpAddr>().is_ok() {
                Ok(host.to_owned())
            } else {
                Err(NotAllowed("domain names, IP addresses or onion names, separated by commas".into()))
            }
        })
        .collect()
}

/// A host and a port.
pub(super) fn host_and_port(text: &str) -> Result<String, NotAllowed> {
    let not_allowed = || NotAllowed("a host and a port, such as `localhost:9050`".into());
    let (host, port) = text.rsplit_once(':').ok_or_else(not_allowed)?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match bare {
        Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(':') && hosts(host).is_ok_and(|hosts| hosts.len() == 1),
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && is_host => Ok(text.to_owned()),
        _ => Err(not_allowed()),
    }
}

/// Domains, separated by spaces.
pub(super) fn domains(text: &str) -> Result<Vec<String>, NotAllowed> {
    text.split_whitespace()
        .map(|domain| match hosts(domain) {
            Ok(_) if !domain.contains(',') => Ok(domain.trim_start_matches('.').to_ascii_lowercase()),
            _ => Err(NotAllowed("domain names, separated by spaces".into())),
        })
        .collect()
}

/// A password as it may appear in an address (WIRE-FACTS 1, `BasicAuth`).
pub(super) fn password(text: &str) -> Result<String, NotAllowed> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b':' | b'/');
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(NotAllowed("1 to 255 printable ASCII characters, without space, `@`, `:` and `/`".into()))
    }
}
