//! A receive that is given up loses nothing: what it did not return waits in the stream.
//!
//! `timeout`
//!
//! A peer sends a byte every few milliseconds, and the receiver is far more impatient.

use std::io;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::time::{sleep, timeout};

#[quoit::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let peer = TcpStream::connect(listener.local_addr()?).await?;
    let (stream, _) = listener.accept().await?;
    quoit::spawn(async move {
        for number in 0..100_u8 {
            sleep(Duration::from_millis(3)).await;
            peer.send_all(vec![number]).await?;
        }
        io::Result::Ok(())
    });

    let (mut received, mut given_up) = (Vec::new(), 0);
    loop {
        // Each of these futures is dropped in the middle of a receive, if it does not finish first.
        match timeout(Duration::from_millis(1), stream.recv()).await {
            Err(_) => given_up += 1,
            Ok(lease) => match lease? {
                lease if lease.is_empty() => break,
                lease => received.extend_from_slice(&lease),
            },
        }
    }
    assert!(received.into_iter().eq(0..100), "every byte has come, once and in order");
    println!("timed out {given_up} times, and all 100 bytes have come, in order");
    Ok(())
}
