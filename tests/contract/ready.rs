//! Readiness of the owned halves: each is tried and waited for by itself.

use std::io::{ErrorKind, IoSlice};
use std::net::Shutdown;

use crate::common::*;

#[quoit::test(seeds = 16)]
async fn a_reading_half_tells_when_there_is_something_to_read() {
    let (stream, mut peer) = pair().await;
    let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let (reader, writer) = stream.into_split();
    for (half_local, half_remote) in
        [(reader.local_addr(), reader.peer_addr()), (writer.local_addr(), writer.peer_addr())]
    {
        assert_eq!((half_local.unwrap(), half_remote.unwrap()), (local, remote));
    }
    let mut room = [0; 8];
    let error = reader.try_read(&mut room).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(dropped_at(Moment::Waiting, reader.readable()).await.is_none(), "nothing is there");
    peer.write_all(b"12345").await.unwrap();
    let mut bytes = tried(&reader, 2).await;
    while bytes.len() < 5 {
        bytes.extend(tried(&reader, 5 - bytes.len()).await);
    }
    assert_eq!(bytes, b"12345");
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(tried(&reader, 1).await.is_empty(), "the end is something to read");
}

/// What `try_read` gives, which may find nothing once before `readable` waits for it.
async fn tried(reader: &quoit::net::OwnedReadHalf, room: usize) -> Vec<u8> {
    let mut bytes = vec![0; room];
    for _ in 0..2 {
        within("readable", reader.readable()).await.unwrap();
        match reader.try_read(&mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                return bytes;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    panic!("it is readable, and nothing is there to read");
}

#[quoit::test(seeds = 16)]
async fn a_writing_half_tells_when_there_is_room() {
    let (stream, mut peer) = narrow_pair().await;
    let (_reader, writer) = stream.into_split();
    within("writable", writer.writable()).await.unwrap();
    let parts = [IoSlice::new(b"two "), IoSlice::new(b"parts")];
    assert_eq!(writer.try_write_vectored(&parts).unwrap(), 9);
    let mut written = 0;
    let error = loop {
        match writer.try_write(&bytes_of(3, written, 50_000)) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let wakes = Wakes::new();
    let mut writable = Box::pin(writer.writable());
    assert!(wakes.poll(writable.as_mut()).is_pending(), "{written} bytes and no end");
    let mut bytes = vec![0; 9 + written];
    peer.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..9], b"two parts");
    check_bytes(3, 0, &bytes[9..]);
    until("it is told of the room", || wakes.count() > 0).await;
    within("writable", writable).await.unwrap();
    assert_eq!(writer.try_write(b"again").unwrap(), 5);
    drop(writer);
    assert_eq!(read_to_end(&mut peer).await.0, b"again");
}
