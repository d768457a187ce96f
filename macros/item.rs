//! Takes an async function apart, as far as the attributes need it, and no further.
//!
//! ```text
//!   #[a] #[b]   pub(crate)   async   fn name ( )   -> R   where ..   { body }
//!   attributes  visibility           name          output            (kept as written)
//!               '------------------- inner, without visibility -------------'
//! ```
//!
//! A function made by a `macro_rules!` macro arrives with some parts wrapped in groups that have no
//! delimiter (`$vis`, `$body`): each step below looks through them.

use proc_macro::{Delimiter, Ident, Span, TokenStream, TokenTree};

use crate::Wrong;

/// An async function without parameters.
pub(crate) struct Function {
    pub(crate) attributes: TokenStream,
    pub(crate) visibility: TokenStream,
    pub(crate) name: Ident,
    /// `-> R`, or nothing.
    pub(crate) output: TokenStream,
    /// `async fn name() -> R where .. { body }`.
    pub(crate) inner: TokenStream,
}

impl Function {
    /// Reads `item`, to which the attribute written as `attribute` is attached.
    pub(crate) fn parse(item: TokenStream, attribute: &str) -> Result<Self, Wrong> {
        let mut tokens: Vec<TokenTree> = item.into_iter().collect();
        let attributes = tokens.drain(..attributes_end(&tokens)).collect();
        let visibility = tokens.drain(..visibility_end(&tokens)).collect();
        let end = || {
            let at = tokens.last().map_or_else(Span::call_site, TokenTree::span);
            Wrong::new(at, format!("{attribute} belongs on an `async fn`"))
        };

        let at = tokens.iter().position(|token| is_word(token, "fn")).ok_or_else(end)?;
        if !tokens[..at].iter().any(|token| is_word(token, "async")) {
            let message = format!("{attribute} needs an `async fn`: write `async` before `fn`");
            return Err(Wrong::new(tokens[at].span(), message));
        }
        let strange = tokens[..at].iter().find(|token| !is_word(token, "async"));
        if let Some(strange) = strange {
            let message = format!("{attribute} does not support `{strange}` functions");
            return Err(Wrong::new(strange.span(), message));
        }
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1).cloned() else { return Err(end()) };
        let parameters = match tokens.get(at + 2) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => group,
            Some(other) => {
                let message = format!("{attribute} does not support generic functions");
                return Err(Wrong::new(other.span(), message));
            }
            None => return Err(end()),
        };
        if let Some(first) = parameters.stream().into_iter().next() {
            let message = format!("{attribute} calls the function itself: it takes no arguments");
            return Err(Wrong::new(first.span(), message));
        }
        let signature = &tokens[at + 3..tokens.len().max(at + 4) - 1];
        let bounds = signature.iter().position(|token| is_word(token, "where"));
        let output = signature[..bounds.unwrap_or(signature.len())].iter().cloned().collect();
        if !tokens.last().is_some_and(is_block) {
            return Err(end());
        }
        Ok(Self { attributes, visibility, name, output, inner: tokens.into_iter().collect() })
    }

    /// What `#[should_panic]` on the function says, as the source of an `Option<Option<&str>>`:
    /// none without the attribute, else the message it expects.
    pub(crate) fn should_panic(&self) -> Result<String, Wrong> {
        for meta in metas(&self.attributes) {
            let Some(TokenTree::Ident(word)) = meta.first() else { continue };
            match word.to_string().as_str() {
                "test" if meta.len() == 1 => {
                    let message = "#[quoit::test] makes the function a test: leave out #[test]";
                    return Err(Wrong::new(word.span(), message));
                }
                "should_panic" if !self.output.is_empty() => {
                    let message = "a function with #[should_panic] returns `()`";
                    return Err(Wrong::new(word.span(), message));
                }
                "should_panic" => return Ok(expected(&meta[1..])),
                _ => {}
            }
        }
        Ok(NONE.to_owned())
    }
}

const NONE: &str = "::core::option::Option::None";
const SOME: &str = "::core::option::Option::Some";

/// `= "message"`, `(expected = "message")` or nothing, to `Some(..)`. Anything else is left to the
/// compiler, which sees the attribute too.
fn expected(rest: &[TokenTree]) -> String {
    fn literal(tokens: &[TokenTree]) -> Option<String> {
        tokens.iter().find_map(|token| match token {
            TokenTree::Literal(literal) => Some(literal.to_string()),
            TokenTree::Group(group) => literal(&group.stream().into_iter().collect::<Vec<_>>()),
            _ => None,
        })
    }
    literal(rest)
        .map_or_else(|| format!("{SOME}({NONE})"), |text| format!("{SOME}({SOME}({text}))"))
}

/// The tokens inside the brackets of each attribute.
fn metas(attributes: &TokenStream) -> impl Iterator<Item = Vec<TokenTree>> {
    attributes.clone().into_iter().filter_map(|token| match token {
        TokenTree::Group(group) => {
            let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
            Some(match tokens.as_slice() {
                [TokenTree::Group(whole)] => whole.stream().into_iter().collect(),
                _ => tokens,
            })
        }
        _ => None,
    })
}

/// How many of the first tokens are `#[..]` pairs.
fn attributes_end(tokens: &[TokenTree]) -> usize {
    let pairs = tokens.chunks_exact(2).take_while(|pair| match pair {
        [TokenTree::Punct(hash), TokenTree::Group(group)] => {
            hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket
        }
        _ => false,
    });
    2 * pairs.count()
}

/// How many of the first tokens are `pub`, `pub(..)` or a captured `$vis`.
fn visibility_end(tokens: &[TokenTree]) -> usize {
    match tokens {
        [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::None => 1,
        [first, TokenTree::Group(_), ..] if is_word(first, "pub") => 2,
        [first, ..] if is_word(first, "pub") => 1,
        _ => 0,
    }
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}

fn is_block(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    match group.delimiter() {
        Delimiter::Brace => true,
        Delimiter::None => group.stream().into_iter().last().is_some_and(|inner| is_block(&inner)),
        _ => false,
    }
}
