//! monoio on io_uring, as its own `#[monoio::main]` would build it.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use crate::files::{BLOCK, Block, Plan};
use crate::micro::{Rows, Subject, measure};

fn runtime() -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    RuntimeBuilder::<IoUringDriver>::new().enable_timer().build()
}

pub fn echo(listener: TcpListener, buffer: usize) -> io::Result<()> {
    runtime()?.block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            monoio::spawn(async move {
                let mut bytes: Vec<u8> = Vec::with_capacity(buffer);
                loop {
                    let (count, read) = stream.read(bytes).await;
                    if count? == 0 {
                        return io::Result::Ok(());
                    }
                    let (written, returned) = stream.write_all(read).await;
                    written?;
                    bytes = returned;
                    bytes.clear();
                }
            });
        }
    })
}

pub fn read(plan: &Plan) -> io::Result<u64> {
    let file = plan.open()?;
    runtime()?.block_on(async {
        let file = Rc::new(monoio::fs::File::from_std(file)?);
        let tasks: Vec<_> = (0..plan.depth)
            .map(|task| monoio::spawn(read_task(Rc::clone(&file), plan.clone(), task)))
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await?;
        }
        Ok(count)
    })
}

async fn read_task(file: Rc<monoio::fs::File>, plan: Plan, task: usize) -> io::Result<u64> {
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
    fn read_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        BLOCK
    }
}

// SAFETY: as above; all its bytes are initialised from the start.
unsafe impl IoBufMut for Block {
    fn write_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        BLOCK
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

pub fn micro() -> io::Result<Rows> {
    Ok(runtime()?.block_on(measure::<Monoio>()))
}

struct Monoio;

impl Subject for Monoio {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        monoio::spawn(future)
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        monoio::time::sleep(time)
    }
}
