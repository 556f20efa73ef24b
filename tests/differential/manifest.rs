//! The words in which cases are written.

use std::time::Duration;

use crate::support::h2_client::H2Request;
use crate::support::h2_upstream::Behaviour;
use crate::support::upstream::{self, Act, Script};

/// A bootstrap and the cases that run against it.
pub struct Area {
    /// Its name, the first part of its cases' names.
    pub name: &'static str,
    /// Listeners by name, as flow-style YAML. `${UP}`, `${UP2}`, `${H2}`, `${DEAD}` and `${FULL}` stand for the ports of the
    /// scripted upstreams, the HTTP/2 upstream, a port where nobody listens and one that never answers.
    pub listeners: Vec<(&'static str, String)>,
    /// Clusters, the same way.
    pub clusters: Vec<String>,
    /// More top-level lines of the bootstrap.
    pub more: &'static str,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One thing that is done to both proxies.
#[derive(Clone)]
pub struct Case {
    /// Its name within its area.
    pub name: &'static str,
    /// The row of the reference it exercises.
    pub row: &'static str,
    /// The listener it talks to.
    pub listener: &'static str,
    /// What the client does.
    pub client: Action,
    /// What the scripted upstream does.
    pub upstream: Script,
    /// What the HTTP/2 upstream does.
    pub h2: Behaviour,
    /// The status both must answer with, if that is the point.
    pub status: Option<u16>,
}

/// What a client does.
#[derive(Clone)]
pub enum Action {
    /// Send and await bytes.
    Bytes(Vec<Step>, Vec<&'static str>),
    /// Requests by HTTP/2, one after the other on one connection.
    H2(Vec<H2Request>),
    /// Frames by hand: like bytes, but what comes back is read as frames.
    Frames(Vec<Step>),
    /// The same, where streams end side by side: how their frames mix, and which is logged first, says nothing.
    Streams(Vec<Step>),
}

/// A step of a client that sends bytes.
#[derive(Clone)]
pub enum Step {
    /// Send.
    Send(Vec<u8>),
    /// Read until so many final responses (in all) are complete.
    Responses(usize),
    /// Read until these bytes came.
    Until(&'static str),
    /// Read until so many streams (in all) have ended, or the connection has been told to.
    Streams(usize),
    /// Go on with another connection.
    Reconnect,
    /// Read until the connection ends.
    End,
    /// Send no more.
    HalfClose,
    /// Reset the connection.
    Reset,
    /// Stay silent so long.
    Pause(Duration),
}

/// A case in which the client sends these bytes and awaits one response.
pub fn case(name: &'static str, row: &'static str, listener: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    steps(name, row, listener, vec![Step::Send(bytes.into()), Step::Responses(1)])
}

/// A case in which the client takes these steps.
pub fn steps(name: &'static str, row: &'static str, listener: &'static str, steps: Vec<Step>) -> Case {
    let client = Action::Bytes(steps, Vec::new());
    Case { name, row, listener, client, upstream: upstream::ok(), h2: Behaviour::Ok, status: None }
}

/// A `GET` of this path, with more header lines.
pub fn get(name: &'static str, row: &'static str, listener: &'static str, path: &str, lines: &[&str]) -> Case {
    case(name, row, listener, request("GET", path, lines))
}

/// A case by HTTP/2.
pub fn h2(name: &'static str, row: &'static str, listener: &'static str, requests: Vec<H2Request>) -> Case {
    Case { client: Action::H2(requests), ..steps(name, row, listener, Vec::new()) }
}

/// A case of hand-made frames, sent at once after the preface; then something has to end.
pub fn frames(name: &'static str, row: &'static str, listener: &'static str, frames: &[Vec<u8>]) -> Case {
    let bytes = [crate::support::frames::preface(), frames.concat()].concat();
    talk(name, row, listener, vec![Step::Send(bytes), Step::Streams(1)])
}

/// A case of hand-made frames, step by step. The preface is the case's own.
pub fn talk(name: &'static str, row: &'static str, listener: &'static str, list: Vec<Step>) -> Case {
    Case { client: Action::Frames(list), ..steps(name, row, listener, Vec::new()) }
}

/// A case of streams side by side, step by step. The preface is the case's own.
pub fn crowd(name: &'static str, row: &'static str, listener: &'static str, list: Vec<Step>) -> Case {
    Case { client: Action::Streams(list), ..steps(name, row, listener, Vec::new()) }
}

/// The bytes of a request without a body.
pub fn request(method: &str, path: &str, lines: &[&str]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !lines.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        text.push_str("host: test\r\n");
    }
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

impl Case {
    /// With a status that both must answer.
    pub fn status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// With another script for the upstream.
    pub fn upstream(self, upstream: Script) -> Self {
        Self { upstream, ..self }
    }

    /// With an upstream that does these acts on every connection.
    pub fn acts(self, acts: Vec<Act>) -> Self {
        self.upstream(vec![acts])
    }

    /// With an upstream that answers with these bytes.
    pub fn reply(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.upstream(upstream::reply(bytes))
    }

    /// With an upstream that answers with these bytes and closes.
    pub fn reply_and_close(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.acts(vec![Act::Request, Act::Send(bytes.into()), Act::Close])
    }

    /// With another behaviour of the HTTP/2 upstream.
    pub fn h2_upstream(self, h2: Behaviour) -> Self {
        Self { h2, ..self }
    }

    /// Whether both ends have to close for the session to end.
    pub fn is_tunnel(&self) -> bool {
        self.upstream.iter().flatten().any(|act| matches!(act, Act::Hold))
    }

    /// With requests of these methods.
    pub fn methods(mut self, methods: &[&'static str]) -> Self {
        if let Action::Bytes(_, known) = &mut self.client {
            *known = methods.to_vec();
        }
        self
    }
}
