//! A first-step relay, fed with arbitrary contents by clients and destinations.

use bytes::Bytes;
use smp_proto::entropy::SeededEntropy;
use smp_proto::first_step::{Action, DestinationLink, FirstStep, FirstStepConfig, UserId};
use smp_proto::server::{Reception, Role, Roles};
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::first_step::{RelayFailure, Transmission};

/// Steps of a byte, a length of two bytes, and so many bytes. The byte says what happens: 0 to 3, a client says the bytes; 4, a
/// destination says them; 5, a dial succeeds; 6, a connection is lost; 7, as many seconds pass as the bytes say.
pub fn first_step(data: &[u8]) {
    let mut config = FirstStepConfig::default();
    config.limits.held = 4;
    let mut relay = FirstStep::new(config);
    let mut storage = StorageModel::default();
    let mut entropy = SeededEntropy::new([2; 32]);
    let mut now = Now { instant: Instant::from_micros(1), wall: UnixTime(1_700_000_000) };
    let mut links: Vec<DestinationLink> = Vec::new();
    let roles = Roles { first_step: true, destination: false };
    let mut receptions = [(); 4].map(|()| Reception::new(roles));
    let mut rest = data;
    while let Some(([what, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        let what = what % 8;
        match what {
            0..4 => {
                round_trip(bytes);
                let reception = &mut receptions[usize::from(what)];
                if reception.take(bytes) == Some(Role::Client) {
                    let user = UserId(what.into());
                    relay.attach(user);
                    relay.receive(user, &Bytes::copy_from_slice(bytes), now, &mut entropy);
                }
                while reception.poll(&mut Vec::new()) {}
            }
            4 => {
                if let Some(link) = links.last() {
                    relay.receive_from(*link, &Bytes::copy_from_slice(bytes), now, &mut entropy);
                }
            }
            5 => {
                if let Some(link) = links.last() {
                    relay.connected(*link, now);
                }
            }
            6 => {
                if let Some(link) = links.pop() {
                    relay.disconnected(link, RelayFailure::Network, now, &mut entropy);
                }
            }
            _ => {
                let seconds = bytes.iter().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte)) % 10_000_000;
                now.instant = now.instant + Duration::from_secs(seconds.into());
                now.wall = UnixTime(now.wall.0 + i64::from(seconds));
                relay.handle_timeout(now, &mut entropy);
            }
        }
        loop {
            while let Some((id, action)) = relay.poll_storage() {
                let completion = storage.apply(id, action);
                relay.complete(completion, now);
            }
            match relay.poll_action() {
                None => break,
                Some(Action::Connect(link, ..)) => links.push(link),
                Some(Action::Disconnect(link)) => links.retain(|known| *known != link),
                Some(Action::TellClient(user)) => while relay.poll_to_client(user, &mut Vec::new()) {},
                Some(Action::TellDestination(link)) => {
                    while relay.poll_to_destination(link, &mut Vec::new()) {}
                }
            }
        }
        relay.check().expect("a whole first-step relay");
    }
}

/// What was read is written such that it is read the same.
fn round_trip(content: &[u8]) {
    let Some(read) = Transmission::decode(content) else { return };
    let mut written = Vec::new();
    read.encode(&mut written).expect("what was read fits");
    assert!(Transmission::decode(&written) == Some(read));
}
