//! One connection in the protocol that its client chose.
//!
//! ```text
//!   Shaking ── what was agreed on ──┐
//!                                   ▼
//!   Unknown ── 24 bytes are the preface of HTTP/2 ──► Http2
//!      └────── one of them is not ──────────────────► Http1 ── upgrade ──► handed on
//! ```
//!
//! `hyper_util::server::conn::auto` does the same, and would run on quoit as it is. But with
//! upgrades it cannot be told to speak one protocol only, it does not tell which one it found
//! (what "idle" means depends on that), and a shutdown before it knows is an error.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use pin_project_lite::pin_project;
use quoit::rt::QuoitExecutor;

use crate::activity::Activity;
use crate::handshake::{Shaken, Shaking, Started};
use crate::options::{Options, Versions};
use crate::report::BoxError;
use crate::service::{Application, Counted};
use crate::slots::Slot;
use crate::wire::{Version, Wire};

/// Why a connection has failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Handshake(io::Error),
    Http(BoxError),
}

impl Fault {
    fn http(error: impl Into<BoxError>) -> Self {
        Self::Http(error.into())
    }
}

pin_project! {
    #[project = Projection]
    #[project_replace = Taken]
    pub(crate) enum Protocol<T, S>
    where
        S: Application,
    {
        Shaking {
            shaking: Shaking<T>,
            activity: Arc<Activity>,
            slot: Slot,
            service: Counted<S>,
            options: Rc<Options>,
        },
        Unknown {
            wire: Wire<T>,
            service: Counted<S>,
            options: Rc<Options>,
            versions: Versions,
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
    pub(crate) fn new(
        started: Started<T>,
        (activity, slot): (Arc<Activity>, Slot),
        service: Counted<S>,
        options: Rc<Options>,
    ) -> Self {
        match started {
            Started::Ready(io) => {
                let (wire, versions) = (Wire::new(io, activity, slot), options.versions);
                Self::Unknown { wire, service, options, versions }
            }
            Started::Shaking(shaking) => {
                activity.begin_handshake();
                Self::Shaking { shaking, activity, slot, service, options }
            }
        }
    }

    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Http1 { .. } => Some(Version::Http1),
            Self::Http2 { .. } => Some(Version::Http2),
            Self::Shaking { .. } | Self::Unknown { .. } | Self::Over => None,
        }
    }

    /// Asks for no more requests. What has begun goes on.
    pub(crate) fn shut_down(mut self: Pin<&mut Self>) {
        match self.as_mut().project() {
            Projection::Shaking { .. } | Projection::Unknown { .. } => self.set(Self::Over),
            Projection::Http1 { connection } => connection.graceful_shutdown(),
            Projection::Http2 { connection } => connection.graceful_shutdown(),
            Projection::Over => {}
        }
    }

    /// Serves until the connection is at its end, or has been handed on by an upgrade.
    pub(crate) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let version = match self.as_mut().project() {
                Projection::Shaking { shaking, activity, .. } => {
                    let agreed = ready!(shaking.poll(activity, cx)).map_err(Fault::Handshake)?;
                    self.as_mut().agree(agreed).map_err(Fault::Handshake)?;
                    continue;
                }
                // A preface is waited for even where nothing else is spoken: hyper, once it waits
                // for one, cannot be asked to close.
                Projection::Unknown { wire, versions, .. } => match *versions {
                    Versions::Http1 => Version::Http1,
                    versions => match ready!(wire.poll_version(cx)).map_err(Fault::http)? {
                        Version::Http1 if versions == Versions::Http2 => Version::Http2,
                        version => version,
                    },
                },
                Projection::Http1 { connection } => {
                    return connection.poll(cx).map_err(Fault::http);
                }
                Projection::Http2 { connection } => {
                    return connection.poll(cx).map_err(Fault::http);
                }
                Projection::Over => return Poll::Ready(Ok(())),
            };
            self.as_mut().settle(version);
        }
    }

    /// The handshake has ended. `None`: the peer has gone.
    fn agree(mut self: Pin<&mut Self>, agreed: Option<Shaken<T>>) -> io::Result<()> {
        let taken = self.as_mut().project_replace(Self::Over);
        let (Taken::Shaking { activity, slot, mut service, options, .. }, Some(agreed)) =
            (taken, agreed)
        else {
            return Ok(());
        };
        let versions = options.versions.agreed(agreed.protocol.as_deref())?;
        activity.end_handshake();
        service.carry(agreed.carry);
        let wire = Wire::new(agreed.io, activity, slot);
        self.set(Self::Unknown { wire, service, options, versions });
        Ok(())
    }

    fn settle(mut self: Pin<&mut Self>, version: Version) {
        let Taken::Unknown { mut wire, service, options, .. } =
            self.as_mut().project_replace(Self::Over)
        else {
            return;
        };
        wire.carry(version);
        self.set(match version {
            Version::Http1 => {
                let connection = options.http1.serve_connection(wire, service).with_upgrades();
                Self::Http1 { connection }
            }
            Version::Http2 => {
                Self::Http2 { connection: options.http2.serve_connection(wire, service) }
            }
        });
    }
}
