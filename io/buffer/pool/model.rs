//! Model checks of what leases do on other threads. Everything returns remotely here: loom's
//! threads share one thread, and so its current core, which stays zero.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use loom::thread;

use super::*;
use crate::io::buffer::region::tests::UNMAPPED;
use crate::io::sync::Ordering;

fn with_one_buffer(body: fn(BufferPool, Arc<Mailbox>)) {
    loom::model(move || {
        let mailbox = Mailbox::open().expect("an eventfd");
        mailbox.close();
        let config = PoolConfig { count: 1, size: 64, limit: 1 };
        let mut pool = BufferPool::new(config, &mailbox).expect("sound numbers");
        assert_eq!(pool.grow().expect("a page").count(), 1);
        body(pool, mailbox);
    });
}

#[test]
fn loom_halves_return_one_buffer() {
    with_one_buffer(|mut pool, _| {
        // SAFETY: as if a completion had named it.
        let mut front = unsafe { pool.lease(0, 2) };
        let back = front.split_off(1);
        let other = thread::spawn(move || drop(back));
        drop(front);
        other.join().unwrap();
        let mut ids = Vec::new();
        pool.take_returned(&mut ids);
        assert_eq!((ids, pool.outstanding()), (vec![0], 0));
    });
}

#[test]
fn loom_halves_outlive_the_pool() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let before = UNMAPPED.get();
    with_one_buffer(|mut pool, _| {
        // SAFETY: as if a completion had named it.
        let mut front = unsafe { pool.lease(0, 2) };
        let back = front.split_off(1);
        let other = thread::spawn(move || drop(back));
        let third = thread::spawn(move || drop(front));
        drop(pool);
        other.join().unwrap();
        third.join().unwrap();
        RUNS.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(UNMAPPED.get() - before, RUNS.load(Ordering::Relaxed), "once in each run");
}

/// What returns while a starved core goes to sleep is seen by it, or rings.
#[test]
fn loom_a_starved_core_misses_no_return() {
    with_one_buffer(|mut pool, mailbox| {
        // SAFETY: as if a completion had named it.
        let lease = unsafe { pool.lease(0, 2) };
        let other = thread::spawn(move || drop(lease));
        pool.set_starved(true);
        mailbox.doorbell().sleep();
        let is_seen = pool.has_returned();
        other.join().unwrap();
        let mut count = 0_u64;
        let event = mailbox.doorbell().as_fd().as_raw_fd();
        // SAFETY: eight writable bytes; the eventfd does not block.
        let has_rung = unsafe { libc::read(event, (&raw mut count).cast(), 8) == 8 };
        assert!(is_seen || has_rung, "the core would sleep on a returned buffer");
    });
}
