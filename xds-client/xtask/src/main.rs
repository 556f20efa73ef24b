//! Generates the descriptor set that `xds_client::proto` carries.
//!
//! The pinned `envoy-types` crate ships the `.proto` files its types were generated from, but no descriptors. This
//! program compiles them (in pure Rust, no `protoc`), strips what nobody reads at run time, compresses the result and
//! writes `xds-client/src/proto/descriptors.bin.z`. The output is a plain `google.protobuf.FileDescriptorSet` in a raw
//! deflate stream, so any protobuf tool can read it. Generated from exactly the crate's own protos, it can never
//! disagree with the Rust types about field numbers.
//!
//! ```text
//! cd xds-client/xtask
//! cargo run            # regenerate
//! cargo run -- --check # fail when the checked-in file is out of date
//! ```

mod locate;
mod resolve;
mod strip;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Relative to this package's directory.
const OUTPUT: &str = "../src/proto/descriptors.bin.z";

/// Folders below `envoy-types`' `proto/` that are include roots.
const ROOTS: [&str; 8] = [
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "cel-spec/proto",
    "opentelemetry-proto",
    "client_model",
    "ratelimit",
];

/// Files whose messages may appear in a document: bootstrap, every resource, every extension's configuration, the
/// discovery messages and the admin pages' dumps. What they import comes along.
const WANTED: [&str; 4] = ["envoy/", "xds/", "udpa/", "google/rpc/status.proto"];

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("unknown argument {other}; usage: xtask [--check]");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: bool) -> Result<(), Box<dyn Error>> {
    let set = descriptor_set(&locate::envoy_types()?)?;
    let output = Path::new(env!("CARGO_MANIFEST_DIR")).join(OUTPUT);
    if check {
        let mut current = Vec::new();
        DeflateDecoder::new(std::fs::read(&output)?.as_slice()).read_to_end(&mut current)?;
        // The inflated bytes are compared: another version of the compressor is not a difference.
        if current != set {
            return Err(format!("{} is out of date: run `cargo run --manifest-path xds-client/xtask/Cargo.toml`", output.display()).into());
        }
        println!("{} is up to date ({} bytes of descriptors)", output.display(), set.len());
        return Ok(());
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&set)?;
    let compressed = encoder.finish()?;
    std::fs::write(&output, &compressed)?;
    println!("{}: {} bytes, {} inflated", output.display(), compressed.len(), set.len());
    Ok(())
}

/// Compiles every wanted proto below `crate_dir` and returns the stripped set, dependencies before dependents.
fn descriptor_set(crate_dir: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut roots: Vec<PathBuf> = ROOTS.iter().map(|root| crate_dir.join("proto").join(root)).collect();
    roots.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"));
    let mut names = BTreeSet::new();
    for root in &roots {
        collect(root, root, &mut names)?;
    }
    let mut shared = compiler(&roots);
    let mut files = strip::Files::default();
    let mut apart = Vec::new();
    for name in names.iter().filter(|name| WANTED.iter().any(|prefix| name.starts_with(prefix))) {
        // Some protos use names relative to their package that become ambiguous beside unrelated packages. Those are
        // compiled with nothing but their own imports, as `protoc` would see them.
        if shared.open_file(name).is_err() {
            let mut own = compiler(&roots);
            own.open_file(name).map_err(|error| format!("{name}: {error}"))?;
            apart.push(own.encode_file_descriptor_set());
        }
    }
    files.add(&shared.encode_file_descriptor_set())?;
    for set in &apart {
        files.add(set)?;
    }
    Ok(files.finish())
}

fn compiler(roots: &[PathBuf]) -> protox::Compiler {
    let mut compiler = protox::Compiler::with_file_resolver(resolve::Resolver::new(roots));
    compiler.include_imports(true).include_source_info(false);
    compiler
}

fn collect(root: &Path, dir: &Path, names: &mut BTreeSet<String>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, names)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            names.insert(path.strip_prefix(root)?.to_str().ok_or("a proto's path is not UTF-8")?.to_owned());
        }
    }
    Ok(())
}
