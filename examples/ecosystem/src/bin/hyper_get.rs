//! A hyper client: `hyper_get HOST:PORT [PATH]` prints what it gets.

use std::error::Error;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use quoit::net::TcpStream;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let authority = arguments.next().ok_or("usage: hyper_get HOST:PORT [PATH]")?;
    let path = arguments.next().unwrap_or_else(|| "/".to_owned());

    let stream = TcpStream::connect(authority.as_str()).await?;
    let (mut sender, connection) = http1::handshake(stream).await?;
    let connection = quoit::spawn(connection);
    let request = Request::get(path).header("host", authority).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    println!("{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    print!("{}", String::from_utf8_lossy(&body));
    drop(sender);
    connection.await??;
    Ok(())
}
