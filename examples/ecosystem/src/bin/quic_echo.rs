//! A QUIC echo server and its client: `quic_echo [ADDR]` serves until Ctrl-C, and says by one
//! stream of its own that it does.

use std::error::Error;

use ecosystem::quic;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4433".to_owned());
    let (server, certificate) = quic::server(address.parse()?, quic::ECHO)?;
    let address = server.local_addr()?;
    let serving = quoit::spawn(quic::echo(server.clone()));
    println!("listening on {address}");

    let client = quic::client("127.0.0.1:0".parse()?, quic::ECHO, certificate)?;
    let connection = client.connect(address, "localhost")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"hello, quic").await?;
    send.finish()?;
    println!("{}", String::from_utf8(receive.read_to_end(64).await?)?);
    connection.close(0_u8.into(), b"");
    client.wait_idle().await;

    quoit::signal::ctrl_c().await?;
    server.close(0_u8.into(), b"the end");
    server.wait_idle().await;
    serving.await?;
    Ok(())
}
