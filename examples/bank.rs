//! A replicated bank account in a simulated world that loses messages, power and disk writes.
//!
//! `bank [--seeds N] [--bug]`
//!
//! ```text
//!   tellers ── deposit ──► three replicas ── journal, sync ──► two have kept it: confirmed
//!   auditor ── list ─────► three replicas ── two have told: every confirmed deposit is there
//! ```
//!
//! Any two of three replicas share one, so what two have kept, any two can tell of. That holds
//! while hosts crash, links break and disks fail. With `--bug` a replica trusts what it reads in
//! its journal after an error: it was written, but is it on the disk? A seed finds a deposit that
//! was confirmed and is gone. It prints what was drawn, the last events, and how to see it again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use quoit::fs::{self, File};
use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{self, DiskOptions, Faults, Sim};
use quoit::task::JoinSet;
use quoit::time::{sleep, timeout};
use tokio::sync::Mutex;

const REPLICAS: [&str; 3] = ["replica-0:80", "replica-1:80", "replica-2:80"];
const MAJORITY: usize = 2;
const TELLERS: u64 = 2;
/// Of each teller.
const DEPOSITS: u64 = 10;
const JOURNAL: &str = "/var/bank/journal";
/// How long a replica may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// When the last fault is over.
const CALM: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(about = "A replicated bank account under simulated faults")]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The replicas trust what they read after an error.
    #[arg(long)]
    bug: bool,
}

fn main() {
    let Options { seeds, bug } = Options::parse();
    sim::check(seeds, |sim| bank(sim, bug));
    println!("{seeds} seeds, and no confirmed deposit was lost");
}

// --- the world -----------------------------------------------------------------------------------

fn bank(sim: &mut Sim, bug: bool) {
    for replica in REPLICAS {
        let name = host_of(replica);
        sim.host(name, move || serve(bug));
        let options = DiskOptions::drawn(&mut sim.world().chance(7));
        sim.world().disk(name, |disk| {
            // Before there is a bank there is its folder, and an empty journal in it.
            disk.put(JOURNAL, b"");
            disk.set_options(options);
        });
    }
    let book = Rc::new(Book { busy: Cell::new(TELLERS), ..Book::default() });
    for id in 0..TELLERS {
        sim.client(&format!("teller-{id}"), teller(id, book.clone()));
    }
    sim.client("auditor", audit(book));
    sim.socket_buffers(4096).faults(Faults::until(CALM).crashes(20).partitions(20));
}

fn host_of(replica: &str) -> &str {
    replica.split(':').next().unwrap_or(replica)
}

/// One deposit into the account. Its number makes it the same however often it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Deposit {
    number: u64,
    amount: u64,
}

impl fmt::Display for Deposit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deposit {:x} of {}", self.number, self.amount)
    }
}

/// Bytes of a deposit, in the journal and on the wire: number, amount, check.
const RECORD: usize = 24;

impl Deposit {
    fn check(self) -> u64 {
        // Not zero for a record of zeroes, which a crash may leave.
        let mixed = self.number.rotate_left(32) ^ self.amount;
        (mixed ^ 0xCBF2_9CE4_8422_2325).wrapping_mul(0x0100_0000_01B3)
    }

    fn to_bytes(self) -> Vec<u8> {
        [self.number, self.amount, self.check()].map(u64::to_le_bytes).concat()
    }

    /// `None`: these bytes are not a whole record.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let deposit = Self { number: word(0)?, amount: word(8)? };
        (word(16)? == deposit.check()).then_some(deposit)
    }
}

// --- a replica -----------------------------------------------------------------------------------

/// The deposits that this replica has kept, and the file that keeps them.
#[derive(Default)]
struct Journal {
    /// `None` when it is not known what of it is on the disk: at the start, and after an error.
    file: Option<File>,
    kept: Vec<Deposit>,
    trusts: bool,
}

impl Journal {
    /// Reads what the last life has left.
    async fn recover(&mut self) -> io::Result<()> {
        let bytes = fs::read(JOURNAL).await?;
        let kept: Vec<_> = bytes.chunks(RECORD).map_while(Deposit::from_bytes).collect();
        // Written again, not only synced: after a sync that has failed the next one succeeds
        // without having done what was left undone (fsync(2)).
        let file = File::options().write(true).open(JOURNAL).await?;
        if !self.trusts {
            let again: Vec<u8> = kept.iter().flat_map(|one| one.to_bytes()).collect();
            file.write_all_at(again, 0).await.map_err(io::Error::from)?;
            file.sync_data().await?;
        }
        (self.file, self.kept) = (Some(file), kept);
        Ok(())
    }

    /// Keeps a deposit, once, through whatever comes after this.
    async fn keep(&mut self, deposit: Deposit) -> io::Result<()> {
        if self.file.is_none() {
            self.recover().await?;
        }
        if self.kept.contains(&deposit) {
            return Ok(());
        }
        // Taken out, so that it is gone if this fails.
        let file = self.file.take().expect("it was recovered");
        let end = (self.kept.len() * RECORD) as u64;
        file.write_all_at(deposit.to_bytes(), end).await.map_err(io::Error::from)?;
        file.sync_data().await?;
        self.kept.push(deposit);
        self.file = Some(file);
        Ok(())
    }

    /// Everything that is kept.
    async fn list(&mut self) -> io::Result<Vec<u8>> {
        if self.file.is_none() {
            self.recover().await?;
        }
        let records = self.kept.iter().flat_map(|one| one.to_bytes());
        Ok((self.kept.len() as u64).to_le_bytes().into_iter().chain(records).collect())
    }
}

async fn serve(trusts: bool) -> io::Result<()> {
    // One request at a time has the journal.
    let journal = Rc::new(Mutex::new(Journal { trusts, ..Journal::default() }));
    let listener = TcpListener::bind("0.0.0.0:80").await?;
    loop {
        // The kernel may be short of descriptors: the next call gets the connection.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let journal = journal.clone();
        quoit::spawn(async move {
            if let Err(error) = answer(&stream, &journal).await {
                sim::note(format_args!("answers nothing: {error}"));
            }
        });
    }
}

/// One request: `+` and a record keep it, `?` lists all.
async fn answer(stream: &TcpStream, journal: &Mutex<Journal>) -> io::Result<()> {
    let mut kind = [0];
    stream.read_exact(&mut kind).await?;
    if kind == *b"?" {
        let list = journal.lock().await.list().await?;
        return stream.send_all(list).await;
    }
    let mut record = [0; RECORD];
    stream.read_exact(&mut record).await?;
    let deposit = Deposit::from_bytes(&record).ok_or(io::ErrorKind::InvalidData)?;
    journal.lock().await.keep(deposit).await?;
    stream.send_all("k").await
}

// --- tellers and the auditor ---------------------------------------------------------------------

/// What the test knows, and no replica: every deposit that was ordered, and those of them that were
/// confirmed, by number.
#[derive(Default)]
struct Book {
    ordered: RefCell<BTreeMap<u64, u64>>,
    confirmed: RefCell<BTreeMap<u64, u64>>,
    /// Tellers that have not done yet.
    busy: Cell<u64>,
}

async fn teller(id: u64, book: Rc<Book>) {
    let mut chance = sim::world().chance(id);
    for count in 0..DEPOSITS {
        sleep(Duration::from_millis(chance.below(6_000) as u64)).await;
        let deposit = Deposit { number: id << 8 | count, amount: chance.up_to(100) as u64 };
        book.ordered.borrow_mut().insert(deposit.number, deposit.amount);
        while majority(|replica| deposit_at(replica, deposit)).await.is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        book.confirmed.borrow_mut().insert(deposit.number, deposit.amount);
        sim::note(format_args!("{deposit} is confirmed"));
    }
    book.busy.set(book.busy.get() - 1);
}

/// Looks again and again, and a last time when all tellers have done.
async fn audit(book: Rc<Book>) {
    loop {
        let (is_last, confirmed) = (book.busy.get() == 0, book.confirmed.borrow().clone());
        if let Some(lists) = majority(list_of).await {
            let found: BTreeMap<u64, u64> =
                lists.into_iter().flatten().map(|one| (one.number, one.amount)).collect();
            let balance: u64 = found.values().sum();
            sim::note(format_args!("the balance is {balance}"));
            for (number, amount) in confirmed {
                let deposit = Deposit { number, amount };
                let there = found.get(&number) == Some(&amount);
                assert!(there, "{deposit} was confirmed, and is gone");
            }
            let ordered = book.ordered.borrow();
            let unknown = found.iter().find(|(number, amount)| ordered.get(number) != Some(amount));
            assert_eq!(unknown, None, "nobody has ordered this");
            if is_last {
                assert_eq!(balance, ordered.values().sum::<u64>(), "all were confirmed");
                return;
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Asks all replicas at once, until most have answered. The others are left alone then, in the
/// middle of whatever they do.
async fn majority<T, F>(ask: impl Fn(&'static str) -> F) -> Option<Vec<T>>
where
    T: 'static,
    F: Future<Output = io::Result<T>> + 'static,
{
    let mut asked = JoinSet::new();
    for replica in REPLICAS {
        asked.spawn(timeout(PATIENCE, ask(replica)));
    }
    let mut answers = Vec::new();
    while answers.len() < MAJORITY {
        if let Ok(Ok(Ok(answer))) = asked.join_next().await? {
            answers.push(answer);
        }
    }
    Some(answers)
}

async fn deposit_at(replica: &str, deposit: Deposit) -> io::Result<()> {
    let stream = TcpStream::connect(replica).await?;
    stream.send_all([b"+".to_vec(), deposit.to_bytes()].concat()).await?;
    stream.read_exact(&mut [0]).await.map(drop)
}

async fn list_of(replica: &str) -> io::Result<Vec<Deposit>> {
    let stream = TcpStream::connect(replica).await?;
    stream.send_all("?").await?;
    // A replica that is killed ends the stream as one that has told all: hence the count.
    let mut count = [0; 8];
    stream.read_exact(&mut count).await?;
    let mut records = vec![0; u64::from_le_bytes(count) as usize * RECORD];
    stream.read_exact(&mut records).await?;
    Ok(records.chunks(RECORD).filter_map(Deposit::from_bytes).collect())
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn nothing_confirmed_is_lost() {
        sim::check(60, |sim| bank(sim, false));
    }

    #[test]
    fn a_replica_that_trusts_its_journal_is_found() {
        let panic = catch_unwind(|| sim::check(60, |sim| bank(sim, true)));
        let panic = panic.expect_err("no seed has found it");
        let message = panic.downcast_ref::<String>().expect("a message");
        assert!(message.contains("was confirmed, and is gone"), "{message}");
    }
}
