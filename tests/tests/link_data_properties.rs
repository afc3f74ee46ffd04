//! Data behind short links: what owners make, readers verify; what anybody else makes or changes, nobody takes.

use proptest::prelude::*;
use smp_proto::crypto::link_data::{
    LinkDataError, LinkPart, LinkPurpose, LinkSigner, VerifiedFixedPart, VerifiedLinkData, authorize_owner,
    seal_part,
};
use smp_proto::crypto::link_keys::LinkKey;
use smp_proto::crypto::{Nonce, Portable, Provider};
use smp_proto::keys::Ed25519Secret;
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::link_data::{OwnedLinkData, OwnerAuthorization};
use smp_proto::wire::links::short_link::{ContactKind, LinkKeyBytes, ShortLinkTarget};
use smp_proto::wire::version::{Version, VersionRange};
use smp_tests::arbitrary;

const ROOT: u8 = 1;

fn secret(number: u8) -> Ed25519Secret {
    Ed25519Secret::from_bytes([number; 32])
}

fn versions() -> VersionRange {
    VersionRange::between(Version(2), Version(7))
}

/// Owners `numbers`, each authorized by the one before; the first by the root key.
fn chain(numbers: &[u8]) -> Vec<OwnerAuthorization> {
    let mut signer = secret(ROOT);
    let mut owners = Vec::new();
    for number in numbers {
        let key = Portable.ed25519_public(&secret(*number));
        owners.push(authorize_owner(&Portable, &signer, Identifier::new(&[*number]).expect("short"), key));
        signer = secret(*number);
    }
    owners
}

fn contact(owners: Vec<OwnerAuthorization>, user_data: &[u8]) -> OwnedLinkData {
    let user_data = user_data.to_vec();
    OwnedLinkData::Contact { versions: versions(), direct: true, owners, relays: Vec::new(), user_data }
}

fn target(fixed: &VerifiedFixedPart) -> ShortLinkTarget {
    let key = LinkKeyBytes::from(fixed.key());
    match fixed.purpose() {
        LinkPurpose::Invitation => ShortLinkTarget::Invitation { link: Identifier::from([7; 24]), key },
        LinkPurpose::Contact => ShortLinkTarget::Contact { kind: ContactKind::Contact, key },
    }
}

/// A request whose fixed part fits: without post-quantum keys, and with few queues.
fn request() -> impl Strategy<Value = ConnectionRequest> {
    arbitrary::connection_request().prop_map(|mut request| {
        let data = match &mut request {
            ConnectionRequest::Invitation(data, ratchet) => {
                ratchet.kem = None;
                data
            }
            ConnectionRequest::Contact(data) => data,
        };
        data.queues.truncate(1);
        for queue in &mut data.queues {
            // Read back as written: a mode that is not said becomes one.
            queue.versions = VersionRange::only(Version(4));
            queue.mode = queue.mode.or(Some(smp_proto::wire::command::QueueMode::Contact));
        }
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_an_owner_makes_is_verified_and_what_is_changed_is_not(
        request in request(),
        entity in proptest::option::of(arbitrary::identifier()),
        user_data in arbitrary::bytes(0..=9000),
        signer in 0..4usize,
        (fixed_place, owned_place, bit) in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8u8),
    ) {
        let made = VerifiedFixedPart::create(
            &Portable, &secret(ROOT), versions(), request.clone(), entity.clone(), &Nonce([1; 24]),
        );
        let (fixed, fixed_blob) = made.expect("one queue fits");
        prop_assert_eq!(fixed_blob.len(), LinkPart::Fixed.blob_length());
        let (owned, signer) = match &request {
            ConnectionRequest::Invitation(..) => {
                (OwnedLinkData::Invitation { versions: versions(), user_data: user_data.to_vec() }, 0)
            }
            ConnectionRequest::Contact(_) => (contact(chain(&[2, 3, 4]), user_data), signer),
        };
        let by = secret([ROOT, 2, 3, 4][signer]);
        let owned_blob = fixed.seal_owned(&Portable, &by, &owned, &Nonce([2; 24])).expect("it fits");
        prop_assert_eq!(owned_blob.len(), LinkPart::Owned.blob_length());

        let target = target(&fixed);
        let mut read = VerifiedLinkData::open(&Portable, &target, &fixed_blob, &owned_blob).expect("it is genuine");
        prop_assert_eq!(read.fixed().data(), fixed.data());
        prop_assert_eq!(&read.fixed().data().entity, &entity);
        prop_assert_eq!(read.owned().data(), &owned);
        let expected = signer.checked_sub(1).map_or(LinkSigner::Root, LinkSigner::Owner);
        prop_assert_eq!(read.owned().signer(), expected);

        // One bit, anywhere.
        let changed = |blob: &[u8], place: prop::sample::Index| {
            let mut blob = blob.to_vec();
            let place = place.index(blob.len());
            blob[place] ^= 1 << bit;
            blob
        };
        let refused = VerifiedLinkData::open(&Portable, &target, &changed(&fixed_blob, fixed_place), &owned_blob);
        prop_assert_eq!(refused.err(), Some(LinkDataError::NotOpened(LinkPart::Fixed)));
        let before = read.owned().clone();
        let refused = read.update(&Portable, &changed(&owned_blob, owned_place));
        prop_assert_eq!(refused, Err(LinkDataError::NotOpened(LinkPart::Owned)));
        prop_assert_eq!(read.owned(), &before);
    }

    /// What comes from a relay that has the link, and seals what it likes, as it likes.
    #[test]
    fn nothing_that_anybody_seals_panics_or_passes(
        request in request(),
        text in proptest::collection::vec(any::<u8>(), 0..1500),
        damages in arbitrary::damages(),
    ) {
        let (fixed, _) = VerifiedFixedPart::create(
            &Portable, &secret(ROOT), versions(), request.clone(), None, &Nonce([1; 24]),
        ).expect("one queue fits");
        let box_key = match fixed.purpose() {
            LinkPurpose::Invitation => fixed.key().invitation(&Portable),
            LinkPurpose::Contact => fixed.key().contact(&Portable).1,
        };
        let seal = |part, bytes: &[u8]| {
            seal_part(&Portable, &box_key, &secret(9), part, bytes, &Nonce([3; 24])).expect("it fits")
        };
        let mut genuine = arbitrary::written(|out| fixed.data().encode(out));
        let resealed = seal(LinkPart::Fixed, &genuine);
        let open = |blob: &[u8]| {
            let key = LinkKey::from_bytes(*fixed.key().as_bytes());
            VerifiedFixedPart::open(&Portable, fixed.purpose(), key, blob).err()
        };
        prop_assert_eq!(open(&resealed), Some(LinkDataError::Signature(LinkPart::Fixed)));
        arbitrary::damage(&mut genuine, &damages);
        genuine.truncate(1900);
        prop_assert!(open(&seal(LinkPart::Fixed, &genuine)).is_some());
        prop_assert_eq!(open(&seal(LinkPart::Fixed, &text)), Some(LinkDataError::OtherLink));
        prop_assert!(fixed.open_owned(&Portable, &seal(LinkPart::Owned, &text)).is_err());
        prop_assert!(fixed.open_owned(&Portable, &text).is_err());
    }
}

fn address() -> (VerifiedFixedPart, Vec<u8>) {
    let text = "simplex:/contact#/?v=2-7&smp=smp%3A%2F%2F1234-w%3D%3D%40h%2F3456-w%3D%3D%23%2F%3Fv%3D4%26dh%3DMCowBQYDK2\
                VuAyEAjiswwI3O_NlS8Fk3HJUW870EY2bAwmttMBsvRB9eV3o%253D%26q%3Dc";
    let request = text.parse().expect("a contact link");
    let made =
        VerifiedFixedPart::create(&Portable, &secret(ROOT), versions(), request, None, &Nonce([1; 24]));
    made.expect("one queue fits")
}

#[test]
fn nobody_but_owners_can_write() {
    let (fixed, _) = address();
    let seal = |signer, data: &OwnedLinkData| {
        fixed.seal_owned(&Portable, &secret(signer), data, &Nonce([2; 24])).map(|_| ())
    };
    let two = contact(chain(&[2, 3]), b"data");
    assert_eq!(seal(3, &two), Ok(()));
    assert_eq!(seal(4, &two), Err(LinkDataError::Signature(LinkPart::Owned)));

    // The second owner comes before the one who authorizes them.
    let mut reversed = chain(&[2, 3]);
    reversed.reverse();
    assert_eq!(seal(ROOT, &contact(reversed, b"")), Err(LinkDataError::OwnerNotAuthorized(0)));
    let again = chain(&[2, 3, 2]);
    assert_eq!(seal(ROOT, &contact(again, b"")), Err(LinkDataError::OwnerRepeated(2)));
    assert_eq!(seal(ROOT, &contact(chain(&[2, ROOT]), b"")), Err(LinkDataError::OwnerIsRoot(1)));
    let mut renamed = chain(&[2]);
    renamed[0].id = Identifier::new(b"another").expect("short");
    assert_eq!(seal(ROOT, &contact(renamed, b"")), Err(LinkDataError::OwnerNotAuthorized(0)));

    let invitation = OwnedLinkData::Invitation { versions: versions(), user_data: Vec::new() };
    assert_eq!(seal(ROOT, &invitation), Err(LinkDataError::Purpose(LinkPart::Owned)));
    // 13,784 bytes less two of length, 65 of signature, and 11 of the data's other fields.
    assert_eq!(seal(ROOT, &contact(Vec::new(), &[7; 13_706])), Ok(()));
    let too_long = seal(ROOT, &contact(Vec::new(), &[7; 13_707]));
    assert_eq!(too_long, Err(LinkDataError::TooLong(LinkPart::Owned)));
    assert!(too_long.unwrap_err().to_string().contains("13717 bytes"));
}

#[test]
fn an_address_is_no_invitation() {
    let (fixed, blob) = address();
    let key = || LinkKey::from_bytes(*fixed.key().as_bytes());
    let opened = VerifiedFixedPart::open(&Portable, LinkPurpose::Contact, key(), &blob);
    assert_eq!(opened.map(|opened| opened.data().clone()), Ok(fixed.data().clone()));
    let opened = VerifiedFixedPart::open(&Portable, LinkPurpose::Invitation, key(), &blob);
    assert_eq!(opened.err(), Some(LinkDataError::NotOpened(LinkPart::Fixed)));
    // Sealed by somebody who has the link, as if it were an invitation.
    let bytes = arbitrary::written(|out| fixed.data().encode(out));
    let box_key = key().invitation(&Portable);
    let blob = seal_part(&Portable, &box_key, &secret(ROOT), LinkPart::Fixed, &bytes, &Nonce([3; 24]));
    let opened = VerifiedFixedPart::open(&Portable, LinkPurpose::Invitation, key(), &blob.expect("it fits"));
    assert_eq!(opened.err(), Some(LinkDataError::Purpose(LinkPart::Fixed)));
}
