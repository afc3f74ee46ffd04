//! Who may connect: limits on connections in total, from one address, and on those that have not finished their handshake.
//!
//! Owns: a place for every connection, from accepting to closing. It never sees what clients send, and keeps addresses
//! only as long as there are connections from them. Every operation is O(log n) at most.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wakeup::{Events, Wakeup};
use crate::configuration::ServiceLimits;

/// The book of places.
#[derive(Debug)]
pub struct Admission {
    connections: usize,
    per_address: usize,
    uncounted: Vec<IpAddr>,
    handshakes: usize,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    closed: bool,
    next: u64,
    places: BTreeMap<u64, Arc<Wakeup>>,
    by_origin: HashMap<Origin, usize>,
    handshakes: BTreeMap<u64, Arc<Wakeup>>,
}

/// What counts as one address: an IPv4 address, or an IPv6 /64 network, which is what one customer usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin([u8; 8]);

impl Origin {
    fn of(address: IpAddr) -> Self {
        let mut origin = [0; 8];
        match address.to_canonical() {
            // The first bytes say which kind it is: no client has an IPv6 address that begins with eight zero bytes.
            IpAddr::V4(address) => origin[4..].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => origin.copy_from_slice(&address.octets()[..8]),
        }
        Self(origin)
    }
}

/// Why somebody may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The relay has as many connections as it takes.
    Full,
    /// The address has as many connections as one address gets.
    AddressFull,
    /// The relay is stopping.
    Stopping,
    /// The relay cannot make a TLS session.
    Failed,
}

impl Admission {
    /// A book with the limits of the configuration.
    #[must_use]
    pub fn new(limits: &ServiceLimits) -> Self {
        Self {
            connections: limits.connections,
            per_address: limits.connections_per_address,
            uncounted: limits.uncounted_addresses.iter().map(IpAddr::to_canonical).collect(),
            handshakes: limits.handshakes,
            book: Mutex::new(Book::default()),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`, in its handshake. When there are more handshakes than allowed, the
    /// oldest one is told to go.
    ///
    /// # Errors
    /// [`Refusal`] when there is no place.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refusal> {
        let origin = (!self.uncounted.contains(&address.to_canonical())).then(|| Origin::of(address));
        let wakeup = Arc::new(Wakeup::default());
        let (number, oldest) = {
            let mut book = self.book();
            if book.closed {
                return Err(Refusal::Stopping);
            }
            if book.places.len() >= self.connections {
                return Err(Refusal::Full);
            }
            if let Some(origin) = origin {
                let count = book.by_origin.entry(origin).or_default();
                if *count >= self.per_address {
                    return Err(Refusal::AddressFull);
                }
                *count += 1;
            }
            let number = book.next;
            book.next += 1;
            book.places.insert(number, Arc::clone(&wakeup));
            let oldest =
                if book.handshakes.len() >= self.handshakes { book.handshakes.pop_first() } else { None };
            book.handshakes.insert(number, Arc::clone(&wakeup));
            (number, oldest)
        };
        if let Some((_, oldest)) = oldest {
            oldest.raise(Events::EVICTED);
        }
        Ok(Place { admission: Arc::clone(self), wakeup, number, origin })
    }

    /// How many connections there are, and how many of them are in their handshake.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let book = self.book();
        (book.places.len(), book.handshakes.len())
    }

    /// Admits nobody any more, and tells every connection. For stopping only: it visits all of them.
    pub fn close(&self, events: Events) {
        let everybody: Vec<_> = {
            let mut book = self.book();
            book.closed = true;
            book.places.values().cloned().collect()
        };
        for wakeup in everybody {
            wakeup.raise(events);
        }
    }
}

/// A connection's place. Dropping it makes room.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    wakeup: Arc<Wakeup>,
    number: u64,
    origin: Option<Origin>,
}

impl Place {
    /// The connection's bell.
    #[must_use]
    pub fn wakeup(&self) -> &Arc<Wakeup> {
        &self.wakeup
    }

    /// Says that the handshake is finished: the connection does not have to make room for handshakes any more.
    pub fn handshake_finished(&self) {
        self.admission.book().handshakes.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.admission.book();
        book.places.remove(&self.number);
        book.handshakes.remove(&self.number);
        if let Some(origin) = self.origin
            && let Some(count) = book.by_origin.get_mut(&origin)
        {
            *count -= 1;
            if *count == 0 {
                book.by_origin.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limits: ServiceLimits) -> Arc<Admission> {
        Arc::new(Admission::new(&limits))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let admission = admission(ServiceLimits { connections: 2, ..ServiceLimits::default() });
        let first = admission.admit(address("192.0.2.1")).expect("there is room");
        let _second = admission.admit(address("192.0.2.1")).expect("there is room");
        assert_eq!(admission.admit(address("192.0.2.2")).err(), Some(Refusal::Full));
        drop(first);
        assert!(admission.admit(address("192.0.2.2")).is_ok());
        assert_eq!(admission.count(), (1, 1));
    }

    #[test]
    fn one_address_has_a_limit_and_a_network_is_one_address() {
        let limits = ServiceLimits { connections_per_address: 1, ..ServiceLimits::default() };
        let admission = admission(limits);
        let held = admission.admit(address("2001:db8:0:1::1")).expect("there is room");
        assert_eq!(admission.admit(address("2001:db8:0:1::2")).err(), Some(Refusal::AddressFull));
        let _other = admission.admit(address("2001:db8:0:2::1")).expect("another network");
        let _four = admission.admit(address("192.0.2.1")).expect("another address");
        assert_eq!(admission.admit(address("::ffff:192.0.2.1")).err(), Some(Refusal::AddressFull));
        // Those through whom many come are not counted.
        let _tor: Vec<_> =
            (0..5).map(|_| admission.admit(address("127.0.0.1")).expect("not counted")).collect();
        drop(held);
        assert!(admission.admit(address("2001:db8:0:1::2")).is_ok());
    }

    #[test]
    fn the_oldest_handshake_makes_room() {
        let admission = admission(ServiceLimits { handshakes: 2, ..ServiceLimits::default() });
        let finished = admission.admit(address("192.0.2.1")).expect("there is room");
        finished.handshake_finished();
        let oldest = admission.admit(address("192.0.2.1")).expect("there is room");
        let newer = admission.admit(address("192.0.2.1")).expect("there is room");
        assert!(oldest.wakeup().take().is_empty());
        let newest = admission.admit(address("192.0.2.1")).expect("there is room");
        assert!(oldest.wakeup().take().contains(Events::EVICTED));
        for other in [&finished, &newer, &newest] {
            assert!(other.wakeup().take().is_empty());
        }
        assert_eq!(admission.count(), (4, 2));
    }

    #[test]
    fn closing_tells_everybody_and_admits_nobody() {
        let admission = admission(ServiceLimits::default());
        let place = admission.admit(address("192.0.2.1")).expect("there is room");
        admission.close(Events::DRAIN);
        assert!(place.wakeup().take().contains(Events::DRAIN));
        assert_eq!(admission.admit(address("192.0.2.1")).err(), Some(Refusal::Stopping));
    }
}
