//! An HTTPS client: `https_get ADDR NAME ROOTS.pem [PATH]` prints what it gets.

use std::error::Error;

use ecosystem::https;

#[quoit::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, roots, path @ ..] = &arguments[..] else {
        return Err("usage: https_get ADDR NAME ROOTS.pem [PATH]".into());
    };
    let path = path.first().map_or("/", String::as_str);
    let roots = std::fs::read_to_string(roots)?;
    let connector = https::connector(&roots, &["h2", "http/1.1"])?;
    let response = https::fetch(&connector, address, name, path).await?;
    println!("{:?} {}", response.version(), response.status());
    print!("{}", String::from_utf8_lossy(response.body()));
    Ok(())
}
