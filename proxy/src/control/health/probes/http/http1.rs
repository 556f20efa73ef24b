//! An HTTP/1 connection that carries checks, one at a time.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use filters::http::{Method, RequestHead, ResponseHead};

use super::Received;
use crate::config::cluster::ClusterConfig;
use crate::control::clusters::Probe;
use crate::control::health::probes::dial;
use crate::http::codec::h1::{
    BodyKind, Eof, Expected, HeaderFormat, RequestEncoder, RequestOptions, ResponseDecoder, ResponseEvent, WriteBuf,
};
use crate::transport::Io;
use crate::upstream::cluster::{h1_options, header_format};

/// An open connection.
pub(super) struct Http1Client {
    io: Io,
    read: BytesMut,
    decoder: ResponseDecoder,
    encoder: RequestEncoder,
    format: HeaderFormat<'static>,
    absolute_form: bool,
    /// The last answer was whole, and allows another request.
    reusable: bool,
}

impl Http1Client {
    /// A new connection to where the host is checked.
    pub(super) async fn connect(probe: &Probe) -> Option<Self> {
        let config: &ClusterConfig = &probe.config;
        let io = dial(probe).await.ok()?;
        Some(Self {
            io,
            read: BytesMut::new(),
            decoder: ResponseDecoder::new(Rc::new(h1_options(config))),
            encoder: RequestEncoder::default(),
            format: header_format(config),
            absolute_form: config.http.http1.send_fully_qualified_url,
            reusable: true,
        })
    }

    /// Whether it may carry another request, as far as is known.
    pub(super) fn is_open(&mut self) -> bool {
        self.reusable && self.read.is_empty() && self.io.disturbance().is_none()
    }

    /// Waits until the host closes the idle connection, or says what nobody asked.
    pub(super) async fn disturbed(&mut self) {
        // Readiness may be left over from what was read.
        while self.io.disturbance().is_none() {
            poll_fn(|cx| self.io.poll_read_ready(cx)).await;
        }
    }

    /// Sends a request and reads its answer to the end, keeping up to `keep` bytes of the body; `None` if there is none.
    pub(super) async fn send(&mut self, head: &RequestHead, body: Bytes, keep: usize) -> Option<Received> {
        self.reusable = false;
        let mut out = WriteBuf::new();
        let (end_stream, absolute_form, format) = (body.is_empty(), self.absolute_form, self.format);
        let options = RequestOptions { end_stream, absolute_form, format, ..RequestOptions::default() };
        self.encoder.encode_head(head, &options, &mut out).ok()?;
        if !end_stream {
            self.encoder.encode_data(body, &mut out).ok()?;
            self.encoder.finish(None, format, &mut out).ok()?;
        }
        self.decoder.expect(if head.method == Method::Head { Expected::NoBody } else { Expected::Body });
        while !out.is_empty() {
            poll_fn(|cx| self.io.poll_write(cx, &mut out)).await.ok()?;
        }
        let (head, whole, keep_alive) = self.head().await?;
        let mut received = Received { status: head.status, headers: head.headers, body: Vec::new() };
        if !whole {
            self.body(&mut received.body, keep).await?;
        }
        self.reusable = keep_alive;
        Some(received)
    }

    /// The final head, whether it is the whole answer, and whether another request may follow.
    async fn head(&mut self) -> Option<(ResponseHead, bool, bool)> {
        loop {
            match self.event().await? {
                ResponseEvent::Head(decoded) => {
                    return Some((decoded.head, decoded.body == BodyKind::Empty, decoded.keep_alive));
                }
                ResponseEvent::Informational(_) => {}
                ResponseEvent::Data(_) | ResponseEvent::Trailers(_) | ResponseEvent::End => return None,
            }
        }
    }

    async fn body(&mut self, kept: &mut Vec<u8>, keep: usize) -> Option<()> {
        loop {
            match self.event().await? {
                ResponseEvent::Data(data) => super::keep(kept, &data, keep),
                ResponseEvent::Trailers(_) | ResponseEvent::End => return Some(()),
                ResponseEvent::Head(_) | ResponseEvent::Informational(_) => return None,
            }
        }
    }

    async fn event(&mut self) -> Option<ResponseEvent> {
        let mut scratch = [0; 4096];
        loop {
            if let Some(event) = self.decoder.decode(&mut self.read).ok()? {
                return Some(event);
            }
            match poll_fn(|cx| self.io.poll_read(cx, &mut scratch, &mut self.read)).await {
                Ok(n) if n > 0 => {}
                Ok(_) if self.decoder.eof(&self.read) == Eof::End => return Some(ResponseEvent::End),
                _ => return None,
            }
        }
    }
}
