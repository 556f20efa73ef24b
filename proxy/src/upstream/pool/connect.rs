//! Opening a connection of a pool.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::http1::Http1Connection;
use super::{ConnectionGuard, Pool, PoolProtocol, http2};
use crate::http::codec::h2::{ClientConnection, Driver};
use crate::transport::Io;
use crate::upstream::connect::{connect_failure, connected, failed, socket, within_timeout};
use crate::upstream::failure::{FailureKind, UpstreamFailure};

/// Opens one connection and gives it to the pool. Runs as a task, so that it serves whoever waits when it is ready.
pub(super) async fn connect(pool: Rc<Pool>, guard: ConnectionGuard) {
    let started = Instant::now();
    match (pool.protocol, &pool.context.http2_stats) {
        (PoolProtocol::Http1, _) => pool.context.http1_stats.take(),
        (PoolProtocol::Http2, Some(stats)) => stats.take(),
        (PoolProtocol::Http2, None) | (PoolProtocol::Tcp, _) => {}
    }
    match within_timeout(&pool.context, open(&pool)).await {
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
    Http2(ClientConnection, Box<Driver>, Option<SocketAddr>),
}

async fn open(pool: &Pool) -> Result<Opened, UpstreamFailure> {
    let io = socket(&pool.context, &pool.host).await.map_err(|error| connect_failure(&error))?;
    match pool.protocol {
        PoolProtocol::Http1 => Ok(Opened::Http1(io)),
        PoolProtocol::Tcp => Ok(Opened::Tcp(io)),
        PoolProtocol::Http2 => {
            let local = io.local_addr();
            let (client, driver) = ClientConnection::handshake(io, &pool.context.h2_options)
                .await
                .map_err(|_| UpstreamFailure::new(FailureKind::ConnectFailure))?;
            Ok(Opened::Http2(client, Box::new(driver), local))
        }
    }
}
