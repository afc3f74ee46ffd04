//! Links, what is behind them, and agents' messages, against what the reference implementation reads and writes.

use std::fmt::Debug;

use smp_proto::wire::agent_message::{AgentEnvelope, AgentEnvelopeContent, AgentMessage, padded_lengths};
use smp_proto::wire::links::Link;
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::link_data::{
    FIXED_PADDED_LENGTH, FixedLinkData, OWNED_PADDED_LENGTH, OwnedLinkData, SIGNATURE_OVERHEAD,
    read_user_data, write_user_data,
};
use smp_proto::wire::links::ratchet_parameters::{KEM_VERSION, RatchetParameters};
use smp_proto::wire::links::short_link::{ContactKind, LinkScheme, ShortLink, ShortLinkTarget};
use smp_proto::wire::primitives::{Full, Reader};
use smp_tests::links_json;
use smp_tests::vectors::{self, Fields, Outcome, Vector};
use smp_tests::wire_json;

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Full>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    write(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

fn same<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{what}: got {got:?}, expected {expected:?}")) }
}

/// Reads all of the bytes.
fn read_all<'a, T>(bytes: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Result<T, String> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader).ok_or("its own bytes cannot be read")?;
    reader.end().ok_or("there are bytes left")?;
    Ok(value)
}

#[test]
fn full_links_are_read_and_written() {
    vectors::run("links.jsonl", "conn-link", |vector| {
        let Ok(read) = vector.input.text("text")?.parse::<ConnectionRequest>() else {
            return vector.output.expect_error();
        };
        if vector.output.has("error") {
            return Err(format!("read {read:?}, expected an error"));
        }
        same("request", &read, &links_json::request(&vector.output.get("ok"))?)?;
        vector.output.expect("canonical", read.to_string())?;
        let wire = written(|out| read.write(out))?;
        vector.output.expect_bytes("wire", &wire)?;
        let expected = links_json::request(&vector.output.get("wire_decoded"))?;
        same("from wire", &read_all(&wire, ConnectionRequest::read)?, &expected)
    });
}

const SHORT_LINK_DIFFERENCES: &[(&str, &str)] = &[
    ("short-contact-badport", "ports above 65535 are refused: nobody writes such a link"),
    ("short-inv-https-ipv6", "an IPv6 address before a path is written in brackets, as in every URL"),
    ("short-contact-https-ipv6", "an IPv6 address before a path is written in brackets, as in every URL"),
];

#[test]
fn short_links_are_read_and_written() {
    vectors::run_except("links.jsonl", "short-link", SHORT_LINK_DIFFERENCES, |vector| {
        let Ok(read) = vector.input.text("text")?.parse::<ShortLink>() else {
            return vector.output.expect_error();
        };
        if vector.output.has("error") {
            return Err(format!("read {read:?}, expected an error"));
        }
        let expected = links_json::short_link(&vector.output.get("ok"))?;
        same("link", &read, &expected)?;
        vector.output.expect("canonical", read.to_string())?;
        let wire = written(|out| read.write(out))?;
        vector.output.expect_bytes("wire", &wire)?;
        let from_wire = ShortLink { scheme: LinkScheme::Https, ..expected };
        same("from wire", &read_all(&wire, ShortLink::read)?, &from_wire)
    });
}

/// The two lines that differ above, but for the brackets.
#[test]
fn ipv6_in_links_is_read_bare_and_in_brackets() {
    for vector in vectors::read("links.jsonl").iter().filter(|vector| vector.id.ends_with("https-ipv6")) {
        if vector.kind != "short-link" {
            continue;
        }
        let text = vector.input.text("text").expect("text");
        let expected = links_json::short_link(&vector.output.get("ok")).expect("a link");
        assert_eq!(text.parse().as_ref(), Ok(&expected));
        let bracketed = text.replace("2001:db8::1", "[2001:db8::1]");
        assert_eq!(expected.to_string(), bracketed);
        assert_eq!(bracketed.parse().as_ref(), Ok(&expected));
    }
}

#[test]
fn links_of_both_kinds_are_told_apart() {
    vectors::run("links.jsonl", "any-link", |vector| match vector.input.text("text")?.parse::<Link>() {
        Err(_) => vector.output.expect_error(),
        Ok(Link::Full(_)) => vector.output.expect("ok", "full"),
        Ok(Link::Short(_)) => vector.output.expect("ok", "short"),
    });
}

#[test]
fn links_to_known_relays_are_shortened_and_restored() {
    vectors::run("links.jsonl", "shorten", |vector| {
        let presets: Vec<_> =
            vector.input.get("presets").items()?.iter().map(wire_json::server).collect::<Result<_, _>>()?;
        let key = vector.input.array("linkKey")?;
        let link = ShortLink {
            scheme: LinkScheme::Https,
            relay: wire_json::server(&vector.input.get("server"))?,
            target: ShortLinkTarget::Contact {
                kind: ContactKind::Contact,
                key: smp_proto::wire::links::short_link::LinkKeyBytes::new(key),
            },
        };
        vector.output.expect("long", link.to_string())?;
        let short = link.shortened(&presets);
        vector.output.expect("short", short.to_string())?;
        vector.output.expect("restored", short.restored(&presets).to_string())
    });
}

fn ratchet_of_a_range(vector: &Vector) -> Outcome {
    let parameters = links_json::ratchet(&vector.input.get("e2e"))?;
    let text = parameters.to_string();
    vector.output.expect("text", text.clone())?;
    let wire = written(|out| parameters.write(out))?;
    vector.output.expect_bytes("wire", &wire)?;
    same("from wire", &read_all(&wire, RatchetParameters::read)?, &parameters)?;
    // The text has no KEM below version 3.
    let kem = parameters.kem.clone().filter(|_| parameters.versions.max() >= KEM_VERSION);
    same("from text", &text.parse(), &Ok(RatchetParameters { kem, ..parameters }))
}

#[test]
fn ratchet_parameters_are_read_and_written() {
    vectors::run("links.jsonl", "e2e-params-uri", ratchet_of_a_range);
    vectors::run("ratchet.jsonl", "e2e-params-uri", ratchet_of_a_range);
    vectors::run("ratchet.jsonl", "e2e-params", |vector| {
        let parameters = links_json::ratchet(&vector.input)?;
        let wire = written(|out| parameters.write_agreed(out))?;
        vector.output.expect_bytes("wire", &wire)?;
        same("from wire", &read_all(&wire, RatchetParameters::read_agreed)?, &parameters)
    });
}

#[test]
fn user_data_has_two_forms() {
    vectors::run("links.jsonl", "user-link-data", |vector| {
        let data = vector.input.bytes("data")?;
        let wire = written(|out| write_user_data(&data, out))?;
        vector.output.expect_bytes("wire", &wire)?;
        same("from wire", &read_all(&wire, read_user_data)?, &data)
    });
}

/// What is signed; signatures and encryption are tested with `crypto`.
#[test]
fn link_data_are_written_and_read() {
    vectors::run("links.jsonl", "link-data", |vector| {
        let fits = |bytes: &[u8], padded: usize| 2 + SIGNATURE_OVERHEAD + bytes.len() <= padded;
        let fixed = links_json::fixed_data(&vector.input.get("fixed"))?;
        let bytes = written(|out| fixed.encode(out))?;
        same("the fixed part fits", &fits(&bytes, FIXED_PADDED_LENGTH), &true)?;
        if !vector.output.has("error") {
            vector.output.expect_bytes("fixedBytes", &bytes)?;
        }
        same("fixed data", &FixedLinkData::decode(&bytes), &Some(fixed))?;
        let owned = links_json::owned_data(&vector.input.get("user"))?;
        let bytes = written(|out| owned.encode(out))?;
        if !fits(&bytes, OWNED_PADDED_LENGTH) {
            return vector.output.expect_error();
        }
        vector.output.expect_bytes("userBytes", &bytes)?;
        same("user data", &OwnedLinkData::decode(&bytes), &Some(owned))
    });
}

fn expect_result<T: PartialEq + Debug>(
    result: &Fields,
    read: Option<T>,
    expected: impl Fn(&Fields) -> Result<T, String>,
) -> Outcome {
    match read {
        None if result.0 == "error" => Ok(()),
        None => Err(format!("refused, expected {}", result.shown())),
        Some(read) if result.0 == "error" => Err(format!("read {read:?}, expected an error")),
        Some(read) => same("result", &read, &expected(result)?),
    }
}

#[test]
fn link_data_of_others_are_read_or_refused() {
    vectors::run("links.jsonl", "fixed-data-parse", |vector| {
        let read = FixedLinkData::decode(&vector.input.bytes("hex")?)
            .filter(|data| matches!(data.request, ConnectionRequest::Invitation(..)));
        expect_result(&vector.output.get("result"), read, links_json::fixed_data)
    });
    vectors::run("links.jsonl", "user-data-parse", |vector| {
        let read = OwnedLinkData::decode(&vector.input.bytes("hex")?);
        let (invitation, contact) = match read {
            Some(read @ OwnedLinkData::Invitation { .. }) => (Some(read), None),
            Some(read @ OwnedLinkData::Contact { .. }) => (None, Some(read)),
            None => (None, None),
        };
        expect_result(&vector.output.get("invitation"), invitation, links_json::owned_data)?;
        expect_result(&vector.output.get("contact"), contact, links_json::owned_data)
    });
}

#[test]
fn envelopes_of_agents_are_written_and_read() {
    vectors::run("messages.jsonl", "agent-envelope", |vector| {
        let tail = if vector.input.has("tail") { vector.input.bytes("tail")? } else { Vec::new() };
        let e2e = vector.input.get("e2e");
        let ratchet = (!e2e.is_null()).then(|| links_json::ratchet(&e2e)).transpose()?;
        let content = match (vector.input.text("tag")?.as_str(), ratchet) {
            ("C", ratchet) => AgentEnvelopeContent::Confirmation { ratchet, encrypted: &tail },
            ("M", _) => AgentEnvelopeContent::Message(&tail),
            ("R", Some(ratchet)) => AgentEnvelopeContent::RatchetKey { ratchet, information: &tail },
            ("I", _) => AgentEnvelopeContent::Invitation {
                request: vector.input.text("connReq")?.parse().map_err(|error| format!("{error}"))?,
                information: &tail,
            },
            (other, _) => return Err(format!("unknown tag {other}")),
        };
        let envelope =
            AgentEnvelope { version: links_json::version(&vector.input, "agentVersion")?, content };
        let bytes = written(|out| envelope.encode(out))?;
        vector.output.expect_bytes("hex", &bytes)?;
        same("decoded", &AgentEnvelope::decode(&bytes), &Some(envelope))
    });
    vectors::run("messages.jsonl", "agent-envelope-parse", |vector| {
        let bytes = vector.input.bytes("hex")?;
        vector.output.expect("ok", AgentEnvelope::decode(&bytes).is_some())
    });
}

/// The vectors have no envelope of this kind.
#[test]
fn invitations_to_addresses_are_written_and_read() {
    let vectors = vectors::read("links.jsonl");
    for vector in vectors.iter().filter(|vector| vector.kind == "conn-link" && vector.output.has("canonical"))
    {
        let text = vector.output.text("canonical").expect("text");
        let content = AgentEnvelopeContent::Invitation {
            request: text.parse().expect("a canonical link"),
            information: b"information",
        };
        let envelope = AgentEnvelope { version: smp_proto::wire::version::Version(7), content };
        let bytes = written(|out| envelope.encode(out)).expect("room");
        let length = u16::try_from(text.len()).expect("a short link").to_be_bytes();
        let expected = [b"\x00\x07I", length.as_slice(), text.as_bytes(), b"information"].concat();
        assert_eq!(bytes, expected);
        assert_eq!(AgentEnvelope::decode(&bytes), Some(envelope));
    }
}

#[test]
fn messages_of_agents_are_written_and_read() {
    vectors::run("messages.jsonl", "agent-message", |vector| {
        let message = links_json::agent_message(&vector.input.get("message"))?;
        let bytes = written(|out| message.encode(out))?;
        vector.output.expect_bytes("hex", &bytes)?;
        let expected = match vector.output.get("decoded") {
            decoded if decoded.is_null() => message,
            decoded => links_json::agent_message(&decoded)?,
        };
        same("decoded", &AgentMessage::decode(&bytes), &Some(expected))
    });
    vectors::run("messages.jsonl", "agent-message-parse", |vector| {
        let bytes = vector.input.bytes("hex")?;
        match AgentMessage::decode(&bytes) {
            None => vector.output.expect_error(),
            Some(read) => Err(format!("read {read:?}, expected {}", vector.output.shown())),
        }
    });
    // `I` is in the agent's published protocol, and not in the vectors.
    let information = AgentMessage::ConnectionInformation(b"information");
    let bytes = written(|out| information.encode(out)).expect("room");
    assert_eq!(bytes, b"Iinformation");
    assert_eq!(AgentMessage::decode(&bytes), Some(information));
}

#[test]
fn agents_pad_to_these_lengths() {
    vectors::run("messages.jsonl", "agent-lengths", |vector| {
        let version = links_json::version(&vector.input, "agentVersion")?;
        let (information, message) = padded_lengths(version, vector.input.boolean("pqSupport")?);
        vector.output.expect("connInfo", information)?;
        vector.output.expect("message", message)
    });
}
