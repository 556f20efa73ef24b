//! A runtime layer on disk: a directory tree whose files are values, reached through a symbolic link that is swapped.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Value, Values};

/// Deepest directory below the root that is read.
const MAX_DEPTH: usize = 16;

/// Largest file that is taken for a value.
const MAX_FILE: u64 = 1 << 20;

/// `disk_layer`.
#[derive(Debug)]
pub struct DiskLayer {
    root: PathBuf,
    path: PathBuf,
    seen: Fingerprint,
}

/// What tells that a layer's root was swapped: what the link points to, and the identity and age of the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    target: Option<PathBuf>,
    directory: Option<(u64, SystemTime)>,
}

impl DiskLayer {
    /// The layer in `root/subdirectory[/cluster]`.
    #[must_use]
    pub fn new(root: PathBuf, subdirectory: &str, cluster: Option<&str>) -> Self {
        let mut path = root.join(subdirectory.trim_start_matches('/'));
        if let Some(cluster) = cluster {
            path.push(cluster);
        }
        let seen = Fingerprint::of(&root, &path);
        Self { root, path, seen }
    }

    /// `symlink_root`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory whose files are the values.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was swapped since the last call (or since it was made).
    pub fn changed(&mut self) -> bool {
        let now = Fingerprint::of(&self.root, &self.path);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }

    /// Reads all values: `a/b` is the key `a.b`; hidden files are left out, lines that begin with `#` are comments.
    ///
    /// # Errors
    /// When a file or directory cannot be read.
    pub fn read(&self) -> io::Result<Values> {
        let mut values = Values::new();
        walk(&self.path, "", 0, &mut values)?;
        Ok(values)
    }
}

impl Fingerprint {
    fn of(root: &Path, path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let directory = std::fs::metadata(path).ok();
        let directory = directory.and_then(|found| Some((found.ino(), found.modified().ok()?)));
        Self { target: std::fs::read_link(root).ok(), directory }
    }
}

fn walk(directory: &Path, prefix: &str, depth: usize, values: &mut Values) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let found = std::fs::metadata(entry.path())?;
        if found.is_dir() {
            if depth >= MAX_DEPTH {
                return Err(io::Error::other(format!("{}: directories are nested too deep", entry.path().display())));
            }
            walk(&entry.path(), &key, depth + 1, values)?;
        } else if found.is_file() && found.len() <= MAX_FILE {
            let text = std::fs::read_to_string(entry.path())?;
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            values.insert(key, Value::parse(lines.join("\n").trim_end().to_owned()));
        }
    }
    Ok(())
}
