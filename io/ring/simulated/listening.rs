//! A listening socket in memory: its address, and the connections that nobody has accepted.

use std::collections::VecDeque;
use std::net::SocketAddr;

#[derive(Debug)]
pub(super) struct Listening {
    pub(super) local: SocketAddr,
    /// Indexes of connections whose second end nobody owns yet.
    pub(super) backlog: VecDeque<usize>,
    backlog_max: usize,
    /// Connections that have arrived so far; a watch answers those that come after it.
    pub(super) arrived: u64,
}

impl Listening {
    pub(super) fn new(local: SocketAddr, backlog: i32) -> Self {
        // One more than asked for, as `sk_acceptq_is_full` has it; a kernel's cap is 4096.
        let backlog_max = usize::try_from(backlog).unwrap_or(0).min(4096) + 1;
        Self { local, backlog: VecDeque::new(), backlog_max, arrived: 0 }
    }

    /// Queues a connection. `false`: there is no room, so the handshake will be tried again.
    pub(super) fn take(&mut self, connection: usize) -> bool {
        if self.backlog.len() >= self.backlog_max {
            return false;
        }
        self.backlog.push_back(connection);
        self.arrived += 1;
        true
    }
}
