//! Everything in `wire`, against what the reference implementation reads and writes.

use std::fmt::Debug;

use smp_proto::wire::address::{AddressWithPassword, ServerAddress};
use smp_proto::wire::base64url;
use smp_proto::wire::block;
use smp_proto::wire::command::Command;
use smp_proto::wire::error::{BrokerError, NetworkError, SmpError, TransportError};
use smp_proto::wire::hello::{CertificateChain, SignedKey};
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::primitives::{Full, Reader, Writer};
use smp_proto::wire::queue_uri::QueueUri;
use smp_proto::wire::response::Response;
use smp_proto::wire::transmission::{
    Authorization, Batch, BatchWriter, Malformed, SessionLayout, Transmission, write_head,
};
use smp_proto::wire::version::Version;
use smp_tests::vectors::{self, Fields, Outcome};
use smp_tests::wire_json;

const SESSION: [u8; 32] = {
    let mut session = [0; 32];
    let mut place = 0;
    while place < 32 {
        session[place] = 200 + place as u8;
        place += 1;
    }
    session
};

fn version(fields: &Fields) -> Result<Version, String> {
    fields.integer("v").map(|v| Version(v as u16))
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), Full>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    write(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

fn same<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{what}: got {got:?}, expected {expected:?}")) }
}

#[test]
fn commands_are_written_and_read() {
    vectors::run("commands.jsonl", "command", |vector| {
        let version = version(&vector.input)?;
        let command = wire_json::command(&vector.input.get("cmd"))?;
        let bytes = written(|out| command.encode(version, out))?;
        vector.output.expect_bytes("hex", &bytes)?;
        let expected = match vector.output.get("decoded") {
            decoded if decoded.is_null() => command,
            decoded => wire_json::command(&decoded)?,
        };
        let decoded = Command::decode(&bytes, version).map_err(|error| format!("{error:?}"))?;
        same("decoded", &decoded, &expected)
    });
}

/// A transmission with the given parts, as the parse tests of the vectors describe it.
fn transmission(vector: &vectors::Vector) -> Result<(Vec<u8>, Version), String> {
    let version = version(&vector.input)?;
    let correlation = Identifier::new(&(100..124).collect::<Vec<u8>>()).ok_or("correlation")?;
    let entity = Identifier::new(&vector.input.bytes("entityId")?).ok_or("entity")?;
    let authorization = vector.input.bytes("authorization")?;
    let layout = SessionLayout { version, session: &SESSION };
    let mut bytes = Vec::new();
    if let Some(authorization) = Authorization::of_length(&authorization) {
        write_head(authorization, None, layout, &correlation, &entity, &mut bytes)
            .map_err(|e| e.to_string())?;
    } else {
        return Err("an authorization of a length that none has".into());
    }
    bytes.extend(vector.input.bytes("hex")?);
    Ok((bytes, version))
}

fn expect_malformed(output: &Fields, malformed: &Malformed) -> Outcome {
    output.expect("error", malformed.error.to_string())?;
    output.expect_bytes("corrId", malformed.correlation.as_bytes())?;
    output.expect_bytes("entityId", malformed.entity.as_bytes())
}

/// Where we refuse what only an attacker would send.
const COMMAND_DIFFERENCES: &[(&str, &str)] = &[(
    "parse-PRXY-badport-v18",
    "a port that is not a number is refused when it is read, not when it is dialled",
)];

#[test]
fn transmissions_of_commands_are_read_or_refused() {
    vectors::run_except("commands.jsonl", "parse-command", COMMAND_DIFFERENCES, |vector| {
        let (bytes, version) = transmission(vector)?;
        let layout = SessionLayout { version, session: &SESSION };
        match Transmission::decode_command(&bytes, layout) {
            Ok(read) if vector.output.has("ok") => {
                same("command", &read.content, &wire_json::command(&vector.output.get("ok"))?)?;
                let canonical = written(|out| read.content.encode(version, out))?;
                if vector.output.has("canonical") {
                    vector.output.expect_bytes("canonical", &canonical)?;
                }
                Ok(())
            }
            Ok(read) => Err(format!("read {:?}, expected {}", read.content, vector.output.shown())),
            Err(malformed) => expect_malformed(&vector.output, &malformed),
        }
    });
}

#[test]
fn credentials_are_required_or_forbidden() {
    vectors::run("commands.jsonl", "credentials", |vector| {
        let (bytes, version) = transmission(vector)?;
        match Transmission::decode_command(&bytes, SessionLayout { version, session: &SESSION }) {
            Ok(_) if vector.output.has("ok") => Ok(()),
            Ok(_) => Err(format!("accepted, expected {}", vector.output.shown())),
            Err(malformed) => expect_malformed(&vector.output, &malformed),
        }
    });
}

#[test]
fn responses_are_written_and_read() {
    vectors::run("responses.jsonl", "response", |vector| {
        let version = version(&vector.input)?;
        let msg = vector.input.get("msg");
        let tag = msg.text("tag")?;
        if tag == "INFO" || tag == "PKEY" {
            return composed_response(vector, version, &tag);
        }
        let response = wire_json::response(&msg)?;
        let bytes = written(|out| response.encode(version, out))?;
        vector.output.expect_bytes("hex", &bytes)?;
        if vector.output.has("decode_error") {
            return match Response::decode(&bytes, version) {
                Ok(read) => Err(format!("read {read:?}, expected an error")),
                Err(_) => Ok(()),
            };
        }
        let expected = match vector.output.get("decoded") {
            decoded if decoded.is_null() => response,
            decoded => wire_json::response(&decoded)?,
        };
        same("decoded", &Response::decode(&bytes, version).map_err(|error| format!("{error:?}"))?, &expected)
    });
}

/// `INFO` and `PKEY`, whose nested parts are bytes here.
fn composed_response(vector: &vectors::Vector, version: Version, tag: &str) -> Outcome {
    let msg = vector.input.get("msg");
    if tag == "INFO" {
        let bytes = vector.output.bytes("hex")?;
        let read = Response::decode(&bytes, version).map_err(|error| format!("{error:?}"))?;
        let Response::Information(text) = read else { return Err(format!("read {read:?}")) };
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        same("information", &json, &msg.get("info").0)?;
        return vector.output.expect_bytes("hex", &written(|out| read.encode(version, out))?);
    }
    let cert_key = msg.get("certKey");
    let certificates =
        cert_key.get("certChain").items()?.iter().map(Fields::as_bytes).collect::<Result<Vec<_>, _>>()?;
    let chain = written(|out| CertificateChain::write(&certificates, out))?;
    let key = cert_key.bytes("signedKey")?;
    let response = Response::ProxySession {
        session: Identifier::new(&msg.bytes("sessionId")?).ok_or("sessionId")?,
        versions: wire_json::version_range(&msg, "versionRange")?,
        chain: CertificateChain::read(&mut Reader::new(&chain)).ok_or("chain")?,
        key: SignedKey(&key),
    };
    let bytes = written(|out| response.encode(version, out))?;
    vector.output.expect_bytes("hex", &bytes)?;
    same("decoded", &Response::decode(&bytes, version).map_err(|error| format!("{error:?}"))?, &response)
}

/// Where a reader leaves more to its caller than the reference's.
const RESPONSE_DIFFERENCES: &[(&str, &str)] = &[(
    "parse-info-missing-v18",
    "the text of INFO is handed on as it is: it is for people, and nothing depends on it",
)];

#[test]
fn responses_of_others_are_read_or_refused() {
    vectors::run_except("responses.jsonl", "parse-response", RESPONSE_DIFFERENCES, |vector| {
        let version = version(&vector.input)?;
        let bytes = vector.input.bytes("hex")?;
        match Response::decode(&bytes, version) {
            Ok(Response::Information(_)) if vector.output.has("ok") => Ok(()),
            Ok(read) if vector.output.has("ok") => {
                same("response", &read, &wire_json::response(&vector.output.get("ok"))?)?;
                vector.output.expect_bytes("canonical", &written(|out| read.encode(version, out))?)
            }
            Ok(read) => Err(format!("read {read:?}, expected {}", vector.output.shown())),
            Err(error) => vector.output.expect("error", SmpError::from(error).to_string()),
        }
    });
}

#[test]
fn errors_have_their_text() {
    vectors::run("responses.jsonl", "error-text", |vector| {
        let error = wire_json::smp_error(&vector.input.get("error"))?;
        let bytes = written(|out| error.encode(out))?;
        vector.output.expect_bytes("smp", &bytes)?;
        vector.output.expect("text", error.to_string())?;
        let read = SmpError::decode(&bytes).ok_or("its own bytes cannot be read")?;
        same("read again", &written(|out| read.encode(out))?, &bytes)
    });
    vectors::run("responses.jsonl", "broker-error", |vector| {
        let error = wire_json::broker_error(&vector.input.get("error"))?;
        let bytes = written(|out| error.encode(out))?;
        vector.output.expect_bytes("smp", &bytes)?;
        let decoded = wire_json::broker_error(&vector.output.get("decoded"))?;
        same("decoded", &BrokerError::decode(&bytes), &Some(decoded))
    });
    vectors::run("responses.jsonl", "transport-error", |vector| {
        let error = wire_json::transport_error(&vector.input.get("error"))?;
        vector.output.expect_bytes("smp", error.text().as_bytes())?;
        same("decoded", &TransportError::decode(error.text().as_bytes()), &Some(error))
    });
    vectors::run("responses.jsonl", "network-error", |vector| {
        let error = wire_json::network_error(&vector.input.get("error"))?;
        let bytes = written(|out| error.encode(out))?;
        vector.output.expect_bytes("smp", &bytes)?;
        same("decoded", &NetworkError::decode(&bytes), &Some(error))
    });
}

#[test]
fn blocks_are_cut_into_transmissions() {
    vectors::run("transmissions.jsonl", "parse-block", |vector| {
        let session = vector.input.bytes("sessionId")?;
        let layout = SessionLayout { version: version(&vector.input)?, session: &session };
        let content = vector.input.bytes("content")?;
        let results = vector.output.get("results").items()?;
        let Some(batch) = Batch::parse(&content) else {
            same("results", &results.len(), &1)?;
            return expect_malformed(&results[0], &Malformed::UNREADABLE);
        };
        same("results", &results.len(), &batch.len())?;
        for (bytes, result) in batch.zip(&results) {
            match Transmission::decode_command(bytes, layout) {
                Err(malformed) => expect_malformed(result, &malformed)?,
                Ok(read) => {
                    same("command", &read.content, &wire_json::command(&result.get("ok"))?)?;
                    result.expect_bytes("corrId", read.correlation.as_bytes())?;
                    result.expect_bytes("entityId", read.entity.as_bytes())?;
                    let authorized = written(|out| {
                        out.short(&session)?;
                        out.put(read.signed_tail)
                    })?;
                    result.expect_bytes("authorized", &authorized)?;
                    let auth = result.get("auth");
                    let kind = match read.authorization {
                        Authorization::None => None,
                        Authorization::Authenticator(_) => Some("x25519"),
                        Authorization::Ed25519(_) => Some("ed25519"),
                        Authorization::Ed448(_) => Some("ed448"),
                    };
                    match kind {
                        None => same("auth", &auth.is_null(), &true)?,
                        Some(kind) => {
                            auth.expect("kind", kind)?;
                            auth.expect_optional_bytes(
                                "serviceSignature",
                                read.service_signature.map(<[u8; 64]>::as_slice),
                            )?;
                        }
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn transmissions_of_relays_are_written_and_read() {
    vectors::run("transmissions.jsonl", "response-transmission", |vector| {
        let session = vector.input.bytes("sessionId")?;
        let layout = SessionLayout { version: version(&vector.input)?, session: &session };
        let id = |key| Identifier::new(&vector.input.bytes(key)?).ok_or(format!("{key}: too long"));
        let (correlation, entity) = (id("corrId")?, id("entityId")?);
        let response = wire_json::response(&vector.input.get("msg"))?;
        let transmission = written(|out| {
            write_head(Authorization::None, None, layout, &correlation, &entity, out)?;
            response.encode(layout.version, out)
        })?;
        vector.output.expect_bytes("transmission", &transmission)?;
        let mut content = vec![0; block::PLAIN_CONTENT_LENGTH];
        let mut writer = BatchWriter::new(&mut content).map_err(|error| error.to_string())?;
        writer.add(|out| out.put(&transmission)).map_err(|error: Full| error.to_string())?;
        let length = writer.finish();
        vector.output.expect_bytes("block", &content[..length])?;
        let read = Transmission::decode_response(&transmission, layout);
        let read = read.map_err(|malformed| format!("{malformed:?}"))?;
        same("read", &(read.correlation, read.entity), &(correlation, entity))?;
        // Below v16 there is no `SOK`.
        let expected = match response {
            Response::Subscribed { .. } if layout.version < Version::SERVICES => Response::Ok,
            other => other,
        };
        same("response", &read.content, &expected)
    });
}

/// The reference fills batches from the last transmission backwards; where batches are cut is not part of the protocol.
/// What must agree: which transmissions can be sent at all, and that every batch could have been one of the reference's.
#[test]
fn batches_hold_what_fits() {
    vectors::run("transmissions.jsonl", "batch-split", |vector| {
        let sizes = vector.input.get("sizes").items()?;
        let sizes: Vec<usize> =
            sizes.iter().filter_map(|size| size.0.as_u64()).map(|size| size as usize).collect();
        let blocks = vector.output.get("blocks").items()?;
        for block in &blocks {
            let Ok(content) = block.bytes("content") else { continue };
            let batch = Batch::parse(&content).ok_or("a batch of the reference cannot be read")?;
            same("count", &batch.len(), &block.size("count")?)?;
            let mut again = vec![0; content.len()];
            let mut writer = BatchWriter::new(&mut again).map_err(|error| error.to_string())?;
            for transmission in batch {
                writer.add(|out| out.put(transmission)).map_err(|error: Full| error.to_string())?;
            }
            same("length", &writer.finish(), &content.len())?;
            same("content", &again, &content)?;
        }
        let refused = blocks.iter().filter(|block| block.has("error")).count();
        let mut buffer = vec![0; block::BLOCK_LENGTH];
        let too_large = sizes
            .iter()
            .filter(|size| {
                let mut writer = BatchWriter::new(&mut buffer).expect("room for the count");
                writer.add(|out| out.reserve(**size).map(|_| ())).is_err()
            })
            .count();
        same("transmissions that fit in no block", &too_large, &refused)
    });
}

#[test]
fn blocks_are_padded() {
    vectors::run("transmissions.jsonl", "block", |vector| {
        let content = vector.input.bytes("content")?;
        let mut bytes = vec![0; block::BLOCK_LENGTH];
        if content.len() > block::PLAIN_CONTENT_LENGTH {
            return vector.output.expect_error();
        }
        bytes[block::PLAIN_CONTENT_START..][..content.len()].copy_from_slice(&content);
        block::pad_plain(&mut bytes, content.len()).map_err(|error| error.to_string())?;
        vector.output.expect_bytes("block", &bytes)?;
        same("content", &block::plain_content(&bytes), &Some(content.as_slice()))
    });
}

/// Where we refuse, or write otherwise, on purpose.
const ADDRESS_DIFFERENCES: &[(&str, &str)] = &[
    ("server-ipv4-256", "parts of IPv4 addresses are not wrapped around: nobody writes such an address"),
    ("server-ipv6-brackets-noport", "IPv6 addresses are written in brackets, so that a port can follow"),
    ("server-ipv6-bare", "IPv6 addresses are written in brackets, so that a port can follow"),
    ("server-ipv6-bare-port", "IPv6 addresses are written in brackets, so that a port can follow"),
];

#[test]
fn relay_addresses_are_read_and_written() {
    vectors::run_except("links.jsonl", "server-address", ADDRESS_DIFFERENCES, |vector| {
        let text = vector.input.text("text")?;
        let Ok(read) = text.parse::<AddressWithPassword>() else { return vector.output.expect_error() };
        if vector.output.has("error") {
            return Err(format!("read {read:?}, expected an error"));
        }
        let ok = vector.output.get("ok");
        same("address", &wire_json::server_json(&read.address), &ok.get("server").0)?;
        let password =
            read.password.as_ref().map(|bytes| bytes.iter().map(|b| char::from(*b)).collect::<String>());
        ok.expect("password", password)?;
        vector.output.expect("canonical", read.to_string())?;
        vector.output.expect("without_password_only", text.parse::<ServerAddress>().is_ok())?;
        let wire = written(|out| read.address.write(out))?;
        vector.output.expect_bytes("wire", &wire)?;
        same("read from wire", &ServerAddress::read(&mut Reader::new(&wire)), &Some(read.address))
    });
}

const QUEUE_DIFFERENCES: &[(&str, &str)] = &[
    ("queue-enc-1-4-v6-M", "IPv6 addresses are written in brackets, so that a port can follow"),
    ("queue-enc-1-4-v6-C", "IPv6 addresses are written in brackets, so that a port can follow"),
    ("queue-known-host-v1", "onion hosts of preset relays are not added: an address means what it says"),
];

#[test]
fn queue_addresses_are_read_and_written() {
    let uri_json = |uri: &QueueUri| {
        serde_json::json!({
            "versionRange": [uri.versions.min().0, uri.versions.max().0],
            "server": wire_json::server_json(&uri.server),
            "senderId": wire_json::hex(uri.sender.as_bytes()),
            "dhKey": wire_json::hex(uri.dh.to_der().as_bytes()),
            "queueMode": uri.mode.map(|mode| char::from(mode.letter()).to_string()),
        })
    };
    vectors::run_except("links.jsonl", "queue-uri", QUEUE_DIFFERENCES, |vector| {
        let Ok(read) = vector.input.text("text")?.parse::<QueueUri>() else {
            return vector.output.expect_error();
        };
        if vector.output.has("error") {
            return Err(format!("read {read:?}, expected an error"));
        }
        vector.output.expect("ok", uri_json(&read))?;
        vector.output.expect("canonical", read.to_string())?;
        let wire = written(|out| read.write(out))?;
        vector.output.expect_bytes("wire", &wire)?;
        let mut reader = Reader::new(&wire);
        let again = QueueUri::read(&mut reader)
            .filter(|_| reader.is_empty())
            .ok_or("its own bytes cannot be read")?;
        vector.output.expect("wire_decoded", uri_json(&again))
    });
}

#[test]
fn base64url_is_strict() {
    vectors::run("crypto.jsonl", "base64url-encode", |vector| {
        vector.output.expect("text", base64url::encode(&vector.input.bytes("bytes")?))
    });
    vectors::run("crypto.jsonl", "base64url-decode", |vector| {
        let text = vector.input.text("text")?;
        for (key, decoded) in
            [("parser", base64url::decode_some(&text)), ("decoder", base64url::decode(&text))]
        {
            let shown = decoded.map_or("error".to_owned(), |bytes| wire_json::hex(&bytes));
            vector.output.expect(key, shown)?;
        }
        Ok(())
    });
}
