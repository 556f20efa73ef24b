//! `envoy.config.core.v3.DataSource` of secrets.

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, WatchedDirectory};
use filters::config::{At, ConfigError};

/// What Envoy calls the origin of data that stands in the configuration.
pub const INLINE: &str = "<inline>";

/// Data, and where it came from.
pub struct Data {
    /// The data; empty if there was no data source.
    pub bytes: Vec<u8>,
    /// A path, or [`INLINE`]; empty if there was no data source.
    pub origin: String,
    /// Why the data could not be read, where that is left to the reader of the data.
    pub problem: Option<String>,
}

impl Data {
    /// The reason why it is not there, to be put behind what is said about that.
    pub(super) fn why(&self) -> String {
        self.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default()
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Data({} bytes of {})", self.bytes.len(), self.origin)
    }
}

/// Whether nothing is something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// Nothing will do.
    Allowed,
    /// Nothing is an error.
    Refused,
}

/// Reads a data source; `None` if there is none.
///
/// # Errors
/// When it names nothing, or a file or variable that cannot be read, or if it must not be and is empty.
pub fn read(at: &At<'_>, proto: Option<DataSource>, empty: Empty) -> Result<Option<Data>, ConfigError> {
    let Some(proto) = proto else { return Ok(None) };
    let data = lenient(at, proto)?;
    match data.problem {
        Some(problem) => Err(at.error(problem)),
        None if data.bytes.is_empty() && empty == Empty::Refused => Err(at.error(match data.origin.as_str() {
            INLINE => "DataSource cannot be empty".to_owned(),
            path => format!("file {path} is empty"),
        })),
        None => Ok(Some(data)),
    }
}

/// Reads a data source and leaves it to the caller to say what it means that there is none.
///
/// # Errors
/// When it names nothing.
pub(super) fn lenient(at: &At<'_>, proto: DataSource) -> Result<Data, ConfigError> {
    let DataSource { watched_directory, specifier } = proto;
    // Whoever reloads secrets looks there for changes.
    if let Some(WatchedDirectory { path, watch_modify: _ }) = watched_directory {
        directory(&at.field("watched_directory"), &path)?;
    }
    Ok(match at.required("specifier", specifier)? {
        Specifier::InlineBytes(bytes) => Data { bytes, origin: INLINE.to_owned(), problem: None },
        Specifier::InlineString(text) => Data { bytes: text.into_bytes(), origin: INLINE.to_owned(), problem: None },
        Specifier::Filename(path) => {
            if path.is_empty() {
                return Err(at.field("filename").error("value length must be at least 1 characters"));
            }
            match std::fs::read(&path) {
                Ok(bytes) => Data { bytes, origin: path, problem: None },
                Err(error) => {
                    let problem = Some(format!("Invalid path: {path}: {error}"));
                    Data { bytes: Vec::new(), origin: path, problem }
                }
            }
        }
        Specifier::EnvironmentVariable(name) => {
            let value = std::env::var_os(&name).map(std::ffi::OsString::into_encoded_bytes);
            let problem = value.is_none().then(|| format!("Environment variable doesn't exist: {name}"));
            Data { bytes: value.unwrap_or_default(), origin: INLINE.to_owned(), problem }
        }
    })
}

/// Checks the path of a directory to watch. Envoy does not mind if it is not there.
///
/// # Errors
/// When it is empty.
pub(super) fn directory(at: &At<'_>, path: &str) -> Result<(), ConfigError> {
    if path.is_empty() {
        return Err(at.field("path").error("value length must be at least 1 characters"));
    }
    Ok(())
}
