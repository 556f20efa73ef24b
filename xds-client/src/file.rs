//! The file driver: reads a `DiscoveryResponse` from a file, at once and whenever the file is replaced.
//!
//! Files are to be replaced by a rename, never written in place: only then is what we read complete. A Kubernetes volume
//! replaces a symbolic link beside the file instead; naming the volume as `watched_directory` covers that.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;

use crate::client::Client;
use crate::directory::{Change, DirectoryWatch};
use crate::hub::FileDecoder;
use crate::mux::Message;
use crate::source::FileSource;

/// Everything one watched file needs.
pub(crate) struct Watcher {
    pub(crate) client: Client,
    pub(crate) source: FileSource,
    pub(crate) type_url: Arc<str>,
    pub(crate) decoder: Rc<FileDecoder>,
}

impl Watcher {
    /// Watches for ever.
    pub(crate) async fn drive(self) {
        tokio::select! {
            () = self.watch_for_ever() => {}
            () = self.client.keep_time() => {}
        }
    }

    async fn watch_for_ever(&self) {
        self.client.connected();
        // The watch is set before the first read, or a change between the two would be missed.
        let watch = DirectoryWatch::new(&self.directory(), self.source.watch_modify);
        let mut reads = 0u64;
        self.read(&mut reads);
        let mut watch = match watch {
            Ok(watch) => watch,
            Err(error) => {
                let directory = self.directory();
                let reason = format!("cannot watch {}: {error}", directory.display());
                tracing::warn!(reason, "changes of a configuration file will not be noticed");
                let _ = self.client.disconnected(reason);
                return std::future::pending().await;
            }
        };
        loop {
            match self.changed(&mut watch).await {
                Ok(true) => self.read(&mut reads),
                Ok(false) => {}
                Err(error) => {
                    let reason = format!("the file watch failed: {error}");
                    let _ = self.client.disconnected(reason);
                    return std::future::pending().await;
                }
            }
        }
    }

    /// The directory whose events count.
    fn directory(&self) -> PathBuf {
        if let Some(directory) = &self.source.watched_directory {
            return directory.clone();
        }
        match self.source.path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    /// Waits for events; whether one of them concerns the file.
    async fn changed(&self, watch: &mut DirectoryWatch) -> io::Result<bool> {
        let changes = watch.changed().await?;
        Ok(changes.iter().any(|change| match change {
            Change::Lost => true,
            Change::Entry(name) => self.concerns(name.as_deref()),
        }))
    }

    fn concerns(&self, name: Option<&OsStr>) -> bool {
        self.source.watched_directory.is_some() || name == self.source.path.file_name()
    }

    fn read(&self, reads: &mut u64) {
        *reads += 1;
        self.client.fetching(&self.type_url);
        let path = &self.source.path;
        let content = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        match content.and_then(|content| (self.decoder)(path, &content)) {
            Ok(response) => {
                // A file has no nonce and need not repeat its type: the subscription knows it.
                let response =
                    DiscoveryResponse { nonce: reads.to_string(), type_url: self.type_url.to_string(), ..response };
                // Requests have no reader here, but answering needs them to be taken.
                while self.client.try_next_request().is_some() {}
                self.client.on_message(Message::Sotw(response));
                while self.client.try_next_request().is_some() {}
            }
            Err(detail) => {
                tracing::warn!(path = %path.display(), detail, "a configuration file was refused");
                self.client.on_missing(&self.type_url, detail);
            }
        }
    }
}
