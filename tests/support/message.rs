//! Reads HTTP/1 messages out of recorded bytes, forgivingly: what cannot be read is shown as it is.

/// How the end of a body was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There can be none.
    None,
    /// `content-length`.
    Length,
    /// `transfer-encoding: chunked`.
    Chunked,
    /// The end of the connection.
    Close,
}

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Start line and fields with their line ends, without the empty line. Bytes above 127 appear as Latin-1.
    pub head: String,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The trailer lines.
    pub trailers: String,
    /// How the body's end is told.
    pub framing: Framing,
    /// Whether its end was reached.
    pub complete: bool,
}

impl Message {
    /// A response's status; 0 if there is none.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.trim().parse().ok()).unwrap_or(0)
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The message as lines to compare. The sizes of chunks do not matter; everything else does.
    pub fn canonical(&self) -> String {
        let mut text = self.head.replace("\r\n", "\n");
        text.push_str("\n\n");
        match self.body.len() {
            0..=400 => text.push_str(&latin1(&self.body)),
            length => text.push_str(&format!("<{length} bytes, {:x}>", checksum(&self.body))),
        }
        if !self.trailers.is_empty() {
            text.push_str("\n<trailers> ");
            text.push_str(&self.trailers.replace("\r\n", " "));
        }
        if !self.complete {
            text.push_str("\n<incomplete>");
        }
        text
    }
}

/// The responses in a buffer. `methods` are those of the requests they answer, in order (`GET` if there are too few);
/// `ended` tells whether the connection has ended.
pub fn responses(buffer: &[u8], methods: &[&str], ended: bool) -> Vec<Message> {
    let mut methods = methods.iter().copied();
    let mut method = methods.next().unwrap_or("GET");
    read(
        buffer,
        |head| {
            let status = head.split(' ').nth(1).and_then(|code| code.trim().parse::<u16>().ok()).unwrap_or(0);
            let answered = method;
            if status >= 200 {
                method = methods.next().unwrap_or("GET");
            }
            let tunnel = status == 101 || answered == "CONNECT" && (200..300).contains(&status);
            let bodiless = answered == "HEAD" || matches!(status, 100 | 102..=199 | 204 | 304);
            if tunnel {
                Framing::Close
            } else if bodiless {
                Framing::None
            } else {
                declared(head).unwrap_or(Framing::Close)
            }
        },
        ended,
    )
}

/// The requests in a buffer.
pub fn requests(buffer: &[u8]) -> Vec<Message> {
    read(
        buffer,
        |head| {
            let tunnel = head.starts_with("CONNECT ") || head.to_ascii_lowercase().contains("\r\nupgrade:");
            if tunnel { Framing::Close } else { declared(head).unwrap_or(Framing::None) }
        },
        true,
    )
}

/// Bytes as text, one character each.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn read(mut buffer: &[u8], mut framing: impl FnMut(&str) -> Framing, ended: bool) -> Vec<Message> {
    let mut messages = Vec::new();
    while !buffer.is_empty() {
        let Some(end) = find(buffer, b"\r\n\r\n") else {
            let (head, body, trailers) = (latin1(buffer), Vec::new(), String::new());
            messages.push(Message { head, body, trailers, framing: Framing::None, complete: false });
            break;
        };
        let head = latin1(buffer.get(..end).unwrap_or_default());
        buffer = buffer.get(end + 4..).unwrap_or_default();
        let framing = framing(&head);
        let mut message = Message { head, body: Vec::new(), trailers: String::new(), framing, complete: true };
        let used = match framing {
            Framing::None => 0,
            Framing::Close => {
                message.body = buffer.to_vec();
                message.complete = ended;
                buffer.len()
            }
            Framing::Length => {
                let length = message.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
                message.complete = buffer.len() >= length;
                let length = length.min(buffer.len());
                message.body = buffer.get(..length).unwrap_or_default().to_vec();
                length
            }
            Framing::Chunked => unchunk(buffer, &mut message),
        };
        buffer = buffer.get(used..).unwrap_or_default();
        let complete = message.complete;
        messages.push(message);
        if !complete {
            break;
        }
    }
    messages
}

fn declared(head: &str) -> Option<Framing> {
    let head = head.to_ascii_lowercase();
    if head.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked")) {
        return Some(Framing::Chunked);
    }
    head.lines().any(|line| line.starts_with("content-length:")).then_some(Framing::Length)
}

/// Takes the chunks off; returns how many bytes they took.
fn unchunk(buffer: &[u8], message: &mut Message) -> usize {
    let mut at = 0;
    message.complete = false;
    loop {
        let rest = buffer.get(at..).unwrap_or_default();
        let Some(line) = find(rest, b"\r\n") else { return buffer.len() };
        let size = latin1(rest.get(..line).unwrap_or_default());
        let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16) else {
            message.body.extend_from_slice(rest);
            return buffer.len();
        };
        let data = rest.get(line + 2..).unwrap_or_default();
        if size == 0 {
            // Trailers, if any, end with an empty line of their own.
            if data.starts_with(b"\r\n") {
                message.complete = true;
                return at + line + 4;
            }
            let Some(end) = find(data, b"\r\n\r\n") else { return buffer.len() };
            message.trailers = latin1(data.get(..end).unwrap_or_default());
            message.complete = true;
            return at + line + 2 + end + 4;
        }
        if data.len() < size + 2 {
            message.body.extend_from_slice(data);
            return buffer.len();
        }
        message.body.extend_from_slice(data.get(..size).unwrap_or_default());
        at += line + 2 + size + 2;
    }
}

/// Where `needle` begins.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// FNV-1a: enough to see that two long bodies are the same.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
