//! A listening socket in memory: its address, and the connections that nobody has accepted.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

#[derive(Debug)]
pub(super) struct Listening {
    /// Names this listener for ever, where its number may come to mean another.
    pub(super) id: u64,
    pub(super) local: SocketAddr,
    /// IPv4 comes here too, as mapped addresses (ipv6(7), `IPV6_V6ONLY`).
    is_dual: bool,
    /// Connections whose second end nobody owns yet.
    pub(super) backlog: VecDeque<u64>,
    backlog_max: usize,
    /// Places in the queue that handshakes under way will take.
    pub(super) promised: usize,
    /// Connections that have arrived so far; a watch answers those that come after it.
    pub(super) arrived: u64,
}

impl Listening {
    pub(super) fn new(id: u64, local: SocketAddr, is_dual: bool, backlog: i32) -> Self {
        // One more than asked for, as `sk_acceptq_is_full` has it; a kernel's cap is 4096.
        let backlog_max = usize::try_from(backlog).unwrap_or(0).min(4096) + 1;
        let backlog = VecDeque::new();
        Self { id, local, is_dual, backlog, backlog_max, promised: 0, arrived: 0 }
    }

    /// Whether a handshake for this address is for it.
    pub(super) fn hears(&self, to: SocketAddr) -> bool {
        let ip = self.local.ip();
        let same_family = ip.is_ipv4() == to.is_ipv4();
        self.local.port() == to.port()
            && (ip == to.ip() || ip.is_unspecified() && (same_family || self.is_dual))
    }

    /// An address as this listener's connections have it.
    pub(super) fn seen(&self, address: SocketAddr) -> SocketAddr {
        match (self.local.ip(), address) {
            (IpAddr::V6(_), SocketAddr::V4(v4)) => {
                (v4.ip().to_ipv6_mapped(), address.port()).into()
            }
            _ => address,
        }
    }

    /// Keeps a place for a handshake under way. `false`: there is none, so it will be tried again.
    pub(super) fn promise(&mut self) -> bool {
        let has_room = self.backlog.len() + self.promised < self.backlog_max;
        self.promised += usize::from(has_room);
        has_room
    }

    /// Queues a connection whose handshake is over.
    pub(super) fn take(&mut self, connection: u64) {
        self.promised -= 1;
        self.backlog.push_back(connection);
        self.arrived += 1;
    }
}
