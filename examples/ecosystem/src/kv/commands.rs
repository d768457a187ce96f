//! The commands on keys and values, and the table of all.
//!
//! Each is a function of the store and the client that writes a reply; none waits for anything.

use super::client::{self, Client};
use super::resp::{Command, Replies};
use super::store::{Keep, Millis, Store, fits};

/// A command that is being carried out.
#[derive(Debug)]
pub struct Call<'a> {
    pub store: &'a mut Store,
    pub client: &'a mut Client,
    pub command: Command<'a>,
    pub reply: Replies<'a>,
}

/// Which cores a command concerns, and how their replies make one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// The client's own: it says nothing of keys.
    Here,
    /// The one that has the first argument.
    Key,
    /// Those that have the arguments: each takes so many, a key first.
    Keys(usize, Merge),
    /// All of them.
    All(Merge),
    /// The one that a cursor points at.
    Cursor,
}

/// How the replies of several cores make one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Merge {
    /// Integers: their sum.
    Sum,
    /// Arrays: one after the other.
    Chain,
    /// All the same.
    First,
}

#[derive(Debug)]
pub struct Spec {
    pub name: &'static str,
    /// How many arguments with the name; negative is "at least".
    pub arity: i32,
    pub route: Route,
    run: fn(&mut Call<'_>) -> Done,
}

/// An error is its message.
pub type Done = Result<(), &'static str>;

pub const SYNTAX: &str = "ERR syntax error";
const NO_INTEGER: &str = "ERR value is not an integer or out of range";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
const TOO_MUCH: &str = "ERR the reply would exceed the maximum allowed size";

/// How large a value may become, and the reply to one command. As Redis' default.
const LARGEST: usize = 512 << 20;

const fn spec(
    name: &'static str,
    arity: i32,
    route: Route,
    run: fn(&mut Call<'_>) -> Done,
) -> Spec {
    Spec { name, arity, route, run }
}

/// Looked up by walking, so those that are called most stand first.
#[rustfmt::skip]
pub static COMMANDS: &[Spec] = &[
    spec("get", 2, Route::Key, get),
    spec("set", -3, Route::Key, set),
    spec("incr", 2, Route::Key, |call| add(call, 1)),
    spec("del", -2, Route::Keys(1, Merge::Sum), del),
    spec("mget", -2, Route::Keys(1, Merge::Chain), mget),
    spec("mset", -3, Route::Keys(2, Merge::First), mset),
    spec("exists", -2, Route::Keys(1, Merge::Sum), exists),
    spec("expire", 3, Route::Key, |call| expire(call, 1000)),
    spec("ttl", 2, Route::Key, |call| ttl(call, 1000)),
    spec("ping", -1, Route::Here, client::ping),
    spec("incrby", 3, Route::Key, |call| by(call, false)),
    spec("decr", 2, Route::Key, |call| add(call, -1)),
    spec("decrby", 3, Route::Key, |call| by(call, true)),
    spec("append", 3, Route::Key, append),
    spec("strlen", 2, Route::Key, strlen),
    spec("setnx", 3, Route::Key, setnx),
    spec("setex", 4, Route::Key, |call| setex(call, 1000)),
    spec("psetex", 4, Route::Key, |call| setex(call, 1)),
    spec("getset", 3, Route::Key, getset),
    spec("getdel", 2, Route::Key, getdel),
    spec("unlink", -2, Route::Keys(1, Merge::Sum), del),
    spec("touch", -2, Route::Keys(1, Merge::Sum), exists),
    spec("type", 2, Route::Key, kind),
    spec("pexpire", 3, Route::Key, |call| expire(call, 1)),
    spec("pttl", 2, Route::Key, |call| ttl(call, 1)),
    spec("persist", 2, Route::Key, persist),
    spec("scan", -2, Route::Cursor, scan),
    spec("keys", 2, Route::All(Merge::Chain), keys),
    spec("dbsize", 1, Route::All(Merge::Sum), dbsize),
    spec("flushall", -1, Route::All(Merge::First), flush),
    spec("flushdb", -1, Route::All(Merge::First), flush),
    spec("echo", 2, Route::Here, client::echo),
    spec("hello", -1, Route::Here, client::hello),
    spec("client", -2, Route::Here, client::client),
    spec("command", -1, Route::Here, client::command),
    spec("config", -2, Route::Here, client::config),
    spec("info", -1, Route::Here, client::info),
    spec("select", 2, Route::Here, client::select),
    spec("auth", -2, Route::Here, client::auth),
    spec("reset", 1, Route::Here, client::reset),
    spec("quit", -1, Route::Here, client::quit),
];

/// The command of that name, if so many arguments (and the name) may be given; else what to answer.
pub fn find(command: &Command<'_>) -> Result<&'static Spec, String> {
    let name = command.arg(0);
    let fitting = |spec: &&Spec| spec.name.as_bytes().eq_ignore_ascii_case(name);
    let Some(spec) = COMMANDS.iter().find(fitting) else {
        let name = String::from_utf8_lossy(&name[..name.len().min(128)]);
        let mut text = format!("ERR unknown command '{name}', with args beginning with: ");
        for argument in command.args(1).take(8) {
            let argument = &argument[..argument.len().min(128)];
            text += &format!("'{}' ", String::from_utf8_lossy(argument));
        }
        return Err(text);
    };
    let count = i32::try_from(command.len()).unwrap_or(i32::MAX);
    let pairs = matches!(spec.route, Route::Keys(2, _)) && count % 2 == 0;
    if pairs || (spec.arity >= 0 && count != spec.arity) || count < -spec.arity {
        return Err(format!("ERR wrong number of arguments for '{}' command", spec.name));
    }
    Ok(spec)
}

/// Carries a command out, and writes its reply.
pub fn run(spec: &Spec, call: &mut Call<'_>) {
    if let Err(text) = (spec.run)(call) {
        call.reply.error(text);
    }
}

/// An integer as Redis takes it: without blanks, a plus, or zeros before it.
pub fn integer(bytes: &[u8]) -> Option<i64> {
    let value = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(value).as_bytes() == bytes).then_some(value)
}

fn get(call: &mut Call<'_>) -> Done {
    match call.store.get(call.command.arg(1)) {
        Some(value) => call.reply.bulk(value),
        None => call.reply.nothing(),
    }
    Ok(())
}

/// In so many units from now.
fn deadline(call: &Call<'_>, argument: usize, unit: i64) -> Result<Option<Millis>, &'static str> {
    let count = integer(call.command.arg(argument)).ok_or(NO_INTEGER)?;
    let after = count.checked_mul(unit).filter(|after| after.unsigned_abs() <= 1 << 60);
    Ok(after.and_then(|after| call.store.now().checked_add_signed(after)))
}

/// As `deadline`, of a value that is set: it must be to come.
fn later(
    call: &Call<'_>,
    argument: usize,
    unit: i64,
    wrong: &'static str,
) -> Result<Keep, &'static str> {
    match deadline(call, argument, unit)? {
        Some(deadline) if deadline > call.store.now() => Ok(Keep::Until(deadline)),
        _ => Err(wrong),
    }
}

#[derive(Default)]
struct SetOptions {
    keep: Keep,
    only_new: bool,
    only_old: bool,
    get: bool,
}

fn set_options(call: &Call<'_>) -> Result<SetOptions, &'static str> {
    const TIME: &str = "ERR invalid expire time in 'set' command";
    let mut options = SetOptions::default();
    let mut at = 3;
    while at < call.command.len() {
        let has_next = at + 1 < call.command.len();
        let fresh = options.keep == Keep::Forever;
        match &*call.command.arg(at).to_ascii_lowercase() {
            b"nx" if !options.only_old => options.only_new = true,
            b"xx" if !options.only_new => options.only_old = true,
            b"get" => options.get = true,
            b"keepttl" if fresh => options.keep = Keep::AsItWas,
            unit @ (b"ex" | b"px") if fresh && has_next => {
                at += 1;
                options.keep = later(call, at, if unit == b"ex" { 1000 } else { 1 }, TIME)?;
            }
            _ => return Err(SYNTAX),
        }
        at += 1;
    }
    Ok(options)
}

fn set(call: &mut Call<'_>) -> Done {
    let (key, value) = (call.command.arg(1), call.command.arg(2));
    if call.command.len() == 3 {
        call.store.set(key, value, Keep::Forever);
        call.reply.ok();
        return Ok(());
    }
    let options = set_options(call)?;
    let there = call.store.contains(key);
    let does = !(options.only_new && there || options.only_old && !there);
    if options.get {
        get(call)?;
    } else if does {
        call.reply.ok();
    } else {
        call.reply.nothing();
    }
    if does {
        call.store.set(key, value, options.keep);
    }
    Ok(())
}

fn setnx(call: &mut Call<'_>) -> Done {
    let key = call.command.arg(1);
    let does = !call.store.contains(key);
    if does {
        call.store.set(key, call.command.arg(2), Keep::Forever);
    }
    call.reply.integer(does.into());
    Ok(())
}

fn setex(call: &mut Call<'_>, unit: i64) -> Done {
    let keep = later(call, 2, unit, "ERR invalid expire time in 'setex' command")?;
    call.store.set(call.command.arg(1), call.command.arg(3), keep);
    call.reply.ok();
    Ok(())
}

fn getset(call: &mut Call<'_>) -> Done {
    get(call)?;
    call.store.set(call.command.arg(1), call.command.arg(2), Keep::Forever);
    Ok(())
}

fn getdel(call: &mut Call<'_>) -> Done {
    match call.store.remove(call.command.arg(1)) {
        Some(value) => call.reply.bulk(&value),
        None => call.reply.nothing(),
    }
    Ok(())
}

fn mget(call: &mut Call<'_>) -> Done {
    let keys = call.command.args(1);
    let lengths = keys.clone().map(|key| call.store.get(key).map_or(0, <[u8]>::len));
    if lengths.sum::<usize>() > LARGEST {
        return Err(TOO_MUCH);
    }
    call.reply.array(keys.len());
    for key in keys {
        match call.store.get(key) {
            Some(value) => call.reply.bulk(value),
            None => call.reply.nothing(),
        }
    }
    Ok(())
}

fn mset(call: &mut Call<'_>) -> Done {
    for index in (1..call.command.len()).step_by(2) {
        call.store.set(call.command.arg(index), call.command.arg(index + 1), Keep::Forever);
    }
    call.reply.ok();
    Ok(())
}

fn del(call: &mut Call<'_>) -> Done {
    let removed = call.command.args(1).filter(|key| call.store.remove(key).is_some()).count();
    call.reply.integer(removed as i64);
    Ok(())
}

fn exists(call: &mut Call<'_>) -> Done {
    let there = call.command.args(1).filter(|key| call.store.contains(key)).count();
    call.reply.integer(there as i64);
    Ok(())
}

fn kind(call: &mut Call<'_>) -> Done {
    let there = call.store.contains(call.command.arg(1));
    call.reply.simple(if there { "string" } else { "none" });
    Ok(())
}

fn by(call: &mut Call<'_>, minus: bool) -> Done {
    let mut step = integer(call.command.arg(2)).ok_or(NO_INTEGER)?;
    if minus {
        step = step.checked_neg().ok_or("ERR decrement would overflow")?;
    }
    add(call, step)
}

fn add(call: &mut Call<'_>, step: i64) -> Done {
    let key = call.command.arg(1);
    let before = match call.store.get(key) {
        Some(value) => integer(value).ok_or(NO_INTEGER)?,
        None => 0,
    };
    let after = before.checked_add(step).ok_or(OVERFLOW)?;
    let mut text = itoa::Buffer::new();
    call.store.set(key, text.format(after).as_bytes(), Keep::AsItWas);
    call.reply.integer(after);
    Ok(())
}

fn append(call: &mut Call<'_>) -> Done {
    let (key, more) = (call.command.arg(1), call.command.arg(2));
    if call.store.get(key).map_or(0, <[u8]>::len) + more.len() > LARGEST {
        return Err(TOO_LONG);
    }
    let length = call.store.update(key, |value| {
        value.extend_from_slice(more);
        value.len()
    });
    call.reply.integer(length as i64);
    Ok(())
}

fn strlen(call: &mut Call<'_>) -> Done {
    let length = call.store.get(call.command.arg(1)).map_or(0, <[u8]>::len);
    call.reply.integer(length as i64);
    Ok(())
}

fn expire(call: &mut Call<'_>, unit: i64) -> Done {
    let count = integer(call.command.arg(2)).ok_or(NO_INTEGER)?;
    // A moment that has passed is now.
    let deadline = match deadline(call, 2, unit)? {
        Some(deadline) => deadline,
        None if count < 0 => 0,
        None => return Err("ERR invalid expire time in 'expire' command"),
    };
    let there = call.store.expire(call.command.arg(1), deadline);
    call.reply.integer(there.into());
    Ok(())
}

fn ttl(call: &mut Call<'_>, unit: Millis) -> Done {
    let left = match call.store.deadline(call.command.arg(1)) {
        None => -2,
        Some(None) => -1,
        // To the nearest second, as Redis has it.
        Some(Some(deadline)) => ((deadline - call.store.now() + unit / 2) / unit) as i64,
    };
    call.reply.integer(left);
    Ok(())
}

fn persist(call: &mut Call<'_>) -> Done {
    let had = call.store.persist(call.command.arg(1));
    call.reply.integer(had.into());
    Ok(())
}

fn keys(call: &mut Call<'_>) -> Done {
    let pattern = call.command.arg(1);
    let fitting = || call.store.keys().filter(|key| fits(pattern, key));
    let (count, length) =
        fitting().fold((0, 0), |(count, length), key| (count + 1, length + key.len() + 16));
    if length > LARGEST {
        return Err(TOO_MUCH);
    }
    call.reply.array(count);
    fitting().for_each(|key| call.reply.bulk(key));
    Ok(())
}

/// A cursor is the place in the row times the number of cores, and the core. Its place 0 is the
/// beginning of a core's row, which a scan goes through backwards: see `store`.
fn scan(call: &mut Call<'_>) -> Done {
    let cores = call.client.cores();
    let cursor = cursor(call.command.arg(1)).ok_or("ERR invalid cursor")?;
    let (mut pattern, mut count, mut strings) = (&b"*"[..], 10, true);
    for at in (2..call.command.len()).step_by(2) {
        let value = || (at + 1 < call.command.len()).then(|| call.command.arg(at + 1));
        let value = value().ok_or(SYNTAX)?;
        match &*call.command.arg(at).to_ascii_lowercase() {
            b"match" => pattern = value,
            b"count" => {
                let asked = integer(value).ok_or(NO_INTEGER)?;
                count = usize::try_from(asked).ok().filter(|count| *count > 0).ok_or(SYNTAX)?;
            }
            // Everything is a string here.
            b"type" => strings = value.eq_ignore_ascii_case(b"string"),
            _ => return Err(SYNTAX),
        }
    }
    let (core, from) = (cursor % cores, cursor / cores);
    let (rest, found) = call.store.scan(if from == 0 { usize::MAX } else { from }, count);
    let found: Vec<_> = found.filter(|key| strings && fits(pattern, key)).collect();
    let next = match rest {
        // This core is through: the next one, from its beginning, or the end.
        0 if core + 1 < cores => core + 1,
        0 => 0,
        rest => rest * cores + core,
    };
    call.reply.array(2);
    call.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    call.reply.array(found.len());
    found.iter().for_each(|key| call.reply.bulk(key));
    Ok(())
}

/// A scan's cursor, which says how far it has come.
pub fn cursor(bytes: &[u8]) -> Option<usize> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn dbsize(call: &mut Call<'_>) -> Done {
    call.reply.integer(call.store.len() as i64);
    Ok(())
}

fn flush(call: &mut Call<'_>) -> Done {
    let modes = [&b"sync"[..], b"async"];
    let known = |word: &[u8]| modes.iter().any(|mode| word.eq_ignore_ascii_case(mode));
    if call.command.len() > 2 || !call.command.args(1).all(known) {
        return Err(SYNTAX);
    }
    call.store.clear();
    call.reply.ok();
    Ok(())
}
