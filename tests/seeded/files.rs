//! Files: operations dropped at any poll, on a disk that fails in every way, and crashes.
//!
//! ```text
//!   files.rs             what was dropped never comes after what follows; errors and counts
//!   files/crash.rs       what is left when the power goes
//! ```

mod crash;

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use quoit::__private::{Chance, DiskOptions, with_disk};
use quoit::buffer::{AlignedBuf, BufError, IoBuf, IoBufMut};
use quoit::fs::{self, File, OpenOptions};
use quoit::time;

use crate::dice::Dice;
use crate::under_seeds;

const PATH: &str = "/data/file";
/// No program here writes behind this.
const SPAN: usize = 9000;

/// An empty file on a disk with these options.
async fn file_on(options: DiskOptions) -> File {
    disk(|disk| {
        disk.put(PATH, b"");
        disk.set_options(options);
    });
    retried(async || OpenOptions::new().read(true).write(true).open(PATH).await).await.unwrap()
}

fn disk<R>(look: impl FnOnce(&mut quoit::__private::Disk) -> R) -> R {
    with_disk(look).expect("the scenario runs in a simulation")
}

/// The file's bytes as they are now, whoever has it open.
fn contents() -> Vec<u8> {
    disk(|disk| disk.contents(PATH)).expect("the file is there")
}

/// A drawn disk without the errors that a program can do nothing about.
fn without_errors(dice: &Dice) -> DiskOptions {
    let options = DiskOptions::drawn(&mut Chance::new(dice.below(usize::MAX) as u64));
    options.open_errors(0).read_errors(0).write_errors(0).sync_errors(0).close_errors(0)
}

/// Repeats what a disk fails at by chance.
async fn retried<T>(attempt: impl AsyncFn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt().await {
            Err(error) if [Some(libc::EIO), Some(libc::EMFILE)].contains(&error.raw_os_error()) => {
            }
            other => return other,
        }
    }
}

/// Bytes with a name: no two changes of a scenario write the same.
fn stamp(id: u8, length: usize) -> Vec<u8> {
    vec![id; length]
}

/// Counts the buffers that are alive, and scribbles over those that go: if the kernel still reads
/// one, its checks notice.
#[derive(Clone, Default)]
struct Census(Rc<Cell<usize>>);

impl Census {
    fn buffer(&self, bytes: Vec<u8>) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted { bytes, census: self.clone() }
    }
}

struct Counted {
    bytes: Vec<u8>,
    census: Census,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.bytes.fill(0xdd);
        self.census.0.set(self.census.0.get() - 1);
    }
}

// SAFETY: handed on to a vector, which keeps the promise and is reached through `&mut` only.
unsafe impl IoBuf for Counted {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes.stable_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.bytes_init()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Counted {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.stable_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.bytes.bytes_total()
    }

    unsafe fn set_init(&mut self, n: usize) {
        // SAFETY: handed on.
        unsafe { self.bytes.set_init(n) }
    }
}

/// Starts some changes and drops them wherever the dice say. What they may have written stands in
/// the first `SPAN` bytes.
async fn drop_changes(file: &File, dice: &Dice, census: &Census) {
    for _ in 0..dice.up_to(4) {
        let at = dice.below(SPAN / 2) as u64;
        match dice.below(6) {
            0 => drop(dice.cut(file.set_len(at)).await),
            1 => drop(dice.cut(file.allocate(at, dice.up_to(SPAN / 2) as u64)).await),
            _ => {
                let buffer = census.buffer(stamp(1, dice.up_to(SPAN / 2)));
                drop(dice.cut(file.write_at(buffer, at)).await);
            }
        }
        dice.dawdle().await;
    }
}

/// Time in which everything that is in flight will land.
async fn settle() {
    time::sleep(Duration::from_secs(10)).await;
}

#[test]
fn a_dropped_change_never_comes_after_a_later_one() {
    under_seeds(2500, |dice| async move {
        let census = Census::default();
        let file = file_on(without_errors(&dice)).await;
        let clone = file.clone();
        drop_changes(&file, &dice, &census).await;
        let other = if dice.one_in(2) { &file } else { &clone };
        match dice.below(4) {
            0 => {
                other.sync_data().await.unwrap();
                let synced = contents();
                settle().await;
                assert!(contents() == synced, "it changed after the sync");
            }
            1 => {
                let length = dice.below(SPAN) as u64;
                other.set_len(length).await.unwrap();
                let cut = contents();
                assert_eq!(cut.len() as u64, length);
                settle().await;
                assert!(contents() == cut, "it changed after it was cut");
            }
            2 => {
                let (at, length) = (dice.below(SPAN / 2), dice.up_to(SPAN / 2));
                other.write_all_at(census.buffer(stamp(2, length)), at as u64).await.unwrap();
                settle().await;
                let bytes = contents();
                assert_eq!(bytes[at..at + length], stamp(2, length), "written over");
            }
            _ => {
                if dice.one_in(2) {
                    clone.close().await.unwrap();
                    file.close().await.unwrap();
                    let closed = contents();
                    settle().await;
                    assert!(contents() == closed, "it changed after it was closed");
                }
            }
        }
        // Only what was meant is there, and the buffers are all back.
        settle().await;
        assert_eq!(census.0.get(), 0, "a buffer is still lent");
        assert!(contents().iter().all(|byte| [0, 1, 2].contains(byte)));
    });
}

#[test]
fn changes_that_return_are_those_that_reads_find() {
    under_seeds(1500, |dice| async move {
        let file = file_on(without_errors(&dice)).await;
        let mut model = Vec::new();
        for id in 0..dice.up_to(20) as u8 {
            let (at, length) = (dice.below(SPAN), dice.up_to(3000));
            match dice.below(6) {
                0 => {
                    file.set_len(at as u64).await.unwrap();
                    model.resize(at, 0);
                }
                1 => {
                    file.allocate(at as u64, length as u64).await.unwrap();
                    model.resize(model.len().max(at + length), 0);
                }
                2 => {
                    let bytes = stamp(id, length);
                    let (count, _) = file.write_at(bytes, at as u64).await.unwrap();
                    assert!((1..=length).contains(&count));
                    model.resize(model.len().max(at + count), 0);
                    model[at..at + count].fill(id);
                }
                3 => {
                    file.write_all_at(stamp(id, length), at as u64).await.unwrap();
                    model.resize(model.len().max(at + length), 0);
                    model[at..at + length].fill(id);
                }
                4 => {
                    let there = model.get(at..).unwrap_or_default();
                    let room = Vec::with_capacity(length);
                    match file.read_exact_at(room, at as u64).await {
                        Ok(bytes) => assert_eq!(bytes, there[..bytes.len()]),
                        Err(short) => {
                            assert_eq!(short.error().kind(), ErrorKind::UnexpectedEof);
                            assert!(there.len() < length);
                        }
                    }
                }
                _ => {
                    let there = model.get(at..).unwrap_or_default();
                    let room = Vec::with_capacity(length);
                    let (count, bytes) = file.read_at(room, at as u64).await.unwrap();
                    assert_eq!(bytes, there[..count]);
                    assert_eq!(count == 0, there.is_empty());
                }
            }
            let length = file.metadata().await.unwrap().len();
            assert_eq!(length, model.len() as u64);
            // A dropped read does no harm.
            drop(dice.cut(file.read_at(vec![7; SPAN], 0)).await);
        }
        assert_eq!(fs::read(PATH).await.unwrap(), model);
        file.close().await.unwrap();
        assert_eq!(disk(|disk| disk.open_files()), 0);
    });
}

#[test]
fn appended_records_stay_whole_whoever_appends() {
    under_seeds(800, |dice| async move {
        // Short writes cut a record in two, between which another may come.
        drop(file_on(without_errors(&dice).short_writes(0)).await);
        let mut tasks = Vec::new();
        for id in 1..=dice.up_to(4) as u8 {
            let dice = dice.clone();
            tasks.push(quoit::spawn(async move {
                let file = OpenOptions::new().append(true).open(PATH).await.unwrap();
                let records = dice.up_to(4);
                for _ in 0..records {
                    file.write_all_at(stamp(id, 100), 0).await.unwrap();
                    dice.dawdle().await;
                }
                records
            }));
        }
        let mut records = 0;
        for task in tasks {
            records += task.await.unwrap();
        }
        let bytes = contents();
        assert_eq!(bytes.len(), records * 100);
        assert!(bytes.chunks(100).all(|record| record.iter().all(|byte| *byte == record[0])));
    });
}

/// The error of a write on a disk with room for `pages`, and what was written before it.
async fn fill(file: &File, dice: &Dice) -> (BufError<Vec<u8>>, usize) {
    let mut written = 0;
    loop {
        let bytes = stamp(3, dice.up_to(6000));
        if dice.one_in(2) {
            match file.write_at(bytes, written as u64).await {
                Ok((count, _)) => written += count,
                Err(full) => return (full, written),
            }
        } else {
            let length = bytes.len();
            match file.write_all_at(bytes, written as u64).await {
                Ok(_) => written += length,
                Err(full) => return (full, written),
            }
        }
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_says_so() {
    under_seeds(800, |dice| async move {
        let pages = dice.below(6);
        let options = without_errors(&dice).capacity(pages as u64 * 4096);
        let file = file_on(options.clone()).await;
        let (full, written) = fill(&file, &dice).await;
        assert_eq!(full.error().kind(), ErrorKind::StorageFull);
        let bytes = full.into_parts().1.expect("the buffer comes back");
        assert!(bytes.iter().all(|byte| *byte == 3));
        // What `write_all_at` got rid of before it failed is there too.
        assert_eq!(contents(), stamp(3, pages * 4096));
        assert!(written <= pages * 4096);
        let no_room = file.allocate(0, (pages as u64 + 1) * 4096).await.unwrap_err();
        assert_eq!(no_room.kind(), ErrorKind::StorageFull);
        // Room is room again, and nothing else is lost.
        file.set_len(0).await.unwrap();
        file.sync_all().await.unwrap();
        if pages > 0 {
            file.write_all_at(stamp(4, 4096), 0).await.unwrap();
        }
        disk(|disk| disk.set_options(options.capacity(1 << 20)));
        file.write_all_at(bytes, 0).await.unwrap();
        file.close().await.unwrap();
    });
}

#[test]
fn every_error_is_reported_by_the_operation_that_met_it() {
    under_seeds(800, |dice| async move {
        let eio = |error: &io::Error| assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let file = file_on(DiskOptions::new()).await;
        file.write_all_at(stamp(1, 1000), 0).await.unwrap();
        let set = |options| disk(|disk| disk.set_options(options));

        set(DiskOptions::new().read_errors(1));
        let failed = file.read_at(vec![9; 50], 0).await.unwrap_err();
        eio(failed.error());
        assert_eq!(failed.into_parts().1.unwrap(), [9; 50], "as it was");
        set(DiskOptions::new().write_errors(1));
        eio(file.write_at(stamp(2, 50), 0).await.unwrap_err().error());
        eio(file.write_all_at(stamp(2, 50), 0).await.unwrap_err().error());
        eio(&file.set_len(1).await.unwrap_err());
        eio(&file.allocate(0, 9000).await.unwrap_err());
        assert_eq!(contents().len(), 1000);
        set(DiskOptions::new().open_errors(1));
        let failed = File::open(PATH).await.unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::EMFILE));
        set(DiskOptions::new());
        file.write_all_at(stamp(3, 1000), 0).await.unwrap();

        // A close or a sync that fails, noticed or not.
        let clone = file.clone();
        if dice.one_in(2) {
            set(DiskOptions::new().close_errors(1));
            clone.close().await.unwrap();
            eio(&file.close().await.unwrap_err());
        } else {
            set(DiskOptions::new().sync_errors(1));
            let told = dice.cut(file.sync_data()).await;
            if let Some(failed) = &told {
                eio(failed.as_ref().unwrap_err());
            }
            settle().await;
            set(DiskOptions::new());
            let was_asked = clone.sync_data().await;
            if let Err(error) = was_asked {
                assert!(error.to_string().contains("an earlier sync"), "{error}");
                let failed = file.write_at(stamp(4, 10), 0).await.unwrap_err();
                assert!(failed.error().to_string().contains("an earlier sync"));
                assert!(clone.close().await.is_err() && file.close().await.is_err());
            } else {
                assert!(told.is_none(), "it is forgotten");
                // The cut came before anything was submitted.
                clone.close().await.unwrap();
                file.close().await.unwrap();
            }
        }
        assert_eq!(disk(|disk| disk.open_files()), 0, "closed all the same");
    });
}

#[test]
fn direct_transfers_stay_aligned_when_they_are_short() {
    under_seeds(600, |dice| async move {
        drop(file_on(without_errors(&dice)).await);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).direct(true).open(PATH).await.unwrap();
        let alignment = file.direct_alignment().expect("it is direct");
        let block = |fill: u8, count: usize| {
            let mut block = AlignedBuf::new(count * alignment, alignment);
            block.fill(fill);
            block
        };
        let count = dice.up_to(20);
        file.write_all_at(block(1, count), 0).await.unwrap();
        let dropped = block(2, dice.up_to(count));
        drop(dice.cut(file.write_at(dropped, 0)).await);
        let at = dice.below(count);
        file.write_all_at(block(3, count - at), (at * alignment) as u64).await.unwrap();
        let bytes = file.read_exact_at(block(0, count), 0).await.unwrap();
        let (before, after) = bytes.split_at(at * alignment);
        assert!(before.iter().all(|byte| [1, 2].contains(byte)));
        assert!(after.iter().all(|byte| *byte == 3));
        let refused = file.read_at(block(0, 1), 1).await.unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::InvalidInput);
        file.close().await.unwrap();
    });
}

#[test]
fn whatever_is_dropped_closes_what_it_opened() {
    under_seeds(1500, |dice| async move {
        let options = without_errors(&dice).open_errors(2 * dice.below(3) as u32);
        drop(file_on(options).await);
        for _ in 0..dice.up_to(6) {
            match dice.below(4) {
                0 => drop(dice.cut(File::open(PATH)).await),
                1 => drop(dice.cut(File::create("/data/other")).await),
                2 => drop(dice.cut(fs::read(PATH)).await),
                _ => {
                    let Ok(file) = File::create(PATH).await else { continue };
                    if dice.one_in(2) {
                        drop(dice.cut(file.write_at(stamp(1, 5000), 0)).await);
                    }
                    match dice.below(3) {
                        0 => drop(file),
                        1 => drop(dice.cut(file.close()).await),
                        _ => file.close().await.unwrap(),
                    }
                }
            }
        }
        settle().await;
        assert_eq!(disk(|disk| disk.open_files()), 0);
    });
}

#[test]
fn a_runtime_that_ends_leaves_no_file_open_and_no_buffer_lent() {
    under_seeds(800, |dice| async move {
        let census = Census::default();
        let file = file_on(without_errors(&dice)).await;
        for _ in 0..dice.up_to(6) {
            let (file, buffer) = (file.clone(), census.buffer(stamp(1, dice.up_to(5000))));
            let at = dice.below(SPAN) as u64;
            drop(match dice.below(3) {
                0 => quoit::spawn(async move { drop(file.write_all_at(buffer, at).await) }),
                1 => quoit::spawn(async move { drop(file.read_at(buffer, at).await) }),
                _ => quoit::spawn(async move { drop(file.sync_all().await) }),
            });
        }
        dice.dawdle().await;
        // The rest is for `check_books`: what is in flight now is cancelled, or too late for it.
    });
}
