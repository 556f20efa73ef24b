//! Small requests of the control thread's own to web servers: credentials are fetched by them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use xds_client::{Address, Socket};

use super::secure;
use crate::transport::Io;

/// The longest answer.
const LIMIT: usize = 64 << 10;

/// For all of an exchange.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    encrypted: bool,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
}

impl Url {
    /// Reads `http://` and `https://`.
    ///
    /// # Errors
    /// When it is neither, or has no host or an impossible port.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("no valid URL: {error}"))?;
        let encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("a URL begins with http:// or https://".to_owned()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("a URL has a host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let target = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { encrypted, host, port, target })
    }

    /// The host, with its port unless that is the scheme's own.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.encrypted, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// The body of the answer to a request without one.
///
/// # Errors
/// Why there is none, without what was asked for: it may hold secrets.
pub(super) async fn fetch(method: &str, url: &Url, headers: &[(&str, &str)]) -> Result<Bytes, String> {
    let authority = url.authority();
    match tokio::time::timeout(TIMEOUT, exchange(method, url, headers)).await {
        Ok(answer) => answer.map_err(|reason| format!("{authority}: {reason}")),
        Err(_) => Err(format!("{authority}: no answer within {} s", TIMEOUT.as_secs())),
    }
}

async fn exchange(method: &str, url: &Url, headers: &[(&str, &str)]) -> Result<Bytes, String> {
    let socket = Socket::open(&Address::Tcp { host: url.host.clone(), port: url.port }).await;
    let mut io = Io::from(socket.map_err(|error| error.to_string())?);
    if url.encrypted {
        let context = secure::system_roots().map_err(|error| error.to_string())?;
        io = secure::handshake(io, &context, &url.host, b"http/1.1").await.map_err(|error| error.to_string())?;
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    let driver = tokio::task::spawn_local(connection);
    let mut request = http::Request::builder().method(method).uri(&url.target).header("host", url.authority());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| "a header has no valid value".to_owned())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let mut body = response.into_body();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        if all.len() + data.len() > LIMIT {
            return Err(format!("the answer is longer than {LIMIT} bytes"));
        }
        all.extend_from_slice(&data);
    }
    driver.abort();
    if status.is_success() { Ok(all.freeze()) } else { Err(format!("HTTP status {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = |encrypted, host: &str, port, target: &str| {
            Some(Url { encrypted, host: host.to_owned(), port, target: target.to_owned() })
        };
        for (text, expected) in [
            ("http://h/p?q=1", url(false, "h", 80, "/p?q=1")),
            ("https://h", url(true, "h", 443, "/")),
            ("http://h:8080/", url(false, "h", 8080, "/")),
            ("http://[::1]:81/x", url(false, "::1", 81, "/x")),
            ("ftp://h/", None),
            ("h/p", None),
            ("http://", None),
        ] {
            assert_eq!(Url::parse(text).ok(), expected, "{text}");
        }
        assert_eq!(Url::parse("http://[::1]:81/x").unwrap().authority(), "[::1]:81");
        assert_eq!(Url::parse("https://h:443/").unwrap().authority(), "h");
    }
}
