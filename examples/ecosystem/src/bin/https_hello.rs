//! An HTTPS server: `https_hello [ADDR [CHAIN.pem KEY.pem]]`, then `curl --cacert ...`.
//!
//! Without files it makes a certificate for `localhost` that vouches for itself, and prints it.

use std::error::Error;
use std::path::Path;

use ecosystem::https::{self, Identity};
use quoit::net::TcpListener;
use quoit_tls::TlsAcceptor;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (address, identity) = match arguments[..] {
        [] | [_] => {
            let (identity, certificate) = Identity::self_signed(&["localhost"])?;
            print!("{certificate}");
            (arguments.first().copied().unwrap_or("127.0.0.1:0"), identity)
        }
        [address, chain, key] => (address, Identity::read(Path::new(chain), Path::new(key))?),
        _ => return Err("usage: https_hello [ADDR [CHAIN.pem KEY.pem]]".into()),
    };
    let acceptor = TlsAcceptor::from(https::server_config(identity)?);
    let listener = TcpListener::bind(address).await?;
    println!("listening on https://{}", listener.local_addr()?);
    let report = quoit_http::serve(listener, https::router())
        .tls(acceptor)
        .on_error(|trouble| eprintln!("{trouble}"))
        .with_graceful_shutdown(quoit::signal::terminate())
        .await?;
    println!("{report:?}");
    Ok(())
}
