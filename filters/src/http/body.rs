//! What a body is made of. Frames are concrete: nothing is boxed per frame.

use bytes::Bytes;

use super::Headers;

/// One piece of a message after its head.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Body bytes; never empty unless the sender's frame was.
    Data(Bytes),
    /// Trailers; nothing follows.
    Trailers(Box<Headers>),
}
