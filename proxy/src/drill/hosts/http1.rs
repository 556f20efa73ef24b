//! A connection to a host that speaks HTTP/1.1.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Shared, breaks_off};
use crate::drill::diary::{Did, RequestId};
use crate::drill::fault::{Fault, Protocol};
use crate::drill::message::{ANSWER, Check, ID, LENGTH, body};

/// Heads of the drill are far shorter.
const HEAD_LIMIT: usize = 16 << 10;
/// How long the beginning of an answer is given to arrive before the reset overtakes it.
const ARRIVAL: Duration = Duration::from_millis(20);

/// Serves until either side ends it.
pub(super) async fn serve(host: &Rc<Shared>, mut stream: TcpStream, number: u64) {
    // An error of the connection has its cause at the other side, which will say so where it matters.
    let _ = requests(host, &mut stream, number).await;
}

async fn requests(host: &Rc<Shared>, stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while let Some(head) = read_head(stream, &mut buffer).await? {
        let (entry, fault) = host.arrived(head.id);
        let done = |did| host.diary.done(entry, did);
        if let Some(fault @ Fault::Overloaded) = fault {
            done(Did::Failed(fault));
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await?;
            if head.on_wire > 0 {
                return stream.shutdown().await;
            }
            continue;
        }
        let mut check = Check::new(head.id, head.length, Protocol::Http1);
        let mut left = head.on_wire;
        while left > 0 {
            if buffer.is_empty() && stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            let piece = buffer.split_to(left.min(buffer.len()));
            left -= piece.len();
            check.add(&piece);
        }
        if !check.is_right() {
            done(Did::Mangled);
        }
        match fault {
            Some(fault @ Fault::Stalled) => {
                done(Did::Failed(fault));
                // Until the proxy gives it up.
                while stream.read_buf(&mut buffer).await? > 0 {
                    buffer.clear();
                }
                return Ok(());
            }
            Some(fault @ Fault::Resetting) => {
                done(Did::Failed(fault));
                host.reset(number);
                return Ok(());
            }
            Some(fault @ Fault::BreakingOff) if breaks_off(head.id) => {
                done(Did::Failed(fault));
                let answer = answer(head.id);
                let half = answer.len() - ANSWER / 2;
                stream.write_all(answer.get(..half).unwrap_or_default()).await?;
                tokio::time::sleep(ARRIVAL).await;
                host.reset(number);
                return Ok(());
            }
            None | Some(_) => {
                stream.write_all(&answer(head.id)).await?;
                if check.is_right() {
                    done(Did::Answered);
                }
                if fault == Some(Fault::HangingUp) {
                    return stream.shutdown().await;
                }
            }
        }
    }
    Ok(())
}

/// What a host looks at.
struct Head {
    id: RequestId,
    /// How long the client made the body.
    length: usize,
    /// How long it is here.
    on_wire: usize,
}

/// The next request's head; `None` at the end of the connection.
async fn read_head(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Head>> {
    let length = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > HEAD_LIMIT || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
    buffer.advance(length);
    let number = |name: &str| {
        let is = |line: &&str| line.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(name));
        let line = text.lines().find(is)?;
        line.split_once(':')?.1.trim().parse::<u64>().ok()
    };
    let length = |name| number(name).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    Ok(Some(Head {
        id: number(ID).unwrap_or(RequestId::MAX),
        length: length(LENGTH),
        on_wire: length("content-length"),
    }))
}

fn answer(id: RequestId) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{ID}: {id}\r\ncontent-length: {ANSWER}\r\n\r\n");
    [head.as_bytes(), &body(id, ANSWER, Protocol::Http1)].concat()
}
