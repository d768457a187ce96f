//! A client of Redis, or of this package's `kv`, by the crate `redis` on a stream of quoit's.
//!
//! ```text
//!   tasks of a core ──► MultiplexedConnection (clones share it) ──► its driver: a task ──► stream
//!                              │ broken, or too slow
//!                              ▼
//!                   dropped; the next who asks opens another
//! ```
//!
//! What the crate opens itself it opens on tokio or smol, `ConnectionManager` and `aio::PubSub`
//! included. `MultiplexedConnection::new` takes any stream, and hands its driver out. Its own time
//! limit sleeps on tokio too, so it is switched off, and quoit's stands around the whole.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::time::timeout;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisError, RedisResult,
};
use tokio::sync::mpsc::UnboundedSender;

/// Opens a connection, and a task that drives it until the last clone is dropped.
pub async fn open(address: SocketAddr) -> RedisResult<MultiplexedConnection> {
    open_with(address, RedisConnectionInfo::default(), AsyncConnectionConfig::new()).await
}

/// As [`open`]; what the server pushes (messages of channels that are subscribed to) goes there.
/// That is RESP3, which Redis has from version 6 on.
pub async fn open_for_messages(
    address: SocketAddr,
    messages: UnboundedSender<PushInfo>,
) -> RedisResult<MultiplexedConnection> {
    let info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    open_with(address, info, AsyncConnectionConfig::new().set_push_sender(messages)).await
}

async fn open_with(
    address: SocketAddr,
    info: RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let stream = TcpStream::connect(address).await?;
    let config = config.set_response_timeout(None);
    let opened = MultiplexedConnection::new_with_config(&info, stream, config);
    let (connection, driver) = opened.await?;
    quoit::spawn(driver);
    Ok(connection)
}

/// A connection that is opened when needed, and again after it broke; shared by a core's tasks.
#[derive(Debug)]
pub struct Reconnecting {
    address: SocketAddr,
    limit: Duration,
    connection: RefCell<Option<MultiplexedConnection>>,
}

impl Reconnecting {
    /// Nothing is opened yet. The limit is for each query, connecting included.
    pub fn new(address: SocketAddr, limit: Duration) -> Self {
        Self { address, limit, connection: RefCell::default() }
    }

    /// Asks once. A query that failed with the connection is not asked again: it may have been
    /// carried out, and only its author knows whether twice is as good as once.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let asked = timeout(self.limit, async {
            let known = self.connection.borrow().clone();
            let mut connection = match known {
                Some(connection) => connection,
                // Several who find none each open one; the last one is kept.
                None => {
                    let opened = open(self.address).await?;
                    self.connection.replace(Some(opened.clone()));
                    opened
                }
            };
            command.query_async(&mut connection).await
        });
        let answer = asked
            .await
            .unwrap_or_else(|_| Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut))));
        if answer.as_ref().is_err_and(|error| error.is_io_error() || error.is_connection_dropped())
        {
            self.connection.replace(None);
        }
        answer
    }
}
