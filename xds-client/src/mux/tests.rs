//! Conversations, written down as scripts.
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

use super::*;
use crate::observer::SubscriptionObserver;
use crate::types::{CLUSTER, ENDPOINTS, LISTENER, ROUTE};

mod property;

fn sotw(script: &str) {
    Talk::new(Mode::StateOfTheWorld, None, true).play(script);
}

fn delta(script: &str) {
    Talk::new(Mode::Delta, None, true).play(script);
}

#[test]
fn sotw_wildcard_ack_and_nack() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x y
        ! update clusters v=1 full: x y
        accept
        > clusters [] v=1 n=a
        < clusters v=2 n=b: x
        ! update clusters v=2 full: x
        reject x is odd
        > clusters [] v=1 n=b NACK: Error adding/updating cluster(s) x: x is odd
        < clusters v=3 n=c:
        ! update clusters v=3 full:
        accept
        > clusters [] v=3 n=c
    ",
    );
}

#[test]
fn sotw_names_come_and_go() {
    sotw(
        "
        subscribe endpoints b
        subscribe endpoints a c
        connect
        ! connected
        > endpoints [a b c] v= n=
        < endpoints v=1 n=a: a b
        ! update endpoints v=1: a b
        accept
        > endpoints [a b c] v=1 n=a
        unsubscribe s1
        > endpoints [a c] v=1 n=a
        unsubscribe s2
        > endpoints [] v=1 n=a
        # nobody is interested: the client accepts by itself
        < endpoints v=2 n=b: a
        > endpoints [] v=2 n=b
        # a new subscriber has nothing, and must not claim a version
        subscribe endpoints z
        > endpoints [z] v= n=b
    ",
    );
}

#[test]
fn a_name_given_up_and_taken_again_is_sent_again() {
    sotw(
        "
        subscribe endpoints a
        subscribe endpoints b
        connect
        ! connected
        > endpoints [a b] v= n=
        < endpoints v=1 n=a: a b
        ! update endpoints v=1: a b
        accept
        > endpoints [a b] v=1 n=a
        pause endpoints
        unsubscribe s2
        subscribe endpoints b
        resume endpoints
        > endpoints [a b] v= n=a
    ",
    );
    delta(
        "
        subscribe endpoints a
        subscribe clusters *
        connect
        ! connected
        > endpoints +a
        > clusters
        pause endpoints
        pause clusters
        unsubscribe s1
        unsubscribe s2
        subscribe endpoints a
        subscribe clusters *
        resume endpoints
        > endpoints +a
        resume clusters
        > clusters -*
        > clusters +*
    ",
    );
}

#[test]
fn an_existing_name_is_asked_for_again_for_its_second_subscriber() {
    sotw(
        "
        subscribe endpoints a
        connect
        ! connected
        > endpoints [a] v= n=
        < endpoints v=1 n=a: a
        ! update endpoints v=1: a
        accept
        > endpoints [a] v=1 n=a
        subscribe endpoints a
        > endpoints [a] v=1 n=a
        unsubscribe s1
    ",
    );
    delta(
        "
        subscribe endpoints a
        connect
        ! connected
        > endpoints +a
        subscribe endpoints a
        > endpoints +a
        unsubscribe s1
        unsubscribe s2
        > endpoints -a
    ",
    );
}

#[test]
fn endpoints_are_asked_for_before_clusters_are_acknowledged() {
    for delta in [false, true] {
        let (first, endpoints, ack) = if delta {
            ("> clusters", "> endpoints +x +y", "> clusters n=a")
        } else {
            (
                "> clusters [] v= n=",
                "> endpoints [x y] v= n=",
                "> clusters [] v=1 n=a",
            )
        };
        let full = if delta { "" } else { " full" };
        let mode = if delta {
            Mode::Delta
        } else {
            Mode::StateOfTheWorld
        };
        Talk::new(mode, None, true).play(&format!(
            "
            subscribe clusters *
            connect
            ! connected
            {first}
            < clusters v=1 n=a: x@1 y@1
            ! update clusters v=1{full}: {}
            hold
            subscribe endpoints x
            subscribe endpoints y
            accept
            release
            {endpoints}
            {ack}
        ",
            if delta { "x@1 y@1" } else { "x y" }
        ));
    }
}

#[test]
fn a_paused_type_is_held_and_merged() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        pause clusters
        pause clusters
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        < clusters v=2 n=b: x
        ! update clusters v=2 full: x
        accept
        accept
        resume clusters
        resume clusters
        > clusters [] v=2 n=b
        # a NACK is news and is never merged away
        pause clusters
        < clusters v=3 n=c: x
        ! update clusters v=3 full: x
        < clusters v=4 n=d: x
        ! update clusters v=4 full: x
        reject bad
        accept
        resume clusters
        > clusters [] v=4 n=c NACK: Error adding/updating cluster(s) x: bad
        > clusters [] v=4 n=d
    ",
    );
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        pause clusters
        < clusters v=1 n=a: x@1
        ! update clusters v=1: x@1
        < clusters v=2 n=b: x@2
        ! update clusters v=2: x@2
        accept
        accept
        resume clusters
        > clusters n=a
        > clusters n=b
    ",
    );
}

#[test]
fn answers_out_of_order() {
    sotw("
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        < clusters v=2 n=b: x
        ! update clusters v=2 full: x
        accept newest
        > clusters [] v=2 n=b
        # the server has moved on: an answer to the older response would be stale, and must not set the version back
        accept
    ");
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1
        ! update clusters v=1: x@1
        < clusters v=2 n=b: y@1
        ! update clusters v=2: y@1
        accept newest
        > clusters n=b
        accept
        > clusters n=a
    ",
    );
}

#[test]
fn reconnecting_introduces_every_type_with_what_it_has() {
    sotw(
        "
        subscribe clusters *
        subscribe endpoints x
        connect
        ! connected
        > clusters [] v= n=
        > endpoints [x] v= n=
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        accept
        > clusters [] v=1 n=a
        < endpoints v=7 n=b: x
        ! update endpoints v=7: x
        disconnect
        ! disconnected
        # accepted after the stream was lost: nothing to answer, but it counts
        accept
        connect
        ! connected
        > clusters [] v=1 n=
        > endpoints [x] v=7 n=
    ",
    );
    delta(
        "
        subscribe clusters *
        subscribe endpoints x
        connect
        ! connected
        > clusters
        > endpoints +x
        < clusters v=1 n=a: x@1 y@1 z@1
        ! update clusters v=1: x@1 y@1 z@1
        accept
        > clusters n=a
        < clusters v=2 n=b: x@2 -z
        ! update clusters v=2: x@2 -z
        accept
        > clusters n=b
        # nothing of a refused response is remembered
        < clusters v=3 n=c: x@3 w@1 -y
        ! update clusters v=3: x@3 w@1 -y
        reject no
        > clusters n=c NACK: Error adding/updating cluster(s) x: no
        disconnect
        ! disconnected
        connect
        ! connected
        > clusters {x=2 y=1}
        > endpoints +x
    ",
    );
}

#[test]
fn wildcard_beside_names() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        subscribe clusters extra
        > clusters [* extra] v= n=
        unsubscribe s1
        > clusters [extra] v= n=
        unsubscribe s2
        > clusters [] v= n=
        subscribe clusters *
        > clusters [*] v= n=
    ",
    );
    delta(
        "
        subscribe clusters *
        subscribe clusters extra
        connect
        ! connected
        > clusters +* +extra
        unsubscribe s1
        > clusters -*
        unsubscribe s2
        > clusters -extra
        subscribe clusters *
        > clusters +*
    ",
    );
}

#[test]
fn a_legacy_wildcard_cannot_be_emptied() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        unsubscribe s1
        < clusters v=1 n=a: x
        > clusters [] v=1 n=a
    ",
    );
}

#[test]
fn unwanted_resources_are_left_out() {
    sotw(
        "
        subscribe routes r
        connect
        ! connected
        > routes [r] v= n=
        < routes v=1 n=a: other
        > routes [r] v=1 n=a
        < routes v=2 n=b:
        > routes [r] v=2 n=b
        < routes v=3 n=c: other r
        ! update routes v=3: r
        accept
        > routes [r] v=3 n=c
    ",
    );
    delta(
        "
        subscribe routes r
        connect
        ! connected
        > routes +r
        < routes v=1 n=a: other@1 -another
        > routes n=a
        < routes v=2 n=b: -r
        ! update routes v=2: -r
        accept
        > routes n=b
    ",
    );
}

#[test]
fn an_empty_delta_response_tells_a_wildcard_that_there_is_nothing() {
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a:
        ! update clusters v=1:
        accept
        > clusters n=a
    ",
    );
}

#[test]
fn broken_promises_are_refused_whole() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x y?
        ! rejected clusters: wrong does not match the message-wide type URL
        > clusters [] v= n=a NACK: wrong does not match the message-wide type URL
    ",
    );
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1 x@2
        ! rejected clusters: duplicate name x found among added/updated resources
        > clusters n=a NACK: duplicate name x found among added/updated resources
        < clusters v=1 n=b: x@1 -x
        ! rejected clusters: duplicate name x found in the union
        > clusters n=b NACK: duplicate name x found in the union
        < clusters v=1 n=c: x@1?
        ! rejected clusters: type URL wrong embedded in an individual Any does not match
        > clusters n=c NACK: type URL wrong embedded in an individual Any does not match
        < clusters v=1 n=d: x@1~
        ! rejected clusters: x: a heartbeat of version
        > clusters n=d NACK: x: a heartbeat of version
    ",
    );
}

#[test]
fn unsolicited_responses_are_not_answered() {
    for talk in [sotw as fn(&str), delta] {
        talk(
            "
            connect
            ! connected
            < clusters v=1 n=a: x
            pause clusters
            < clusters v=1 n=b: x
        ",
        );
    }
}

#[test]
fn a_dropped_ticket_is_a_nack() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        drop
        > clusters [] v= n=a NACK: the update was dropped
        ! rejected clusters: the update was dropped
    ",
    );
}

#[test]
fn initial_fetch_timeouts() {
    delta(
        "
        subscribe endpoints a
        subscribe endpoints b
        connect
        ! connected
        > endpoints +a +b
        wait 14
        < endpoints v=1 n=a: a@1
        ! update endpoints v=1: a@1
        accept
        > endpoints n=a
        wait 1
        ! timeout endpoints: b
        wait 100
    ",
    );
}

#[test]
fn ttls_and_heartbeats() {
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1!5 y@1!5 z@1
        ! update clusters v=1: x@1!5 y@1!5 z@1
        accept
        > clusters n=a
        wait 4
        < clusters v=1 n=b: x@1!5~
        > clusters n=b
        wait 4
        ! expired clusters: y
        wait 2
        ! expired clusters: x
        disconnect
        ! disconnected
        connect
        ! connected
        > clusters {z=1}
    ",
    );
    // A heartbeat alone is no full state: nothing is deleted.
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x@1!5 y
        ! update clusters v=1 full: x@1!5 y
        accept
        > clusters [] v=1 n=a
        wait 4
        < clusters v=1 n=b: x@1!5~
        > clusters [] v=1 n=b
        wait 4
        < clusters v=2 n=c: x@1!5~ y
        ! update clusters v=2 full: x@1!5~ y
        accept
        > clusters [] v=2 n=c
        wait 4
        wait 1
        ! expired clusters: x
    ",
    );
}

#[test]
fn the_node_is_said_once_or_always() {
    for (once, second) in [(true, "> clusters n=a"), (false, "> node clusters n=a")] {
        let mut talk = Talk::new(Mode::Delta, None, once);
        talk.show_node = true;
        talk.play(&format!(
            "
            subscribe clusters *
            connect
            ! connected
            > node clusters
            < clusters v=1 n=a: x@1
            ! update clusters v=1: x@1
            accept
            {second}
            disconnect
            ! disconnected
            connect
            ! connected
            > node clusters {{x=1}}
        "
        ));
    }
}

#[test]
fn the_token_bucket_spaces_requests() {
    let limit = RateLimit {
        max_tokens: 2,
        fill_rate: 1.0,
    };
    Talk::new(Mode::StateOfTheWorld, Some(limit), true).play(
        "
        subscribe clusters *
        subscribe listeners *
        subscribe routes a
        connect
        ! connected
        > clusters [] v= n=
        > listeners [] v= n=
        subscribe routes b
        wait 1
        > routes [a b] v= n=
    ",
    );
}

#[test]
fn outcomes_are_counted_where_they_belong() {
    let mut talk = Talk::new(Mode::StateOfTheWorld, None, true);
    talk.play(
        "
        subscribe endpoints a
        subscribe endpoints b
        connect
        ! connected
        > endpoints [a b] v= n=
        < endpoints v=1 n=a: a
        ! update endpoints v=1: a
        accept
        > endpoints [a b] v=1 n=a
        < endpoints v=2 n=b: b
        ! update endpoints v=2: b
        reject bad
        > endpoints [a b] v=1 n=b NACK: b: bad
        disconnect
        ! disconnected
    ",
    );
    let counts: Vec<_> = talk
        .counts
        .iter()
        .map(|counts| counts.borrow().clone())
        .collect();
    assert_eq!(
        counts[0],
        "attempt success=1 attempt rejected attempt failure attempt "
    );
    assert_eq!(counts[1], "attempt rejected attempt failure attempt ");
}

#[test]
fn backoff_grows_until_a_response_resets_it() {
    let mut talk = Talk::new(Mode::Delta, None, true);
    talk.play("subscribe clusters *");
    let longest = |talk: &mut Talk| {
        let delays = (0..20).map(|_| talk.mux.disconnected("down".to_owned()));
        let longest = delays.max().expect("some");
        while talk.mux.poll_event().is_some() {}
        longest
    };
    assert!(longest(&mut talk) > Duration::from_secs(2));
    talk.play(
        "
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1
        ! update clusters v=1: x@1
        accept
        > clusters n=a
    ",
    );
    assert!(talk.mux.disconnected("down".to_owned()) < Duration::from_millis(500));
}

#[test]
fn reading_stops_when_the_consumer_is_far_behind() {
    let mut talk = Talk::new(Mode::Delta, None, true);
    talk.play(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
    ",
    );
    for turn in 0..ack::MAX_OUTSTANDING {
        assert!(talk.mux.is_ready_to_read());
        talk.play(&format!(
            "< clusters v={turn} n={turn}: x@{turn}\n! update clusters v={turn}: x@{turn}"
        ));
    }
    assert!(!talk.mux.is_ready_to_read());
    talk.play(
        "
        accept
        > clusters n=0
    ",
    );
    assert!(talk.mux.is_ready_to_read());
}

/// Plays scripts against a mux.
struct Talk {
    mux: Mux,
    mode: Mode,
    now: Instant,
    show_node: bool,
    subscriptions: Vec<SubscriptionId>,
    tickets: VecDeque<(Ticket, Vec<String>)>,
    counts: Vec<Rc<RefCell<String>>>,
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
    fn new(mode: Mode, rate_limit: Option<RateLimit>, node_on_first_message_only: bool) -> Self {
        let now = Instant::now();
        let node = Node {
            id: "me".into(),
            ..Default::default()
        };
        let config = MuxConfig {
            mode,
            node,
            node_on_first_message_only,
            rate_limit,
            ..Default::default()
        };
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

    fn play(&mut self, script: &str) {
        let mut said = VecDeque::new();
        let mut told = VecDeque::new();
        let mut held = false;
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            if let Some(want) = line.strip_prefix('>') {
                assert_matches(line, want.trim(), said.pop_front());
                continue;
            }
            if let Some(want) = line.strip_prefix('!') {
                assert_matches(line, want.trim(), told.pop_front());
                continue;
            }
            assert_eq!(
                (&said, &told),
                (&VecDeque::new(), &VecDeque::new()),
                "not expected before `{line}`"
            );
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
        assert_eq!(
            (said, told),
            (VecDeque::new(), VecDeque::new()),
            "not expected at the end"
        );
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
                let interest = Interest {
                    selection: names,
                    ..Interest::wildcard(type_url(kind))
                }
                .observed_by(Rc::new(Counts(counts)));
                self.subscriptions
                    .push(self.mux.subscribe(interest, self.now));
            }
            "unsubscribe" => {
                let number: usize = rest
                    .trim_start_matches('s')
                    .parse()
                    .expect("a subscription");
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
                let ticket = if rest == "newest" {
                    self.tickets.pop_back()
                } else {
                    self.tickets.pop_front()
                };
                self.mux.accept(ticket.expect("an open ticket").0, self.now);
            }
            "reject" => {
                let (ticket, names) = self.tickets.pop_front().expect("an open ticket");
                self.mux
                    .reject(ticket, &Rejection::resource(&names[0], rest));
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
                let names = update
                    .resources
                    .iter()
                    .map(|resource| resource.name.clone())
                    .collect();
                self.tickets.push_back((update.ticket, names));
                text
            }
            Event::Rejected { type_url, detail } => {
                format!("rejected {}: {detail}", short(&type_url))
            }
            Event::Expired { type_url, names } => {
                format!("expired {}: {}", short(&type_url), names.join(" "))
            }
            Event::InitialFetchTimeout {
                type_url, names, ..
            } => {
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
                let _ = write!(
                    text,
                    "{} [{names}] v={version} n={nonce}",
                    short(&request.type_url)
                );
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
                    let mut versions: Vec<_> = request
                        .initial_resource_versions
                        .iter()
                        .map(|(name, v)| format!("{name}={v}"))
                        .collect();
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
    assert!(
        got == want || (open_ended && got.starts_with(want)),
        "`{line}` was expected, `{got}` came"
    );
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
        let (token, ttl) = token
            .split_once('!')
            .map_or((token, None), |(t, ttl)| (t, ttl.parse().ok()));
        let (name, version) = token.split_once('@').unwrap_or((token, ""));
        let inner = Any {
            type_url: if wrong {
                "wrong".to_owned()
            } else {
                type_url.clone()
            },
            // Field 1, as in every resource type.
            value: [
                &[0x0a, u8::try_from(name.len()).expect("short")],
                name.as_bytes(),
            ]
            .concat(),
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
                    discovery::Resource {
                        ttl: None,
                        resource: Some(inner),
                        ..
                    } => inner,
                    wrapped => Any {
                        type_url: discovery::Resource::type_url(),
                        value: wrapped.encode_to_vec(),
                    },
                })
                .collect(),
            type_url,
            nonce,
            ..Default::default()
        }),
    }
}
