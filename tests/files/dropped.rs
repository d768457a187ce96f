//! Operations that are dropped in flight: what still happens, when, and to whom the memory belongs.

use std::fs::read_link;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use quoit::__private::with_disk;
use quoit::fs::File;

use crate::{Census, SCRIBBLE, Scratch, contents, drop_after, poll_once};

const LENGTH: usize = 256 * 1024;

/// How far the dropped operations get before they are dropped.
const TURNS: [usize; 4] = [0, 1, 2, 5];

pub(crate) async fn read_write(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).open(path).await
}

/// Nothing or all of it, and only what was meant.
#[track_caller]
fn assert_all_or_nothing(bytes: &[u8], value: u8) {
    let written = bytes.iter().filter(|byte| **byte == value).count();
    let untouched = bytes.iter().filter(|byte| **byte == 0).count();
    assert!(!bytes.contains(&SCRIBBLE), "the kernel read a buffer that was dropped");
    assert_eq!(written + untouched, bytes.len(), "bytes of nobody's");
    assert!(written == 0 || untouched == 0, "{written} bytes written, {untouched} not");
}

#[quoit::test(seeds = 4)]
async fn a_dropped_write_never_follows_a_sync() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let path = scratch.path("file");
    for round in 0..40 {
        let file = read_write(&path).await?;
        file.set_len(LENGTH as u64).await?;
        drop_after(file.write_at(census.buffer(LENGTH, 7), 0), TURNS[round % 4]).await;
        file.sync_data().await?;
        let after = contents(&path);
        assert_all_or_nothing(&after, 7);
        assert_eq!(census.alive(), 0, "the kernel is done with the buffer");
        quoit::time::sleep(Duration::from_millis(1)).await;
        assert!(after == contents(&path), "it changed after the sync");
    }
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn a_dropped_write_never_follows_a_set_len() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    for round in 0..40 {
        let path = scratch.path("file");
        let file = read_write(&path).await?;
        for part in 0..4_u64 {
            let write = file.write_at(census.buffer(LENGTH, 7), part * LENGTH as u64);
            drop_after(write, TURNS[round % 4]).await;
        }
        file.set_len(0).await?;
        assert_eq!(contents(&path).len(), 0);
        quoit::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(contents(&path).len(), 0, "written after it was cut off");
    }
    assert_eq!(census.alive(), 0);
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn a_dropped_write_never_follows_a_write_over_it() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let path = scratch.path("file");
    let file = read_write(&path).await?;
    let clone = file.clone();
    for round in 0..40_usize {
        let offset = (round * 1000) as u64;
        for _ in 0..3 {
            drop_after(file.write_at(census.buffer(LENGTH, 1), offset), TURNS[round % 4]).await;
        }
        // Less than what was dropped, by a clone.
        let mut buffer = census.buffer(LENGTH, 2);
        buffer = clone.write_all_at(buffer, offset + 500).await?;
        drop(buffer);
        quoit::time::sleep(Duration::from_millis(1)).await;
        let bytes = file.read_exact_at(vec![0; LENGTH], offset + 500).await?;
        assert!(bytes.iter().all(|byte| *byte == 2), "an older write came later, round {round}");
    }
    file.close().await?;
    clone.close().await?;
    assert_eq!(census.alive(), 0);
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn a_dropped_set_len_never_follows_a_write() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    for round in 0..40 {
        let file = read_write(&path).await?;
        drop_after(file.set_len(10), TURNS[round % 4]).await;
        drop_after(file.allocate(0, 1 << 16), TURNS[round % 4]).await;
        file.write_all_at(vec![3; 1000], 100_000).await?;
        quoit::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(contents(&path)[100_000..], [3; 1000]);
    }
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn writes_that_do_not_overlap_do_not_wait() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let file = read_write(&scratch.path("file")).await?;
    // Not submitted before the core turns, so it stays in flight over the polls that follow.
    drop_after(file.write_at(census.buffer(4096, 1), 4096), 0).await;
    let mut free = Box::pin(file.write_at("free", 0));
    let mut waits = Box::pin(file.write_at("waits", 5000));
    assert!(poll_once(free.as_mut()).await.is_pending());
    assert!(poll_once(waits.as_mut()).await.is_pending());
    assert_eq!(census.alive(), 1);
    // What waits is not submitted: dropped now, it never happens.
    drop(waits);
    free.await?;
    file.sync_all().await?;
    assert_eq!(census.alive(), 0);
    let bytes = file.read_exact_at(vec![0; 8192], 0).await?;
    assert_eq!((&bytes[..4], &bytes[5000..5005]), (&b"free"[..], &[1; 5][..]));
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn close_waits_for_what_was_dropped() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let path = scratch.file("file", &[5; LENGTH]);
    for round in 0..40 {
        let file = File::options().read(true).write(true).open(&path).await?;
        drop_after(file.read_at(census.buffer(LENGTH, 0), 0), TURNS[round % 4]).await;
        drop_after(file.write_at(census.buffer(LENGTH, 5), 0), TURNS[round % 4]).await;
        file.close().await?;
        assert_eq!(census.alive(), 0, "closed with an operation in flight");
    }
    assert_eq!(contents(&path), [5; LENGTH]);
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn dropping_a_file_waits_for_nothing_and_closes_in_the_end() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let path = scratch.path("file");
    for round in 0..20 {
        let file = read_write(&path).await?;
        drop_after(file.write_at(census.buffer(LENGTH, 9), 0), TURNS[round % 4]).await;
        drop(file);
        until(|| census.alive() == 0 && open_descriptors_of(&path) == 0).await;
        let bytes = contents(&path);
        assert!(bytes.is_empty() || bytes == [9; LENGTH]);
    }
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn a_dropped_open_closes_what_it_opened() -> io::Result<()> {
    let scratch = Scratch::new();
    for round in 0..40 {
        let path = scratch.file("file", b"bytes");
        for turns in 0..4 {
            drop_after(File::open(&path), turns).await;
            drop_after(File::create(scratch.path(&format!("new-{round}"))), turns).await;
        }
        // Behind them: by now each has its answer, and the late ones are abandoned at once.
        until(|| open_descriptors_of(&scratch.0) == 0).await;
    }
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn a_dropped_close_closes() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", b"bytes");
    for round in 0..40 {
        let file = File::open(&path).await?;
        if round % 2 == 0 {
            drop_after(file.read_at(vec![0; LENGTH], 0), 0).await;
        }
        drop_after(file.close(), TURNS[round % 4]).await;
        until(|| open_descriptors_of(&path) == 0).await;
    }
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn a_forgotten_read_keeps_its_buffer_until_the_kernel_is_done() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let file = File::open(scratch.file("file", &[5; LENGTH])).await?;
    for turns in TURNS {
        // Boxed, so that forgetting it is possible at all.
        let mut read = Box::pin(file.read_at(census.buffer(LENGTH, 0), 0));
        assert!(poll_once(read.as_mut()).await.is_pending());
        for _ in 0..turns {
            quoit::task::yield_now().await;
        }
        std::mem::forget(read);
        assert_eq!(census.alive(), 1);
        // Nobody will ever ask for it: it belongs to the core until that ends.
        census.gone.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn buffers_of_dropped_reads_are_dropped_once() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let file = File::open(scratch.file("file", &[5; LENGTH])).await?;
    for round in 0..200_usize {
        let turns = TURNS[round % 4];
        if let Some(answer) = drop_after(file.read_at(census.buffer(LENGTH, 0), 0), turns).await {
            let (count, buffer) = answer?;
            assert_eq!((count, &buffer.memory[..]), (LENGTH, &[5; LENGTH][..]));
        }
    }
    file.close().await?;
    assert_eq!(census.alive(), 0);
    assert_eq!(census.made.load(std::sync::atomic::Ordering::Relaxed), 200);
    Ok(())
}

#[quoit::test(seeds = 4)]
async fn a_select_that_drops_reads_loses_nothing_else() -> io::Result<()> {
    let scratch = Scratch::new();
    let file = File::open(scratch.file("file", &[5; LENGTH])).await?;
    for _ in 0..50 {
        let mut first = pin!(file.read_at(vec![0; 4096], 0));
        let mut second = pin!(file.read_at(vec![0; LENGTH], 0));
        let (count, _) = std::future::poll_fn(|cx| match first.as_mut().poll(cx) {
            std::task::Poll::Pending => second.as_mut().poll(cx),
            ready => ready,
        })
        .await?;
        assert!(count == 4096 || count == LENGTH);
    }
    Ok(())
}

/// Lets the core turn until something holds.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..5000 {
        if holds() {
            return;
        }
        quoit::time::sleep(Duration::from_micros(200)).await;
    }
    panic!("it does not come true");
}

/// How many descriptors of this process name a file in this place; of a simulation, any file.
pub(crate) fn open_descriptors_of(path: &Path) -> usize {
    if let Some(count) = with_disk(|disk| disk.open_files()) {
        return count;
    }
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let targets = entries.filter_map(|entry| read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(path)).count()
}
