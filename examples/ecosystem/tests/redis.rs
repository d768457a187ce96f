//! The crate `redis` on quoit's streams: against Redis itself, and against this package's `kv`.

mod servers;

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use ecosystem::kv::{Limits, server};
use ecosystem::redis_client::{Reconnecting, open, open_for_messages};
use futures::future::join_all;
use quoit::net::TcpListener;
use quoit::time::timeout;
use redis::{AsyncCommands, PushKind, cmd, pipe};
use servers::{Redis, SOON};

async fn kv() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    quoit::spawn(server::serve(listener, Limits::default(), pending::<()>()));
    address
}

/// What a client does with either.
async fn used(address: SocketAddr) {
    let mut client = open(address).await.unwrap();
    let binary = (0..200_000).map(|byte| byte as u8).collect::<Vec<_>>();
    let _: () = client.set("k\r\n\0", &binary).await.unwrap();
    assert!(client.get::<_, Vec<u8>>("k\r\n\0").await.unwrap() == binary);
    assert_eq!(client.get::<_, Option<String>>("none").await.unwrap(), None);
    let _: () = client.set_ex("gone soon", 1, 100).await.unwrap();
    assert!((99..=100).contains(&client.ttl::<_, i64>("gone soon").await.unwrap()));

    let piped: (i64, i64, Vec<Option<String>>) = pipe()
        .cmd("SET")
        .arg("a")
        .arg(41)
        .ignore()
        .cmd("INCR")
        .arg("a")
        .cmd("APPEND")
        .arg("b")
        .arg("xyz")
        .cmd("MGET")
        .arg("a")
        .arg("none")
        .arg("b")
        .query_async(&mut client)
        .await
        .unwrap();
    assert_eq!(piped, (42, 3, vec![Some("42".into()), None, Some("xyz".into())]));
    let error = client.incr::<_, _, i64>("b", 1).await.unwrap_err();
    assert_eq!(error.detail(), Some("value is not an integer or out of range"));

    // Many at a time on one connection: each gets its own answer.
    let all = join_all((0..200).map(|number| {
        let mut client = client.clone();
        async move {
            let key = format!("n{number}");
            let _: () = client.set(&key, number).await.unwrap();
            assert_eq!(client.get::<_, i64>(&key).await.unwrap(), number);
        }
    }));
    timeout(SOON, all).await.unwrap();
    let mut keys = Vec::new();
    let mut found = client.scan_match::<_, String>("n1*").await.unwrap();
    while let Some(key) = found.next_item().await {
        keys.push(key.unwrap());
    }
    drop(found);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 111);
}

#[quoit::test]
async fn our_own_server_is_used() {
    timeout(SOON, used(kv().await)).await.unwrap();
}

#[quoit::test]
async fn redis_is_used() {
    let Some(redis) = Redis::start() else { return };
    timeout(SOON, used(redis.address)).await.unwrap();
}

/// The third version of the protocol, against ours.
#[quoit::test]
async fn our_own_server_speaks_resp3() {
    let (sender, _receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut client = open_for_messages(kv().await, sender).await.unwrap();
    let hello: std::collections::HashMap<String, redis::Value> =
        cmd("HELLO").arg(3).query_async(&mut client).await.unwrap();
    assert_eq!(hello["proto"], redis::Value::Int(3));
    assert_eq!(client.get::<_, Option<String>>("none").await.unwrap(), None);
}

#[quoit::test]
async fn messages_of_channels_come() {
    let Some(redis) = Redis::start() else { return };
    let (sender, mut messages) = tokio::sync::mpsc::unbounded_channel();
    let mut subscriber = open_for_messages(redis.address, sender).await.unwrap();
    subscriber.subscribe("news").await.unwrap();
    let mut publisher = open(redis.address).await.unwrap();
    for number in 0..100 {
        assert_eq!(publisher.publish::<_, _, i64>("news", number).await.unwrap(), 1);
    }
    let mut next = 0;
    while next < 100 {
        let push = timeout(SOON, messages.recv()).await.unwrap().unwrap();
        if push.kind == PushKind::Message {
            let text: String = redis::from_redis_value(push.data[1].clone()).unwrap();
            assert_eq!(text, next.to_string());
            next += 1;
        }
    }
}

/// Too slow is an error, a lost server too, and when it is there again it is found.
#[quoit::test]
async fn a_lost_server_is_found_again() {
    let Some(redis) = Redis::start() else { return };
    let client = Reconnecting::new(redis.address, Duration::from_millis(500));
    let ping = cmd("PING");
    assert_eq!(client.query::<String>(&ping).await.unwrap(), "PONG");
    // It stands still: nothing is closed, and nothing comes.
    redis.process.tell("-STOP");
    let error = client.query::<String>(&ping).await.unwrap_err();
    assert!(error.is_io_error() && error.to_string().contains("timed out"), "{error}");
    redis.process.tell("-CONT");
    assert_eq!(client.query::<String>(&ping).await.unwrap(), "PONG");

    let address = redis.address;
    drop(redis);
    let error = client.query::<String>(&ping).await.unwrap_err();
    assert!(error.is_connection_dropped() || error.is_io_error(), "{error:?}");
    let error = client.query::<String>(&ping).await.unwrap_err();
    assert!(error.is_connection_refusal(), "{error:?}");
    let _redis = Redis::start_at(address.port());
    assert_eq!(client.query::<String>(&ping).await.unwrap(), "PONG");
}
