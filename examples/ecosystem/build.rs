//! Compiles `proto/store.proto`, without asking for `protoc` on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["store.proto"], ["proto"])?;
    // Neither the client's nor the server's transport of tonic: both are ours.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
