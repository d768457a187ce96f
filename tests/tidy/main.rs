//! The rules of this repository that a command can hold.
//!
//! ```text
//!   source.rs    text -> code without comments and strings, attributes, functions
//!   rules.rs     one rule: where it holds, what it finds, samples that it must find and must not
//!   main.rs      the samples; every rule on every file; facts about several files at once
//! ```
//!
//! A rule that can no longer find anything would pass for ever, so each carries text it has to
//! complain about and text it has to leave alone.

mod rules;
mod source;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::rules::RULES;
use crate::source::{Function, code_of, functions};

/// A text file, named relative to the repository's root.
struct File {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository, whether git knows it yet or not, except what tools generate.
fn files() -> Vec<File> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let path = entry.expect("its entries can be read").path();
            if path.is_dir() {
                let name = path.file_name().unwrap_or_default();
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if is_text(&path) {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                found.push(File { path: relative(&path), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("it is inside").to_string_lossy().into_owned()
}

fn is_text(path: &Path) -> bool {
    const KINDS: [&str; 9] = ["rs", "md", "toml", "sh", "py", "js", "yml", "json", "html"];
    let kind = path.extension().and_then(|kind| kind.to_str());
    kind.is_some_and(|kind| KINDS.contains(&kind)) || path.ends_with(".ci/run")
}

/// The text of a file that the finished repository has.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_rule_finds_its_samples() {
    for rule in RULES {
        let find = |path: &str, text: &str| {
            assert!((rule.holds_in)(path), "`{}` does not look at {path}", rule.name);
            (rule.find)(text)
        };
        assert!(!rule.wrong.is_empty() && !rule.right.is_empty(), "`{}` untested", rule.name);
        for sample in rule.wrong {
            let text = sample.text.concat();
            assert!(!find(sample.path, &text).is_empty(), "`{}` misses:\n{text}", rule.name);
        }
        for sample in rule.right {
            let text = sample.text.concat();
            let found = find(sample.path, &text);
            assert!(found.is_empty(), "`{}` finds {found:?} in:\n{text}", rule.name);
        }
        for path in rule.elsewhere {
            assert!(!(rule.holds_in)(path), "`{}` looks at {path}", rule.name);
        }
    }
}

#[test]
fn every_file_keeps_the_rules() {
    let files = files();
    let mut broken = Vec::new();
    for rule in RULES {
        for file in files.iter().filter(|file| (rule.holds_in)(&file.path)) {
            for (line, what) in (rule.find)(&file.text) {
                broken.push(format!("{}:{line}: {}: {what}", file.path, rule.name));
            }
        }
    }
    assert!(files.iter().any(|file| file.path == "lib.rs"), "the walk finds the library");
    assert_none(&broken, "rules broken");
}

/// A source file that no `mod` names is dead, and no compiler says so.
#[test]
fn every_module_is_named_by_its_parent() {
    let files: Vec<File> = files().into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    let names = |parent: &File, name: &str| {
        code_of(&parent.text).lines().any(|line| line.trim_end().ends_with(&format!("mod {name};")))
    };
    let mut orphans = Vec::new();
    for file in &files {
        let path = PathBuf::from(&file.path);
        let folder = path.parent().unwrap_or(Path::new(""));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_root = ["lib", "main", "build"].contains(&stem.as_str())
            || ["tests", "benches", "examples", "bin"].iter().any(|kind| folder.ends_with(kind));
        if is_root {
            continue;
        }
        let (folder, name) = if stem == "mod" {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (folder.parent().unwrap_or(Path::new("")), name)
        } else {
            (folder, stem)
        };
        let above = folder.with_extension("rs");
        let beside = |parent: &&File| Path::new(&parent.path).parent() == Some(folder);
        let mut parents =
            files.iter().filter(|file| beside(file) || Path::new(&file.path) == above);
        if !parents.any(|parent| names(parent, &name)) {
            orphans.push(file.path.clone());
        }
    }
    assert_none(&orphans, "files that no module names");
}

/// What a program depends on reaches everyone who depends on it.
#[test]
fn the_library_depends_on_four_crates() {
    const ALLOWED: [&str; 4] = ["crossbeam-queue", "io-uring", "libc", "pin-project-lite"];
    let manifest = read("Cargo.toml");
    let found = required_dependencies(&manifest);
    let sample =
        "[dependencies]\na = \"1\"\nb = { version = \"1\", optional = true }\n[x]\nc = 1\n";
    assert_eq!(required_dependencies(sample), ["a"]);
    assert_eq!(found, ALLOWED, "dependencies that are not optional");
}

fn required_dependencies(manifest: &str) -> Vec<&str> {
    let section = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    let required = lines.filter(|line| !line.contains("optional = true") && !line.starts_with('#'));
    required.filter_map(|line| line.split_once(" =").map(|(name, _)| name)).collect()
}

#[test]
fn ci_runs_every_example() {
    let ci = read(".ci/run");
    let mut left_out = Vec::new();
    for entry in fs::read_dir(root().join("examples")).expect("there are examples").flatten() {
        let path = entry.path();
        let is_example =
            path.extension().is_some_and(|kind| kind == "rs") || path.join("main.rs").exists();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if is_example && !runs_example(&ci, &name) {
            left_out.push(name);
        }
    }
    assert!(runs_example("example_echo() {", "echo") && !runs_example("echo hello", "echo"));
    assert_none(&left_out, "examples without a function example_NAME in .ci/run");
}

/// `.ci/run` has one function for each example and refuses to run if one of them is not called.
fn runs_example(ci: &str, name: &str) -> bool {
    ci.lines().any(|line| line == format!("example_{name}() {{"))
}

#[test]
fn the_readme_is_true() {
    let readme = read("README.md");
    for command in ["cargo run --release --example duel", "cargo test"] {
        let shown = readme.lines().any(|line| line.trim() == command);
        assert!(shown, "README.md does not show `{command}` on a line of its own");
    }
    // Rust code in it is compiled because the library's documentation tests include it.
    let included = "include_str!(\"README.md\")";
    let library = read("lib.rs");
    let is_tested = library.lines().any(|line| line.starts_with("#!") && line.contains(included))
        || library.lines().any(|line| line.starts_with("#[") && line.contains(included));
    assert!(is_tested, "lib.rs does not include README.md as documentation");
    let fences = fences(&readme);
    assert!(fences.iter().any(|fence| fence.language == "rust"), "README.md shows no Rust");
    let untested = fences.iter().filter(|fence| fence.language.contains("ignore"));
    assert_eq!(untested.count(), 0, "README.md has code that is not compiled");

    let hello = read("examples/hello.rs");
    let hello = without_header(&hello);
    let shown = fences.iter().any(|fence| fence.text.contains(hello));
    assert!(shown, "README.md does not show examples/hello.rs as it is:\n{hello}");
}

/// A block of code in Markdown.
#[derive(Debug, PartialEq, Eq)]
struct Fence {
    language: String,
    text: String,
}

fn fences(markdown: &str) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    let mut inside = false;
    for line in markdown.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            if inside {
                found.push(Fence { language: language.to_owned(), text: String::new() });
            }
        } else if let (true, Some(fence)) = (inside, found.last_mut()) {
            fence.text.push_str(line);
            fence.text.push('\n');
        }
    }
    found
}

/// A source file without the `//!` lines it opens with.
fn without_header(source: &str) -> &str {
    let header = source.lines().take_while(|line| line.starts_with("//!"));
    let length: usize = header.map(|line| line.len() + 1).sum();
    source[length.min(source.len())..].trim()
}

#[test]
fn markdown_is_taken_apart() {
    let found = fences("a\n```rust\nfn f() {}\n```\nb\n```\nc\n```\n");
    let expected = [("rust", "fn f() {}\n"), ("", "c\n")];
    let expected = expected
        .map(|(language, text)| Fence { language: language.to_owned(), text: text.to_owned() });
    assert_eq!(found, expected);
    assert_eq!(without_header("//! a\n//! b\n\nfn f() {}\n"), "fn f() {}");
}

/// No hard limit except the last: a long file may be one idea, but it should be looked at.
#[test]
fn lengths() {
    const LONG_FILE: usize = 500;
    const LONGEST_FILE: usize = 700;
    const LONG_FUNCTION: usize = 70;
    let mut report = Vec::new();
    let mut too_long = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".rs")) {
        let lines = file.text.lines().count();
        if lines > LONG_FILE {
            report.push(format!("{}: {lines} lines", file.path));
        }
        if lines > LONGEST_FILE {
            too_long.push(format!("{}: {lines} lines", file.path));
        }
        for Function { name, line, length } in functions(&file.text) {
            if length > LONG_FUNCTION {
                report.push(format!("{}:{line}: {name} has {length} lines", file.path));
            }
        }
    }
    if !report.is_empty() {
        // Past the harness, which hides what a passing test prints.
        let text = format!("\ntidy: long, is each still one idea?\n  {}\n", report.join("\n  "));
        io::stderr().write_all(text.as_bytes()).expect("standard error is open");
    }
    assert_none(&too_long, "files over 700 lines");
}
