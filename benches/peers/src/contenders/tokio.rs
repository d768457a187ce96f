//! tokio, `current_thread`: readiness by epoll, files on the blocking pool.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::files::{Block, Plan};
use crate::micro::{Rows, Subject, measure};

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

pub fn echo(listener: TcpListener, buffer: usize) -> io::Result<()> {
    runtime()?.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut buffer = vec![0; buffer];
                loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        return io::Result::Ok(());
                    }
                    stream.write_all(&buffer[..count]).await?;
                }
            });
        }
    })
}

pub fn read(plan: &Plan) -> io::Result<u64> {
    let file = Arc::new(plan.open()?);
    runtime()?.block_on(async {
        let tasks: Vec<_> = (0..plan.depth)
            .map(|task| tokio::spawn(read_task(Arc::clone(&file), plan.clone(), task)))
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.map_err(io::Error::other)??;
        }
        Ok(count)
    })
}

async fn read_task(file: Arc<std::fs::File>, plan: Plan, task: usize) -> io::Result<u64> {
    let mut block = Block::new();
    let mut count = 0;
    for offset in plan.offsets(task) {
        let file = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || {
            let read = file.read_at(block.as_mut_slice(), offset);
            (read, block)
        });
        let (read, returned) = read.await.map_err(io::Error::other)?;
        block = returned;
        block.check(read?, offset)?;
        count += 1;
    }
    Ok(count)
}

pub fn micro() -> io::Result<Rows> {
    Ok(runtime()?.block_on(measure::<Tokio>()))
}

struct Tokio;

/// `tokio::spawn` asks for `Send`, although one thread runs everything here; a `LocalSet` would
/// add its own cost to each row.
struct Here<F>(F);

// SAFETY: a `current_thread` runtime polls and drops its tasks on the thread in `block_on`, and
// the runtime above never leaves the thread that made it.
unsafe impl<F> Send for Here<F> {}

impl<F: Future> Future for Here<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the only field is pinned with the struct, which never moves out of it.
        unsafe { self.map_unchecked_mut(|here| &mut here.0) }.poll(context)
    }
}

impl Subject for Tokio {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        let handle = tokio::spawn(Here(future));
        async { handle.await.expect("no task here panics") }
    }

    fn yield_now() -> Option<impl Future<Output = ()>> {
        Some(tokio::task::yield_now())
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(time)
    }
}
