//! The package that tokio's test files are compiled in: made anew in `target/suite` by every run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::source;

/// The tokio in the registry.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) version: String,
    root: PathBuf,
}

/// A package of the registry.
#[derive(Debug)]
struct Package {
    version: String,
    root: PathBuf,
}

/// Asks cargo where a package that the shim depends on has its sources.
fn find(package: &Path, name: &str) -> io::Result<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(package)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Packages begin like this; dependencies upon them do not.
    let start = format!("{{\"name\":\"{name}\",\"version\":\"");
    let found = text.split_once(&start).and_then(|(_, rest)| {
        let (version, rest) = rest.split_once('"')?;
        let (_, rest) = rest.split_once("\"manifest_path\":\"")?;
        let (manifest, _) = rest.split_once('"')?;
        let root = Path::new(manifest).parent()?.to_owned();
        Some(Package { version: version.to_owned(), root })
    });
    found.ok_or_else(|| io::Error::other(format!("cargo does not tell where {name} is")))
}

/// Finds tokio, and makes a copy of tokio-test that depends on the shim.
pub(crate) fn find_tokio(package: &Path) -> io::Result<Published> {
    let Package { version, root } = find(package, "tokio")?;
    let from = find(package, "tokio-test")?.root;
    let to = package.join("target/tokio-test");
    fs::create_dir_all(to.join("src"))?;
    for entry in fs::read_dir(from.join("src"))? {
        let path = entry?.path();
        let name = path.file_name().expect("a file has a name");
        fs::write(to.join("src").join(name), fs::read(&path)?)?;
    }
    let manifest = fs::read_to_string(from.join("Cargo.toml"))?;
    let sections = manifest.split("\n[").filter(|section| !section.starts_with("dev-dependencies"));
    let sections = sections.map(|section| match section.strip_prefix("dependencies.tokio]") {
        Some(_) => format!("dependencies.tokio]\npackage = \"quoit-tokio\"\npath = {package:?}\n"),
        None => section.to_owned(),
    });
    let manifest = sections.collect::<Vec<_>>().join("\n[");
    fs::write(to.join("Cargo.toml"), manifest + "\n[workspace]\n")?;
    Ok(Published { version, root })
}

impl Published {
    /// The names of its test files.
    pub(crate) fn tests(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join("tests"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.file_stem().expect("a file has a name");
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// One of tokio's test files.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// Its program, if it compiled.
    pub(crate) program: Option<PathBuf>,
    /// The tests that were cut out, and what the compiler had against them.
    pub(crate) cut: Vec<(String, String)>,
    /// What the compiler had against the file as a whole.
    pub(crate) error: Option<String>,
    /// The tests that its text shows, for a file that did not compile.
    pub(crate) named: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) root: PathBuf,
    /// Where the tests run: they read the manifest of the package that they come from.
    pub(crate) home: PathBuf,
    pub(crate) files: BTreeMap<String, File>,
    target: PathBuf,
}

/// What the compiler says about a line of a file.
#[derive(Debug, PartialEq)]
struct Complaint {
    file: String,
    line: usize,
    text: String,
}

impl Suite {
    /// Copies the files and writes a manifest for them.
    pub(crate) fn prepare(
        package: &Path,
        published: &Published,
        names: &[String],
    ) -> io::Result<Self> {
        let target = package.join("target");
        let root = target.join("suite");
        let tests = root.join("tests");
        if tests.exists() {
            fs::remove_dir_all(&tests)?;
        }
        fs::create_dir_all(tests.join("support"))?;
        fs::create_dir_all(root.join("src"))?;
        fs::write(root.join("src/lib.rs"), "")?;
        fs::write(root.join("Cargo.toml"), manifest(package)?)?;
        fs::copy(package.join("Cargo.lock"), root.join("Cargo.lock"))?;
        for entry in fs::read_dir(published.root.join("tests/support"))? {
            let path = entry?.path();
            let name = path.file_name().expect("a file has a name");
            fs::write(tests.join("support").join(name), fs::read(&path)?)?;
        }
        let mut files = BTreeMap::new();
        for name in names {
            let text = fs::read_to_string(published.root.join(format!("tests/{name}.rs")))?;
            let named = source::tests(&text).into_iter().map(|test| test.name).collect();
            fs::write(tests.join(format!("{name}.rs")), text)?;
            files.insert(name.clone(), File { named, ..File::default() });
        }
        let home = root.join("home");
        fs::create_dir_all(&home)?;
        fs::write(home.join("Cargo.toml"), fs::read(published.root.join("Cargo.toml"))?)?;
        Ok(Self { root, home, files, target })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.join(format!("tests/{file}.rs"))
    }

    /// Compiles every file, leaving out what does not compile: tests first, then whole files.
    pub(crate) fn build(&mut self) -> io::Result<()> {
        loop {
            let (ok, complaints) = self.compile()?;
            if ok {
                return Ok(());
            }
            if complaints.is_empty() {
                return Err(io::Error::other("the build fails, but not for a test file"));
            }
            let mut by_file: BTreeMap<String, Vec<Complaint>> = BTreeMap::new();
            for complaint in complaints {
                by_file.entry(complaint.file.clone()).or_default().push(complaint);
            }
            for (file, complaints) in by_file {
                self.mend(&file, &complaints)?;
            }
        }
    }

    fn compile(&mut self) -> io::Result<(bool, Vec<Complaint>)> {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--tests", "--keep-going"])
            .args(["--message-format", "json-render-diagnostics", "--target-dir"])
            .arg(&self.target)
            .current_dir(&self.root)
            .stderr(Stdio::piped())
            .output()?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((file, program)) = artifact(line) else { continue };
            if let Some(file) = self.files.get_mut(file) {
                file.program = Some(program.into());
            }
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && complaints(&said).is_empty() {
            eprintln!("{said}");
        }
        Ok((output.status.success(), complaints(&said)))
    }

    /// Cuts the tests that the compiler complains of; or gives the file up.
    fn mend(&mut self, name: &str, complaints: &[Complaint]) -> io::Result<()> {
        let path = self.path(name);
        let mut text = fs::read_to_string(&path)?;
        let tests = source::tests(&text);
        let file = self.files.get_mut(name).expect("it is one of ours");
        for complaint in complaints {
            let line = complaint.line;
            let Some(test) = tests.iter().find(|test| (test.first..=test.last).contains(&line))
            else {
                eprintln!("{name}.rs:{line}: {}: the file is given up", complaint.text);
                file.error = Some(complaint.text.clone());
                file.cut.clear();
                return fs::remove_file(&path);
            };
            if file.cut.iter().any(|(cut, _)| *cut == test.name) {
                continue;
            }
            eprintln!("{name}.rs:{line}: {}: {} is cut", complaint.text, test.name);
            file.cut.push((test.name.clone(), complaint.text.clone()));
            text = source::cut(&text, test);
        }
        fs::write(&path, text)
    }
}

/// The manifest: the shim as `tokio`, and what its own manifest says that the test files need.
fn manifest(package: &Path) -> io::Result<String> {
    let ours = fs::read_to_string(package.join("Cargo.toml"))?;
    let (_, rest) = ours.split_once("[dev-dependencies]\n").expect("the shim has that section");
    let needed = rest.split("\n[").next().unwrap_or_default();
    // That one is a copy which sees the shim.
    let needed: Vec<&str> = needed.lines().filter(|line| !line.starts_with("tokio-test")).collect();
    let needed = needed.join("\n");
    let features: Vec<String> = FEATURES.map(|name| format!("{name} = []\n")).into();
    Ok(format!(
        "[package]\nname = \"suite\"\nversion = \"0.0.0\"\nedition = \"2021\"\npublish = false\n\n\
         [workspace]\n\n\
         [features]\ndefault = {FEATURES:?}\n{features}\n\
         [dependencies]\n\
         tokio = {{ package = \"quoit-tokio\", path = {package:?} }}\n\
         tokio-test = {{ path = {test:?} }}\n\n\
         [dev-dependencies]\n{needed}\n\n\
         [profile.dev]\ndebug = 0\n",
        features = features.concat(),
        test = package.join("target/tokio-test"),
    ))
}

/// The features of tokio's that the test files look at.
const FEATURES: [&str; 13] = [
    "full",
    "fs",
    "io-std",
    "io-util",
    "macros",
    "net",
    "process",
    "rt",
    "rt-multi-thread",
    "signal",
    "sync",
    "test-util",
    "time",
];

/// The test program that a line of cargo's tells of.
fn artifact(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("\"target\":{\"kind\":[\"test\"]")?;
    let (_, rest) = rest.split_once("\"name\":\"")?;
    let (name, rest) = rest.split_once('"')?;
    let (_, rest) = rest.split_once("\"executable\":\"")?;
    let (program, _) = rest.split_once('"')?;
    Some((name, program))
}

/// The errors in what the compiler wrote.
fn complaints(said: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut error = None;
    for line in said.lines() {
        if line.starts_with("error") {
            error = Some(line.to_owned());
        } else if line.starts_with("warning") {
            error = None;
        } else if let Some(place) = line.trim_start().strip_prefix("--> tests/") {
            let mut parts = place.split(".rs:");
            let (Some(file), Some(rest)) = (parts.next(), parts.next()) else { continue };
            let line = rest.split(':').next().and_then(|line| line.parse().ok());
            if let (Some(text), Some(line)) = (error.take(), line) {
                found.push(Complaint { file: file.to_owned(), line, text });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_and_warnings_are_not() {
        let said = "warning: unused\n --> tests/a.rs:1:1\nerror[E0599]: no method\n   |\n   \
                    --> tests/b.rs:12:5\nnote: here\n  --> tests/c.rs:3:1\n";
        let text = "error[E0599]: no method".to_owned();
        assert_eq!(complaints(said), [Complaint { file: "b".into(), line: 12, text }]);
    }
}
