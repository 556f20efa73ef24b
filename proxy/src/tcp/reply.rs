//! Terminal filters that need no upstream: a fixed response, and what came sent back.

use std::future::poll_fn;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::http::codec::h1::WriteBuf;
use crate::transport::Io;
use crate::worker::Worker;

/// `envoy.filters.network.direct_response`: sends `response` and closes. What the client sends is not read.
pub async fn direct_response(mut io: Io, response: Bytes) {
    let mut out = WriteBuf::new();
    out.push(response);
    // A client that is gone has no use for the rest.
    let _ = poll_fn(|cx| {
        while !out.is_empty() {
            if let Err(error) = ready!(io.poll_write(cx, &mut out)) {
                return Poll::Ready(Err(error));
            }
        }
        io.poll_shutdown(cx)
    })
    .await;
}

/// `envoy.filters.network.echo`: sends back what comes, until the client sends no more. It is read when what was read
/// before is written: a client that does not read is not read either.
pub async fn echo(worker: &Worker, mut io: Io) {
    let (mut read, mut out) = (BytesMut::new(), WriteBuf::new());
    poll_fn(|cx| {
        loop {
            while !out.is_empty() {
                if ready!(io.poll_write(cx, &mut out)).is_err() {
                    return Poll::Ready(());
                }
            }
            match ready!(worker.with_scratch(|scratch| io.poll_read(cx, scratch, &mut read))) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => out.push(read.split().freeze()),
            }
        }
    })
    .await;
}
