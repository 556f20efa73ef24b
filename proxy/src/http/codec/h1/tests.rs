//! The verdicts of Envoy 1.40, measured with raw sockets, row by row; every row at every split of its bytes.

mod encode;
mod properties;
mod requests;
mod responses;

use std::fmt::Write as _;
use std::rc::Rc;

use bytes::BytesMut;

use super::*;

/// Feeds `input` in pieces that end at `splits` and writes down what comes out.
fn requests(options: &Rc<ServerOptions>, input: &[u8], splits: &[usize]) -> String {
    let mut decoder = RequestDecoder::new(Rc::clone(options));
    let mut told = Story::default();
    let mut buf = BytesMut::new();
    for piece in pieces(input, splits) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(RequestEvent::Head(request))) => told.request(&request),
                Ok(Some(RequestEvent::Data(data))) => told.data(&data),
                Ok(Some(RequestEvent::Trailers(trailers))) => told.trailers(&trailers),
                Ok(Some(RequestEvent::End)) => told.line("end"),
                Ok(None) => break,
                Err(error) => {
                    told.line(&format!("{} {}", error.status, error.details));
                    return told.tell();
                }
            }
        }
    }
    told.tell()
}

/// The same for a response, ended by the connection's end.
fn response(options: &Rc<ClientOptions>, expected: Expected, input: &[u8], splits: &[usize]) -> String {
    let mut decoder = ResponseDecoder::new(Rc::clone(options));
    decoder.expect(expected);
    let mut told = Story::default();
    let mut buf = BytesMut::new();
    for piece in pieces(input, splits) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(ResponseEvent::Informational(head))) => told.line(&format!("1xx {}", head.status)),
                Ok(Some(ResponseEvent::Head(response))) => told.response(&response),
                Ok(Some(ResponseEvent::Data(data))) => told.data(&data),
                Ok(Some(ResponseEvent::Trailers(trailers))) => told.trailers(&trailers),
                Ok(Some(ResponseEvent::End)) => told.line("end"),
                Ok(None) => break,
                Err(error) => {
                    told.line(&format!("{} {}", error.status, error.details));
                    return told.tell();
                }
            }
        }
    }
    told.line(&match decoder.eof(&buf) {
        Eof::Idle if buf.is_empty() => "idle".to_owned(),
        Eof::Idle => format!("left {}", buf.len()),
        other => format!("{other:?}"),
    });
    told.tell()
}

fn pieces<'a>(input: &'a [u8], splits: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = splits.iter().map(|s| s % (input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

/// One line per event; neighbouring data is one event, however it was cut.
#[derive(Default)]
struct Story {
    lines: Vec<String>,
    data: Vec<u8>,
}

impl Story {
    fn line(&mut self, line: &str) {
        if !self.data.is_empty() {
            self.lines.push(format!("data {}", self.data.escape_ascii()));
            self.data.clear();
        }
        self.lines.push(line.to_owned());
    }

    fn data(&mut self, data: &[u8]) {
        assert!(!data.is_empty(), "data is never empty");
        self.data.extend_from_slice(data);
    }

    fn trailers(&mut self, trailers: &filters::http::Headers) {
        self.line(&format!("trailers{}", fields(trailers)));
    }

    fn request(&mut self, request: &DecodedRequest) {
        let head = &request.head;
        let mut line = format!("{:?} {} @{}", head.method, head.path.escape_ascii(), head.authority.escape_ascii());
        let flags = [
            (head.authority_missing, " no-host".to_owned()),
            (head.version == filters::http::Version::Http10, " 1.0".to_owned()),
            (!request.keep_alive, " close".to_owned()),
            (request.expect_continue, " expect".to_owned()),
            (head.scheme != filters::http::Scheme::Unknown, format!(" {}", head.scheme.as_str())),
            (request.dropped_underscores > 0, format!(" dropped {}", request.dropped_underscores)),
            (
                request.upgrade.is_some(),
                format!(" upgrade {}", request.upgrade.clone().unwrap_or_default().escape_ascii()),
            ),
        ];
        flags.iter().filter(|(set, _)| *set).for_each(|(_, text)| line.push_str(text));
        self.line(&(line + &fields(&head.headers) + body(request.body)));
    }

    fn response(&mut self, response: &DecodedResponse) {
        let close = if response.keep_alive { "" } else { " close" };
        self.line(&format!("{}{close}{}{}", response.head.status, fields(&response.head.headers), body(response.body)));
    }

    fn tell(mut self) -> String {
        if !self.data.is_empty() {
            self.lines.push(format!("data {}", self.data.escape_ascii()));
        }
        self.lines.join("; ")
    }
}

fn fields(headers: &filters::http::Headers) -> String {
    headers.iter().fold(String::new(), |mut text, h| {
        let _ = write!(text, " [{}: {}]", h.name, h.value.escape_ascii());
        text
    })
}

fn body(kind: BodyKind) -> &'static str {
    match kind {
        BodyKind::Empty => "",
        BodyKind::Length(_) => " +length",
        BodyKind::Chunked => " +chunked",
        BodyKind::UntilClose => " +close",
        BodyKind::Tunnel => " +tunnel",
    }
}

/// The splits a row is fed with: whole, byte by byte, and once at every place.
fn every_split(len: usize) -> Vec<Vec<usize>> {
    let bytes = (0..len).collect();
    let mut all = vec![vec![], bytes];
    if len < 400 {
        all.extend((1..len).map(|at| vec![at]));
    }
    all
}
