//! One rule per entry: where it holds, what it finds, and samples of both.
//!
//! Samples are written in pieces, so that this file itself does not contain what it forbids.

use crate::source::{attributes, code_of, has_word, numbered};

/// What breaks a rule: the line, and what about it.
pub(crate) type Finding = (usize, String);

pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// Whether the rule is about the file of this name.
    pub(crate) holds_in: fn(&str) -> bool,
    pub(crate) find: fn(&str) -> Vec<Finding>,
    pub(crate) wrong: &'static [Sample],
    pub(crate) right: &'static [Sample],
    /// Files it is not about.
    pub(crate) elsewhere: &'static [&'static str],
}

/// A text, in pieces, as if it stood in the file of this name.
pub(crate) struct Sample {
    pub(crate) path: &'static str,
    pub(crate) text: &'static [&'static str],
}

const fn sample(path: &'static str, text: &'static [&'static str]) -> Sample {
    Sample { path, text }
}

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "io/ knows nothing of runtime/",
        holds_in: |path| path.starts_with("io/"),
        find: |text| names(text, &["runtime"]),
        wrong: &[
            sample("io/mod.rs", &["use crate::runtime::Core;"]),
            sample("io/net/tcp.rs", &["fn f() { crate::{runtime::spawn(a)} }"]),
        ],
        right: &[sample("io/mod.rs", &["//! Below the runtime.\nlet a = \"runtime\";"])],
        elsewhere: &["runtime/core.rs", "lib.rs"],
    },
    Rule {
        name: "runtime/ knows no request and no kernel interface",
        holds_in: |path| path.starts_with("runtime/"),
        find: |text| {
            names(text, &["squeue", "cqueue", "opcode", "Request", "request", "io_uring", "libc"])
        },
        wrong: &[
            sample("runtime/core.rs", &["use crate::io::request::Request;"]),
            sample("runtime/core.rs", &["let entry: io_uring::squeue::Entry;"]),
            sample("runtime/core.rs", &["opcode::Nop::new()"]),
        ],
        right: &[sample("runtime/core.rs", &["// No Request here.\nlet requests = 1;"])],
        elsewhere: &["io/ring/mod.rs"],
    },
    Rule {
        name: "every unsafe block says what makes it safe",
        holds_in: is_rust,
        find: unexplained_unsafe,
        wrong: &[
            sample("io/a.rs", &["let a = 1;\nlet b = uns", "afe { f() };"]),
            sample("io/a.rs", &["// SAFETY: of another.\nf();\n\nuns", "afe impl Send for A {}"]),
        ],
        right: &[
            sample("io/a.rs", &["// SAFETY: why.\nlet b =\n    uns", "afe { f() };"]),
            sample("io/a.rs", &["/// # Safety\nuns", "afe fn f();\n// uns", "afe { in prose }"]),
        ],
        elsewhere: &["README.md"],
    },
    Rule {
        name: "clock, threads and system calls only through the seam",
        holds_in: uses_the_seam,
        find: ambient,
        wrong: &[
            sample("runtime/time.rs", &["let now = std::time::Instant::now();"]),
            sample("io/a.rs", &["use std::{io, time::{self, Instant}};\nInstant::now();"]),
            sample("io/a.rs", &["use std::time;\ntime::Instant::now();"]),
            sample("io/timers.rs", &["use std::time::SystemTime;"]),
            sample("runtime/core.rs", &["thread::spawn(f);"]),
            sample("runtime/core.rs", &["use std::thread::{self, Builder};"]),
            sample("io/net/tcp.rs", &["unsafe { libc::send(a) };"]),
            sample("io/net/tcp.rs", &["#[cfg(test)]\nmod tests;\nfn f() { libc::close(1); }"]),
        ],
        right: &[
            sample("runtime/time.rs", &["// Not std::time::Instant::now.\nInstant::now_here();"]),
            sample("runtime/time.rs", &["use super::Instant;\nlet now = Instant::now();"]),
            sample("io/a.rs", &["f();\n#[cfg(test)]\nmod tests { fn f() { thread::spawn(g); } }"]),
            sample(
                "io/a.rs",
                &["f();\n#[cfg(all(loom, test))]\nmod loom { fn f() { thread::spawn(g); } }"],
            ),
            sample("io/a.rs", &["use std::thread::JoinHandle; use std::time::Instant;"]),
            sample("io/a.rs", &["match error { libc::EAGAIN => a, _ => b }"]),
        ],
        elsewhere: &[
            "io/system.rs",
            "io/ring/uring/mod.rs",
            "io/pool.rs",
            "io/net/tests.rs",
            "runtime/models.rs",
            "tests/tcp.rs",
        ],
    },
    Rule {
        name: "nothing is left for later",
        holds_in: |_| true,
        find: leftovers,
        wrong: &[
            sample("README.md", &["TO", "DO: write this"]),
            sample("io/a.rs", &["// FIX", "ME"]),
            sample("tests/a.rs", &["db", "g!(a);"]),
            sample("io/a.rs", &["to", "do!()"]),
            sample("io/a.rs", &["unimple", "mented!()"]),
            sample("io/a.rs", &["hint::unreachable_", "unchecked()"]),
        ],
        right: &[sample("io/a.rs", &["let todos = a_dbg();"])],
        elsewhere: &[],
    },
    Rule {
        name: "lines have at most 100 columns",
        holds_in: |path| is_rust(path) || path == ".ci/run",
        find: |text| {
            let wide = |line: &str| line.chars().count() > 100 && !line.contains("://");
            let found = numbered(text).filter(|(_, line)| wide(line));
            found.map(|(at, line)| (at, format!("{} columns", line.chars().count()))).collect()
        },
        wrong: &[sample("io/a.rs", &[FIFTY, FIFTY, "1"])],
        right: &[
            sample("io/a.rs", &[FIFTY, FIFTY, "\n", FIFTY, FIFTY]),
            sample("io/a.rs", &["//! <https://example.org>", FIFTY, FIFTY]),
        ],
        elsewhere: &["README.md", "Cargo.toml"],
    },
    Rule {
        name: "a file opens with its idea",
        holds_in: is_rust,
        find: |text| match text.strip_prefix("//! ") {
            Some(idea) if !idea.trim_start().is_empty() => Vec::new(),
            _ => vec![(1, "the first line is no `//! `".to_owned())],
        },
        wrong: &[
            sample("io/a.rs", &["use std::io;\n//! Late."]),
            sample("io/a.rs", &["//! "]),
            sample("io/a.rs", &[""]),
        ],
        right: &[sample("examples/echo.rs", &["//! Echo.\n"])],
        elsewhere: &[".ci/run"],
    },
    Rule {
        name: "what is ignored or allowed says why",
        holds_in: is_rust,
        find: without_reason,
        wrong: &[
            sample("tests/a.rs", &["#[ign", "ore]\nfn f() {}"]),
            sample("tests/a.rs", &["#![all", "ow(dead_code)]"]),
            sample("tests/a.rs", &["#[cfg_attr(loom, all", "ow(\n  dead_code,\n))]"]),
        ],
        right: &[
            sample("tests/a.rs", &["#[ign", "ore = \"slow\"]\nfn f() { a.expect(\"b\"); }"]),
            sample("tests/a.rs", &["#[all", "ow(\n  dead_code,\n  reason = \"b\"\n)]"]),
        ],
        elsewhere: &["README.md"],
    },
    Rule {
        name: "examples in the documentation are compiled",
        holds_in: |path| is_rust(path) || path.ends_with(".md"),
        find: |text| {
            let is_ignored = |line: &str| {
                let line = line.trim_start().trim_start_matches(['/', '!']).trim_start();
                line.strip_prefix("```").is_some_and(|language| has_word(language, "ignore"))
            };
            let found = numbered(text).filter(|(_, line)| is_ignored(line));
            found.map(|(line, _)| (line, "an example that nothing compiles".to_owned())).collect()
        },
        wrong: &[
            sample("io/a.rs", &["/// ```ign", "ore\n/// f();\n/// ```"]),
            sample("README.md", &["```rust,ign", "ore\n"]),
        ],
        right: &[sample("io/a.rs", &["//! ```no_run\n//! f(); // ignore\n//! ```"])],
        elsewhere: &["Cargo.toml"],
    },
    Rule {
        name: "no path of one machine",
        holds_in: |_| true,
        find: machine_paths,
        wrong: &[
            sample("README.md", &["see /", "tmp/report.html"]),
            sample("io/a.rs", &["\"/ro", "ot/.cargo\""]),
            sample(".ci/run", &["cd /wo", "rk/main"]),
            sample("tests/a.rs", &["/ho", "me/me"]),
        ],
        right: &[sample(
            "README.md",
            &["${TMPDIR:-/tmp}, target/", "tmp/a, ./", "work/b, /proc/self"],
        )],
        elsewhere: &[],
    },
];

/// Fifty columns.
const FIFTY: &str = "//345678901234567890123456789012345678901234567890";

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// The library, except the files that are the seam, and tests (loom's models start loom's threads).
fn uses_the_seam(path: &str) -> bool {
    const SEAM: [&str; 5] = ["io/system", "io/request/", "io/ring/", "io/buffer/", "io/pool.rs"];
    let in_library = path == "lib.rs" || path.starts_with("io/") || path.starts_with("runtime/");
    let is_tests = ["/tests.rs", "/models.rs"].iter().any(|end| path.ends_with(end))
        || path.contains("/tests/");
    in_library
        && is_rust(path)
        && !is_tests
        && !SEAM.iter().any(|allowed| path.starts_with(allowed))
}

/// Lines whose code has one of the words.
fn names(text: &str, words: &[&str]) -> Vec<Finding> {
    let code = code_of(text);
    let mut found = Vec::new();
    for (line, code) in numbered(&code) {
        let named = words.iter().filter(|word| has_word(code, word));
        found.extend(named.map(|word| (line, format!("names `{word}`"))));
    }
    found
}

/// `unsafe` blocks and impls without a `SAFETY:` in the lines above, up to a blank line.
fn unexplained_unsafe(text: &str) -> Vec<Finding> {
    const REACH: usize = 12;
    let code = code_of(text);
    let lines: Vec<&str> = text.lines().collect();
    let is_explained = |line: usize| {
        let above =
            lines[..line].iter().rev().take(REACH).take_while(|text| !text.trim().is_empty());
        above.into_iter().any(|text| text.contains("SAFETY:"))
    };
    let opens = |code: &str| {
        code.match_indices("unsafe").any(|(at, word)| {
            let after = code[at + word.len()..].trim_start();
            after.starts_with('{') || after.starts_with("impl")
        })
    };
    let found = numbered(&code).filter(|(line, code)| opens(code) && !is_explained(*line));
    found.map(|(line, _)| (line, "no SAFETY comment above".to_owned())).collect()
}

/// Direct use of what the seam stands for. Tests at the end of a file may use the real thing, and
/// constants of the C library (error numbers) do nothing.
fn ambient(text: &str) -> Vec<Finding> {
    const WORDS: [&str; 4] =
        ["std::time::Instant::now", "SystemTime", "thread::spawn", "thread::Builder"];
    let code = code_of(text);
    let code = &code[..start_of_tests(&code)];
    let mut found = names(code, &WORDS);
    // An `Instant` of our own asks the clock of the core.
    let mut imports = code.match_indices("use std::").map(|(at, _)| code[at..].split(';').next());
    let of_std = |import: &str| has_word(import, "Instant") || import == "use std::time";
    if imports.any(|import| import.is_some_and(of_std)) {
        found.extend(names(code, &["Instant::now"]));
    }
    for (line, code) in numbered(code) {
        let imports = has_word(code, "use") && has_word(code, "thread");
        if imports && (has_word(code, "Builder") || has_word(code, "spawn")) {
            found.push((line, "imports the start of threads".to_owned()));
        }
        let mut libc = code.split("libc::").skip(1);
        if libc.any(|after| !after.starts_with(|c: char| c.is_ascii_uppercase())) {
            found.push((line, "names `libc`".to_owned()));
        }
    }
    found
}

/// Where the first `#[cfg(test)] mod name {` begins; by custom nothing but tests follows it.
fn start_of_tests(code: &str) -> usize {
    let mut starts = code.match_indices("#[cfg(").map(|(at, _)| at);
    let is_tests = |at: &usize| {
        let mut lines = code[*at..].lines().map(str::trim);
        lines.next().is_some_and(|condition| has_word(condition, "test"))
            && lines
                .find(|line| !line.starts_with("#["))
                .is_some_and(|line| has_word(line, "mod") && line.contains('{'))
    };
    starts.find(is_tests).unwrap_or(code.len())
}

fn leftovers(text: &str) -> Vec<Finding> {
    const WORDS: [&str; 6] = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("db", "g!"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("unreachable_", "unchecked"),
    ];
    let mut found = Vec::new();
    for (line, text) in numbered(text) {
        let left = WORDS.iter().filter(|word| has_word(text, word));
        found.extend(left.map(|word| (line, format!("`{word}`"))));
    }
    found
}

fn without_reason(text: &str) -> Vec<Finding> {
    let code = code_of(text);
    let lacks = |attribute: &str| {
        let allows = has_word(attribute, "allow(") || has_word(attribute, "expect(");
        attribute.trim() == "ignore" || (allows && !has_word(attribute, "reason"))
    };
    let found = attributes(&code).into_iter().filter(|(_, attribute)| lacks(attribute));
    found
        .map(|(line, attribute)| (line, format!("`{}` gives no reason", attribute.trim())))
        .collect()
}

/// `/tmp` and its like with something in it, at the start of a path.
fn machine_paths(text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, text) in numbered(text) {
        for folder in ["tmp", "work", "root", "home", "farm"] {
            let path = format!("/{folder}/");
            let is_machine = text.match_indices(&path).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                let after = text[at + path.len()..].chars().next();
                !before.is_some_and(|c| c.is_alphanumeric() || "_.".contains(c))
                    && after.is_some_and(|c| c.is_ascii_lowercase() || c == '.')
            });
            if is_machine {
                found.push((line, format!("`{path}`")));
            }
        }
    }
    found
}
