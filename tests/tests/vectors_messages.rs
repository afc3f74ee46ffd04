//! What agents and clients send each other, against what the reference implementation reads and writes. What needs keys is
//! in `vectors_crypto`.

use std::fmt::Debug;

use smp_proto::wire::agent_message::{AgentEnvelope, AgentEnvelopeContent, AgentMessage, padded_lengths};
use smp_proto::wire::primitives::Full;
use smp_proto::wire::version::Version;
use smp_tests::links_json;
use smp_tests::vectors::{self, Outcome};

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Full>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    write(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

fn same<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{what}: got {got:?}, expected {expected:?}")) }
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
        let envelope = AgentEnvelope { version: Version(7), content };
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
