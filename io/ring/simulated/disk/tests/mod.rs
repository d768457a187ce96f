//! The disk alone, against models too simple to be wrong (`model.rs`); and as the ring's users see
//! it (`requests.rs`).

mod model;
mod names;
mod requests;

use super::*;

const SEEDS: u64 = 400;

fn disk(seed: u64, options: DiskOptions) -> Disk {
    Disk::new(Chance::new(seed), options)
}

fn read_write(disk: &mut Disk, path: &str) -> Handle {
    disk.open(path.as_bytes(), libc::O_RDWR | libc::O_CREAT, 0o666).unwrap()
}

/// Writes without the ring.
fn write(disk: &mut Disk, handle: Handle, at: u64, bytes: &[u8]) -> usize {
    let (opened, free) = (disk.opened(handle).unwrap(), disk.free_pages());
    disk.tree.node(opened.node).content().unwrap().write(at, bytes, free)
}

fn both() -> [Survival; 2] {
    [Survival::Posix, Survival::Ordered]
}
