//! Whole programs: a server and its clients, whose tasks are aborted, or whose root is dropped, at
//! every poll. A client reads back what it wrote, as far as it gets.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::explore::{Explore, Explorer};
use quoit::task::JoinHandle;
use quoit::time;

use crate::bytes::{Sink, counter};
use crate::{check, dawdle, moment};

const CLIENTS: usize = 2;

/// Sends back what comes, by leases or by slices.
async fn echo(stream: TcpStream, by_lease: bool) -> io::Result<()> {
    let mut into = [0; 24];
    loop {
        if by_lease {
            let lease = stream.recv().await?;
            if lease.is_empty() {
                break;
            }
            stream.send_all(lease).await?;
        } else {
            let count = stream.read(&mut into).await?;
            if count == 0 {
                break;
            }
            stream.write_all(&into[..count]).await?;
        }
    }
    stream.close().await
}

type Handlers = Rc<RefCell<Vec<JoinHandle<io::Result<()>>>>>;

async fn serve(listener: TcpListener, handlers: Handlers, explore: Explore) {
    loop {
        // Out of descriptors, it tries again by itself.
        if let Ok((stream, _)) = listener.accept().await {
            let by_lease = explore.below(2) == 0;
            handlers.borrow_mut().push(explore.spawn("a handler", echo(stream, by_lease)));
        }
    }
}

/// Writes a counter in both ways, and reads it back in all, here and there detached in between.
async fn client(address: SocketAddr, explore: Explore) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let length = 20 + explore.below(40);
    // One that fails ends the other.
    tokio::try_join!(write(&stream, length, &explore), read_back(&stream, length, &explore))?;
    stream.close().await
}

async fn write(stream: &TcpStream, length: usize, explore: &Explore) -> io::Result<()> {
    let middle = explore.below(length);
    stream.send_all(counter(0..middle)).await?;
    dawdle(explore).await;
    stream.write_all(&counter(middle..length)).await?;
    stream.flush().await?;
    stream.shutdown().await
}

async fn read_back(stream: &TcpStream, length: usize, explore: &Explore) -> io::Result<()> {
    let mut sink = Sink::default();
    loop {
        let bytes = match explore.below(4) {
            0 => stream.recv().await?.to_vec(),
            1 => stream.recv_into(Vec::with_capacity(9)).await?.1,
            2 => {
                // Not for ever: it waits until the server has read, who does the same.
                let detaching = time::timeout(moment(explore), stream.detach());
                detaching.await.unwrap_or(Ok(()))?;
                continue;
            }
            _ => {
                let mut into = [0; 7];
                let count = stream.read(&mut into).await?;
                into[..count].to_vec()
            }
        };
        if bytes.is_empty() {
            let is_whole = sink.got == length;
            return if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        sink.take(&bytes);
    }
}

/// Runs clients and server to their end. True: whatever was not aborted has succeeded.
pub(crate) async fn conversation(explore: Explore) -> io::Result<bool> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let handlers = Handlers::default();
    let serving = explore.spawn("the server", serve(listener, handlers.clone(), explore.clone()));
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| explore.spawn("a client", client(address, explore.clone()))).collect();
    let (mut aborted, mut succeeded) = (0, 0);
    for client in clients {
        match client.await {
            Err(error) if error.is_cancelled() => aborted += 1,
            outcome => succeeded += usize::from(outcome?.is_ok()),
        }
    }
    aborted += usize::from(serving.is_finished());
    serving.abort();
    let _ = serving.await;
    for handler in handlers.take() {
        match handler.await {
            Err(error) if error.is_cancelled() => aborted += 1,
            outcome => drop(outcome?),
        }
    }
    Ok(aborted > 0 || succeeded == CLIENTS)
}

#[test]
fn tasks_that_are_aborted() {
    let scenario = |explore| async { assert!(conversation(explore).await.unwrap()) };
    let explorer = Explorer::new("tasks that are aborted").seeds(20).points_per_seed(80);
    check(&explorer.cancel(scenario));
}

#[test]
fn roots_that_are_dropped() {
    let scenario = |explore| async { drop(conversation(explore).await) };
    check(&Explorer::new("roots that are dropped").seeds(30).drop_root(scenario));
}
