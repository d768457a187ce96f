//! `#[quoit::main]` and `#[quoit::test]`: an async body in a fresh runtime.
//!
//! Both turn an async function into a plain one that holds the async one, unchanged, inside:
//!
//! ```text
//!   #[quoit::main]                            fn main() -> R {
//!   async fn main() -> R { body }     ==>         async fn main() -> R { body }
//!                                                 ::quoit::__private::run_main(options, main)
//!                                             }
//! ```
//!
//! The function moves as it was written, so types, `?`, spans and error messages stay those of the
//! source. What runs it is ordinary code in the runtime; nothing is decided here but the options.
//! Written on `proc_macro` alone: a dependency that every user's build would wait for is not worth
//! one attribute.

mod item;
mod options;

use proc_macro::{Delimiter, Group, Span, TokenStream, TokenTree};

use crate::item::Function;
use crate::options::Options;

/// What is wrong, and where to underline it.
struct Wrong {
    at: Span,
    message: String,
}

impl Wrong {
    fn new(at: Span, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// `::core::compile_error! { "message" }`, underlining `at`.
    fn into_tokens(self) -> TokenStream {
        let error = format!("::core::compile_error! {{ {:?} }}", self.message);
        spanned(&error, self.at)
    }
}

/// Runs an async `main` on a fresh `Runtime` with one core: the calling thread.
///
/// The ring is io_uring where the kernel allows it, else readiness; if it fell back, one line on
/// standard error says why and what to do about it. If no ring can be had at all, the program
/// prints the reason and exits with status 1. When the body returns, the runtime is dropped, which
/// shuts it down as documented there, and the value of the body becomes that of `main`.
///
/// # Options
///
/// * `ring = "auto"`, `"uring"` or `"readiness"`: the last two insist, also against the variable
///   `QUOIT_RING`. The default is `"auto"`.
/// * `spin_us = N`: look for completions for up to `N` microseconds before sleeping in the kernel.
///
/// # Examples
///
/// ```
/// #[quoit::main]
/// async fn main() -> std::io::Result<()> {
///     let answer = quoit::spawn(async { 6 * 7 }).await.expect("the task does not panic");
///     assert_eq!(answer, 42);
///     Ok(())
/// }
/// ```
///
/// ```
/// #[quoit::main(ring = "readiness", spin_us = 50)]
/// async fn main() {
///     quoit::task::yield_now().await;
/// }
/// ```
///
/// It wants an `async fn` that takes nothing:
///
/// ```compile_fail
/// #[quoit::main]
/// fn main() {}
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expand = |arguments, item| {
        let options = Options::for_main(arguments)?;
        let function = Function::parse(item, "#[quoit::main]")?;
        Ok(wrap(&function, "", function.output.clone(), "run_main", &options.main()))
    };
    expand(arguments, item).unwrap_or_else(|wrong: Wrong| {
        // A program without `main` would be a second error that hides the first.
        let mut tokens = wrong.into_tokens();
        tokens.extend(spanned("fn main() {}", Span::call_site()));
        tokens
    })
}

/// A test whose async body runs once on every ring: io_uring, then readiness.
///
/// Each run has a fresh `Runtime` on the test's own thread. After the body the runtime is shut
/// down and its books must balance: whatever it reports as leaked fails the test. A ring that
/// cannot be used is left out with a line on standard error, never silently.
///
/// The body returns `()` or a `Result`, of which an `Err` fails the test. With `#[should_panic]` it
/// has to panic on *every* ring. `#[ignore]` and all other attributes stay in force.
///
/// # Environment
///
/// * `QUOIT_RING=uring` or `readiness`: run on that ring only; a failure if it cannot be used.
/// * `QUOIT_REQUIRE_RINGS=uring,readiness`: fail, rather than leave out, a listed ring that cannot
///   be used.
///
/// # Options
///
/// * `ring = "uring"` or `"readiness"`: for a test about one ring alone.
/// * `start_paused = true`: the clock stands still and jumps to the next deadline whenever
///   everything waits, as with `quoit::time::pause`.
/// * `seeds = 20`: runs after that under so many seeds on the simulated ring, where the seed
///   decides what completes when, and the only files are those that the test makes. It needs a
///   body that asks nobody but quoit. `QUOIT_SEED=n` runs seed `n` alone, and
///   `QUOIT_SEEDS=n` has `n` times as many.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// #[quoit::test(start_paused = true)]
/// async fn an_hour_passes_at_once() {
///     quoit::time::sleep(Duration::from_secs(3600)).await;
/// }
/// # fn main() {}
/// ```
///
/// A test takes no arguments:
///
/// ```compile_fail
/// #[quoit::test]
/// async fn of(_what: u8) {}
/// # fn main() {}
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expand = |arguments, item| {
        let options = Options::for_test(arguments)?;
        let function = Function::parse(item, "#[quoit::test]")?;
        let panics = function.should_panic()?;
        let options = options.test(&function.name.to_string(), &panics);
        // The path is absolute because `use quoit::test` would shadow the short one.
        let mark = "#[::core::prelude::v1::test]";
        Ok(wrap(&function, mark, TokenStream::new(), "run_test", &options))
    };
    expand(arguments, item).unwrap_or_else(Wrong::into_tokens)
}

/// `mark attributes visibility fn name() output { the async function; callee(options, name) }`.
fn wrap(
    function: &Function,
    mark: &str,
    output: TokenStream,
    callee: &str,
    options: &str,
) -> TokenStream {
    let name = &function.name;
    let call = format!("::quoit::__private::{callee}({options}, {name})");
    let mut body = function.inner.clone();
    body.extend(spanned(&call, Span::call_site()));

    let mut tokens = spanned(mark, Span::call_site());
    tokens.extend(function.attributes.clone());
    tokens.extend(function.visibility.clone());
    tokens.extend(spanned("fn", name.span()));
    tokens.extend([TokenTree::Ident(name.clone())]);
    tokens.extend([TokenTree::Group(Group::new(Delimiter::Parenthesis, TokenStream::new()))]);
    tokens.extend(output);
    tokens.extend([TokenTree::Group(Group::new(Delimiter::Brace, body))]);
    tokens
}

/// The tokens of `source`, all of them standing where `at` stands.
fn spanned(source: &str, at: Span) -> TokenStream {
    fn stand(tokens: TokenStream, at: Span) -> TokenStream {
        tokens
            .into_iter()
            .map(|token| {
                let mut token = match token {
                    TokenTree::Group(group) => {
                        TokenTree::Group(Group::new(group.delimiter(), stand(group.stream(), at)))
                    }
                    other => other,
                };
                token.set_span(at);
                token
            })
            .collect()
    }
    let tokens = source.parse::<TokenStream>().expect("the macro's own text is Rust");
    stand(tokens, at)
}
