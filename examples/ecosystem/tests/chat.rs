//! A chat, by tungstenite's own client.

use std::time::Duration;

use ecosystem::chat::Room;
use futures::{SinkExt, StreamExt};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::JoinHandle;
use quoit::time::{sleep, timeout};
use quoit_http::Report;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const SOON: Duration = Duration::from_secs(10);

struct Server {
    room: Room,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<Report>>,
}

async fn start() -> Server {
    let room = Room::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = quoit_http::serve(listener, room.router()).with_graceful_shutdown(stopped);
    Server { room, address, stop, task: quoit::spawn(serve.into_future()) }
}

impl Server {
    /// A client that is in the room already.
    async fn enter(&self, count: usize) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let client = client_async("ws://test/chat", stream);
        let (client, response) = timeout(SOON, client).await.unwrap().unwrap();
        assert_eq!(response.status(), 101);
        self.until(count).await;
        client
    }

    async fn until(&self, count: usize) {
        let wait = async {
            while self.room.count() != count {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, wait).await.expect("the room fills, or empties");
    }

    async fn end(self) -> Report {
        self.stop.send(()).unwrap();
        timeout(SOON, self.task).await.unwrap().unwrap().unwrap()
    }
}

async fn next(client: &mut WebSocketStream<TcpStream>) -> Message {
    timeout(SOON, client.next()).await.unwrap().unwrap().unwrap()
}

#[quoit::test]
async fn everybody_hears_what_anybody_says() {
    let server = start().await;
    let mut ann = server.enter(1).await;
    let mut ben = server.enter(2).await;
    let long = "long ".repeat(1 << 18);
    for said in ["hello", "grüß dich", long.as_str()] {
        ann.send(Message::text(said)).await.unwrap();
        assert!(next(&mut ben).await.into_text().unwrap().as_str() == said);
        assert!(next(&mut ann).await.into_text().unwrap().as_str() == said);
    }
    ben.send(Message::Ping(b"there?".to_vec().into())).await.unwrap();
    assert_eq!(next(&mut ben).await, Message::Pong(b"there?".to_vec().into()));

    // One closes well, the other is just gone.
    ann.close(None).await.unwrap();
    assert!(matches!(next(&mut ann).await, Message::Close(_)));
    assert!(timeout(SOON, ann.next()).await.unwrap().is_none());
    server.until(1).await;
    ben.into_inner().abort();
    server.until(0).await;
    assert!(server.end().await.is_clean());
}

/// A client may speak before it has our answer.
#[quoit::test]
async fn what_comes_with_the_handshake_is_heard() {
    let server = start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let handshake = "GET /chat HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // "hi", behind a mask of zeros (RFC 6455, section 5.2).
    let frame = b"\x81\x82\0\0\0\0hi";
    stream.send_all([handshake.as_bytes(), frame].concat()).await.unwrap();
    let mut answer = Vec::new();
    let heard = async {
        while !answer.ends_with(b"\x81\x02hi") {
            let lease = stream.recv().await.unwrap();
            assert!(!lease.is_empty(), "the end");
            answer.extend_from_slice(&lease);
        }
    };
    timeout(SOON, heard).await.expect("it comes back");
    let head = String::from_utf8_lossy(&answer);
    // The key and its answer are those of RFC 6455, section 1.3.
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    drop(stream);
    assert!(server.end().await.is_clean());
}

#[quoit::test]
async fn a_closing_room_sends_everybody_home() {
    let server = start().await;
    let mut client = server.enter(1).await;
    server.room.close();
    let Message::Close(Some(frame)) = next(&mut client).await else { panic!("another message") };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "the room is closed"));
    assert!(timeout(SOON, client.next()).await.unwrap().is_none());
    assert!(server.end().await.is_clean());
}

#[quoit::test]
async fn what_is_no_websocket_is_refused() {
    let server = start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    stream.send_all("GET /chat HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let answer = timeout(SOON, stream.recv()).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 426 "), "{}", String::from_utf8_lossy(&answer));
    drop((answer, stream));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let refused = timeout(SOON, client_async("ws://test/nowhere", stream)).await.unwrap();
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 404));
    assert!(server.end().await.is_clean());
}
