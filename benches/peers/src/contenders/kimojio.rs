//! kimojio: operations on borrowed buffers, two rings per thread.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use kimojio::configuration::{Configuration, ExitBehavior};
use kimojio::operations::{self, RecvFlags, SendFlags};
use kimojio::{Errno, Runtime};

use crate::files::{Block, Plan};
use crate::micro::{Rows, Subject, measure};

fn block_on<T: 'static>(future: impl Future<Output = T> + 'static) -> io::Result<T> {
    let configuration = Configuration::new().set_exit_behavior(ExitBehavior::WhenMainTaskCompletes);
    match Runtime::new(0, configuration).block_on(future) {
        Some(Ok(value)) => Ok(value),
        Some(Err(_)) => Err(io::Error::other("the main task panicked")),
        None => Err(io::Error::other("the loop was shut down")),
    }
}

fn error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

pub fn echo(listener: TcpListener, buffer: usize) -> io::Result<()> {
    block_on(async move {
        let listener = OwnedFd::from(listener);
        loop {
            let stream = operations::accept(&listener).await.map_err(error)?;
            operations::spawn_task(async move { echo_stream(&stream, buffer).await });
        }
    })?
}

async fn echo_stream(stream: &OwnedFd, buffer: usize) -> Result<(), Errno> {
    let mut buffer = vec![0; buffer];
    loop {
        let count = operations::recv(stream, &mut buffer, RecvFlags::empty(), None).await?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let sent = operations::send(stream, rest, SendFlags::NOSIGNAL, None).await?;
            rest = &rest[sent..];
        }
    }
}

pub fn read(plan: &Plan) -> io::Result<u64> {
    let file = Rc::new(OwnedFd::from(plan.open()?));
    let plan = plan.clone();
    block_on(async move {
        let tasks: Vec<_> = (0..plan.depth)
            .map(|task| operations::spawn_task(read_task(Rc::clone(&file), plan.clone(), task)))
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.map_err(|_| io::Error::other("a reading task failed"))??;
        }
        Ok(count)
    })?
}

async fn read_task(file: Rc<OwnedFd>, plan: Plan, task: usize) -> io::Result<u64> {
    let mut block = Block::new();
    let mut count = 0;
    for offset in plan.offsets(task) {
        let read = operations::pread(&*file, block.as_mut_slice(), offset).await.map_err(error)?;
        block.check(read, offset)?;
        count += 1;
    }
    Ok(count)
}

pub fn micro() -> io::Result<Rows> {
    block_on(measure::<Kimojio>())
}

struct Kimojio;

impl Subject for Kimojio {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        let handle = operations::spawn_task(future);
        async { handle.await.map_err(drop).expect("no task here panics") }
    }

    fn yield_now() -> Option<impl Future<Output = ()>> {
        Some(operations::yield_io())
    }

    async fn sleep(time: Duration) {
        operations::sleep(time).await.expect("never cancelled");
    }

    fn nop() -> Option<impl Future<Output = ()>> {
        Some(async { operations::nop().await.expect("a NOP cannot fail") })
    }
}
