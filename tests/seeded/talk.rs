//! Conversations: both sides send frames and read them, by every tier, with futures dropped at any
//! poll. Each frame arrives whole or not at all, in order, and all that were reported sent arrive.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use quoit::buffer::Lease;
use quoit::net::{TcpListener, TcpStream};
use quoit::time;

use crate::dice::Dice;
use crate::listen::accept;
use crate::under_seeds;

/// A frame: its number, its length, and bytes that follow from both.
fn frame(id: u8, length: usize) -> Vec<u8> {
    let body = (0..length).map(|at| id.wrapping_mul(31).wrapping_add(at as u8));
    [id, length as u8].into_iter().chain(body).collect()
}

/// What became of a frame, as far as its sender knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Sent,
    /// Its future was dropped: it goes out whole, or not at all.
    Unknown,
    NotSent,
}

/// Sends frames until the last, or until the connection fails.
async fn write(stream: &TcpStream, dice: &Dice) -> Vec<Fate> {
    let mut fates = Vec::new();
    for id in 0..dice.up_to(12) as u8 {
        dice.dawdle().await;
        let bytes = frame(id, dice.below(60));
        fates.push(match dice.below(4) {
            0 => match dice.maybe(stream.send(bytes)).await {
                Some(sent) => {
                    sent.unwrap();
                    Fate::Sent
                }
                None => Fate::Unknown,
            },
            1 => write_slices(stream, &bytes, dice).await,
            2 => send_with_limit(stream, bytes, dice).await,
            _ => {
                stream.send_all(bytes).await.unwrap();
                Fate::Sent
            }
        });
        match dice.below(8) {
            0 => drop(dice.maybe(stream.flush()).await),
            1 => drop(dice.maybe(stream.writable()).await),
            _ => {}
        }
    }
    fates
}

/// A dropped `write` has taken nothing, so it can be tried again.
async fn write_slices(stream: &TcpStream, bytes: &[u8], dice: &Dice) -> Fate {
    let mut sent = 0;
    while sent < bytes.len() {
        let end = sent + dice.up_to(bytes.len() - sent);
        let written = if dice.one_in(4) {
            match stream.try_write(&bytes[sent..end]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.writable().await.unwrap();
                    continue;
                }
                written => Some(written),
            }
        } else {
            dice.maybe(stream.write(&bytes[sent..end])).await
        };
        sent += written.map_or(0, Result::unwrap);
    }
    Fate::Sent
}

/// An explicit limit tells the exact count, so the rest can follow.
async fn send_with_limit(stream: &TcpStream, bytes: Vec<u8>, dice: &Dice) -> Fate {
    match stream.send(bytes.clone()).timeout(dice.moment()).await {
        Ok((count, back)) => {
            assert_eq!(back, bytes);
            if count < bytes.len() {
                stream.send_all(bytes[count..].to_vec()).await.unwrap();
            }
            Fate::Sent
        }
        Err(error) => {
            assert_eq!(error.error().kind(), io::ErrorKind::TimedOut);
            Fate::NotSent
        }
    }
}

/// What was read, and leases that are kept for a while, each with its place in it.
#[derive(Default)]
struct Got {
    bytes: Vec<u8>,
    kept: Vec<(usize, Lease)>,
}

impl Got {
    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes a lease's bytes, and keeps it now and then. Answers how many there were.
    fn take(&mut self, lease: Lease, dice: &Dice) -> usize {
        let (at, length) = (self.bytes.len(), lease.len());
        self.extend(&lease);
        match dice.below(3) {
            0 => self.kept.push((at, lease)),
            1 => self.keep_a_part(at, lease, dice),
            _ => {}
        }
        length
    }

    /// Both parts hold the buffer.
    fn keep_a_part(&mut self, at: usize, mut lease: Lease, dice: &Dice) {
        let front = lease.split_to(dice.below(lease.len() + 1));
        let back = (at + front.len(), lease);
        self.kept.push(if dice.one_in(2) { (at, front) } else { back });
    }

    /// Lets go of some leases, which nobody may have written to.
    fn let_go(&mut self, count: usize) {
        for (at, lease) in self.kept.drain(..count) {
            assert_eq!(lease[..], self.bytes[at..at + lease.len()], "a lease has changed");
        }
    }
}

/// Reads to the end of the stream.
async fn read(stream: &TcpStream, dice: &Dice) -> Vec<u8> {
    let mut got = Got::default();
    loop {
        dice.dawdle().await;
        let before = got.bytes.len();
        let read = read_some(stream, &mut got, dice).await;
        let kept = got.kept.len();
        got.let_go(dice.below(kept + 1));
        if let Some(read) = read {
            let count = read.unwrap();
            if count == 0 {
                assert_eq!(got.bytes.len(), before);
                got.let_go(got.kept.len());
                return got.bytes;
            }
        }
    }
}

/// One read of some tier. `None`: it was dropped; 0: the stream has ended.
async fn read_some(stream: &TcpStream, got: &mut Got, dice: &Dice) -> Option<io::Result<usize>> {
    match dice.below(10) {
        0 | 1 => {
            let lease = dice.maybe(stream.recv()).await?;
            Some(lease.map(|lease| got.take(lease, dice)))
        }
        2 => match stream.recv().timeout(dice.moment()).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            lease => Some(lease.map(|lease| got.take(lease, dice))),
        },
        3 => {
            let mut into = vec![0; dice.up_to(40)];
            let count = dice.maybe(stream.read(&mut into)).await?;
            Some(count.inspect(|count| got.extend(&into[..*count])))
        }
        4 => {
            let mut into = vec![0; dice.up_to(40)];
            match dice.maybe(stream.read_exact(&mut into)).await? {
                // What it had read went back.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                read => Some(read.map(|_| {
                    got.extend(&into);
                    into.len()
                })),
            }
        }
        5 => {
            let mut line = Vec::new();
            match dice.maybe(stream.read_until(7, &mut line, dice.up_to(40))).await? {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
                read => Some(read.inspect(|_| got.extend(&line))),
            }
        }
        6 => {
            let mut into = vec![0; dice.up_to(40)];
            let peeked = dice.maybe(stream.peek(&mut into)).await?;
            // A look takes nothing: what it saw comes again.
            let count = match peeked {
                Ok(count) => count,
                Err(error) => return Some(Err(error)),
            };
            let mut same = vec![0; count];
            let read = stream.read_exact(&mut same).await;
            assert_eq!(same, into[..count], "another look saw something else");
            got.extend(&same);
            (count > 0).then_some(read.map(|_| count))
        }
        7 => {
            let into = Vec::with_capacity(dice.up_to(40));
            let read = dice.maybe(stream.recv_into(into)).await?;
            Some(read.map_err(|error| error.into_parts().0).map(|(count, into)| {
                got.extend(&into);
                count
            }))
        }
        8 => {
            // Never to the end: it waits until the other side has read, who may do the same.
            if dice.one_in(2) {
                drop(dice.cut(stream.detach()).await);
            } else {
                drop(time::timeout(dice.moment(), stream.detach()).await);
            }
            None
        }
        _ => {
            drop(dice.maybe(stream.readable()).await);
            None
        }
    }
}

/// The frames are whole and in order, and those that were sent are there.
fn check(fates: &[Fate], got: &[u8]) {
    let (mut rest, mut next) = (got, 0);
    while let [id, length, body @ ..] = rest {
        assert!(*id >= next, "frame {id} came again or late");
        let lost = fates[usize::from(next)..usize::from(*id)].iter().position(|f| *f == Fate::Sent);
        assert_eq!(lost, None, "a frame after {next} is missing before {id}");
        assert_ne!(fates[usize::from(*id)], Fate::NotSent, "frame {id} was taken back");
        assert!(body.len() >= usize::from(*length), "frame {id} is cut short");
        let whole = frame(*id, usize::from(*length));
        assert_eq!(rest[..whole.len()], whole, "frame {id} is damaged");
        rest = &rest[whole.len()..];
        next = id + 1;
    }
    assert!(rest.is_empty(), "half a header");
    let lost = fates[usize::from(next)..].iter().position(|fate| *fate == Fate::Sent);
    assert_eq!(lost, None, "a frame after {next} is missing at the end");
}

/// One side: reads and writes at once, finishes, and closes.
async fn side(stream: TcpStream, dice: Dice) -> (Vec<Fate>, Vec<u8>) {
    let stream = Rc::new(stream);
    let (writer, writers_dice) = (stream.clone(), dice.clone());
    let writing = quoit::spawn(async move {
        let fates = write(&writer, &writers_dice).await;
        writer.shutdown().await.unwrap();
        fates
    });
    let got = read(&stream, &dice).await;
    let fates = writing.await.unwrap();
    let stream = Rc::into_inner(stream).expect("the writer is done");
    if dice.one_in(2) {
        stream.close().await.unwrap();
    }
    (fates, got)
}

#[test]
fn conversations_lose_repeat_and_reorder_nothing() {
    under_seeds(1000, conversations);
}

type Results = Vec<(SocketAddr, (Vec<Fate>, Vec<u8>))>;

/// Some connections, and a conversation on each.
pub(crate) async fn conversations(dice: Dice) -> Results {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = dice.up_to(3);
    let mut sides = Vec::new();
    for _ in 0..clients {
        let dice = dice.clone();
        sides.push(quoit::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let local = stream.local_addr().unwrap();
            (local, side(stream, dice.clone()).await)
        }));
    }
    let mut others = Vec::new();
    for _ in 0..clients {
        let stream = accept(&listener, &dice).await;
        let dice = dice.clone();
        others.push(quoit::spawn(async move {
            let peer = stream.peer_addr().unwrap();
            (peer, side(stream, dice.clone()).await)
        }));
    }
    let mut results = Vec::new();
    for side in sides.into_iter().chain(others) {
        results.push(side.await.unwrap());
    }
    results.sort_by_key(|(client, _)| *client);
    for pair in results.chunks(2) {
        let [(_, (fates, got)), (_, (others_fates, others_got))] = pair else {
            panic!("two sides of each connection")
        };
        check(fates, others_got);
        check(others_fates, got);
    }
    results
}

#[test]
fn concurrent_reads_are_served_in_the_order_of_their_first_poll() {
    under_seeds(1500, |dice| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent: Vec<u8> = (0..dice.below(300)).map(|at| (at * 13) as u8).collect();
        let sending = {
            let (dice, sent) = (dice.clone(), sent.clone());
            quoit::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                for part in sent.chunks(dice.up_to(50)) {
                    dice.dawdle().await;
                    stream.send_all(part.to_vec()).await.unwrap();
                }
                stream.shutdown().await.unwrap();
                stream.close().await.unwrap();
            })
        };
        let stream = Rc::new(accept(&listener, &dice).await);
        // Whoever is served first notes it first: both happen in one poll.
        let got = Rc::new(RefCell::new(Got::default()));
        let mut readers = Vec::new();
        for _ in 0..dice.up_to(4) {
            let (stream, got, dice) = (stream.clone(), got.clone(), dice.clone());
            readers.push(quoit::spawn(async move {
                while read_beside_others(&stream, &got, &dice).await.unwrap() > 0 {
                    dice.dawdle().await;
                }
            }));
        }
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(got.borrow().bytes, sent);
        drop(stream);
        sending.await.unwrap();
    });
}

/// One read; 0 is the end. A dropped one counts as one that got something.
async fn read_beside_others(
    stream: &TcpStream,
    got: &RefCell<Got>,
    dice: &Dice,
) -> io::Result<usize> {
    let read = match dice.below(3) {
        0 => {
            let lease = dice.maybe(async {
                let lease = stream.recv().await?;
                got.borrow_mut().extend(&lease);
                Ok(lease.len())
            });
            lease.await
        }
        1 => {
            let mut into = vec![0; dice.up_to(40)];
            let read = async {
                let count = stream.read(&mut into).await?;
                got.borrow_mut().extend(&into[..count]);
                Ok(count)
            };
            dice.maybe(read).await
        }
        _ => {
            let mut into = vec![0; dice.up_to(40)];
            let read = async {
                match stream.read_exact(&mut into).await {
                    Ok(_) => got.borrow_mut().extend(&into),
                    // It gave back what it had: others take that.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                    Err(error) => return Err(error),
                }
                Ok(1)
            };
            dice.maybe(read).await
        }
    };
    read.unwrap_or(Ok(1))
}
