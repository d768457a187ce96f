//! One connection in the protocol that its client chose.
//!
//! ```text
//!   Unknown ── 24 bytes are the preface of HTTP/2 ──► Http2
//!      └────── one of them is not ──────────────────► Http1 ── upgrade ──► handed on
//! ```
//!
//! `hyper_util::server::conn::auto` does the same, and would run on quoit as it is. But with
//! upgrades it cannot be told to speak one protocol only, it does not tell which one it found
//! (what "idle" means depends on that), and a shutdown before it knows is an error.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use pin_project_lite::pin_project;
use quoit::rt::QuoitExecutor;

use crate::heads::Heads;
use crate::options::{Options, Versions};
use crate::report::BoxError;
use crate::service::{Application, Counted};
use crate::wire::{Version, Wire};

pin_project! {
    #[project = Projection]
    #[project_replace = Taken]
    pub(crate) enum Protocol<T, S>
    where
        S: Application,
    {
        Unknown {
            wire: Wire<T>,
            service: Counted<S>,
            options: Rc<Options>,
        },
        Http1 {
            #[pin]
            connection: http1::UpgradeableConnection<Wire<T>, Counted<S>>,
        },
        Http2 {
            #[pin]
            connection: http2::Connection<Wire<T>, Counted<S>, QuoitExecutor>,
        },
        /// Closed before anything was said, or replaced in the next line.
        Over,
    }
}

impl<T, S> Protocol<T, S>
where
    T: Read + Write + Unpin + Send + 'static,
    S: Application,
{
    pub(crate) fn new(wire: Wire<T>, service: Counted<S>, options: Rc<Options>) -> Self {
        Self::Unknown { wire, service, options }
    }

    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Http1 { .. } => Some(Version::Http1),
            Self::Http2 { .. } => Some(Version::Http2),
            Self::Unknown { .. } | Self::Over => None,
        }
    }

    /// Asks for no more requests. What has begun goes on.
    pub(crate) fn shut_down(mut self: Pin<&mut Self>) {
        match self.as_mut().project() {
            Projection::Unknown { .. } => self.set(Self::Over),
            Projection::Http1 { connection } => connection.graceful_shutdown(),
            Projection::Http2 { connection } => connection.graceful_shutdown(),
            Projection::Over => {}
        }
    }

    /// Serves until the connection is at its end, or has been handed on by an upgrade.
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        loop {
            let version = match self.as_mut().project() {
                // A preface is waited for even where nothing else is spoken: hyper, once it waits
                // for one, cannot be asked to close.
                Projection::Unknown { wire, options, .. } => match options.versions {
                    Versions::Http1 => Version::Http1,
                    versions => match ready!(wire.poll_version(cx))? {
                        Version::Http1 if versions == Versions::Http2 => Version::Http2,
                        version => version,
                    },
                },
                Projection::Http1 { connection } => return connection.poll(cx).map_err(Into::into),
                Projection::Http2 { connection } => return connection.poll(cx).map_err(Into::into),
                Projection::Over => return Poll::Ready(Ok(())),
            };
            self.as_mut().settle(version);
        }
    }

    fn settle(mut self: Pin<&mut Self>, version: Version) {
        let Taken::Unknown { mut wire, service, options } =
            self.as_mut().project_replace(Self::Over)
        else {
            return;
        };
        wire.carry(version);
        self.set(match version {
            Version::Http1 => {
                let mut http1 = options.http1.clone();
                Heads::watch(&mut http1, wire.activity());
                let connection = http1.serve_connection(wire, service).with_upgrades();
                Self::Http1 { connection }
            }
            Version::Http2 => {
                Self::Http2 { connection: options.http2.serve_connection(wire, service) }
            }
        });
    }
}
