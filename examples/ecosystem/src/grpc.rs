//! A gRPC service of tonic's on quoit: one method of each kind of call, and the health service.
//!
//! ```text
//!   HTTP/2 ──► quoit-http ──► Deadline ──► tonic's Routes ──► Store ──► sleeps, sockets, channels
//!              on quoit's TcpStream     grpc-timeout            of this core
//! ```
//!
//! tonic's own transport needs tokio's runtime. Everything else of it, generated code included, is
//! services over `http::Request`, which run anywhere. A client that goes away, or whose deadline
//! passes, drops the future or the stream of its call: clean up in `Drop`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{iter, unfold};
use futures::{Stream, StreamExt};
use quoit_http::RequestBody;
use tokio::sync::broadcast::{self, error::RecvError};
use tonic::codegen::http;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tower::util::MapRequest;

use self::pb::store_server::{self, StoreServer};
use self::pb::{Entry, Loaded, Name};
use crate::deadline::Deadline;
use crate::grpc_status::{Told, tell_request};

/// What `build.rs` makes of `proto/store.proto`.
pub mod pb {
    tonic::include_proto!("quoit.store.v1");
}

/// Messages larger than this are refused; tonic's own limit is 4 MiB.
pub const LARGEST: usize = 16 << 20;

/// Changes that somebody who watches may fall behind.
const BEHIND: usize = 64;

/// The request's name, which goes back with its response.
const REQUEST_ID: &str = "x-request-id";

/// What `quoit_http::serve` takes.
pub type Service = Deadline<
    MapRequest<Routes, fn(http::Request<RequestBody>) -> http::Request<Told<RequestBody>>>,
>;

type Answer<T> = Result<Response<T>, Status>;
type Entries = Pin<Box<dyn Stream<Item = Result<Entry, Status>> + Send>>;

/// Numbers under names.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    entries: BTreeMap<String, Entry>,
    /// None: the store is closed.
    changes: Option<broadcast::Sender<Entry>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), changes: Some(broadcast::Sender::new(BEHIND)) }
    }
}

impl Store {
    /// Everything that the server answers: the store, and whether it is well.
    pub async fn service(&self) -> Service {
        let store = StoreServer::new(self.clone())
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST);
        let (health, health_server) = tonic_health::server::health_reporter();
        health.set_serving::<StoreServer<Self>>().await;
        let routes = Routes::new(store).add_service(health_server).prepare();
        Deadline::new(MapRequest::new(routes, tell_request))
    }

    /// Ends the calls that have no end of their own: a shutdown would wait for them.
    pub fn close(&self) {
        self.lock().changes.take();
    }

    /// How many calls wait for changes.
    pub fn watchers(&self) -> usize {
        self.lock().changes.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn put(&mut self, entry: Entry) {
        if let Some(changes) = &self.changes {
            // An error says that nobody watches.
            let _ = changes.send(entry.clone());
        }
        self.entries.insert(entry.name.clone(), entry);
    }

    /// What there is now, and what comes after it: nothing is between the two.
    fn watch(&self, prefix: &str) -> Result<(Vec<Entry>, broadcast::Receiver<Entry>), Status> {
        let changes = self.changes.as_ref().ok_or_else(closing)?.subscribe();
        let from_here = self.entries.range(prefix.to_owned()..);
        let known = from_here.take_while(|(name, _)| name.starts_with(prefix));
        Ok((known.map(|(_, entry)| entry.clone()).collect(), changes))
    }
}

#[tonic::async_trait]
impl store_server::Store for Store {
    async fn get(&self, request: Request<Name>) -> Answer<Entry> {
        let id = request.metadata().get(REQUEST_ID).cloned();
        let Name { name } = request.into_inner();
        let entry = self.lock().entries.get(&name).cloned();
        let entry = entry.ok_or_else(|| Status::not_found(format!("nothing is under {name:?}")))?;
        let mut response = Response::new(entry);
        if let Some(id) = id {
            response.metadata_mut().insert(REQUEST_ID, id);
        }
        Ok(response)
    }

    async fn wait(&self, request: Request<Name>) -> Answer<Entry> {
        let Name { name } = request.into_inner();
        let (known, changes) = self.lock().watch(&name)?;
        let mut entries = iter(known).map(Ok).chain(changes_from(changes)).boxed();
        while let Some(entry) = entries.next().await {
            match entry? {
                entry if entry.name == name => return Ok(Response::new(entry)),
                _ => {}
            }
        }
        Err(closing())
    }

    type WatchStream = Entries;

    async fn watch(&self, request: Request<Name>) -> Answer<Entries> {
        let Name { name } = request.into_inner();
        let (known, changes) = self.lock().watch(&name)?;
        let wanted = move |entry: &Result<Entry, Status>| {
            let wanted = entry.as_ref().map_or(true, |entry| entry.name.starts_with(&name));
            async move { wanted }
        };
        let changes = changes_from(changes).filter(wanted);
        Ok(Response::new(iter(known).map(Ok).chain(changes).boxed()))
    }

    async fn load(&self, request: Request<Streaming<Entry>>) -> Answer<Loaded> {
        let mut entries = request.into_inner();
        let mut loaded = Vec::new();
        // A client that goes away half-way is an error here, and nothing is stored.
        while let Some(entry) = entries.message().await? {
            loaded.push(entry);
        }
        let count = loaded.len() as u64;
        let mut shared = self.lock();
        loaded.into_iter().for_each(|entry| shared.put(entry));
        Ok(Response::new(Loaded { count }))
    }

    type AddStream = Entries;

    async fn add(&self, request: Request<Streaming<Entry>>) -> Answer<Entries> {
        let state = Some((request.into_inner(), self.clone()));
        let sums = unfold(state, async |state| {
            let (mut entries, store) = state?;
            let added = match entries.message().await {
                Ok(None) => return None,
                Ok(Some(entry)) => store.lock().add(entry),
                Err(status) => Err(status),
            };
            // An error is the last thing that a call says.
            let go_on = added.is_ok();
            Some((added, go_on.then_some((entries, store))))
        });
        Ok(Response::new(sums.boxed()))
    }
}

impl Shared {
    fn add(&mut self, mut entry: Entry) -> Result<Entry, Status> {
        if let Some(known) = self.entries.get(&entry.name) {
            let sum = known.value.checked_add(entry.value);
            entry.value = sum.ok_or_else(|| Status::out_of_range("the sum is too large"))?;
        }
        self.put(entry.clone());
        Ok(entry)
    }
}

fn changes_from(
    changes: broadcast::Receiver<Entry>,
) -> impl Stream<Item = Result<Entry, Status>> + Send {
    unfold(Some(changes), async |changes| {
        let mut changes = changes?;
        match changes.recv().await {
            Ok(entry) => Some((Ok(entry), Some(changes))),
            Err(RecvError::Lagged(missed)) => {
                let status = Status::data_loss(format!("too slow: {missed} changes were missed"));
                Some((Err(status), None))
            }
            Err(RecvError::Closed) => Some((Err(closing()), None)),
        }
    })
}

fn closing() -> Status {
    Status::unavailable("the server is going away")
}
