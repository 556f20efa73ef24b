//! Streams that end before anybody can answer them: the codec took offence at their head.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use filters::flags::ResponseFlags;
use filters::http::{Frame, Headers, ResponseHead, Version};
use filters::stream_info::ByteMeter;

use super::Stream;
use crate::http::codec::{Downstream, Interrupt};
use crate::http::manager::{Connection, Manager};

/// Counts and logs a stream that the codec began and gave up. `protocol_error`: the client broke the protocol, rather
/// than a limit.
pub fn refused(manager: &Rc<Manager>, connection: &Rc<Connection>, details: &'static str, protocol_error: bool) {
    let alarm = manager.worker.timers().alarm();
    let mut nobody = Nobody;
    let mut stream = Stream::new(manager, connection, &alarm, &mut nobody, Instant::now());
    stream.begin(Version::Http2);
    stream.info.flags.insert(if protocol_error {
        ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR
    } else {
        ResponseFlags::DOWNSTREAM_REMOTE_RESET
    });
    stream.info.details = Some(details.into());
    stream.finish();
}

/// The downstream side of a stream that has none.
struct Nobody;

impl Downstream for Nobody {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        Poll::Ready(Ok(None))
    }

    fn request_complete(&self) -> bool {
        true
    }

    fn send_informational(&mut self, _: &ResponseHead) {}

    fn send_head(&mut self, _: &ResponseHead, _: bool) {}

    fn send_data(&mut self, _: Bytes, _: bool) {}

    fn send_trailers(&mut self, _: Headers) {}

    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        Poll::Ready(Err(Interrupt::Disconnect))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<Interrupt> {
        Poll::Ready(Interrupt::Disconnect)
    }

    fn abort(&mut self) {}

    fn meter(&self) -> ByteMeter {
        ByteMeter::default()
    }
}
