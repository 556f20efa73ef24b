//! The socket during a handshake: what is read, said, and seen on it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustls::{AlertDescription, Connection, Error, PeerIncompatible};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::verify::{self, Observed, Reason};
use crate::transport::Io;

/// As much of a handshake is read in one go; flights are rarely longer.
const FLIGHT: usize = 4096;

/// The socket during a handshake, and what was seen on it.
pub(super) struct Wire<'a> {
    pub(super) io: &'a mut Io,
    /// The first bytes of the peer.
    pub(super) first: Vec<u8>,
    pub(super) observed: Observed,
    /// A name or address that the peer's certificate has to have.
    pub(super) expected: Option<Rc<str>>,
}

/// Why a handshake ended.
pub(super) enum End {
    /// The peer left, or the socket broke.
    Gone,
    Tls(Error),
}

impl<'a> Wire<'a> {
    pub(super) const fn new(io: &'a mut Io) -> Self {
        Self {
            io,
            first: Vec::new(),
            expected: None,
            observed: Observed { chain: Vec::new(), validated: false, issuer: None, failure: None, scheme: None },
        }
    }

    /// Reads something and lets `take` have it.
    pub(super) async fn read<T>(&mut self, mut take: impl FnMut(&[u8]) -> Result<T, Error>) -> Result<T, End> {
        poll_fn(|cx| {
            let mut buffer = [0; FLIGHT];
            let mut read = ReadBuf::new(&mut buffer);
            if std::task::ready!(Pin::new(&mut *self.io).poll_read(cx, &mut read)).is_err() || read.filled().is_empty()
            {
                return Poll::Ready(Err(End::Gone));
            }
            if self.first.len() < 5 {
                self.first.extend(read.filled().iter().take(5 - self.first.len()));
            }
            let taken = verify::expecting(self.expected.as_ref(), || take(read.filled()));
            if let Some(observed) = verify::take_observed() {
                let scheme = observed.scheme.or(self.observed.scheme);
                if observed.chain.is_empty() {
                    self.observed.scheme = scheme;
                } else {
                    self.observed = Observed { scheme, ..observed };
                }
            }
            Poll::Ready(taken.map_err(End::Tls))
        })
        .await
    }

    /// Writes what the session has to say.
    async fn flush(&mut self, session: &mut Connection) -> Result<(), End> {
        poll_fn(|cx| self.poll_flush(session, cx)).await.map_err(|_| End::Gone)
    }

    fn poll_flush(&mut self, session: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while session.wants_write() {
            let mut records = Vec::new();
            session.write_tls(&mut records)?;
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                // A flight that the socket does not take at once is longer than any that exists.
                match Pin::new(&mut *self.io).poll_write(cx, rest) {
                    Poll::Ready(n) => rest = &rest[n?..],
                    Poll::Pending => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether what the peer began with looks like TLS at all.
    pub(super) fn is_tls(&self) -> bool {
        self.first.first().is_none_or(|first| *first == 0x16)
    }

    /// Drives a handshake to its end. A failure is told to the peer, as far as the socket takes it.
    pub(super) async fn drive(&mut self, session: &mut Connection) -> Result<(), End> {
        let mut outcome = Ok(());
        while outcome.is_ok() {
            self.flush(session).await?;
            if !session.is_handshaking() {
                return Ok(());
            }
            outcome = self.read(|bytes| feed(session, bytes)).await;
        }
        if let Err(End::Tls(error)) = &outcome {
            let mut alert = Vec::new();
            while session.wants_write() && session.write_tls(&mut alert).is_ok_and(|n| n > 0) {}
            self.correct(&mut alert, error);
            say(self.io, &alert).await;
        }
        outcome
    }

    /// Gives an alert that is not encrypted the description that BoringSSL gives it.
    pub(super) fn correct(&self, alert: &mut [u8], error: &Error) {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        let refused_by_hash = self.observed.failure.as_ref().is_some_and(|refusal| refusal.reason == Reason::Hash);
        let description = match error {
            Error::NoCertificatesPresented => AlertDescription::HandshakeFailure,
            Error::PeerIncompatible(why) if is_about_versions(why) => AlertDescription::ProtocolVersion,
            Error::InvalidCertificate(_) if refused_by_hash => AlertDescription::BadCertificateHashValue,
            Error::InvalidMessage(_) if !self.is_tls() => AlertDescription::ProtocolVersion,
            _ => return,
        };
        // The record's head, the level and the description: what is encrypted is longer.
        if let [ALERT, _, _, 0, 2, FATAL, now] = alert {
            *now = description.into();
        }
    }
}

/// Whether there is no version that both sides speak.
pub(super) const fn is_about_versions(why: &PeerIncompatible) -> bool {
    matches!(
        why,
        PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Which clients older than TLS 1.2 do not have.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
    )
}

fn feed(session: &mut Connection, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        if session.read_tls(&mut bytes).map_err(|_| Error::PeerSentOversizedRecord)? == 0 {
            break;
        }
        session.process_new_packets()?;
    }
    Ok(())
}

/// Says this, as far as the socket takes it at once: whoever is not listening is not waited for.
pub(super) async fn say(io: &mut Io, bytes: &[u8]) {
    let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut *io).poll_write(cx, bytes).is_ready())).await;
}
