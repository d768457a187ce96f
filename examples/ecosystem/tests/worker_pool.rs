//! Answers come in order, waits are handed on, and a stop leaves nothing unanswered.

use std::net::SocketAddr;
use std::time::Duration;

use ecosystem::worker_pool::{Pool, serve};
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::JoinHandle;
use quoit::time::timeout;
use tokio_util::codec::{Framed, LinesCodec};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

async fn start() -> (SocketAddr, CancellationToken, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = quoit::spawn(serve(listener, Pool::start(2, 4), stop.clone()));
    (address, stop, server)
}

async fn connect(address: SocketAddr) -> Framed<TcpStream, LinesCodec> {
    Framed::new(TcpStream::connect(address).await.unwrap(), LinesCodec::new())
}

#[quoit::test]
async fn answers_come_in_order() {
    let (address, stop, server) = start().await;
    let clients = (0..10).map(async |client: u64| {
        let (mut send, receive) = connect(address).await.split();
        // Large and small in turns: the small ones are done first.
        let numbers: Vec<u64> =
            (0..60).map(|at| if at % 3 == 0 { 999_983 } else { 2 * (client + at) + 4 }).collect();
        let lines = numbers.iter().map(|number| number.to_string());
        let asking = async {
            for line in lines {
                send.send(line).await.unwrap();
            }
            send.send("seven".to_owned()).await.unwrap();
            send.close().await.unwrap();
        };
        let answers = receive.map(Result::unwrap).collect::<Vec<_>>();
        let ((), answers) = futures::join!(asking, answers);
        let wanted = numbers.iter().map(|n| if *n == 999_983 { 1 } else { n / 2 });
        let wanted: Vec<_> = wanted.map(|factor| factor.to_string()).collect();
        assert_eq!(answers[..60], wanted);
        assert_eq!(answers[60], "no number: invalid digit found in string");
    });
    timeout(SOON, join_all(clients)).await.expect("it hangs");
    stop.cancel();
    timeout(SOON, server).await.expect("it hangs").unwrap().unwrap();
}

#[quoit::test]
async fn a_stop_answers_what_was_asked() {
    let (address, stop, server) = start().await;
    let mut client = connect(address).await;
    client.send("15".to_owned()).await.unwrap();
    assert_eq!(timeout(SOON, client.next()).await.unwrap().unwrap().unwrap(), "5");
    client.send("21".to_owned()).await.unwrap();
    // Until it has been read: then it is in flight, whatever comes.
    quoit::time::sleep(Duration::from_millis(30)).await;
    stop.cancel();
    let rest: Vec<_> = timeout(SOON, client.map(Result::unwrap).collect()).await.unwrap();
    assert_eq!(rest, ["7"]);
    timeout(SOON, server).await.expect("it hangs").unwrap().unwrap();
}

#[quoit::test]
async fn a_client_that_goes_away_is_skipped() {
    let (address, stop, server) = start().await;
    let mut gone = connect(address).await;
    for _ in 0..50 {
        gone.feed("999983".to_owned()).await.unwrap();
    }
    SinkExt::<String>::flush(&mut gone).await.unwrap();
    gone.into_inner().abort();
    let mut client = connect(address).await;
    client.send("15".to_owned()).await.unwrap();
    assert_eq!(timeout(SOON, client.next()).await.unwrap().unwrap().unwrap(), "5");
    drop(client);
    stop.cancel();
    timeout(SOON, server).await.expect("it hangs").unwrap().unwrap();
}
