//! An xDS v3 client, for whatever the resources mean.
//!
//! The crate speaks the protocol and knows resources as type URL, name, version and bytes. What they contain, whether they
//! are valid and what happens then is for the [`Consumer`]. All of it lives on one thread and never waits for a consumer.
//!
//! # How to use it
//!
//! Make a [`Hub`], give it the aggregated stream ([`Hub::set_ads`]) and subscribe ([`Hub::subscribe`]); keep the returned
//! guards. Events arrive at [`Consumer::on_event`]; every [`Event::Update`] carries a [`Ticket`] to be given back to
//! [`Client::accept`] or [`Client::reject`]: at once, or when decoding on another thread is done. From within the callback
//! the consumer may subscribe, unsubscribe, pause and answer as it likes.
//!
//! # What holds
//!
//! 1. **Every response is answered exactly once.** A [`Ticket`] is consumed by its answer; one that is dropped is answered
//!    with a NACK. The answer belongs to the stream of the response: if that is gone, nothing is sent, but an accepted
//!    version still counts. In state of the world only, an ACK may be left out when a newer answer of the same type is sent
//!    in its place, for that says the same and more; a NACK never is.
//! 2. **An ACK means applied.** It carries the response's version. A NACK carries the last accepted version, the reason, and
//!    the name of every failing resource; nothing of the response is remembered, even if parts of it were applied.
//! 3. **Order.** Requests leave in the order in which types got something to say. Subscribing to endpoints before accepting
//!    clusters puts the endpoint request on the wire before the clusters' ACK.
//! 4. **Pausing** a type holds its requests and answers back and merges them; responses still arrive. Pauses nest.
//! 5. **The client checks what the protocol promises:** the type of every resource, duplicate names (delta), heartbeats of
//!    unknown versions. A response that breaks a promise is refused as a whole ([`Event::Rejected`]).
//! 6. **Absence** in a state-of-the-world response removes only for types that are listed in full
//!    ([`Update::full_state`]), and never because of a heartbeat.
//! 7. **Losing the control plane changes nothing** that was accepted. On the next stream every type introduces itself with
//!    what it has: `version_info`, or `initial_resource_versions`. Attempts are spaced by jittered exponential backoff,
//!    which a response resets.
//! 8. **Responses nobody asked for** are ignored and not answered, since an answer would be a subscription. Resources nobody
//!    subscribed to are left out of updates; a response with nothing else is accepted by the client itself.
//! 9. **Time:** a subscription without any update within its `initial_fetch_timeout` is reported once; a resource whose TTL
//!    runs out is reported as expired and forgotten.
//! 10. **Bounds:** one request in flight to the socket, the rest merged; 64 unanswered responses of a type, then reading
//!     stops; messages as large as gRPC can frame, unless configured.
//!
//! # The parts
//!
//! [`Mux`] is the state machine, without sockets or clock. [`Client`] shares it between consumers and the driver of its
//! source: gRPC, REST or file. [`Hub`] starts those. [`server`] is a small control plane for tests and demonstrations.
//! [`proto`] is what resources are made of: documents in YAML and JSON, checks over wire bytes, and JSON back from them.

mod backoff;
mod channel;
mod client;
mod connect;
mod directory;
mod file;
mod framing;
mod grpc;
mod hub;
mod mux;
mod observer;
pub mod proto;
mod rate_limit;
mod rest;
pub mod server;
mod source;
mod subscription;
mod ttl;
mod types;

pub use backoff::{Backoff, BackoffConfig};
pub use client::{Client, Consumer, Pause, Subscription};
pub use connect::{
    Adding, Address, Call, Connecting, Connection, Io, Network, PlainNetwork, Security, Socket, Target, TargetError,
};
pub use directory::{Change, DirectoryWatch};
pub use grpc::chain;
pub use hub::{Environment, FileDecoder, Hub, SubscribeError};
pub use mux::{Message, Mode, Mux, MuxConfig, Request, TypeStatus};
pub use observer::{Accepted, SourceObserver, SubscriptionObserver, Unobserved, version_hash};
pub use rate_limit::{RateLimit, TokenBucket};
pub use rest::RestCodec;
pub use source::{CallCredentials, FileSource, GrpcService, GrpcSource, Keepalive, RestSource, SourceConfig};
pub use subscription::{DEFAULT_INITIAL_FETCH_TIMEOUT, Interest, Selection, SubscriptionId};
pub use types::{
    ADS_DELTA_METHOD, ADS_SOTW_METHOD, CLUSTER, ENDPOINTS, EXTENSION_CONFIG, Event, LB_ENDPOINT, LISTENER,
    RESOURCE_TYPES, ROUTE, RUNTIME, Rejection, Resource, ResourceError, ResourceType, SCOPED_ROUTE, SECRET, Ticket,
    Update, VIRTUAL_HOST, resource_name, resource_type,
};
