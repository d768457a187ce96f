//! As much of Rust's grammar as the rules need: which bytes are code, attributes, functions.

/// The code of `text`: comments and the insides of string and character literals become spaces, so
/// that lines and columns stay where they are.
pub(crate) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + length_to_blank(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        if end == at {
            at += 1;
            continue;
        }
        code[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(code).expect("whole characters were blanked")
}

/// How many of the first bytes are a comment or a literal; zero if neither starts here.
fn length_to_blank(rest: &[u8], before: Option<u8>) -> usize {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => find(rest, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string(rest),
        [b'b', b'r', b'"' | b'#', ..] if !in_word => 1 + raw_string(&rest[1..]),
        // A quote opens a character if it is escaped or closed after one, else a lifetime.
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', ..] => {
            let character = std::str::from_utf8(&rest[1..]).ok().and_then(|s| s.chars().next());
            let width = character.map_or(1, char::len_utf8);
            if rest.get(1 + width) == Some(&b'\'') { 2 + width } else { 0 }
        }
        _ => 0,
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < rest.len() {
        let step = match &rest[at..] {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `r".."`, `r#".."#`; zero for a raw identifier (`r#try`).
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    let open = 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    find(&rest[open + 1..], &close).map_or(rest.len(), |at| open + 1 + at + close.len())
}

/// The lines of `text`, counted from one.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Whether `code` has `word` standing alone. A word may be a path: `libc::` is one.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let ends_open = word.ends_with(|c| !is_part(c));
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && (ends_open || !after.is_some_and(is_part))
    })
}

/// The attributes of a file: the line each starts on, and the code in its brackets.
pub(crate) fn attributes(code: &str) -> Vec<(usize, &str)> {
    let starts = code.match_indices("#[").map(|(at, _)| at + 2);
    let inner = code.match_indices("#![").map(|(at, _)| at + 3);
    let mut found: Vec<(usize, &str)> = starts
        .chain(inner)
        .map(|start| {
            let end = start + closing(&code[start..], '[', ']');
            (code[..start].matches('\n').count() + 1, &code[start..end])
        })
        .collect();
    found.sort_unstable_by_key(|(line, _)| *line);
    found
}

/// Where the bracket closes that was opened just before `code`.
fn closing(code: &str, open: char, close: char) -> usize {
    let mut depth = 1;
    for (at, c) in code.char_indices() {
        depth += i32::from(c == open) - i32::from(c == close);
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    /// From the line with `fn` to the one with the closing brace, both counted.
    pub(crate) length: usize,
}

/// Every function of a source file that has a body, inner ones too.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let code = code_of(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        // A `;` may stand inside an array type, in brackets, before the body.
        let signature_end = code[at..].find(['{', '}']).map(|end| at + end);
        let Some(open) = signature_end.filter(|_| is_word && !name.is_empty()) else { continue };
        let declared = code[at..open].rfind(';').is_some_and(|end| {
            let before = &code[at..at + end];
            before.matches('[').count() == before.matches(']').count()
        });
        if declared || code.as_bytes()[open] == b'}' {
            continue;
        }
        let end = open + 1 + closing(&code[open + 1..], '{', '}');
        let line = code[..at].matches('\n').count() + 1;
        found.push(Function { name, line, length: code[at..end].matches('\n').count() + 1 });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let text =
            "a /* b /* c */ d */ e // f\n\"g\\\"h\" 'i' '\\'' 'j k 'é' r\"l\" br#\"m\"n\"# r#o";
        let code = code_of(text);
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "e", "'j", "k", "r#o"]);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.find('\n'), text.find('\n'));
    }

    #[test]
    fn words_stand_alone() {
        assert!(has_word("use crate::runtime::Core;", "runtime"));
        assert!(!has_word("let runtimes = my_runtime;", "runtime"));
        assert!(has_word("(libc::open)", "libc::") && !has_word("mylibc::open", "libc::"));
    }

    #[test]
    fn attributes_end_at_their_bracket() {
        let code = "#![a]\nfn f() {}\n#[b(c[d])]\n#[e]";
        assert_eq!(attributes(code), [(1, "a"), (3, "b(c[d])"), (4, "e")]);
    }

    #[test]
    fn functions_are_measured() {
        let text = "trait T { fn a(&self); }\nfn b(x: [u8; 2]) {\n  // }\n  { }\n}\nfn c() {}\n";
        let found: Vec<(String, usize, usize)> =
            functions(text).into_iter().map(|f| (f.name, f.line, f.length)).collect();
        assert_eq!(found, [("b".to_owned(), 2, 4), ("c".to_owned(), 6, 1)]);
    }
}
