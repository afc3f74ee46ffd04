//! What fuzzing tries: every reader with arbitrary bytes, and a relay with arbitrary blocks, a first-step
//! relay with arbitrary contents of them.
//!
//! Each function is a target of its own. None may panic, whatever the bytes; what is read must be written such that it is
//! read the same. They run without a fuzzer, too: `cargo run --example seeds` has each run on its seeds.

mod first_step;
mod forwarding;
mod relay;

use smp_proto::wire::block::plain_content;
use smp_proto::wire::command::Command;
use smp_proto::wire::hello::{ClientHello, ServerHello, ServiceResponse};
use smp_proto::wire::response::Response;
use smp_proto::wire::transmission::{Batch, SessionLayout, Transmission};
use smp_proto::wire::version::Version;
use smp_tests::sessions::SESSION_ID;

pub use first_step::first_step;
pub use forwarding::{SENDER, forwarding};
pub use relay::session;

/// The first byte chooses a version of 6 to 18.
fn version(data: &[u8]) -> (Version, &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    (Version(6 + u16::from(*first) % 13), rest)
}

/// A version byte, and what a block contains: read as a relay reads it, as a client does, and as a block without padding.
pub fn block(data: &[u8]) {
    let (version, content) = version(data);
    let layout = SessionLayout { version, session: &SESSION_ID };
    for transmission in Batch::parse(content).into_iter().flatten() {
        let _ = Transmission::decode_command(transmission, layout);
        let _ = Transmission::decode_response(transmission, layout);
    }
    for content in plain_content(content).into_iter().filter_map(Batch::parse) {
        content.for_each(|transmission| drop(Transmission::decode_command(transmission, layout)));
    }
}

/// A version byte and a command.
pub fn command(data: &[u8]) {
    let (version, bytes) = version(data);
    let Ok(command) = Command::decode(bytes, version) else { return };
    let mut written = Vec::new();
    command.encode(version, &mut written).expect("what was read fits");
    assert_eq!(Command::decode(&written, version).as_ref(), Ok(&command));
    let mut again = Vec::new();
    command.encode(version, &mut again).expect("what was read fits");
    assert_eq!(again, written);
}

/// A version byte and a response.
pub fn response(data: &[u8]) {
    let (version, bytes) = version(data);
    let Ok(response) = Response::decode(bytes, version) else { return };
    let mut written = Vec::new();
    if response.encode(version, &mut written).is_ok() {
        let read = Response::decode(&written, version).expect("what was written is read");
        let mut again = Vec::new();
        read.encode(version, &mut again).expect("what was read fits");
        assert_eq!(again, written);
    }
}

/// The content of a hello of either side, or of the third message.
pub fn hello(data: &[u8]) {
    if let Some(hello) = ServerHello::decode(data)
        && let Some((chain, key)) = &hello.authentication
    {
        let _ = smp_proto::crypto::signed_key::SignedKey::from_der(key.0);
        for certificate in chain.certificates() {
            let _ = smp_proto::crypto::certificates::public_key(certificate);
        }
    }
    if let Some(hello) = ClientHello::decode(data) {
        let mut written = Vec::new();
        if hello.encode(&mut written).is_ok() {
            let again = ClientHello::decode(&written).expect("what was written is read");
            assert_eq!(
                (again.version, again.fingerprint, again.key),
                (hello.version, hello.fingerprint, hello.key)
            );
        }
    }
    let _ = ServiceResponse::decode(data);
}

/// What is said on a connection of `smp-proxy/1`.
pub fn first_step_wire(data: &[u8]) {
    let Some(read) = smp_proto::wire::first_step::Transmission::decode(data) else { return };
    let mut written = Vec::new();
    read.encode(&mut written).expect("what was read fits");
    assert_eq!(smp_proto::wire::first_step::Transmission::decode(&written), Some(read));
}

/// The text of an address, a queue's address, or a link.
pub fn address(data: &[u8]) {
    use smp_proto::wire::address::{AddressWithPassword, ServerAddress};
    use smp_proto::wire::links::Link;
    use smp_proto::wire::queue_uri::QueueUri;

    let Ok(text) = core::str::from_utf8(data) else { return };
    let _ = text.parse::<AddressWithPassword>();
    if let Ok(address) = text.parse::<ServerAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(queue) = text.parse::<QueueUri>() {
        assert_eq!(queue.to_string().parse(), Ok(queue));
    }
    if let Ok(link) = text.parse::<Link>() {
        assert!(link.to_string().parse::<Link>().is_ok());
    }
}
