//! Finds and reads the proto files.

use std::path::PathBuf;

use protox::Error;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

/// A name relative to a package that the compiler resolves to another package even among the file's own imports, because
/// it looks at what they import in turn, and `protoc` does not.
struct RelativeName {
    file: &'static str,
    written: &'static str,
    meant: &'static str,
}

const RELATIVE_NAMES: [RelativeName; 1] = [RelativeName {
    file: "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto",
    written: " common.dynamic_forward_proxy.v3.",
    meant: " .envoy.extensions.common.dynamic_forward_proxy.v3.",
}];

/// Resolves below the include roots, then among the types compiled into `protox` (`google/protobuf/*`), and writes the
/// relative names of [`RELATIVE_NAMES`] out in full.
pub(crate) struct Resolver {
    roots: Vec<PathBuf>,
    inner: ChainFileResolver,
}

impl Resolver {
    pub(crate) fn new(roots: &[PathBuf]) -> Self {
        let mut inner = ChainFileResolver::new();
        for root in roots {
            inner.add(IncludeFileResolver::new(root.clone()));
        }
        inner.add(GoogleFileResolver::new());
        Self { roots: roots.to_vec(), inner }
    }
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let Some(relative) = RELATIVE_NAMES.iter().find(|relative| relative.file == name) else {
            return self.inner.open_file(name);
        };
        let source = self.roots.iter().find_map(|root| std::fs::read_to_string(root.join(name)).ok());
        let source = source.ok_or_else(|| Error::file_not_found(name))?;
        File::from_source(name, &source.replace(relative.written, relative.meant))
    }
}
