//! A queue of jobs in PostgreSQL: `postgres URL push TEXT..`, and on as many machines as one likes
//!
//! ```text
//! postgres URL work [WORKERS]
//! ```
//!
//! where URL is, for instance, `postgres://user@127.0.0.1/database`. On SIGINT or SIGTERM each
//! worker finishes its job.

use std::pin::pin;

use ecosystem::postgres::{Job, Queue, Trouble, pool};
use futures::FutureExt;
use futures::future::{join_all, select};
use quoit::signal::{ctrl_c, terminate};

const USAGE: &str = "usage: postgres URL (push TEXT.. | work [WORKERS])";

#[quoit::main]
async fn main() -> Result<(), Trouble> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [url, "push", texts @ ..] if !texts.is_empty() => {
            let queue = Queue::new(pool(url.parse()?, 4)?).await?;
            let numbers = join_all(texts.iter().map(|text| queue.push(text))).await;
            for number in numbers {
                println!("{}", number?);
            }
            Ok(())
        }
        [url, "work"] => serve(url, 4).await,
        [url, "work", workers] => serve(url, workers.parse()?).await,
        _ => Err(USAGE.into()),
    }
}

async fn serve(url: &str, workers: usize) -> Result<(), Trouble> {
    let queue = Queue::new(pool(url.parse()?, workers)?).await?;
    println!("{workers} workers");
    let stop = async { drop(select(pin!(ctrl_c()), pin!(terminate())).await) }.shared();
    let work = async |job: &Job| {
        println!("{}: {} has {} words", job.number, job.text, job.text.split(' ').count());
        Ok(())
    };
    let all = join_all((0..workers).map(|_| queue.work(stop.clone(), work)));
    select(pin!(all), pin!(queue.listen())).await;
    Ok(())
}
