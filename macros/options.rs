//! The options in the parentheses of an attribute: `name = literal`, separated by commas.

use proc_macro::{TokenStream, TokenTree};

use crate::Wrong;

/// What the user wrote, checked; `None` is the default.
#[derive(Default)]
pub(crate) struct Options {
    ring: Option<&'static str>,
    spin_us: Option<u64>,
    start_paused: bool,
    seeds: u64,
}

/// Option names of each attribute, as error messages list them.
const OF_MAIN: &[&str] = &["ring", "spin_us"];
const OF_TEST: &[&str] = &["ring", "start_paused", "seeds"];

impl Options {
    pub(crate) fn for_main(arguments: TokenStream) -> Result<Self, Wrong> {
        Self::parse(arguments, OF_MAIN, &["auto", "uring", "readiness"])
    }

    pub(crate) fn for_test(arguments: TokenStream) -> Result<Self, Wrong> {
        Self::parse(arguments, OF_TEST, &["uring", "readiness"])
    }

    /// The source of a `MainOptions`.
    pub(crate) fn main(&self) -> String {
        let spin_us = option(self.spin_us.map(|micros| micros.to_string()));
        let ring = option(self.ring.filter(|&ring| ring != "auto").map(ring_path));
        format!("::quoit::__private::MainOptions {{ ring: {ring}, spin_us: {spin_us} }}")
    }

    /// The source of a `TestOptions`; `should_panic` is the source of that field.
    pub(crate) fn test(&self, name: &str, should_panic: &str) -> String {
        let ring = option(self.ring.map(ring_path));
        let (start_paused, seeds) = (self.start_paused, self.seeds);
        format!(
            "::quoit::__private::TestOptions {{ \
                name: ::core::concat!(::core::module_path!(), \"::{name}\"), \
                ring: {ring}, start_paused: {start_paused}, seeds: {seeds}, \
                should_panic: {should_panic} }}"
        )
    }

    fn parse(
        arguments: TokenStream,
        names: &[&str],
        rings: &[&'static str],
    ) -> Result<Self, Wrong> {
        let mut options = Self::default();
        let mut seen: Vec<String> = Vec::new();
        let tokens: Vec<TokenTree> = arguments.into_iter().collect();
        for part in tokens.split(|token| is_punct(token, ',')) {
            let (name, value) = match part {
                // Between two commas, or after the last one.
                [] => continue,
                [TokenTree::Ident(name), equals, value] if is_punct(equals, '=') => (name, value),
                [first, ..] => {
                    let message = format!("write options as `name = value`, of {}", list(names));
                    return Err(Wrong::new(first.span(), message));
                }
            };
            let text = name.to_string();
            if !names.contains(&text.as_str()) {
                let message = format!("no option `{text}` here, only {}", list(names));
                return Err(Wrong::new(name.span(), message));
            }
            if seen.contains(&text) {
                return Err(Wrong::new(name.span(), format!("`{text}` is given twice")));
            }
            match text.as_str() {
                "ring" => options.ring = Some(one_of(value, rings)?),
                "spin_us" => options.spin_us = Some(number(value, "microseconds, such as 50")?),
                "seeds" => options.seeds = number(value, "seeds, such as 20")?,
                _ => options.start_paused = boolean(value)?,
            }
            seen.push(text);
        }
        Ok(options)
    }
}

fn option(value: Option<String>) -> String {
    value.map_or_else(
        || "::core::option::Option::None".to_owned(),
        |value| format!("::core::option::Option::Some({value})"),
    )
}

fn ring_path(ring: &str) -> String {
    let variant = if ring == "uring" { "Uring" } else { "Readiness" };
    format!("::quoit::__private::RingChoice::{variant}")
}

fn one_of(value: &TokenTree, allowed: &[&'static str]) -> Result<&'static str, Wrong> {
    let text = source(value);
    let quoted: Vec<String> = allowed.iter().map(|word| format!("\"{word}\"")).collect();
    let found = quoted.iter().position(|word| *word == text).map(|at| allowed[at]);
    found.ok_or_else(|| Wrong::new(value.span(), format!("expected one of {}", quoted.join(", "))))
}

fn number(value: &TokenTree, of: &str) -> Result<u64, Wrong> {
    let digits = source(value).replace('_', "");
    let wrong = |_| Wrong::new(value.span(), format!("expected a number of {of}"));
    digits.parse().map_err(wrong)
}

fn boolean(value: &TokenTree) -> Result<bool, Wrong> {
    let wrong = |_| Wrong::new(value.span(), "expected `true` or `false`");
    source(value).parse().map_err(wrong)
}

/// The text of one token; that of a captured `$value` is the same, without its invisible group.
fn source(token: &TokenTree) -> String {
    token.to_string().trim().to_owned()
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(" and ")
}
