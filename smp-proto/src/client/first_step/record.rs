//! What of one token survives a restart, and its stored form.
//!
//! layout (1) ‖ token (32) ‖ next number (8) ‖ first-step relay ‖ destination ‖ maybe registration (since (8), until (8)) ‖
//! count (2) ‖ commands: number (8) ‖ id (8) ‖ ephemeral secret (32) ‖ key (number (4), until (8), key (32)) ‖ inner
//! correlation (24) ‖ entity (short) ‖ expected (1, or 33) ‖ hash (32) ‖ options (1) ‖ not before (8) ‖ until (8) ‖ held (1):
//! about 230 bytes each.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::command::{Expected, HoldId, Seal, VerifiedKey};
use super::holdings::{Holdings, HoldingsConfig, Open, Registration, Stage};
use crate::keys::{X25519Public, X25519Secret};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{Correlation, ForwardOptions, RelayNumber};
use crate::wire::primitives::{Full, Reader, Writer};

const LAYOUT: u8 = 1;

/// A record of [`Holdings`] is cut short, holds an impossible value, or was written by a newer release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldingsDamaged;

impl fmt::Display for HoldingsDamaged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the record of what a first-step relay holds is damaged, or of a newer release")
    }
}

impl core::error::Error for HoldingsDamaged {}

impl Holdings {
    /// The stored form: secret.
    ///
    /// # Errors
    /// [`Full`] when there are more than 65,535 commands: bounds exclude that.
    pub fn record(&self) -> Result<Zeroizing<Vec<u8>>, Full> {
        // Room enough that no copy of a secret is left behind by growing.
        let mut out = Zeroizing::new(Vec::with_capacity(1024 + self.open.len() * 512));
        out.byte(LAYOUT)?;
        out.put(&*self.token)?;
        out.put(&self.next.to_be_bytes())?;
        self.relay.write(&mut *out)?;
        self.destination.write(&mut *out)?;
        out.maybe(self.registered.as_ref(), |out, registration| {
            out.i64(registration.since)?;
            out.i64(registration.until)
        })?;
        out.u16(u16::try_from(self.open.len()).map_err(|_| Full)?)?;
        for (number, open) in &self.open {
            out.put(&number.0.to_be_bytes())?;
            open.write(&mut out)?;
        }
        Ok(out)
    }

    /// What [`record`](Self::record) has written. Nothing is known of the commands in it until a relay was asked.
    ///
    /// # Errors
    /// [`HoldingsDamaged`].
    pub fn restore(config: HoldingsConfig, record: &[u8]) -> Result<Self, HoldingsDamaged> {
        Self::read(config, &mut Reader::new(record)).ok_or(HoldingsDamaged)
    }

    fn read(config: HoldingsConfig, read: &mut Reader<'_>) -> Option<Self> {
        read.expect(LAYOUT)?;
        let token = Zeroizing::new(*read.array()?);
        let next = u64::from_be_bytes(*read.array()?);
        let relay = ServerAddress::read(read)?;
        let destination = ServerAddress::read(read)?;
        let registered = read.maybe(|read| Some(Registration { since: read.i64()?, until: read.i64()? }))?;
        let mut open = BTreeMap::new();
        for _ in 0..read.u16()? {
            let number = Correlation(u64::from_be_bytes(*read.array()?));
            if number.0 >= next || open.insert(number, Open::read(read)?).is_some() {
                return None;
            }
        }
        read.end()?;
        let mut holdings = Self::with(config, relay, destination, token);
        holdings.next = next;
        holdings.registered = registered;
        holdings.acknowledged = Self::settled_up_to(&open, next);
        holdings.open = open;
        holdings.waiting = VecDeque::new();
        Some(holdings)
    }
}

impl Open {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.put(&self.id.0.to_be_bytes())?;
        out.put(self.seal.ephemeral.as_bytes())?;
        out.put(&self.seal.key.number.0.to_be_bytes())?;
        out.i64(self.seal.key.until)?;
        out.put(&self.seal.key.key.0)?;
        out.put(&self.seal.inner)?;
        out.identifier(&self.seal.entity)?;
        match &self.seal.expected {
            Expected::Ok => out.byte(0)?,
            Expected::Link => out.byte(1)?,
            Expected::Blob(secret) => {
                out.byte(2)?;
                out.put(secret.as_bytes())?;
            }
        }
        out.put(&self.seal.hash)?;
        out.byte(self.options.to_byte())?;
        out.i64(self.not_before)?;
        out.i64(self.until)?;
        out.bool(self.was_held)
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let id = HoldId(u64::from_be_bytes(*read.array()?));
        let ephemeral = X25519Secret::from_bytes(*read.array()?);
        let key = VerifiedKey {
            number: RelayNumber(u32::from_be_bytes(*read.array()?)),
            until: read.i64()?,
            key: X25519Public(*read.array()?),
        };
        let inner = *read.array()?;
        let entity = read.identifier()?;
        let expected = match read.byte()? {
            0 => Expected::Ok,
            1 => Expected::Link,
            2 => Expected::Blob(X25519Secret::from_bytes(*read.array()?)),
            _ => return None,
        };
        let hash = *read.array()?;
        Some(Self {
            id,
            seal: Seal { ephemeral, key, inner, entity, expected, hash },
            options: ForwardOptions::from_byte(read.byte()?)?,
            not_before: read.i64()?,
            until: read.i64()?,
            was_held: read.bool()?,
            stage: Stage::Unsure,
            command: None,
            change: 0,
            is_wanted: false,
            renumbered: 0,
        })
    }
}
