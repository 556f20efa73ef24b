//! `--mode validate`: the same verdict on every file of `tests/configs`, and for a bad one the field that is to blame.

use std::fs;
use std::path::PathBuf;

use crate::support::proxy::{Kind, workspace};

/// Checks all files. A bad one says in a comment of its first line what Legate must name beside the file: `# names: A, B`,
/// a resource and a field path.
pub fn run() {
    let with_envoy = Kind::require_envoy("verdicts on configurations");
    let mut failures = Vec::new();
    for (directory, good) in [("good", true), ("bad", false)] {
        let files = files(directory);
        assert!(files.len() > 5, "there are no configurations in {directory}");
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&file).expect("a file");
            let verdict = Kind::under_test().validate(&file);
            let expected = if good { Some(0) } else { Some(1) };
            if with_envoy {
                let envoy = Kind::Envoy.validate(&file);
                if envoy.code != expected {
                    failures.push(format!("{directory}/{name}: Envoy says {:?}: {}", envoy.code, short(&envoy.stderr)));
                }
            }
            if verdict.code != expected {
                failures.push(format!("{directory}/{name}: {:?}: {}", verdict.code, short(&verdict.stderr)));
            } else if !good && Kind::under_test() == Kind::Legate {
                let names = text.lines().next().and_then(|line| line.strip_prefix("# names: ")).expect("what to name");
                for wanted in std::iter::once(&*name).chain(names.split(", ")) {
                    if !verdict.stderr.contains(wanted) {
                        failures.push(format!("bad/{name}: does not name {wanted}: {}", short(&verdict.stderr)));
                    }
                }
            }
        }
    }
    failures.extend(super::fragments::failures(with_envoy));
    super::report::report(&format!("{} verdicts differ", failures.len()), &failures);
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = workspace().join("tests/configs").join(directory);
    let entries = fs::read_dir(directory).expect("a directory");
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}

/// The lines of a log that say why.
pub fn short(log: &str) -> String {
    let telling = |line: &&str| line.contains("error") || line.contains("[critical]") || line.contains("PARSE");
    let lines: Vec<&str> = log.lines().filter(telling).take(3).collect();
    if lines.is_empty() { log.chars().take(400).collect() } else { lines.join(" | ").chars().take(600).collect() }
}
