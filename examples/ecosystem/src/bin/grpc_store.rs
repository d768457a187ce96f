//! A gRPC server: `grpc_store [ADDR]`. Any client of `proto/store.proto` may call it.

use std::error::Error;

use ecosystem::grpc::Store;
use quoit::net::TcpListener;
use quoit::signal::terminate;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let store = Store::default();
    let service = store.service().await;
    let stop = async move {
        // Where no signal can be waited for, this is the end already.
        let _ = terminate().await;
        store.close();
    };
    let report = quoit_http::serve(listener, service)
        .http2_only()
        .on_error(|trouble| eprintln!("{trouble}"))
        .with_graceful_shutdown(stop)
        .await?;
    println!("{report:?}");
    Ok(())
}
