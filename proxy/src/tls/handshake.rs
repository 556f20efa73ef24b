//! Handshakes: a plain stream and a context in, an encrypted stream and what is known about it out.

mod wire;

use std::rc::Rc;
use std::sync::Arc;

use filters::flags::underscored;
use filters::tls::{Certificate, TlsInfo};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConnection, Connection, Error, HandshakeKind, PeerIncompatible as Incompatible};

use self::wire::{End, Wire, say};
use super::client::Hello;
use super::context::LastAgreed;
use super::failure::{Count, Failure};
use super::hello::Wishes;
use super::server::{ServerContext, Staple};
use super::statistics::{SslStats, TlsCounters};
use super::verify;
use super::words;
use crate::transport::{Io, TlsStream};

/// A handshake that failed, and what became known by then.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// What was agreed on until then.
    pub info: TlsInfo,
}

/// A session that stands, not yet over its socket.
pub struct Session {
    connection: Connection,
    info: TlsInfo,
    stats: SslStats,
}

impl Session {
    /// The stream that goes on over the socket of the handshake.
    #[must_use]
    pub fn over(self, socket: Io) -> Io {
        Io::tls(TlsStream::new(self.connection, socket, Rc::new(self.info), self.stats))
    }

    /// What was agreed on.
    #[must_use]
    pub const fn info(&self) -> &TlsInfo {
        &self.info
    }
}

/// Answers a client.
///
/// # Errors
/// Why there is no session; it is counted already.
pub async fn accept(io: &mut Io, context: &ServerContext, counters: &TlsCounters) -> Result<Session, Box<Failed>> {
    // Nobody is asked what he wants before there is something to give.
    if !context.is_ready() {
        return Err(not_ready(counters));
    }
    let mut wire = Wire::new(io);
    let mut acceptor = Acceptor::default();
    let local = context.first_certificate();
    let failed = |wire: &Wire<'_>, end: End, session: Option<&Connection>, local: Option<Arc<Certificate>>| {
        Err(failed(wire, end, session, local, counters))
    };
    let mut hello = Vec::new();
    let accepted = loop {
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, mut alert)) => {
                if wire.is_tls() {
                    let mut bytes = Vec::new();
                    let _ = alert.write_all(&mut bytes);
                    say(wire.io, &bytes).await;
                }
                return failed(&wire, End::Tls(alert_in(&hello).unwrap_or(error)), None, local);
            }
        }
        let read = wire.read(|mut bytes| {
            hello.extend_from_slice(bytes);
            while !bytes.is_empty() {
                acceptor.read_tls(&mut bytes).map_err(|_| Error::PeerSentOversizedRecord)?;
            }
            Ok(())
        });
        if let Err(end) = read.await {
            return failed(&wire, end, None, local);
        }
    };
    let wishes = Wishes::of(&hello);
    drop(hello);
    let Some(answer) = context.answer(&accepted.client_hello(), &wishes) else { return Err(not_ready(counters)) };
    let local = answer.certificate.clone().or(local);
    let stats = counters.stats();
    if wishes.staple {
        stats.ocsp_staple_requests().inc();
        match answer.staple {
            Staple::Given => stats.ocsp_staple_responses().inc(),
            Staple::None => stats.ocsp_staple_omitted().inc(),
            Staple::Missing => stats.ocsp_staple_failed().inc(),
        }
    }
    if wishes.staple && answer.staple == Staple::Missing {
        say(wire.io, &HANDSHAKE_FAILURE).await;
        counters.failed(Count::ConnectionError);
        return Err(rejected(local));
    }
    let session = match accepted.into_connection(Arc::clone(&answer.config)) {
        Ok(session) => session,
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            let _ = alert.write_all(&mut bytes);
            wire.correct(&mut bytes, &error);
            // rustls has no word, and no alert, for a key that none of a suite's signatures can be made with.
            let error = if let Error::General(_) = error {
                bytes = HANDSHAKE_FAILURE.to_vec();
                Incompatible::NoCipherSuitesInCommon.into()
            } else {
                error
            };
            say(wire.io, &bytes).await;
            let (group, signature) = (Incompatible::NoKxGroupsInCommon, Incompatible::NoSignatureSchemesInCommon);
            let known_13 = answer.first_13.filter(|_| error == group.clone().into() || error == signature.into());
            let no_group = error == group.into();
            let mut failed = super::handshake::failed(&wire, End::Tls(error), None, local, counters);
            if let Some(suite) = known_13 {
                // The version comes before both, and the suite before the group.
                failed.info.version = words::version(rustls::ProtocolVersion::TLSv1_3);
                failed.info.cipher = if no_group { words::suite_name(suite) } else { "" };
            }
            return Err(failed);
        }
    };
    let mut session = Connection::Server(session);
    if let Err(end) = wire.drive(&mut session).await {
        return failed(&wire, end, Some(&session), local);
    }
    let mut session = finished(&wire, session, local, &answer.agreed, counters);
    session.info.server_name = wishes.server_name;
    Ok(session)
}

/// The alert that a client began with, which is no way to begin.
fn alert_in(records: &[u8]) -> Option<Error> {
    match records {
        [21, _, _, 0, 2, _, description, ..] => Some(Error::AlertReceived((*description).into())),
        _ => None,
    }
}

/// A fatal alert: handshake failure.
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// A client that is turned away for what its hello says.
fn rejected(local: Option<Arc<Certificate>>) -> Box<Failed> {
    let failure = Failure::rejected();
    let failure_text = underscored(&failure.text);
    let version = words::version(rustls::ProtocolVersion::TLSv1_2);
    Box::new(Failed { failure, info: TlsInfo { version, local, failure: Some(failure_text), ..TlsInfo::default() } })
}

fn not_ready(counters: &TlsCounters) -> Box<Failed> {
    counters.downstream_not_ready();
    let failure = Failure::secret_missing();
    let info = TlsInfo { failure: Some(underscored(&failure.text)), ..TlsInfo::default() };
    Box::new(Failed { failure, info })
}

/// Speaks to a server.
///
/// # Errors
/// Why there is no session; it is counted already.
pub async fn connect(io: &mut Io, hello: Hello, counters: &TlsCounters) -> Result<Session, Box<Failed>> {
    let mut wire = Wire::new(io);
    wire.expected = hello.expected;
    let alpn = hello.alpn.unwrap_or_else(|| hello.config.alpn_protocols.clone());
    let session = match ClientConnection::new_with_alpn(hello.config, hello.server.clone(), alpn) {
        Ok(session) => session,
        Err(error) => return Err(failed(&wire, End::Tls(error), None, None, counters)),
    };
    let mut session = Connection::Client(session);
    if let Err(end) = wire.drive(&mut session).await {
        return Err(failed(&wire, end, Some(&session), None, counters));
    }
    if session.handshake_kind() == Some(HandshakeKind::Resumed) {
        let chain = session.peer_certificates().unwrap_or_default();
        let again = verify::expecting(wire.expected.as_ref(), || hello.verifier.verify_again(chain, &hello.server));
        wire.observed = verify::take_observed().unwrap_or_default();
        if let Err(error) = again {
            return Err(failed(&wire, End::Tls(error), Some(&session), None, counters));
        }
    }
    // Only a server that asked for it has seen our certificate; what is asked for is not told, and it is the one we have.
    let mut session = finished(&wire, session, hello.certificate, &hello.agreed, counters);
    if let ServerName::DnsName(name) = &hello.server {
        session.info.server_name = name.as_ref().to_owned();
    }
    Ok(session)
}

fn finished(
    wire: &Wire<'_>,
    connection: Connection,
    local: Option<Arc<Certificate>>,
    agreed: &LastAgreed,
    counters: &TlsCounters,
) -> Session {
    let mut info = info(wire, Some(&connection), local);
    let stats = counters.stats();
    stats.handshake().inc();
    if info.resumed {
        stats.session_reused().inc();
    }
    if info.peer.is_empty() {
        stats.no_certificate().inc();
    }
    if let Some(refusal) = &wire.observed.failure {
        counters.refused(refusal.reason);
    }
    let group = connection.negotiated_key_exchange_group().map(|group| group.name());
    let (group, scheme) = agreed.settle(group, wire.observed.scheme, info.resumed);
    info.group = group.map_or("", words::group_name);
    counters.named("ciphers", info.cipher);
    counters.named("versions", info.version);
    counters.named("curves", info.group);
    if let Some(scheme) = scheme.filter(|_| !info.peer.is_empty()) {
        counters.named("sigalgs", words::scheme(scheme));
    }
    Session { connection, info, stats: stats.clone() }
}

fn failed(
    wire: &Wire<'_>,
    end: End,
    session: Option<&Connection>,
    local: Option<Arc<Certificate>>,
    counters: &TlsCounters,
) -> Box<Failed> {
    let failure = match end {
        End::Gone => Failure::gone(),
        End::Tls(error) => {
            let unanswered =
                session.is_some_and(|it| matches!(it, Connection::Client(_)) && it.protocol_version().is_none());
            let of = if unanswered { Failure::of_hello } else { Failure::of };
            of(&error, &wire.observed, &wire.first)
        }
    };
    counters.failed(failure.count);
    let mut info = info(wire, session, local);
    info.failure = (!failure.text.is_empty()).then(|| underscored(&failure.text));
    Box::new(Failed { failure, info })
}

fn info(wire: &Wire<'_>, session: Option<&Connection>, local: Option<Arc<Certificate>>) -> TlsInfo {
    let observed = &wire.observed;
    let chain = match session.and_then(|session| session.peer_certificates()) {
        Some(chain) if !chain.is_empty() => chain,
        _ => &observed.chain,
    };
    let peer = verify::certificates(chain);
    let resumed = session.and_then(|session| session.handshake_kind()) == Some(HandshakeKind::Resumed);
    TlsInfo {
        version: words::version(
            session.and_then(|it| it.protocol_version()).unwrap_or(rustls::ProtocolVersion::TLSv1_2),
        ),
        cipher: session.and_then(|it| it.negotiated_cipher_suite()).map_or("", |it| words::suite_name(it.suite())),
        group: session.and_then(|it| it.negotiated_key_exchange_group()).map_or("", |it| words::group_name(it.name())),
        session_id: String::new(),
        server_name: String::new(),
        alpn: session.and_then(|it| it.alpn_protocol()).unwrap_or_default().to_vec(),
        resumed,
        // A session that is resumed was checked when it was made.
        peer_issuer: peer.get(1).cloned().or_else(|| observed.issuer.clone()),
        peer,
        peer_validated: observed.validated || (resumed && !chain.is_empty()),
        local,
        failure: None,
    }
}
