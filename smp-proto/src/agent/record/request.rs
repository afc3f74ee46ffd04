//! A request that came to a contact address.

use alloc::vec::Vec;

use super::{Record, read_u64};
use crate::agent::storage::ConnectionId;
use crate::wire::links::connection_request::ConnectionRequest;
use crate::wire::primitives::{Full, Reader, Writer};

/// Somebody who wants to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Request {
    /// The address.
    pub address: ConnectionId,
    /// How to connect to them.
    pub request: ConnectionRequest,
    /// What their application tells.
    pub information: Vec<u8>,
}

impl Record for Request {
    const LAYOUT: u8 = 1;

    /// address (8) ‖ connection request ‖ information (to the end)
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.put(&self.address.0.to_be_bytes())?;
        self.request.write(out)?;
        out.put(&self.information)
    }

    fn read(read: &mut Reader<'_>, _layout: u8) -> Option<Self> {
        Some(Self {
            address: read_u64(read).map(ConnectionId)?,
            request: ConnectionRequest::read(read)?,
            information: read.tail().to_vec(),
        })
    }
}
