//! Where cargo keeps the sources of the pinned `envoy-types`.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// The directory of the `envoy-types` package that the product's workspace resolves to.
pub(crate) fn envoy_types() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("envoy-types is not a dependency of the workspace")?;
    Ok(PathBuf::from(manifest).parent().ok_or("envoy-types has no directory")?.to_owned())
}
