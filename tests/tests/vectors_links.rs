//! Links, and what is behind them, against what the reference implementation reads and writes.

use std::fmt::Debug;

use smp_proto::crypto::link_data::{
    LinkDataError, LinkPart, LinkPurpose, LinkSigner, VerifiedFixedPart, VerifiedLinkData, seal_part,
};
use smp_proto::crypto::link_keys::LinkKey;
use smp_proto::crypto::{BoxKey, Nonce, Portable, Provider};
use smp_proto::keys::Ed25519Secret;
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::links::Link;
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::link_data::{FixedLinkData, OwnedLinkData, read_user_data, write_user_data};
use smp_proto::wire::links::ratchet_parameters::{KEM_VERSION, RatchetParameters};
use smp_proto::wire::links::short_link::{ContactKind, LinkKeyBytes, LinkScheme, ShortLink, ShortLinkTarget};
use smp_proto::wire::primitives::{Full, Reader};
use smp_runtime_std::fast_cryptography::Fast;
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
        Ok(Link::Blob(link)) => Err(format!("read {link:?}")),
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
            target: ShortLinkTarget::Contact { kind: ContactKind::Contact, key: LinkKeyBytes::new(key) },
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

const PROVIDERS: [&dyn Provider; 2] = [&Portable, &Fast];

/// What a line of link data has, and what a relay would keep for it.
struct Kept {
    purpose: LinkPurpose,
    /// Where it is kept, for opening; of an invitation the relay chooses that.
    target: ShortLinkTarget,
    fixed_bytes: Vec<u8>,
    fixed_blob: Vec<u8>,
    owned_blob: Vec<u8>,
}

fn secret(fields: &Fields, key: &str) -> Result<Ed25519Secret, String> {
    Ok(Ed25519Secret::from_bytes(fields.array(key)?))
}

fn target(purpose: LinkPurpose, key: &LinkKey) -> ShortLinkTarget {
    let key = LinkKeyBytes::from(key);
    match purpose {
        LinkPurpose::Invitation => ShortLinkTarget::Invitation { link: Identifier::from([7; 24]), key },
        LinkPurpose::Contact => ShortLinkTarget::Contact { kind: ContactKind::Contact, key },
    }
}

/// Signs and seals as a line of link data says, whether readers accept it or not.
fn keep(provider: &dyn Provider, vector: &Vector) -> Result<Kept, String> {
    let (input, output) = (&vector.input, &vector.output);
    let root = secret(input, "rootPrivateKey")?;
    let signer = secret(input, "userDataSignerPrivateKey")?;
    let fixed = links_json::fixed_data(&input.get("fixed"))?;
    let owned = links_json::owned_data(&input.get("user"))?;
    let purpose = match fixed.request {
        ConnectionRequest::Invitation(..) => LinkPurpose::Invitation,
        ConnectionRequest::Contact(_) => LinkPurpose::Contact,
    };
    let fixed_bytes = written(|out| fixed.encode(out))?;
    let owned_bytes = written(|out| owned.encode(out))?;
    output.expect_bytes("fixedBytes", &fixed_bytes)?;
    output.expect_bytes("userBytes", &owned_bytes)?;
    let (fixed_nonce, owned_nonce) = (Nonce(input.array("fixedNonce")?), Nonce(input.array("userNonce")?));

    let key = LinkKey::of(&fixed_bytes);
    output.expect_bytes("linkKey", key.as_bytes())?;
    let (link_id, box_key) = match purpose {
        LinkPurpose::Invitation => (None, key.invitation(provider)),
        LinkPurpose::Contact => {
            let (id, box_key) = key.contact(provider);
            (Some(id), box_key)
        }
    };
    output.expect_optional_bytes("linkId", link_id.as_ref().map(<[u8; 24]>::as_slice))?;
    same("data key", &(box_key == BoxKey::from_symmetric(&output.array("dataKey")?)), &true)?;
    for (name, by, bytes) in [("fixedSigned", &root, &fixed_bytes), ("userSigned", &signer, &owned_bytes)] {
        let signature = provider.ed25519_sign(by, &[bytes]);
        output.expect_bytes(name, &[&[64], signature.as_slice(), bytes].concat())?;
    }

    let seal = |signer, part, bytes: &[u8], nonce: &Nonce| {
        seal_part(provider, &box_key, signer, part, bytes, nonce).map_err(|error| error.to_string())
    };
    let fixed_blob = seal(&root, LinkPart::Fixed, &fixed_bytes, &fixed_nonce)?;
    let owned_blob = seal(&signer, LinkPart::Owned, &owned_bytes, &owned_nonce)?;
    output.expect_bytes("fixedBlob", &fixed_blob)?;
    output.expect_bytes("userBlob", &owned_blob)?;

    // A link that is made the usual way is the same.
    let made = VerifiedFixedPart::create(
        provider,
        &root,
        fixed.versions,
        fixed.request.clone(),
        fixed.entity.clone(),
        &fixed_nonce,
    );
    let (made, made_blob) = made.map_err(|error| error.to_string())?;
    same("made", &(made.key().as_bytes(), made.data(), &made_blob), &(key.as_bytes(), &fixed, &fixed_blob))?;
    let made = made.seal_owned(provider, &signer, &owned, &owned_nonce);
    match expected_refusal(vector)? {
        None => same("made", &made, &Ok(owned_blob.clone()))?,
        Some(refusal) => same("made", &made, &Err(refusal))?,
    }
    let target = target(purpose, &key);
    Ok(Kept { purpose, target, fixed_bytes, fixed_blob, owned_blob })
}

/// Our error for the reference's, of which only the text is known.
fn expected_refusal(vector: &Vector) -> Result<Option<LinkDataError>, String> {
    let text = vector.output.text("decrypted")?;
    let expected = [
        ("user data signature", LinkDataError::Signature(LinkPart::Owned)),
        ("invalid authorization of owner", LinkDataError::OwnerNotAuthorized(0)),
        ("matches root key", LinkDataError::OwnerIsRoot(0)),
        ("duplicate owner key or ID", LinkDataError::OwnerRepeated(1)),
    ];
    if text == "ok" {
        return Ok(None);
    }
    let known = expected.into_iter().find(|(part, _)| text.contains(part));
    known.map(|(_, error)| Some(error)).ok_or(text)
}

#[test]
fn link_data_are_sealed_opened_and_verified() {
    vectors::run("links.jsonl", "link-data", |vector| {
        let owned = links_json::owned_data(&vector.input.get("user"))?;
        for provider in PROVIDERS {
            if vector.output.has("error") {
                let bytes = written(|out| owned.encode(out))?;
                let (key, signer) = (BoxKey::from_symmetric(&[1; 32]), Ed25519Secret::from_bytes([2; 32]));
                let refused = seal_part(provider, &key, &signer, LinkPart::Owned, &bytes, &Nonce([3; 24]));
                same("too long", &refused, &Err(LinkDataError::TooLong(LinkPart::Owned)))?;
                continue;
            }
            let kept = keep(provider, vector)?;
            let opened = VerifiedLinkData::open(provider, &kept.target, &kept.fixed_blob, &kept.owned_blob);
            match (opened, expected_refusal(vector)?) {
                (Ok(opened), None) => {
                    let fixed = links_json::fixed_data(&vector.input.get("fixed"))?;
                    same("fixed", opened.fixed().data(), &fixed)?;
                    same("owned", opened.owned().data(), &owned)?;
                    let by_root = vector.input.bytes("rootPrivateKey")?
                        == vector.input.bytes("userDataSignerPrivateKey")?;
                    same("signed by root", &(opened.owned().signer() == LinkSigner::Root), &by_root)?;
                }
                (Err(error), Some(expected)) => same("refusal", &error, &expected)?,
                (opened, expected) => return Err(format!("{opened:?}, expected {expected:?}")),
            }
        }
        Ok(())
    });
    vectors::run("links.jsonl", "link-data-blob", |vector| {
        let kept = keep(&Portable, &referenced(vector)?)?;
        vector.output.expect_bytes("userBlob", &kept.owned_blob)
    });
}

fn referenced(vector: &Vector) -> Result<Vector, String> {
    let id = vector.input.text("ref")?;
    vectors::read("links.jsonl").into_iter().find(|other| other.id == id).ok_or(id)
}

/// A relay that has seen the link seals the same data, under the key of a link that was not made for them.
fn sealed_for_another_link(provider: &dyn Provider, original: &Vector, kept: &Kept) -> Outcome {
    let key = LinkKey::from_bytes(std::array::from_fn(|place| place as u8));
    let opened = VerifiedFixedPart::open(provider, kept.purpose, key.clone(), &kept.fixed_blob);
    same("as it is", &opened.err(), &Some(LinkDataError::NotOpened(LinkPart::Fixed)))?;
    let box_key = match kept.purpose {
        LinkPurpose::Invitation => key.invitation(provider),
        LinkPurpose::Contact => key.contact(provider).1,
    };
    let root = secret(&original.input, "rootPrivateKey")?;
    let nonce = Nonce([9; 24]);
    let blob = seal_part(provider, &box_key, &root, LinkPart::Fixed, &kept.fixed_bytes, &nonce);
    let blob = blob.map_err(|error| error.to_string())?;
    let opened = VerifiedFixedPart::open(provider, kept.purpose, key, &blob);
    same("sealed again", &opened.err(), &Some(LinkDataError::OtherLink))
}

#[test]
fn changed_link_data_are_refused() {
    vectors::run("links.jsonl", "link-data-decrypt", |vector| {
        let original = referenced(vector)?;
        same("refused by the reference", &(vector.output.text("result")? != "ok"), &true)?;
        for provider in PROVIDERS {
            let mut kept = keep(provider, &original)?;
            let expected = match vector.input.text("change")?.as_str() {
                "fixed-flipped" => {
                    kept.fixed_blob[100] ^= 1;
                    LinkDataError::NotOpened(LinkPart::Fixed)
                }
                "user-flipped" => {
                    kept.owned_blob[100] ^= 1;
                    LinkDataError::NotOpened(LinkPart::Owned)
                }
                "swapped" => {
                    std::mem::swap(&mut kept.fixed_blob, &mut kept.owned_blob);
                    // The hash is looked at before the form.
                    LinkDataError::OtherLink
                }
                "wrong-key" => {
                    sealed_for_another_link(provider, &original, &kept)?;
                    continue;
                }
                other => return Err(format!("unknown change {other}")),
            };
            let opened = VerifiedLinkData::open(provider, &kept.target, &kept.fixed_blob, &kept.owned_blob);
            same("refusal", &opened.err(), &Some(expected))?;
        }
        Ok(())
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
