//! The language of the scripts, and who plays them.
//!
//! ```text
//! subscribe clusters *        the consumer wants all clusters (s1; the next subscription is s2)
//! connect                     a stream opens
//! > clusters [] v= n=         we say this, and nothing else
//! < clusters v=1 n=a: x y     the server says that
//! ! update clusters v=1 full: x y
//! accept                      the consumer answers its oldest open ticket
//! > clusters [] v=1 n=a
//! ```
//!
//! Names in responses: `x@2` has version 2, `x!5` a TTL of 5 s, `x~` no body (a heartbeat), `x?` the wrong type, `-x` is removed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;

use envoy_types::pb::google::protobuf::Any;
use prost::{Message as _, Name as _};

use super::super::*;
use crate::observer::{Accepted, SubscriptionObserver};
use crate::types::{CLUSTER, ENDPOINTS, LISTENER, ROUTE, Rejection, Ticket};

/// Plays scripts against a mux.
pub(super) struct Talk {
    pub(super) mux: Mux,
    mode: Mode,
    now: Instant,
    pub(super) show_node: bool,
    subscriptions: Vec<SubscriptionId>,
    tickets: VecDeque<(Ticket, Vec<String>)>,
    pub(super) counts: Vec<Rc<RefCell<String>>>,
}

/// Writes down what it is told.
struct Counts(Rc<RefCell<String>>);

impl SubscriptionObserver for Counts {
    fn attempt(&self) {
        self.0.borrow_mut().push_str("attempt ");
    }

    fn success(&self, accepted: &Accepted<'_>) {
        let _ = write!(self.0.borrow_mut(), "success={} ", accepted.version);
    }

    fn failure(&self) {
        self.0.borrow_mut().push_str("failure ");
    }

    fn rejected(&self) {
        self.0.borrow_mut().push_str("rejected ");
    }

    fn init_fetch_timeout(&self) {
        self.0.borrow_mut().push_str("timeout ");
    }
}

impl Talk {
    pub(super) fn new(mode: Mode, rate_limit: Option<RateLimit>, node_on_first_message_only: bool) -> Self {
        let now = Instant::now();
        let node = Node { id: "me".into(), ..Default::default() };
        let config = MuxConfig { mode, node, node_on_first_message_only, rate_limit, ..Default::default() };
        Self {
            mux: Mux::new(config, Rc::new(crate::observer::Unobserved), now),
            mode,
            now,
            show_node: false,
            subscriptions: Vec::new(),
            tickets: VecDeque::new(),
            counts: Vec::new(),
        }
    }

    pub(super) fn play(&mut self, script: &str) {
        let mut said = VecDeque::new();
        let mut told = VecDeque::new();
        let mut held = false;
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(want) = line.strip_prefix('>') {
                assert_matches(line, want.trim(), said.pop_front());
                continue;
            }
            if let Some(want) = line.strip_prefix('!') {
                assert_matches(line, want.trim(), told.pop_front());
                continue;
            }
            assert_eq!((&said, &told), (&VecDeque::new(), &VecDeque::new()), "not expected before `{line}`");
            match line {
                "hold" => held = true,
                "release" => held = false,
                _ => self.act(line),
            }
            if !held {
                while let Some(request) = self.mux.poll_request(self.now) {
                    said.push_back(self.show(&request));
                }
                while let Some(event) = self.mux.poll_event() {
                    told.push_back(self.hear(event));
                }
            }
        }
        assert_eq!((said, told), (VecDeque::new(), VecDeque::new()), "not expected at the end");
    }

    fn act(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "subscribe" => {
                let (kind, names) = rest.split_once(' ').expect("a type and names");
                let names = match names {
                    "*" => Selection::Wildcard,
                    names => Selection::Names(names.split(' ').map(str::to_owned).collect()),
                };
                let counts = Rc::new(RefCell::new(String::new()));
                self.counts.push(Rc::clone(&counts));
                let interest = Interest { selection: names, ..Interest::wildcard(type_url(kind)) }
                    .observed_by(Rc::new(Counts(counts)));
                self.subscriptions.push(self.mux.subscribe(interest, self.now));
            }
            "unsubscribe" => {
                let number: usize = rest.trim_start_matches('s').parse().expect("a subscription");
                self.mux.unsubscribe(self.subscriptions[number - 1]);
            }
            "connect" => self.mux.connected(),
            "disconnect" => drop(self.mux.disconnected("lost".to_owned())),
            "pause" => self.mux.pause(type_url(rest)),
            "resume" => self.mux.resume(type_url(rest)),
            "wait" => {
                self.now += Duration::from_secs(rest.parse().expect("seconds"));
                self.mux.on_deadline(self.now);
            }
            "accept" => {
                let ticket = if rest == "newest" { self.tickets.pop_back() } else { self.tickets.pop_front() };
                self.mux.accept(ticket.expect("an open ticket").0, self.now);
            }
            "reject" => {
                let (ticket, names) = self.tickets.pop_front().expect("an open ticket");
                self.mux.reject(ticket, &Rejection::resource(&names[0], rest));
            }
            "drop" => drop(self.tickets.pop_front().expect("an open ticket")),
            "<" => self.mux.on_message(response(self.mode, rest), self.now),
            _ => panic!("`{line}`?"),
        }
    }

    fn hear(&mut self, event: Event) -> String {
        match event {
            Event::Update(update) => {
                let mut text = format!("update {} v={}", short(&update.type_url), update.version);
                text.push_str(if update.full_state { " full:" } else { ":" });
                for resource in &update.resources {
                    let _ = write!(text, " {}", resource.name);
                    let own_version = self.mode == Mode::Delta || resource.ttl.is_some();
                    if own_version && !resource.version.is_empty() {
                        let _ = write!(text, "@{}", resource.version);
                    }
                    if let Some(ttl) = resource.ttl {
                        let _ = write!(text, "!{}", ttl.as_secs());
                    }
                    text.push_str(if resource.body.is_none() { "~" } else { "" });
                }
                for name in &update.removed {
                    let _ = write!(text, " -{name}");
                }
                let names = update.resources.iter().map(|resource| resource.name.clone()).collect();
                self.tickets.push_back((update.ticket, names));
                text
            }
            Event::Rejected { type_url, detail } => {
                format!("rejected {}: {detail}", short(&type_url))
            }
            Event::Expired { type_url, names } => {
                format!("expired {}: {}", short(&type_url), names.join(" "))
            }
            Event::InitialFetchTimeout { type_url, names, .. } => {
                format!("timeout {}: {}", short(&type_url), names.join(" "))
            }
            Event::Connected => "connected".to_owned(),
            Event::Disconnected { .. } => "disconnected".to_owned(),
        }
    }

    fn show(&self, request: &Request) -> String {
        let mut text = String::new();
        let (node, error) = match request {
            Request::Sotw(request) => (&request.node, &request.error_detail),
            Request::Delta(request) => (&request.node, &request.error_detail),
        };
        if self.show_node && node.as_ref().is_some_and(|node| node.id == "me") {
            text.push_str("node ");
        }
        match request {
            Request::Sotw(request) => {
                let names = request.resource_names.join(" ");
                let (version, nonce) = (&request.version_info, &request.response_nonce);
                let _ = write!(text, "{} [{names}] v={version} n={nonce}", short(&request.type_url));
            }
            Request::Delta(request) => {
                text.push_str(short(&request.type_url));
                for name in &request.resource_names_subscribe {
                    let _ = write!(text, " +{name}");
                }
                for name in &request.resource_names_unsubscribe {
                    let _ = write!(text, " -{name}");
                }
                if !request.initial_resource_versions.is_empty() {
                    let mut versions: Vec<_> =
                        request.initial_resource_versions.iter().map(|(name, v)| format!("{name}={v}")).collect();
                    versions.sort();
                    let _ = write!(text, " {{{}}}", versions.join(" "));
                }
                if !request.response_nonce.is_empty() {
                    let _ = write!(text, " n={}", request.response_nonce);
                }
            }
        }
        if let Some(error) = error {
            assert_eq!(error.code, 13);
            let _ = write!(text, " NACK: {}", error.message);
        }
        text
    }
}

/// A wanted line matches exactly, or, after its first `: `, as a beginning.
fn assert_matches(line: &str, want: &str, got: Option<String>) {
    let got = got.unwrap_or_else(|| panic!("`{line}` was expected, nothing came"));
    let open_ended = want.contains("NACK: ") || want.starts_with("rejected ");
    assert!(got == want || (open_ended && got.starts_with(want)), "`{line}` was expected, `{got}` came");
}

fn type_url(short: &str) -> &'static str {
    match short {
        "clusters" => CLUSTER,
        "endpoints" => ENDPOINTS,
        "listeners" => LISTENER,
        "routes" => ROUTE,
        _ => panic!("type {short}?"),
    }
}

fn short(type_url: &str) -> &'static str {
    match type_url {
        CLUSTER => "clusters",
        ENDPOINTS => "endpoints",
        LISTENER => "listeners",
        ROUTE => "routes",
        _ => panic!("type {type_url}?"),
    }
}

/// `clusters v=1 n=a: x@2!5 y~ z? -w`
fn response(mode: Mode, text: &str) -> Message {
    let (head, names) = text.split_once(':').expect("a colon");
    let mut head = head.split(' ');
    let type_url = type_url(head.next().expect("a type")).to_owned();
    let mut field = |prefix| {
        let field = head.next().and_then(|field| field.strip_prefix(prefix));
        field.expect("v= and n=").to_owned()
    };
    let (version, nonce) = (field("v="), field("n="));
    let mut resources = Vec::new();
    let mut removed = Vec::new();
    for token in names.split_whitespace() {
        if let Some(name) = token.strip_prefix('-') {
            removed.push(name.to_owned());
            continue;
        }
        let wrong = token.ends_with('?');
        let heartbeat = token.ends_with('~');
        let token = token.trim_end_matches(['?', '~']);
        let (token, ttl) = token.split_once('!').map_or((token, None), |(t, ttl)| (t, ttl.parse().ok()));
        let (name, version) = token.split_once('@').unwrap_or((token, ""));
        let inner = Any {
            type_url: if wrong { "wrong".to_owned() } else { type_url.clone() },
            // Field 1, as in every resource type.
            value: [&[0x0a, u8::try_from(name.len()).expect("short")], name.as_bytes()].concat(),
        };
        resources.push(discovery::Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            resource: (!heartbeat).then_some(inner),
            ttl: ttl.map(|seconds| protobuf::Duration { seconds, nanos: 0 }),
            ..Default::default()
        });
    }
    match mode {
        Mode::Delta => Message::Delta(discovery::DeltaDiscoveryResponse {
            system_version_info: version,
            resources,
            type_url,
            removed_resources: removed,
            nonce,
            ..Default::default()
        }),
        Mode::StateOfTheWorld => Message::Sotw(discovery::DiscoveryResponse {
            version_info: version,
            resources: resources
                .into_iter()
                .map(|resource| match resource {
                    discovery::Resource { ttl: None, resource: Some(inner), .. } => inner,
                    wrapped => Any { type_url: discovery::Resource::type_url(), value: wrapped.encode_to_vec() },
                })
                .collect(),
            type_url,
            nonce,
            ..Default::default()
        }),
    }
}
