//! Who tells of changes in directories.

use std::io;
use std::path::Path;

use xds_client::DirectoryWatch;

use crate::control::{Control, Happening, Happenings};

/// Names one watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchNumber(pub u64);

/// Ends a watch when it is dropped.
pub trait WatchGuard {}

/// The watches of one secret.
pub(super) type Watches = Vec<(WatchNumber, Box<dyn WatchGuard>)>;

/// Watches directories. For every change [`Secrets::on_directory`](super::Secrets::on_directory) is to be called.
pub trait Directories {
    /// Watches for what is renamed into a directory or, if `modify`, written there.
    ///
    /// # Errors
    /// When it cannot be watched.
    fn watch(&self, number: WatchNumber, directory: &Path, modify: bool) -> io::Result<Box<dyn WatchGuard>>;
}

/// Watches by inotify, with a local task per directory.
pub struct InotifyDirectories(Happenings);

impl InotifyDirectories {
    /// Tells of changes by a call to control.
    #[must_use]
    pub const fn new(happenings: Happenings) -> Self {
        Self(happenings)
    }
}

struct Task(tokio::task::AbortHandle);

impl WatchGuard for Task {}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Directories for InotifyDirectories {
    fn watch(&self, number: WatchNumber, directory: &Path, modify: bool) -> io::Result<Box<dyn WatchGuard>> {
        let mut watch = DirectoryWatch::new(directory, modify)?;
        let happenings = self.0.clone();
        let task = tokio::task::spawn_local(async move {
            while let Ok(changes) = watch.changed().await {
                for _ in changes {
                    let call = Box::new(move |control: &Control| control.secrets.on_directory(number));
                    if happenings.send(Happening::Call(call)).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Box::new(Task(task.abort_handle())))
    }
}
