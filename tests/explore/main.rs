//! Every operation of the contract, cancelled at every poll and refused at every call, under many
//! seeds: whatever is dropped, what it did not return shows up next, at the exact byte.
//!
//! ```text
//!   accept connect read write end file streams
//!                                     cancelled at every poll of the operation that they name
//!   whole                             conversations whose tasks, or root, end at every poll
//!   faults                            every call refused, late or cut short
//!   planted                           mistakes that the explorers have to find
//! ```
//!
//! A failure names its seed and point, which replay it. CI explores 1,000 seeds of each scenario
//! (`.ci/run explore`). By hand, a million seeds of each, at one point in each kind of exploration,
//! different ones for each seed (about 100 microseconds each), or of one kind alone:
//!
//! ```text
//! QUOIT_EXPLORE_SEEDS=1000000 QUOIT_EXPLORE_POINTS=1 EXPLORE_SECONDS=86400 .ci/run explore
//! QUOIT_EXPLORE_KIND=cancel QUOIT_EXPLORE_SEEDS=1000000 ..
//! ```

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod accept;
mod bytes;
mod connect;
mod end;
mod faults;
mod file;
mod planted;
mod read;
mod streams;
mod whole;
mod write;

use std::future::Future;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::explore::{Explore, Explorer, Found};
use quoit::{task, time};

/// Cancels at every point of a scenario; and it may count on everything while it is only hindered,
/// and leaves nothing when its root is dropped.
fn cancel<F: Future<Output = ()>>(name: &str, seeds: u64, scenario: impl Fn(Explore) -> F) {
    check(&Explorer::new(name).seeds(seeds).cancel(&scenario));
    let explorer = Explorer::new(name).seeds(seeds / 3 + 1).points_per_seed(20);
    check(&explorer.hinder(&scenario));
    check(&explorer.drop_root(&scenario));
}

fn check(found: &Found) {
    println!("{found}");
    found.assert_clean();
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// A time in which a little may happen.
fn moment(explore: &Explore) -> Duration {
    Duration::from_micros(explore.below(600) as u64)
}

/// Lets others go on, now and then for a while.
async fn dawdle(explore: &Explore) {
    match explore.below(4) {
        0 => time::sleep(moment(explore)).await,
        1 => task::yield_now().await,
        _ => {}
    }
}
