//! The point of it all: foreign code that asks for `Send` is given nothing but what is `Send`.

use std::fs;
use std::path::Path;

#[test]
fn nothing_is_promised_by_hand() {
    let forbidden =
        [concat!("uns", "afe {"), concat!("uns", "afe impl"), concat!("Send", "Wrapper")];
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "src/bin", "../../http", "../../http/tests/serve"] {
        let entries =
            fs::read_dir(package.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|kind| kind == "rs")));
    }
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{word} in {}", file.display());
        }
    }
    let lock = fs::read_to_string(package.join("Cargo.lock")).unwrap();
    assert!(!lock.contains(concat!("name = \"send_", "wrapper\"")));
}
