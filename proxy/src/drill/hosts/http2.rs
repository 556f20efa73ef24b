//! A connection to a host that speaks HTTP/2, and gRPC over it.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{Shared, breaks_off};
use crate::drill::diary::{Did, RequestId};
use crate::drill::fault::{Fault, Protocol};
use crate::drill::message::{ANSWER, Check, ID, LENGTH, body};

/// How long the beginning of an answer is given to arrive before the reset overtakes it.
const ARRIVAL: Duration = Duration::from_millis(20);
/// Requests that a connection of a host takes which is going away.
const FAREWELL: u32 = 4;

/// Serves until either side ends it.
pub(super) async fn serve(host: &Rc<Shared>, stream: TcpStream, number: u64) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut last = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        match host.fault.get() {
            Some(Fault::GoingAway) => {
                last += 1;
                if last == FAREWELL {
                    connection.graceful_shutdown();
                }
            }
            Some(Fault::Leaving) => connection.abrupt_shutdown(Reason::NO_ERROR),
            _ => {}
        }
        let host = Rc::clone(host);
        spawn_local(async move {
            // An error of the stream has its cause at the other side, which will say so where it matters.
            let _ = answer(&host, request, respond, number).await;
        });
    }
}

async fn answer(
    host: &Rc<Shared>,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: u64,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let number = |name| head.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let id = number(ID).unwrap_or(RequestId::MAX);
    let length = number(LENGTH).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let (entry, fault) = host.arrived(id);
    let done = |did| host.diary.done(entry, did);
    match fault {
        Some(fault @ Fault::RefusingStreams) => {
            done(Did::Failed(fault));
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        Some(fault @ Fault::Overloaded) => {
            done(Did::Failed(fault));
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            respond.send_response(response, true)?;
            return Ok(());
        }
        _ => {}
    }
    let mut check = Check::new(id, length, host.protocol);
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        check.add(&data);
    }
    if !check.is_right() {
        done(Did::Mangled);
    }
    let grpc = host.protocol == Protocol::Grpc;
    match fault {
        Some(fault @ Fault::Stalled) => {
            done(Did::Failed(fault));
            // Until the proxy gives it up.
            std::future::poll_fn(|cx| respond.poll_reset(cx)).await?;
        }
        // The connection ends it.
        Some(fault @ Fault::Leaving) => done(Did::Failed(fault)),
        Some(fault @ Fault::Resetting) => {
            done(Did::Failed(fault));
            if fastrand::Rng::with_seed(id).bool() {
                respond.send_reset(Reason::INTERNAL_ERROR);
            } else {
                host.reset(connection);
            }
        }
        Some(fault @ Fault::BreakingOff) if breaks_off(id) => {
            done(Did::Failed(fault));
            let mut stream = respond.send_response(well(id, grpc), false)?;
            let mut half = body(id, ANSWER, host.protocol);
            half.truncate(ANSWER / 2);
            stream.send_data(half, false)?;
            tokio::time::sleep(ARRIVAL).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Some(fault @ Fault::Unavailable) => {
            let mut response = well(id, grpc);
            response.headers_mut().extend(grpc_status("14"));
            respond.send_response(response, true)?;
            done(Did::Failed(fault));
        }
        None | Some(_) => {
            let mut stream = respond.send_response(well(id, grpc), false)?;
            stream.send_data(body(id, ANSWER, host.protocol), !grpc)?;
            if grpc {
                stream.send_trailers(grpc_status("0"))?;
            }
            if check.is_right() {
                done(Did::Answered);
            }
        }
    }
    Ok(())
}

fn well(id: RequestId, grpc: bool) -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(ID, HeaderValue::from(id));
    if grpc {
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    }
    response
}

fn grpc_status(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers
}
