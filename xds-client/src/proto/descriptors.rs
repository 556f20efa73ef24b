//! The descriptors Legate carries: every type of the pinned `envoy-types` crate, compressed.
//!
//! Two things are kept once they exist: an index (16 bytes a type) and the schemas of the types that documents have
//! used. The inflated descriptors (half a megabyte) live only while a [`Lease`] does, and are inflated only when a type
//! is met for the first time.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock};

use flate2::read::DeflateDecoder;
use xxhash_rust::xxh64::xxh64;

use super::reader::{Malformed, Raw};
use super::schema::{self, EnumSchema, MessageSchema, each, text};

/// A `google.protobuf.FileDescriptorSet`, deflated; made by `cargo run --manifest-path xds-client/xtask/Cargo.toml`.
static COMPRESSED: &[u8] = include_bytes!("descriptors.bin.z");

/// The message type of a full name.
pub(crate) fn message(name: &str) -> Option<&'static MessageSchema> {
    static SCHEMAS: Schemas<MessageSchema> = Schemas::new();
    SCHEMAS.find(name, |file, descriptor| MessageSchema::parse(name, descriptor, file.proto3, file.work_in_progress))
}

/// The enumeration of a full name.
pub(crate) fn enumeration(name: &str) -> Option<&'static EnumSchema> {
    static SCHEMAS: Schemas<EnumSchema> = Schemas::new();
    SCHEMAS.find(name, |_, descriptor| EnumSchema::parse(name, descriptor))
}

/// The proto file that defines a type, such as `envoy/config/cluster/v3/cluster.proto`.
pub(crate) fn file_of(name: &str) -> Option<&'static str> {
    let index = index();
    index.find(name).and_then(|entry| index.files.get(usize::from(entry.file))).map(|file| &*file.name)
}

/// Keeps the inflated descriptors alive, so that a document with many new types inflates them once.
pub(crate) struct Lease(());

impl Lease {
    pub(crate) fn new() -> Self {
        inflated().leases += 1;
        Self(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inflated = inflated();
        inflated.leases -= 1;
        if inflated.leases == 0 {
            inflated.bytes = None;
        }
    }
}

struct Inflated {
    leases: usize,
    bytes: Option<Arc<[u8]>>,
}

fn inflated() -> std::sync::MutexGuard<'static, Inflated> {
    static INFLATED: Mutex<Inflated> = Mutex::new(Inflated { leases: 0, bytes: None });
    INFLATED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes() -> Arc<[u8]> {
    let mut inflated = inflated();
    if let Some(bytes) = &inflated.bytes {
        return Arc::clone(bytes);
    }
    let mut bytes = Vec::new();
    // The data is part of the program; were it damaged, no type would be known, which every caller reports.
    if DeflateDecoder::new(COMPRESSED).read_to_end(&mut bytes).is_err() {
        bytes.clear();
    }
    let bytes: Arc<[u8]> = bytes.into();
    if inflated.leases > 0 {
        inflated.bytes = Some(Arc::clone(&bytes));
    }
    bytes
}

/// Schemas that have been asked for. They are never dropped: there are as many as types in the set, at most, and being
/// `'static` they can refer to each other in cycles as the types do.
struct Schemas<T: 'static> {
    known: LazyLock<RwLock<HashMap<Box<str>, &'static T>>>,
}

impl<T> Schemas<T> {
    const fn new() -> Self {
        Self { known: LazyLock::new(RwLock::default) }
    }

    fn find(&self, name: &str, parse: impl FnOnce(&File, &[u8]) -> Result<T, Malformed>) -> Option<&'static T> {
        if let Some(schema) = read(&self.known, name) {
            return Some(schema);
        }
        let index = index();
        let entry = index.find(name)?;
        let file = index.files.get(usize::from(entry.file))?;
        let bytes = bytes();
        let descriptor = bytes.get(entry.start as usize..entry.end as usize)?;
        let schema = parse(file, descriptor).ok()?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been first; then its schema is the one.
        Some(*known.entry(name.into()).or_insert_with(|| Box::leak(Box::new(schema))))
    }
}

fn read<T>(known: &RwLock<HashMap<Box<str>, &'static T>>, name: &str) -> Option<&'static T> {
    known.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
}

/// Where in the inflated bytes each type's descriptor is.
struct Index {
    files: Vec<File>,
    /// Sorted by hash.
    entries: Vec<Entry>,
}

struct File {
    name: Box<str>,
    package: Box<str>,
    proto3: bool,
    work_in_progress: bool,
}

struct Entry {
    /// Of the full name.
    hash: u64,
    start: u32,
    end: u32,
    file: u16,
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index = Index { files: Vec::new(), entries: Vec::new() };
        let bytes = bytes();
        if index.add_files(&bytes).is_err() {
            index.entries.clear();
        }
        index.entries.sort_unstable_by_key(|entry| entry.hash);
        index.entries.shrink_to_fit();
        index
    })
}

impl Index {
    fn find(&self, name: &str) -> Option<&Entry> {
        let hash = hash(name);
        let entry = self.entries.binary_search_by_key(&hash, |entry| entry.hash).ok();
        let entry = entry.and_then(|at| self.entries.get(at))?;
        // A name made up to collide would have to lie in the package of the type it imitates, too.
        let package = &self.files.get(usize::from(entry.file))?.package;
        name.starts_with(&**package).then_some(entry)
    }

    fn add_files(&mut self, set: &[u8]) -> Result<(), Malformed> {
        each(set, |tag, raw| match (tag, raw) {
            (1, Raw::Bytes(file)) => self.add_file(set, file),
            _ => Ok(()),
        })
    }

    fn add_file(&mut self, set: &[u8], descriptor: &[u8]) -> Result<(), Malformed> {
        let number = self.files.len() as u16;
        let (mut name, mut package, mut proto3, mut work_in_progress) = (String::new(), String::new(), false, false);
        each(descriptor, |tag, raw| {
            match (tag, raw) {
                (1, Raw::Bytes(bytes)) => name = text(bytes),
                (2, Raw::Bytes(bytes)) => package = text(bytes),
                (4, Raw::Bytes(bytes)) => self.add_message(set, bytes, &package, number)?,
                (5, Raw::Bytes(bytes)) => self.add(set, bytes, &package, number)?,
                (8, Raw::Bytes(bytes)) => work_in_progress = schema::file_is_work_in_progress(bytes)?,
                (12, Raw::Bytes(bytes)) => proto3 = bytes == b"proto3",
                _ => {}
            }
            Ok(())
        })?;
        self.files.push(File { name: name.into(), package: package.into(), proto3, work_in_progress });
        Ok(())
    }

    fn add_message(&mut self, set: &[u8], descriptor: &[u8], scope: &str, file: u16) -> Result<(), Malformed> {
        self.add(set, descriptor, scope, file)?;
        let scope = full_name(scope, descriptor)?;
        each(descriptor, |tag, raw| match (tag, raw) {
            (3, Raw::Bytes(nested)) => self.add_message(set, nested, &scope, file),
            (4, Raw::Bytes(nested)) => self.add(set, nested, &scope, file),
            _ => Ok(()),
        })
    }

    fn add(&mut self, set: &[u8], descriptor: &[u8], scope: &str, file: u16) -> Result<(), Malformed> {
        let hash = hash(&full_name(scope, descriptor)?);
        let start = descriptor.as_ptr().addr() - set.as_ptr().addr();
        let end = start + descriptor.len();
        self.entries.push(Entry { hash, start: start as u32, end: end as u32, file });
        Ok(())
    }
}

fn full_name(scope: &str, descriptor: &[u8]) -> Result<String, Malformed> {
    let mut name = String::new();
    each(descriptor, |tag, raw| {
        if let (1, Raw::Bytes(bytes)) = (tag, raw) {
            name = format!("{scope}.{}", text(bytes));
        }
        Ok(())
    })?;
    Ok(name)
}

fn hash(name: &str) -> u64 {
    xxh64(name.as_bytes(), 0)
}

/// Calls `take` with every top-level message descriptor.
#[cfg(test)]
pub(crate) fn each_message(mut take: impl FnMut(&[u8])) {
    let bytes = bytes();
    each(&bytes, |_, file| {
        let Raw::Bytes(file) = file else {
            return Ok(());
        };
        each(file, |tag, raw| {
            if let (4, Raw::Bytes(descriptor)) = (tag, raw) {
                take(descriptor);
            }
            Ok(())
        })
    })
    .expect("a descriptor set");
}
