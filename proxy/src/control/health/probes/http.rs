//! HTTP and gRPC checks: a request whose answer is looked at.

mod grpc;
mod http1;
mod http2;
mod request;

use filters::http::{HeaderName, Headers};

use self::http1::Http1Client;
use self::http2::Http2Client;
use super::{Prober, plain};
use crate::config::cluster::{Checker, HttpCheck};
use crate::control::clusters::{Answer, Probe};
use crate::control::health::session::Report;

/// Asks one host.
#[derive(Default)]
pub(super) struct HttpProber {
    client: Option<Client>,
}

enum Client {
    Http1(Box<Http1Client>),
    Http2(Http2Client),
}

/// An answer, whole.
struct Received {
    status: u16,
    headers: Headers,
    /// As much of it as was of interest.
    body: Vec<u8>,
}

/// However much is of interest, no more is kept.
const LONGEST_BODY: usize = 1 << 20;

impl Prober for HttpProber {
    async fn ask(&mut self, probe: &Probe) -> Answer {
        let answer = self.exchange(probe).await;
        self.client = self.client.take().filter(|_| probe.check.reuse_connection).and_then(Client::if_open);
        answer.unwrap_or(plain(Report::Unreachable))
    }

    /// A connection goes with its answer; of gRPC's only the stream does.
    fn give_up(&mut self, probe: &Probe) {
        let keeps = matches!(probe.check.checker, Checker::Grpc(_)) && probe.check.reuse_connection;
        self.client = self.client.take().filter(|_| keeps).and_then(Client::if_open);
    }

    /// An idle connection says nothing that would count, but its end is an end.
    async fn listen(&mut self, _: &Probe) -> Answer {
        match &mut self.client {
            Some(Client::Http1(client)) => client.disturbed().await,
            Some(Client::Http2(client)) => client.disturbed().await,
            None => {}
        }
        self.client = None;
        std::future::pending().await
    }
}

impl HttpProber {
    /// A request and what its answer says; `None` if there is none.
    async fn exchange(&mut self, probe: &Probe) -> Option<Answer> {
        let http2 = match &probe.check.checker {
            Checker::Http(check) => check.http2,
            Checker::Grpc(_) => true,
            Checker::Tcp(_) => return None,
        };
        let (head, body) = request::of(probe, http2)?;
        let known = self.client.take().and_then(Client::if_open);
        let client = match known {
            Some(client) => client,
            None if http2 => Client::Http2(Http2Client::connect(probe, &head.authority).await?),
            None => Client::Http1(Box::new(Http1Client::connect(probe).await?)),
        };
        let client = self.client.insert(client);
        match (&probe.check.checker, client) {
            (Checker::Http(check), Client::Http1(client)) => {
                let received = client.send(&head, body, kept(check)).await?;
                Some(judge(check, &received, probe.verify_cluster))
            }
            (Checker::Http(check), Client::Http2(client)) => {
                let received = client.send(&head, body, kept(check)).await?;
                Some(judge(check, &received, probe.verify_cluster))
            }
            (Checker::Grpc(_), Client::Http2(client)) => {
                let mut exchange = client.start(&head, body).await?;
                grpc::judge(&mut exchange).await.map(plain)
            }
            (Checker::Grpc(_) | Checker::Tcp(_), _) => None,
        }
    }
}

impl Client {
    /// Itself if it may carry another request, as far as is known.
    fn if_open(mut self) -> Option<Self> {
        let open = match &mut self {
            Self::Http1(client) => client.is_open(),
            Self::Http2(client) => client.is_open(),
        };
        open.then_some(self)
    }
}

/// How much of a body is of interest.
fn kept(check: &HttpCheck) -> usize {
    if check.receive.is_empty() { 0 } else { check.response_buffer_size.unwrap_or(usize::MAX) }
}

/// Keeps a piece of a body, up to `keep` bytes in all.
fn keep(kept: &mut Vec<u8>, data: &[u8], keep: usize) {
    let room = keep.min(LONGEST_BODY).saturating_sub(kept.len());
    kept.extend_from_slice(&data[..data.len().min(room)]);
}

fn judge(check: &HttpCheck, received: &Received, verify_cluster: bool) -> Answer {
    let Received { status, headers, body } = received;
    let value = |name: &'static str| headers.value(&HeaderName::from_lowercase(name.as_bytes().into()));
    let excluded = value("x-envoy-immediate-health-check-fail").is_some();
    let answer = |report| Answer { report, verified: false, status: *status };
    if !check.receive.are_in(body) {
        return answer(Report::Refused { retriable: false, excluded });
    }
    if !check.expected.iter().any(|range| range.contains(*status)) {
        let retriable = check.retriable.iter().any(|range| range.contains(*status));
        return answer(Report::Refused { retriable, excluded });
    }
    let passed = Report::Passed { degraded: value("x-envoy-degraded").is_some() };
    match &check.service_name {
        Some(expected) if verify_cluster => {
            let name = value("x-envoy-upstream-healthchecked-cluster").map_or(&b""[..], |name| name);
            let refused = Report::Refused { retriable: false, excluded: false };
            Answer { verified: true, ..answer(if expected.matches(name) { passed } else { refused }) }
        }
        _ => answer(passed),
    }
}
