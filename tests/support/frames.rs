//! HTTP/2 frames by hand: for what no well-behaved library would send, and for seeing exactly what came back.

/// What a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The client's preface and an empty SETTINGS frame.
pub fn preface() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// A SETTINGS frame of these parameters.
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let payload = parameters.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>())
}

/// A WINDOW_UPDATE of a stream, or of the connection (0).
pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A RST_STREAM with an error code.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A GOAWAY with the last stream that will be served and an error code.
pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Frame types.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// PRIORITY.
pub const PRIORITY: u8 = 2;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PUSH_PROMISE.
pub const PUSH_PROMISE: u8 = 5;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;

/// The flag END_STREAM (and ACK of SETTINGS and PING).
pub const END_STREAM: u8 = 1;
/// The flag PADDED.
pub const PADDED: u8 = 8;
/// The flag END_HEADERS.
pub const END_HEADERS: u8 = 4;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let head = [length.get(1..).unwrap_or_default(), &[kind, flags], &stream.to_be_bytes()].concat();
    [head, payload.to_vec()].concat()
}

/// Fields as HPACK literals that enter no table.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The fields of a plain `GET path`, and more.
pub fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)];
    fields(&[&usual, more].concat())
}

/// A whole request without a body.
pub fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
}

/// A length with a 7-bit prefix.
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap_or(0));
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(u8::try_from(value % 128).unwrap_or(0) | 128);
        value /= 128;
    }
    block.push(u8::try_from(value).unwrap_or(0));
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Whether bytes are those of an HTTP/2 client.
pub fn is_client(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE)
}

/// Where the first frame of a type ends, counted from the start of the bytes.
pub fn end_of(bytes: &[u8], kind: u8) -> Option<usize> {
    let frames = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut end = bytes.len() - frames.len();
    for frame in received(frames) {
        end += 9 + frame.payload.len();
        if frame.kind == kind {
            return Some(end);
        }
    }
    None
}

/// The frames received so far.
pub fn received(bytes: &[u8]) -> Vec<Frame> {
    let mut bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let [a, b, c, kind, flags, stream @ ..] = head else { break };
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        let stream = stream.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)) & 0x7fff_ffff;
        frames.push(Frame { kind: *kind, flags: *flags, stream, payload: payload.to_vec() });
        bytes = rest;
    }
    frames
}

/// Frames as lines to compare: without SETTINGS, PING, window updates and the contents of header blocks, whose coding is
/// the sender's business.
pub fn summary(bytes: &[u8]) -> String {
    told(joined(received(bytes)))
}

/// The same, stream by stream.
pub fn by_stream(bytes: &[u8]) -> String {
    let mut frames = received(bytes);
    frames.sort_by_key(|frame| frame.stream);
    told(joined(frames))
}

fn told(frames: Vec<Frame>) -> String {
    let mut lines = Vec::new();
    for frame in frames {
        let word = |at: usize| {
            let bytes = frame.payload.get(at..at + 4).unwrap_or_default();
            bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
        };
        let ended = if frame.flags & END_STREAM == 0 { "" } else { " END_STREAM" };
        lines.push(match frame.kind {
            DATA => format!("DATA {}{ended} {}", frame.stream, data(&frame)),
            HEADERS => format!("HEADERS {}{ended}", frame.stream),
            RST_STREAM => format!("RST_STREAM {} {}", frame.stream, error(word(0))),
            GOAWAY => format!("GOAWAY last={} {}", word(0), error(word(4))),
            _ => continue,
        });
    }
    lines.join("\n")
}

/// What a DATA frame carries, without its padding.
fn data(frame: &Frame) -> String {
    let (from, padding) = match (frame.flags & PADDED, frame.payload.first()) {
        (PADDED, Some(length)) => (1, usize::from(*length)),
        _ => (0, 0),
    };
    let bytes = frame.payload.get(from..frame.payload.len().saturating_sub(padding)).unwrap_or_default();
    if bytes.len() > 200 { format!("<{} bytes>", bytes.len()) } else { super::message::latin1(bytes) }
}

/// Frames with the data of each stream in one: where it is cut does not matter.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        match joined.last_mut() {
            Some(last) if last.kind == DATA && frame.kind == DATA && last.stream == frame.stream => {
                last.flags |= frame.flags & END_STREAM;
                last.payload.extend(frame.payload);
            }
            _ => joined.push(frame),
        }
    }
    joined
}

/// An error code's name.
fn error(code: u32) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = usize::try_from(code).ok().and_then(|code| names.get(code));
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}
