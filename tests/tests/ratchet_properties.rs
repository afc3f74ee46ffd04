//! Properties of the double ratchet: two parties over a network that loses, repeats, reorders and forges always agree, and
//! are what a small model says; what cannot be read changes nothing.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use smp_proto::crypto::ratchet::{
    AgreementError, DecryptError, InitialKeys, KeysHash, MAX_AHEAD, MAX_KEPT, PeerKeys, Ratchet, Role,
    SUPPORTED_VERSIONS, SealingKey, SkippedId, SkippedKey, SkippedKeys, StateError, Synchronization,
    agreed_version, renegotiate, role,
};
use smp_proto::crypto::{Portable, Provider};
use smp_proto::entropy::SeededEntropy;
use smp_proto::wire::version::{Version, VersionRange};
use smp_tests::key_encapsulation::{ToyKem, WithKem};

static WITH_KEM: WithKem<'static, ToyKem> = WithKem(&Portable, ToyKem);

fn provider(kem: bool) -> &'static dyn Provider {
    if kem { &WITH_KEM } else { &Portable }
}

/// What the stored form and the kept keys are in a party's database.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stored {
    ratchet: Vec<u8>,
    late: BTreeMap<SkippedId, Vec<u8>>,
}

struct Party {
    provider: &'static dyn Provider,
    ratchet: Ratchet,
    late: SkippedKeys,
    entropy: SeededEntropy,
    /// Written by what the ratchet says changed, and by nothing else.
    stored: Stored,
}

impl Party {
    fn new(provider: &'static dyn Provider, ratchet: Ratchet, seed: u8) -> Self {
        let stored = Stored { ratchet: ratchet.to_bytes().to_vec(), late: BTreeMap::new() };
        let entropy = SeededEntropy::new([seed; 32]);
        Self { provider, ratchet, late: SkippedKeys::new(), entropy, stored }
    }

    /// What is in memory.
    fn state(&self) -> Stored {
        let late = self.late.iter().map(|key| (key.id(), key.to_bytes().to_vec()));
        Stored { ratchet: self.ratchet.to_bytes().to_vec(), late: late.collect() }
    }

    /// Sends, with a crash after the key is persisted when `crash` says so.
    fn send(&mut self, text: &[u8], crash: bool) -> Vec<u8> {
        let key = self.ratchet.prepare(self.provider).expect("a party that can send");
        self.stored.ratchet = self.ratchet.to_bytes().to_vec();
        if !crash {
            return key.seal(text, 100).expect("a short text");
        }
        let stored_key = key.to_bytes();
        self.restart();
        SealingKey::from_bytes(&stored_key).expect("what was stored").seal(text, 100).expect("a short text")
    }

    /// Reads; checks that nothing changes when it fails, and that what is to be persisted is what changed.
    fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, DecryptError> {
        let before = self.state();
        let mut message = message.to_vec();
        let read = self.ratchet.decrypt(self.provider, &mut self.late, &mut self.entropy, &mut message);
        let text = match read {
            Ok(read) => {
                for id in &read.skipped.removed {
                    assert!(self.stored.late.remove(id).is_some(), "a key is removed that was not stored");
                }
                for key in &read.skipped.added {
                    assert_eq!(self.stored.late.insert(key.id(), key.to_bytes().to_vec()), None);
                }
                Ok(read.text.to_vec())
            }
            Err(error) => {
                assert_eq!(self.state(), before, "{error} changed the state");
                return Err(error);
            }
        };
        self.stored.ratchet = self.ratchet.to_bytes().to_vec();
        assert_eq!(self.state(), self.stored);
        assert!(self.late.len() <= MAX_KEPT);
        text
    }

    /// Forgets everything but the database.
    fn restart(&mut self) {
        self.ratchet = Ratchet::from_bytes(&self.stored.ratchet).expect("what was stored");
        self.late = SkippedKeys::new();
        for bytes in self.stored.late.values() {
            self.late.insert(SkippedKey::from_bytes(bytes).expect("what was stored"));
        }
        assert_eq!(self.state(), self.stored);
    }
}

/// How the two begin.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    versions: [VersionRange; 2],
    kem: [bool; 2],
    seed: u8,
}

fn range(min: u16, max: u16) -> VersionRange {
    VersionRange::between(Version(min), Version(max))
}

fn beginning() -> impl Strategy<Value = Beginning> {
    let ranges = prop_oneof![Just([(2, 2), (2, 3)]), Just([(2, 3), (2, 2)]), Just([(2, 3), (2, 3)])];
    (ranges, any::<[bool; 2]>(), any::<u8>()).prop_map(|(ranges, kem, seed)| Beginning {
        versions: ranges.map(|(min, max)| range(min, max)),
        kem,
        seed,
    })
}

/// The joining party, who can write at once, and the initiating one.
fn connect(beginning: Beginning) -> [Party; 2] {
    let Beginning { versions: [joining, initiating], kem, seed } = beginning;
    let mut entropy = SeededEntropy::new([seed; 32]);
    let mut initial = InitialKeys::generate(&mut entropy);
    if kem[1] && initiating.max() >= Version(3) {
        initial = initial.proposing(&ToyKem, &mut entropy);
    }
    let link = initial.parameters(initiating);
    let version = agreed_version(joining, link.versions).expect("versions in common");
    let mut own = InitialKeys::generate(&mut entropy);
    if kem[0] && version >= Version(3) {
        own = own.accepting(&link, &ToyKem, &mut entropy);
    }
    let confirmation = own.parameters(VersionRange::only(version));
    let [own, initial] =
        [own, initial].map(|keys| InitialKeys::from_bytes(&keys.to_bytes()).expect("stored keys"));
    let one = Ratchet::join(provider(kem[0]), &own, &link, joining, &mut entropy).expect("an agreement");
    let other =
        Ratchet::initiate(provider(kem[1]), &initial, &confirmation, initiating).expect("an agreement");
    [Party::new(provider(kem[0]), one, seed ^ 1), Party::new(provider(kem[1]), other, seed ^ 2)]
}

#[derive(Clone, Debug)]
enum Action {
    /// A party sends; it may crash between persisting the key and using it.
    Send { from: usize, crash: bool },
    /// One message of those on the way arrives; it may stay on the way, to arrive again.
    Arrive { to: usize, which: Index, again: bool },
    /// One is lost.
    Lose { to: usize, which: Index },
    /// One arrives changed, and stays on the way as it was.
    Forge { to: usize, which: Index, place: Index, bit: u8 },
    /// One arrives cut, and stays.
    Cut { to: usize, which: Index, length: Index },
    /// A party restarts; with a newer program it may speak a newer version.
    Restart { party: usize, newest: Option<u16> },
}

fn action() -> impl Strategy<Value = Action> {
    let party = 0..2_usize;
    let which = any::<Index>;
    prop_oneof![
        6 => (party.clone(), any::<bool>()).prop_map(|(from, crash)| Action::Send { from, crash }),
        6 => (party.clone(), which(), prop::bool::weighted(0.2))
            .prop_map(|(to, which, again)| Action::Arrive { to, which, again }),
        1 => (party.clone(), which()).prop_map(|(to, which)| Action::Lose { to, which }),
        1 => (party.clone(), which(), which(), 0..8_u8)
            .prop_map(|(to, which, place, bit)| Action::Forge { to, which, place, bit }),
        1 => (party.clone(), which(), which()).prop_map(|(to, which, length)| Action::Cut { to, which, length }),
        1 => (party, proptest::option::of(2..=3_u16))
            .prop_map(|(party, newest)| Action::Restart { party, newest }),
    ]
}

/// Everything that matters about two ratchets, without a key.
#[derive(Default)]
struct Model {
    /// The messages of each party: their chains, and their numbers in them.
    sent: [Vec<(u32, u32)>; 2],
    /// The chain that each party sends in.
    chain: [u32; 2],
    /// What each party read of the other's messages.
    read: [BTreeSet<usize>; 2],
    /// The newest chain that each party read something of.
    newest: [Option<u32>; 2],
}

impl Model {
    fn send(&mut self, from: usize) -> usize {
        let chain = self.chain[from];
        let number = self.sent[from].iter().filter(|(other, _)| *other == chain).count();
        self.sent[from].push((chain, number as u32));
        self.sent[from].len() - 1
    }

    /// What must happen when a message that is not changed arrives.
    fn arrive(&mut self, to: usize, message: usize) -> Result<(), DecryptError> {
        let (chain, number) = self.sent[1 - to][message];
        if self.read[to].insert(message) {
            if self.newest[to].is_none_or(|newest| newest < chain) {
                self.newest[to] = Some(chain);
                self.chain[to] += 1;
            }
            return Ok(());
        }
        let same_chain = |place: &usize| self.sent[1 - to][*place].0 == chain;
        if self.newest[to] == Some(chain) {
            let read = self.read[to].iter().copied().filter(same_chain);
            let last = read.map(|place| self.sent[1 - to][place].1).max().unwrap_or_default();
            return Err(if last == number {
                DecryptError::Duplicate
            } else {
                DecryptError::Old { behind: last - number }
            });
        }
        // An earlier chain is remembered as long as something of it is missing.
        let missing =
            (0..self.sent[1 - to].len()).filter(same_chain).any(|place| !self.read[to].contains(&place));
        Err(if missing { DecryptError::OldChain } else { DecryptError::ForgedHeader })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_parties_agree_whatever_the_network_does(
        beginning in beginning(),
        actions in vec(action(), 1..70),
    ) {
        let mut parties = connect(beginning);
        let mut model = Model::default();
        let mut way: [Vec<(usize, Vec<u8>)>; 2] = Default::default();
        let deliver = |parties: &mut [Party; 2], model: &mut Model, to: usize, (number, message): &(usize, Vec<u8>)| {
            let expected = model.arrive(to, *number).map(|()| number.to_be_bytes().to_vec());
            prop_assert_eq!(parties[to].read(message), expected, "message {} to {}", number, to);
            Ok(())
        };
        for action in actions {
            match action {
                Action::Send { from, crash } => {
                    // The initiating party can send when it has read something.
                    let can = from == 0 || !model.read[1].is_empty();
                    prop_assert_eq!(parties[from].ratchet.can_send(), can);
                    if can {
                        let number = model.send(from);
                        let message = parties[from].send(&number.to_be_bytes(), crash);
                        way[1 - from].push((number, message));
                    }
                }
                Action::Arrive { to, which, again } if !way[to].is_empty() => {
                    let place = which.index(way[to].len());
                    let message = if again { way[to][place].clone() } else { way[to].swap_remove(place) };
                    deliver(&mut parties, &mut model, to, &message)?;
                }
                Action::Lose { to, which } if !way[to].is_empty() => {
                    let place = which.index(way[to].len());
                    way[to].swap_remove(place);
                }
                Action::Forge { to, which, place, bit } if !way[to].is_empty() => {
                    let mut message = way[to][which.index(way[to].len())].1.clone();
                    let place = place.index(message.len());
                    message[place] ^= 1 << bit;
                    let read = parties[to].read(&message);
                    prop_assert!(read.is_err(), "byte {} changed", place);
                }
                Action::Cut { to, which, length } if !way[to].is_empty() => {
                    let mut message = way[to][which.index(way[to].len())].1.clone();
                    message.truncate(length.index(message.len()));
                    prop_assert!(parties[to].read(&message).is_err());
                }
                Action::Restart { party, newest } => {
                    parties[party].restart();
                    if let Some(newest) = newest {
                        let speaks = beginning.versions[party].max().0.max(newest);
                        parties[party].ratchet.support(Version(speaks));
                        parties[party].stored.ratchet = parties[party].ratchet.to_bytes().to_vec();
                    }
                }
                _ => {}
            }
        }
        // In the end everything that was not lost arrives.
        for (to, messages) in way.iter().enumerate() {
            for message in messages {
                deliver(&mut parties, &mut model, to, message)?;
            }
        }
        let [one, other] = [0, 1].map(|party| parties[party].ratchet.version());
        prop_assert!([one, other].iter().all(|version| (2..=3).contains(&version.0)));
    }

    #[test]
    fn arbitrary_bytes_change_nothing(beginning in beginning(), bytes in vec(any::<u8>(), 0..3000), talked in any::<bool>()) {
        let mut parties = connect(beginning);
        if talked {
            let message = parties[0].send(b"text", false);
            parties[1].read(&message).unwrap();
        }
        for party in &mut parties {
            prop_assert!(party.read(&bytes).is_err());
            // With a length and a version that are right.
            for prefix in [&[0x7b, 0, 2][..], &[0, 124, 0, 3], &[0x09, 0x2a, 0, 3]] {
                prop_assert!(party.read(&[prefix, &bytes].concat()).is_err());
            }
        }
    }

    #[test]
    fn whatever_is_stored_is_refused_or_works(
        beginning in beginning(),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<Index>()),
        message in vec(any::<u8>(), 0..400),
    ) {
        let mut parties = connect(beginning);
        let sent = parties[0].send(b"text", false);
        for party in &mut parties {
            let mut bytes = party.stored.ratchet.clone();
            let length = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
            bytes.truncate(length);
            for (place, value) in changes.iter().filter(|_| length > 0) {
                bytes[place.index(length)] = *value;
            }
            let Ok(mut ratchet) = Ratchet::from_bytes(&bytes) else { continue };
            prop_assert_eq!(&*ratchet.to_bytes(), &bytes);
            let _ = ratchet.prepare(party.provider);
            for message in [&message, &sent] {
                let mut message = message.clone();
                let _ = ratchet.decrypt(party.provider, &mut party.late, &mut party.entropy, &mut message);
            }
            let _ = ratchet.prepare(party.provider);
        }
        for arbitrary in [&message[..], &sent] {
            prop_assert!(Ratchet::from_bytes(arbitrary).is_err());
            prop_assert!(InitialKeys::from_bytes(arbitrary).is_err());
            let _ = SealingKey::from_bytes(arbitrary);
            prop_assert_eq!(SkippedKey::from_bytes(arbitrary).is_ok(), arbitrary.len() == 92);
        }
    }

    #[test]
    fn a_new_ratchet_gives_both_sides_the_same_answer(beginning in beginning(), seeds in any::<[u8; 2]>(), started in any::<bool>()) {
        let mut entropy = SeededEntropy::new([seeds[0]; 32]);
        let mut keys = |kem: bool| {
            let keys = InitialKeys::generate(&mut entropy);
            if kem { keys.proposing(&ToyKem, &mut entropy) } else { keys }
        };
        let own: [InitialKeys; 2] = beginning.kem.map(|kem| keys(kem && beginning.versions[0].max() == beginning.versions[1].max()));
        let version = agreed_version(beginning.versions[0], beginning.versions[1]).unwrap();
        let parameters = [0, 1].map(|side| own[side].parameters(VersionRange::only(version)));
        // One begins and the other answers, or both begin at once.
        prop_assert_eq!(Synchronization::Started.on_peer_keys(), PeerKeys::UseOwn);
        if !started {
            prop_assert_eq!(Synchronization::Good.on_peer_keys(), PeerKeys::Answer);
        }
        let mut entropy = SeededEntropy::new([seeds[1]; 32]);
        let sides = [0, 1].map(|side| {
            let provider = provider(beginning.kem[side]);
            let (ratchet, role) =
                renegotiate(provider, &own[side], &parameters[1 - side], beginning.versions[side], &mut entropy).unwrap();
            assert_eq!(ratchet.can_send(), role == Role::Joining);
            (Party::new(provider, ratchet, side as u8), role)
        });
        let (joining, initiating) = match sides {
            [(one, Role::Joining), (other, Role::Initiating)] | [(other, Role::Initiating), (one, Role::Joining)] => (one, other),
            [(_, one), (_, other)] => return Err(TestCaseError::fail(format!("{one:?} and {other:?}"))),
        };
        let mut parties = [joining, initiating];
        for (from, text) in [(0, b"one"), (1, b"two"), (0, b"thr"), (1, b"fou"), (0, b"fiv")] {
            let message = parties[from].send(text, false);
            prop_assert_eq!(parties[1 - from].read(&message), Ok(text.to_vec()));
        }
    }
}

fn plain_beginning() -> Beginning {
    Beginning { versions: [SUPPORTED_VERSIONS; 2], kem: [false; 2], seed: 9 }
}

#[test]
fn a_gap_is_bounded_and_the_bound_changes_nothing() {
    let [mut one, mut other] = connect(plain_beginning());
    let messages: Vec<_> = (0..=MAX_AHEAD + 1).map(|n| one.send(&n.to_be_bytes(), false)).collect();
    let (within, beyond) = (MAX_AHEAD as usize, MAX_AHEAD as usize + 1);
    assert_eq!(other.read(&messages[beyond]), Err(DecryptError::TooFarAhead { missing: MAX_AHEAD + 1 }));
    assert_eq!(other.read(&messages[within]), Ok(MAX_AHEAD.to_be_bytes().to_vec()));
    assert_eq!(other.late.len(), within);
    assert_eq!(other.read(&messages[beyond]), Ok((MAX_AHEAD + 1).to_be_bytes().to_vec()));
    assert_eq!(other.read(&messages[beyond]), Err(DecryptError::Duplicate));
    assert_eq!(other.read(&messages[within]), Err(DecryptError::Old { behind: 1 }));
    for (number, message) in messages.iter().enumerate().take(within) {
        assert_eq!(other.read(message), Ok((number as u32).to_be_bytes().to_vec()));
        assert_eq!(
            other.read(message),
            Err(DecryptError::Old { behind: MAX_AHEAD + 1 - number as u32 }),
            "{number}"
        );
    }
    assert!(other.late.is_empty());
}

#[test]
fn kept_keys_are_bounded_and_the_oldest_go() {
    let [mut one, mut other] = connect(plain_beginning());
    let mut first = None;
    let mut second_chain = None;
    let mut total = 0;
    while total <= MAX_KEPT {
        for number in 0..MAX_AHEAD {
            let message = one.send(&number.to_be_bytes(), false);
            if number == 1 {
                match first {
                    None => first = Some(message),
                    Some(_) if second_chain.is_none() => second_chain = Some(message),
                    Some(_) => {}
                }
            }
        }
        total += MAX_AHEAD as usize;
        let message = one.send(b"last", false);
        assert_eq!(other.read(&message), Ok(b"last".to_vec()));
        assert!(other.late.len() <= MAX_KEPT);
        let answer = other.send(b"answer", false);
        assert_eq!(one.read(&answer), Ok(b"answer".to_vec()));
    }
    assert_eq!(other.late.len(), MAX_KEPT);
    // The chain is forgotten, so that nobody can tell what this was.
    assert_eq!(other.read(&first.unwrap()), Err(DecryptError::ForgedHeader));
    assert_eq!(other.read(&second_chain.as_ref().unwrap().clone()), Ok(1_u32.to_be_bytes().to_vec()));
    assert_eq!(other.read(&second_chain.unwrap()), Err(DecryptError::OldChain));
}

#[test]
fn forged_headers_and_texts_have_their_own_errors_and_the_true_message_still_comes() {
    use DecryptError::{ForgedHeader, ForgedText, Header, Malformed};
    for (newest, prefix) in [(2, 1), (3, 2)] {
        let versions = [range(2, newest); 2];
        let [mut one, mut other] = connect(Beginning { versions, ..plain_beginning() });
        let message = one.send(b"text", false);
        // Length, and the encrypted header: version, IV, tag, length, 88 bytes.
        let header_end = prefix + 2 + 16 + 16 + prefix + 88;
        for place in 0..message.len() {
            let mut forged = message.clone();
            forged[place] ^= 1;
            let error = other.read(&forged).expect_err("a forged message");
            let expected: &[DecryptError] = if place < prefix {
                &[Malformed, ForgedHeader]
            } else if place < prefix + 2 {
                // The version decides how an authentic header is read, and is itself authenticated with the text.
                &[Header, ForgedText]
            } else if place < header_end {
                &[ForgedHeader, Malformed]
            } else {
                &[ForgedText]
            };
            assert!(expected.contains(&error), "version {newest}, byte {place}: {error:?}");
        }
        for length in 0..message.len() {
            let expected = if length < header_end + 16 { Malformed } else { ForgedText };
            assert_eq!(other.read(&message[..length]), Err(expected));
        }
        assert_eq!(other.read(&message), Ok(b"text".to_vec()));
        // Of somebody else's ratchet.
        let [mut stranger, _] = connect(Beginning { seed: 77, versions, ..plain_beginning() });
        assert_eq!(other.read(&stranger.send(b"text", false)), Err(ForgedHeader));
    }
}

#[test]
fn versions_without_overlap_and_returned_keys_are_refused() {
    let mut entropy = SeededEntropy::new([1; 32]);
    let (own, peer) = (InitialKeys::generate(&mut entropy), InitialKeys::generate(&mut entropy));
    for (offered, supported) in
        [(range(1, 1), SUPPORTED_VERSIONS), (range(3, 3), range(2, 2)), (range(4, 9), SUPPORTED_VERSIONS)]
    {
        let expected = AgreementError::Version { offered };
        let parameters = peer.parameters(offered);
        assert_eq!(agreed_version(supported, offered), Err(expected));
        assert_eq!(
            Ratchet::join(&Portable, &own, &parameters, supported, &mut entropy).map(|_| ()),
            Err(expected)
        );
        assert_eq!(Ratchet::initiate(&Portable, &own, &parameters, supported).map(|_| ()), Err(expected));
        assert!(expected.to_string().contains(&format!("{} to {}", offered.min().0, offered.max().0)));
    }
    let back = own.parameters(range(3, 3));
    let refused = renegotiate(&Portable, &own, &back, SUPPORTED_VERSIONS, &mut entropy).map(|(_, role)| role);
    assert_eq!(refused, Err(AgreementError::OwnKeys));
    let roles = [role(&own.publics(), &peer.publics()), role(&peer.publics(), &own.publics())];
    assert!(roles.contains(&Ok(Role::Joining)) && roles.contains(&Ok(Role::Initiating)));
    let lower = KeysHash::of(&own.publics()) < KeysHash::of(&peer.publics());
    assert_eq!(roles[0], Ok(if lower { Role::Initiating } else { Role::Joining }));
}

#[test]
fn a_kem_that_was_not_proposed_is_refused() {
    let mut entropy = SeededEntropy::new([1; 32]);
    let proposing = InitialKeys::generate(&mut entropy).proposing(&ToyKem, &mut entropy);
    let link = proposing.parameters(range(3, 3));
    let accepting = InitialKeys::generate(&mut entropy).accepting(&link, &ToyKem, &mut entropy);
    let accepted = accepting.parameters(range(3, 3));
    let plain = InitialKeys::generate(&mut entropy);
    let refused = Err(AgreementError::Kem);
    assert_eq!(Ratchet::initiate(&WITH_KEM, &plain, &accepted, SUPPORTED_VERSIONS).map(|_| ()), refused);
    // Somebody took the algorithm away.
    assert_eq!(Ratchet::initiate(&Portable, &proposing, &accepted, SUPPORTED_VERSIONS).map(|_| ()), refused);
    let without = plain.parameters(range(3, 3));
    assert_eq!(
        Ratchet::join(&WITH_KEM, &accepting, &without, SUPPORTED_VERSIONS, &mut entropy).map(|_| ()),
        refused
    );
    // And a ratchet that lost it.
    let mut parties = connect(Beginning { versions: [range(3, 3); 2], kem: [true; 2], seed: 3 });
    let message = parties[0].send(b"text", false);
    parties[1].provider = &Portable;
    assert_eq!(parties[1].read(&message), Err(DecryptError::Kem));
    parties[1].provider = &WITH_KEM;
    assert_eq!(parties[1].read(&message), Ok(b"text".to_vec()));
}

#[test]
fn a_kem_protects_both_chains_when_both_have_it_and_is_dropped_when_one_has_not() {
    for kem in [[false, false], [true, false], [false, true], [true, true]] {
        let mut parties = connect(Beginning { versions: [range(3, 3); 2], kem, seed: 3 });
        for round in 0..4 {
            for from in [0, 1] {
                let text = [round, from as u8];
                let message = parties[from].send(&text, round == 1);
                assert_eq!(parties[1 - from].read(&message), Ok(text.to_vec()));
            }
        }
        let both = kem == [true, true];
        for (party, has_kem) in parties.iter().zip(kem) {
            assert_eq!(party.ratchet.post_quantum(), (both, both), "{kem:?}");
            assert_eq!(party.ratchet.has_long_headers(), has_kem, "{kem:?}");
        }
    }
}

#[test]
fn versions_go_up_when_the_peer_shows_a_newer_one_and_never_down() {
    let [mut one, mut other] =
        connect(Beginning { versions: [range(2, 2), range(2, 3)], ..plain_beginning() });
    let message = one.send(b"old", false);
    other.read(&message).unwrap();
    assert_eq!([one.ratchet.version(), other.ratchet.version()], [Version(2); 2]);
    one.ratchet.support(Version(3));
    let message = one.send(b"updated", false);
    other.read(&message).unwrap();
    assert_eq!(other.ratchet.version(), Version(3));
    let answer = other.send(b"new", false);
    assert_eq!(one.read(&answer), Ok(b"new".to_vec()));
    assert_eq!(one.ratchet.version(), Version(3));
    one.ratchet.support(Version(2));
    assert_eq!(one.ratchet.version(), Version(3));
    let message = one.send(b"stays", false);
    assert_eq!(other.read(&message), Ok(b"stays".to_vec()));
    assert_eq!(message.len(), 2 + 124 + 16 + 100);
}

#[test]
fn sizes_are_as_documented() {
    assert!(size_of::<Ratchet>() <= 600, "{} bytes", size_of::<Ratchet>());
    let [mut one, mut other] = connect(plain_beginning());
    assert_eq!([one.stored.ratchet.len(), other.stored.ratchet.len()], [410, 346]);
    let message = one.send(b"text", false);
    other.read(&message).unwrap();
    assert_eq!(other.stored.ratchet.len(), 474);
    let mut parties = connect(Beginning { versions: [range(3, 3); 2], kem: [true; 2], seed: 3 });
    for from in [0, 1] {
        let message = parties[from].send(b"text", false);
        assert_eq!(message.len(), 100 + 2_364);
        parties[1 - from].read(&message).unwrap();
    }
    assert_eq!(parties[0].stored.ratchet.len(), 4_434);
    assert_eq!(InitialKeys::generate(&mut one.entropy).to_bytes().len(), 226);
}

#[test]
fn a_header_that_is_longer_than_any_is_not_tried() {
    let [_, mut other] = connect(plain_beginning());
    for (length, expected) in [(2310, DecryptError::ForgedHeader), (2311, DecryptError::Malformed)] {
        let header =
            [&[0, 3][..], &[7; 32], &u16::to_be_bytes(length), &vec![8; usize::from(length)]].concat();
        let message = [&u16::to_be_bytes(header.len() as u16)[..], &header, &[9; 16 + 100]].concat();
        assert_eq!(other.read(&message), Err(expected));
    }
}

#[test]
fn nothing_secret_is_printed_and_other_formats_are_named() {
    let [mut one, mut other] = connect(plain_beginning());
    let (_, second) = (one.send(b"first", false), one.send(b"second", false));
    other.read(&second).unwrap();
    let key = one.ratchet.prepare(&Portable).unwrap();
    let keys = InitialKeys::generate(&mut SeededEntropy::new([1; 32]));
    let late: Vec<_> = other.late.iter().collect();
    let printed = format!("{:?} {key:?} {keys:?} {:?} {late:?}", one.ratchet, other.late);
    assert_eq!(printed, "Ratchet(..) SealingKey(..) InitialKeys(..) SkippedKeys(1) [SkippedKey(..)]");
    let mut stored = one.stored.ratchet.clone();
    stored[0] = 9;
    assert_eq!(Ratchet::from_bytes(&stored).map(|_| ()), Err(StateError::Format(9)));
    assert!(StateError::Format(9).to_string().contains("format 9"));
    assert_eq!(Ratchet::from_bytes(&stored[..0]).map(|_| ()), Err(StateError::Damaged));
}

#[test]
fn the_state_of_a_synchronization_follows_what_happens() {
    use Synchronization::{Agreed, Allowed, Good, Required, Started};
    let forged_header = DecryptError::ForgedHeader;
    assert_eq!(Good.after_error(&DecryptError::ForgedText), Allowed);
    assert_eq!(Good.after_error(&forged_header), Required);
    assert_eq!(Allowed.after_error(&DecryptError::TooFarAhead { missing: 600 }), Required);
    assert_eq!(Required.after_error(&DecryptError::ForgedText), Required);
    for harmless in
        [DecryptError::Duplicate, DecryptError::Malformed, DecryptError::Header, DecryptError::Padding]
    {
        for state in [Good, Allowed, Required, Started, Agreed] {
            assert_eq!(state.after_error(&harmless), state);
        }
    }
    for under_way in [Started, Agreed] {
        assert_eq!(under_way.after_error(&forged_header), under_way);
        assert!(!under_way.may_begin() && !under_way.may_send());
    }
    assert_eq!(
        [Good, Allowed, Required, Started, Agreed].map(Synchronization::after_message),
        [Good, Good, Good, Started, Good]
    );
    assert_eq!([Good, Allowed, Required].map(Synchronization::may_send), [true, true, false]);
    assert_eq!([Good, Allowed, Required].map(Synchronization::may_begin), [false, true, true]);
    assert_eq!(Agreed.on_peer_keys(), PeerKeys::Refuse);
}
