//! What needs tokio runs beside us: reqwest and sqlx, and tokio's own sockets and timers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ecosystem::hello;
use ecosystem::links::{Link, Links};
use ecosystem::sidecar::{Gone, Sidecar};
use futures::future::join_all;
use quoit::net::TcpListener;
use quoit::time::{Instant, sleep, timeout};
use quoit::{RingChoice, Runtime};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

const SOON: Duration = Duration::from_secs(20);

async fn soon<F: Future>(body: F) -> F::Output {
    timeout(SOON, body).await.expect("it hangs")
}

/// The server of `axum_hello`, on this core.
async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = hello::router(echo.local_addr().unwrap());
    quoit::spawn(hello::echo(echo));
    quoit::spawn(quoit_http::serve(listener, router).into_future());
    address
}

fn client() -> Client {
    // Whatever the environment says: these are the machine's own addresses.
    Client::builder().no_proxy().build().unwrap()
}

/// Counts itself while it is there.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[quoit::test]
async fn reqwest_asks_our_server_either_way() {
    let address = start().await;
    let sidecar = Sidecar::start(4).unwrap();
    let client = client();
    soon(async {
        for number in 0..20 {
            let request = client.get(format!("http://{address}/echo/{number}"));
            let asked = sidecar.run(async { request.send().await?.text().await });
            assert_eq!(asked.await.unwrap().unwrap(), number.to_string());

            // Polled here: it may borrow, and need not be `Send`.
            let word = std::rc::Rc::new(format!("{number}-here"));
            let asked = sidecar.enter(async {
                let request = client.get(format!("http://{address}/echo/{word}"));
                request.send().await?.text().await
            });
            assert_eq!(asked.await.unwrap(), *word);
        }
        let refused = client.get("http://127.0.0.1:1/").send();
        assert!(sidecar.run(refused).await.unwrap().unwrap_err().is_connect());
        assert_eq!(sidecar.shutdown(SOON).await, 0);
    })
    .await;
}

/// A handler that asks with reqwest and stores with sqlx, asked by reqwest.
#[quoit::test]
async fn links_are_looked_at_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("links");
    let sidecar = Sidecar::start(8).unwrap();
    // The clients have one of their own: they wait for handlers, which need places, too.
    let other = Sidecar::start(8).unwrap();
    soon(async {
        let page = format!("http://{}/", start().await);
        let links = Links::open(sidecar.clone(), client(), &file).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/links", listener.local_addr().unwrap());
        let server = quoit::spawn(quoit_http::serve(listener, links.router()).into_future());

        let client = client();
        let post = async |looked: &str| {
            let request = client.post(&url).json(&json!({ "url": looked })).send();
            other.run(request).await.unwrap().unwrap()
        };
        let found = Link { url: page.clone(), status: 200, length: 20 };
        let missing = Link { url: format!("{page}missing"), status: 404, length: 0 };
        for link in [&found, &missing, &found] {
            let response = post(&link.url).await;
            assert_eq!(response.status(), StatusCode::CREATED);
            let answered: Link = other.run(response.json()).await.unwrap().unwrap();
            assert_eq!(answered, *link);
        }
        assert_eq!(post("http://127.0.0.1:1/").await.status(), StatusCode::BAD_GATEWAY);

        let request = client.get(&url).send();
        let response = other.run(request).await.unwrap().unwrap();
        let all: Vec<Link> = other.run(response.json()).await.unwrap().unwrap();
        assert_eq!(all, [found.clone(), missing.clone()]);

        // Queries at once, from handlers at once.
        let listed = join_all((0..50).map(|_| {
            let request = client.get(&url).send();
            other.run(async { request.await?.json::<Vec<Link>>().await })
        }));
        assert!(listed.await.into_iter().all(|all| all.unwrap().unwrap().len() == 2));
        server.abort();
        links.close().await;

        // It is in the file.
        let links = Links::open(sidecar.clone(), client.clone(), &file).await.unwrap();
        links.close().await;
        drop(client);
        assert_eq!(sidecar.shutdown(SOON).await, 0);
    })
    .await;
}

#[quoit::test]
async fn a_dropped_call_ends_on_the_other_side() {
    let sidecar = Sidecar::start(1).unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    soon(async {
        let guard = alive.clone();
        let theirs = thread::current().id();
        let call = sidecar.run(async move {
            let _alive = Alive::new(&guard);
            assert_ne!(thread::current().id(), theirs);
            std::future::pending::<()>().await;
        });
        let call = Box::pin(call);
        let either = futures::future::select(call, Box::pin(until(|| alive_in(&alive) == 1))).await;
        drop(either);
        until(|| alive_in(&alive) == 0).await;
        // Its place is free again.
        assert_eq!(sidecar.run(async { 7 }).await, Ok(7));
    })
    .await;
}

fn alive_in(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

#[quoit::test]
async fn a_panic_comes_back() {
    let sidecar = Sidecar::start(1).unwrap();
    let inner = sidecar.clone();
    let task = quoit::spawn(async move {
        inner.run(async { panic!("as asked") }).await.unwrap();
    });
    let panic = soon(task).await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as asked"));
    assert_eq!(soon(sidecar.run(async { 7 })).await, Ok(7), "the thread goes on");
}

#[quoit::test]
async fn calls_beyond_the_limit_wait() {
    const AT_ONCE: usize = 3;
    let sidecar = Sidecar::start(AT_ONCE).unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let calls = (0..30).map(|_| {
        let (alive, most) = (alive.clone(), most.clone());
        sidecar.run(async move {
            let _alive = Alive::new(&alive);
            most.fetch_max(alive_in(&alive), Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(3)).await;
        })
    });
    assert!(soon(join_all(calls)).await.iter().all(Result::is_ok));
    assert_eq!(alive_in(&most), AT_ONCE);
}

#[quoit::test]
async fn a_shutdown_waits_and_then_cuts_off() {
    soon(async {
        let sidecar = Sidecar::start(8).unwrap();
        let go = Arc::new(Notify::new());
        let gone = go.clone();
        let inner = sidecar.clone();
        let call =
            quoit::spawn(async move { inner.run(async move { gone.notified().await }).await });
        sleep(Duration::from_millis(20)).await;
        let inner = sidecar.clone();
        let ending = quoit::spawn(async move { inner.shutdown(SOON).await });
        sleep(Duration::from_millis(20)).await;
        assert!(!ending.is_finished(), "it waits");
        assert_eq!(sidecar.run(async {}).await, Err(Gone), "nothing is taken on");
        go.notify_one();
        assert_eq!(call.await.unwrap(), Ok(()));
        assert_eq!(ending.await.unwrap(), 0);

        let sidecar = Sidecar::start(8).unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let (inner, guard) = (sidecar.clone(), alive.clone());
        let call = quoit::spawn(async move {
            let stays = async move {
                let _alive = Alive::new(&guard);
                std::future::pending::<()>().await;
            };
            inner.run(stays).await
        });
        until(|| alive_in(&alive) == 1).await;
        assert_eq!(sidecar.shutdown(Duration::from_millis(20)).await, 1);
        assert_eq!(alive_in(&alive), 0, "dropped before the end");
        assert_eq!(call.await.unwrap(), Err(Gone));
        assert_eq!(sidecar.shutdown(SOON).await, 0, "twice is once");
    })
    .await;
}

/// The last clone takes the thread along.
#[quoit::test]
async fn nobody_left_is_the_end() {
    let sidecar = Sidecar::start(8).unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    let guard = alive.clone();
    let spawned = sidecar.run(async move {
        tokio::spawn(async move {
            let _alive = Alive::new(&guard);
            std::future::pending::<()>().await;
        });
    });
    soon(spawned).await.unwrap();
    soon(until(|| alive_in(&alive) == 1)).await;
    drop(sidecar);
    soon(until(|| alive_in(&alive) == 0)).await;
}

/// What either way costs, counted: a call that is sent over wakes this core once; one that is
/// polled here, whenever tokio has something for it.
#[test]
fn a_call_that_is_sent_over_costs_one_wake() {
    const CALLS: u64 = 200;
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let address = runtime.block_on(start());
        let url = format!("http://{address}/");
        let sidecar = Sidecar::start(4).unwrap();
        let client = client();
        let ask = move || client.get(&url).send();
        // The connection is made before.
        runtime.block_on(sidecar.run(ask())).unwrap().unwrap();
        let wakes = || runtime.metrics().remote_wakes;
        let start = wakes();
        let (there, asking) = (sidecar.clone(), ask.clone());
        let sending = runtime.spawn(async move {
            for _ in 0..CALLS {
                there.run(asking()).await.unwrap().unwrap().error_for_status().unwrap();
            }
        });
        runtime.block_on(sending).unwrap();
        let sent = wakes() - start;
        let polling = runtime.spawn(sidecar.enter(async move {
            for _ in 0..CALLS {
                ask().await.unwrap().error_for_status().unwrap();
            }
        }));
        runtime.block_on(polling).unwrap();
        let polled = wakes() - start - sent;
        println!("{CALLS} calls: {sent} wakes if sent over, {polled} if polled here");
        assert!(sent <= CALLS && polled >= sent, "{sent} and {polled}");
    }
}

/// Its sockets and timers in our task: they are driven there, and wake us here.
#[quoit::test]
async fn tokios_sockets_and_timers_are_polled_here() {
    let sidecar = Sidecar::start(1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    quoit::spawn(hello::echo(listener));
    let here = thread::current().id();
    let limit = Duration::from_millis(30);
    let work = sidecar.enter(async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        for _ in 0..100 {
            stream.write_all(b"around").await.unwrap();
            let mut got = [0; 6];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"around");
            assert_eq!(thread::current().id(), here);
        }
        let start = Instant::now();
        tokio::time::sleep(limit).await;
        assert!(start.elapsed() >= limit);
        // Both clocks in one future.
        sleep(limit).await;
    });
    soon(work).await;
}
