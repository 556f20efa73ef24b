//! Pipes for `splice(2)`: what moves bytes from socket to socket without bringing them into this process.
//!
//! A pipe costs two descriptors, so a connection has one only while bytes move through it; between bursts it lies with its
//! worker, and the next connection that needs one takes it.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// The most that waits in a pipe. The kernel's default is less, and then each turn moves less.
const PIPE_SIZE: usize = 256 * 1024;
/// Empty pipes a worker keeps: more connections than this rarely move bulk data in the same instant.
const KEPT: usize = 32;

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// A pipe, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    len: usize,
}

/// The empty pipes of a worker.
#[derive(Debug, Default)]
pub struct Pipes(RefCell<Vec<Pipe>>);

impl Pipes {
    /// An empty pipe; `None` when the system gives none, and then bytes are copied.
    #[must_use]
    pub fn take(&self) -> Option<Pipe> {
        self.0.borrow_mut().pop().or_else(|| Pipe::new().ok())
    }

    /// Takes a pipe back. One that is not empty is closed: its bytes were another connection's.
    pub fn put(&self, pipe: Pipe) {
        let mut kept = self.0.borrow_mut();
        if pipe.is_empty() && kept.len() < KEPT {
            kept.push(pipe);
        }
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may hold so much in pipes and no more; beyond it they stay as small as they come.
        let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { read, write, len: 0 })
    }

    /// Whether nothing waits in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves what `from` holds into the pipe, but not more than `most`. To be asked of an empty pipe only: then `WouldBlock`
    /// speaks of the socket.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn fill(&mut self, from: impl AsFd, most: usize) -> io::Result<usize> {
        let n = splice(from, None, &self.write, None, most.min(PIPE_SIZE), FLAGS)?;
        self.len += n;
        Ok(n)
    }

    /// Moves what the pipe holds into `to`, as much as that takes.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let n = splice(&self.read, None, to, None, self.len, FLAGS)?;
        self.len = self.len.saturating_sub(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().expect("sockets");
        near.set_nonblocking(true).expect("non-blocking");
        (near, far)
    }

    #[test]
    fn bytes_cross_and_the_pipe_knows_how_many_wait() {
        let ((from, mut client), (to, mut server)) = (pair(), pair());
        let pipes = Pipes::default();
        let mut pipe = pipes.take().expect("a pipe");
        let nothing = pipe.fill(&from, PIPE_SIZE).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"hello").expect("write");
        assert_eq!(pipe.fill(&from, PIPE_SIZE).expect("filled"), 5);
        assert!(!pipe.is_empty());
        assert_eq!(pipe.drain(&to).expect("drained"), 5);
        assert!(pipe.is_empty());
        let mut got = [0; 5];
        server.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"hello");
        drop(client);
        assert_eq!(pipe.fill(&from, PIPE_SIZE).expect("the end"), 0);
    }

    #[test]
    fn no_more_is_taken_than_may_be() {
        let (from, mut client) = pair();
        let mut pipe = Pipe::new().expect("a pipe");
        client.write_all(b"hello world").expect("write");
        assert_eq!(pipe.fill(&from, 5).expect("filled"), 5);
    }

    #[test]
    fn only_empty_pipes_are_used_again() {
        let (from, mut client) = pair();
        let pipes = Pipes::default();
        let mut full = pipes.take().expect("a pipe");
        client.write_all(b"secret").expect("write");
        full.fill(&from, PIPE_SIZE).expect("filled");
        pipes.put(full);
        assert!(pipes.0.borrow().is_empty());
        pipes.put(Pipe::new().expect("a pipe"));
        assert_eq!(pipes.0.borrow().len(), 1);
        assert!(pipes.take().expect("the same").is_empty());
    }
}
