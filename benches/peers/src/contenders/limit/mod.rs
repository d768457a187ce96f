//! The limit: what the ring itself costs, with no runtime above it.

use std::hint::black_box;
use std::io;
use std::net::TcpListener;

use io_uring::{IoUring, opcode};

use crate::micro::{Rows, median_of_batches};

mod echo;
pub mod files;

/// Sends as submissions.
pub fn echo_send(listener: TcpListener, _: usize) -> io::Result<()> {
    echo::serve(listener, echo::Variant { inline_send: false, sleep: true })
}

/// Sends tried at once.
pub fn echo_inline(listener: TcpListener, _: usize) -> io::Result<()> {
    echo::serve(listener, echo::Variant { inline_send: true, sleep: true })
}

/// Sends as submissions, and never sleeps.
pub fn echo_spin(listener: TcpListener, _: usize) -> io::Result<()> {
    echo::serve(listener, echo::Variant { inline_send: false, sleep: false })
}

/// The bare ring has no tasks and no timers, so it fills one row: submit a NOP and wait for it.
pub fn nop() -> io::Result<Rows> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .build(64)?;
    let nop = opcode::Nop::new().build();
    let nanoseconds = median_of_batches(10_000, || {
        for _ in 0..10_000 {
            // SAFETY: a NOP names no memory. The queue is empty: each was waited for.
            unsafe { ring.submission().push(&nop) }.expect("an empty queue has room");
            ring.submit_and_wait(1).expect("a NOP cannot fail");
            black_box(ring.completion().next().expect("one was waited for").result());
        }
    });
    Ok(Rows { nop: Some(nanoseconds), ..Rows::default() })
}
