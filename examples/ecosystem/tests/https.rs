//! HTTPS by real clients: curl, OpenSSL, and hyper on our own streams.
//!
//! Where a program is missing, its tests say so and pass, unless `QUOIT_REQUIRE_TOOLS=1`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ecosystem::https::{self, Identity};
use hyper::Version;
use quoit::net::TcpListener;
use quoit_tls::TlsAcceptor;

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let name = format!("quoit-https-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The server on this core, and the file with its certificate.
async fn start(folder: &Folder) -> (SocketAddr, String) {
    let (identity, certificate) = Identity::self_signed(&["localhost"]).unwrap();
    let roots = folder.file("roots.pem");
    std::fs::write(&roots, certificate).unwrap();
    let acceptor = TlsAcceptor::from(https::server_config(identity).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    quoit::spawn(quoit_http::serve(listener, https::router()).tls(acceptor).into_future());
    (address, roots)
}

/// What a program prints, both ways, given this input; `None` if there is no such program.
async fn run(program: &'static str, arguments: Vec<String>, input: &'static str) -> Option<String> {
    let ran = quoit::task::spawn_blocking(move || {
        let mut command = Command::new("timeout");
        command.arg("20").arg(program).args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Left open until it has ended: `s_client` takes the end of it for the end of all.
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(input.as_bytes());
        let output = child.wait_with_output();
        drop(stdin);
        output
    });
    let output = ran.await.unwrap().unwrap();
    if output.status.code() == Some(127) {
        let required = std::env::var("QUOIT_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "{program} is required, and is not installed");
        eprintln!("!!! NO {program} HERE: HTTPS is not tested with it !!!");
        return None;
    }
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[quoit::test]
async fn curl_speaks_both_protocols() {
    let folder = Folder::new();
    let (address, roots) = start(&folder).await;
    for (how, want) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let port = address.port();
        let at = format!("--resolve localhost:{port}:127.0.0.1 https://localhost:{port}");
        let ask = |path: &str| words(&format!("-sS {how} --cacert {roots} {at}{path}"));
        let Some(text) = run("curl", ask("/tls"), "").await else { return };
        assert!(text.starts_with(&format!("{want} over TLSv1_3")), "{text}");
        assert!(text.ends_with("asked for localhost\n"), "{text}");
        let large = run("curl", ask("/large"), "").await.unwrap();
        assert_eq!(large.len(), 1 << 20);
        // Whom it does not know it does not talk to.
        let strange = run("curl", words(&format!("-sS {how} {at}/tls")), "").await.unwrap();
        assert!(strange.contains("curl: (60)"), "{strange}");
    }
}

const GET: &str = "GET /tls HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[quoit::test]
async fn openssl_shakes_hands_in_each_version_and_resumes() {
    let folder = Folder::new();
    let (address, roots) = start(&folder).await;
    let session = folder.file("session.pem");
    for (how, version) in [("-tls1_2", "TLSv1_2"), ("-tls1_3", "TLSv1_3")] {
        let ask = |more: &str| {
            words(&format!(
                "s_client -connect {address} -servername localhost -verify_return_error \
                 -CAfile {roots} {how} -alpn http/1.1 -ign_eof {more}"
            ))
        };
        let Some(text) = run("openssl", ask(&format!("-sess_out {session}")), GET).await else {
            return;
        };
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        assert!(text.contains("ALPN protocol: http/1.1"), "{text}");
        let want = format!("HTTP/1.1 over {version}, Full");
        assert!(text.contains(&want) && text.contains("asked for localhost"), "{text}");
        // Its end is an end, and no cut: OpenSSL 3 would say "unexpected eof".
        assert!(!text.to_lowercase().contains("unexpected eof"), "{text}");

        let again = run("openssl", ask(&format!("-sess_in {session}")), GET).await.unwrap();
        let want = format!("HTTP/1.1 over {version}, Resumed");
        assert!(again.contains(&want) && again.contains("Reused, "), "{again}");
    }
    let ask = format!("s_client -connect {address} -CAfile {roots} -alpn smtp");
    let text = run("openssl", words(&ask), "").await.unwrap();
    assert!(text.contains("no application protocol"), "{text}");
    let ask = format!("s_client -connect {address} -CAfile {roots} -tls1_1");
    let text = run("openssl", words(&ask), "").await.unwrap();
    assert!(text.to_lowercase().contains("alert") || text.contains("no protocols"), "{text}");
}

#[quoit::test]
async fn our_own_client_speaks_both_and_resumes() {
    let folder = Folder::new();
    let (address, roots) = start(&folder).await;
    let roots = std::fs::read_to_string(roots).unwrap();
    let address = address.to_string();
    for (offer, version) in [(&["h2", "http/1.1"][..], Version::HTTP_2), (&[], Version::HTTP_11)] {
        let connector = https::connector(&roots, offer).unwrap();
        for kind in ["Full", "Resumed"] {
            let answer = https::fetch(&connector, &address, "localhost", "/tls").await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
            let text = String::from_utf8_lossy(answer.body()).into_owned();
            assert!(text.contains(kind), "{text}");
        }
        let answer = https::fetch(&connector, &address, "localhost", "/large").await.unwrap();
        assert_eq!(answer.body().len(), 1 << 20);
        https::fetch(&connector, &address, "example.test", "/").await.unwrap_err();
    }
}

/// Certificates from files are those that clients see.
#[quoit::test]
async fn an_identity_is_read_from_files() {
    let folder = Folder::new();
    let made = rcgen::generate_simple_self_signed(["filed.test".to_owned()]).unwrap();
    let (chain, key) = (folder.file("chain.pem"), folder.file("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let identity = Identity::read(chain.as_ref(), key.as_ref()).unwrap();
    let acceptor = TlsAcceptor::from(https::server_config(identity).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    quoit::spawn(quoit_http::serve(listener, https::router()).tls(acceptor).into_future());
    let connector = https::connector(&made.cert.pem(), &["h2"]).unwrap();
    let answer = https::fetch(&connector, &address, "filed.test", "/").await.unwrap();
    assert_eq!(&answer.body()[..], b"hello from the ring, in private\n");
    let missing = Identity::read(folder.file("none.pem").as_ref(), key.as_ref()).unwrap_err();
    assert!(!missing.to_string().is_empty());
}
