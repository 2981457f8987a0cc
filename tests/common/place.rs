//! A place to run novella in, and what it says there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A directory with a spec and a state.
pub struct Place(pub TempDir);

impl Place {
    pub fn new(spec: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("specs")).expect("specs");
        let place = Self(directory);
        place.write(spec);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, spec: &str) {
        std::fs::write(self.path("specs/spec.toml"), spec).expect("the spec");
    }

    pub fn novella(&self, arguments: &[&str]) -> Said {
        self.answer(arguments, "")
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.novella(arguments).ends(0).out).expect("JSON")
    }

    /// Runs novella on the simulated host, with this on its standard input.
    pub fn answer(&self, arguments: &[&str], input: &str) -> Said {
        self.on("sim", arguments, input)
    }

    pub fn on(&self, backend: &str, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_novella"))
            .args(arguments)
            .args(["--backend", backend])
            .current_dir(self.0.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("novella");
        // It may have ended without reading.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        Said::from(child.wait_with_output().expect("an end"))
    }
}

/// What a run wrote, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    /// The lines of standard output with one space between words.
    pub fn lines(&self) -> Vec<String> {
        self.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn out(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    #[track_caller]
    pub fn err(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not in {self:#?}");
        self
    }
}

/// Every file below a directory with its bytes.
pub fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).expect("bytes")));
        }
    }
    found.sort();
    found
}
