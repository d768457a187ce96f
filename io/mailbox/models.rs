//! Model checks of the doorbell: whatever is published before it is rung is seen by the core, or
//! wakes it. The queue is a counter here, since loom cannot watch the real one.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::*;

/// Whether the eventfd was written to; looking takes the note away.
fn has_rung(doorbell: &Doorbell) -> bool {
    let mut count = 0_u64;
    let event = doorbell.as_fd().as_raw_fd();
    // SAFETY: eight writable bytes; the eventfd does not block.
    unsafe { libc::read(event, (&raw mut count).cast(), 8) == 8 }
}

#[test]
fn loom_a_core_that_sleeps_is_rung_or_has_seen_everything() {
    loom::model(|| {
        let doorbell = Arc::new(Doorbell::new().expect("an eventfd"));
        let published = Arc::new(AtomicUsize::new(0));
        let senders = [(); 2].map(|()| {
            let (doorbell, published) = (doorbell.clone(), published.clone());
            thread::spawn(move || {
                published.fetch_add(1, Ordering::Relaxed);
                doorbell.ring();
            })
        });
        doorbell.sleep();
        let seen = published.load(Ordering::Relaxed);
        for sender in senders {
            sender.join().expect("it does not panic");
        }
        assert!(seen == 2 || has_rung(&doorbell), "saw {seen} of 2 and would sleep");
    });
}

/// A ring that comes while the core is awake again costs nothing, and the next sleep misses
/// nothing.
#[test]
fn loom_a_core_that_wakes_and_sleeps_again_misses_nothing() {
    loom::model(|| {
        let doorbell = Arc::new(Doorbell::new().expect("an eventfd"));
        let published = Arc::new(AtomicUsize::new(0));
        let sender = {
            let (doorbell, published) = (doorbell.clone(), published.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    published.fetch_add(1, Ordering::Relaxed);
                    doorbell.ring();
                }
            })
        };
        doorbell.sleep();
        // The wait takes note of a write once, as an edge.
        let _ = has_rung(&doorbell);
        doorbell.awake();
        doorbell.sleep();
        let seen = published.load(Ordering::Relaxed);
        sender.join().expect("it does not panic");
        assert!(seen == 2 || has_rung(&doorbell), "saw {seen} of 2 and would sleep");
    });
}
