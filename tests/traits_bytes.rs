//! Leases as `Bytes`, and the buffers of the crate `bytes` lent to the kernel, on all rings. What is
//! lent comes back, whoever drops it last.
//!
//! A simulated socket may hold as little as one byte: who sends more needs somebody who receives.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quoit::__private::{books_here, is_simulated};
use quoit::buffer::IoBufMut;
use quoit::fs::File;
use quoit::time;

use crate::common::{check, pair, pattern, soon};

async fn all_have_come_back() {
    soon("the return of every lease", async {
        while books_here().leases_out > 0 {
            time::sleep(Duration::from_micros(100)).await;
        }
    })
    .await;
}

#[quoit::test(seeds = 16)]
async fn a_lease_goes_back_with_the_last_clone() {
    let (ours, theirs) = pair().await;
    let sender = quoit::spawn(async move { theirs.send_all("header:body").await });
    let mut received = 0;
    while received < 11 {
        let lease = ours.recv().await.unwrap();
        let (address, count, out) = (lease.as_ptr(), lease.len(), books_here().leases_out);
        assert!(out > 0);
        let bytes = Bytes::from(lease);
        assert_eq!(bytes.as_ptr(), address, "nothing was copied");
        let (first, all) = (bytes.slice(..1), bytes.slice(..));
        drop(bytes);
        assert_eq!(books_here().leases_out, out, "parts of it are there");
        drop(all);
        assert_eq!(first, b"header:body"[received..=received]);
        assert_eq!(books_here().leases_out, out, "one part is there");
        received += count;
        drop(first);
        assert_eq!(books_here().leases_out, out - 1, "the last part is gone");
    }
    sender.await.unwrap().unwrap();
    all_have_come_back().await;
}

#[quoit::test]
async fn a_lease_goes_back_from_another_thread() {
    let (ours, theirs) = pair().await;
    for round in 0..100_u8 {
        theirs.send_all(vec![round; 100]).await.unwrap();
        let bytes = Bytes::from(ours.recv().await.unwrap());
        let (kept, given) = (bytes.clone(), bytes);
        let elsewhere = std::thread::spawn(move || given.iter().all(|byte| *byte == round));
        drop(kept);
        assert!(elsewhere.join().unwrap());
    }
    all_have_come_back().await;
}

#[test]
fn bytes_outlive_the_runtime_that_received_them() {
    let bytes = quoit::block_on(async {
        let (ours, theirs) = pair().await;
        theirs.send_all("kept").await.unwrap();
        Bytes::from(ours.recv().await.unwrap())
    });
    assert_eq!(bytes.clone(), "kept");
    std::thread::spawn(move || drop(bytes)).join().unwrap();
}

#[quoit::test(seeds = 16)]
async fn bytes_are_sent_as_they_are() {
    let part = if is_simulated() { 30 } else { 30_000 };
    let count = 10 * part;
    let (ours, theirs) = pair().await;
    let ours = Rc::new(ours);
    let echo = quoit::spawn(async move {
        loop {
            // A lease, made `Bytes`, cut and sent, and a clone of it alive meanwhile.
            let bytes = Bytes::from(theirs.recv().await.unwrap());
            if bytes.is_empty() {
                return theirs.close().await.unwrap();
            }
            let mut rest = bytes.clone();
            theirs.send_all(rest.split_to(bytes.len() / 2)).await.unwrap();
            let (sent, rest) = theirs.send(rest).await.unwrap();
            assert_eq!(sent, rest.len());
        }
    });
    let all = Bytes::from(pattern(0, count));
    let sender = quoit::spawn({
        let ours = ours.clone();
        async move {
            for at in (0..count).step_by(part) {
                let (sent, back) = ours.send(all.slice(at..at + part)).await.unwrap();
                assert_eq!((sent, back.as_ptr()), (part, all[at..].as_ptr()));
            }
            ours.shutdown().await.unwrap();
        }
    });
    let mut received = 0;
    loop {
        let mut lease = ours.recv().await.unwrap();
        if !lease.has_remaining() {
            break;
        }
        check(&lease, received);
        received += lease.remaining();
        lease.advance(lease.remaining());
    }
    assert_eq!(received, count);
    sender.await.unwrap();
    soon("the end", echo).await.unwrap();
    drop(ours);
    all_have_come_back().await;
}

/// What was committed goes out whole, and lets go of its lease, though nobody awaits it.
#[quoit::test(seeds = 16)]
async fn a_send_that_is_dropped_lets_go_of_its_bytes() {
    let (ours, theirs) = pair().await;
    theirs.send_all("1").await.unwrap();
    let lent = Bytes::from(ours.recv().await.unwrap());
    let mut copy = BytesMut::with_capacity(16);
    copy.put(lent.clone());
    let mut left = 2;
    drop(futures::poll!(Box::pin(ours.send(copy.freeze()))));
    drop(futures::poll!(Box::pin(ours.send(lent))));
    while left > 0 {
        let lease = soon("what was committed", theirs.recv()).await.unwrap();
        assert!(lease.iter().all(|byte| *byte == b'1'));
        left -= lease.len();
    }
    all_have_come_back().await;
}

#[quoit::test(seeds = 16)]
async fn reads_fill_the_capacity_and_append_behind_what_is_there() {
    let (ours, theirs) = pair().await;
    let mut bytes = BytesMut::with_capacity(5);
    let room = bytes.capacity();
    let sender = quoit::spawn(async move {
        theirs.send_all(pattern(0, 3 * room)).await.unwrap();
        theirs.close().await.unwrap();
    });
    let mut count = 0;
    while count < room {
        // From its start, over what was there.
        let (n, back) = ours.recv_into(bytes).await.unwrap();
        assert_eq!(n, back.len());
        check(&back, count);
        (count, bytes) = (count + n, back);
    }
    bytes.clear();
    bytes.reserve(2 * room);
    while count < 3 * room {
        let at = bytes.len();
        let (n, slice) = ours.recv_into(bytes.slice_mut(at..)).await.unwrap();
        assert!(n > 0);
        bytes = slice.into_inner();
        assert_eq!(bytes.len(), at + n);
        check(&bytes[at..], count);
        count += n;
    }
    assert_eq!(ours.recv_into(BytesMut::new()).await.unwrap().0, 0, "it has no room");
    let (n, bytes) = ours.recv_into(bytes).await.unwrap();
    assert_eq!((n, bytes.len()), (0, 0), "the end of the stream");
    sender.await.unwrap();
}

#[quoit::test(seeds = 16)]
async fn files_read_into_and_write_from_them() {
    let folder = std::env::temp_dir();
    let name = format!("quoit-bytes-{}-{}", std::process::id(), is_simulated());
    let path = if is_simulated() { name.into() } else { folder.join(name) };
    let file = File::options().read(true).write(true).create(true).open(&path).await.unwrap();
    let all = Bytes::from(pattern(0, 10_000));
    let mut at = 0;
    while at < all.len() {
        let part = all.slice(at..all.len().min(at + 4_000));
        let (count, _) = file.write_at(part, at as u64).await.unwrap();
        at += count;
    }
    let mut bytes = BytesMut::with_capacity(10_000);
    while bytes.len() < 10_000 {
        let at = bytes.len();
        let (n, slice) = file.read_at(bytes.slice_mut(at..10_000), at as u64).await.unwrap();
        assert!(n > 0);
        bytes = slice.into_inner();
    }
    assert_eq!(bytes, all);
    let (n, tail) = file.read_at(BytesMut::with_capacity(64), 9_990).await.unwrap();
    check(&tail, 9_990);
    assert_eq!(n, tail.len());
    file.close().await.unwrap();
    if !is_simulated() {
        std::fs::remove_file(path).unwrap();
    }
}
