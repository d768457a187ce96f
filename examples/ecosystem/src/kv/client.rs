//! What is known of a client, and the commands that concern nobody else.

use std::process;

use super::commands::{COMMANDS, Call, Done, Route, SYNTAX, integer};
use super::store::fits;

/// The Redis whose commands these are: clients ask, and choose what they use by the answer.
const REDIS_VERSION: &str = "7.0.0";

/// What is known of a client.
#[derive(Debug)]
pub struct Client {
    id: u64,
    cores: usize,
    name: Vec<u8>,
    /// It speaks RESP3.
    pub third: bool,
    /// It has said goodbye: nothing of it is read after this.
    pub closing: bool,
}

impl Client {
    /// A client of a server with so many cores.
    pub fn new(id: u64, cores: usize) -> Self {
        Self { id, cores, name: Vec::new(), third: false, closing: false }
    }

    pub fn cores(&self) -> usize {
        self.cores
    }

    fn set_name(&mut self, name: &[u8]) -> Done {
        if !name.iter().all(u8::is_ascii_graphic) {
            return Err("ERR Client names cannot contain spaces, newlines or special characters.");
        }
        self.name = name.to_vec();
        Ok(())
    }
}

pub(super) fn ping(call: &mut Call<'_>) -> Done {
    match call.command.len() {
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.command.arg(1)),
        _ => return Err("ERR wrong number of arguments for 'ping' command"),
    }
    Ok(())
}

pub(super) fn echo(call: &mut Call<'_>) -> Done {
    call.reply.bulk(call.command.arg(1));
    Ok(())
}

pub(super) fn hello(call: &mut Call<'_>) -> Done {
    const NO_PROTOCOL: &str = "NOPROTO unsupported protocol version";
    let mut third = call.client.third;
    if call.command.len() > 1 {
        third = match call.command.arg(1) {
            b"2" => false,
            b"3" => true,
            _ => return Err(NO_PROTOCOL),
        };
    }
    match (call.command.len(), call.command.args(2.min(call.command.len())).next()) {
        (1 | 2, _) => {}
        (4, Some(word)) if word.eq_ignore_ascii_case(b"setname") => {
            call.client.set_name(call.command.arg(3))?;
        }
        (5, Some(word)) if word.eq_ignore_ascii_case(b"auth") => return auth(call),
        _ => return Err(SYNTAX),
    }
    call.client.third = third;
    call.reply.set_third(third);
    call.reply.map(6);
    call.reply.bulk(b"server");
    call.reply.bulk(b"redis");
    call.reply.bulk(b"version");
    call.reply.bulk(REDIS_VERSION.as_bytes());
    call.reply.bulk(b"proto");
    call.reply.integer(if third { 3 } else { 2 });
    call.reply.bulk(b"id");
    call.reply.integer(call.client.id as i64);
    call.reply.bulk(b"mode");
    call.reply.bulk(b"standalone");
    call.reply.bulk(b"role");
    call.reply.bulk(b"master");
    Ok(())
}

pub(super) fn client(call: &mut Call<'_>) -> Done {
    let about = |call: &Call<'_>| {
        let name = String::from_utf8_lossy(&call.client.name);
        let version = if call.client.third { 3 } else { 2 };
        format!("id={} name={name} db=0 resp={version}\n", call.client.id)
    };
    match (&*call.command.arg(1).to_ascii_lowercase(), call.command.len()) {
        (b"id", 2) => call.reply.integer(call.client.id as i64),
        (b"getname", 2) if call.client.name.is_empty() => call.reply.nothing(),
        (b"getname", 2) => call.reply.bulk(&call.client.name),
        (b"setname", 3) => {
            call.client.set_name(call.command.arg(2))?;
            call.reply.ok();
        }
        (b"info", 2) => {
            let about = about(call);
            call.reply.bulk(about.as_bytes());
        }
        // What a library says of itself is taken note of by nobody.
        (b"setinfo", 4) | (b"no-evict" | b"no-touch", 3) => call.reply.ok(),
        _ => return Err("ERR unknown subcommand or wrong number of arguments for 'client'"),
    }
    Ok(())
}

pub(super) fn command(call: &mut Call<'_>) -> Done {
    let word = (call.command.len() > 1).then(|| call.command.arg(1).to_ascii_lowercase());
    match word.as_deref() {
        None => {
            call.reply.array(COMMANDS.len());
            for spec in COMMANDS {
                let (first, last, step) = match spec.route {
                    Route::Here | Route::All(_) | Route::Cursor => (0, 0, 0),
                    Route::Key => (1, 1, 1),
                    Route::Keys(step, _) => (1, -1, step as i64),
                };
                call.reply.array(6);
                call.reply.bulk(spec.name.as_bytes());
                call.reply.integer(spec.arity.into());
                call.reply.array(0);
                [first, last, step].into_iter().for_each(|number| call.reply.integer(number));
            }
        }
        Some(b"count") => call.reply.integer(COMMANDS.len() as i64),
        // No documentation: redis-cli then gives no hints.
        Some(b"docs") => call.reply.map(0),
        _ => return Err("ERR unknown subcommand or wrong number of arguments for 'command'"),
    }
    Ok(())
}

/// What there is to configure: nothing, and this is how it is.
const CONFIG: [(&str, &str); 5] = [
    ("appendonly", "no"),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("save", ""),
];

pub(super) fn config(call: &mut Call<'_>) -> Done {
    match (&*call.command.arg(1).to_ascii_lowercase(), call.command.len()) {
        (b"get", 3..) => {
            let patterns = call.command.args(2);
            let asked = |name: &str| {
                let mut patterns = patterns.clone();
                patterns.any(|pattern| fits(&pattern.to_ascii_lowercase(), name.as_bytes()))
            };
            let found: Vec<_> = CONFIG.iter().filter(|(name, _)| asked(name)).collect();
            call.reply.map(found.len());
            for (name, value) in found {
                call.reply.bulk(name.as_bytes());
                call.reply.bulk(value.as_bytes());
            }
        }
        (b"resetstat", 2) => call.reply.ok(),
        _ => return Err("ERR unknown subcommand or wrong number of arguments for 'config'"),
    }
    Ok(())
}

pub(super) fn info(call: &mut Call<'_>) -> Done {
    let text = format!(
        "# Server\r\nserver_name:kv\r\nredis_version:{REDIS_VERSION}\r\n\
         redis_mode:standalone\r\nprocess_id:{}\r\nserver_cores:{}\r\n\r\n\
         # Replication\r\nrole:master\r\n",
        process::id(),
        call.client.cores,
    );
    call.reply.bulk(text.as_bytes());
    Ok(())
}

pub(super) fn select(call: &mut Call<'_>) -> Done {
    match integer(call.command.arg(1)) {
        Some(0) => call.reply.ok(),
        Some(_) => return Err("ERR DB index is out of range"),
        None => return Err("ERR value is not an integer or out of range"),
    }
    Ok(())
}

pub(super) fn auth(_: &mut Call<'_>) -> Done {
    Err("ERR AUTH called without any password configured: there is none")
}

pub(super) fn reset(call: &mut Call<'_>) -> Done {
    *call.client = Client::new(call.client.id, call.client.cores);
    call.reply.set_third(false);
    call.reply.simple("RESET");
    Ok(())
}

pub(super) fn quit(call: &mut Call<'_>) -> Done {
    call.client.closing = true;
    call.reply.ok();
    Ok(())
}
