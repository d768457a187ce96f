//! Notes come in, are on disk when they are confirmed, and are told to whoever listens.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ecosystem::notes::{Note, Notes};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response, StatusCode};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::JoinHandle;
use quoit::time::timeout;
use quoit_http::Report;
use tokio::sync::oneshot;

const SOON: Duration = Duration::from_secs(10);

/// A file of this test's own, gone when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let file = format!("{name}-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(file);
        let _ = fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

struct Server {
    notes: Notes,
    sender: SendRequest<Full<Bytes>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<Report>>,
    address: std::net::SocketAddr,
}

async fn start(scratch: &Scratch) -> Server {
    let notes = Notes::open(&scratch.0).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = quoit_http::serve(listener, notes.router()).with_graceful_shutdown(stopped);
    let task = quoit::spawn(serve.into_future());
    Server { notes, sender: connect(address).await, stop, task, address }
}

async fn connect(address: std::net::SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    quoit::spawn(connection);
    sender
}

impl Server {
    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        timeout(SOON, self.sender.ready()).await.unwrap().unwrap();
        timeout(SOON, self.sender.send_request(request)).await.unwrap().unwrap()
    }

    async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let response = self.ask(get(path)).await;
        let status = response.status();
        let body = timeout(SOON, response.into_body().collect()).await.unwrap().unwrap();
        (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    async fn post(&mut self, json: &str) -> (StatusCode, Bytes) {
        let request = Request::post("/notes").header("host", "test");
        let request = request.header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::copy_from_slice(json.as_bytes()))).unwrap();
        let response = self.ask(request).await;
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    async fn end(self) -> Report {
        self.notes.close();
        self.stop.send(()).unwrap();
        timeout(SOON, self.task).await.unwrap().unwrap().unwrap()
    }
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "test").body(Full::default()).unwrap()
}

#[quoit::test]
async fn notes_are_kept() {
    let scratch = Scratch::new("kept");
    let mut server = start(&scratch).await;
    for (number, text) in ["milk", "bread", "\"quotes\"\nand lines"].into_iter().enumerate() {
        let (status, body) = server.post(&serde_json::json!({ "text": text }).to_string()).await;
        assert_eq!(status, StatusCode::CREATED);
        let note: Note = serde_json::from_slice(&body).unwrap();
        assert_eq!(note, Note { number, text: text.to_owned() });
        let disk = fs::read_to_string(&scratch.0).unwrap();
        assert_eq!(disk.lines().count(), number + 1, "on disk before it is confirmed");
        assert_eq!(server.get("/file").await, (StatusCode::OK, disk));
    }
    assert_eq!(server.post("{}").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let one = server.get("/notes/1").await;
    assert_eq!(one, (StatusCode::OK, r#"{"number":1,"text":"bread"}"#.to_owned()));
    assert_eq!(server.get("/notes/9").await.0, StatusCode::NOT_FOUND);
    let (_, before) = server.get("/notes").await;
    assert!(server.end().await.is_clean());

    // What the last write of a crash has left is not a note, and the next one goes over it.
    let mut bytes = fs::read(&scratch.0).unwrap();
    bytes.extend_from_slice(br#"{"number":3,"text":"half of"#);
    fs::write(&scratch.0, bytes).unwrap();
    let mut server = start(&scratch).await;
    assert_eq!(server.get("/notes").await, (StatusCode::OK, before));
    assert_eq!(server.post(r#"{"text":"x"}"#).await.0, StatusCode::CREATED);
    let disk = fs::read_to_string(&scratch.0).unwrap();
    assert!(disk.ends_with("\n{\"number\":3,\"text\":\"x\"}\n"), "{disk}");
    server.end().await;
}

#[quoit::test]
async fn whoever_listens_is_told() {
    let scratch = Scratch::new("told");
    let mut server = start(&scratch).await;
    let mut listener = connect(server.address).await;
    let response = timeout(SOON, listener.send_request(get("/events"))).await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = response.into_body();
    for (number, text) in ["one", "two"].into_iter().enumerate() {
        server.post(&serde_json::json!({ "text": text }).to_string()).await;
        let event = timeout(SOON, events.frame()).await.unwrap().unwrap().unwrap();
        let event = String::from_utf8(event.into_data().unwrap().to_vec()).unwrap();
        let wanted = format!("id: {number}\ndata: {{\"number\":{number},\"text\":\"{text}\"}}\n\n");
        assert_eq!(event, wanted);
    }
    // The stream has no end, until the shutdown gives it one.
    assert!(server.end().await.is_clean());
    assert!(timeout(SOON, events.frame()).await.unwrap().is_none());
}
