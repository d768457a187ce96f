//! The machines of a world: names, addresses, clocks, and their lives from boot to crash.
//!
//! ```text
//!   host "db" ── 10.0.0.2, fd00::2, clock ──► life 3 (up): descriptors, ports
//!                                             life 0 (over): whatever still names it is answered
//!                                                            EBADF, and closed without a word
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::disk::{Disk, DiskOptions};
use super::drift::HostClock;
use super::random::Chance;
use super::signals::Signals;
use super::state::{Kind, Socket, State};
use super::trace::Event;
use crate::io::clock::SIMULATED_BEGINNING;

/// The first port that is given to those who ask for none (`ip_local_port_range`).
const EPHEMERAL: u16 = 32_768;

/// The time of day at the beginning of every world: 2030-01-01.
const BEGINNING: u64 = 1_893_456_000 * 1_000_000_000;

/// How a host goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Crash {
    /// The machine is off: its peers hear nothing, until it is up again and answers what they send
    /// with a reset.
    #[default]
    PowerLoss,
    /// The process is killed (SIGKILL), and its kernel closes what it had open: peers see the end
    /// of the stream, or a reset where bytes were left unread.
    Kill,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    addresses: [IpAddr; 2],
    /// The life that goes on, if one does.
    pub(super) boot: Option<usize>,
    clock: HostClock,
    /// What is further added for the time of day; may be negative.
    wall_ahead: i64,
    next_port: u16,
    pub(super) disk: Disk,
}

/// A life of a host.
pub(super) struct Boot {
    pub(super) host: usize,
    pub(super) is_up: bool,
    pub(super) sockets: Vec<Option<Socket>>,
    /// Counts whatever may let a request go on.
    pub(super) changes: u64,
    pub(super) signals: Signals,
}

impl State {
    /// A new host, which is down.
    ///
    /// # Panics
    ///
    /// When the name is taken.
    pub(crate) fn add_host(&mut self, name: &str) -> usize {
        assert!(self.host_named(name).is_none(), "there is a host {name:?} already");
        let number = self.hosts.len() as u32 + 1;
        let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number);
        let v6 = Ipv6Addr::from((0xfd00 << 112) + u128::from(number));
        self.hosts.push(Host {
            name: name.to_owned(),
            addresses: [v4.into(), v6.into()],
            boot: None,
            clock: HostClock::new(),
            wall_ahead: 0,
            next_port: EPHEMERAL,
            disk: Disk::new(Chance::of(self.seed, 3 << 32 | u64::from(number)), DiskOptions::new()),
        });
        self.hosts.len() - 1
    }

    pub(crate) fn host_named(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.name == name)
    }

    pub(crate) fn addresses(&self, host: usize) -> [IpAddr; 2] {
        self.hosts[host].addresses
    }

    pub(crate) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn host_name(&self, host: usize) -> &str {
        &self.hosts[host].name
    }

    /// Starts a life of a host.
    ///
    /// # Panics
    ///
    /// When one goes on, or there were too many.
    pub(crate) fn boot(&mut self, host: usize) -> usize {
        assert!(self.hosts[host].boot.is_none(), "the host is up already");
        let boot = self.boots.len();
        assert!(boot < 1 << 16, "a world has at most 65,536 lives of hosts");
        let (sockets, signals) = (Vec::new(), Signals::default());
        self.boots.push(Boot { host, is_up: true, sockets, changes: 0, signals });
        self.hosts[host].boot = Some(boot);
        self.note_on(boot, Event::Booted);
        for from in 0..self.hosts.len() {
            self.send_again(from, host);
        }
        boot
    }

    /// Ends a life of a host, in the middle of whatever it does. What it had open is gone.
    pub(crate) fn crash(&mut self, boot: usize, how: Crash) {
        self.note_on(boot, Event::Crashed { how });
        self.end_life(boot, how);
    }

    /// Ends a life whose program is over: the kernel closes what was left open.
    pub(crate) fn leave(&mut self, boot: usize) {
        self.note_on(boot, Event::Left);
        self.books.leaked += self.open_descriptors(boot) as u64;
        self.end_life(boot, Crash::Kill);
    }

    fn end_life(&mut self, boot: usize, how: Crash) {
        let sockets = std::mem::take(&mut self.boots[boot].sockets);
        let host = self.boots[boot].host;
        (self.boots[boot].is_up, self.hosts[host].boot) = (false, None);
        if how == Crash::Kill {
            for socket in sockets.into_iter().flatten() {
                // Nobody is left to hear how it went.
                let _ = self.close_socket(boot, socket);
            }
            return;
        }
        self.hosts[host].disk.crash();
        for socket in sockets.into_iter().flatten() {
            match socket.kind {
                Kind::Fresh { .. } | Kind::Connecting(_) | Kind::File(_) => {}
                Kind::Stream { connection, side } => self.vanish(connection, side),
                Kind::Listening(listening) => {
                    for connection in listening.backlog {
                        self.books.refused += 1;
                        self.vanish(connection, 1);
                    }
                }
            }
        }
        // Ends without a socket: closed ones that still had to send, and half-open ones.
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            let ends = self.connections[&id].ends.each_ref().map(|end| end.boot);
            for side in (0..2).filter(|side| ends[*side] == boot) {
                self.vanish(id, side);
            }
        }
    }

    fn vanish(&mut self, id: u64, side: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.vanish(side);
        if side == 1 {
            // The client may know the connection already, and its listener is gone.
            connection.half_open = None;
        }
        if connection.half_open.is_some() || connection.is_closed() {
            self.forget(id);
        }
    }

    /// Counts whatever may let a request of this life go on.
    pub(crate) fn changes(&self, boot: usize) -> u64 {
        self.boots[boot].changes
    }

    pub(crate) fn is_host_up(&self, host: usize) -> bool {
        self.hosts[host].boot.is_some()
    }

    pub(crate) fn is_up(&self, boot: usize) -> bool {
        self.boots[boot].is_up
    }

    /// Descriptors that a life has open.
    pub(crate) fn open_descriptors(&self, boot: usize) -> usize {
        self.boots[boot].sockets.iter().flatten().count()
    }

    pub(super) fn ephemeral_port(&mut self, boot: usize) -> u16 {
        let host = &mut self.hosts[self.boots[boot].host];
        host.next_port = host.next_port.checked_add(1).unwrap_or(EPHEMERAL);
        host.next_port
    }

    /// Whether a socket of this life may be bound to an address.
    pub(super) fn is_local(&self, boot: usize, ip: IpAddr) -> bool {
        let host = &self.hosts[self.boots[boot].host];
        ip.is_unspecified() || ip.is_loopback() || host.addresses.contains(&ip)
    }

    /// Where an address leads from a life's host.
    pub(super) fn host_of(&self, boot: usize, ip: IpAddr) -> Option<usize> {
        if ip.is_loopback() {
            return Some(self.boots[boot].host);
        }
        self.hosts.iter().position(|host| host.addresses.contains(&ip))
    }

    /// The address that a connection to another has on this side.
    pub(super) fn source(&self, boot: usize, to: IpAddr) -> IpAddr {
        let own = self.hosts[self.boots[boot].host].addresses;
        let is_home = to.is_loopback() || own.contains(&to);
        if is_home { to } else { own[usize::from(to.is_ipv6())] }
    }

    pub(super) fn look_up(&self, boot: Option<usize>, name: &str) -> Option<Vec<IpAddr>> {
        let own = boot.map(|boot| self.hosts[self.boots[boot].host].name.as_str());
        if name.eq_ignore_ascii_case("localhost") && own.is_some() {
            return Some(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let host = self.hosts.iter().find(|host| host.name.eq_ignore_ascii_case(name))?;
        Some(host.addresses.to_vec())
    }

    /// What a life's clock shows; without one, that of a host whose clock was never touched.
    pub(super) fn monotonic(&self, boot: Option<usize>) -> u64 {
        match boot {
            Some(boot) => self.hosts[self.boots[boot].host].clock.at(self.now),
            None => HostClock::new().at(self.now),
        }
    }

    pub(super) fn time_of_day(&self, boot: Option<usize>) -> u64 {
        let wall = boot.map_or(0, |boot| self.hosts[self.boots[boot].host].wall_ahead);
        let passed = self.monotonic(boot) - SIMULATED_BEGINNING;
        (BEGINNING + passed).saturating_add_signed(wall)
    }

    /// The time of the world when a life's clock shows `local`.
    pub(crate) fn world_time(&self, boot: usize, local: u64) -> u64 {
        self.hosts[self.boots[boot].host].clock.when(local)
    }

    /// The host's clock goes forwards at once, and its time of day with it.
    pub(crate) fn jump(&mut self, host: usize, by: u64) {
        self.hosts[host].clock.jump(by);
        self.note_jump(host);
    }

    /// The host's clock, and its time of day with it, gains so many microseconds a second.
    pub(crate) fn set_rate(&mut self, host: usize, parts_per_million: i32) {
        self.hosts[host].clock.set_rate(self.now, parts_per_million);
        self.note_jump(host);
    }

    /// The host's time of day goes either way at once.
    pub(crate) fn jump_wall(&mut self, host: usize, by: i64) {
        self.hosts[host].wall_ahead = self.hosts[host].wall_ahead.saturating_add(by);
        self.note_jump(host);
    }

    fn note_jump(&mut self, host: usize) {
        if let Some(boot) = self.hosts[host].boot {
            self.note_on(boot, Event::ClockJumped);
        }
    }

    /// Whether anything gets from one host to another. What has stalled goes on when it is
    /// unblocked.
    pub(crate) fn block(&mut self, from: usize, to: usize, is_blocked: bool) {
        let was_blocked = std::mem::replace(&mut self.link(from, to).is_blocked, is_blocked);
        self.trace.note(self.now, Some(from), Event::Blocked { to, is_blocked });
        if was_blocked && !is_blocked {
            self.send_again(from, to);
        }
    }
}

pub(super) fn loopback(v4: bool, port: u16) -> SocketAddr {
    if v4 { (Ipv4Addr::LOCALHOST, port).into() } else { (Ipv6Addr::LOCALHOST, port).into() }
}
