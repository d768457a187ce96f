//! What files do when nothing is dropped.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use quoit::buffer::{IoBuf, IoBufMut};
use quoit::fs::{self, File, OpenOptions};

use crate::{Scratch, contents, drop_after};

#[quoit::test(seeds = 20)]
async fn what_is_written_is_read() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).await?;
    let (count, buffer) = file.write_at(b"hello, world".to_vec(), 0).await?;
    assert_eq!((count, &buffer[..]), (12, &b"hello, world"[..]));
    let tail = file.write_all_at("<0123456789>".slice(1..11), 12).await?;
    assert_eq!(tail.into_inner(), "<0123456789>");
    assert_eq!(contents(&path), b"hello, world0123456789");

    let (count, buffer) = file.read_at(Vec::with_capacity(5), 7).await?;
    assert_eq!((count, &buffer[..]), (5, &b"world"[..]));
    let (count, boxed) = file.read_at(vec![b'.'; 4].into_boxed_slice(), 20).await?;
    assert_eq!((count, &boxed[..]), (2, &b"89.."[..]), "the rest of the buffer is as it was");
    let exact = file.read_exact_at(vec![0; 10].slice_mut(2..6), 1).await?;
    assert_eq!(exact.into_inner(), b"\0\0ello\0\0\0\0");
    file.close().await
}

#[quoit::test(seeds = 20)]
async fn the_end_of_the_file_is_a_short_count() -> io::Result<()> {
    let scratch = Scratch::new();
    let file = File::open(scratch.file("file", &[7; 5000])).await?;
    assert_eq!(file.read_at(Vec::with_capacity(8192), 0).await?.0, 5000);
    assert_eq!(file.read_at(Vec::with_capacity(8192), 4999).await?.1, [7]);
    assert_eq!(file.read_at(Vec::with_capacity(8192), 5000).await?.0, 0);
    let (count, buffer) = file.read_at(vec![1; 16], 1 << 40).await?;
    assert_eq!((count, buffer.len()), (0, 0), "a vector holds just what was read");
    assert_eq!(file.read_at(Vec::new(), 0).await?.0, 0, "no room: at once");

    let failed = file.read_exact_at(vec![1_u8; 10], 4995).await.unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::UnexpectedEof);
    let (_, buffer) = failed.into_parts();
    assert_eq!(buffer.unwrap(), [7, 7, 7, 7, 7, 1, 1, 1, 1, 1], "its length is what it was");
    assert_eq!(file.read_exact_at(vec![1_u8; 10], 4990).await?, [7; 10]);
    Ok(())
}

#[quoit::test(seeds = 20)]
async fn far_offsets_are_reached() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("sparse");
    let file = File::options().read(true).write(true).create(true).open(&path).await?;
    for offset in [(1 << 31) - 3, (1 << 32) + 5, 3 << 40] {
        file.write_all_at(offset.to_string(), offset).await?;
        let digits = file.read_exact_at(vec![0; offset.to_string().len()], offset).await?;
        assert_eq!(digits, offset.to_string().as_bytes());
        assert_eq!(file.read_exact_at(vec![1; 3], offset - 3).await?, [0; 3], "a hole");
    }
    assert!(file.metadata().await?.blocks() < 1024, "it is sparse");
    Ok(())
}

#[quoit::test(seeds = 20)]
async fn offsets_that_no_file_has_are_errors() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", b"0123456789");
    let file = File::options().read(true).write(true).open(&path).await?;
    // To the kernel the last of them is the current position.
    for offset in [1 << 63, u64::MAX - 1, u64::MAX] {
        let failed = file.read_at(vec![9; 4], offset).await.unwrap_err();
        assert_eq!(failed.error().kind(), ErrorKind::InvalidInput);
        assert_eq!(failed.into_parts().1.unwrap(), [9; 4]);
        let failed = file.write_at("xxxx", offset).await.unwrap_err();
        assert_eq!(failed.error().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(contents(&path), b"0123456789");
    Ok(())
}

#[quoit::test(seeds = 20)]
async fn opening_says_what_is_wrong() -> io::Result<()> {
    let scratch = Scratch::new();
    let kind = |result: io::Result<File>| result.unwrap_err().kind();
    assert_eq!(kind(File::open(scratch.path("missing")).await), ErrorKind::NotFound);
    assert_eq!(kind(File::open("a\0b").await), ErrorKind::InvalidInput);
    assert_eq!(kind(File::create(&scratch.0).await), ErrorKind::IsADirectory);
    assert_eq!(kind(OpenOptions::new().open("any").await), ErrorKind::InvalidInput);
    let path = scratch.file("there", b"bytes");
    let new = File::options().write(true).create_new(true).open(&path).await;
    assert_eq!(kind(new), ErrorKind::AlreadyExists);
    Ok(())
}

#[quoit::test]
async fn a_link_is_not_followed_against_the_callers_will() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("there", b"bytes");
    std::os::unix::fs::symlink(&path, scratch.path("link"))?;
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NOFOLLOW);
    let link = options.open(scratch.path("link")).await.unwrap_err();
    assert_eq!(link.raw_os_error(), Some(libc::ELOOP));
    Ok(())
}

#[quoit::test(seeds = 20)]
async fn options_do_what_they_say() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path).await?;
    assert_eq!(file.metadata().await?.permissions().mode() & 0o777, 0o600);
    file.write_all_at("first", 0).await?;

    let append = File::options().append(true).open(&path).await?;
    append.write_all_at(", second", 0).await?;
    assert_eq!(contents(&path), b"first, second", "appended, whatever the offset");

    let reader = File::open(&path).await?;
    let refused = reader.write_at("x", 0).await.unwrap_err();
    assert_eq!(refused.error().raw_os_error(), Some(libc::EBADF));
    let refused = append.read_at(vec![0; 1], 0).await.unwrap_err();
    assert_eq!(refused.error().raw_os_error(), Some(libc::EBADF));

    File::create(&path).await?.close().await?;
    assert_eq!(contents(&path), b"", "create empties");
    Ok(())
}

#[quoit::test]
async fn descriptors_are_not_inherited() -> io::Result<()> {
    let scratch = Scratch::new();
    let file = File::create(scratch.path("file")).await?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    let flags = i32::from_str_radix(flags, 8).unwrap();
    assert_ne!(flags & libc::O_CLOEXEC, 0);
    Ok(())
}

#[quoit::test]
async fn metadata_is_that_of_std() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", &[1; 12_345]);
    let (ours, std) = (File::open(&path).await?.metadata().await?, std::fs::metadata(&path)?);
    assert_eq!((ours.len(), ours.mode(), ours.ino()), (std.len(), std.mode(), std.ino()));
    assert_eq!((ours.dev(), ours.nlink()), (std.dev(), std.nlink()));
    assert_eq!((ours.uid(), ours.gid()), (std.uid(), std.gid()));
    assert_eq!((ours.blocks(), ours.blksize()), (std.blocks(), std.blksize()));
    assert_eq!(ours.permissions(), std.permissions());
    assert_eq!(ours.modified()?, std.modified()?);
    assert_eq!(ours.accessed()?, std.accessed()?);
    assert_eq!(ours.created().ok(), std.created().ok());
    assert!(ours.is_file() && !ours.is_dir() && !ours.is_symlink());
    assert!(File::open(&scratch.0).await?.metadata().await?.is_dir());
    Ok(())
}

#[quoit::test(seeds = 20)]
async fn lengths_are_set_and_space_is_reserved() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", b"0123456789");
    let file = File::options().write(true).open(&path).await?;
    file.set_len(4).await?;
    assert_eq!(contents(&path), b"0123");
    file.set_len(6).await?;
    assert_eq!(contents(&path), b"0123\0\0");
    file.allocate(0, 1 << 20).await?;
    let metadata = file.metadata().await?;
    assert_eq!(metadata.len(), 1 << 20);
    assert!(metadata.blocks() * 512 >= 1 << 20, "the space is there");
    assert_eq!(file.allocate(0, 0).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(file.set_len(u64::MAX).await.is_err());
    file.sync_data().await?;
    file.sync_all().await
}

#[quoit::test]
async fn a_full_disk_is_an_error_that_brings_the_buffer_back() -> io::Result<()> {
    let full = File::options().write(true).open("/dev/full").await?;
    let failed = full.write_at(b"no room".to_vec(), 0).await.unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::StorageFull);
    assert_eq!(failed.into_parts().1.unwrap(), b"no room");
    let failed = full.write_all_at("no room", 0).await.unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::StorageFull);
    Ok(())
}

#[quoit::test]
async fn pipes_have_no_positions() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let (reader, writer) = (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)));
    let failed = writer.write_at("x", 1).await.unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::NotSeekable);
    let failed = reader.read_at(vec![0; 1], 1).await.unwrap_err();
    assert_eq!(failed.error().kind(), ErrorKind::NotSeekable);
    Ok(())
}

#[quoit::test(seeds = 20)]
async fn whole_files_are_read_and_written() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(&path, large.clone()).await?;
    assert!(fs::read(&path).await? == large);
    fs::write(&path, "short").await?;
    assert_eq!(fs::read(&path).await?, b"short", "what was there is gone");
    fs::write(&path, "").await?;
    assert_eq!(fs::read(&path).await?, b"");
    assert_eq!(fs::read(scratch.path("none")).await.unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}

#[quoit::test]
async fn files_that_do_not_know_their_length_are_read_to_their_end() -> io::Result<()> {
    let status = fs::read("/proc/self/status").await?;
    assert!(status.starts_with(b"Name:"), "a file that does not know its length");
    let version = fs::read("/proc/version").await?;
    assert_eq!(version, std::fs::read("/proc/version")?);
    Ok(())
}

#[quoit::test(seeds = 2)]
async fn many_reads_are_in_flight_at_once() -> io::Result<()> {
    let scratch = Scratch::new();
    let blocks = 512_u64;
    let bytes: Vec<u8> = (0..blocks).flat_map(|block| [block as u8; 4096]).collect();
    let file = File::open(scratch.file("file", &bytes)).await?;
    let readers: Vec<_> = (0..300_u64)
        .map(|reader| {
            let file = file.clone();
            quoit::spawn(async move {
                let mut buffer = vec![0; 4096];
                for round in 0..20 {
                    let block = (reader * 31 + round * 17) % blocks;
                    buffer = file.read_exact_at(buffer, block * 4096).await?;
                    assert!(buffer.iter().all(|byte| *byte == block as u8));
                }
                io::Result::Ok(())
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap()?;
    }
    file.close().await
}

#[quoit::test]
async fn a_file_converts_to_std_when_it_is_alone() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.file("file", b"bytes");
    let file: File = std::fs::File::open(&path)?.into();
    let clone = file.clone();
    let file = file.try_into_std().unwrap_err();
    drop(clone);
    // A read in flight names the number: it cannot be given away. (A short one would not be in
    // flight, but answered at once.)
    assert!(drop_after(file.read_at(vec![0; 1 << 20], 0), 0).await.is_none());
    let mut file = file.try_into_std().unwrap_err();
    let std = loop {
        quoit::task::yield_now().await;
        match file.try_into_std() {
            Ok(std) => break std,
            Err(again) => file = again,
        }
    };
    assert_eq!(std.metadata()?.len(), 5);
    let file = File::from(std);
    assert_eq!(file.read_at(vec![0; 9], 1).await?.1, b"ytes");
    Ok(())
}

#[quoit::test]
async fn the_last_clone_closes() -> io::Result<()> {
    let scratch = Scratch::new();
    let file = File::open(scratch.file("file", b"bytes")).await?;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let target = std::fs::read_link(&link)?;
    let clone = file.clone();
    file.close().await?;
    assert_eq!(clone.read_at(vec![0; 9], 0).await?.0, 5, "a clone keeps it open");
    clone.close().await?;
    assert_ne!(std::fs::read_link(&link).ok(), Some(target));
    Ok(())
}
