//! One address, served by every core.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quoit::net::{Placement, TcpListener, ToSocketAddrs};

/// Listeners on one address, one for each core to [`serve`](crate::serve).
///
/// The kernel spreads the connections over them ([`Placement::Hash`]), also over those that nobody
/// serves: bind as many as there are cores, and take each.
///
/// # Examples
///
/// The same router on two cores. Each has connections, limits and a report of its own.
///
/// ```
/// use axum::{Router, routing::get};
/// use quoit::{Cores, Runtime};
/// use quoit_http::{Shards, serve};
///
/// let shards = quoit::run(Shards::bind("127.0.0.1:0", 2))??;
/// println!("listening on {}", shards.local_addr());
/// let reports = Runtime::builder().cores(Cores::Count(2)).run(move |core| {
///     let listener = shards.take(core.index()).expect("one for each core");
///     let router = Router::new().route("/", get(|| async { "hello from a core\n" }));
/// #   let stop = std::future::ready(()); // or
/// #   if false {
///     let stop = quoit::signal::terminate();
/// #   drop(stop); }
///     serve(listener, router).with_graceful_shutdown(stop).into_future()
/// })?;
/// for report in reports {
///     assert!(report?.is_clean());
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Shards {
    address: SocketAddr,
    listeners: Arc<Mutex<Vec<Option<TcpListener>>>>,
}

impl Shards {
    /// Listens as often as there are cores to be. For port 0, the system chooses one for all.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::bind_sharded`], and [`InvalidInput`](io::ErrorKind::InvalidInput) for no
    /// cores at all.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves nothing behind.
    ///
    /// # Examples
    ///
    /// See [`Shards`].
    pub async fn bind<A: ToSocketAddrs>(address: A, cores: usize) -> io::Result<Self> {
        if cores == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no core is to serve"));
        }
        let first = TcpListener::bind_sharded(address, Placement::Hash).await?;
        let address = first.local_addr()?;
        let mut listeners = vec![Some(first)];
        while listeners.len() < cores {
            listeners.push(Some(TcpListener::bind_sharded(address, Placement::Hash).await?));
        }
        Ok(Self { address, listeners: Arc::new(Mutex::new(listeners)) })
    }

    /// The address, with the port that the system chose for port 0.
    ///
    /// # Examples
    ///
    /// See [`Shards`].
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The listener of this core; `None` if it was taken before, or there are not so many.
    ///
    /// # Examples
    ///
    /// See [`Shards`].
    #[must_use]
    pub fn take(&self, core: usize) -> Option<TcpListener> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.get_mut(core)?.take()
    }
}
