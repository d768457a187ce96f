//! Which of tokio's test files are for us, and why the others are not.

/// A part of tokio, and the beginnings of the names of its files.
pub(crate) const PARTS: [(&str, &[&str]); 7] = [
    ("TCP", &["tcp_", "net_bind_resource", "net_lookup_host", "net_panic", "net_quickack"]),
    ("time", &["time_", "test_clock"]),
    ("tasks", &["task_", "join_handle_panic", "unwindsafe", "async_send_sync"]),
    ("runtime", &["rt_", "no_rt", "coop_budget"]),
    ("io", &["io_", "buffered", "duplex_stream"]),
    ("macros", &["macros_"]),
    ("sync", &["sync_"]),
];

/// The parts that the bar is about; the others are tokio's own code alone.
pub(crate) const BAR: [&str; 5] = ["TCP", "time", "tasks", "runtime", "io"];

const LEFT_OUT: [(&str, &str); 12] = [
    ("_require_full", "tests nothing"),
    ("fs", "files: quoit's are read and written at offsets"),
    ("udp", "quoit has no UDP yet"),
    ("uds_", "quoit has no Unix sockets yet"),
    ("unix_shutdown", "quoit has no Unix sockets yet"),
    ("net_unix_pipe", "quoit has no pipes yet"),
    ("net_named_pipe", "Windows"),
    ("process_", "quoit has no processes yet"),
    ("signal_", "quoit's signals are two futures, not tokio's streams"),
    ("tracing_", "an unstable API"),
    ("dump", "an unstable API"),
    ("io_async_fd", "another AsyncFd than tokio's: it owns a duplicate, and knows no priority"),
];

/// The part that a file belongs to.
pub(crate) fn part(file: &str) -> Option<&'static str> {
    let of = |names: &[&str]| names.iter().any(|name| file.starts_with(name));
    PARTS.iter().find(|(_, names)| of(names)).map(|(part, _)| *part)
}

/// Those that are run, and the others, each with its reason.
pub(crate) fn sort(files: &[String]) -> (Vec<String>, Vec<(String, &'static str)>) {
    let (mut covered, mut others) = (Vec::new(), Vec::new());
    for file in files {
        let elsewhere = ["emscripten", "wasm", "windows", "poll_aio"];
        if elsewhere.iter().any(|name| file.contains(name)) {
            others.push((file.clone(), "another operating system"));
        } else if let Some((_, reason)) = LEFT_OUT.iter().find(|(name, _)| file.starts_with(name)) {
            others.push((file.clone(), *reason));
        } else if part(file).is_some() {
            covered.push(file.clone());
        } else {
            others.push((file.clone(), "of no part that is known here"));
        }
    }
    (covered, others)
}
