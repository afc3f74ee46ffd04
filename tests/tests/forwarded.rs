//! The destination's part of a proxy: what it answers to `RFWD` that are not what they should be.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;

use smp_proto::broker::{Broker, BrokerConfig, ConnectionId};
use smp_proto::crypto::proxy_layers::{self, ForwardedCommand, ForwardedResponse, INNER_SEALED_LENGTH};
use smp_proto::crypto::{BoxKey, Portable, Provider};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{X25519Public, X25519Secret};
use smp_proto::wire::block::plain_content;
use smp_proto::wire::transmission::Batch;
use smp_tests::sessions::{Certificates, NOW, Pair, PairOptions, plain_block};

const N: [u8; 24] = [0x6e; 24];
const M: [u8; 24] = [0x6d; 24];

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn large(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A transmission without authorization.
fn transmission(correlation: &[u8], entity: &[u8], content: &[u8]) -> Vec<u8> {
    [&[0][..], &short(correlation), &short(entity), content].concat()
}

/// A relay, and a proxy's connection to it.
struct Destination {
    pair: Pair,
    broker: Broker,
    connection: ConnectionId,
    entropy: SeededEntropy,
    outer: BoxKey,
    inner: BoxKey,
    client_key: X25519Public,
}

impl Destination {
    fn new(proxy: bool, sends_key: bool) -> Self {
        let options = PairOptions { proxy, sends_key, ..PairOptions::at(18) };
        let pair = Pair::connect(&Certificates::named("ed25519"), &options).unwrap();
        let mut entropy = SeededEntropy::new([1; 32]);
        let mut broker = Broker::new(BrokerConfig::default(), &mut entropy);
        let connection = broker.connect(NOW).unwrap();
        let relay = pair.server.hello_key();
        let ephemeral = X25519Secret::from_bytes([5; 32]);
        Self {
            outer: BoxKey::agree(&Portable, &X25519Secret::from_bytes(options.client_secret), &relay),
            inner: BoxKey::agree(&Portable, &ephemeral, &relay),
            client_key: Portable.x25519_public(&ephemeral),
            pair,
            broker,
            connection,
            entropy,
        }
    }

    /// `RFWD` with these bytes, and the relay's one answer to it.
    fn forward(&mut self, sealed: &[u8]) -> Vec<u8> {
        let content = [vec![1], large(&transmission(&M, b"", &[b"RFWD ", sealed].concat()))].concat();
        let block = if self.pair.client.encrypts_blocks() {
            let mut block = bytes::BytesMut::zeroed(16_384);
            let command = smp_proto::wire::command::Command::RelayForward { transmission: sealed };
            let bytes = block.as_mut().try_into().unwrap();
            let sealed = self.pair.client.seal(bytes, NOW, |writer| {
                writer.add(&M.into(), &smp_proto::wire::EntityId::EMPTY, &command, None).unwrap();
            });
            assert_eq!(sealed, Ok(true));
            block
        } else {
            plain_block(&content)
        };
        let opened = self.pair.to_server(block).unwrap();
        let mut requests = self.pair.server.parse(&opened);
        while let Some(mut chunk) = requests.next_chunk() {
            for request in &mut chunk {
                self.broker.look_up(request);
            }
            for verified in self.pair.server.verify(chunk, &mut self.entropy) {
                match verified.into_forwarded() {
                    Err(verified) => {
                        self.broker.execute(self.connection, verified, &opened, NOW, &mut self.entropy);
                    }
                    Ok(forwarded) => {
                        let mut request = self.pair.server.forwarded_request(&forwarded);
                        self.broker.look_up(&mut request);
                        let verified =
                            self.pair.server.verify_forwarded(request, &forwarded, &mut self.entropy);
                        let block = forwarded.block();
                        self.broker.execute(
                            self.connection,
                            verified.unwrap(),
                            block,
                            NOW,
                            &mut self.entropy,
                        );
                    }
                }
            }
        }
        let mut outgoing = VecDeque::new();
        self.broker.take_outgoing(self.connection, &mut outgoing);
        let packed = self.pair.server.pack(&mut outgoing, NOW).expect("an answer");
        assert!(outgoing.is_empty());
        let content = if self.pair.client.encrypts_blocks() {
            self.pair.to_client(packed).unwrap().content().to_vec()
        } else {
            plain_content(&packed).unwrap().to_vec()
        };
        let mut batch = Batch::parse(&content).unwrap();
        assert_eq!(batch.len(), 1);
        let answer = batch.next().unwrap();
        let start = transmission(&M, b"", b"");
        answer.strip_prefix(&start[..]).expect("the proxy's correlation, and no entity").to_vec()
    }

    fn seal(&self, version: u16, content: &[u8]) -> Vec<u8> {
        let mut sealed = [0; INNER_SEALED_LENGTH];
        proxy_layers::seal_command(&Portable, &self.inner, &N, content, &mut sealed).unwrap();
        let command =
            ForwardedCommand { correlation: &N, version, client_key: self.client_key, sealed: &sealed };
        proxy_layers::seal_forwarded_command(&Portable, &self.outer, &M, &command).unwrap()
    }

    /// What the client finds in the answer to this transmission.
    fn ask_at(&mut self, version: u16, transmission: &[u8]) -> Vec<u8> {
        let sealed = self.seal(version, &[vec![1], large(transmission)].concat());
        let answer = self.forward(&sealed);
        let mut sealed = answer.strip_prefix(b"RRES ").expect("a forwarded answer").to_vec();
        let outer = proxy_layers::open_forwarded_response(&Portable, &self.outer, &M, &mut sealed).unwrap();
        let response = ForwardedResponse::parse(outer).unwrap();
        assert_eq!((response.correlation, response.sealed.len()), (&N[..], INNER_SEALED_LENGTH));
        let mut sealed = response.sealed.to_vec();
        let content = proxy_layers::open_response(&Portable, &self.inner, &N, &mut sealed).unwrap();
        let mut batch = Batch::parse(content).unwrap();
        assert_eq!(batch.len(), 1);
        batch.next().unwrap().to_vec()
    }
}

#[test]
fn commands_without_a_connection_are_executed_and_others_prohibited() {
    let mut relay = Destination::new(true, true);
    let entity = [9; 24];
    for (command, answer) in [
        (&b"SEND F hello"[..], &b"ERR AUTH"[..]),
        (b"LGET", b"ERR AUTH"),
        (b"READ", b"ERR AUTH"),
        (b"SUB", b"ERR CMD NO_AUTH"),
        (b"SEND", b"ERR CMD SYNTAX"),
        (b"HELLO", b"ERR CMD UNKNOWN"),
    ] {
        let found = relay.ask_at(18, &transmission(&N, &entity, command));
        assert_eq!(found, transmission(&N, &entity, answer), "{}", String::from_utf8_lossy(command));
    }
    let found = relay.ask_at(18, &transmission(&N, b"", b"PING"));
    assert_eq!(found, transmission(&N, b"", b"ERR CMD PROHIBITED"));
    let found = relay.ask_at(18, &transmission(&N, b"", b"RFWD hello"));
    assert_eq!(found, transmission(&N, b"", b"ERR CMD PROHIBITED"));
    // A signature of the wrong length, and then no transmission at all.
    let signed = [&short(&[1; 3])[..], b"0", &short(&N), &short(&entity), b"SUB"].concat();
    assert_eq!(relay.ask_at(18, &signed), transmission(&N, b"", b"ERR BLOCK"));
    assert_eq!(relay.ask_at(18, &[]), transmission(b"", b"", b"ERR BLOCK"));
}

#[test]
fn what_cannot_be_opened_is_an_error_of_the_proxy() {
    // Whoever gave a key in its hello may forward, whether it said that it is a proxy or not.
    for proxy in [true, false] {
        let mut relay = Destination::new(proxy, true);
        let good = relay.seal(18, &[vec![1], large(&transmission(&N, &[9; 24], b"LGET"))].concat());
        for length in [0, 15, 16, 100, good.len() - 1] {
            assert_eq!(relay.forward(&good[..length]), b"ERR CRYPTO", "{length} bytes");
        }
        let mut changed = good.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(relay.forward(&changed), b"ERR CRYPTO");
        // The outer box is good, the inner one is not.
        let command =
            ForwardedCommand { correlation: &N, version: 18, client_key: relay.client_key, sealed: &[7; 50] };
        let outer = relay.outer.clone();
        let sealed = proxy_layers::seal_forwarded_command(&Portable, &outer, &M, &command).unwrap();
        assert_eq!(relay.forward(&sealed), b"ERR CRYPTO");
        // What is in the outer box is nothing.
        let response = ForwardedResponse { correlation: &N, sealed: b"" };
        let mut reversed = M;
        reversed.reverse();
        let sealed = proxy_layers::seal_forwarded_response(&Portable, &outer, &reversed, &response).unwrap();
        assert_eq!(relay.forward(&sealed), b"ERR CMD SYNTAX");
        // Two commands, or none.
        let one = large(&transmission(&N, &[9; 24], b"LGET"));
        for content in [[vec![2], one.clone(), one.clone()].concat(), vec![0], Vec::new(), vec![1]] {
            let sealed = relay.seal(18, &content);
            assert_eq!(relay.forward(&sealed), b"ERR BLOCK");
        }
        // A version that no relay of today speaks.
        let sealed = relay.seal(5, &[vec![1], one].concat());
        assert_eq!(relay.forward(&sealed), b"ERR CMD SYNTAX");
    }
}

#[test]
fn without_the_proxys_key_nothing_can_be_forwarded() {
    let mut relay = Destination::new(true, false);
    let good = relay.seal(18, &[vec![1], large(&transmission(&N, &[9; 24], b"LGET"))].concat());
    assert_eq!(relay.forward(&good), b"ERR PROXY BROKER TRANSPORT NO_AUTH");
}
