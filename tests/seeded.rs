//! The contract under thousands of seeds: one core on the simulated ring, where a seed decides what
//! completes when. A failure names its seed, which replays it.

use quoit::__private::simulate;
use quoit::Runtime;
use quoit::net::{TcpListener, TcpStream};

/// The next connection. Now and then the simulated kernel is out of descriptors; the next call goes on.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => assert!(error.to_string().contains("stays queued"), "{error}"),
        }
    }
}

#[test]
fn an_echo_runs_and_replays() {
    for seed in 0..200 {
        let run = || {
            simulate(seed, Runtime::builder(), |_| async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let server = quoit::spawn(async move {
                    let stream = accept(&listener).await;
                    while let Ok(lease) = stream.recv().await {
                        if lease.is_empty() {
                            break;
                        }
                        stream.send_all(lease).await.unwrap();
                    }
                    stream.close().await
                });
                let stream = TcpStream::connect(address).await.unwrap();
                let sent: Vec<u8> = (0..3000).map(|n| n as u8).collect();
                let (reader, writer) = stream.into_split();
                let bytes = sent.clone();
                let writing = quoit::spawn(async move {
                    writer.send_all(bytes).await.unwrap();
                    drop(writer);
                });
                let mut got = vec![0; sent.len()];
                reader.read_exact(&mut got).await.unwrap();
                assert_eq!(got, sent);
                writing.await.unwrap();
                assert!(reader.recv().await.unwrap().is_empty());
                server.await.unwrap().unwrap();
            })
        };
        let (first, second) = (run(), run());
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert!(first.report.is_clean(), "seed {seed}");
        assert_eq!(first.books.open, 0, "seed {seed}");
    }
}
