//! The only module with `unsafe`: system calls std, tokio and socket2 do not offer. Each block carries its argument.
#![expect(unsafe_code, reason = "this is the module for it; every block states why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `setsockopt` with a value given as bytes, for the options configuration names by number.
///
/// # Errors
/// What the kernel answers; `InvalidInput` when `value` is longer than the system call can say.
pub fn set_socket_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "socket option value too long"))?;
    // SAFETY: `socket` is an open descriptor for as long as it is borrowed. The kernel reads exactly `length` bytes from
    // `value`, a live slice of that length, and keeps no pointer to it.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has memory given to this process in ordinary pages. The allocator asks for huge ones: of each two megabytes touched
/// anywhere all are resident then, which for a small process is most of its memory.
pub fn ordinary_pages() {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: `PR_SET_THP_DISABLE` takes integers only and changes how later page faults of this process are served. A
    // kernel that does not know it answers an error, and nothing has changed.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) };
}

/// Gives memory back to the system that the allocator holds without use; what loading a configuration took, say.
pub fn give_back_memory() {
    // SAFETY: it visits and frees only what is the allocator's own, and may be called by any thread at any time. Where
    // another allocator is in use it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// This machine's first address that is not loopback: IPv4 unless IPv6 is asked for. What `x-forwarded-for` shows for a
/// client on the same machine.
#[must_use]
pub fn local_address(v6: bool) -> Option<std::net::IpAddr> {
    // Connecting a datagram socket sends nothing: the kernel only chooses the source address it would use.
    let (bind, target) = if v6 { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = std::net::UdpSocket::bind(bind).ok()?;
    socket.connect(target).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_option_is_set_or_the_kernel_says_why_not() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let one = 1_i32.to_ne_bytes();
        set_socket_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, &one).expect("keep-alive");
        assert!(socket2::SockRef::from(&socket).keepalive().expect("read back"));
        let error = set_socket_option(socket.as_fd(), libc::SOL_SOCKET, 9999, &one).expect_err("no such option");
        assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
    }
}
