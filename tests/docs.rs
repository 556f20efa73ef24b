//! Every configuration in README and docs is one that Legate takes.

use std::path::Path;
use std::process::Command;

const LEGATE: &str = env!("CARGO_BIN_EXE_legate");

#[test]
fn examples_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = tempfile::tempdir().expect("a directory");
    let mut documents = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs")).expect("docs") {
        documents.push(entry.expect("an entry").path());
    }
    let mut checked = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("text");
        let blocks: Vec<&str> = text.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
        // What the examples call /etc/legate: one file of clusters, and no listeners.
        let here = |text: &str| text.replace("/etc/legate", &directory.path().display().to_string());
        for discovery in blocks.iter().filter(|block| block.starts_with("resources:")) {
            std::fs::write(directory.path().join("cds.yaml"), discovery).expect("written");
            std::fs::write(directory.path().join("lds.yaml"), "resources: []\n").expect("written");
        }
        for bootstrap in blocks.iter().filter(|block| !block.starts_with("resources:")) {
            let file = directory.path().join("bootstrap.yaml");
            // Ports of examples may be taken; validation does not bind them.
            std::fs::write(&file, here(bootstrap)).expect("written");
            let mut validate = Command::new(LEGATE);
            validate.args(["--mode", "validate", "--service-node", "n", "--service-cluster", "c", "-c"]).arg(&file);
            let output = validate.output().expect("it runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}:\n{bootstrap}\n\n{errors}", document.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} examples found: are they still marked as yaml?");
}
