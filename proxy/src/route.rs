//! Routing: from a request head to what is done with it.
//!
//! A [`RouteTable`] is one `RouteConfiguration`, immutable and shared by all workers. [`RouteTable::select`] picks the
//! virtual host by the request's host and the first of its routes that matches; an index finds that route without
//! walking the list, and always agrees with the walk. The [`Route`] then says everything about the request's way: its
//! [`RouteAction`], its header changes in the order they apply, its time limits and its filter settings.
//!
//! A stream keeps its table and a [`RouteId`]; nothing here is locked per request, and counted only where a table
//! asks for statistics of its own ([`scope`]).

pub mod action;
pub mod hash;
pub mod headers;
pub(crate) mod hosts;
pub(crate) mod index;
pub mod internal_redirect;
pub mod matching;
pub mod metadata;
pub mod mirror;
pub mod policy;
pub mod redirect;
pub mod retry;
pub mod rewrite;
pub mod scope;
pub mod table;

pub use action::{ClusterChoice, ClusterName, ClusterSpecifier, DirectResponse, ForwardAction, RouteAction};
pub use hash::HashPolicy;
pub use headers::{FilterOverride, MutationChain};
pub use matching::{MatchInput, PathMatch, RouteMatch, TlsFacts};
pub use metadata::MetadataMatch;
pub use redirect::RedirectAction;
pub use scope::RouteScope;
pub use table::{Route, RouteId, RouteTable, Selection, VirtualHost};
