//! How a connection begins: the handshake of a client with a listener's kernel (tcp(7)).
//!
//! ```text
//!   connect ─ SYN ──► listener has room? ── SYN-ACK ──► connected ─ ACK ──► in the queue
//!      ▲       │ lost: blocked, host down, queue full
//!      └───────┘ again after 1 s, 2 s, 4 s ... and after 127 s ETIMEDOUT
//! ```
//!
//! The last part goes with the first bytes, as the front of what the client has sent.

use std::net::SocketAddr;

use super::connection::{Connection, End, Segment};
use super::network::{SECOND, What};
use super::state::{Connecting, Kind, Socket, State};
use super::trace::Event;
use super::world;

/// After so many SYNs without an answer a connect gives up (`tcp_syn_retries`).
const SYN_TRIES: u32 = 7;
/// How long a neighbour is asked for an address that nobody has.
const NO_NEIGHBOUR: u64 = 3 * SECOND;

impl State {
    /// Starts a handshake, or tells what has become of one that was started before: an error once,
    /// `EISCONN` from then on if it went through.
    pub(super) fn connect(&mut self, number: i32, to: SocketAddr) -> Result<(), i32> {
        if self.is_connecting(number) {
            return Err(self.connected(number).unwrap_or(-libc::EALREADY));
        }
        let boot = world::boot_of(number);
        let to = match to.ip() {
            ip if ip.is_unspecified() => super::host::loopback(ip.is_ipv4(), to.port()),
            _ => to,
        };
        let port = self.ephemeral_port(boot);
        let id = self.next_id();
        let source = self.source(boot, to.ip());
        let socket = self.socket(number)?;
        let Kind::Fresh { local } = socket.kind else { return Err(-libc::EISCONN) };
        if socket.v4 != to.is_ipv4() {
            return Err(-libc::EAFNOSUPPORT);
        }
        let port = local.map(|local| local.port()).filter(|own| *own != 0).unwrap_or(port);
        let ip = local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()).unwrap_or(source);
        let local = SocketAddr::new(ip, port);
        let attempt = Connecting { id, local, to, tries: 0, connection: None, error: None };
        socket.kind = Kind::Connecting(attempt);
        self.send_syn(number);
        Ok(())
    }

    /// What has become of a handshake. `None`: it is under way.
    pub(super) fn connected(&mut self, number: i32) -> Option<i32> {
        let socket = match self.socket(number) {
            Ok(socket) => socket,
            Err(error) => return Some(error),
        };
        match &socket.kind {
            Kind::Connecting(Connecting { error, local, .. }) => {
                let answer = -(*error)?;
                socket.kind = Kind::Fresh { local: Some(*local) };
                Some(answer)
            }
            _ => Some(0),
        }
    }

    /// Whether a handshake is under way: nothing is ready before it is over.
    pub(super) fn is_shaking_hands(&mut self, number: i32) -> bool {
        let socket = self.socket(number);
        matches!(socket, Ok(Socket { kind: Kind::Connecting(one), .. }) if one.error.is_none())
    }

    /// The attempt, if its client still waits.
    fn attempt(&mut self, number: i32, attempt: u64) -> Option<&mut Connecting> {
        match &mut self.socket(number).ok()?.kind {
            Kind::Connecting(connecting) if connecting.id == attempt => {
                connecting.error.is_none().then_some(connecting)
            }
            _ => None,
        }
    }

    pub(super) fn fail_connect(&mut self, number: i32, attempt: u64, error: i32) {
        if let Some(connecting) = self.attempt(number, attempt) {
            connecting.error = Some(error);
            self.note_at(number, Event::NotConnected { number, error });
        }
    }

    /// No answer has come in time.
    pub(super) fn try_again(&mut self, number: i32, attempt: u64) {
        let Some(connecting) = self.attempt(number, attempt) else { return };
        if connecting.tries < SYN_TRIES {
            self.send_syn(number);
        } else {
            self.fail_connect(number, attempt, libc::ETIMEDOUT);
        }
    }

    fn send_syn(&mut self, number: i32) {
        let Ok(socket) = self.socket(number) else { return };
        let Kind::Connecting(connecting) = &mut socket.kind else { return };
        connecting.tries += 1;
        let (attempt, to, tries) = (connecting.id, connecting.to, connecting.tries);
        let again = self.now + (SECOND << (tries - 1));
        self.come(again, What::SynAgain { number, attempt });
        let boot = world::boot_of(number);
        match self.host_of(boot, to.ip()) {
            Some(host) => {
                let at = self.arrival(self.boots[boot].host, host, 0);
                self.come(at, What::Syn { number, attempt, host });
            }
            None if tries == 1 => {
                let error = libc::EHOSTUNREACH;
                let refusal = What::Refusal { number, attempt, from: None, error };
                self.come(self.now + NO_NEIGHBOUR, refusal);
            }
            None => {}
        }
    }

    pub(super) fn take_syn(&mut self, number: i32, attempt: u64, host: usize) {
        let client = world::boot_of(number);
        let client_host = self.boots[client].host;
        let Some(server) = self.hosts[host].boot else { return };
        if self.is_blocked(client_host, host) {
            return;
        }
        let Some(&mut Connecting { to, local, connection, .. }) = self.attempt(number, attempt)
        else {
            return;
        };
        let known = connection.filter(|id| self.connections.contains_key(id));
        let connection = match known {
            Some(connection) => connection,
            None => {
                let listeners = self.listeners(server, to);
                if listeners.is_empty() {
                    let at = self.arrival(host, client_host, 0);
                    let (from, error) = (Some(host), libc::ECONNREFUSED);
                    return self.come(at, What::Refusal { number, attempt, from, error });
                }
                // Several may share an address; which one it gets is a hash's choice.
                let chosen = listeners[self.chance.below(listeners.len())];
                let ends = [(local, client), (to, server)];
                let Some(connection) = self.begin(chosen, ends) else { return };
                self.attempt(number, attempt).expect("just seen").connection = Some(connection);
                connection
            }
        };
        let at = self.arrival(host, client_host, 0);
        self.come(at, What::SynAck { number, attempt, connection });
    }

    /// The listeners of a host that hear an address.
    fn listeners(&self, boot: usize, to: SocketAddr) -> Vec<usize> {
        let hears = |kind: &Kind| matches!(kind, Kind::Listening(one) if one.hears(to));
        let sockets = self.boots[boot].sockets.iter().enumerate();
        let found = sockets.filter(|(_, one)| one.as_ref().is_some_and(|one| hears(&one.kind)));
        found.map(|(index, _)| index).collect()
    }

    /// Makes a connection that waits for the last part of its handshake. `None`: the listener has
    /// no room.
    fn begin(&mut self, listener: usize, ends: [(SocketAddr, usize); 2]) -> Option<u64> {
        let [(client, client_boot), (server, boot)] = ends;
        let socket = self.boots[boot].sockets[listener].as_mut().expect("just found");
        let Kind::Listening(listening) = &mut socket.kind else { unreachable!("just found") };
        if !listening.promise() {
            return None;
        }
        let (id, server) = (listening.id, listening.seen(server));
        let hosts = [self.boots[client_boot].host, self.boots[boot].host];
        let ends = [End::new(client, hosts[0], client_boot), End::new(server, hosts[1], boot)];
        let most = self.weather.capacity_max;
        let capacities = [0, 1].map(|_| most - self.chance.below(most.div_ceil(2)));
        let connection = self.next_id();
        self.connections.insert(connection, Connection::new(ends, capacities, id));
        Some(connection)
    }

    pub(super) fn take_syn_ack(&mut self, number: i32, attempt: u64, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (client, server) = (connection.ends[0].host, connection.ends[1].host);
        if self.is_blocked(server, client) {
            return;
        }
        if self.attempt(number, attempt).is_none() {
            // Nobody waits for it any more, and the client's kernel says so.
            let connection = &self.connections[&id];
            let is_new = connection.half_open.is_some() || connection.ends[1].is_gone;
            if is_new && self.end(number) != Ok((id, 0)) {
                self.forget(id);
            }
            return;
        }
        self.socket(number).expect("just seen").kind = Kind::Stream { connection: id, side: 0 };
        self.note_at(number, Event::Connected { number });
        let due = self.arrival(client, server, 0);
        let pipe = &mut self.connections.get_mut(&id).expect("just seen").pipes[0];
        pipe.segments.push_back(Segment { count: 0, due });
        self.expect_front(id, 0);
    }

    /// The handshake is over: the connection is the listener's. `false`: there is none any more.
    pub(super) fn establish(&mut self, id: u64) -> bool {
        let connection = self.connections.get_mut(&id).expect("just seen");
        let listener = connection.half_open.take().expect("just seen");
        let (at, boot) = (connection.ends[1].address, connection.ends[1].boot);
        if self.with_listener(boot, listener, |one| one.take(id)) {
            self.books.connections += 1;
            self.note_on(boot, Event::Queued { at });
            return true;
        }
        let connection = self.connections.get_mut(&id).expect("just seen");
        let _ = connection.close(1, true);
        if connection.is_closed() {
            self.forget(id);
        } else {
            self.send_reset(id, 1);
        }
        false
    }
}
