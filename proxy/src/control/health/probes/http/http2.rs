//! An HTTP/2 connection that carries checks: the data path's codec, driven by a task of its own.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use filters::http::{Frame, RequestHead, ResponseHead};
use tokio::task::JoinHandle;

use super::Received;
use crate::control::clusters::Probe;
use crate::control::health::probes::dial;
use crate::http::codec::h2::{ClientConnection, ClientExchange, Driver};
use crate::upstream::cluster::h2_options;

/// An open connection.
pub(super) struct Http2Client {
    connection: ClientConnection,
    driver: JoinHandle<()>,
}

impl Http2Client {
    /// A new connection to where the host is checked, for requests to this authority.
    pub(super) async fn connect(probe: &Probe, authority: &Bytes) -> Option<Self> {
        let io = dial(probe).await.ok()?;
        let options = h2_options(&probe.config);
        let (connection, driver) = ClientConnection::handshake_to(authority, io, &options).await.ok()?;
        Some(Self { connection, driver: tokio::task::spawn_local(drive(driver)) })
    }

    /// Whether it may carry another request, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.connection.is_going_away() && !self.driver.is_finished()
    }

    /// Waits until the connection is over.
    pub(super) async fn disturbed(&mut self) {
        // How it ended makes no difference.
        let _ = (&mut self.driver).await;
    }

    /// Sends a request; dropping the exchange gives it up.
    pub(super) async fn start(&mut self, head: &RequestHead, body: Bytes) -> Option<ClientExchange> {
        poll_fn(|cx| self.connection.poll_ready(cx)).await.ok()?;
        let mut exchange = self.connection.send(head, body.is_empty()).ok()?;
        if !body.is_empty() {
            exchange.send_data(body, true);
        }
        Some(exchange)
    }

    /// Sends a request and reads its answer to the end, keeping up to `keep` bytes of the body; `None` if there is none.
    pub(super) async fn send(&mut self, head: &RequestHead, body: Bytes, keep: usize) -> Option<Received> {
        let mut exchange = self.start(head, body).await?;
        let head = final_head(&mut exchange).await?;
        let mut received = Received { status: head.status, headers: head.headers, body: Vec::new() };
        while let Some(frame) = poll_fn(|cx| exchange.poll_frame(cx)).await.ok()? {
            if let Frame::Data(data) = frame {
                super::keep(&mut received.body, &data, keep);
            }
        }
        Some(received)
    }
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The head of an answer, without those that only say that it will take time.
pub(super) async fn final_head(exchange: &mut ClientExchange) -> Option<ResponseHead> {
    loop {
        let head = poll_fn(|cx| exchange.poll_head(cx)).await.ok()?;
        if head.status >= 200 {
            return Some(head);
        }
    }
}

/// Moves a connection on until it is over. One that the peer leaves in order ends with its last answer, one that it leaves
/// for an error ends at once.
async fn drive(mut driver: Driver) {
    let watch = driver.watch().clone();
    let fault = poll_fn(|cx| {
        let driven = driver.poll(cx);
        if let Some(fault) = watch.fault() {
            return Poll::Ready(Some(fault));
        }
        if watch.left_in_error() || (watch.saw_goaway() && watch.open_streams() == 0) {
            return Poll::Ready(None);
        }
        driven.map(|_| None)
    })
    .await;
    drop(driver);
    if let Some(fault) = fault {
        watch.say_goodbye(&fault).await;
    }
}
