//! Watches a directory for what is renamed into it: how files that are read at once are replaced.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use inotify::{EventMask, Inotify, WatchMask};
use tokio::io::unix::AsyncFd;

/// A directory that is watched as long as this lives.
#[derive(Debug)]
pub struct DirectoryWatch(AsyncFd<Inotify>);

/// What happened in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Something came to be there, under this name.
    Entry(Option<OsString>),
    /// More than could be told.
    Lost,
}

impl DirectoryWatch {
    /// Watches from now on. With `modify`, writing to what is there counts as well.
    ///
    /// # Errors
    /// When there is no such directory, or it may not be watched.
    pub fn new(directory: &Path, modify: bool) -> io::Result<Self> {
        let mut mask = WatchMask::MOVED_TO;
        if modify {
            mask |= WatchMask::MODIFY | WatchMask::CLOSE_WRITE;
        }
        let inotify = Inotify::init()?;
        inotify.watches().add(directory, mask)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; what it guards against, a value that changes or closes its descriptor, \
                      does not apply to an `Inotify`"
        )]
        AsyncFd::new(inotify).map(Self)
    }

    /// Waits until something happens.
    ///
    /// # Errors
    /// When the watch fails; it is of no use then.
    pub async fn changed(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let mut guard = self.0.readable_mut().await?;
            match guard.get_inner_mut().read_events(&mut buffer) {
                Ok(events) => changes.extend(events.map(|event| {
                    if event.mask.contains(EventMask::Q_OVERFLOW) {
                        Change::Lost
                    } else {
                        Change::Entry(event.name.map(Into::into))
                    }
                })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
