//! Programs that many simulations run.

use std::io;

use quoit::net::{TcpListener, TcpStream};

/// Sends back what comes, on every connection, for ever.
pub(crate) async fn serve_echo(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let stream = accept(&listener).await;
        quoit::spawn(async move {
            while let Ok(lease) = stream.recv().await {
                if lease.is_empty() || stream.send_all(lease).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// The next connection. Now and then the simulated kernel is out of descriptors, and the connection
/// stays queued.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            return stream;
        }
    }
}

/// Sends a message, and reads it back.
pub(crate) async fn echo_once(stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    stream.send_all(message.to_vec()).await?;
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, message);
    Ok(())
}
