//! The double ratchet against the reference's vectors, `ratchet.jsonl`, line by line. (`e2e-params` and `e2e-params-uri` are
//! run by `vectors_links`.)
//!
//! States go in and come out through the stored form, so that these tests pin it down as well: it is written here from its
//! documentation. What is stored differs from the reference in three ways: the reference keeps the peer's last keys and the
//! last KEM secret, which nothing uses again; and we count the receiving chains, to name the keys of late messages.
#![allow(missing_docs)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use smp_proto::crypto::key_encapsulation::{
    KEM_CIPHERTEXT_LENGTH, KEM_KEY_LENGTH, KemCiphertext, KemKeyPair, KemSecret, KemShared, KeyEncapsulation,
};
use smp_proto::crypto::ratchet::{
    DecryptError, InitialKeys, Ratchet, SUPPORTED_VERSIONS, SealingKey, SendError, SkippedKey, SkippedKeys,
};
use smp_proto::crypto::{Portable, Provider, padding, x448};
use smp_proto::entropy::Entropy;
use smp_proto::keys::{X448Public, X448Secret};
use smp_proto::wire::links::ratchet_parameters::{KemParameters, RatchetParameters};
use smp_proto::wire::primitives::Reader;
use smp_proto::wire::version::{Version, VersionRange};
use smp_runtime_std::fast_cryptography::Fast;
use smp_tests::key_encapsulation::WithKem;
use smp_tests::vectors::{self, Fields, Outcome, Vector};
use zeroize::Zeroizing;

const FILE: &str = "ratchet.jsonl";
/// How many receiving chains the states of the vectors are said to have had.
const CHAINS: u64 = 1000;

static LINES: LazyLock<Vec<Vector>> = LazyLock::new(|| vectors::read(FILE));

/// A KEM that knows the answers: sntrup761 is not implemented here, and the vectors have every secret that it gave.
#[derive(Default)]
struct KnownSecrets {
    /// What `generate` gives next.
    pair: Option<KemKeyPair>,
    /// What `encapsulate` gives next: the key it must be asked for, and the result.
    encapsulated: Option<(Vec<u8>, KemCiphertext, KemShared)>,
}

/// Every ciphertext of the file, and the secret in it.
static CIPHERTEXTS: LazyLock<BTreeMap<Vec<u8>, [u8; 32]>> = LazyLock::new(|| {
    let mut found = BTreeMap::new();
    let mut add = |fields: &Fields| {
        if let (Ok(ciphertext), Ok(shared)) = (fields.bytes("ciphertext"), fields.array("shared")) {
            found.insert(ciphertext, shared);
        }
    };
    for line in LINES.iter() {
        for state in [&line.input.get("before"), &line.output.get("after"), &line.output.get("A")] {
            add(&state.get("kem").get("accepted"));
        }
        add(&line.output.get("snd").get("kemAccepted"));
    }
    found
});

impl KeyEncapsulation for KnownSecrets {
    fn generate(&self, _: &mut dyn Entropy) -> KemKeyPair {
        self.pair.clone().expect("a key pair that is expected")
    }

    fn encapsulate(&self, _: &mut dyn Entropy, key: &[u8; KEM_KEY_LENGTH]) -> (KemCiphertext, KemShared) {
        let (expected, ciphertext, shared) = self.encapsulated.clone().expect("an encapsulation");
        assert_eq!(expected, key, "the peer's key");
        (ciphertext, shared)
    }

    fn decapsulate(&self, _: &KemSecret, ciphertext: &[u8; KEM_CIPHERTEXT_LENGTH]) -> KemShared {
        Zeroizing::new(CIPHERTEXTS[ciphertext.as_slice()])
    }
}

/// Gives one private key, once.
struct OneKey(Cell<Option<[u8; 56]>>);

impl Entropy for OneKey {
    fn fill_public(&mut self, _: &mut [u8]) {
        panic!("the ratchet publishes no random bytes");
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0.take().expect("one private key at most"));
    }
}

/// Runs the lines of a kind with the portable and the fast provider, each with the KEM that the line needs.
fn run(kind: &str, check: impl Fn(&dyn Provider, &Vector) -> Outcome) {
    vectors::run(FILE, kind, |vector| {
        for provider in [&Portable as &dyn Provider, &Fast] {
            check(&WithKem(provider, answers(vector)?), vector)?;
        }
        Ok(())
    });
}

/// What the KEM does in this line: it is in the state after.
fn answers(vector: &Vector) -> Result<KnownSecrets, String> {
    let mut known = KnownSecrets::default();
    for state in [vector.output.get("after"), vector.output.get("A")] {
        let kem = state.get("kem");
        if !kem.get("own").is_null() {
            known.pair = Some(key_pair(&kem.get("own"))?);
        }
        let accepted = kem.get("accepted");
        if !accepted.is_null() {
            let shared = Zeroizing::new(accepted.array("shared")?);
            known.encapsulated =
                Some((accepted.bytes("peerPublic")?, boxed(accepted.bytes("ciphertext")?)?, shared));
        }
    }
    Ok(known)
}

fn boxed<const LENGTH: usize>(bytes: Vec<u8>) -> Result<Box<[u8; LENGTH]>, String> {
    let length = bytes.len();
    bytes.into_boxed_slice().try_into().map_err(|_| format!("{length} bytes, not {LENGTH}"))
}

fn key_pair(own: &Fields) -> Result<KemKeyPair, String> {
    Ok(KemKeyPair {
        public: boxed(own.bytes("public")?)?,
        secret: KemSecret::from_bytes(boxed(own.bytes("secret")?)?),
    })
}

fn short(value: i64) -> [u8; 2] {
    u16::try_from(value).expect("a version").to_be_bytes()
}

/// The stored form of a state, after its documentation.
fn stored(state: &Fields, chains: u64) -> Result<Vec<u8>, String> {
    let version: Vec<i64> =
        state.get("version").items()?.iter().filter_map(|field| field.0.as_i64()).collect();
    let mut out = vec![1];
    out.extend(version.iter().flat_map(|&version| short(version)));
    for key in ["ad", "dhrsPrivate", "dhrsPublic", "rootKey", "nextHeaderKeySnd", "nextHeaderKeyRcv"] {
        out.extend(state.bytes(key)?);
    }
    for number in ["ns", "nr", "pn"] {
        out.extend(u32::try_from(state.integer(number)?).map_err(|_| "a number")?.to_be_bytes());
    }
    out.extend(chains.to_be_bytes());
    let (kem, snd, rcv) = (state.get("kem"), state.get("snd"), state.get("rcv"));
    // What the initiating party was given is of no use to it: only what this side made goes out.
    let ciphertext = (!kem.get("accepted").is_null() && !snd.is_null()).then(|| kem.get("accepted"));
    let flags = [
        !snd.is_null(),
        !rcv.is_null(),
        !kem.get("own").is_null(),
        ciphertext.is_some(),
        state.boolean("supportKEM")?,
        state.boolean("enableKEM")?,
        state.boolean("sndKEM")?,
        state.boolean("rcvKEM")?,
    ];
    out.push((0..).zip(flags).map(|(bit, set)| u8::from(set) << bit).sum());
    for chain in [snd, rcv].iter().filter(|chain| !chain.is_null()) {
        out.extend(chain.bytes("chainKey")?);
        out.extend(chain.bytes("headerKey")?);
    }
    if !kem.get("own").is_null() {
        out.extend(kem.get("own").bytes("public")?);
        out.extend(kem.get("own").bytes("secret")?);
    }
    if let Some(accepted) = ciphertext {
        out.extend(accepted.bytes("ciphertext")?);
    }
    Ok(out)
}

fn load(state: &Fields) -> Result<Ratchet, String> {
    let bytes = stored(state, CHAINS)?;
    let ratchet = Ratchet::from_bytes(&bytes).map_err(|error| error.to_string())?;
    if *ratchet.to_bytes() == bytes {
        Ok(ratchet)
    } else {
        Err("the stored form does not come back".to_owned())
    }
}

fn expect_state(name: &str, ratchet: &Ratchet, expected: &Fields, chains: u64) -> Outcome {
    let (actual, expected) = (ratchet.to_bytes(), stored(expected, chains)?);
    match actual.iter().zip(&expected).position(|(one, other)| one != other) {
        None if actual.len() == expected.len() => Ok(()),
        place => Err(format!(
            "{name}: the state differs at byte {place:?} of {} ({} expected)",
            actual.len(),
            expected.len()
        )),
    }
}

#[test]
fn headers() {
    // The clear header is inside a message only: one is sealed with a known state, and opened with the bare primitives.
    run("ratchet-header", |provider, vector| {
        let (version, newest) =
            (vector.input.integer("currentVersion")?, vector.input.integer("maxVersion")?);
        let mut state = vec![1];
        state.extend([short(version), short(newest)].concat());
        state.extend([7; 112 + 56]);
        state.extend(vector.input.bytes("dhrs")?);
        state.extend([8; 96]);
        let ns = u32::try_from(vector.input.integer("ns")?).map_err(|_| "ns")?;
        let pn = u32::try_from(vector.input.integer("pn")?).map_err(|_| "pn")?;
        state.extend([ns.to_be_bytes(), [0; 4], pn.to_be_bytes()].concat());
        state.extend([0; 8]);
        state.push(1);
        state.extend([[3; 32], [4; 32]].concat());
        let mut ratchet = Ratchet::from_bytes(&state).map_err(|error| error.to_string())?;
        let message = ratchet.prepare(provider).map_err(|error| error.to_string())?.seal(b"", 2);
        let message = message.map_err(|error| error.to_string())?;
        let prefix = if version == 2 { 1 } else { 2 };
        let header = &message[prefix..];
        assert_eq!(header[..2], short(version));
        let (iv, tag) = (header[2..18].try_into().unwrap(), header[18..34].try_into().unwrap());
        let mut text = header[34 + prefix..34 + prefix + 88].to_vec();
        smp_proto::crypto::ratchet_aead::open(&[4; 32], iv, &[7; 112], tag, &mut text)
            .map_err(|_| "the header does not open")?;
        vector.output.expect_bytes("hex", padding::unpad(&text).map_err(|error| error.to_string())?)
    });
}

#[test]
fn header_lengths() {
    run("ratchet-header-length", |provider, vector| {
        let version = vector.input.integer("currentVersion")?;
        let long = vector.input.boolean("pqSupport")?;
        let mut state = vec![1];
        state.extend([short(version), short(3)].concat());
        state.extend([7; 112 + 112 + 96 + 12 + 8]);
        state.push(1 | u8::from(long) << 4);
        state.extend([3; 64]);
        let mut ratchet = Ratchet::from_bytes(&state).map_err(|error| error.to_string())?;
        if ratchet.has_long_headers() != (long && version == 3) {
            return Err("has_long_headers".to_owned());
        }
        let key = ratchet.prepare(provider).map_err(|error| error.to_string())?;
        // Besides the header there are its length, a tag and the text. In version 3 both lengths are 2 bytes, which the
        // figure of the vectors leaves out.
        let longer = if version == 3 { 1 } else { 0 };
        let header = key.message_length(0) - 16 - 1 - longer;
        vector.output.expect("fullHeaderLen", header - longer)?;
        let sealed = key.seal(b"", 2).map_err(|error| error.to_string())?;
        if sealed.len() == header + 1 + longer + 16 + 2 { Ok(()) } else { Err("message_length".to_owned()) }
    });
}

/// Initial keys from private keys, through their stored form.
fn initial_keys(privates: [[u8; 56]; 2], kem: &[u8]) -> Result<InitialKeys, String> {
    let mut bytes = vec![1];
    for private in privates {
        bytes.extend(private);
        bytes.extend(x448::public_key(&X448Secret::from_bytes(private)).0);
    }
    bytes.extend(if kem.is_empty() { &[0] } else { kem });
    InitialKeys::from_bytes(&bytes).map_err(|error| error.to_string())
}

/// A ratchet that begins gives its agreement away: header key, next header key and root key are in its state.
fn expect_agreement(ratchet: &Ratchet, expected: &Fields) -> Outcome {
    let bytes = ratchet.to_bytes();
    let at = |place: usize, length: usize| &bytes[place..place + length];
    expected.expect_bytes("assocData", at(5, 112))?;
    expected.expect_bytes("ratchetKey", at(229, 32))?;
    expected.expect_bytes("rcvNextHK", at(261, 32))?;
    expected.expect_bytes("sndHK", at(293, 32))
}

#[test]
fn agreements() {
    run("x3dh", |provider, vector| {
        let version = Version(vector.input.integer("version")?.try_into().map_err(|_| "version")?);
        let only = VersionRange::only(version);
        let keys = |one, two| initial_keys([vector.input.array(one)?, vector.input.array(two)?], &[]);
        let (rcv, snd) = (keys("rcvPrivate1", "rcvPrivate2")?, keys("sndPrivate1", "sndPrivate2")?);
        for (keys, names) in [(&rcv, ["rcvPublic1", "rcvPublic2"]), (&snd, ["sndPublic1", "sndPublic2"])] {
            for (key, name) in keys.publics().iter().zip(names) {
                vector.input.expect_bytes(name, &key.0)?;
            }
        }
        let [rcv1, rcv2] = ["rcvPublic1", "rcvPublic2"].map(|name| vector.input.array(name).map(X448Public));
        let [snd1, snd2] =
            ["sndPrivate1", "sndPrivate2"].map(|name| vector.input.array(name).map(X448Secret::from_bytes));
        let (rcv1, rcv2, snd1, snd2) = (rcv1?, rcv2?, snd1?, snd2?);
        for (name, secret, public) in [("dh1", &snd2, &rcv1), ("dh2", &snd1, &rcv2), ("dh3", &snd2, &rcv2)] {
            vector.output.expect_bytes(name, x448::agree(secret, public).as_slice())?;
        }
        let initiating = Ratchet::initiate(provider, &rcv, &snd.parameters(only), SUPPORTED_VERSIONS)
            .map_err(|error| error.to_string())?;
        expect_agreement(&initiating, &vector.output.get("rcv"))?;
        // The joining side has made a step already: what it begins with is compared by `ratchet-init`, and here by being
        // understood.
        let mut entropy = OneKey(Cell::new(Some([9; 56])));
        let mut joining =
            Ratchet::join(provider, &snd, &rcv.parameters(only), SUPPORTED_VERSIONS, &mut entropy)
                .map_err(|error| error.to_string())?;
        vector.output.get("snd").expect_bytes("assocData", &joining.to_bytes()[5..117])?;
        vector.output.get("snd").expect_bytes("rcvNextHK", &joining.to_bytes()[293..325])?;
        let mut message = joining.prepare(provider).unwrap().seal(b"text", 10).unwrap();
        let mut initiating = initiating;
        let mut entropy = OneKey(Cell::new(Some([8; 56])));
        let read = initiating.decrypt(provider, &mut SkippedKeys::new(), &mut entropy, &mut message);
        read.map(|_| ()).map_err(|error| error.to_string())
    });
}

/// The stored form of an accepted or proposed KEM, from the vectors.
fn stored_kem(line: &Fields, joining: bool, state: &Fields) -> Result<Vec<u8>, String> {
    let own = state.get("kem").get("own");
    let mut bytes = vec![if joining { 2 } else { 1 }];
    if joining {
        let accepted = line.get("snd").get("kemAccepted");
        bytes.extend(accepted.bytes("ciphertext")?);
        bytes.extend(accepted.bytes("shared")?);
    }
    bytes.extend(own.bytes("public")?);
    bytes.extend(own.bytes("secret")?);
    Ok(bytes)
}

fn line(id: &str) -> &'static Vector {
    LINES.iter().find(|line| line.id == id).unwrap_or_else(|| panic!("no line {id}"))
}

/// The initial keys and parameters of both sides of `pq-x3dh`: initiating, joining.
fn pq_sides() -> Result<[(InitialKeys, RatchetParameters); 2], String> {
    let (agreement, begin) = (line("pq-x3dh"), line("pq-init"));
    let side = |name: &str, joining: bool, state: &str| {
        let state = begin.output.get(state);
        let privates = [
            agreement.input.array(&format!("{name}Private1"))?,
            agreement.input.array(&format!("{name}Private2"))?,
        ];
        let keys = initial_keys(privates, &stored_kem(&agreement.output, joining, &state)?)?;
        let wire = agreement.input.bytes(&format!("{name}Params"))?;
        let parameters = RatchetParameters::read_agreed(&mut Reader::new(&wire)).ok_or("parameters")?;
        if keys.parameters(VersionRange::only(Version(3))) != parameters {
            return Err(format!("{name}: other parameters"));
        }
        Ok((keys, parameters))
    };
    Ok([side("rcv", false, "B")?, side("snd", true, "A")?])
}

#[test]
fn agreements_with_a_kem() {
    run("x3dh-pq", |provider, vector| {
        let [(rcv, rcv_parameters), (_, snd_parameters)] = pq_sides()?;
        let initiating = Ratchet::initiate(provider, &rcv, &snd_parameters, SUPPORTED_VERSIONS)
            .map_err(|error| error.to_string())?;
        expect_agreement(&initiating, &vector.output.get("rcv"))?;
        let (Some(KemParameters::Proposed(proposed)), Some(KemParameters::Accepted { ciphertext, key })) =
            (&rcv_parameters.kem, &snd_parameters.kem)
        else {
            return Err("not a proposal and its acceptance".to_owned());
        };
        let (snd, rcv) = (vector.output.get("snd"), vector.output.get("rcv"));
        snd.get("kemAccepted").expect_bytes("peerPublic", proposed.as_slice())?;
        snd.get("kemAccepted").expect_bytes("ciphertext", ciphertext.as_slice())?;
        rcv.get("kemAccepted").expect_bytes("peerPublic", key.as_slice())
    });
}

#[test]
fn beginnings() {
    run("ratchet-init", |provider, vector| {
        let expected = [vector.output.get("A"), vector.output.get("B")];
        let versions: Vec<i64> =
            expected[0].get("version").items()?.iter().filter_map(|field| field.0.as_i64()).collect();
        let [now, newest] = [versions[0], versions[1]].map(|version| Version(version as u16));
        let supported = VersionRange::between(Version(2), newest);
        let only = VersionRange::only(now);
        let [(rcv, rcv_parameters), (snd, snd_parameters)] = if vector.id == "pq-init" {
            pq_sides()?
        } else {
            // The conversations without a KEM all begin with the keys of `x3dh-v2`.
            let agreement = line("x3dh-v2");
            let keys =
                |one, two| initial_keys([agreement.input.array(one)?, agreement.input.array(two)?], &[]);
            let (rcv, snd) = (keys("rcvPrivate1", "rcvPrivate2")?, keys("sndPrivate1", "sndPrivate2")?);
            let parameters = [rcv.parameters(only), snd.parameters(only)];
            let [rcv_parameters, snd_parameters] = parameters;
            [(rcv, rcv_parameters), (snd, snd_parameters)]
        };
        let mut entropy = OneKey(Cell::new(Some(vector.input.array("dhrsPrivateA")?)));
        let joining = Ratchet::join(provider, &snd, &rcv_parameters, supported, &mut entropy)
            .map_err(|error| error.to_string())?;
        let initiating = Ratchet::initiate(provider, &rcv, &snd_parameters, supported)
            .map_err(|error| error.to_string())?;
        // It is given here, or is the result of another line.
        let agreed = vector.input.get("initB");
        if agreed.has("assocData") {
            expect_agreement(&initiating, &agreed)?;
        } else {
            assert_eq!(agreed.0.as_str(), Some("pq-x3dh out.rcv"));
            expect_agreement(&initiating, &line("pq-x3dh").output.get("rcv"))?;
        }
        expect_state("A", &joining, &expected[0], 0)?;
        expect_state("B", &initiating, &expected[1], 0)
    });
}

#[test]
fn sending() {
    run("ratchet-send", |provider, vector| {
        if !vector.input.get("pqEncryption").is_null() {
            return Err("switching the KEM on or off is not tested yet".to_owned());
        }
        let mut ratchet = load(&vector.input.get("before"))?;
        ratchet.support(Version(vector.input.integer("supportedVersion")? as u16));
        vector.output.expect("messageVersion", ratchet.version().0)?;
        let key = ratchet.prepare(provider).map_err(|error| error.to_string())?;
        expect_state("after", &ratchet, &vector.output.get("after"), CHAINS)?;
        let stored = key.to_bytes();
        vector.output.expect_bytes("messageKey", &stored[3..35])?;
        vector.output.expect_bytes("messageIv", &stored[35..51])?;
        vector.output.expect_bytes("ad", &stored[51..163])?;
        vector.output.expect_bytes("encHeader", &stored[163..])?;
        let text = vector.input.bytes("plaintext")?;
        let padded = vector.input.size("paddedLen")?;
        let length = key.message_length(padded);
        let message = key.seal(&text, padded).map_err(|error| error.to_string())?;
        assert_eq!(message.len(), length);
        let again = SealingKey::from_bytes(&stored).map_err(|error| error.to_string())?;
        assert_eq!(again.seal(&text, padded), Ok(message.clone()));
        vector.output.expect_bytes("ciphertext", &message)
    });
}

#[test]
fn too_long_a_text_is_refused() {
    run("ratchet-encrypt-error", |provider, vector| {
        let mut ratchet = load(&line("v2-048-send-A").input.get("before"))?;
        let key = ratchet.prepare(provider).map_err(|error| error.to_string())?;
        match key.seal(&[7; 99], 100) {
            Err(_) => vector.output.expect_error(),
            Ok(_) => Err("99 bytes were padded to 100".to_owned()),
        }
    });
}

#[test]
fn nothing_is_sent_before_the_first_message() {
    if !vectors::folder().1 {
        return; // These are lines of this repository.
    }
    for id in ["v2-init", "v3-init", "upgrade-init", "pq-init"] {
        let mut ratchet = load(&line(id).output.get("B")).unwrap();
        let before = ratchet.to_bytes();
        assert!(!ratchet.can_send());
        assert_eq!(ratchet.prepare(&Portable).map(|_| ()), Err(SendError::NotYet));
        assert_eq!(ratchet.to_bytes(), before);
    }
}

/// The kept keys of a line, the oldest chain first. Two things are ours: chains have numbers, and the order of the
/// reference's chains is that of their keys.
fn kept(list: &Fields, state: &Fields) -> Result<SkippedKeys, String> {
    let mut keys = SkippedKeys::new();
    let Ok(chains) = list.items() else { return Err("only counted".to_owned()) };
    for (place, chain) in chains.iter().enumerate() {
        let header: [u8; 32] = chain.array("headerKey")?;
        let current = state.get("rcv").optional_bytes("headerKey")?.as_deref() == Some(&header);
        let number = if current { CHAINS } else { place as u64 };
        for key in chain.get("keys").items()? {
            let mut bytes = number.to_be_bytes().to_vec();
            bytes.extend(u32::try_from(key.integer("n")?).map_err(|_| "n")?.to_be_bytes());
            bytes.extend(header);
            bytes.extend(key.bytes("key")?);
            bytes.extend(key.bytes("iv")?);
            let key = SkippedKey::from_bytes(&bytes).map_err(|error| error.to_string())?;
            assert_eq!(key.to_bytes().as_slice(), bytes);
            assert_eq!(keys.insert(key), None);
        }
    }
    Ok(keys)
}

/// Header key, number, key, IV: without our numbers of chains.
fn plain(keys: &SkippedKeys) -> Vec<Vec<u8>> {
    let mut plain: Vec<_> = keys.iter().map(|key| key.to_bytes()[8..].to_vec()).collect();
    plain.sort();
    plain
}

fn expect_kept(keys: &SkippedKeys, expected: &Fields) -> Outcome {
    if expected.has("count") {
        return expected.expect("count", keys.len());
    }
    let mut wanted = plain(&kept(expected, &Fields(serde_json::Value::Null))?);
    wanted.sort();
    if plain(keys) == wanted {
        Ok(())
    } else {
        Err(format!("{} keys are kept, {} expected", keys.len(), wanted.len()))
    }
}

/// The name of an error in the vectors.
fn expect_refusal(error: DecryptError, expected: &Fields) -> Outcome {
    let name = match error {
        DecryptError::Malformed => "CryptoHeaderError \"not enough input\"".to_owned(),
        DecryptError::ForgedHeader => "CERatchetHeader".to_owned(),
        DecryptError::Duplicate => "CERatchetDuplicateMessage".to_owned(),
        DecryptError::Old { behind } => format!("CERatchetEarlierMessage {behind}"),
        DecryptError::TooFarAhead { missing } => format!("CERatchetTooManySkipped {}", missing + 1),
        DecryptError::ForgedText => "AESDecryptError".to_owned(),
        DecryptError::Header | DecryptError::OldChain | DecryptError::Padding | DecryptError::Kem => {
            format!("{error:?}")
        }
    };
    expected.expect("error", name)
}

/// The message of a line, computed when it is long.
fn message(vector: &Vector, provider: &dyn Provider) -> Result<Vec<u8>, String> {
    if vector.input.has("ciphertext") {
        return vector.input.bytes("ciphertext");
    }
    let (conversation, step) = (vector.input.text("conv")?, vector.input.integer("ciphertextStep")?);
    let sent = LINES
        .iter()
        .find(|line| {
            line.kind == "ratchet-send"
                && line.input.text("conv") == Ok(conversation.clone())
                && line.input.integer("step") == Ok(step)
        })
        .ok_or("no such message")?;
    let key = load(&sent.input.get("before"))?.prepare(provider).map_err(|error| error.to_string())?;
    let message = key
        .seal(&sent.input.bytes("plaintext")?, sent.input.size("paddedLen")?)
        .map_err(|error| error.to_string())?;
    sent.output.expect_bytes("ciphertext", &message)?;
    Ok(message)
}

#[test]
fn receiving() {
    run("ratchet-recv", |provider, vector| {
        let (input, output) = (&vector.input, &vector.output);
        let mut ratchet = load(&input.get("before"))?;
        let unchanged = ratchet.to_bytes();
        let list = input.get("skippedBefore");
        let mut keys = if list.has("count") {
            // Only the number is given: any keys of an earlier chain, whose messages do not come here.
            let mut keys = SkippedKeys::new();
            for number in 0..u32::try_from(list.size("count")?).map_err(|_| "count")? {
                let bytes = [&1_u64.to_be_bytes()[..], &number.to_be_bytes(), &[9; 80]].concat();
                keys.insert(SkippedKey::from_bytes(&bytes).map_err(|error| error.to_string())?);
            }
            keys
        } else {
            kept(&list, &input.get("before"))?
        };
        let before = plain(&keys);
        let after = output.get("after");
        // The private key of a step is random: it is taken from the state after.
        let steps =
            !after.is_null() && after.bytes("dhrsPrivate")? != input.get("before").bytes("dhrsPrivate")?;
        let private = if steps { Some(after.array("dhrsPrivate")?) } else { None };
        let mut entropy = OneKey(Cell::new(private));
        let mut message = message(vector, provider)?;
        match ratchet.decrypt(provider, &mut keys, &mut entropy, &mut message) {
            Ok(read) => {
                output.expect_bytes("plaintext", read.text)?;
                let change = read.skipped;
                if !change.added.is_empty() && !change.removed.is_empty() {
                    return Err("keys are both added and removed".to_owned());
                }
                let mut known: Vec<_> = before.clone();
                known.extend(change.added.iter().map(|key| key.to_bytes()[8..].to_vec()));
                if known.len() - change.removed.len() != keys.len() {
                    return Err("the change is not what changed".to_owned());
                }
                expect_state("after", &ratchet, &after, CHAINS + u64::from(steps))?;
                expect_kept(&keys, &output.get("skippedAfter"))
            }
            Err(error) => {
                expect_refusal(error, output)?;
                if ratchet.to_bytes() != unchanged || plain(&keys) != before {
                    return Err("a refused message changed something".to_owned());
                }
                if output.has("stateUnchanged") || *unchanged == stored(&after, CHAINS)? {
                    return expect_kept_or_same(&keys, output, &before);
                }
                // The one deliberate difference: the reference moves on when a text is forged, and so loses the true
                // message. Ours does not; it gets there with the true message, whose last bit was not changed.
                if error != DecryptError::ForgedText {
                    return Err("the state is another than the reference's".to_owned());
                }
                let mut message = self::message(vector, provider)?;
                if let Some(last) = message.last_mut() {
                    *last ^= 1;
                }
                let mut entropy = OneKey(Cell::new(private));
                ratchet
                    .decrypt(provider, &mut keys, &mut entropy, &mut message)
                    .map_err(|error| error.to_string())?;
                expect_state("after", &ratchet, &after, CHAINS + u64::from(steps))?;
                expect_kept(&keys, &output.get("skippedAfter"))
            }
        }
    });
}

fn expect_kept_or_same(keys: &SkippedKeys, output: &Fields, before: &[Vec<u8>]) -> Outcome {
    if output.has("skippedAfter") {
        expect_kept(keys, &output.get("skippedAfter"))
    } else if plain(keys) == before {
        Ok(())
    } else {
        Err("the kept keys changed".to_owned())
    }
}

#[test]
fn every_kind_of_line_is_tested() {
    if !vectors::folder().1 {
        return;
    }
    let here = [
        "ratchet-header",
        "ratchet-header-length",
        "x3dh",
        "x3dh-pq",
        "ratchet-init",
        "ratchet-send",
        "ratchet-recv",
        "ratchet-encrypt-error",
        "e2e-params",
        "e2e-params-uri",
    ];
    for line in LINES.iter() {
        assert!(here.contains(&line.kind.as_str()), "{} has the kind {}", line.id, line.kind);
    }
}
