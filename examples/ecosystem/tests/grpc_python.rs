//! gRPC with an implementation that nobody here has written: `grpcio`, Google's for Python, as a
//! client of our server and as a server for our client (`grpc_peer.py`).
//!
//! It runs where `QUOIT_PYTHON` (or else `python3`) can `import grpc`. Elsewhere it says that
//! nothing was tested; with `QUOIT_REQUIRE_TOOLS=1` it fails.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ecosystem::grpc::pb::store_client::StoreClient;
use ecosystem::grpc::pb::{Entry, Name};
use ecosystem::grpc::{LARGEST, Store};
use ecosystem::grpc_client::channel;
use futures::channel::mpsc;
use futures::stream::iter;
use futures::{SinkExt, StreamExt};
use quoit::net::TcpListener;
use quoit::task::spawn_blocking;
use quoit::time::{sleep, timeout};
use tonic::{Code, Request};

/// Python takes a while to start on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The peer in a role; or nothing, where there is no such peer.
fn peer(role: &[&str]) -> Option<Command> {
    let python = env::var("QUOIT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import grpc"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        let missing = format!("{python} has no grpcio (pip install grpcio, QUOIT_PYTHON)");
        let required = env::var("QUOIT_REQUIRE_TOOLS").is_ok_and(|required| required == "1");
        assert!(!required, "{missing}");
        eprintln!("!!! gRPC with Python is NOT TESTED here: {missing} !!!");
        return None;
    }
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc_peer.py")).args(role);
    // A proxy is none of the machine's own addresses' business.
    command.env("no_proxy", "127.0.0.1").env("GRPC_VERBOSITY", "ERROR");
    Some(command)
}

#[quoit::test]
async fn pythons_client_calls_our_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let Some(mut peer) = peer(&["client", &address]) else { return };
    let store = Store::default();
    let served = quoit_http::serve(listener, store.service().await).http2_only();
    quoit::spawn(served.into_future());
    let output = spawn_blocking(move || peer.output());
    let output = timeout(LIMIT, output).await.expect("it hangs").unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    // What it has cancelled, and what it was too late for, is over here, too.
    while store.watchers() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// The peer as a server. Its input is closed when this goes, which ends it; then it is waited for.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[quoit::test]
async fn our_client_calls_pythons_server() {
    let Some(mut peer) = peer(&["server"]) else { return };
    let mut server = Server(peer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let stdout = server.0.stdout.take().unwrap();
    let address = spawn_blocking(move || BufReader::new(stdout).lines().next().unwrap().unwrap());
    let address = timeout(LIMIT, address).await.expect("it does not start").unwrap();
    let calls = async {
        let origin = format!("http://{address}").parse().unwrap();
        let mut client = StoreClient::with_origin(channel(), origin)
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST);
        let name = |name: &str| Name { name: name.to_owned() };
        let entry = |name: &str, value| Entry { name: name.to_owned(), value, blob: Vec::new() };

        let blob: Vec<u8> = (0..6_u32 << 20).map(|at| (at % 251) as u8).collect();
        let large = Entry { blob, ..entry("large", 3) };
        let loaded = client.load(iter([entry("a", 1), entry("b", -2), large.clone()])).await;
        assert_eq!(loaded.unwrap().into_inner().count, 3);
        let mut request = Request::new(name("b"));
        request.metadata_mut().insert("x-request-id", "seventeen".parse().unwrap());
        let response = client.get(request).await.unwrap();
        assert_eq!(response.metadata().get("x-request-id").unwrap(), "seventeen");
        assert_eq!(response.into_inner(), entry("b", -2));
        assert!(client.get(name("large")).await.unwrap().into_inner() == large);

        let status = client.get(name("nobody")).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "nothing is under nobody"));
        let watched = client.watch(name("")).await.unwrap().into_inner();
        let watched: Vec<_> = watched.map(|entry| entry.unwrap().name).collect().await;
        assert_eq!(watched, ["a", "b", "large"]);

        let (mut send, receive) = mpsc::channel(1);
        // It sends no headers before it has something to answer.
        send.send(entry("sum", 10)).await.unwrap();
        let mut sums = client.add(receive).await.unwrap().into_inner();
        assert_eq!(sums.message().await.unwrap(), Some(entry("sum", 10)));
        for (value, sum) in [(20, 30), (-31, -1)] {
            send.send(entry("sum", value)).await.unwrap();
            assert_eq!(sums.message().await.unwrap(), Some(entry("sum", sum)));
        }
        drop(send);
        assert_eq!(sums.message().await.unwrap(), None);

        let mut request = Request::new(name("never"));
        request.set_timeout(Duration::from_millis(100));
        let status = client.wait(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        // It has seen that nobody waits any more.
        let seen = client.get(name("was it cancelled?")).await.unwrap().into_inner();
        assert_eq!(seen.value, 1);
    };
    timeout(LIMIT, calls).await.expect("it hangs");
    spawn_blocking(move || drop(server)).await.unwrap();
}
