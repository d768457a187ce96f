//! tokio-uring: a ring whose descriptor is watched by a tokio `current_thread` runtime.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use tokio_uring::buf::{BoundedBuf, IoBuf, IoBufMut};

use crate::files::{BLOCK, Block, Plan};
use crate::micro::{Rows, Subject, measure};

pub fn echo(listener: TcpListener, buffer: usize) -> io::Result<()> {
    tokio_uring::start(async {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio_uring::spawn(async move {
                let mut bytes = vec![0; buffer];
                loop {
                    let (count, read) = stream.read(bytes).await;
                    let count = count?;
                    if count == 0 {
                        return io::Result::Ok(());
                    }
                    let (written, slice) = stream.write_all(read.slice(..count)).await;
                    written?;
                    bytes = slice.into_inner();
                }
            });
        }
    })
}

pub fn read(plan: &Plan) -> io::Result<u64> {
    let file = plan.open()?;
    tokio_uring::start(async {
        let file = Rc::new(tokio_uring::fs::File::from_std(file));
        let tasks: Vec<_> = (0..plan.depth)
            .map(|task| tokio_uring::spawn(read_task(Rc::clone(&file), plan.clone(), task)))
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.map_err(io::Error::other)??;
        }
        Ok(count)
    })
}

async fn read_task(file: Rc<tokio_uring::fs::File>, plan: Plan, task: usize) -> io::Result<u64> {
    let mut block = Block::new();
    let mut count = 0;
    for offset in plan.offsets(task) {
        let (read, returned) = file.read_at(block, offset).await;
        block = returned;
        block.check(read?, offset)?;
        count += 1;
    }
    Ok(count)
}

// SAFETY: a block's bytes stand on the heap, where they stay when the block moves.
unsafe impl IoBuf for Block {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        BLOCK
    }

    fn bytes_total(&self) -> usize {
        BLOCK
    }
}

// SAFETY: as above; all its bytes are initialised from the start.
unsafe impl IoBufMut for Block {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

pub fn micro() -> io::Result<Rows> {
    Ok(tokio_uring::start(measure::<TokioUring>()))
}

struct TokioUring;

impl Subject for TokioUring {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        let handle = tokio_uring::spawn(future);
        async { handle.await.expect("no task here panics") }
    }

    fn yield_now() -> Option<impl Future<Output = ()>> {
        Some(tokio::task::yield_now())
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(time)
    }

    fn nop() -> Option<impl Future<Output = ()>> {
        Some(async { tokio_uring::no_op().await.expect("a NOP cannot fail") })
    }
}
