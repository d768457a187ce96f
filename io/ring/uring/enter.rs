//! Entering the kernel, by the shortest way that it offers.
//!
//! An enter names the ring by its descriptor, which the kernel looks up and counts each time; or,
//! since Linux 5.18, by an index into a table of the calling thread's own, which costs neither. A
//! round trip of a no-op takes a tenth less that way. The table has sixteen places; a ring that
//! gets none, or a kernel without, is entered by its descriptor.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{EnterFlags, IoUring};

// From io_uring_register(2) and io_uring_enter(2).
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// The kernel's `io_uring_getevents_arg` (io_uring_enter2(2)).
#[repr(C)]
#[derive(Default)]
pub(super) struct WaitArgument {
    pub(super) signal_mask: u64,
    pub(super) signal_mask_size: u32,
    pub(super) minimum_wait_us: u32,
    /// The address of a `Timespec`; zero waits for ever.
    pub(super) time: u64,
}

const _: () = assert!(size_of::<WaitArgument>() == 24);

/// The kernel's `io_uring_rsrc_update`.
#[repr(C)]
struct Place {
    /// The place in the table; `u32::MAX` asks for any, and the kernel writes which.
    offset: u32,
    reserved: u32,
    descriptor: u64,
}

/// How the thread that made a ring enters it. A registration keeps the ring open: this has to be
/// dropped before the ring is, on that thread.
pub(super) struct Entrance {
    ring: RawFd,
    /// The place in this thread's table.
    registered: Option<u32>,
}

impl Entrance {
    pub(super) fn of(ring: &IoUring) -> Self {
        let ring = ring.as_raw_fd();
        let mut place = Place { offset: u32::MAX, reserved: 0, descriptor: ring as u64 };
        let registered = register(ring, REGISTER_RING_FDS, &mut place).then_some(place.offset);
        Self { ring, registered }
    }

    /// Submits, waits for so many completions, and answers the error, if there is one.
    ///
    /// # Safety
    ///
    /// `flags` has `EXT_ARG`, and what the argument points to is valid. The entries that are queued
    /// may be handed to the kernel.
    #[inline]
    pub(super) unsafe fn enter(
        &self,
        to_submit: u32,
        wait_for: u32,
        flags: EnterFlags,
        argument: &WaitArgument,
    ) -> io::Result<()> {
        let (number, flag) = match self.registered {
            Some(index) => (index, ENTER_REGISTERED_RING),
            None => (self.ring as u32, 0),
        };
        // SAFETY: the ring is open, since it is dropped after us; the rest by the contract.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                number,
                to_submit,
                wait_for,
                flags.bits() | flag,
                std::ptr::from_ref(argument),
                size_of::<WaitArgument>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        if let Some(offset) = self.registered {
            let mut place = Place { offset, reserved: 0, descriptor: 0 };
            register(self.ring, UNREGISTER_RING_FDS, &mut place);
        }
    }
}

/// Whether the kernel did it.
fn register(ring: RawFd, operation: u32, place: &mut Place) -> bool {
    // SAFETY: one valid `Place`, which the kernel may write to.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring, operation, std::ptr::from_mut(place), 1)
    };
    done == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ring::uring::tests::setup;

    fn ring() -> IoUring {
        IoUring::new(8).expect("io_uring can be used here")
    }

    fn turn(entrance: &Entrance, ring: &mut IoUring) {
        let entry = io_uring::opcode::Nop::new().build().user_data(7);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: a no-op names nothing.
        unsafe {
            ring.submission().push(&entry).expect("there is room");
            entrance.enter(1, 1, flags, &WaitArgument::default()).expect("the ring can be entered");
        }
        assert_eq!(ring.completion().next().map(|entry| entry.user_data()), Some(7));
    }

    #[test]
    fn more_rings_than_the_table_has_places_can_be_entered() {
        if setup().is_none() {
            return;
        }
        // A new thread: its table is empty.
        let test = std::thread::spawn(|| {
            let mut rings: Vec<_> = (0..20).map(|_| ring()).collect();
            let entrances: Vec<_> = rings.iter().map(Entrance::of).collect();
            for (entrance, ring) in entrances.iter().zip(&mut rings) {
                turn(entrance, ring);
            }
            entrances.iter().filter(|entrance| entrance.registered.is_some()).count()
        });
        let registered = test.join().expect("it does not panic");
        assert!(registered == 16 || registered == 0, "all places are used: {registered}");
    }

    #[test]
    fn places_are_given_back() {
        if setup().is_none() {
            return;
        }
        let test = std::thread::spawn(|| {
            for _ in 0..100 {
                let mut ring = ring();
                let entrance = Entrance::of(&ring);
                turn(&entrance, &mut ring);
                let first = entrance.registered.is_none_or(|place| place == 0);
                assert!(first, "the place of the ring before is free again");
            }
        });
        test.join().expect("it does not panic");
    }
}
