//! Notes in a file: `axum_notes FILE [ADDR]`, then
//!
//! ```text
//! curl -N http://ADDR/events &
//! curl http://ADDR/notes --json '{"text":"buy milk"}'
//! curl http://ADDR/file
//! ```

use std::error::Error;
use std::path::Path;

use ecosystem::notes::Notes;
use quoit::net::TcpListener;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: axum_notes FILE [ADDR]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let notes = Notes::open(Path::new(&path)).await?;
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let router = notes.router();
    let stop = async move {
        let stopped = quoit::signal::terminate().await;
        notes.close();
        stopped
    };
    let report = quoit_http::serve(listener, router)
        .on_error(|trouble| eprintln!("{trouble}"))
        .with_graceful_shutdown(stop)
        .await?;
    println!("{report:?}");
    Ok(())
}
