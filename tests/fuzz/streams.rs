//! Operations on listeners and streams. Each tells the ledger what it did in the poll that did it.

use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpSocket, TcpStream};

use crate::ledger::{Fate, Sending, Shared};
use crate::place::{Held, Place, run, run_free};
use crate::program::{How, Op, PLACES, Read, Write};

const NAMES: [&str; 2] = ["a", "b"];

pub(crate) async fn perform(place: &Place, op: Op) {
    match op {
        Op::Listen { at, port } => listen(place, at, port),
        Op::Accept { from, into, how } => accept(place, from, into, how).await,
        Op::CloseListener { at, how } => close_listener(place, at, how).await,
        Op::DropListener(at) => drop(place.take_listener(at)),
        Op::Connect { host, port, into, how } => connect(place, (host, port), into, how).await,
        Op::Read { at, by, length, how } => {
            if let Some(held) = place.stream(at, |held| !matches!(held, Held::Writer(..))) {
                // Halves only have reads that stand in line.
                let stands = !is_whole(&held) || !matches!(by, Read::Readable | Read::Try);
                run_on(place, &held, how, stands, read(place, &held, by, length, how)).await;
            }
        }
        Op::Write { at, by, length, how } => {
            if let Some(held) = place.stream(at, |held| !matches!(held, Held::Reader(..))) {
                // A lease would be lost to its pool.
                let how = if matches!(by, Write::Lease) { how.unforgotten() } else { how };
                let stands = !is_whole(&held) || !matches!(by, Write::Writable | Write::Try);
                run_on(place, &held, how, stands, write(place, &held, by, length, how)).await;
            }
        }
        Op::Shutdown { at, how } => {
            if let Some(held) = place.stream(at, |held| !matches!(held, Held::Reader(..))) {
                run_on(place, &held, how, true, shut_down(place, &held)).await;
            }
        }
        Op::Detach { at, how } => {
            let Some(held) = place.stream(at, is_whole) else { return };
            if let Held::Whole(stream, _) = &held {
                run_on(place, &held, how, true, stream.detach()).await;
            }
        }
        Op::Close { at, how } => {
            if let Some(stream) = take_alone(place, at) {
                run(how.unforgotten(), stream.0.close()).await;
            }
        }
        Op::Abort(at) => {
            if let Some(stream) = take_alone(place, at) {
                stream.0.abort();
            }
        }
        Op::Drop(at) => drop(place.take_stream(at, |_| true)),
        Op::Split { at, into } => split(place, at, into),
        Op::Reunite(at) => reunite(place, at),
        Op::SplitLease(at) => split_lease(place, at),
        Op::DropLease(at) => drop_lease(place, at),
        _ => unreachable!("not about a stream: {op:?}"),
    }
}

/// As `run`, for what `stands` in a line of a connection.
async fn run_on<F: Future>(place: &Place, held: &Held, how: How, stands: bool, future: F) {
    let (Held::Whole(_, ways) | Held::Reader(_, ways) | Held::Writer(_, ways)) = held;
    let is_free = || !place.shared.lock().is_stuck(*ways);
    let is_undone = run_free(how, is_free, future).await.is_none();
    if let (true, true, How::Forget(1..)) = (is_undone, stands, how) {
        place.shared.lock().stuck(*ways);
    }
}

fn is_whole(held: &Held) -> bool {
    matches!(held, Held::Whole(..))
}

/// A stream that nobody uses at this moment.
fn take_alone(place: &Place, at: usize) -> Option<(TcpStream, (usize, usize))> {
    let idle = |held: &Held| matches!(held, Held::Whole(one, _) if Arc::strong_count(one) == 1);
    match place.take_stream(at, idle)? {
        Held::Whole(stream, ways) => Some((Arc::into_inner(stream)?, ways)),
        _ => None,
    }
}

fn listen(place: &Place, at: usize, port: u16) {
    let Ok(socket) = TcpSocket::new_v4() else { return };
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    if socket.bind(address).is_err() {
        return;
    }
    if let Ok(listener) = socket.listen(4) {
        let before = place.objects().listeners[at].replace(Arc::new(listener));
        drop(before);
    }
}

/// A connection that was just handed out.
pub(crate) fn hold(place: &Place, stream: TcpStream, into: usize, peer: Option<SocketAddr>) {
    if let Some(linger) = place.linger {
        stream.set_linger(linger);
    }
    let peer = peer.or_else(|| stream.peer_addr().ok());
    let (Ok(local), Some(peer)) = (stream.local_addr(), peer) else { return };
    let ways = place.shared.lock().ways(local, peer);
    place.put_stream(into, Held::Whole(Arc::new(stream), ways));
}

async fn accept(place: &Place, from: usize, into: usize, how: How) {
    let Some(listener) = place.listener(from) else { return };
    let handed = |accepted: io::Result<(TcpStream, SocketAddr)>| match accepted {
        Ok((stream, peer)) => {
            place.shared.lock().handed += 1;
            hold(place, stream, into, Some(peer));
        }
        Err(error) => place.look_at("accept", &error),
    };
    let accepting = async {
        handed(match how {
            How::Limit(limit) => listener.accept().timeout(Duration::from_micros(limit)).await,
            _ => listener.accept().await,
        });
    };
    run(how, accepting).await;
}

async fn close_listener(place: &Place, at: usize, how: How) {
    let Some(listener) = place.take_listener(at).and_then(Arc::into_inner) else { return };
    close(place, listener, at, how).await;
}

/// Closes a listener and keeps what it gives back.
pub(crate) async fn close(place: &Place, listener: TcpListener, into: usize, how: How) {
    let closing = async {
        let undone = Undone(&place.shared);
        let returned = listener.close().await;
        std::mem::forget(undone);
        for (index, stream) in returned.into_iter().flatten().enumerate() {
            place.shared.lock().handed += 1;
            hold(place, stream, (into + index) % PLACES, None);
        }
    };
    run(how.unforgotten(), closing).await;
}

/// Dropped, whoever does it, with a close that is not over: what it would have returned is gone.
struct Undone<'a>(&'a Shared);

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        self.0.lock().discarded = true;
    }
}

async fn connect(place: &Place, (host, port): (usize, u16), into: usize, how: How) {
    // A connection whose end was forgotten lives as long as its host: nobody may wait for both.
    let how = if place.host == 1 && host == 0 { how } else { how.unforgotten() };
    // The other side may not listen yet.
    for _ in 0..3 {
        let name = (NAMES[host], port);
        let connecting = async {
            match how {
                How::Limit(limit) => {
                    let [v4, _] = quoit::sim::world().addresses(name.0);
                    let limit = Duration::from_micros(limit);
                    TcpStream::connect_timeout(&(v4, port).into(), limit).await
                }
                _ => TcpStream::connect(name).await,
            }
        };
        match run(how, connecting).await {
            Some(Ok(stream)) => return hold(place, stream, into, None),
            Some(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                quoit::time::sleep(Duration::from_millis(2)).await;
            }
            Some(Err(error)) => return place.look_at("connect", &error),
            None => return,
        }
    }
}

/// One read. What it got is noted before anything else can happen.
pub(crate) async fn read(place: &Place, held: &Held, by: Read, length: usize, how: How) {
    let way = match held {
        Held::Whole(_, (_, way)) | Held::Reader(_, (_, way)) | Held::Writer(_, (_, way)) => *way,
    };
    let outcome = match held {
        Held::Whole(stream, _) => read_whole(place, stream, by, (length, way), how).await,
        Held::Reader(reader, _) => match by {
            Read::Recv | Read::Peek | Read::Readable | Read::Try => {
                reader.recv().await.map(|lease| got_lease(place, way, lease))
            }
            Read::RecvInto => {
                let into = reader.recv_into(Vec::with_capacity(length)).await;
                into.map_err(io::Error::from).map(|(_, into)| got(place, way, &into))
            }
            Read::Slice => {
                let mut into = vec![0; length];
                reader.read(&mut into).await.map(|count| got(place, way, &into[..count]))
            }
            Read::Exact => {
                let mut into = vec![0; length];
                reader.read_exact(&mut into).await.map(|count| got(place, way, &into[..count]))
            }
            Read::Until => {
                let mut into = Vec::new();
                reader.read_until(7, &mut into, length).await.map(|_| got(place, way, &into))
            }
        },
        Held::Writer(..) => return,
    };
    if let Err(error) = outcome {
        read_failed(place, way, &error);
    }
}

pub(crate) fn read_failed(place: &Place, way: usize, error: &io::Error) {
    if error.raw_os_error().is_some() {
        place.shared.lock().broken(way);
    }
    place.look_at("a read", error);
}

async fn read_whole(
    place: &Place,
    stream: &TcpStream,
    by: Read,
    (length, way): (usize, usize),
    how: How,
) -> io::Result<()> {
    let mut into = vec![0; length];
    match by {
        Read::Recv => {
            let lease = match how {
                How::Limit(limit) => stream.recv().timeout(Duration::from_micros(limit)).await?,
                _ => stream.recv().await?,
            };
            got_lease(place, way, lease);
        }
        Read::RecvInto => {
            let (count, into) = stream.recv_into(Vec::with_capacity(length)).await?;
            assert_eq!(count, into.len());
            got(place, way, &into);
        }
        Read::Slice => {
            let count = stream.read(&mut into).await?;
            got(place, way, &into[..count]);
        }
        Read::Exact => {
            let count = stream.read_exact(&mut into).await?;
            got(place, way, &into[..count]);
        }
        Read::Until => {
            let mut line = vec![1, 2, 3];
            let count = stream.read_until(7, &mut line, length).await?;
            assert_eq!(line.len(), count + 3);
            got(place, way, &line[3..]);
        }
        Read::Peek => {
            let count = stream.peek(&mut into).await?;
            let mut ledger = place.shared.lock();
            ledger.peeked(way, &into[..count]);
            if count == 0 {
                ledger.ended(way);
            }
        }
        Read::Readable => stream.readable().await?,
        Read::Try => match stream.try_read(&mut into) {
            Ok(count) => got(place, way, &into[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        },
    }
    Ok(())
}

/// Nothing is the end: no buffer here is without room.
pub(crate) fn got(place: &Place, way: usize, bytes: &[u8]) {
    let mut ledger = place.shared.lock();
    ledger.got(way, bytes);
    if bytes.is_empty() {
        ledger.ended(way);
    }
}

fn got_lease(place: &Place, way: usize, lease: quoit::buffer::Lease) {
    got(place, way, &lease);
    if !lease.is_empty() {
        place.keep(lease);
    }
}

pub(crate) async fn write(place: &Place, held: &Held, by: Write, length: usize, how: How) {
    let way = match held {
        Held::Whole(_, (way, _)) | Held::Reader(_, (way, _)) | Held::Writer(_, (way, _)) => *way,
    };
    let outcome = match by {
        Write::Flush => match held {
            Held::Whole(stream, _) => stream.flush().await,
            Held::Writer(writer, _) => writer.flush().await,
            Held::Reader(..) => Ok(()),
        },
        Write::Writable => match held {
            Held::Whole(stream, _) => stream.writable().await,
            _ => Ok(()),
        },
        Write::Lease => send_lease(place, held, way).await,
        Write::Send | Write::SendAll => {
            let Some(sending) = place.shared.chunk(way, length, false) else { return };
            send(place, held, sending, how).await
        }
        Write::Slice | Write::Vectored | Write::Try => {
            let Some(sending) = place.shared.chunk(way, length, false) else { return };
            write_slice(held, by, sending).await
        }
        Write::All => {
            let Some(mut sending) = place.shared.chunk(way, length, true) else { return };
            let bytes = sending.bytes.clone();
            let written = match held {
                Held::Whole(stream, _) => stream.write_all(&bytes).await,
                Held::Writer(writer, _) => writer.write_all(&bytes).await,
                Held::Reader(..) => Ok(()),
            };
            written.map(|()| sending.if_dropped(Fate::Exactly(bytes.len())))
        }
    };
    if let Err(error) = outcome {
        write_failed(place, way, &error);
    }
}

async fn send(place: &Place, held: &Held, mut sending: Sending, how: How) -> io::Result<()> {
    let buffer = sending.counted();
    let length = sending.bytes.len();
    let sent = match (held, how) {
        // Dropped after its limit, it may have been cut anywhere.
        (Held::Whole(stream, _), How::Limit(limit)) => {
            stream.send(buffer).timeout(Duration::from_micros(limit)).await
        }
        (Held::Writer(writer, _), How::Limit(limit)) => {
            writer.send(buffer).timeout(Duration::from_micros(limit)).await
        }
        (Held::Whole(stream, _), _) => {
            sending.if_dropped(Fate::WholeOrNothing);
            stream.send(buffer).await
        }
        (Held::Writer(writer, _), _) => {
            sending.if_dropped(Fate::WholeOrNothing);
            writer.send(buffer).await
        }
        (Held::Reader(..), _) => return Ok(()),
    };
    match sent {
        Ok((count, back)) => {
            sending.if_dropped(Fate::Exactly(count));
            // Only what was stopped on its way is a part, and one of no bytes is an error.
            let is_part = matches!(how, How::Limit(_)) && count > 0;
            if back.bytes != sending.bytes || count < length && !is_part {
                let text = format!("a send of {length} answers {count} and {:?}", back.bytes);
                place.shared.lock().fail(text);
            }
            Ok(())
        }
        Err(failed) => {
            let (error, back) = failed.into_parts();
            // Out of time, and nothing was sent; else whatever went before it failed.
            let ours = error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none();
            sending.if_dropped(if ours { Fate::Exactly(0) } else { Fate::AnyPart });
            if let Some(back) = back.filter(|back| back.bytes != sending.bytes) {
                place.shared.lock().fail(format!("a failed send gives back {:?}", back.bytes));
            }
            Err(error)
        }
    }
}

async fn send_lease(place: &Place, held: &Held, way: usize) -> io::Result<()> {
    let Some((lease, bytes)) = place.objects().leases.pop() else { return Ok(()) };
    let Some(mut sending) = place.shared.chunk_of(way, bytes, false) else {
        return Ok(());
    };
    sending.if_dropped(Fate::WholeOrNothing);
    let sent = match held {
        Held::Whole(stream, _) => stream.send(lease).await,
        Held::Writer(writer, _) => writer.send(lease).await,
        Held::Reader(..) => return Ok(()),
    };
    match sent {
        Ok((count, lease)) => {
            sending.if_dropped(Fate::Exactly(count));
            let bytes = sending.bytes.clone();
            place.let_go((lease, bytes));
            Ok(())
        }
        Err(error) => {
            sending.if_dropped(Fate::AnyPart);
            Err(error.into())
        }
    }
}

/// What a slice write reports taken is what goes out, and nothing else ever.
async fn write_slice(held: &Held, by: Write, mut sending: Sending) -> io::Result<()> {
    sending.if_dropped(Fate::Exactly(0));
    let bytes = sending.bytes.clone();
    let (front, back) = bytes.split_at(bytes.len() / 3);
    let parts = [IoSlice::new(front), IoSlice::new(back)];
    let written = match (held, by) {
        (Held::Whole(stream, _), Write::Vectored) => stream.write_vectored(&parts).await,
        (Held::Whole(stream, _), Write::Try) => match stream.try_write(&bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        },
        (Held::Whole(stream, _), _) => stream.write(&bytes).await,
        (Held::Writer(writer, _), Write::Vectored) => writer.write_vectored(&parts).await,
        (Held::Writer(writer, _), _) => writer.write(&bytes).await,
        (Held::Reader(..), _) => Ok(0),
    };
    written.map(|count| sending.if_dropped(Fate::Exactly(count)))
}

fn write_failed(place: &Place, way: usize, error: &io::Error) {
    // Otherwise it is ours, and says nothing of the connection.
    if error.raw_os_error().is_some() {
        place.shared.lock().failed(way);
    }
    place.look_at("a write", error);
}

pub(crate) async fn shut_down(place: &Place, held: &Held) {
    let (way, ended) = match held {
        Held::Whole(stream, (way, _)) => (*way, stream.shutdown().await),
        Held::Writer(writer, (way, _)) => (*way, writer.shutdown().await),
        Held::Reader(..) => return,
    };
    if let Err(error) = ended {
        write_failed(place, way, &error);
    }
}

fn split(place: &Place, at: usize, into: usize) {
    let Some((stream, ways)) = take_alone(place, at) else { return };
    let (reader, writer) = stream.into_split();
    place.put_stream(into, Held::Reader(Arc::new(reader), ways));
    place.put_stream(into + 1, Held::Writer(Arc::new(writer), ways));
}

fn reunite(place: &Place, at: usize) {
    let reader = place.take_stream(at, |held| matches!(held, Held::Reader(..)));
    let writer = place.take_stream(at, |held| matches!(held, Held::Writer(..)));
    let (Some(Held::Reader(reader, ways)), Some(Held::Writer(writer, other))) = (reader, writer)
    else {
        return;
    };
    let (Some(reader), Some(writer)) = (Arc::into_inner(reader), Arc::into_inner(writer)) else {
        return;
    };
    match reader.reunite(writer) {
        Ok(stream) => place.put_stream(at, Held::Whole(Arc::new(stream), ways)),
        Err(halves) => {
            if ways == other {
                place.shared.lock().fail("halves of one stream cannot be reunited");
            }
            place.put_stream(at, Held::Reader(Arc::new(halves.0), ways));
            place.put_stream(at + 1, Held::Writer(Arc::new(halves.1), other));
        }
    }
}

fn split_lease(place: &Place, at: usize) {
    let mut objects = place.objects();
    let Some((mut lease, mut held)) = objects.leases.pop() else { return };
    let at = at.min(lease.len());
    let (front, rest) = (lease.split_to(at), held.split_off(at));
    objects.leases.push((front, held));
    objects.leases.push((lease, rest));
}

fn drop_lease(place: &Place, at: usize) {
    let lease = {
        let mut objects = place.objects();
        let count = objects.leases.len();
        (count > 0).then(|| objects.leases.swap_remove(at % count))
    };
    lease.into_iter().for_each(|lease| place.let_go(lease));
}
