//! quoit, on both of its rings: leases for echo, owned buffers for files.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use quoit::{RingChoice, Runtime};

use crate::contenders::Read;
use crate::micro::{Rows, Subject, measure};

fn runtime(ring: RingChoice) -> io::Result<Runtime> {
    Runtime::builder().ring(ring).build()
}

fn echo(listener: TcpListener, runtime: io::Result<Runtime>) -> io::Result<()> {
    runtime?.block_on(async {
        let listener = quoit::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            quoit::spawn(async move {
                loop {
                    let lease = stream.recv().await?;
                    if lease.is_empty() {
                        return io::Result::Ok(());
                    }
                    stream.send(lease).await?;
                }
            });
        }
    })
}

pub fn echo_uring(listener: TcpListener, _: usize) -> io::Result<()> {
    echo(listener, runtime(RingChoice::Uring))
}

pub fn echo_readiness(listener: TcpListener, _: usize) -> io::Result<()> {
    echo(listener, runtime(RingChoice::Readiness))
}

/// On io_uring, and practically never asleep.
pub fn echo_spin(listener: TcpListener, _: usize) -> io::Result<()> {
    let spin = Duration::from_secs(1);
    echo(listener, Runtime::builder().ring(RingChoice::Uring).spin(spin).build())
}

pub const READ_URING: Option<Read> = Some(|plan| reads::read(plan, RingChoice::Uring));
pub const READ_READINESS: Option<Read> = Some(|plan| reads::read(plan, RingChoice::Readiness));

pub fn micro_uring() -> io::Result<Rows> {
    Ok(runtime(RingChoice::Uring)?.block_on(measure::<Quoit>()))
}

pub fn micro_readiness() -> io::Result<Rows> {
    Ok(runtime(RingChoice::Readiness)?.block_on(measure::<Quoit>()))
}

struct Quoit;

impl Subject for Quoit {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        let handle = quoit::spawn(future);
        async { handle.await.expect("no task here panics") }
    }

    fn yield_now() -> Option<impl Future<Output = ()>> {
        Some(quoit::task::yield_now())
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        quoit::time::sleep(time)
    }

    fn nop() -> Option<impl Future<Output = ()>> {
        Some(async { quoit::__private::nop().await.expect("a no-op cannot fail") })
    }
}

mod reads {
    use std::rc::Rc;

    use quoit::buffer::{IoBuf, IoBufMut};

    use super::{RingChoice, io, runtime};
    use crate::files::{BLOCK, Block, Plan};

    pub fn read(plan: &Plan, ring: RingChoice) -> io::Result<u64> {
        runtime(ring)?.block_on(async {
            let file = quoit::fs::OpenOptions::new()
                .read(true)
                .custom_flags(plan.flags())
                .open(&plan.path)
                .await?;
            let file = Rc::new(file);
            let tasks: Vec<_> = (0..plan.depth)
                .map(|task| quoit::spawn(read_task(Rc::clone(&file), plan.clone(), task)))
                .collect();
            let mut count = 0;
            for task in tasks {
                count += task.await.map_err(io::Error::other)??;
            }
            Ok(count)
        })
    }

    async fn read_task(file: Rc<quoit::fs::File>, plan: Plan, task: usize) -> io::Result<u64> {
        let mut block = Block::new();
        let mut count = 0;
        for offset in plan.offsets(task) {
            let (read, returned) = file.read_at(block, offset).await?;
            block = returned;
            block.check(read, offset)?;
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
    }

    // SAFETY: as above; all its bytes are initialised from the start.
    unsafe impl IoBufMut for Block {
        fn stable_mut_ptr(&mut self) -> *mut u8 {
            self.as_mut_ptr()
        }

        fn bytes_total(&self) -> usize {
            BLOCK
        }

        unsafe fn set_init(&mut self, _: usize) {}
    }
}
