//! Hosts for the pools: one that answers now and then otherwise than it should, one that refuses, one that says nothing at all.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::upstream::host::tests::host;
use crate::upstream::host::{Host, HostState};
use crate::worker::timer::Timers;
use filters::stream_info::Address;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It answers, as a rule.
    Serves,
    /// Nobody listens there.
    Refuses,
    /// Its queue of connections is full: who connects hears nothing.
    Silent,
}

pub(super) struct TestHost {
    pub(super) kind: Kind,
    pub(super) host: Arc<Host>,
    _sockets: Vec<Socket>,
}

/// How one connection is served.
#[derive(Clone)]
struct Manners {
    timers: Rc<Timers>,
    calm: Rc<Cell<bool>>,
}

impl TestHost {
    pub(super) async fn start(
        kind: Kind,
        timers: &Rc<Timers>,
        mut random: fastrand::Rng,
        calm: &Rc<Cell<bool>>,
    ) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut sockets = Vec::new();
        let address = if kind == Kind::Serves {
            let listener = TcpListener::bind(loopback).await.unwrap();
            let address = listener.local_addr().unwrap();
            let manners = Manners { timers: Rc::clone(timers), calm: Rc::clone(calm) };
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(manners.clone().serve(stream, random.fork()));
                }
            });
            address
        } else {
            let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            bound.bind(&loopback.into()).unwrap();
            let address = bound.local_addr().unwrap().as_socket().unwrap();
            if kind == Kind::Silent {
                bound.listen(0).unwrap();
                sockets.extend((0..4).map(|_| {
                    let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    filler.set_nonblocking(true).unwrap();
                    // It is under way or queued; nobody takes it off.
                    let _ = filler.connect(&address.into());
                    filler
                }));
            }
            sockets.push(bound);
            address
        };
        let mut attributes = host(1, 1, 0, &Arc::default()).attributes().clone();
        attributes.address = Arc::new(Address::Ip(address));
        Self { kind, host: Arc::new(Host::new(attributes, Arc::new(HostState::new(1)))), _sockets: sockets }
    }
}

impl Manners {
    async fn serve(self, stream: TcpStream, random: fastrand::Rng) {
        let mut first = [0; 3];
        // Who says nothing wants a byte stream, which ends when it does.
        match stream.peek(&mut first).await {
            Ok(n) if n > 0 && first.starts_with(b"PRI") => self.serve_http2(stream, random).await,
            Ok(n) if n > 0 => self.serve_http1(stream, random).await,
            _ => {}
        }
    }

    async fn pause(&self, random: &mut fastrand::Rng) {
        if !self.calm.get() {
            let timers = &self.timers;
            timers.sleep_until(timers.now().after(Duration::from_millis(random.u64(..30)))).await;
        }
    }

    /// A way of answering, 0 a good one.
    fn way(&self, random: &mut fastrand::Rng) -> u8 {
        if self.calm.get() { 0 } else { random.u8(..24).saturating_sub(12) }
    }

    async fn serve_http1(self, mut stream: TcpStream, mut random: fastrand::Rng) {
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let mut read = Vec::new();
        loop {
            while !read.ends_with(b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut read).await, Ok(n) if n > 0) {
                    return;
                }
            }
            read.clear();
            self.pause(&mut random).await;
            let reply: &[u8] = match self.way(&mut random) {
                // Never an answer.
                1 => {
                    let _ = stream.read(&mut [0]).await;
                    return;
                }
                2 => return,
                3 => {
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    return;
                }
                // Half an answer.
                4 => {
                    let _ = stream.write_all(&OK[..OK.len() - 1]).await;
                    return;
                }
                5 => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 408 Request Timeout\r\n\r\n",
                6 => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
                7 => b"no HTTP\r\n\r\n",
                8 => b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
                way => {
                    let _ = stream.write_all(OK).await;
                    if way == 9 {
                        self.pause(&mut random).await;
                        return;
                    }
                    continue;
                }
            };
            if stream.write_all(reply).await.is_err() || reply.ends_with(b"end") {
                return;
            }
        }
    }

    async fn serve_http2(self, stream: TcpStream, mut random: fastrand::Rng) {
        let mut builder = h2::server::Builder::new();
        if random.bool() {
            builder.max_concurrent_streams(random.u32(1..4));
        }
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            match self.way(&mut random) {
                1 => {
                    let kept = respond;
                    tokio::task::spawn_local(async move {
                        std::future::pending::<()>().await;
                        drop(kept);
                    });
                }
                2 => return,
                3 => connection.graceful_shutdown(),
                4 => connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM),
                way @ 5..=7 => {
                    let reason = [h2::Reason::REFUSED_STREAM, h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR];
                    respond.send_reset(reason[usize::from(way) - 5]);
                }
                way => {
                    let (manners, mut random) = (self.clone(), random.fork());
                    tokio::task::spawn_local(async move {
                        manners.pause(&mut random).await;
                        // The stream may have been reset, and its connection may be gone.
                        if let Ok(mut body) = respond.send_response(http::Response::new(()), false) {
                            if way == 8 {
                                manners.pause(&mut random).await;
                                body.send_reset(h2::Reason::CANCEL);
                            } else {
                                let _ = body.send_data(Bytes::from_static(b"ok"), true);
                            }
                        }
                    });
                }
            }
        }
    }
}
