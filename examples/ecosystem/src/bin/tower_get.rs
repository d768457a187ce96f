//! A client in layers of tower: `tower_get http://HOST:PORT/PATH...` asks for each, and shows what
//! it does.

use std::io::stderr;

use ecosystem::tower_client::{client, get};
use futures::future::join_all;
use http_body_util::BodyExt;
use tower::{BoxError, ServiceExt};
use tracing::Level;

#[quoit::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_writer(stderr).with_max_level(Level::DEBUG).init();
    let client = client();
    let asked = join_all(std::env::args().skip(1).map(async |uri| {
        let response = client.clone().oneshot(get(&uri)?).await?;
        println!("{uri}: {}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        println!("{}", String::from_utf8_lossy(&body));
        Ok::<_, BoxError>(())
    }));
    for result in asked.await {
        result?;
    }
    Ok(())
}
