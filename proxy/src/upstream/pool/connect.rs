//! Opening a connection of a pool.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use filters::tls::TlsInfo;
use tokio::io::AsyncWriteExt as _;

use super::http1::Http1Connection;
use super::{ConnectionGuard, Pool, PoolProtocol, http2};
use crate::http::codec::h2::{ClientConnection, Driver};
use crate::tls::client::Wanted;
use crate::tls::failure::Failure;
use crate::tls::handshake;
use crate::transport::Io;
use crate::upstream::connect::{connect_failure, connected, failed, socket, within_timeout};
use crate::upstream::failure::{FailureKind, UpstreamFailure};

/// Opens one connection and gives it to the pool. Runs as a task, so that it serves whoever waits when it is ready.
pub(super) async fn connect(pool: Rc<Pool>, guard: ConnectionGuard) {
    let started = Instant::now();
    show_codec(&pool, pool.protocol);
    match within_timeout(&pool.context, open(&pool, &guard)).await {
        Ok(opened) => {
            connected(&pool.context, started);
            match opened {
                Opened::Http1(io) => {
                    let connection = Http1Connection::new(io, guard, &pool.context);
                    pool.connected_http1(Box::new(connection));
                }
                Opened::Tcp(io) => pool.connected_tcp(io, guard),
                Opened::Http2(client, driver, local) => {
                    let connection = http2::adopt(&pool, client, *driver, local, guard);
                    pool.connected_http2(connection);
                }
            }
        }
        Err(failure) => {
            failed(&pool.context, &pool.host, &guard, &failure);
            drop(guard);
            pool.connect_failed(&failure);
        }
    }
}

enum Opened {
    Http1(Io),
    Tcp(Io),
    Http2(ClientConnection, Box<Driver>, (Option<SocketAddr>, Option<Rc<TlsInfo>>)),
}

/// Statistics of a codec are shown from its first connection on.
fn show_codec(pool: &Pool, protocol: PoolProtocol) {
    match (protocol, &pool.context.http2_stats) {
        (PoolProtocol::Http1, _) => pool.context.http1_stats.take(),
        (PoolProtocol::Http2, Some(stats)) => stats.take(),
        (PoolProtocol::Http2, None) | (PoolProtocol::Tcp | PoolProtocol::Auto, _) => {}
    }
}

/// The TLS session of a connection, where the cluster has one.
async fn secure(pool: &Pool, mut io: Io) -> Result<Io, UpstreamFailure> {
    let context = &pool.context;
    let socket = context.config.connection.socket_for(pool.host.attributes().metadata.as_deref());
    let (Some(tls), Some(counters)) = (socket.tls(), &context.tls_counters) else { return Ok(io) };
    let failed = |text: String| match text.is_empty() {
        true => UpstreamFailure::new(FailureKind::ConnectFailure),
        false => UpstreamFailure::with(FailureKind::ConnectFailure, text),
    };
    // Whoever knows what is spoken says so by ALPN.
    let alpn_fallback: &[&[u8]] = match pool.protocol {
        PoolProtocol::Http1 => &[b"http/1.1"],
        PoolProtocol::Http2 => &[b"h2"],
        PoolProtocol::Auto => &[b"h2", b"http/1.1"],
        PoolProtocol::Tcp => &[],
    };
    let (server_name, expected) =
        pool.names.as_ref().map_or((None, None), |names| (names.asked.as_deref(), names.expected.as_ref()));
    match tls.hello(pool.host.hostname(), &Wanted { server_name, expected, alpn_fallback, ..Wanted::default() }) {
        Some(hello) => {
            let session = handshake::connect(&mut io, hello, counters).await;
            session.map(|session| session.over(io)).map_err(|refused| failed(refused.failure.text))
        }
        None => {
            counters.upstream_not_ready();
            Err(failed(Failure::secret_missing().text))
        }
    }
}

async fn open(pool: &Pool, guard: &ConnectionGuard) -> Result<Opened, UpstreamFailure> {
    let mut io = socket(&pool.context, &pool.host).await.map_err(|error| connect_failure(&error))?;
    if let Some(header) = &pool.header {
        let (bytes, complete) = header.bytes(&pool.host, io.local_addr());
        if !complete {
            pool.context.header_cut();
        }
        io.write_all(&bytes).await.map_err(|error| connect_failure(&error))?;
        guard.bytes(0, bytes.len() as u64);
    }
    let io = secure(pool, io).await?;
    let protocol = match pool.protocol {
        PoolProtocol::Auto => {
            // A server that chooses nothing is an old one.
            let h2 = io.tls_info().is_some_and(|tls| tls.alpn == b"h2");
            let chosen = if h2 { PoolProtocol::Http2 } else { PoolProtocol::Http1 };
            pool.chosen.set(chosen);
            guard.negotiated(chosen);
            show_codec(pool, chosen);
            chosen
        }
        protocol => protocol,
    };
    match protocol {
        PoolProtocol::Http1 | PoolProtocol::Auto => Ok(Opened::Http1(io)),
        PoolProtocol::Tcp => Ok(Opened::Tcp(io)),
        PoolProtocol::Http2 => {
            let local = (io.local_addr(), io.tls_info().cloned());
            let (client, driver) = ClientConnection::handshake(io, &pool.context.h2_options)
                .await
                .map_err(|_| UpstreamFailure::new(FailureKind::ConnectFailure))?;
            Ok(Opened::Http2(client, Box::new(driver), local))
        }
    }
}
