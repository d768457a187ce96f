//! A program of the simulated world that is not quoit's: it calls the kernel directly and waits for
//! nothing. Tests have it for a peer, as they have a blocking socket on the real rings, so what it
//! does neither helps the code under test nor stands in its books.

use std::io;
use std::net::{Shutdown, SocketAddr};

use super::world::{self, World};

/// A TCP socket of the host whose program makes it; closed when dropped. Not public interface.
#[derive(Debug)]
pub struct Outsider(i32);

/// Whether a simulation runs on this thread.
#[must_use]
pub fn is_simulated() -> bool {
    world::current().is_some()
}

fn told(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

impl Outsider {
    fn world(&self) -> std::rc::Rc<World> {
        world::of(self.0).expect("its number is a simulated one")
    }

    fn new(address: SocketAddr) -> Self {
        let world = world::current().expect("outsiders live in a simulation");
        Self(world.tcp_socket(address.is_ipv4()))
    }

    /// Begins to connect; see [`is_connected`](Self::is_connected).
    ///
    /// # Panics
    ///
    /// Outside of a simulation, as everything here.
    ///
    /// # Errors
    ///
    /// Those of connect(2) that come at once.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Self::new(address);
        match socket.world().with(|state| state.connect(socket.0, address)) {
            Ok(()) => Ok(socket),
            Err(error) => Err(io::Error::from_raw_os_error(-error)),
        }
    }

    /// Whether the handshake is over.
    ///
    /// # Errors
    ///
    /// What became of it instead.
    pub fn is_connected(&self) -> io::Result<bool> {
        match self.world().with(|state| state.connected(self.0)) {
            None => Ok(false),
            Some(result) => told(result).map(|_| true),
        }
    }

    /// A listener at an address, with so long a queue (listen(2)).
    ///
    /// # Errors
    ///
    /// Those of bind(2) and listen(2).
    pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let socket = Self::new(address);
        told(socket.world().bind(socket.0, address))?;
        told(socket.world().listen(socket.0, backlog))?;
        Ok(socket)
    }

    /// A connection from the queue.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<Self> {
        let number = self.world().with(|state| state.accept(self.0));
        told(number.unwrap_or(-libc::EAGAIN)).map(|number| Self(number as i32))
    }

    /// What has come, as much as the slice holds; nothing is the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing has, and those of recv(2).
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let received = self.world().receive(self.0, into.len(), false);
        let bytes = received.map_err(|error| io::Error::from_raw_os_error(-error))?;
        into[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when that is nothing, and those of send(2).
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        told(self.world().send(self.0, bytes))
    }

    /// Ends a direction (shutdown(2)).
    ///
    /// # Errors
    ///
    /// `NotConnected` when both have ended.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        told(self.world().shut_down(self.0, how)).map(drop)
    }

    /// Makes room for what it sends (socket(7), `SO_SNDBUF`).
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn set_send_buffer_size(&self, size: i32) -> io::Result<()> {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
        told(self.world().set_option(self.0, level, name, &size.to_ne_bytes())).map(drop)
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        let value: Vec<u8> =
            [now.l_onoff, now.l_linger].into_iter().flat_map(i32::to_ne_bytes).collect();
        let set = self.world().set_option(self.0, libc::SOL_SOCKET, libc::SO_LINGER, &value);
        assert_eq!(set, 0, "it is open");
    }

    /// Its own address.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.world().local_address(self.0);
        address.map_err(|error| io::Error::from_raw_os_error(-error))
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        // After its simulation there is nothing left to close.
        if let Some(world) = world::current() {
            world.close(self.0);
        }
    }
}
