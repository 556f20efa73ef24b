//! The applications of the mesh: three small services in this process, which speak HTTP/1 and cleartext HTTP/2 and
//! say who they are.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use super::client::Http2;
use super::resources::SERVICE_B_HOST;

/// The service at the end of the call: `serviceB` or `serviceBv2`.
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
/// The path the service was asked for, after all rewriting.
pub(super) const SEEN_PATH: HeaderName = HeaderName::from_static("x-seen-path");

/// What a service does when it is called.
#[derive(Clone)]
pub(super) enum Service {
    /// Answers with its own name.
    Leaf(&'static str),
    /// `serviceA`: asks `serviceb.apps.local`, by HTTP/2 through the sidecar at this client's end, and tells.
    Caller(Http2),
}

/// Serves for as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener, service: Service) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it small answers would wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                let service = service.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| service.clone().answer(request));
                    // A connection that ends badly is the proxy's to report: its client will see the failure.
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
                });
            }
            // Descriptors may have run out: looping would only burn the processor.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

impl Service {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let response = match self {
            Self::Leaf(name) => reply(StatusCode::OK, name, &path, format!("{name}\n")),
            Self::Caller(client) => match client.get(SERVICE_B_HOST, "/").await {
                Ok(answer) if answer.status == StatusCode::OK => {
                    let body = format!("serviceA, and {SERVICE_B_HOST} was {}\n", answer.served_by);
                    reply(StatusCode::OK, &answer.served_by, &path, body)
                }
                Ok(answer) => {
                    let body = format!("serviceA: {SERVICE_B_HOST} answered {}\n", answer.status);
                    reply(StatusCode::BAD_GATEWAY, "", &path, body)
                }
                Err(error) => {
                    reply(StatusCode::BAD_GATEWAY, "", &path, format!("serviceA: {SERVICE_B_HOST}: {error}\n"))
                }
            },
        };
        Ok(response)
    }
}

fn reply(status: StatusCode, served_by: &str, path: &str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    for (name, value) in [(SERVED_BY, served_by), (SEEN_PATH, path)] {
        // A path that is no header value cannot have come in a request line.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
