//! The shortest program that sends something around: a server and a client in one.

use quoit::net::{TcpListener, TcpStream};

#[quoit::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    quoit::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let lease = stream.recv().await?; // lent by the core's pool, given back when dropped
        stream.send_all(lease).await // sent as it is
    });

    let stream = TcpStream::connect(address).await?;
    stream.send_all("hello, ring").await?;
    println!("{}", String::from_utf8_lossy(&stream.recv().await?));
    Ok(())
}
