//! HTTP and gRPC checks: a request whose answer is looked at.

mod client;
mod request;

use http::HeaderMap;

use self::client::{Client, Received};
use super::{Prober, plain};
use crate::config::cluster::{Checker, HttpCheck};
use crate::control::clusters::{Answer, Probe};
use crate::control::health::session::Report;

/// Asks one host.
#[derive(Debug, Default)]
pub(super) struct HttpProber {
    client: Option<Client>,
}

impl Prober for HttpProber {
    async fn ask(&mut self, probe: &Probe) -> Answer {
        match self.exchange(probe).await {
            Some(received) => match &probe.check.checker {
                Checker::Http(check) => judge(check, &received, probe.verify_cluster),
                Checker::Grpc(_) => plain(judge_grpc(&received)),
                Checker::Tcp(_) => plain(Report::Unreachable),
            },
            None => {
                self.client = None;
                plain(Report::Unreachable)
            }
        }
    }

    fn give_up(&mut self) {
        self.client = None;
    }

    /// An idle connection says nothing that would count; that it ended is noticed when it is to be used again.
    async fn listen(&mut self, _: &Probe) -> Answer {
        std::future::pending().await
    }
}

impl HttpProber {
    /// A request and its answer; `None` if there was none.
    async fn exchange(&mut self, probe: &Probe) -> Option<Received> {
        let (http2, keep) = match &probe.check.checker {
            Checker::Http(check) => (check.http2, kept(check)),
            Checker::Grpc(_) => (true, usize::MAX),
            Checker::Tcp(_) => return None,
        };
        let mut client = match self.client.take().filter(Client::is_open) {
            Some(client) => client,
            None => Client::connect(probe, http2).await.ok()?,
        };
        let request = request::of(probe, http2)?;
        let received = client.send(request, keep).await.ok()?;
        if probe.check.reuse_connection && !received.closes {
            self.client = Some(client);
        }
        Some(received)
    }
}

/// How much of a body is of interest.
fn kept(check: &HttpCheck) -> usize {
    if check.receive.is_empty() { 0 } else { check.response_buffer_size.unwrap_or(usize::MAX) }
}

fn judge(check: &HttpCheck, received: &Received, verify_cluster: bool) -> Answer {
    let Received { status, headers, body, .. } = received;
    let excluded = headers.contains_key("x-envoy-immediate-health-check-fail");
    if !check.receive.are_in(body) {
        return plain(Report::Refused { retriable: false, excluded });
    }
    if !check.expected.iter().any(|range| range.contains(*status)) {
        let retriable = check.retriable.iter().any(|range| range.contains(*status));
        return plain(Report::Refused { retriable, excluded });
    }
    let passed = Report::Passed { degraded: headers.contains_key("x-envoy-degraded") };
    match &check.service_name {
        Some(expected) if verify_cluster => {
            let name = headers.get("x-envoy-upstream-healthchecked-cluster").map_or(&b""[..], |name| name.as_bytes());
            let refused = Report::Refused { retriable: false, excluded: false };
            Answer { report: if expected.matches(name) { passed } else { refused }, verified: true }
        }
        _ => plain(passed),
    }
}

/// `grpc.health.v1.HealthCheckResponse` has to say `SERVING`, and the call has to end well.
fn judge_grpc(received: &Received) -> Report {
    let Received { status, headers, body, trailers, .. } = received;
    let ended_well = |headers: &HeaderMap| headers.get("grpc-status").is_some_and(|status| status == "0");
    let is_grpc = headers.get("content-type").is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind == b"application/grpc" || kind.starts_with(b"application/grpc+")
    });
    let well = *status == 200
        && is_grpc
        && trailers.as_ref().is_some_and(ended_well)
        && request::serving_status(body) == Some(request::SERVING);
    if well { Report::Passed { degraded: false } } else { Report::Refused { retriable: false, excluded: false } }
}
