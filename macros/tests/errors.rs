//! What the compiler says to a wrong use: each snippet goes to `rustc` with the macros of this
//! build, and the message must name the mistake. A snippet that is right but for the mistake
//! compiles up to the missing runtime, so no other error can stand in for the expected one.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// The macros, compiled for these tests: cargo does not say where it put its own build of them, nor
/// are its flags (a sanitizer, say) those of the bare `rustc` below.
fn macros() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libquoit_macros.so");
        let built = Command::new("rustc")
            .args(["--edition=2024", "--crate-type=proc-macro", "--crate-name=quoit_macros"])
            .args(["--extern", "proc_macro", "-o"])
            .args([&library, &Path::new(env!("CARGO_MANIFEST_DIR")).join("lib.rs")])
            .status()
            .expect("rustc runs");
        assert!(built.success(), "the macros do not compile");
        library
    });
    &LIBRARY
}

/// What `rustc` says to `attribute` (without its `#[..]`) on `item`.
fn compile(attribute: &str, item: &str) -> String {
    let mut extern_macros = OsString::from("quoit_macros=");
    extern_macros.push(macros());
    let mut rustc = Command::new("rustc")
        .args(["--edition=2024", "--crate-type=lib", "--test", "--emit=metadata"])
        .args(["--out-dir", env!("CARGO_TARGET_TMPDIR"), "--extern"])
        .arg(extern_macros)
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("rustc runs");
    let source = format!("{RUNTIME}\n#[quoit_macros::{attribute}]\n{item}\n");
    let mut input = rustc.stdin.take().expect("it was piped");
    input.write_all(source.as_bytes()).expect("rustc reads its input");
    drop(input);
    let output = rustc.wait_with_output().expect("rustc ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), !text.contains("error"), "{text}");
    text
}

/// The runtime as far as the expansion names it, so that a right use compiles.
const RUNTIME: &str = r"
extern crate self as quoit;
pub mod __private {
    pub enum RingChoice { Uring, Readiness }
    pub struct MainOptions { pub ring: Option<RingChoice>, pub spin_us: Option<u64> }
    pub struct TestOptions {
        pub name: &'static str,
        pub ring: Option<RingChoice>,
        pub start_paused: bool,
        pub seeds: u64,
        pub should_panic: Option<Option<&'static str>>,
    }
    pub fn run_main<F: Future>(_: MainOptions, body: impl FnOnce() -> F) -> F::Output {
        drop(body);
        loop {}
    }
    pub fn run_test<F: Future>(_: TestOptions, body: impl Fn() -> F) {
        drop(body);
    }
}
";

#[track_caller]
fn refused(attribute: &str, item: &str, because: &str) {
    let text = compile(attribute, item);
    let said = text.lines().any(|line| line.starts_with("error") && line.contains(because));
    assert!(said, "expected an error saying `{because}`, got:\n{text}");
    assert_eq!(
        text.matches("\nerror").count(),
        1,
        "more than the one error (and its count):\n{text}"
    );
}

#[track_caller]
fn accepted(attribute: &str, item: &str) {
    let text = compile(attribute, item);
    assert!(!text.contains("error"), "expected no error, got:\n{text}");
}

#[test]
fn a_right_use_compiles() {
    accepted("main", "pub(crate) async fn main() -> Result<(), String> { Err(\"no\")?; Ok(()) }");
    accepted("main(ring = \"auto\", spin_us = 1_000,)", "async fn main() {}");
    accepted(
        "main",
        "async fn main() -> impl std::process::Termination { std::process::ExitCode::SUCCESS }",
    );
    accepted("test", "async fn r#try() { let () = std::future::ready(()).await; }");
    accepted("test(ring = \"uring\", start_paused = true)", "#[ignore = \"slow\"] async fn f() {}");
    accepted("test(seeds = 1_000)", "async fn f() {}");
    accepted("test", "#[should_panic] async fn f() { panic!() }");
    accepted("test", "#[should_panic(expected = \"a\")]\n/// Doc.\nasync fn f() {}");
}

#[test]
fn an_item_made_by_a_macro_compiles() {
    let captured = "
        macro_rules! tests { ($(#[$meta:meta])* $vis:vis $name:ident $body:block) => {
            #[quoit_macros::test(start_paused = true)]
            $(#[$meta])*
            $vis async fn $name() $body
        } }
        tests! {
            #[ignore = \"slow\"]
            #[should_panic = \"x\"]
            pub(crate) captured { panic!(\"x\") }
        }";
    // The attribute under test stands on an item of its own before the macro.
    accepted("test", &format!("async fn f() {{}}\n{captured}"));
}

#[test]
fn a_wrong_item_is_named() {
    refused("main", "fn main() {}", "write `async` before `fn`");
    refused("test", "fn f() {}", "write `async` before `fn`");
    refused("test", "struct F;", "belongs on an `async fn`");
    refused("test", "async unsafe fn f() {}", "does not support `unsafe` functions");
    refused("test", "async fn f<T>() {}", "does not support generic functions");
    refused("main", "async fn main(_: u8) {}", "takes no arguments");
    refused("test", "async fn f(_: u8) {}", "takes no arguments");
}

#[test]
fn a_wrong_option_is_named() {
    refused("main(rings = \"uring\")", "async fn main() {}", "only `ring` and `spin_us`");
    refused("main(ring = \"epoll\")", "async fn main() {}", "\"auto\", \"uring\", \"readiness\"");
    refused("main(ring = uring)", "async fn main() {}", "expected one of");
    refused("main(spin_us = -1)", "async fn main() {}", "write options as `name = value`");
    refused("main(spin_us = 1.5)", "async fn main() {}", "a number of microseconds");
    refused("main(spin_us = 1, spin_us = 2)", "async fn main() {}", "given twice");
    refused("test(spin_us = 1)", "async fn f() {}", "only `ring` and `start_paused`");
    refused("test(seeds = \"20\")", "async fn f() {}", "a number of seeds");
    refused("test(ring = \"auto\")", "async fn f() {}", "expected one of \"uring\", \"readiness\"");
    refused("test(start_paused = 1)", "async fn f() {}", "`true` or `false`");
    refused("test(start_paused)", "async fn f() {}", "write options as");
}

#[test]
fn a_clash_of_attributes_is_named() {
    refused("test", "#[test] async fn f() {}", "leave out #[test]");
    let returns = "#[should_panic] async fn f() -> Result<(), ()> { Ok(()) }";
    refused("test", returns, "returns `()`");
}
