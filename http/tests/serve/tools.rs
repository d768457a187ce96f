//! A server that can be stopped, and a client of few words.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use quoit::net::{TcpListener, TcpStream};
use quoit::rt::QuoitExecutor;
use quoit::task::JoinHandle;
use quoit::time::timeout;
use quoit_http::{Report, Serve, serve_with};
use tokio::sync::oneshot;

/// Long enough for anything that is to happen at all.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) type Make = Box<dyn FnMut(SocketAddr) -> Router>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<Report>>,
}

/// Serves a router on this core, with what is set of it.
pub(crate) async fn start(
    router: Router,
    change: impl FnOnce(Serve<Make>) -> Serve<Make>,
) -> Server {
    let make: Make = Box::new(move |_| router.clone());
    started(move |listener, stopped| {
        change(serve_with(listener, make).with_graceful_shutdown(stopped)).into_future()
    })
    .await
}

/// A server on this core that ends when its event comes.
pub(crate) async fn started<F>(run: impl FnOnce(TcpListener, oneshot::Receiver<()>) -> F) -> Server
where
    F: Future<Output = io::Result<Report>> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    Server { address, stop: Some(stop), task: quoit::spawn(run(listener, stopped)) }
}

impl Server {
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn report(self) -> Report {
        timeout(SOON, self.task).await.expect("the server ends").unwrap().unwrap()
    }

    /// Stops it, and wants an end without anything left.
    pub(crate) async fn end(mut self) -> Report {
        self.stop();
        let report = self.report().await;
        assert!(report.is_clean(), "{report:?}");
        report
    }

    pub(crate) fn abort(self) {
        self.task.abort();
    }

    pub(crate) async fn client(&self) -> Client {
        let stream = timeout(SOON, TcpStream::connect(self.address)).await.unwrap().unwrap();
        Client { stream, read: Vec::new() }
    }

    /// hyper's client over HTTP/1.
    pub(crate) async fn http1(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        quoit::spawn(connection);
        sender
    }

    /// hyper's client over HTTP/2, and whether its connection has ended well.
    pub(crate) async fn http2(
        &self,
    ) -> (http2::SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = http2::handshake(QuoitExecutor, stream).await.unwrap();
        (sender, quoit::spawn(connection))
    }
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://test{path}")).body(Full::default()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://test{path}")).body(Full::new(body.into())).unwrap()
}

pub(crate) async fn body(response: Response<Incoming>) -> Bytes {
    timeout(SOON, response.into_body().collect()).await.unwrap().unwrap().to_bytes()
}

/// Writes what it is told, and reads one response after the other.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) {
        self.stream.send_all(bytes.as_ref().to_vec()).await.unwrap();
    }

    pub(crate) async fn get(&mut self, path: &str) -> (String, String) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        self.response().await
    }

    /// Head and body of the next response, whose length has to be in the head.
    pub(crate) async fn response(&mut self) -> (String, String) {
        let response = timeout(SOON, async {
            let end = loop {
                if let Some(end) = find(&self.read, b"\r\n\r\n") {
                    break end;
                }
                assert!(self.more().await, "the end, after {:?}", self.text());
            };
            let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
            let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            let all = end + 4 + length;
            while self.read.len() < all {
                assert!(self.more().await, "the end, after {:?}", self.text());
            }
            let body = String::from_utf8(self.read[end + 4..all].to_vec()).unwrap();
            self.read.drain(..all);
            (head, body)
        });
        response.await.expect("a response in time")
    }

    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let reading = async {
            while self.read.len() < count {
                assert!(self.more().await, "the end, after {:?}", self.text());
            }
        };
        timeout(SOON, reading).await.expect("bytes in time");
        self.read.drain(..count).collect()
    }

    /// Waits for the peer's end, and wants nothing before it.
    pub(crate) async fn end(&mut self) {
        let end = timeout(SOON, self.stream.recv()).await.expect("the end in time");
        let rest = end.map(|lease| lease.to_vec()).unwrap_or_default();
        assert!(self.read.is_empty() && rest.is_empty(), "{:?} {rest:?}", self.text());
    }

    /// Whether nothing comes for so long.
    pub(crate) async fn is_quiet(&mut self, time: Duration) -> bool {
        self.read.is_empty() && timeout(time, self.stream.readable()).await.is_err()
    }

    async fn more(&mut self) -> bool {
        let lease = self.stream.recv().await.unwrap();
        self.read.extend_from_slice(&lease);
        !lease.is_empty()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What is to happen soon.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    let start = quoit::time::Instant::now();
    let output = timeout(SOON, future).await.expect("in time");
    // A future that was ready and not woken is found out by the timeout's last look at it.
    assert!(start.elapsed() < SOON, "nobody was woken");
    output
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            quoit::time::sleep(MS).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not so in time: {what}"));
}

/// Counts those that are alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    pub(crate) fn one(&self) -> One {
        self.0.fetch_add(1, SeqCst);
        One(self.0.clone())
    }
}

pub(crate) struct One(Arc<AtomicUsize>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
