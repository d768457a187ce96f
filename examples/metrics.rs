//! What each core has done, as Prometheus reads it; and an echo server, to have something to count.
//!
//! `metrics [ADDR] [ECHO_ADDR] [--cores N]`, then `curl http://ADDR/metrics`
//!
//! Each scrape asks all cores by message and waits for none of them longer than a second: a core
//! that does not answer has `quoit_up` 0. Polls are timed here, which costs a look at the clock
//! each; without `time_polls` the histogram of their times is left out. Stops on SIGINT or SIGTERM.

use std::fmt::{Display, Write};
use std::{io, pin::pin, process::exit, time::Duration};

use clap::Parser;
use futures::future::{join_all, select};
use quoit::net::{Placement, TcpListener, TcpStream};
use quoit::signal::{ctrl_c, terminate};
use quoit::time::timeout;
use quoit::{CoreHandle, Cores, Histogram, Metrics, Runtime};

#[derive(Parser, Clone)]
#[command(about = "An echo server whose metrics Prometheus can scrape")]
struct Options {
    #[arg(default_value = "127.0.0.1:9100", help = "Where the metrics are; port 0: any")]
    address: String,
    #[arg(default_value = "127.0.0.1:7777", help = "Where the echo is; port 0: any")]
    echo: String,
    #[arg(long, default_value_t = 2, help = "How many cores serve")]
    cores: usize,
}

fn main() {
    let options = Options::parse();
    let builder = Runtime::builder().cores(Cores::Count(options.cores)).time_polls(true);
    let ends = builder.run(move |core| start(core, options.clone()));
    if let Err(error) = ends.and_then(|ends| ends.into_iter().collect::<io::Result<()>>()) {
        eprintln!("metrics: {error}");
        exit(1);
    }
}

/// The first core opens a listener for each core and sends it there, and exports for all.
async fn start(core: CoreHandle, options: Options) -> io::Result<()> {
    if core.index() > 0 {
        return Ok(());
    }
    let listener = TcpListener::bind(options.address.as_str()).await?;
    println!("metrics at http://{}/metrics", listener.local_addr()?);
    let mut echo = options.echo;
    for index in 0..core.count() {
        let listener = TcpListener::bind_sharded(echo.as_str(), Placement::Hash).await?;
        echo = listener.local_addr()?.to_string();
        core.spawn_on(index, move || serve_echo(listener));
    }
    println!("echo at {echo}");
    let export = serve_metrics(listener, core);
    let stop = async { select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0 };
    select(pin!(export), pin!(stop)).await.factor_first().0
}

async fn serve_echo(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(quoit::spawn(echo(stream))),
            Err(error) => eprintln!("metrics: {error}"),
        }
    }
}

async fn echo(stream: TcpStream) {
    while let Ok(lease) = stream.recv().await {
        if lease.is_empty() || stream.send(lease).await.is_err() {
            break;
        }
    }
}

// --- the exporter --------------------------------------------------------------------------------

async fn serve_metrics(listener: TcpListener, core: CoreHandle) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer(stream, core.clone());
                drop(quoit::spawn(timeout(Duration::from_secs(10), answer)));
            }
            Err(error) => eprintln!("metrics: {error}"),
        }
    }
}

/// One request, one answer: enough of HTTP for a scraper.
async fn answer(stream: TcpStream, core: CoreHandle) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let lease = stream.recv().await?;
        if lease.is_empty() || head.len() + lease.len() > 8 * 1024 {
            return Ok(());
        }
        head.extend_from_slice(&lease);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", page(&ask_all(&core).await)),
        (Some(b"GET"), _) => ("404 Not Found", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET only\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.send_all(head + &body).await?;
    stream.close().await
}

/// All cores, each asked by message; `None` for one that is gone or stalled.
async fn ask_all(core: &CoreHandle) -> Vec<Option<Metrics>> {
    let ask = |index| timeout(Duration::from_secs(1), core.handle(index).metrics());
    let answers = join_all((0..core.count()).map(ask)).await;
    answers.into_iter().map(|answer| answer.ok()?.ok()).collect()
}

// --- the text format, version 0.0.4 --------------------------------------------------------------

/// A family of samples: its name, its help, and its value of a core.
type Family = (&'static str, &'static str, fn(&Metrics) -> f64);

const COUNTERS: [Family; 26] = [
    ("processor_seconds_total", "Processor time of the core's thread", |m| {
        seconds(m.processor_time)
    }),
    ("tasks_spawned_total", "Tasks spawned on this core or sent to it", |m| m.tasks_spawned as f64),
    ("tasks_panicked_total", "Tasks whose future has panicked", |m| m.tasks_panicked as f64),
    ("task_polls_total", "Polls of tasks", |m| m.task_polls as f64),
    ("remote_wakes_total", "Tasks that other threads woke or sent", |m| m.remote_wakes as f64),
    ("turns_total", "Turns of the proactor", |m| m.turns as f64),
    ("parks_total", "Turns that might wait, as nothing was ready", |m| m.parks as f64),
    ("stalls_total", "Polls over the limit of the stall detector", |m| m.stalls as f64),
    ("ring_enters_total", "io_uring_enter or epoll_wait", |m| m.ring.enters as f64),
    ("ring_enters_refused_total", "Enters that the kernel sent back", |m| {
        m.ring.enters_refused as f64
    }),
    ("direct_calls_total", "Direct non-blocking system calls", |m| m.ring.direct_calls as f64),
    ("registrations_total", "epoll_ctl calls", |m| m.ring.registrations as f64),
    ("submissions_total", "Requests submitted", |m| m.ring.submissions as f64),
    ("completions_total", "Completions taken", |m| m.ring.completions as f64),
    ("pool_jobs_total", "Requests that went to a pool thread", |m| m.ring.pool_jobs as f64),
    ("ring_overflows_total", "Overflows of the completion queue", |m| m.ring.overflows as f64),
    ("ring_queue_full_total", "Submissions that found no room", |m| m.ring.queue_full as f64),
    ("would_block_total", "Attempts that found nothing yet", |m| m.ring.would_block as f64),
    ("unknown_completions_total", "Completions that nobody knows", |m| {
        m.resources.unknown_completions as f64
    }),
    ("buffers_exhausted_total", "Receives that found no pooled buffer", |m| {
        m.resources.buffers_exhausted as f64
    }),
    ("private_receives_total", "Receives into private memory instead", |m| {
        m.resources.private_receives as f64
    }),
    ("buffer_growths_total", "Times that the pool was enlarged", |m| m.buffers.growths as f64),
    ("buffer_growths_refused_total", "Times that there was no memory for it", |m| {
        m.buffers.growths_refused as f64
    }),
    ("connections_accepted_total", "Connections taken from the kernel", |m| {
        m.resources.connections_accepted as f64
    }),
    ("connections_delivered_total", "Connections that accept handed on", |m| {
        m.resources.connections_delivered as f64
    }),
    ("connections_undelivered_total", "Connections closed with their listener", |m| {
        m.resources.connections_undelivered as f64
    }),
];

const GAUGES: [Family; 17] = [
    ("tasks_alive", "Tasks that have not ended", |m| m.tasks_alive as f64),
    ("tasks_ready", "Tasks that wait for their turn", |m| m.tasks_ready as f64),
    ("tasks_ready_peak", "The most that ever did", |m| m.tasks_ready_peak as f64),
    ("remote_waiting", "Sent by other threads and not looked at", |m| m.remote_waiting as f64),
    ("streams_open", "Streams that are open or closing", |m| m.streams_open as f64),
    ("streams_starved", "Streams that wait for a buffer", |m| m.streams_starved as f64),
    ("listeners_open", "Listeners that are open", |m| m.listeners_open as f64),
    ("connections_waiting", "Connections that wait for accept", |m| m.connections_waiting as f64),
    ("descriptors_watched", "Descriptors of others that are watched", |m| {
        m.descriptors_watched as f64
    }),
    ("operations_open", "Operations in flight or not taken", |m| m.operations_open as f64),
    ("requests_in_flight", "Requests without their last completion", |m| {
        m.requests_in_flight as f64
    }),
    ("leases_out", "Leases that are out", |m| m.leases_out as f64),
    ("buffers", "Buffers of the pool", |m| m.buffers.total as f64),
    ("buffers_limit", "Buffers that there may be", |m| m.buffers.limit as f64),
    ("buffers_in_use", "Buffers that the program has", |m| m.buffers.in_use as f64),
    ("buffers_in_use_peak", "The most that it had", |m| m.buffers.in_use_peak as f64),
    ("buffer_size_bytes", "Bytes of a buffer", |m| m.buffers.size as f64),
];

/// The completions with an error, by what it means: a label, and the count of a core.
type Errors = (&'static str, fn(&Metrics) -> u64);

const ERRORS: [Errors; 6] = [
    ("cancelled", |m| m.errors.cancelled),
    ("no_buffers", |m| m.errors.no_buffers),
    ("again", |m| m.errors.again),
    ("shortage", |m| m.errors.shortages),
    ("connection", |m| m.errors.connections),
    ("other", |m| m.errors.others),
];

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// All families, each with its samples of all cores together, as the format wants it.
fn page(cores: &[Option<Metrics>]) -> String {
    let mut page = String::new();
    let known = || cores.iter().enumerate().filter_map(|(core, one)| Some((core, one.as_ref()?)));
    head(&mut page, "up", "gauge", "Whether the core has answered within a second");
    for (core, metrics) in cores.iter().enumerate() {
        sample(&mut page, "up", core, "", u8::from(metrics.is_some()));
    }
    for (kind, families) in [("counter", &COUNTERS[..]), ("gauge", &GAUGES[..])] {
        for (name, help, value) in families {
            head(&mut page, name, kind, help);
            known().for_each(|(core, metrics)| sample(&mut page, name, core, "", value(metrics)));
        }
    }
    let name = "completion_errors_total";
    head(&mut page, name, "counter", "Completions with an error, by what it means");
    for (core, metrics) in known() {
        for (error, count) in ERRORS {
            sample(&mut page, name, core, &format!(",error=\"{error}\""), count(metrics));
        }
    }
    let name = "completions_per_turn";
    head(&mut page, name, "histogram", "Completions that a turn of the ring brought");
    for (core, metrics) in known() {
        histogram(&mut page, name, core, &metrics.completions_per_turn, |count| count as f64);
    }
    if known().any(|(_, metrics)| metrics.poll_times.is_some()) {
        head(&mut page, "poll_seconds", "histogram", "How long polls of tasks took");
    }
    for (core, metrics) in known() {
        if let Some(times) = &metrics.poll_times {
            histogram(&mut page, "poll_seconds", core, times, seconds);
        }
    }
    page
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP quoit_{name} {help}.\n# TYPE quoit_{name} {kind}");
}

fn sample(page: &mut String, name: &str, core: usize, labels: &str, value: impl Display) {
    let _ = writeln!(page, "quoit_{name}{{core=\"{core}\"{labels}}} {value}");
}

/// Buckets count all that is not above their bound.
fn histogram(
    page: &mut String,
    name: &str,
    core: usize,
    histogram: &Histogram,
    unit: impl Fn(u64) -> f64,
) {
    let (bucket, mut below) = (format!("{name}_bucket"), 0);
    for (bound, count) in histogram.buckets() {
        below += count;
        let bound = if bound == u64::MAX { "+Inf".to_owned() } else { unit(bound).to_string() };
        sample(page, &bucket, core, &format!(",le=\"{bound}\""), below);
    }
    sample(page, &format!("{name}_sum"), core, "", unit(histogram.sum()));
    sample(page, &format!("{name}_count"), core, "", below);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    type Labels = BTreeMap<String, String>;

    /// A page, read as strictly as the format is written.
    struct Read {
        kinds: BTreeMap<String, String>,
        samples: BTreeMap<(String, Labels), f64>,
    }

    impl Read {
        fn of(page: &str) -> Self {
            let mut read = Self { kinds: BTreeMap::new(), samples: BTreeMap::new() };
            let (mut current, mut helped) = (String::new(), BTreeSet::new());
            assert!(page.ends_with('\n'), "the last line ends, too");
            for line in page.lines() {
                if let Some(help) = line.strip_prefix("# HELP ") {
                    let (name, text) = help.split_once(' ').expect("a name and a text");
                    assert!(helped.insert(name.to_owned()) && !text.is_empty(), "one help: {line}");
                    current = name.to_owned();
                } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                    let (name, kind) = kind.split_once(' ').expect("a name and a type");
                    assert_eq!(name, current, "the type follows its help");
                    assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                    assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                    assert!(read.kinds.insert(name.to_owned(), kind.to_owned()).is_none());
                } else {
                    read.sample(line, &current);
                }
            }
            read
        }

        fn sample(&mut self, line: &str, family: &str) {
            let (name, rest) = line.split_once('{').expect("samples have labels here");
            let (labels, value) = rest.split_once("} ").expect("one space before the value");
            let of_family = match self.kinds[family].as_str() {
                "histogram" => name.strip_prefix(family),
                _ => (name == family).then_some(""),
            };
            let suffix = of_family.unwrap_or_else(|| panic!("{name} stands below {family}"));
            assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
            let labels: Labels = labels.split(',').map(label).collect();
            assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{line}");
            let value = value.parse().expect("a number");
            assert!(
                self.samples.insert((name.to_owned(), labels), value).is_none(),
                "twice: {line}"
            );
        }

        fn value(&self, name: &str, core: usize) -> f64 {
            let labels = [("core".to_owned(), core.to_string())].into();
            self.samples[&(format!("quoit_{name}"), labels)]
        }

        /// Buckets never go down, and the last is the count.
        fn check_histogram(&self, name: &str, core: usize) {
            let bucket = format!("quoit_{name}_bucket");
            let of_core = |labels: &&Labels| labels["core"] == core.to_string();
            let mut buckets: Vec<(f64, f64)> = (self.samples.iter())
                .filter(|((name, labels), _)| *name == bucket && of_core(&labels))
                .map(|((_, labels), value)| (labels["le"].parse().expect("a bound"), *value))
                .collect();
            buckets.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
            assert!(buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1));
            let last = buckets.last().expect("there are buckets");
            assert_eq!(*last, (f64::INFINITY, self.value(&format!("{name}_count"), core)));
        }
    }

    fn label(text: &str) -> (String, String) {
        let (name, value) = text.split_once('=').expect("a name and a value");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name.to_owned(), value.expect("values stand in quotes").to_owned())
    }

    async fn scrape(address: &str, path: &str) -> (String, String) {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        stream.send_all(request).await.expect("it reads");
        let mut answer = String::new();
        loop {
            let lease = stream.recv().await.expect("it answers");
            if lease.is_empty() {
                break;
            }
            answer.push_str(std::str::from_utf8(&lease).expect("text"));
        }
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn the_page_is_read_and_moves_with_the_load() {
        const MESSAGES: usize = 50;
        let builder = Runtime::builder().cores(Cores::Count(2)).time_polls(true);
        let cores = builder.run(|core| async move {
            if core.index() > 0 {
                return;
            }
            let exporter = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = exporter.local_addr().expect("bound").to_string();
            drop(quoit::spawn(serve_metrics(exporter, core.clone())));
            let (head, _) = scrape(&address, "/elsewhere").await;
            assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
            let (head, page) = scrape(&address, "/metrics").await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("text/plain; version=0.0.4"), "{head}");
            let before = Read::of(&page);

            // The load is the other core's.
            let load = core.spawn_on(1, || async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("bound");
                drop(quoit::spawn(serve_echo(listener)));
                let stream = TcpStream::connect(address).await.expect("it listens");
                for _ in 0..MESSAGES {
                    stream.send_all("around").await.expect("it reads");
                    drop(stream.recv().await.expect("it echoes"));
                }
            });
            load.await.expect("it does not panic");
            let after = Read::of(&scrape(&address, "/metrics").await.1);
            for core in 0..2 {
                assert_eq!((before.value("up", core), after.value("up", core)), (1.0, 1.0));
                after.check_histogram("completions_per_turn", core);
                after.check_histogram("poll_seconds", core);
            }
            let grown = |name| after.value(name, 1) - before.value(name, 1);
            assert_eq!(grown("connections_accepted_total"), 1.0);
            assert!(grown("task_polls_total") >= MESSAGES as f64);
            assert!(grown("completions_total") >= MESSAGES as f64);
            assert!(grown("poll_seconds_count") >= MESSAGES as f64);
            assert!(grown("poll_seconds_sum") > 0.0 && grown("processor_seconds_total") > 0.0);
            assert!(grown("completions_per_turn_sum") >= MESSAGES as f64);
            assert!(after.value("listeners_open", 1) >= 1.0 && after.value("buffers", 1) > 0.0);
        });
        cores.expect("two cores");
    }

    #[test]
    fn a_core_that_does_not_answer_is_down_and_has_nothing_to_say() {
        let read = Read::of(&page(&[None]));
        assert_eq!(read.value("up", 0), 0.0);
        assert_eq!(read.samples.len(), 1);
    }
}
