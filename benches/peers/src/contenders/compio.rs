//! compio on io_uring: as its defaults are, and with the ring features it offers for sockets.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::num::NonZero;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use compio::buf::{BufResult, IoBuf, IoBufMut, SetLen};
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncReadAt, AsyncReadMulti, AsyncWriteExt};
use compio::runtime::{Runtime, RuntimeBuilder};
use futures_lite::StreamExt;

use crate::files::{BLOCK, Block, Plan};
use crate::micro::{Rows, Subject, measure};

/// The limit's buffers: so many, and this large.
const BUFFERS: u16 = 128;
const BUFFER_SIZE: usize = 16 * 1024;

pub fn echo(listener: TcpListener, buffer: usize) -> io::Result<()> {
    Runtime::new()?.block_on(async {
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            compio::runtime::spawn(async move {
                let mut bytes: Vec<u8> = Vec::with_capacity(buffer);
                loop {
                    let BufResult(count, read) = stream.read(bytes).await;
                    if count? == 0 {
                        return io::Result::Ok(());
                    }
                    let BufResult(written, returned) = stream.write_all(read).await;
                    written?;
                    bytes = returned;
                    bytes.clear();
                }
            })
            .detach();
        }
    })
}

/// Multishot receives into its buffer pool, made as large as the limit's, and the limit's flags.
pub fn echo_multishot(listener: TcpListener, _: usize) -> io::Result<()> {
    let mut ring = ProactorBuilder::new();
    ring.single_issuer(true)
        .defer_taskrun(true)
        .taskrun_flag(true)
        .buffer_pool_size(NonZero::new(BUFFERS).expect("not zero"))
        .buffer_pool_buffer_len(BUFFER_SIZE);
    RuntimeBuilder::new().with_proactor(ring).build()?.block_on(async {
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            compio::runtime::spawn(async move {
                while echo_while_buffers_last(&stream).await? {
                    // It does not say when a buffer returns, so ask again after the others.
                    futures_lite::future::yield_now().await;
                }
                io::Result::Ok(())
            })
            .detach();
        }
    })
}

/// One multishot receive. It ends at the peer's end (false), and where the pool is empty (true).
async fn echo_while_buffers_last(stream: &compio::net::TcpStream) -> io::Result<bool> {
    let (mut reader, mut writer) = (stream, stream);
    let mut received = pin!(reader.read_multi(0));
    let mut seen = false;
    while let Some(bytes) = received.next().await {
        let bytes = match bytes {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(true),
            bytes => bytes?,
        };
        seen = true;
        let BufResult(written, _) = writer.write_all(bytes).await;
        written?;
    }
    Ok(seen)
}

pub fn read(plan: &Plan) -> io::Result<u64> {
    Runtime::new()?.block_on(async {
        let file = compio::fs::OpenOptions::new()
            .read(true)
            .custom_flags(plan.flags())
            .open(&plan.path)
            .await?;
        let file = Rc::new(file);
        let tasks: Vec<_> = (0..plan.depth)
            .map(|task| compio::runtime::spawn(read_task(Rc::clone(&file), plan.clone(), task)))
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.map_err(|_| io::Error::other("a reading task failed"))??;
        }
        Ok(count)
    })
}

async fn read_task(file: Rc<compio::fs::File>, plan: Plan, task: usize) -> io::Result<u64> {
    let mut block = Block::new();
    let mut count = 0;
    for offset in plan.offsets(task) {
        let BufResult(read, returned) = file.read_at(block, offset).await;
        block = returned;
        block.check(read?, offset)?;
        count += 1;
    }
    Ok(count)
}

impl IoBuf for Block {
    fn as_init(&self) -> &[u8] {
        self.as_slice()
    }
}

impl SetLen for Block {
    unsafe fn set_len(&mut self, length: usize) {
        debug_assert!(length <= BLOCK, "a block has one size and is always initialised");
    }
}

impl IoBufMut for Block {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let (pointer, length) = (self.as_mut_ptr(), BLOCK);
        // SAFETY: the block's own bytes, borrowed as it is; nothing here un-initialises them.
        unsafe { std::slice::from_raw_parts_mut(pointer.cast(), length) }
    }
}

pub fn micro() -> io::Result<Rows> {
    Ok(Runtime::new()?.block_on(measure::<Compio>()))
}

struct Compio;

impl Subject for Compio {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        let handle = compio::runtime::spawn(future);
        async { handle.await.expect("no task here panics") }
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        compio::time::sleep(time)
    }
}
