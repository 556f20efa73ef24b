//! What an exchange sees of the connection.

use std::task::{Context, Poll};

use bytes::Bytes;
use filters::http::{Frame, Headers, ResponseHead};
use filters::stream_info::ByteMeter;

use super::super::codec::h1::{
    BodyKind, DecodeError, Framing, HeaderFormat, RequestEvent, ResponseOptions, Spelling, reason_phrase,
};
use super::super::codec::{Downstream, Interrupt};
use super::ServerSide;

/// Bytes of pipelined requests kept while one is being served.
const PIPELINE: usize = 64 * 1024;

impl Downstream for ServerSide<'_> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        if self.request_complete {
            return Poll::Ready(Ok(None));
        }
        loop {
            match self.decoder.decode(&mut self.read) {
                Ok(Some(RequestEvent::Data(data))) => {
                    if self.decoder.is_body_complete() {
                        self.request_complete = self.decoder.decode(&mut self.read).is_ok();
                    }
                    return Poll::Ready(Ok(Some(Frame::Data(data))));
                }
                Ok(Some(RequestEvent::Trailers(trailers))) => {
                    self.request_complete = true;
                    return Poll::Ready(Ok(Some(Frame::Trailers(trailers))));
                }
                Ok(Some(RequestEvent::End | RequestEvent::Head(_))) => {
                    self.request_complete = true;
                    return Poll::Ready(Ok(None));
                }
                Ok(None) => {}
                Err(error) => {
                    self.keep_alive = false;
                    let DecodeError { status, details } = error;
                    return Poll::Ready(Err(Interrupt::Malformed { status, details }));
                }
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(true) => {}
                // Half a connection is none, not even of a tunnel.
                _ => {
                    self.gone = true;
                    return Poll::Ready(Err(Interrupt::Disconnect));
                }
            }
        }
    }

    fn request_complete(&self) -> bool {
        self.request_complete
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        let format = self.manager.header_format();
        let sent = self.encoder.encode_informational(head, self.version, format, &mut self.out);
        self.written(sent);
    }

    fn spell(&mut self, spelling: Spelling) {
        self.spelling = Some(spelling);
    }

    fn send_head(&mut self, head: &ResponseHead, end: bool) {
        let granted = head.status == 101 || self.connect && (200..300).contains(&head.status);
        self.tunnel = self.body == BodyKind::Tunnel && granted && !end;
        if self.body == BodyKind::Tunnel && !self.tunnel {
            // What would have been the tunnel's bytes cannot be told from another request.
            self.keep_alive = false;
        }
        let keep_alive = self.keep_alive && !self.connection.draining.get();
        let options = ResponseOptions {
            end_stream: end,
            version: self.version,
            head_request: self.head_request,
            tunnel: self.tunnel,
            keep_alive,
            format: self.spelling.as_ref().map_or_else(|| self.manager.header_format(), Spelling::format),
            reason: self.spelling.as_ref().and_then(Spelling::reason),
        };
        let before = self.out.len();
        let sent = self.encoder.encode_head(head, &options, &mut self.out);
        // Without the status line and the empty one, which are no headers.
        let line = "HTTP/1.1 200 \r\n".len() + reason_phrase(head.status).len();
        self.meter.header_tx = (self.out.len() - before).saturating_sub(line + 2) as u64;
        self.response_ended = end;
        self.written(sent);
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        if self.encoder.framing() == Framing::Raw {
            self.out.push(data);
        } else if !data.is_empty() {
            let sent = self.encoder.encode_data(data, &mut self.out);
            self.written(sent);
        }
        if end && !self.response_ended {
            self.response_ended = true;
            if self.encoder.framing() != Framing::Raw {
                let sent = self.encoder.finish(None, HeaderFormat::default(), &mut self.out);
                self.written(sent);
            }
        }
    }

    fn send_trailers(&mut self, trailers: Headers) {
        self.response_ended = true;
        let trailers = self.manager.config.http1.enable_trailers.then_some(&trailers);
        let format = self.spelling.as_ref().map_or_else(|| self.manager.header_format(), Spelling::format);
        let sent = self.encoder.finish(trailers, format, &mut self.out);
        self.written(sent);
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        if self.out.len() < self.manager.buffer_limit {
            return Poll::Ready(Ok(()));
        }
        match self.poll_flush(cx) {
            Poll::Pending if self.out.len() < self.manager.buffer_limit / 2 => Poll::Ready(Ok(())),
            other => other,
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        if self.gone || self.cut_off {
            return Poll::Ready(Err(Interrupt::Disconnect));
        }
        self.poll_write_out(cx).map_err(|_| {
            self.gone = true;
            Interrupt::Disconnect
        })
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        loop {
            // Pipelined requests wait in the buffer, as many as are reasonable; beyond that the socket waits.
            if self.read.len() >= PIPELINE {
                return Poll::Pending;
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(true) => {}
                _ => {
                    self.gone = true;
                    return Poll::Ready(Interrupt::Disconnect);
                }
            }
        }
    }

    fn abort(&mut self) {
        self.cut_off = true;
        self.keep_alive = false;
    }

    fn meter(&self) -> ByteMeter {
        ByteMeter { wire_rx: self.received - self.read.len() as u64 - self.taken, ..self.meter }
    }
}
