//! A gRPC client: `grpc_call http://HOST:PORT` adds to an entry, and reads it back.

use std::error::Error;
use std::time::Duration;

use ecosystem::grpc::pb::store_client::StoreClient;
use ecosystem::grpc::pb::{Entry, Name};
use ecosystem::grpc_client::channel;
use futures::stream::iter;
use tonic::Request;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let origin = std::env::args().nth(1).ok_or("usage: grpc_call http://HOST:PORT")?;
    let mut client = StoreClient::with_origin(channel(), origin.parse()?);
    let name = "calls".to_owned();
    let one = Entry { name: name.clone(), value: 1, blob: Vec::new() };
    let mut sums = client.add(iter([one.clone(), one])).await?.into_inner();
    while let Some(sum) = sums.message().await? {
        println!("added: {}", sum.value);
    }
    let mut request = Request::new(Name { name });
    request.set_timeout(Duration::from_secs(1));
    println!("it is {}", client.get(request).await?.into_inner().value);
    Ok(())
}
