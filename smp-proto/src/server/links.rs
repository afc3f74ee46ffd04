//! The facade's connections to other relays, when it is a proxy.

use bytes::BytesMut;

use super::Server;
use crate::entropy::Entropy;
use crate::proxy::{DialFailure, LinkId, LinkReceived, Proxy, ProxyAction, ProxyLink};
use crate::session::TransportFacts;
use crate::time::Now;
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::error::BrokerError;

impl Server {
    /// The next thing to do for the proxy.
    pub fn poll_proxy(&mut self) -> Option<ProxyAction> {
        self.proxy_actions.pop_front()
    }

    /// The transport connection that was asked for is there.
    pub fn dialled(
        &mut self,
        id: LinkId,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some((_, fingerprint)) =
            self.wanted.get_mut(id.slot()).and_then(|place| place.take_if(|(wanted, _)| *wanted == id))
        else {
            return;
        };
        let link = ProxyLink::new(&self.config.proxy, &fingerprint, facts, now, entropy);
        if self.links.len() <= id.slot() {
            self.links.resize_with(id.slot() + 1, || None);
        }
        if let Some(place) = self.links.get_mut(id.slot()) {
            *place = Some((id, link));
        }
        self.proxy.dialled(id, now);
        self.work_on_proxy(now);
    }

    /// The transport connection that was asked for cannot be had.
    pub fn dial_failed(&mut self, id: LinkId, failure: DialFailure, now: Now) {
        self.proxy.dial_failed(id, failure, now);
        self.work_on_proxy(now);
    }

    /// The connection to another relay is gone.
    pub fn link_lost(&mut self, id: LinkId, now: Now) {
        self.forget_link(id);
        self.proxy.lost(id, DialFailure::Network.error(), now);
        self.work_on_proxy(now);
    }

    /// Takes a block of another relay.
    pub fn handle_link_block(&mut self, id: LinkId, block: BytesMut, now: Now) {
        let Some(link) = self.link(id) else { return };
        match link.receive(block, now) {
            Ok(LinkReceived::Open(session)) => {
                self.proxy.opened(id, session, now);
                // Its hello is to be sent.
                self.proxy_actions.push_back(ProxyAction::MaySend(id));
            }
            Ok(LinkReceived::Answers(answers)) => {
                for (forward, result) in answers {
                    self.proxy.answered(id, forward, result, now);
                }
            }
            Err(error) => self.end_link(id, error, now),
        }
        self.work_on_proxy(now);
    }

    fn end_link(&mut self, id: LinkId, error: BrokerError, now: Now) {
        self.forget_link(id);
        self.proxy.lost(id, error, now);
        self.proxy_actions.push_back(ProxyAction::Close(id));
    }

    /// The next block to send to another relay, until there is none.
    pub fn poll_link_block(
        &mut self,
        id: LinkId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<BytesMut> {
        let (_, link) = self.links.get_mut(id.slot())?.as_mut().filter(|(known, _)| *known == id)?;
        if let Some(hello) = link.take_handshake_block() {
            return Some(hello);
        }
        if !link.is_open() {
            return None;
        }
        while let Some(forward) = self.proxy.poll_forward(id) {
            let mut block = BytesMut::zeroed(BLOCK_LENGTH);
            let bytes = block.as_mut().try_into().ok()?;
            match link.seal(&forward, bytes, now, entropy) {
                Ok(()) => return Some(block),
                Err(error) => self.proxy.answered(id, forward.id, Err(error), now),
            }
        }
        self.work_on_proxy(now);
        None
    }

    fn link(&mut self, id: LinkId) -> Option<&mut ProxyLink> {
        let (known, link) = self.links.get_mut(id.slot())?.as_mut()?;
        (*known == id).then_some(link)
    }

    fn forget_link(&mut self, id: LinkId) {
        if let Some(place) = self.links.get_mut(id.slot()) {
            place.take_if(|(known, _)| *known == id);
        }
        if let Some(place) = self.wanted.get_mut(id.slot()) {
            place.take_if(|(known, _)| *known == id);
        }
    }

    /// Carries requests and answers between broker and proxy until there are none, and takes what is to be done.
    pub(super) fn work_on_proxy(&mut self, now: Now) {
        loop {
            while let Some((ticket, answer)) = self.proxy.poll_answer() {
                self.broker.answer_proxied(ticket, answer);
            }
            match self.broker.poll_proxy_request() {
                Some(request) => self.proxy.handle(request, now),
                None => break,
            }
        }
        while let Some(action) = self.proxy.poll_action() {
            match &action {
                ProxyAction::Dial(id, address) => {
                    if self.wanted.len() <= id.slot() {
                        self.wanted.resize_with(id.slot() + 1, || None);
                    }
                    if let Some(place) = self.wanted.get_mut(id.slot()) {
                        *place = Some((*id, address.fingerprint.clone()));
                    }
                }
                ProxyAction::Close(id) => self.forget_link(*id),
                ProxyAction::MaySend(_) => {}
            }
            self.proxy_actions.push_back(action);
        }
    }

    /// The proxy, to look at.
    #[must_use]
    pub const fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}
