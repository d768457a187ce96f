//! A pool with the kernel's part played by hand: every test balances the books.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, mpsc};
use std::thread;

use super::*;
use crate::io::buffer::region::tests::UNMAPPED;
use crate::io::mailbox::{CoreId, set_current_core};

const SMALL: PoolConfig = PoolConfig { count: 4, size: 64, limit: 10 };

/// Makes a core current as the proactor's entry guard does.
struct Entered(CoreId);

impl Entered {
    fn enter(mailbox: &Mailbox) -> Self {
        Self(set_current_core(mailbox.core()))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        set_current_core(self.0);
    }
}

struct Fixture {
    pool: BufferPool,
    mailbox: Arc<Mailbox>,
    _entered: Entered,
}

/// A core with one chunk, current on this thread.
fn fixture() -> Fixture {
    let mailbox = Mailbox::open().unwrap();
    mailbox.close();
    let mut pool = BufferPool::new(SMALL, &mailbox).unwrap();
    assert_eq!(pool.grow().unwrap().count(), 4);
    let _entered = Entered::enter(&mailbox);
    Fixture { pool, mailbox, _entered }
}

/// What the kernel does: fills a buffer and names it.
fn receive(pool: &mut BufferPool, id: u16, bytes: &[u8]) -> Lease {
    let provided = pool.provided(id);
    assert!(bytes.len() <= provided.length as usize);
    // SAFETY: a provided buffer is writable and nobody's; after that it is named once.
    unsafe {
        provided.address.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        pool.lease(id, bytes.len() as u32)
    }
}

fn returned(pool: &mut BufferPool) -> Vec<u16> {
    let mut ids = Vec::new();
    pool.take_returned(&mut ids);
    assert!(!pool.has_returned());
    ids
}

fn elsewhere<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(body).join().unwrap())
}

#[test]
fn grows_by_chunks_up_to_the_limit() {
    let mailbox = Mailbox::open().unwrap();
    mailbox.close();
    let mut pool = BufferPool::new(SMALL, &mailbox).unwrap();
    assert_eq!((pool.len(), pool.at_limit()), (0, false));
    let mut all = Vec::new();
    for chunk in [4, 4, 2, 0, 0] {
        let before = all.len();
        all.extend(pool.grow().unwrap());
        assert_eq!(all.len() - before, chunk);
    }
    assert!(pool.at_limit());
    assert!(all.iter().zip(0..).all(|(provided, id)| provided.id == id));
    let mut addresses: Vec<_> = all.iter().map(|provided| provided.address as usize).collect();
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= 64), "buffers overlap");
    for provided in all {
        // SAFETY: provided memory is writable over its whole length.
        unsafe { provided.address.write_bytes(provided.id as u8, 64) };
    }
    // SAFETY: as if a completion had named the first of the second chunk.
    assert_eq!(unsafe { pool.lease(4, 64) }, [4; 64]);
    let before = UNMAPPED.get();
    drop(pool);
    assert_eq!(UNMAPPED.get() - before, 3);
}

#[test]
fn refuses_numbers_that_make_no_pool() {
    let mailbox = Mailbox::open().unwrap();
    mailbox.close();
    for (count, size, limit) in [(0, 64, 8), (4, 0, 8), (8, 64, 4), (4, 1 << 31, 8), (4, 64, 32769)]
    {
        let error = BufferPool::new(PoolConfig { count, size, limit }, &mailbox).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    let largest = PoolConfig { count: 1, size: i32::MAX as u32, limit: 32768 };
    assert_eq!(BufferPool::new(largest, &mailbox).unwrap().grow().unwrap().count(), 1);
}

#[test]
fn shows_just_what_was_received() {
    let Fixture { mut pool, _entered, .. } = fixture();
    drop(receive(&mut pool, 2, b"a secret of somebody else"));
    assert_eq!(returned(&mut pool), [2]);
    let mut lease = receive(&mut pool, 2, b"hello");
    assert_eq!(lease, b"hello");
    assert_eq!(lease.to_vec(), b"hello");
    lease[0] = b'j';
    assert_eq!(lease.split_off(1), "ello");
    assert_eq!(lease, "j");
}

#[test]
fn counts_what_is_out_and_what_came_home() {
    let Fixture { mut pool, _entered, .. } = fixture();
    let first = receive(&mut pool, 0, b"a");
    let second = receive(&mut pool, 1, b"b");
    assert_eq!((pool.outstanding(), pool.has_returned()), (2, false));
    let borrowed = &mut pool;
    drop(second);
    assert!(borrowed.has_returned(), "a lease may end while the pool is borrowed");
    let mut ids = vec![77];
    borrowed.take_returned(&mut ids);
    assert_eq!(ids, [77, 1], "appended");
    drop(first);
    assert_eq!(returned(&mut pool), [0]);
    assert_eq!((pool.outstanding(), returned(&mut pool)), (0, vec![]));
}

#[test]
fn the_end_of_a_stream_keeps_no_buffer() {
    let Fixture { mut pool, _entered, .. } = fixture();
    let end = receive(&mut pool, 3, b"");
    assert!(end.is_empty());
    assert_eq!(returned(&mut pool), [3]);
    let mut emptied = receive(&mut pool, 1, b"abc");
    emptied.advance(3);
    assert_eq!(returned(&mut pool), [1], "at once, not when it is dropped");
}

#[test]
fn a_split_buffer_returns_once_after_its_last_part() {
    let Fixture { mut pool, _entered, .. } = fixture();
    for _ in 0..3 {
        let mut middle = receive(&mut pool, 0, b"0123456789");
        let front = middle.split_to(3);
        let mut back = middle.split_off(4);
        let last = back.split_off(1);
        drop(middle);
        elsewhere(|| drop(back));
        drop(front);
        assert!(!pool.has_returned());
        assert_eq!(last, "89");
        drop(last);
        assert_eq!(returned(&mut pool), [0]);
    }
    let mut elsewhere_last = receive(&mut pool, 0, b"01");
    let front = elsewhere_last.split_to(1);
    drop(front);
    elsewhere(|| drop(elsewhere_last));
    assert_eq!(returned(&mut pool), [0]);
    assert_eq!(pool.outstanding(), 0);
}

#[test]
fn returns_from_everywhere() {
    let Fixture { mut pool, mailbox, _entered } = fixture();
    let leases: Vec<_> = (0..4).map(|id| receive(&mut pool, id, b"x")).collect();
    let [here, other_core, no_core, other_thread] = leases.try_into().unwrap();
    let neighbour = Mailbox::open().unwrap();
    neighbour.close();
    drop(here);
    {
        let _entered = Entered::enter(&neighbour);
        drop(other_core);
    }
    set_current_core(0);
    drop(no_core);
    set_current_core(mailbox.core());
    elsewhere(|| drop(other_thread));
    // SAFETY: we own the pool.
    assert_eq!(unsafe { pool.shared().count_home() }, 1, "only on the core without atomics");
    assert_eq!(returned(&mut pool), [0, 1, 2, 3]);
    assert_eq!(pool.outstanding(), 0);
}

fn has_rung(mailbox: &Mailbox) -> bool {
    let mut count = 0_u64;
    let event = mailbox.doorbell().as_fd().as_raw_fd();
    // SAFETY: eight writable bytes; the eventfd does not block.
    unsafe { libc::read(event, (&raw mut count).cast(), 8) == 8 }
}

#[test]
fn rings_only_for_a_starved_core_that_sleeps() {
    let Fixture { mut pool, mailbox, _entered } = fixture();
    for (starved, asleep, here, rings) in [
        (false, true, false, false),
        (true, false, false, false),
        (true, true, true, false),
        (true, true, false, true),
        (false, true, false, false),
    ] {
        let lease = receive(&mut pool, 0, b"x");
        pool.set_starved(starved);
        if asleep {
            mailbox.doorbell().sleep();
        }
        if here {
            drop(lease)
        } else {
            elsewhere(|| drop(lease))
        }
        assert_eq!(has_rung(&mailbox), rings, "{starved} {asleep} {here}");
        mailbox.doorbell().awake();
        assert_eq!(returned(&mut pool), [0]);
    }
}

#[test]
fn a_lease_outlives_its_core() {
    for drop_while_current in [true, false] {
        let Fixture { mut pool, mailbox, _entered } = fixture();
        let holders = Arc::strong_count(mailbox.doorbell());
        let taken = receive(&mut pool, 0, b"taken back");
        let home = receive(&mut pool, 1, b"back, not taken");
        let away = receive(&mut pool, 2, b"back from elsewhere, not taken");
        let mut kept = receive(&mut pool, 3, b"kept until the end");
        drop(taken);
        assert_eq!(returned(&mut pool), [0]);
        drop(home);
        elsewhere(|| drop(away));
        let before = UNMAPPED.get();
        pool.set_starved(true);
        if drop_while_current {
            drop(pool);
        } else {
            drop(_entered);
            drop(pool);
        }
        assert_eq!(UNMAPPED.get(), before, "unmapped under a lease");
        assert_eq!(kept, b"kept until the end");
        let half = kept.split_to(4);
        drop(kept);
        mailbox.doorbell().sleep();
        assert_eq!(half, "kept");
        drop(half);
        assert_eq!(UNMAPPED.get() - before, 1);
        assert_eq!(Arc::strong_count(mailbox.doorbell()), holders - 1);
        assert!(!has_rung(&mailbox), "nobody is there to be rung for");
    }
}

#[test]
fn a_pool_without_leases_is_freed_at_once() {
    let Fixture { mut pool, _entered, .. } = fixture();
    let home = receive(&mut pool, 0, b"x");
    let away = receive(&mut pool, 1, b"y");
    elsewhere(|| drop(away));
    drop(home);
    let before = UNMAPPED.get();
    drop(pool);
    assert_eq!(UNMAPPED.get() - before, 1);
}

#[test]
fn private_leases_hold_what_was_received() {
    let mut lease = Lease::from_vec(b"hello".to_vec());
    assert_eq!(lease, "hello");
    let tail = lease.split_off(2);
    elsewhere(|| drop(lease));
    assert_eq!(tail, "llo");
}

#[test]
#[should_panic(expected = "the ring lent buffer 1 twice")]
fn a_buffer_is_lent_once() {
    let Fixture { mut pool, _entered, .. } = fixture();
    let _first = receive(&mut pool, 1, b"x");
    // SAFETY: it panics before it makes a lease.
    let _ = unsafe { pool.lease(1, 1) };
}

#[test]
#[should_panic(expected = "a user still has buffer 1")]
fn a_lent_buffer_is_not_provided() {
    let Fixture { mut pool, _entered, .. } = fixture();
    let _lease = receive(&mut pool, 1, b"x");
    pool.provided(1);
}

#[test]
#[should_panic(expected = "beyond its end")]
fn a_buffer_is_not_overrun() {
    let Fixture { mut pool, _entered, .. } = fixture();
    // SAFETY: it panics before it makes a lease.
    let _ = unsafe { pool.lease(0, 65) };
}

/// Leases end on other threads while the core goes on lending, and then while it dies: all come
/// back exactly once, and each pool is unmapped exactly once.
#[test]
fn the_books_balance_under_concurrent_returns() {
    const POOLS: usize = 200;
    let (to_away, leases) = mpsc::channel::<Lease>();
    let away = thread::spawn(move || {
        for mut lease in leases {
            assert!(lease.iter().all(|byte| usize::from(*byte) == lease.len()));
            if lease.len() > 1 {
                let _half = lease.split_off(1);
                drop(lease);
            }
        }
        UNMAPPED.get()
    });
    let before = UNMAPPED.get();
    for round in 0..POOLS {
        let Fixture { mut pool, _entered, .. } = fixture();
        let mut free: Vec<u16> = (0..4).collect();
        for turn in 0..round % 50 {
            if let Some(id) = free.pop() {
                let length = 1 + (turn + round) % 8;
                let lease = receive(&mut pool, id, &vec![length as u8; length]);
                if turn % 3 == 0 { drop(lease) } else { to_away.send(lease).unwrap() }
            }
            pool.take_returned(&mut free);
            assert_eq!(free.len() + pool.outstanding(), 4);
        }
    }
    drop(to_away);
    let unmapped = UNMAPPED.get() - before + away.join().unwrap();
    assert_eq!(unmapped, POOLS);
}
