//! TLS: what contexts are made of, and what they do.
//!
//! Configuration ([`crate::config::tls`]) holds secrets or names them. A context ([`SecretUser`]) is configuration and the
//! slots of the secrets it names; control subscribes to those, fills the slots and has the context made anew, off the data
//! path. Workers take whatever a context was made of last at the beginning of a handshake, so a rotated secret serves the
//! next one everywhere, and sessions that stand are left alone. A context that lacks a secret makes no connection.

pub mod client;
pub mod context;
pub mod failure;
pub mod handshake;
mod hello;
pub mod secret;
pub mod server;
pub mod signing;
pub mod statistics;
pub mod verify;
pub mod words;

use crate::tls::context::Ingredients;
use crate::tls::secret::NamedSecret;

/// A context that is made of secrets, for control.
pub trait SecretUser: Send + Sync {
    /// The secrets it names, each once for every use.
    fn named_secrets(&self) -> Vec<&NamedSecret>;

    /// Makes the context anew of what is in the slots of its secrets. While one of them is empty there is nothing to make it
    /// of, and that is no error.
    ///
    /// # Errors
    /// Why the secrets do not make a context, with the secret's name and never with key material; the one made before
    /// stays.
    fn renew(&self) -> Result<(), String>;

    /// What it was made of last, for pages and statistics; `None` before it was made.
    fn made_of(&self) -> Option<Ingredients>;
}
