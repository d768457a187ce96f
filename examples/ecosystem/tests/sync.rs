//! Channels, locks and streams of other crates: their wakes arrive wherever the other end is, and a
//! future that loses a `select!` takes nothing along.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::{FuturesUnordered, iter};
use futures::{AsyncReadExt, AsyncWriteExt, SinkExt, StreamExt};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::spawn_blocking;
use quoit::time::{sleep, timeout};
use quoit::{Cores, Runtime};
use tokio::sync::{Barrier, Notify, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::io::{CopyToBytes, ReaderStream, SinkWriter, StreamReader};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

const COUNT: u64 = 300;

type End = BoxFuture<'static, ()>;

/// Runs two ends of something: as two tasks of this core; on this core and one of another runtime;
/// on two cores of one runtime; on this core and a thread of tokio's.
async fn everywhere(make: impl Fn() -> (End, End)) {
    let all = async {
        let (here, there) = make();
        let there = quoit::spawn(there);
        here.await;
        there.await.unwrap();

        let (here, there) = make();
        let there = thread::spawn(|| quoit::block_on(there));
        here.await;
        spawn_blocking(|| there.join().unwrap()).await.unwrap();

        let (one, other) = make();
        let ends = Arc::new(Mutex::new(vec![one, other]));
        let both = spawn_blocking(|| {
            let runtime = Runtime::builder().cores(Cores::Count(2)).pin(false);
            runtime.run(move |_| ends.lock().unwrap().pop().unwrap())
        });
        both.await.unwrap().unwrap();

        let (here, there) = make();
        let there = thread::spawn(|| {
            let mut tokio = tokio::runtime::Builder::new_current_thread();
            tokio.build().unwrap().block_on(there);
        });
        here.await;
        spawn_blocking(|| there.join().unwrap()).await.unwrap();
    };
    timeout(SOON, all).await.expect("a wake was missed");
}

#[quoit::test]
async fn tokios_channels() {
    everywhere(|| {
        let (send, mut receive) = mpsc::channel(1);
        let (back, mut answers) = mpsc::unbounded_channel();
        let here = async move {
            for number in 0..COUNT {
                send.send(number).await.unwrap();
                assert_eq!(answers.recv().await, Some(number + 1));
            }
        };
        let there = async move {
            while let Some(number) = receive.recv().await {
                back.send(number + 1).unwrap();
            }
        };
        (here.boxed(), there.boxed())
    })
    .await;
    everywhere(|| {
        let (send, mut receive) = mpsc::unbounded_channel::<oneshot::Sender<u64>>();
        let here = async move {
            for number in 0..COUNT {
                let (answer, answered) = oneshot::channel();
                send.send(answer).unwrap();
                assert_eq!(answered.await, Ok(number));
            }
        };
        let there = async move {
            for number in 0.. {
                let Some(answer) = receive.recv().await else { return };
                answer.send(number).unwrap();
            }
        };
        (here.boxed(), there.boxed())
    })
    .await;
    everywhere(|| {
        let (send, mut receive) = watch::channel(0);
        let here = async move {
            for number in 1..=COUNT {
                send.send(number).unwrap();
                quoit_or_not().await;
            }
        };
        let there = async move {
            let last = receive.wait_for(|number| *number == COUNT).await;
            assert!(last.is_ok_and(|number| *number == COUNT));
        };
        (there.boxed(), here.boxed())
    })
    .await;
    everywhere(|| {
        let (send, mut receive) = broadcast::channel(2 * COUNT as usize);
        let here = async move {
            for number in 0..COUNT {
                send.send(number).unwrap();
                quoit_or_not().await;
            }
        };
        let there = async move {
            for number in 0..COUNT {
                assert_eq!(receive.recv().await, Ok(number));
            }
        };
        (there.boxed(), here.boxed())
    })
    .await;
}

/// Lets others go on, on whatever runtime this is.
async fn quoit_or_not() {
    let mut yielded = false;
    let once = std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    });
    once.await;
}

#[quoit::test]
async fn tokios_locks() {
    everywhere(|| {
        let count = Arc::new(tokio::sync::Mutex::new(0));
        let end = |count: Arc<tokio::sync::Mutex<u64>>| async move {
            for _ in 0..COUNT {
                let mut held = count.lock().await;
                let before = *held;
                // Held across an await, where the other end asks for it.
                quoit_or_not().await;
                *held = before + 1;
            }
            while *count.lock().await < 2 * COUNT {
                quoit_or_not().await;
            }
        };
        (end(count.clone()).boxed(), end(count).boxed())
    })
    .await;
    everywhere(|| {
        let count = Arc::new(RwLock::new(0));
        let written = count.clone();
        let here = async move {
            for _ in 0..COUNT {
                let mut held = written.write().await;
                quoit_or_not().await;
                *held += 1;
            }
        };
        let there = async move {
            while *count.read().await < COUNT {
                quoit_or_not().await
            }
        };
        (here.boxed(), there.boxed())
    })
    .await;
    everywhere(|| {
        // Two semaphores that hand one permit to and fro.
        let (ping, pong) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let end = |mine: Arc<Semaphore>, other: Arc<Semaphore>, first: bool| async move {
            for _ in 0..COUNT {
                if first {
                    other.add_permits(1);
                }
                mine.acquire().await.unwrap().forget();
                if !first {
                    other.add_permits(1);
                }
            }
        };
        (end(ping.clone(), pong.clone(), true).boxed(), end(pong, ping, false).boxed())
    })
    .await;
    everywhere(|| {
        let (ping, pong) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let end = |mine: Arc<Notify>, other: Arc<Notify>, first: bool| async move {
            for _ in 0..COUNT {
                if first {
                    other.notify_one();
                }
                mine.notified().await;
                if !first {
                    other.notify_one();
                }
            }
        };
        (end(ping.clone(), pong.clone(), true).boxed(), end(pong, ping, false).boxed())
    })
    .await;
    everywhere(|| {
        let barrier = Arc::new(Barrier::new(2));
        let end = |barrier: Arc<Barrier>| async move {
            for _ in 0..COUNT {
                barrier.wait().await;
            }
        };
        (end(barrier.clone()).boxed(), end(barrier).boxed())
    })
    .await;
    everywhere(|| {
        let token = CancellationToken::new();
        let child = token.child_token();
        let here = async move {
            quoit_or_not().await;
            token.cancel();
        };
        (here.boxed(), async move { child.cancelled().await }.boxed())
    })
    .await;
}

#[quoit::test]
async fn other_channels() {
    everywhere(|| {
        let (send, receive) = async_channel::bounded(1);
        let (back, answers) = flume::bounded(1);
        let here = async move {
            for number in 0..COUNT {
                send.send(number).await.unwrap();
                assert_eq!(answers.recv_async().await, Ok(number + 1));
            }
        };
        let there = async move {
            while let Ok(number) = receive.recv().await {
                back.send_async(number + 1).await.unwrap();
            }
        };
        (here.boxed(), there.boxed())
    })
    .await;
    everywhere(|| {
        let (mut send, receive) = futures::channel::mpsc::channel(0);
        let here = async move {
            for number in 0..COUNT {
                send.send(number).await.unwrap();
            }
        };
        let there = async move {
            assert_eq!(receive.fold(0, async |sum, number| sum + number).await, (0..COUNT).sum());
        };
        (here.boxed(), there.boxed())
    })
    .await;
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = futures::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

#[quoit::test]
async fn combinators_of_futures() {
    let work = async {
        // As they come, not as they were begun.
        let sleeps = [30, 1, 15].map(async |length: u64| {
            sleep(Duration::from_millis(length)).await;
            length
        });
        let order: Vec<_> = FuturesUnordered::from_iter(sleeps).collect().await;
        assert_eq!(order, [1, 15, 30]);

        let most = std::cell::Cell::new((0, 0));
        let bounded = iter(0..40).map(async |number| {
            let (now, max) = most.get();
            most.set((now + 1, max.max(now + 1)));
            sleep(Duration::from_millis(1)).await;
            most.set((most.get().0 - 1, most.get().1));
            number
        });
        let sum = bounded.buffer_unordered(5).fold(0, async |sum, number| sum + number).await;
        assert_eq!((sum, most.get()), (780, (0, 5)));

        let (send, receive) = mpsc::channel(1);
        let merged = tokio_stream::StreamExt::merge(
            tokio_stream::wrappers::ReceiverStream::new(receive),
            iter([1_u64, 2]),
        );
        let sending = async move {
            for number in [3, 4] {
                send.send(number).await.unwrap();
            }
        };
        let ((), sum) = futures::join!(sending, merged.fold(0, async |sum, number| sum + number));
        assert_eq!(sum, 10);
    };
    timeout(SOON, work).await.expect("it hangs");
}

/// Both macros; the other branch wins every second time, and what it beats is dropped half-way.
#[quoit::test]
async fn the_loser_of_a_select_loses_nothing() {
    const CLIENTS: u8 = 60;
    const BYTES: usize = 200_000;
    let work = async {
        // accept
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clients = quoit::spawn(async move {
            for number in 0..CLIENTS {
                TcpStream::connect(address).await.unwrap().send_all(vec![number]).await.unwrap();
            }
        });
        let mut seen = Vec::new();
        let mut lost = 0;
        while seen.len() < usize::from(CLIENTS) {
            tokio::select! {
                biased;
                () = sleep(Duration::from_micros(50)), if lost % 2 == 0 => {}
                accepted = listener.accept() => {
                    let mut byte = [0];
                    accepted.unwrap().0.read_exact(&mut byte).await.unwrap();
                    seen.push(byte[0]);
                }
                () = quoit::task::yield_now() => {}
            }
            lost += 1;
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..CLIENTS) && lost > usize::from(CLIENTS), "{lost}");
        clients.await.unwrap();

        // recv and read_exact
        let (client, server) = pair().await;
        let sending = quoit::spawn(async move {
            for at in (0..BYTES).step_by(100) {
                let bytes: Vec<u8> = (at..at + 100).map(|at| (at % 251) as u8).collect();
                client.send_all(bytes).await.unwrap();
                if at % 1000 == 0 {
                    quoit::task::yield_now().await;
                }
            }
        });
        let mut got = Vec::new();
        let mut whole = [0; 777];
        while got.len() < BYTES {
            if got.len() % 2 == 0 {
                futures::select_biased! {
                    lease = server.recv().fuse() => got.extend_from_slice(&lease.unwrap()),
                    () = quoit::task::yield_now().fuse() => {}
                }
            }
            let left = BYTES - got.len();
            let wanted = left.min(777);
            tokio::select! {
                result = server.read_exact(&mut whole[..wanted]) => {
                    result.unwrap();
                    got.extend_from_slice(&whole[..wanted]);
                }
                () = quoit::task::yield_now() => {}
            }
        }
        assert!(got.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        sending.await.unwrap();
    };
    timeout(SOON, work).await.expect("it hangs");
}

#[quoit::test]
async fn codecs_and_adapters_of_tokio_util() {
    let work = async {
        let frames: Vec<Vec<u8>> = (0..50).map(|at| vec![at as u8; at * 997]).collect();
        let (client, server) = pair().await;
        let mut client = Framed::new(client, LengthDelimitedCodec::new());
        let mut server = Framed::new(server, LengthDelimitedCodec::new());
        let echo = async {
            while let Some(frame) = server.next().await {
                server.send(frame.unwrap().freeze()).await.unwrap();
            }
        };
        let asking = async {
            for frame in &frames {
                client.send(Bytes::from(frame.clone())).await.unwrap();
                assert_eq!(client.next().await.unwrap().unwrap(), frame);
            }
            SinkExt::<Bytes>::close(&mut client).await.unwrap();
        };
        futures::join!(echo, asking);

        // Leases as a stream, read again by tokio's traits; and a sink, written to.
        let (client, server) = pair().await;
        let sending = quoit::spawn(async move {
            client.send_all(vec![7; 300_000]).await.unwrap();
            client.close().await.unwrap();
        });
        let mut reader = StreamReader::new(ReaderStream::new(server));
        let (send, received) = futures::channel::mpsc::channel(4);
        let send = send.sink_map_err(std::io::Error::other);
        let mut writer = SinkWriter::new(CopyToBytes::new(send));
        let copying = async move {
            let count = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            drop(writer);
            count
        };
        let counting = received.fold(0, async |sum, bytes: Bytes| sum + bytes.len());
        assert_eq!(futures::join!(copying, counting), (300_000, 300_000));
        sending.await.unwrap();

        // tokio's traits as those of futures.
        let (client, server) = pair().await;
        let mut client = tokio_util::compat::TokioAsyncReadCompatExt::compat(client);
        client.write_all(b"through a compat").await.unwrap();
        client.close().await.unwrap();
        let mut text = String::new();
        let mut server = tokio_util::compat::TokioAsyncReadCompatExt::compat(server);
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "through a compat");
    };
    timeout(SOON, work).await.expect("it hangs");
}

#[quoit::test]
async fn streams_are_compressed() {
    use async_compression::futures::{bufread::GzipDecoder, write::GzipEncoder};
    let text = "the same again, ".repeat(10_000);
    let (client, server) = pair().await;
    let sending = async {
        let mut encoder = GzipEncoder::new(client);
        encoder.write_all(text.as_bytes()).await.unwrap();
        encoder.close().await.unwrap();
    };
    let receiving = async {
        let mut got = String::new();
        GzipDecoder::new(server).read_to_string(&mut got).await.unwrap();
        got
    };
    let both = futures::future::join(sending, receiving);
    let ((), got) = timeout(SOON, both).await.expect("it hangs");
    assert!(got == text);
}

/// Many tasks, one semaphore, one core: fair, and all of them get through.
#[quoit::test]
async fn many_tasks_share_a_permit() {
    let permits = Arc::new(Semaphore::new(2));
    let tasks = (0..200).map(|_| {
        let permits = permits.clone();
        quoit::spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            quoit::task::yield_now().await;
        })
    });
    let all = timeout(SOON, join_all(tasks)).await.expect("it hangs");
    assert!(all.into_iter().all(|task| task.is_ok()));
}
