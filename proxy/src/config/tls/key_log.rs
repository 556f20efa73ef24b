//! `key_log`: the secrets of sessions, in a file that Wireshark reads.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::TlsKeyLog;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::tls::hex;
use rustls::KeyLog;

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.extensions.transport_sockets.tls.v3.TlsKeyLog" {
        local_address_range => Refuse, "the keys of all connections of the context would be logged";
        remote_address_range => Refuse, "the keys of all connections of the context would be logged";
    }
}

/// Opens the file.
pub(super) fn parse(at: &At<'_>, proto: TlsKeyLog) -> Result<Arc<dyn KeyLog>, ConfigError> {
    let TlsKeyLog { path, local_address_range, remote_address_range } = proto;
    at.unsupported(&unsupported::local_address_range, &local_address_range)?;
    at.unsupported(&unsupported::remote_address_range, &remote_address_range)?;
    let at = at.field("path");
    if path.is_empty() {
        return Err(at.error("value length must be at least 1 characters"));
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let file = file.map_err(|error| at.error(format_args!("unable to open file '{path}': {error}")))?;
    Ok(Arc::new(LogFile(file)))
}

/// Lines of the NSS key log format, each appended in one write.
#[derive(Debug)]
struct LogFile(File);

impl KeyLog for LogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // A log that cannot be written is no reason to refuse a client.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}
