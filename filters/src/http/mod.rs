//! HTTP messages as the proxy sees them, whichever version carried them.

mod body;
mod head;
mod headers;
mod name;
mod single;

pub use body::Frame;
pub use head::{HeaderKey, Method, RequestHead, ResponseHead, Scheme, Version, is_grpc_content_type};
pub use headers::{Header, Headers};
pub use name::{HeaderName, Known, is_token_byte};
pub use single::{FieldSet, Repeats, SINGLE_IN_REQUESTS, SINGLE_IN_RESPONSES};
