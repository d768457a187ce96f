//! Names to addresses, off the loop.
//!
//! Addresses and numbers written out are answered at once. Names go to a pool thread, to the
//! system's own resolver (`getaddrinfo(3)`), so that `hosts`, `nsswitch.conf` and search domains
//! mean here what they mean everywhere else on the machine.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use self::sealed::{Question, Sealed};
use crate::io::pool::{self, Failure, Run};
use crate::io::ring::simulated::world::{self, World};

/// What can be resolved to socket addresses: the types that [`std::net::ToSocketAddrs`] takes.
///
/// Only the crate implements it, since resolving must not block the core. Names are resolved on a
/// thread of the blocking pool; everything else answers at once.
///
/// # Examples
///
/// ```
/// use std::net::{Ipv4Addr, SocketAddr};
/// use quoit::net::lookup_host;
///
/// # quoit::block_on(async {
/// let expected: SocketAddr = "127.0.0.1:80".parse().unwrap();
/// let mut found = lookup_host((Ipv4Addr::LOCALHOST, 80)).await.unwrap();
/// assert_eq!(found.next(), Some(expected));
/// let mut found = lookup_host("127.0.0.1:80").await.unwrap();
/// assert_eq!(found.next(), Some(expected));
/// # });
/// ```
pub trait ToSocketAddrs: Sealed {}

/// Resolves a name to the addresses at which it may be reached, in the order of the system's
/// resolver.
///
/// # Errors
///
/// Those of [`std::net::ToSocketAddrs::to_socket_addrs`], and
/// [`ResourceBusy`](io::ErrorKind::ResourceBusy) if the blocking pool takes no more work.
///
/// # Panics
///
/// Outside a runtime, if there is a name to resolve.
///
/// # Cancel safety
///
/// Nothing is lost but the answer. A lookup that has started goes on on its thread: `getaddrinfo`
/// cannot be cancelled.
///
/// # Examples
///
/// ```
/// # quoit::block_on(async {
/// for address in quoit::net::lookup_host("localhost:80").await.unwrap() {
///     assert!(address.ip().is_loopback());
/// }
/// # });
/// ```
pub fn lookup_host(
    host: impl ToSocketAddrs,
) -> impl Future<Output = io::Result<impl Iterator<Item = SocketAddr>>> {
    // Not an `async fn`, whose future would hold `host` and be no more `Send` than it.
    let lookup = resolve(&host);
    async move { Ok(lookup.await?.into_iter()) }
}

/// Starts to resolve. The answer may be empty only where the caller's list was.
pub(crate) fn resolve(host: &(impl ToSocketAddrs + ?Sized)) -> Resolve {
    Resolve(host.question())
}

/// The future of [`resolve`]. It owns what it needs; a name goes to the pool at the first poll.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited or polled"]
pub(crate) struct Resolve(Question);

impl Future for Resolve {
    type Output = io::Result<Vec<SocketAddr>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Question::Name(name, port) = &mut self.0 {
            let (name, port) = (std::mem::take(name), *port);
            let Some(run) = pool::run(move || ask_system(&name, port)) else {
                panic!("a name was resolved outside a quoit runtime");
            };
            self.0 = Question::Asked(run);
        }
        let answer = match &mut self.0 {
            Question::Known(addresses) => Ok(std::mem::take(addresses)),
            Question::Asked(run) => match ready!(Pin::new(run).poll(cx)) {
                Ok(answer) => answer,
                Err(Failure::Panicked(payload)) => resume_unwind(payload),
                Err(Failure::Refused | Failure::Dropped) => Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "the blocking pool takes no more work, so the name was not resolved",
                )),
            },
            Question::Name(..) => unreachable!("it was asked above"),
        };
        Poll::Ready(answer)
    }
}

fn ask_system(name: &str, port: Option<u16>) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;

    if let Some(world) = world::current() {
        return ask_world(&world, name, port);
    }
    let addresses = match port {
        Some(port) => (name, port).to_socket_addrs(),
        None => name.to_socket_addrs(),
    };
    addresses.map(Iterator::collect)
}

/// The hosts of a simulated world are its names.
fn ask_world(world: &World, name: &str, port: Option<u16>) -> io::Result<Vec<SocketAddr>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
    let (host, port) = match (port, name.rsplit_once(':')) {
        (Some(port), _) => (name, port),
        (None, None) => return Err(invalid("invalid socket address")),
        (None, Some((host, port))) => {
            (host, port.parse().map_err(|_| invalid("invalid port value"))?)
        }
    };
    match world.look_up(host) {
        Some(found) => Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
        None => Err(io::Error::other(format!("no host of this simulation is called {host:?}"))),
    }
}

mod sealed {
    use super::{Run, SocketAddr, io};

    /// What has to be asked for an address, without borrowing from whoever asks.
    #[derive(Debug)]
    #[expect(unnameable_types, reason = "part of a sealed trait")]
    pub enum Question {
        Known(Vec<SocketAddr>),
        /// Without a port, the name ends with it.
        Name(String, Option<u16>),
        #[expect(private_interfaces, reason = "the module is private, and so is the question")]
        Asked(Run<io::Result<Vec<SocketAddr>>>),
    }

    #[expect(unnameable_types, reason = "so that nobody else implements it")]
    pub trait Sealed {
        fn question(&self) -> Question;
    }
}

impl ToSocketAddrs for SocketAddr {}
impl Sealed for SocketAddr {
    fn question(&self) -> Question {
        Question::Known(vec![*self])
    }
}

impl ToSocketAddrs for SocketAddrV4 {}
impl Sealed for SocketAddrV4 {
    fn question(&self) -> Question {
        SocketAddr::from(*self).question()
    }
}

impl ToSocketAddrs for SocketAddrV6 {}
impl Sealed for SocketAddrV6 {
    fn question(&self) -> Question {
        SocketAddr::from(*self).question()
    }
}

impl ToSocketAddrs for (IpAddr, u16) {}
impl Sealed for (IpAddr, u16) {
    fn question(&self) -> Question {
        SocketAddr::from(*self).question()
    }
}

impl ToSocketAddrs for (Ipv4Addr, u16) {}
impl Sealed for (Ipv4Addr, u16) {
    fn question(&self) -> Question {
        SocketAddr::from(*self).question()
    }
}

impl ToSocketAddrs for (Ipv6Addr, u16) {}
impl Sealed for (Ipv6Addr, u16) {
    fn question(&self) -> Question {
        SocketAddr::from(*self).question()
    }
}

impl ToSocketAddrs for (&str, u16) {}
impl Sealed for (&str, u16) {
    fn question(&self) -> Question {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::from((address, port)).question(),
            Err(_) => Question::Name(host.to_owned(), Some(port)),
        }
    }
}

impl ToSocketAddrs for (String, u16) {}
impl Sealed for (String, u16) {
    fn question(&self) -> Question {
        (self.0.as_str(), self.1).question()
    }
}

impl ToSocketAddrs for str {}
impl Sealed for str {
    fn question(&self) -> Question {
        match self.parse::<SocketAddr>() {
            Ok(address) => address.question(),
            Err(_) => Question::Name(self.to_owned(), None),
        }
    }
}

impl ToSocketAddrs for String {}
impl Sealed for String {
    fn question(&self) -> Question {
        self.as_str().question()
    }
}

impl ToSocketAddrs for [SocketAddr] {}
impl Sealed for [SocketAddr] {
    fn question(&self) -> Question {
        Question::Known(self.to_vec())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {}
impl<T: ToSocketAddrs + ?Sized> Sealed for &T {
    fn question(&self) -> Question {
        (**self).question()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;
    use crate::io::proactor::Proactor;

    fn now(host: impl ToSocketAddrs) -> Vec<SocketAddr> {
        assert!(Proactor::with_current(|_| ()).is_none(), "no core, so no pool");
        let mut lookup = resolve(&host);
        match Pin::new(&mut lookup).poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(answer) => answer.expect("nothing to ask for"),
            Poll::Pending => panic!("nothing to wait for"),
        }
    }

    #[test]
    fn addresses_are_answered_at_once() {
        let four: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let six: SocketAddr = "[::1]:443".parse().unwrap();
        let (SocketAddr::V4(v4), SocketAddr::V6(v6)) = (four, six) else { unreachable!() };
        assert_eq!(now(four), [four]);
        assert_eq!(now(v4), [four]);
        assert_eq!(now(v6), [six]);
        assert_eq!(now((four.ip(), 80)), [four]);
        assert_eq!(now((Ipv4Addr::LOCALHOST, 80)), [four]);
        assert_eq!(now((Ipv6Addr::LOCALHOST, 443)), [six]);
        assert_eq!(now(("127.0.0.1", 80)), [four]);
        assert_eq!(now(("::1", 443)), [six]);
        assert_eq!(now(("::1".to_owned(), 443)), [six]);
        assert_eq!(now("[::1]:443"), [six]);
        assert_eq!(now("127.0.0.1:80".to_owned()), [four]);
        assert_eq!(now(&[six, four][..]), [six, four]);
        let borrowed_twice: &&SocketAddr = &&four;
        assert_eq!(now(borrowed_twice), [four]);
        assert_eq!(now(&[][..]), []);
    }

    #[test]
    fn names_are_asked_of_the_system() {
        block_on(async {
            for host in ["localhost:80", "LocalHost:80"] {
                let found = resolve(host).await.expect("every machine knows itself");
                assert!(!found.is_empty());
                assert!(found.iter().all(|found| found.ip().is_loopback() && found.port() == 80));
            }
            let found = resolve(&("localhost", 7)).await.expect("every machine knows itself");
            assert!(found.iter().all(|found| found.port() == 7));
        });
    }

    #[test]
    fn what_is_no_name_is_an_error_and_not_a_panic() {
        block_on(async {
            for host in ["", "no port", "localhost:port", "localhost:65536", "nul\0byte:80"] {
                let error = resolve(host).await.expect_err(host);
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{host:?}: {error}");
            }
        });
    }

    #[test]
    fn the_futures_may_be_sent() {
        fn sent<T: Send>(_: T) {}
        fn any_host(host: impl ToSocketAddrs) {
            sent(resolve(&host));
            sent(lookup_host(host));
        }
        any_host("localhost:80");
    }
}
