//! Our server and our client, every kind of call; then each with tonic's own transport at the other
//! end, which runs on a tokio runtime in a thread of its own.

use std::net::SocketAddr;
use std::time::Duration;

use ecosystem::grpc::pb::store_client::StoreClient;
use ecosystem::grpc::pb::store_server::StoreServer;
use ecosystem::grpc::pb::{Entry, Name};
use ecosystem::grpc::{LARGEST, Store};
use ecosystem::grpc_client::{Channel, channel};
use futures::channel::mpsc;
use futures::stream::{iter, pending};
use futures::{SinkExt, StreamExt};
use quoit::net::TcpListener;
use quoit::task::JoinHandle;
use quoit::time::{Instant, sleep, timeout};
use quoit_http::Report;
use tokio::sync::oneshot;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SOON: Duration = Duration::from_secs(20);

struct Server {
    store: Store,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<Report>>,
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = Store::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = quoit_http::serve(listener, store.service().await).http2_only();
    let task = quoit::spawn(serve.with_graceful_shutdown(stopped).into_future());
    Server { store, address, stop, task }
}

fn client(address: SocketAddr) -> StoreClient<Channel> {
    StoreClient::with_origin(channel(), format!("http://{address}").parse().unwrap())
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(2 * LARGEST)
}

fn name(name: &str) -> Name {
    Name { name: name.to_owned() }
}

fn entry(name: &str, value: i64) -> Entry {
    Entry { name: name.to_owned(), value, blob: Vec::new() }
}

/// What happens elsewhere comes about within `SOON`.
async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, wait).await.expect("it never comes about");
}

/// The body of a test that may take `SOON`.
async fn soon<F: Future>(body: F) -> F::Output {
    timeout(SOON, body).await.expect("it hangs")
}

#[quoit::test]
async fn every_kind_of_call() {
    let server = start().await;
    let mut client = client(server.address);
    soon(async {
        // Many requests, one response.
        let loaded = client.load(iter([entry("a1", 1), entry("a2", 2), entry("b", 3)])).await;
        assert_eq!(loaded.unwrap().into_inner().count, 3);

        // One of each, with metadata both ways.
        let mut request = Request::new(name("a2"));
        request.metadata_mut().insert("x-request-id", "seventeen".parse().unwrap());
        let response = client.get(request).await.unwrap();
        assert_eq!(response.metadata().get("x-request-id").unwrap(), "seventeen");
        assert_eq!(response.into_inner(), entry("a2", 2));

        // One request, many responses.
        let mut watched = client.watch(name("a")).await.unwrap().into_inner();
        for known in [entry("a1", 1), entry("a2", 2)] {
            assert_eq!(watched.message().await.unwrap(), Some(known));
        }

        // Many of both: each is answered before the next is sent.
        let (mut send, receive) = mpsc::channel(0);
        let mut sums = client.add(receive).await.unwrap().into_inner();
        for (value, sum) in [(10, 11), (20, 31), (-1, 30)] {
            send.send(entry("a1", value)).await.unwrap();
            assert_eq!(sums.message().await.unwrap(), Some(entry("a1", sum)));
            assert_eq!(watched.message().await.unwrap(), Some(entry("a1", sum)), "it is told");
        }
        drop(send);
        assert_eq!(sums.message().await.unwrap(), None);
    })
    .await;
}

#[quoit::test]
async fn errors_are_statuses() {
    let server = start().await;
    let mut client = client(server.address);
    soon(async {
        let status = client.get(name("nobody")).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), r#"nothing is under "nobody""#);

        // In the middle of a stream: what came before it counts.
        let entries = iter([entry("n", i64::MAX - 1), entry("n", 1), entry("n", 1), entry("m", 1)]);
        let mut sums = client.add(entries).await.unwrap().into_inner();
        for sum in [i64::MAX - 1, i64::MAX] {
            assert_eq!(sums.message().await.unwrap(), Some(entry("n", sum)));
        }
        assert_eq!(sums.message().await.unwrap_err().code(), Code::OutOfRange);
        assert_eq!(client.get(name("m")).await.unwrap_err().code(), Code::NotFound);

        // Nobody knows this method; another service of the same server is well.
        let origin = format!("http://{}", server.address).parse().unwrap();
        let mut health = HealthClient::with_origin(channel(), origin);
        let service = "quoit.store.v1.Store".to_owned();
        let health = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving);
    })
    .await;
}

#[quoit::test]
async fn large_messages_arrive_whole_and_larger_ones_are_refused() {
    let server = start().await;
    let mut client = client(server.address);
    soon(async {
        let blob: Vec<u8> = (0..LARGEST as u32 / 2).map(|at| (at % 251) as u8).collect();
        let large = Entry { blob, ..entry("large", 1) };
        client.load(iter([large.clone()])).await.unwrap();
        assert!(client.get(name("large")).await.unwrap().into_inner() == large);

        let larger = Entry { blob: vec![7; LARGEST + 1], ..entry("larger", 1) };
        let status = client.load(iter([larger])).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        assert_eq!(client.get(name("larger")).await.unwrap_err().code(), Code::NotFound);
    })
    .await;
}

/// The server's timer ends the call where the client does not watch, and the other way round.
#[quoit::test]
async fn deadlines_end_calls_on_either_side() {
    let server = start().await;
    let limit = Duration::from_millis(80);
    soon(async {
        let started = Instant::now();
        let mut ours = client(server.address);
        let mut request = Request::new(name("never"));
        request.set_timeout(limit);
        let status = ours.wait(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
        until(|| server.store.watchers() == 0).await;

        // In the middle of a stream, after what came in time.
        ours.load(iter([entry("here", 1)])).await.unwrap();
        let mut request = Request::new(name("here"));
        request.set_timeout(limit);
        let mut watched = ours.watch(request).await.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap(), Some(entry("here", 1)));
        let status = watched.message().await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        until(|| server.store.watchers() == 0).await;

        // A limit of the client's own, of which the server hears nothing but the end.
        let origin = format!("http://{}", server.address).parse().unwrap();
        let mut hasty = StoreClient::with_origin(channel().at_most(limit), origin);
        let status = hasty.wait(name("never")).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        until(|| server.store.watchers() == 0).await;
    })
    .await;
}

#[quoit::test]
async fn the_server_sees_a_call_dropped() {
    let server = start().await;
    let mut client = client(server.address);
    soon(async {
        let mut other = client.clone();
        let call = quoit::spawn(async move { other.wait(name("never")).await });
        until(|| server.store.watchers() == 1).await;
        call.abort();
        until(|| server.store.watchers() == 0).await;

        let watched = client.watch(name("")).await.unwrap().into_inner();
        until(|| server.store.watchers() == 1).await;
        drop(watched);
        until(|| server.store.watchers() == 0).await;

        // Requests that are broken off half-way are not taken for all there are.
        let mut other = client.clone();
        let begun = iter([entry("half", 1)]).chain(pending());
        let call = quoit::spawn(async move { other.load(begun).await });
        sleep(Duration::from_millis(50)).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(client.get(name("half")).await.unwrap_err().code(), Code::NotFound);
        drop(client);
    })
    .await;
}

/// A shutdown waits for calls; those without an end are told to end.
#[quoit::test]
async fn a_shutdown_lets_calls_end() {
    let Server { store, address, stop, task } = start().await;
    let mut client = client(address);
    soon(async {
        let watched = client.watch(name("")).await.unwrap().into_inner();
        stop.send(()).unwrap();
        let late = loop {
            match client.load(iter([entry("late", 1)])).await {
                Ok(_) => sleep(Duration::from_millis(1)).await,
                Err(status) => break status,
            }
        };
        assert_eq!(late.code(), Code::Unavailable, "{late}");
        store.close();
        let mut failures = std::pin::pin!(watched.filter_map(async |entry| entry.err()));
        let ended = failures.next().await.unwrap();
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        let report = task.await.unwrap().unwrap();
        assert!(report.is_clean(), "{report:?}");
    })
    .await;
}

/// A server that is back is found again by the same client.
#[quoit::test]
async fn a_client_connects_again() {
    soon(async {
        let Server { address, stop, task, .. } = start().await;
        let mut client = client(address);
        client.load(iter([entry("before", 1)])).await.unwrap();
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
        assert_eq!(client.get(name("before")).await.unwrap_err().code(), Code::Unavailable);

        let listener = TcpListener::bind(address).await.unwrap();
        let store = Store::default();
        quoit::spawn(quoit_http::serve(listener, store.service().await).into_future());
        assert_eq!(client.get(name("before")).await.unwrap_err().code(), Code::NotFound);
    })
    .await;
}

/// tokio's runtime, on a thread of its own, until the body has ended.
fn on_tokio<F>(body: impl FnOnce() -> F + Send + 'static) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static>,
{
    quoit::task::spawn_blocking(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(body())
    })
}

#[quoit::test]
async fn tonics_own_client_calls_our_server() {
    let server = start().await;
    let address = server.address;
    let calls = on_tokio(move || async move {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let mut client = StoreClient::new(endpoint.unwrap().connect().await.unwrap());
        let loaded = client.load(tokio_stream::iter([entry("a", 1), entry("b", 2)])).await.unwrap();
        assert_eq!(loaded.into_inner().count, 2);
        assert_eq!(client.get(name("b")).await.unwrap().into_inner(), entry("b", 2));
        assert_eq!(client.get(name("c")).await.unwrap_err().code(), Code::NotFound);
        let adding = tokio_stream::iter([entry("a", 1), entry("a", 1)]);
        let sums = client.add(adding).await.unwrap().into_inner();
        let sums: Vec<_> = sums.map(|sum| sum.unwrap().value).collect().await;
        assert_eq!(sums, [2, 3]);
        let mut watched = client.watch(name("")).await.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap(), Some(entry("a", 3)));
    });
    soon(calls).await.unwrap();
    until(|| server.store.watchers() == 0).await;
}

#[quoit::test]
async fn our_client_calls_tonics_own_server() {
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = on_tokio(move || async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let store = Store::default();
        let service = StoreServer::new(store.clone()).max_decoding_message_size(LARGEST);
        let stop = async move { drop((stopped.await, store.close())) };
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming_shutdown(incoming, stop).await.unwrap();
    });
    soon(async {
        let mut client = client(told.await.unwrap());
        let large = Entry { blob: vec![7; 3 << 20], ..entry("large", 1) };
        client.load(iter([large.clone(), entry("b", 2)])).await.unwrap();
        assert!(client.get(name("large")).await.unwrap().into_inner() == large);
        let sums = client.add(iter([entry("b", 1), entry("b", 1)])).await.unwrap().into_inner();
        let sums: Vec<_> = sums.map(|sum| sum.unwrap().value).collect().await;
        assert_eq!(sums, [3, 4]);
        assert_eq!(client.get(name("c")).await.unwrap_err().code(), Code::NotFound);
        let mut request = Request::new(name("never"));
        request.set_timeout(Duration::from_millis(80));
        assert_eq!(client.wait(request).await.unwrap_err().code(), Code::DeadlineExceeded);
        drop(client);
        stop.send(()).unwrap();
        serving.await.unwrap();
    })
    .await;
}
