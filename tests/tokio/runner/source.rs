//! Where the tests stand in a file, as far as that shows without a parser: attributes above a
//! function, and its braces.

/// A test function: its name, and its lines from the first attribute to the closing brace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TestItem {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// The tests of a file. Lines count from 1.
pub(crate) fn tests(text: &str) -> Vec<TestItem> {
    let lines: Vec<&str> = text.lines().collect();
    let is_test = |line: &str| {
        let line = line.trim_start();
        line.starts_with("#[test]")
            || line.starts_with("#[tokio::test")
            || line.starts_with("#[maybe_tokio_test")
    };
    let mut items: Vec<TestItem> = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| is_test(line)) {
        let mut first = at;
        while first > 0 && lines[first - 1].trim_start().starts_with("#[") {
            first -= 1;
        }
        let Some(head) = (at..lines.len()).find(|line| is_head(lines[*line])) else { continue };
        let name = lines[head].split("fn ").nth(1).unwrap_or_default();
        let name = name.split(['(', '<']).next().unwrap_or_default().to_owned();
        if !items.iter().any(|item| item.first == first + 1) {
            items.push(TestItem { name, first: first + 1, last: end(&lines, head) + 1 });
        }
    }
    items
}

fn is_head(line: &str) -> bool {
    let line = line.trim_start();
    ["fn ", "async fn ", "pub fn ", "pub async fn "].iter().any(|head| line.starts_with(head))
}

/// The line of the brace that closes what opens on line `head` or after it.
fn end(lines: &[&str], head: usize) -> usize {
    let mut depth = 0;
    for (at, line) in lines.iter().enumerate().skip(head) {
        let code = without_text(line);
        depth += code.matches('{').count();
        let closed = code.matches('}').count();
        if closed > 0 && closed >= depth {
            return at;
        }
        depth -= closed;
    }
    lines.len() - 1
}

/// A line without its string literals, characters in quotes and comments.
fn without_text(line: &str) -> String {
    let line = line.replace("'{'", "").replace("'}'", "").replace("\\\"", "");
    let mut code = String::new();
    for (at, piece) in line.split('"').enumerate() {
        if at % 2 == 0 {
            match piece.split_once("//") {
                Some((before, _)) => return code + before,
                None => code.push_str(piece),
            }
        }
    }
    code
}

/// The text with that test left out of the compilation. No line changes its number.
pub(crate) fn cut(text: &str, item: &TestItem) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line = &mut lines[item.first - 1];
    *line = format!("#[cfg(any())] {line}");
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
#[test]
#[should_panic(expected = "}")]
fn first() {
    if true { panic!("}") } // }
}

macro_rules! both {
    () => {
        #[tokio::test]
        async fn second() {
        }
    };
}
"#;

    #[test]
    fn the_tests_of_a_file_are_found_and_cut() {
        let found = tests(FILE);
        let lines = |item: &TestItem| (item.name.clone(), item.first, item.last);
        assert_eq!(lines(&found[0]), ("first".into(), 2, 6));
        assert_eq!(lines(&found[1]), ("second".into(), 10, 12));
        assert_eq!(found.len(), 2);
        let text = cut(FILE, &found[1]);
        assert_eq!(text.lines().count(), FILE.lines().count());
        assert_eq!(text.lines().nth(9), Some("#[cfg(any())]         #[tokio::test]"));
    }
}
