//! smol on one thread: a `LocalExecutor` over async-io, files on its blocking pool.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor, Timer};

use crate::files::{Block, Plan};
use crate::micro::{Rows, Subject, measure};

thread_local! {
    // `Subject::spawn` has no executor to be given; this one runs under `block_on` below.
    static EXECUTOR: LocalExecutor<'static> = const { LocalExecutor::new() };
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    EXECUTOR.with(|executor| smol::block_on(executor.run(future)))
}

fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> smol::Task<T> {
    EXECUTOR.with(|executor| executor.spawn(future))
}

pub fn echo(listener: TcpListener, buffer: usize) -> io::Result<()> {
    block_on(async {
        let listener = Async::new(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            spawn(async move {
                let mut buffer = vec![0; buffer];
                loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        return io::Result::Ok(());
                    }
                    stream.write_all(&buffer[..count]).await?;
                }
            })
            .detach();
        }
    })
}

pub fn read(plan: &Plan) -> io::Result<u64> {
    let file = Arc::new(plan.open()?);
    block_on(async {
        let tasks: Vec<_> = (0..plan.depth)
            .map(|task| spawn(read_task(Arc::clone(&file), plan.clone(), task)))
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await?;
        }
        Ok(count)
    })
}

async fn read_task(file: Arc<std::fs::File>, plan: Plan, task: usize) -> io::Result<u64> {
    let mut block = Block::new();
    let mut count = 0;
    for offset in plan.offsets(task) {
        let file = Arc::clone(&file);
        let (read, returned) = smol::unblock(move || {
            let read = file.read_at(block.as_mut_slice(), offset);
            (read, block)
        })
        .await;
        block = returned;
        block.check(read?, offset)?;
        count += 1;
    }
    Ok(count)
}

pub fn micro() -> io::Result<Rows> {
    Ok(block_on(measure::<Smol>()))
}

struct Smol;

impl Subject for Smol {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        spawn(future)
    }

    async fn sleep(time: Duration) {
        Timer::after(time).await;
    }
}
