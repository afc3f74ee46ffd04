//! Everything on the wire: what is written is read back as far as a version can tell it, what is read is written back
//! to the same bytes, and no bytes make a reader panic.
#![allow(missing_docs)]

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use smp_proto::keys::{AuthKey, Ed25519Public, PublicKey};
use smp_proto::wire::address::{AddressWithPassword, Host, ServerAddress};
use smp_proto::wire::agent_message::{
    AgentEnvelope, AgentEnvelopeContent, AgentMessage, AgentMessageContent, QueueAddress, Receipt,
};
use smp_proto::wire::base64url;
use smp_proto::wire::block::{
    BATCH_COUNT, BATCH_LENGTH, BLOCK_LENGTH, PLAIN_CONTENT_LENGTH, PLAIN_CONTENT_START, pad_plain,
    plain_content,
};
use smp_proto::wire::command::{Command, QueueMode};
use smp_proto::wire::error::{BrokerError, NetworkError, ProxyError, SmpError, TransportError};
use smp_proto::wire::hello::{ClientHello, ClientService, ServerHello, ServiceResponse, ServiceRole};
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::links::Link;
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::link_data::{FixedLinkData, OwnedLinkData};
use smp_proto::wire::links::ratchet_parameters::{KEM_VERSION, RatchetParameters};
use smp_proto::wire::links::short_link::{LinkScheme, ShortLink};
use smp_proto::wire::percent_encoding::{Escaped, unescape};
use smp_proto::wire::primitives::{Full, Reader, SliceWriter, Writer};
use smp_proto::wire::queue_uri::{AgreedQueue, QueueUri};
use smp_proto::wire::response::Response;
use smp_proto::wire::transmission::{
    Authorization, Batch, BatchWriter, Malformed, SessionLayout, Transmission, write_head,
};
use smp_proto::wire::version::{Version, VersionRange};
use smp_tests::arbitrary::{self, damage, damages, written};

const SESSION: &[u8] = &[200; 32];

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// An authorization of any kind, made of this byte.
fn authorization(kind: usize) -> Authorization<'static> {
    [
        Authorization::None,
        Authorization::Authenticator(&[1; 80]),
        Authorization::Ed25519(&[2; 64]),
        Authorization::Ed448(&[3; 114]),
    ][kind % 4]
}

/// One transmission of a client.
#[derive(Clone, Debug)]
struct Sent {
    authorization: usize,
    service: bool,
    correlation: Identifier,
    entity: Identifier,
    command: Command<'static>,
}

fn sent() -> impl Strategy<Value = Sent> {
    (0..4usize, any::<bool>(), arbitrary::identifier(), arbitrary::identifier(), arbitrary::command())
        .prop_map(|(authorization, service, correlation, entity, command)| Sent {
            authorization,
            service,
            correlation,
            entity,
            command,
        })
}

impl Sent {
    fn write(&self, layout: SessionLayout<'_>, out: &mut impl Writer) -> Result<(), Full> {
        let service = self.service.then_some(&[9; 64]);
        write_head(authorization(self.authorization), service, layout, &self.correlation, &self.entity, out)?;
        self.command.encode(layout.version, out)
    }
}

proptest! {
    #![proptest_config(config(1024))]

    #[test]
    fn commands_are_read_back(command in arbitrary::command(), version in arbitrary::version()) {
        let bytes = written(|out| command.encode(version, out));
        prop_assert!(bytes.starts_with(command.tag()));
        let read = Command::decode(&bytes, version);
        prop_assert_eq!(&read, &Ok(arbitrary::command_as_read(&command, version)));
        let again = written(|out| read.expect("just compared").encode(version, out));
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn responses_are_read_back(response in arbitrary::response(), version in arbitrary::version()) {
        let bytes = written(|out| response.encode(version, out));
        let read = Response::decode(&bytes, version);
        prop_assert_eq!(&read, &Ok(arbitrary::response_as_read(&response, version)));
        let again = written(|out| read.expect("just compared").encode(version, out));
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn errors_are_read_back(
        error in arbitrary::smp_error(),
        broker in arbitrary::broker_error(),
        network in arbitrary::network_error(),
    ) {
        prop_assert_eq!(SmpError::decode(&written(|out| error.encode(out))), Some(error));
        prop_assert_eq!(BrokerError::decode(&written(|out| broker.encode(out))), Some(broker));
        prop_assert_eq!(NetworkError::decode(&written(|out| network.encode(out))), Some(network));
    }

    /// The same bytes, or nothing at all, where there is less room.
    #[test]
    fn a_writer_without_room_says_so(
        command in arbitrary::command(),
        version in arbitrary::version(),
        room in 0..20_000usize,
    ) {
        let bytes = written(|out| command.encode(version, out));
        let mut buffer = vec![0; room];
        let mut out = SliceWriter::new(&mut buffer);
        let result = command.encode(version, &mut out);
        prop_assert_eq!(result, if room >= bytes.len() { Ok(()) } else { Err(Full) });
        prop_assert!(bytes.starts_with(out.written_since(0)));
        prop_assert!(out.written() == bytes.len() || result.is_err());
    }

    #[test]
    fn transmissions_are_read_back(sent in sent(), version in arbitrary::version()) {
        let layout = SessionLayout { version, session: SESSION };
        let bytes = written(|out| sent.write(layout, out));
        let kind = authorization(sent.authorization);
        let authorized = kind != Authorization::None;
        let expected = sent.command.check_credentials(authorized, &sent.entity);
        match Transmission::decode_command(&bytes, layout) {
            Ok(read) => {
                prop_assert_eq!(expected, Ok(()));
                prop_assert_eq!(read.authorization, kind);
                let service = sent.service && authorized && version >= Version::SERVICES;
                prop_assert_eq!(read.service_signature, service.then_some(&[9; 64]));
                prop_assert_eq!(&read.correlation, &sent.correlation);
                prop_assert_eq!(&read.entity, &sent.entity);
                let tail = written(|out| {
                    out.identifier(&sent.correlation)?;
                    out.identifier(&sent.entity)?;
                    sent.command.encode(version, out)
                });
                prop_assert_eq!(read.signed_tail, tail);
                prop_assert_eq!(read.content, arbitrary::command_as_read(&sent.command, version));
            }
            Err(malformed) => {
                let error = expected.expect_err("credentials were right");
                let (correlation, entity) = (sent.correlation.clone(), sent.entity.clone());
                prop_assert_eq!(malformed, Malformed { correlation, entity, error: error.into() });
            }
        }
        // Below v7 a transmission belongs to its session.
        let other = SessionLayout { version, session: &[201; 32] };
        let elsewhere = Transmission::decode_command(&bytes, other);
        if version < Version::IMPLIED_SESSION {
            let entity = Identifier::EMPTY;
            let expected = Malformed { correlation: sent.correlation, entity, error: SmpError::Session };
            prop_assert_eq!(elsewhere.map(|read| read.content), Err(expected));
        } else {
            let here = Transmission::decode_command(&bytes, layout);
            prop_assert_eq!(elsewhere.map(|read| read.content), here.map(|read| read.content));
        }
    }

    #[test]
    fn transmissions_of_relays_are_read_back(
        correlation in arbitrary::identifier(),
        entity in arbitrary::identifier(),
        response in arbitrary::response(),
        version in arbitrary::version(),
    ) {
        let layout = SessionLayout { version, session: SESSION };
        let bytes = written(|out| {
            write_head(Authorization::None, None, layout, &correlation, &entity, out)?;
            response.encode(version, out)
        });
        prop_assert_eq!(bytes[0], 0);
        let read = Transmission::decode_response(&bytes, layout).expect("a response");
        prop_assert_eq!(read.correlation, correlation);
        prop_assert_eq!(read.entity, entity);
        prop_assert_eq!(read.content, arbitrary::response_as_read(&response, version));
    }

    /// Against the simplest possible model of a batch.
    #[test]
    fn batches_take_what_fits(
        sizes in prop_oneof![vec(0..400usize, 0..300), vec(0..17_000usize, 0..6), vec(0..66usize, 200..300)],
        content in prop_oneof![Just(BLOCK_LENGTH - 18), Just(BLOCK_LENGTH), 1..2000usize],
    ) {
        let mut buffer = vec![0xee; content];
        let mut writer = BatchWriter::new(&mut buffer).expect("room for the count");
        let mut taken: Vec<Vec<u8>> = Vec::new();
        let mut length = 1;
        for (index, size) in sizes.into_iter().enumerate() {
            let transmission = vec![index as u8; size];
            let fits = taken.len() < BATCH_COUNT && length + 2 + size <= content.min(1 + BATCH_LENGTH);
            // In two parts, one of them made in place.
            let added = writer.add(|out| {
                out.put(&transmission[..size / 2])?;
                out.reserve(size - size / 2)?.copy_from_slice(&transmission[size / 2..]);
                Ok::<(), Full>(())
            });
            prop_assert_eq!(added.is_ok(), fits);
            if fits {
                length += 2 + size;
                taken.push(transmission);
            }
            prop_assert_eq!(usize::from(writer.count()), taken.len());
        }
        prop_assert_eq!(writer.finish(), length);
        prop_assert_eq!(&buffer[..length], arbitrary::batch(&taken));
        match Batch::parse(&buffer[..length]) {
            None => prop_assert!(taken.is_empty()),
            Some(batch) => {
                prop_assert_eq!(batch.len(), taken.len());
                prop_assert!(batch.eq(taken.iter().map(Vec::as_slice)));
            }
        }
    }

    #[test]
    fn blocks_are_read_back(content in arbitrary::bytes(0..=PLAIN_CONTENT_LENGTH)) {
        let mut block = vec![0; BLOCK_LENGTH];
        block[PLAIN_CONTENT_START..][..content.len()].copy_from_slice(content);
        prop_assert_eq!(pad_plain(&mut block, content.len()), Ok(()));
        prop_assert_eq!(plain_content(&block), Some(content));
        prop_assert!(block[PLAIN_CONTENT_START + content.len()..].iter().all(|byte| *byte == b'#'));
    }

    #[test]
    fn hellos_are_read_back(
        versions in arbitrary::version_range(),
        session in arbitrary::bytes(0..=255),
        chain in arbitrary::certificate_chain(),
        key in arbitrary::signed_key(),
        client_key in option::of(arbitrary::x25519()),
        proxy in any::<bool>(),
        service in any::<bool>(),
        version in arbitrary::version(),
        tail in arbitrary::bytes(0..=20),
    ) {
        let certificates: Vec<&[u8]> = chain.certificates().collect();
        prop_assert_eq!(certificates.len(), chain.len());
        let mut bytes = written(|out| ServerHello::encode(versions, session, &certificates, key.0, out));
        bytes.extend_from_slice(tail);
        let authentication = (versions.max() >= Version::IMPLIED_SESSION).then_some((chain, key));
        prop_assert_eq!(ServerHello::decode(&bytes), Some(ServerHello { versions, session, authentication }));

        let role = [ServiceRole::Messaging, ServiceRole::Notifier, ServiceRole::Proxy][tail.len() % 3];
        let hello = ClientHello {
            version,
            fingerprint: session,
            key: client_key,
            proxy,
            service: service.then_some(ClientService { role, chain, key }),
        };
        let as_read = ClientHello {
            key: hello.key.filter(|_| version >= Version::IMPLIED_SESSION),
            proxy: proxy && version >= Version::PROXY_FLAG,
            service: hello.service.filter(|_| version >= Version::SERVICES),
            ..hello
        };
        let mut bytes = written(|out| hello.encode(out));
        bytes.extend_from_slice(tail);
        // Without a key, what follows might look like one: then it is one, as for the reference.
        if version >= Version::PROXY_FLAG || hello.key.is_some() || tail.is_empty() {
            prop_assert_eq!(ClientHello::decode(&bytes), Some(as_read));
        }
    }

    #[test]
    fn the_third_message_is_read_back(id in arbitrary::identifier(), error in arbitrary::transport_error()) {
        for response in [ServiceResponse::Accepted(id), ServiceResponse::Refused(error)] {
            let bytes = written(|out| response.encode(out));
            prop_assert_eq!(ServiceResponse::decode(&bytes), Some(response));
        }
    }

    #[test]
    fn relay_addresses_are_read_back(server in arbitrary::server(), password in arbitrary::password()) {
        prop_assert_eq!(server.to_string().parse(), Ok(server.clone()));
        let bytes = written(|out| server.write(out));
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(ServerAddress::read(&mut reader), Some(server.clone()));
        prop_assert!(reader.is_empty());
        let password = Some(password.0.to_vec()).filter(|password| !password.is_empty()).map(Into::into);
        let address = AddressWithPassword { address: server, password };
        prop_assert_eq!(address.to_string().parse(), Ok(address.clone()));
        prop_assert_eq!(address.to_string().parse::<ServerAddress>().is_ok(), address.password.is_none());
    }

    #[test]
    fn queue_addresses_are_read_back(uri in arbitrary::queue_uri()) {
        prop_assert_eq!(uri.to_string().parse(), Ok(uri.clone()));
        let bytes = written(|out| uri.write(out));
        let mut reader = Reader::new(&bytes);
        let (min, max) = (uri.versions.min().0, uri.versions.max().0);
        let mode = match uri.mode {
            mode if min >= 4 => mode,
            Some(QueueMode::Messaging) if max >= 3 => Some(QueueMode::Messaging),
            _ if min >= 3 => Some(QueueMode::Contact),
            _ => None,
        };
        prop_assert_eq!(QueueUri::read(&mut reader), Some(QueueUri { mode, ..uri }));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn links_to_blobs_are_read_back(link in arbitrary::blob_link()) {
        prop_assert_eq!(link.to_string().parse(), Ok(Link::Blob(link)));
    }

    /// Text that looks like a link is a link or an error that says what is wrong.
    #[test]
    fn what_looks_like_a_link_never_panics(
        scheme in "(simplex:|https://[a-z.]{0,8}(:[0-9]{0,6})?|smp://)",
        path in "/?(a|c|g|r|i|contact|invitation)/?#/?",
        key in "[A-Za-z0-9_/=-]{0,50}@?",
        query in "\\??(([vhpc]|smp|e2e|data|dh|q|k|srv|x3dh)(=([0-9]{1,6}(-[0-9]{1,6})?|[a-z%0-9A-F]{0,20}))?&?){0,5}",
    ) {
        read_text(&format!("{scheme}{path}{key}{query}"))?;
    }

    #[test]
    fn links_are_read_back(request in arbitrary::connection_request(), short in arbitrary::short_link()) {
        let mut as_text = request.clone();
        if let ConnectionRequest::Invitation(_, ratchet) = &mut as_text
            && ratchet.versions.max() < KEM_VERSION
        {
            ratchet.kem = None;
        }
        prop_assert_eq!(request.to_string().parse(), Ok(Link::Full(Box::new(as_text))));
        prop_assert_eq!(short.to_string().parse(), Ok(Link::Short(short.clone())));

        let bytes = written(|out| request.write(out));
        let mut reader = Reader::new(&bytes);
        let read = ConnectionRequest::read(&mut reader).expect("a request");
        prop_assert!(reader.is_empty());
        prop_assert_eq!(&read.data().versions, &request.data().versions);
        prop_assert_eq!(&read.data().client_data, &request.data().client_data);
        prop_assert!(read.data().queues.iter().all(|queue| queue.mode.is_some()));
        prop_assert_eq!(read.data().queues.len(), request.data().queues.len());
        let bytes = written(|out| short.write(out));
        let mut reader = Reader::new(&bytes);
        let from_bytes = ShortLink { scheme: LinkScheme::Https, ..short };
        prop_assert_eq!(ShortLink::read(&mut reader), Some(from_bytes));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn messages_of_agents_are_read_back(
        request in arbitrary::connection_request(),
        ratchet in arbitrary::ratchet_parameters(),
        version in arbitrary::version(),
        (id, last) in (any::<i64>(), any::<i64>()),
        tail in arbitrary::bytes(0..=15_000),
    ) {
        let agreed = RatchetParameters {
            versions: VersionRange::only(ratchet.versions.max()),
            kem: ratchet.kem.clone().filter(|_| ratchet.versions.max() >= KEM_VERSION),
            ..ratchet
        };
        let contents = [
            AgentEnvelopeContent::Confirmation { ratchet: None, encrypted: tail },
            AgentEnvelopeContent::Confirmation { ratchet: Some(agreed.clone()), encrypted: tail },
            AgentEnvelopeContent::Message(tail),
            AgentEnvelopeContent::RatchetKey { ratchet: agreed, information: tail },
        ];
        for content in contents {
            let envelope = AgentEnvelope { version, content };
            let bytes = written(|out| envelope.encode(out));
            prop_assert_eq!(AgentEnvelope::decode(&bytes), Some(envelope));
        }
        let hash = &tail[..tail.len().min(32)];
        let address = |queue: &QueueUri| QueueAddress { server: queue.server.clone(), sender: queue.sender.clone() };
        let addresses: Vec<QueueAddress> = request.data().queues.iter().map(address).collect();
        let contents = [
            AgentMessageContent::Hello,
            AgentMessageContent::Body(tail),
            AgentMessageContent::Received(vec![Receipt { message: last, hash, information: tail }]),
            AgentMessageContent::RatchetReady(last),
            AgentMessageContent::Continue(addresses[0].clone()),
            AgentMessageContent::UseQueues(addresses.iter().cloned().map(|queue| (queue, last > 0)).collect()),
            AgentMessageContent::TestQueues(addresses),
        ];
        for content in contents {
            let message = AgentMessage::Numbered { id, previous_hash: hash, content };
            let bytes = written(|out| message.encode(out));
            prop_assert_eq!(AgentMessage::decode(&bytes), Some(message));
        }
    }

    /// What the client version of each queue tells is read back, and nothing of what follows is taken for it.
    #[test]
    fn queues_between_agents_are_read_back(
        queues in vec((arbitrary::queue_uri(), 1..=4u16, arbitrary::auth_key(), any::<bool>()), 1..4),
    ) {
        let agreed = queues.iter().map(|(uri, version, key, _)| {
            let QueueUri { server, sender, dh, mode, .. } = uri.clone();
            (AgreedQueue { version: Version(*version), server, sender, dh, mode }, *key)
        });
        let agreed: Vec<(AgreedQueue, AuthKey)> = agreed.collect();
        let mut as_read = agreed.clone();
        for (queue, _) in &mut as_read {
            if queue.version == Version(1) {
                queue.server.hosts.truncate(1);
            }
            queue.mode = queue.mode.filter(|mode| match queue.version.0 {
                ..3 => false,
                3 => *mode == QueueMode::Messaging,
                _ => true,
            });
        }
        let numbered = |content| AgentMessage::Numbered { id: 1, previous_hash: &[], content };
        let bytes = written(|out| numbered(AgentMessageContent::SecureQueues(agreed.clone())).encode(out));
        let expected = numbered(AgentMessageContent::SecureQueues(as_read.clone()));
        prop_assert_eq!(AgentMessage::decode(&bytes), Some(expected));

        let reply = |queues: Vec<(AgreedQueue, AuthKey)>| AgentMessage::ConnectionInformationReply {
            queues: queues.into_iter().map(|(queue, _)| queue).collect(),
            information: b"{}",
        };
        let bytes = written(|out| reply(agreed).encode(out));
        prop_assert_eq!(AgentMessage::decode(&bytes), Some(reply(as_read)));

        let added = queues.into_iter().map(|(mut uri, _, _, replaces)| {
            // Written by every version.
            uri.versions = VersionRange::only(Version(4));
            let replaced = QueueAddress { server: uri.server.clone(), sender: uri.sender.clone() };
            (uri, replaces.then_some(replaced))
        });
        let message = numbered(AgentMessageContent::AddQueues(added.collect()));
        let bytes = written(|out| message.encode(out));
        prop_assert_eq!(AgentMessage::decode(&bytes), Some(message));
    }

    #[test]
    fn base64url_is_one_to_one(bytes in arbitrary::bytes(0..=100), text in "[A-Za-z0-9_=+/-]{0,12}") {
        for text in [base64url::encode(bytes), base64url::encode_unpadded(bytes)] {
            prop_assert_eq!(base64url::decode(&text), Some(bytes.to_vec()));
        }
        if let Some(bytes) = base64url::decode(&text) {
            prop_assert!(text == base64url::encode(&bytes) || text == base64url::encode_unpadded(&bytes));
        }
    }
}

/// Feeds bytes to every reader. What is read must be readable again after it was written, and then be the same.
fn read_everything(bytes: &[u8], version: Version) -> Result<(), TestCaseError> {
    fn same_again<T: PartialEq + Debug>(
        read: &T,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Full>,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<(), TestCaseError> {
        let again = decode(&written(write));
        prop_assert_eq!(again.as_ref(), Some(read));
        Ok(())
    }
    let layout = SessionLayout { version, session: SESSION };
    if let Ok(command) = Command::decode(bytes, version) {
        let bytes = written(|out| command.encode(version, out));
        prop_assert_eq!(Command::decode(&bytes, version), Ok(command));
    }
    if let Ok(response) = Response::decode(bytes, version) {
        let bytes = written(|out| response.encode(version, out));
        let as_read = arbitrary::response_as_read(&without_network_detail(response), version);
        prop_assert_eq!(Response::decode(&bytes, version), Ok(as_read));
    }
    let _ = Transmission::decode_command(bytes, layout);
    let _ = Transmission::decode_response(bytes, layout);
    if let Some(batch) = Batch::parse(bytes) {
        let transmissions: Vec<Vec<u8>> = batch.map(<[u8]>::to_vec).collect();
        prop_assert_eq!(arbitrary::batch(&transmissions), bytes);
    }
    if let Some(hello) = ServerHello::decode(bytes) {
        prop_assert!(
            hello.authentication.is_none_or(|(chain, _)| chain.certificates().count() == chain.len())
        );
    }
    if let Some(hello) = ClientHello::decode(bytes) {
        let again = written(|out| hello.encode(out));
        prop_assert_eq!(ClientHello::decode(&again), Some(hello));
    }
    if let Some(response) = ServiceResponse::decode(bytes) {
        same_again(&response, |out| response.encode(out), ServiceResponse::decode)?;
    }
    if let Some(error) = TransportError::decode(bytes) {
        same_again(&error, |out| error.encode(out), TransportError::decode)?;
    }
    if let Some(error) = NetworkError::decode(bytes) {
        same_again(&error, |out| error.encode(out), NetworkError::decode)?;
    }
    if let Some(server) = ServerAddress::read(&mut Reader::new(bytes)) {
        same_again(&server, |out| server.write(out), |bytes| ServerAddress::read(&mut Reader::new(bytes)))?;
    }
    if let Some(uri) = QueueUri::read(&mut Reader::new(bytes)) {
        // Written without its mode where its versions have none.
        prop_assert!(QueueUri::read(&mut Reader::new(&written(|out| uri.write(out)))).is_some());
    }
    if let Some(link) = ShortLink::read(&mut Reader::new(bytes)) {
        same_again(&link, |out| link.write(out), |bytes| ShortLink::read(&mut Reader::new(bytes)))?;
    }
    if let Some(request) = ConnectionRequest::read(&mut Reader::new(bytes)) {
        prop_assert!(ConnectionRequest::read(&mut Reader::new(&written(|out| request.write(out)))).is_some());
    }
    if let Some(data) = OwnedLinkData::decode(bytes) {
        same_again(&data, |out| data.encode(out), OwnedLinkData::decode)?;
    }
    if let Some(data) = FixedLinkData::decode(bytes) {
        prop_assert!(FixedLinkData::decode(&written(|out| data.encode(out))).is_some());
    }
    if let Some(envelope) = AgentEnvelope::decode(bytes) {
        prop_assert!(AgentEnvelope::decode(&written(|out| envelope.encode(out))).is_some());
    }
    if let Some(message) = AgentMessage::decode(bytes) {
        prop_assert!(AgentMessage::decode(&written(|out| message.encode(out))).is_some());
    }
    if let Ok(key) = PublicKey::from_der(bytes) {
        prop_assert_eq!(PublicKey::from_der(&key.to_der()), Ok(key));
    }
    prop_assert!(plain_content(bytes).is_none());
    read_text(&String::from_utf8_lossy(bytes))
}

/// A network error is written without its detail.
fn without_network_detail(response: Response<'_>) -> Response<'_> {
    fn strip(error: SmpError) -> SmpError {
        match error {
            SmpError::Proxy(ProxyError::Broker(BrokerError::Network(_))) => {
                SmpError::Proxy(ProxyError::Broker(BrokerError::Network(NetworkError::Failed)))
            }
            SmpError::Proxy(ProxyError::Protocol(inner)) => {
                SmpError::Proxy(ProxyError::Protocol(Box::new(strip(*inner))))
            }
            other => other,
        }
    }
    match response {
        Response::Error(error) => Response::Error(strip(error)),
        other => other,
    }
}

/// Feeds text to every reader of text.
fn read_text(text: &str) -> Result<(), TestCaseError> {
    if let Ok(host) = text.parse::<Host>() {
        prop_assert_eq!(host.to_string().parse(), Ok(host));
    }
    if let Ok(address) = text.parse::<AddressWithPassword>() {
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(uri) = text.parse::<QueueUri>() {
        prop_assert_eq!(uri.to_string().parse(), Ok(uri));
    }
    if let Ok(link) = text.parse::<Link>() {
        prop_assert_eq!(link.to_string().parse(), Ok(link));
    }
    if let Ok(parameters) = text.parse::<RatchetParameters>() {
        prop_assert_eq!(parameters.to_string().parse(), Ok(parameters));
    }
    let escaped = Escaped(text).to_string();
    prop_assert_eq!(unescape(&escaped), text);
    let _ = (base64url::decode(text), unescape(text));
    Ok(())
}

proptest! {
    #![proptest_config(config(1024))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), version in arbitrary::version()) {
        read_everything(&bytes, version)?;
    }

    /// A tag first, so that the readers of parameters are reached.
    #[test]
    fn arbitrary_parameters_never_panic(
        tag in arbitrary::command(),
        response in arbitrary::response(),
        parameters in vec(any::<u8>(), 0..200),
        version in arbitrary::version(),
    ) {
        let mut bytes = [tag.tag(), b" ", &parameters].concat();
        read_everything(&bytes, version)?;
        bytes = written(|out| response.encode(version, out));
        let tag = bytes.iter().position(|byte| *byte == b' ').map_or(bytes.len(), |space| space + 1);
        bytes.truncate(tag);
        bytes.extend(parameters);
        read_everything(&bytes, version)?;
    }

    #[test]
    fn damaged_bytes_never_panic(
        sent in sent(),
        response in arbitrary::response(),
        uri in arbitrary::queue_uri(),
        (request, short, blob) in
            (arbitrary::connection_request(), arbitrary::short_link(), arbitrary::blob_link()),
        version in arbitrary::version(),
        damages in damages(),
    ) {
        let layout = SessionLayout { version, session: SESSION };
        let hello = ClientHello { version, fingerprint: SESSION, key: Some(uri.dh), proxy: true, service: None };
        let transmission = written(|out| sent.write(layout, out));
        let valid = [
            written(|out| sent.command.encode(version, out)),
            written(|out| response.encode(version, out)),
            arbitrary::batch(&[transmission.clone(), transmission.clone()]),
            transmission,
            written(|out| hello.encode(out)),
            written(|out| uri.write(out)),
            written(|out| uri.server.write(out)),
            uri.to_string().into_bytes(),
            written(|out| request.write(out)),
            request.to_string().into_bytes(),
            written(|out| short.write(out)),
            short.to_string().into_bytes(),
            blob.to_string().into_bytes(),
            written(|out| OwnedLinkData::Contact {
                versions: uri.versions,
                direct: true,
                owners: Vec::new(),
                relays: vec![short.clone()],
                user_data: SESSION.to_vec(),
            }.encode(out)),
            written(|out| FixedLinkData {
                versions: uri.versions,
                root_key: Ed25519Public([7; 32]),
                request: request.clone(),
                entity: None,
            }.encode(out)),
            written(|out| AgentMessage::Numbered {
                id: 1,
                previous_hash: SESSION,
                content: AgentMessageContent::AddQueues(vec![(uri.clone(), None)]),
            }.encode(out)),
            uri.server.to_string().into_bytes(),
        ];
        for mut bytes in valid {
            damage(&mut bytes, &damages);
            read_everything(&bytes, version)?;
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,60}", host in "[0-9a-z:.\\[\\]@,/#é-]{0,30}") {
        read_text(&text)?;
        read_text(&host)?;
        read_text(&format!("smp://AAAA@{host}"))?;
        read_text(&format!("smp://AAAA@{host}/AAAA#/?{text}"))?;
    }
}

/// The strategies above must not forget a kind: there are 24 commands and 17 responses in versions 6 to 18.
#[test]
fn every_kind_is_generated() {
    let mut runner = TestRunner::deterministic();
    let (mut commands, mut responses) =
        (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for _ in 0..2000 {
        let command = arbitrary::command().new_tree(&mut runner).expect("a value").current();
        commands.insert(command.tag());
        let response = arbitrary::response().new_tree(&mut runner).expect("a value").current();
        let bytes = written(|out| response.encode(Version(18), out));
        let tag = bytes.split(|byte| *byte == b' ').next().expect("split gives at least one").to_vec();
        responses.insert(String::from_utf8(tag).expect("tags are ASCII"));
    }
    assert_eq!((commands.len(), responses.len()), (27, 18), "{commands:?} {responses:?}");
}

#[test]
fn ranges_are_never_empty() {
    let bytes = [0, 7, 0, 6];
    assert_eq!(Reader::new(&bytes).version_range(), None);
    assert_eq!(VersionRange::new(Version(7), Version(6)), None);
}
