//! Ten thousand connections at once, with the clients in a process of their own: the limit of
//! descriptors is each process's.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::{env, thread};

use crate::common::*;

const CONNECTIONS: usize = 10_000;

#[test]
#[ignore = "a case for a child process"]
fn child_opens_ten_thousand_connections() {
    let address: SocketAddr = env::var("SERVER").unwrap().parse().unwrap();
    set_descriptor_limit(CONNECTIONS as u64 + 100);
    futures::executor::block_on(async {
        let mut peers = connect_many(address, CONNECTIONS).await;
        // Two rounds, so that each is served while all are open.
        for round in 0..2_u32 {
            for (number, peer) in peers.iter_mut().enumerate() {
                peer.write_all(&(number as u32 ^ round).to_be_bytes()).await.unwrap();
            }
            for (number, peer) in peers.iter_mut().enumerate() {
                let mut answer = [0; 4];
                peer.read_exact(&mut answer).await.unwrap();
                assert_eq!(u32::from_be_bytes(answer), number as u32 ^ round);
            }
        }
    });
    println!("all were served");
}

#[test]
#[ignore = "a case for a child process"]
fn child_serves_ten_thousand_connections() {
    set_descriptor_limit(CONNECTIONS as u64 + 200);
    on_each_runtime(
        |builder| builder,
        async |runtime| {
            let idle = open_descriptors();
            let (listener, address) = listen().await;
            let client = Command::new(env::current_exe().unwrap())
                .args(["--exact", "many::child_opens_ten_thousand_connections", "--ignored"])
                .args(["--nocapture", "--test-threads", "1"])
                .env("SERVER", address.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut echoes = Vec::with_capacity(CONNECTIONS);
            for _ in 0..CONNECTIONS {
                let (stream, _) = within("accept", listener.accept()).await.unwrap();
                echoes.push(quoit::spawn(async move {
                    let mut count = 0;
                    loop {
                        let lease = stream.recv().await.unwrap();
                        if lease.is_empty() {
                            return count;
                        }
                        count += lease.len();
                        stream.send(lease).await.unwrap();
                    }
                }));
            }
            // Counted from its first poll on; no client closes before all have been served twice.
            until("all are open", || runtime.metrics().streams_open == CONNECTIONS).await;
            for echo in echoes {
                assert_eq!(within("an echo", echo).await.unwrap(), 8);
            }
            let client = thread::spawn(|| client.wait_with_output()).join().unwrap().unwrap();
            let text = String::from_utf8_lossy(&client.stdout);
            assert!(client.status.success() && text.contains("all were served"), "{text}");
            let books = runtime.metrics();
            assert_eq!(books.resources.connections_delivered, CONNECTIONS as u64);
            until("all are closed", || runtime.metrics().streams_open == 0).await;
            assert_eq!(runtime.metrics().leases_out, 0);
            drop(listener);
            until("so is the listener", || runtime.metrics().listeners_open == 0).await;
            assert_eq!(open_descriptors(), idle);
        },
    );
}

#[test]
fn ten_thousand_connections_at_once() {
    in_a_child("many::child_serves_ten_thousand_connections");
}
