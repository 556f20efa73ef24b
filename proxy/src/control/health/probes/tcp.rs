//! TCP checks: a connection, or bytes to be answered by bytes.

use std::io;

use filters::stream_info::Address;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Prober, dial, plain};
use crate::config::cluster::{Checker, ProxyVersion, TcpCheck};
use crate::control::clusters::{Answer, Probe};
use crate::control::health::session::Report;
use crate::transport::Io;

/// Asks one host. A connection that is kept is read from all the time: what comes counts, whoever asked.
#[derive(Default)]
pub(super) struct TcpProber {
    connection: Option<Io>,
    received: Vec<u8>,
}

impl Prober for TcpProber {
    async fn ask(&mut self, probe: &Probe) -> Answer {
        let report = self.check(probe).await.unwrap_or(Report::Unreachable);
        if report == Report::Unreachable {
            self.close();
        }
        plain(report)
    }

    fn give_up(&mut self, _: &Probe) {
        self.close();
    }

    async fn listen(&mut self, probe: &Probe) -> Answer {
        if self.connection.is_none() {
            return std::future::pending().await;
        }
        let report = self.answer(probe).await.unwrap_or(Report::Unreachable);
        if report == Report::Unreachable {
            self.close();
        }
        plain(report)
    }
}

impl TcpProber {
    fn close(&mut self) {
        self.connection = None;
        self.received.clear();
    }

    async fn check(&mut self, probe: &Probe) -> io::Result<Report> {
        let Checker::Tcp(check) = &probe.check.checker else { return Ok(Report::Unreachable) };
        if self.connection.is_none() {
            self.connection = Some(dial(probe).await?);
        }
        // Without anything to receive the connection is the answer: nothing is sent on it, as in Envoy.
        if check.receive.is_empty() {
            self.close();
            return Ok(Report::Passed { degraded: false });
        }
        if let Some(connection) = &mut self.connection {
            connection.write_all(&greeting(check, connection, &probe.address)).await?;
        }
        self.answer(probe).await
    }

    /// Reads until there is all that has to come.
    async fn answer(&mut self, probe: &Probe) -> io::Result<Report> {
        let Checker::Tcp(check) = &probe.check.checker else { return Ok(Report::Unreachable) };
        while let Some(connection) = &mut self.connection {
            if connection.read_buf(&mut self.received).await? == 0 {
                break;
            }
            if check.receive.are_in(&self.received) {
                self.received.clear();
                if !probe.check.reuse_connection {
                    self.close();
                }
                return Ok(Report::Passed { degraded: false });
            }
            if self.received.len() > LONGEST_ANSWER {
                break;
            }
        }
        Ok(Report::Unreachable)
    }
}

/// More than this without what is looked for is no answer.
const LONGEST_ANSWER: usize = 1 << 20;

/// What is sent: the PROXY protocol's header if there is to be one, then the payload.
fn greeting(check: &TcpCheck, connection: &Io, to: &Address) -> Vec<u8> {
    let mut bytes = match check.proxy_protocol {
        None => Vec::new(),
        // The PROXY protocol, section 2.2: a signature, version 2 with `LOCAL`, no family, no addresses.
        Some(ProxyVersion::V2) => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
        Some(ProxyVersion::V1) => match (connection.local_addr(), to) {
            (Some(local), Address::Ip(peer)) => {
                let family = if peer.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (local.ip(), peer.ip());
                format!("PROXY {family} {from} {to} {} {}\r\n", local.port(), peer.port()).into_bytes()
            }
            _ => b"PROXY UNKNOWN\r\n".to_vec(),
        },
    };
    bytes.extend_from_slice(&check.send);
    bytes
}
