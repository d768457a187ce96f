//! Files: a change that is dropped happens or not, and never after what has returned since; what a
//! sync has acknowledged outlives the power; whatever is dropped or refused, the file is closed.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use quoit::fs::File;
use quoit::sim::explore::{Explore, Explorer};
use quoit::sim::{self, Disk};
use quoit::time;

use crate::bytes::counter;
use crate::{cancel, check, dawdle, moment};

const PATH: &str = "/data/file";
const SPAN: usize = 200;

fn disk<R>(look: impl FnOnce(&mut Disk) -> R) -> R {
    sim::world().disk("host", look)
}

fn contents() -> Vec<u8> {
    disk(|disk| disk.contents(PATH)).expect("the file is there")
}

async fn open() -> io::Result<File> {
    File::options().read(true).write(true).open(PATH).await
}

/// What each byte of the file may be.
struct Model(Vec<Vec<u8>>);

impl Model {
    /// Something has returned, so nothing that was dropped over these bytes before comes any more.
    fn settle(&mut self, start: usize, bytes: &[u8]) {
        for (may, byte) in self.0[start..].iter_mut().zip(bytes) {
            assert!(may.contains(byte), "{byte} at {start}.., where only {may:?} can be");
            *may = vec![*byte];
        }
    }

    fn may_become(&mut self, start: usize, bytes: &[u8]) {
        for (may, byte) in self.0[start..].iter_mut().zip(bytes) {
            may.push(*byte);
        }
    }
}

/// Writes, reads and syncs one after the other, each a write of a number that nobody else writes.
async fn changes(explore: Explore) {
    disk(|disk| disk.put(PATH, &[0; SPAN]));
    let file = open().await.unwrap();
    let mut model = Model(vec![vec![0]; SPAN]);
    for id in 1..8 {
        let start = explore.below(SPAN);
        let part = vec![id; 1 + explore.below(SPAN - start)];
        match explore.below(5) {
            0 => {
                let syncing = explore.cancellable("sync_data", file.sync_data());
                if let Some(synced) = syncing.await {
                    synced.unwrap();
                    model.settle(0, &contents());
                }
            }
            1 => {
                let length = part.len();
                let reading = file.read_exact_at(vec![0; length], start as u64);
                if let Some(read) = explore.cancellable("read_exact_at", reading).await {
                    for (may, byte) in model.0[start..].iter().zip(&read.unwrap()) {
                        assert!(may.contains(byte), "{byte}, where only {may:?} can be");
                    }
                }
            }
            2 => {
                let writing = file.write_at(part.clone(), start as u64).timeout(moment(&explore));
                model.may_become(start, &part);
                drop(explore.cancellable("write_at with a limit", writing).await);
            }
            _ => {
                model.may_become(start, &part);
                let writing = file.write_all_at(part.clone(), start as u64);
                if let Some(written) = explore.cancellable("write_all_at", writing).await {
                    assert_eq!(written.unwrap(), part);
                    assert_eq!(contents()[start..start + part.len()], part);
                    model.settle(start, &part);
                }
            }
        }
        dawdle(&explore).await;
    }
    // Dropped, it goes on by itself; either way the file is closed in the end.
    let closed = explore.cancellable("close", file.close()).await;
    let left = contents();
    let is_over = closed.map(Result::unwrap).is_some();
    if is_over {
        model.settle(0, &left);
        assert_eq!(disk(|disk| disk.open_files()), 0);
    }
    time::sleep(Duration::from_millis(5)).await;
    model.settle(0, &contents());
    assert_eq!(disk(|disk| disk.open_files()), 0, "nobody has it any more");
}

#[test]
fn changes_of_a_file() {
    cancel("changes of a file", 15, changes);
}

#[test]
fn open_of_a_file() {
    cancel("open of a file", 30, |explore| async move {
        disk(|disk| disk.put(PATH, b"bytes"));
        for _ in 0..3 {
            let opened = explore.cancellable("open", open()).await;
            let reading = quoit::fs::read(PATH);
            if let Some(bytes) = explore.cancellable("read", reading).await {
                assert_eq!(bytes.unwrap(), b"bytes");
            }
            drop(opened);
        }
        time::sleep(Duration::from_millis(5)).await;
        assert_eq!(disk(|disk| disk.open_files()), 0);
    });
}

/// Appends a counter in parts, and tells how much of it a sync has acknowledged.
async fn append(explore: &Explore, acknowledged: &Cell<usize>) -> io::Result<()> {
    let file = open().await?;
    let mut end = 0;
    for _ in 0..4 {
        let start = end;
        end += 1 + explore.below(30);
        let write = async || {
            let writing = file.write_all_at(counter(start..end), start as u64);
            explore.cancellable("write_all_at", writing).await
        };
        // Dropped, it is done again, over whatever the first one still does.
        while write().await.transpose()?.is_none() {}
        dawdle(explore).await;
        let synced = loop {
            if let Some(synced) = explore.cancellable("sync_all", file.sync_all()).await {
                break synced;
            }
        };
        if let Err(error) = synced {
            // The kernel forgets what it could not write, so there is no second try.
            assert!(file.sync_all().await.is_err(), "a sync after a failed one");
            assert!(file.write_at("more", end as u64).await.is_err());
            assert!(file.close().await.is_err());
            return Err(error);
        }
        acknowledged.set(end);
    }
    let bytes = file.read_exact_at(vec![0; end], 0).await?;
    assert_eq!(bytes, counter(0..end));
    file.close().await
}

/// A journal, until the power goes.
async fn journal(explore: Explore) -> io::Result<()> {
    disk(|disk| disk.put(PATH, b""));
    let acknowledged = Cell::new(0);
    let outcome = append(&explore, &acknowledged).await;
    disk(Disk::crash);
    let (left, end) = (contents(), acknowledged.get());
    assert!(left.len() >= end, "{} bytes are left of {end} that were synced", left.len());
    assert_eq!(left[..end], counter(0..end));
    outcome
}

#[test]
fn journal_that_is_cancelled() {
    cancel("a journal", 30, |explore| async { journal(explore).await.unwrap() });
}

#[test]
fn journal_whose_calls_fail() {
    let found = Explorer::new("a journal").seeds(60).points_per_seed(80).fail(|explore| async {
        let _ = journal(explore).await;
    });
    check(&found);
}
