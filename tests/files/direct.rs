//! Past the page cache: alignment, and that it is asked for before the kernel is.

use std::io::{self, ErrorKind};

use quoit::buffer::{AlignedBuf, IoBuf, IoBufMut};
use quoit::fs::{File, OpenOptions};
use quoit::{RingChoice, Runtime};

use crate::{Scratch, contents, drop_after};

const BLOCK: usize = 4096;

/// `None` where the file system has no direct I/O: then there is nothing to test, and that is said.
async fn open(options: &mut OpenOptions, path: &std::path::Path) -> Option<File> {
    match options.direct(true).open(path).await {
        Ok(file) => Some(file),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("{}: {error}, NOT TESTED", path.display());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn block(fill: u8, blocks: usize) -> AlignedBuf {
    let mut block = AlignedBuf::new(BLOCK * blocks, BLOCK);
    block.fill(fill);
    block
}

#[quoit::test(seeds = 10)]
async fn aligned_blocks_go_to_the_disk_and_back() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let mut options = File::options();
    options.read(true).write(true).create(true);
    let Some(file) = open(&mut options, &path).await else { return Ok(()) };
    file.allocate(0, 64 * BLOCK as u64).await?;
    let writes: Vec<_> = (0..64)
        .map(|number| {
            let file = file.clone();
            quoit::spawn(async move {
                file.write_all_at(block(number, 1), u64::from(number) * BLOCK as u64).await
            })
        })
        .collect();
    for write in writes {
        write.await.unwrap()?;
    }
    file.sync_data().await?;
    for number in 0..64 {
        let read = file.read_exact_at(block(0, 1), u64::from(number) * BLOCK as u64).await?;
        assert!(read.iter().all(|byte| *byte == number), "block {number}");
    }
    let all = contents(&path);
    assert!(all.chunks(BLOCK).zip(0..).all(|(chunk, number)| chunk == [number; BLOCK]));
    Ok(())
}

#[quoit::test(seeds = 10)]
async fn the_end_of_a_file_needs_no_alignment() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", &[6; BLOCK + 100]);
    let Some(file) = open(File::options().read(true), &path).await else { return Ok(()) };
    let (count, buffer) = file.read_at(block(0, 2), 0).await?;
    assert_eq!((count, buffer[BLOCK + 99], buffer[BLOCK + 100]), (BLOCK + 100, 6, 0));
    let failed = file.read_exact_at(block(0, 2), 0).await.unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::UnexpectedEof);
    Ok(())
}

#[quoit::test(seeds = 10)]
async fn what_is_not_aligned_is_refused_with_the_alignment() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", &[6; 4 * BLOCK]);
    let mut options = File::options();
    options.read(true).write(true);
    let Some(file) = open(&mut options, &path).await else { return Ok(()) };
    let Some(alignment) = file.direct_alignment() else {
        eprintln!("{}: the kernel does not tell, NOT TESTED", path.display());
        return Ok(());
    };
    assert!(alignment.is_power_of_two() && alignment <= BLOCK);
    let refused = |error: &io::Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.raw_os_error(), None, "ours, not the kernel's");
        let text = error.to_string();
        assert!(text.contains("O_DIRECT") && text.contains(&alignment.to_string()), "{text}");
    };
    refused(file.read_at(block(0, 1), 1).await.unwrap_err().error());
    refused(file.read_at(block(0, 1).slice_mut(..100), 0).await.unwrap_err().error());
    refused(file.read_at(block(0, 2).slice_mut(1..=BLOCK), 0).await.unwrap_err().error());
    refused(file.write_at(block(0, 1).slice(1..), 0).await.unwrap_err().error());
    refused(file.write_at(block(0, 1), 3).await.unwrap_err().error());
    assert_eq!(contents(&path), [6; 4 * BLOCK]);

    // As little as the kernel says is enough.
    let buffer = AlignedBuf::new(alignment, alignment);
    assert_eq!(file.read_at(buffer, alignment as u64).await?.0, alignment);
    Ok(())
}

#[quoit::test]
async fn a_descriptor_brings_its_flags() -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let scratch = Scratch::new();
    let path = scratch.file("file", &[6; BLOCK]);
    let std = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
    let Ok(std) = std else { return Ok(()) };
    let file = File::from(std);
    if file.direct_alignment().is_some() {
        let failed = file.read_at(block(0, 1), 1).await.unwrap_err();
        assert_eq!(failed.error().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(file.read_at(block(0, 1), 0).await?.0, BLOCK);
    assert_eq!(File::open(&path).await?.direct_alignment(), None);
    Ok(())
}

#[quoit::test(seeds = 10)]
async fn dropped_direct_writes_keep_the_contract() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", &[0; 64 * BLOCK]);
    let mut options = File::options();
    options.read(true).write(true);
    let Some(file) = open(&mut options, &path).await else { return Ok(()) };
    for round in 0..40 {
        drop_after(file.write_at(block(1, 64), 0), round % 4).await;
        file.write_all_at(block(2, 32), 16 * BLOCK as u64).await?;
        file.sync_data().await?;
        let bytes = file.read_exact_at(block(0, 64), 0).await?;
        assert!(bytes[16 * BLOCK..48 * BLOCK].iter().all(|byte| *byte == 2), "round {round}");
    }
    file.close().await
}

#[test]
fn direct_reads_never_hold_up_a_core() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let scratch = Scratch::new();
        let path = scratch.file("file", &[6; 64 * BLOCK]);
        let reads = runtime.block_on(async {
            let file = open(File::options().read(true), &path).await?;
            let reads = (0..64_u64).map(|number| {
                let file = file.clone();
                quoit::spawn(
                    async move { file.read_exact_at(block(0, 1), number * BLOCK as u64).await },
                )
            });
            let reads: Vec<_> = reads.collect();
            for read in reads {
                assert!(read.await.unwrap().unwrap().iter().all(|byte| *byte == 6));
            }
            Some(64)
        });
        let Some(reads) = reads else { return };
        // epoll has no form for them: not trying them at all keeps the core free.
        let metrics = runtime.metrics();
        let jobs = if ring == RingChoice::Readiness { reads } else { 0 };
        assert!(metrics.ring.pool_jobs >= jobs, "{ring:?}: {metrics:?}");
        assert!(ring == RingChoice::Readiness || metrics.ring.pool_jobs == 0, "{ring:?}");
    }
}
