//! The point of it all: foreign code that asks for `Send` is given nothing but what is `Send`.

use std::fs;
use std::path::Path;

#[test]
fn nothing_is_promised_by_hand() {
    let forbidden =
        [concat!("uns", "afe {"), concat!("uns", "afe impl"), concat!("Send", "Wrapper")];
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    // What is generated of `proto/` counts, too.
    let generated = env!("OUT_DIR");
    let folders =
        ["src", "src/bin", "src/kv", "tests", generated, "../../http", "../../http/tests/serve"];
    for folder in folders {
        let entries =
            fs::read_dir(package.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|kind| kind == "rs")));
    }
    assert!(files.len() > 40, "{files:?}");
    // Those that it is about, by name: axum's and tonic's, which ask for `Send` everywhere.
    for wanted in [
        "src/hello.rs",
        "src/notes.rs",
        "src/chat.rs",
        "src/layers.rs",
        "src/links.rs",
        "src/grpc.rs",
        "src/grpc_client.rs",
        "src/deadline.rs",
        "src/bin/grpc_store.rs",
        "tests/grpc.rs",
        "quoit.store.v1.rs",
    ] {
        assert!(files.iter().any(|file| file.ends_with(wanted)), "{wanted} was not looked at");
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{word} in {}", file.display());
        }
    }
    let lock = fs::read_to_string(package.join("Cargo.lock")).unwrap();
    assert!(!lock.contains(concat!("name = \"send_", "wrapper\"")));
}

/// The table of crates says what was tested.
#[test]
fn the_table_has_the_versions_of_the_lock_file() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(package.join("README.md")).unwrap();
    let lock = fs::read_to_string(package.join("Cargo.lock")).unwrap();
    let table = readme.lines().skip_while(|line| !line.starts_with("| crate | version |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let mut names = Vec::new();
    for row in rows {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (name, version) = (cells.next().unwrap(), cells.next().unwrap());
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&entry), "{name} {version} is not what was tested");
        let tests = cells.nth(1).unwrap().split(',').map(|test| test.trim().trim_matches('`'));
        for test in tests.filter(|test| *test != "all") {
            let here = package.join(test).exists();
            assert!(here || package.join("../..").join(test).exists(), "{test} is not there");
        }
        names.push(name);
    }
    for wanted in ["axum", "hyper", "tonic", "tower", "tokio", "futures", "reqwest", "sqlx"] {
        assert!(names.contains(&wanted), "the table lacks {wanted}");
    }
    let lockfiles = fs::read_to_string(package.join("../../Cargo.lock")).unwrap();
    for name in ["axum", "h2", "hyper"] {
        let version = |lock: &str| {
            let from = lock.find(&format!("name = \"{name}\"\nversion")).unwrap();
            lock[from..].lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(version(&lock), version(&lockfiles), "{name}: `http/tests` ran with another");
    }
}
