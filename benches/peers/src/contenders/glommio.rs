//! glommio: three rings per thread, buffered sockets, and its own kinds of file.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::{BufferedFile, DmaFile};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, spawn_local};

use crate::files::{BLOCK, Plan, check};
use crate::micro::{Rows, Subject, measure};

fn executor() -> io::Result<LocalExecutor> {
    LocalExecutorBuilder::new(Placement::Unbound).make().map_err(io::Error::from)
}

pub fn echo(listener: TcpListener, buffer: usize) -> io::Result<()> {
    executor()?.run(async {
        // SAFETY: the number leaves its old owner and enters its new one.
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            let mut stream = listener.accept().await?;
            spawn_local(async move {
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

/// It opens files itself: `DmaFile` is O_DIRECT, `BufferedFile` is not.
enum File {
    Cached(BufferedFile),
    Direct(DmaFile),
}

pub fn read(plan: &Plan) -> io::Result<u64> {
    executor()?.run(async {
        let file = Rc::new(if plan.direct {
            File::Direct(DmaFile::open(&plan.path).await?)
        } else {
            File::Cached(BufferedFile::open(&plan.path).await?)
        });
        let tasks: Vec<_> = (0..plan.depth)
            .map(|task| spawn_local(read_task(Rc::clone(&file), plan.clone(), task)))
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await?;
        }
        Ok(count)
    })
}

async fn read_task(file: Rc<File>, plan: Plan, task: usize) -> io::Result<u64> {
    let mut count = 0;
    for offset in plan.offsets(task) {
        let bytes = match &*file {
            File::Cached(file) => file.read_at(offset, BLOCK).await?,
            File::Direct(file) => file.read_at_aligned(offset, BLOCK).await?,
        };
        check(&bytes, offset)?;
        count += 1;
    }
    Ok(count)
}

pub fn micro() -> io::Result<Rows> {
    Ok(executor()?.run(measure::<Glommio>()))
}

struct Glommio;

impl Subject for Glommio {
    fn spawn(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        spawn_local(future)
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        glommio::timer::sleep(time)
    }
}
