//! The echo server that is measured. There is one, and it does not know which ring it runs on.

use std::io;

use quoit::net::{TcpListener, TcpStream};

/// Accepts for ever; one task per connection.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(quoit::spawn(echo(stream))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What came in was lent by the ring and goes out as it is: no copy, no buffer of our own.
async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return Ok(());
        }
        stream.send(lease).await?;
    }
}
