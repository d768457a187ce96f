//! Handles and the futures that hold them cross threads, and no promise of ours makes them.
//!
//! Most of this is checked by compiling it.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quoit::buffer::Lease;
use quoit::net::{
    OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpListener, TcpSocket, TcpStream, WriteHalf,
};
use quoit::task::{AbortHandle, JoinError, JoinHandle};
use quoit::time::{Interval, Sleep};

fn both<T: Send + Sync>() {}
fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
fn send<F: Future + Send>(future: F) -> F {
    future
}

#[test]
fn handles_are_send_and_sync() {
    both::<TcpStream>();
    both::<TcpListener>();
    both::<TcpSocket>();
    both::<OwnedReadHalf>();
    both::<OwnedWriteHalf>();
    both::<ReadHalf<'_>>();
    both::<WriteHalf<'_>>();
    both::<Lease>();
    both::<Sleep>();
    both::<Interval>();
    both::<JoinHandle<Vec<u8>>>();
    both::<JoinError>();
    both::<AbortHandle>();
    both::<quoit::Handle>();
    both::<quoit::rt::QuoitExecutor>();
    both::<quoit::rt::QuoitTimer>();
}

#[test]
fn handles_may_be_used_after_a_panic() {
    unwind_safe::<quoit::Handle>();
    unwind_safe::<JoinHandle<std::rc::Rc<u8>>>();
}

/// Each await holds handle, buffer and operation, as a server's handler does.
async fn every_operation(address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let client = TcpStream::connect(address).await?;
    let (mut stream, _) = listener.accept().await?;
    let mut buffer = vec![0; 64];
    let lease = stream.recv().timeout(Duration::from_secs(1)).await?;
    stream.send(lease).await?;
    let (_, read) = stream.recv_into(Vec::with_capacity(64)).await?;
    stream.send(read).timeout(Duration::from_secs(1)).await?;
    stream.send_all("bytes").await?;
    stream.read(&mut buffer).await?;
    stream.read_exact(&mut buffer).await?;
    stream.read_until(b'\n', &mut buffer, 80).await?;
    stream.peek(&mut buffer).await?;
    stream.write_all(&buffer).await?;
    stream.readable().await?;
    stream.writable().await?;
    stream.flush().await?;
    tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await?;
    tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut String::new()).await?;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &buffer).await?;
    quoit::time::timeout(Duration::from_secs(1), stream.detach()).await??;
    stream.shutdown().await?;
    stream.close().await?;
    client.close().await
}

#[test]
fn futures_that_hold_handles_are_send() {
    // Never polled: the address is nobody's.
    drop(send(every_operation(SocketAddr::from(([0; 4], 0)))));
    drop(send(async {
        quoit::time::sleep(Duration::ZERO).await;
        quoit::task::yield_now().await;
        let _ = quoit::spawn(async { std::rc::Rc::new(1_u8).count_ones() }).await;
    }));
}

/// A future runs where it is polled first, and its handles with it.
#[test]
fn a_future_made_here_runs_there() {
    let future = send(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (server, _) = listener.accept().await?;
        client.write_all(b"across").await?;
        let mut buffer = [0; 6];
        server.read_exact(&mut buffer).await?;
        std::io::Result::Ok(buffer)
    });
    let there = std::thread::spawn(|| quoit::block_on(future));
    assert_eq!(&there.join().unwrap().unwrap(), b"across");
}

/// Where handles, futures and timers are: nothing here may promise `Send` or `Sync` by hand. Memory
/// that is lent, and the cells that threads share, live elsewhere.
const WITHOUT_PROMISES: &[&str] = &["io/net", "io/alarm.rs", "io/operation.rs", "runtime/time"];

#[test]
fn no_handle_is_send_by_promise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for place in WITHOUT_PROMISES {
        let promises = promises_in(&root.join(place));
        assert!(promises.is_empty(), "unsafe promises of Send or Sync in {promises:?}");
    }
    assert!(!promises_in(&root.join("io/buffer")).is_empty(), "the search finds what is there");
}

fn promises_in(place: &Path) -> Vec<PathBuf> {
    if place.is_dir() {
        let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
        return entries.flat_map(|path| promises_in(&path)).collect();
    }
    let text = fs::read_to_string(place).unwrap();
    let promise = |line: &str| {
        let line = line.trim_start();
        line.starts_with("unsafe impl") && (line.contains(" Send ") || line.contains(" Sync "))
    };
    if text.lines().any(promise) { vec![place.to_owned()] } else { Vec::new() }
}
