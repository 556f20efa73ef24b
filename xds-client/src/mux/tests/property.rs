//! Whatever the order of updates, subscriptions, answers, pauses and lost streams: in the end the consumer has what the
//! server has, and every nonce has been answered once. The server's side is the one of [`crate::server`].

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::*;
use crate::server::{DeltaStream, Snapshot, SotwStream};
use crate::types::{CLUSTER, ENDPOINTS, Rejection, Update};

const TYPES: [&str; 2] = [CLUSTER, ENDPOINTS];
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    /// The server's resources of a type become these names with these contents.
    Set(usize, Vec<(usize, u8)>),
    Subscribe(usize, Option<usize>),
    Unsubscribe(usize),
    /// Requests reach the server, its responses set off.
    ToServer,
    /// One response reaches the client.
    ToClient,
    /// The consumer answers the oldest open update of a type.
    Answer(usize, bool),
    Pause(usize),
    Resume(usize),
    Connect,
    Disconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = 0..TYPES.len();
    let contents = proptest::collection::vec((0..NAMES.len(), 0u8..4), 0..4);
    prop_oneof![
        4 => (kind.clone(), contents).prop_map(|(kind, contents)| Step::Set(kind, contents)),
        // Wildcards are for clusters only.
        4 => (kind.clone(), 0..NAMES.len()).prop_map(|(kind, name)| Step::Subscribe(kind, Some(name))),
        2 => Just(Step::Subscribe(0, None)),
        3 => (0usize..8).prop_map(Step::Unsubscribe),
        8 => Just(Step::ToServer),
        8 => Just(Step::ToClient),
        8 => (kind.clone(), prop::bool::weighted(0.8)).prop_map(|(kind, good)| Step::Answer(kind, good)),
        1 => kind.clone().prop_map(Step::Pause),
        1 => kind.prop_map(Step::Resume),
        3 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
    ]
}

enum Stream {
    Sotw(SotwStream),
    Delta(DeltaStream),
}

struct World {
    mode: Mode,
    mux: Mux,
    now: Instant,
    server: Snapshot,
    stream: Option<Stream>,
    streams: usize,
    to_client: VecDeque<Message>,
    subscriptions: Vec<(SubscriptionId, usize, Option<usize>)>,
    pauses: Vec<usize>,
    open: Vec<Update>,
    /// What the consumer applied: type, name, body.
    applied: BTreeMap<(usize, String), Vec<u8>>,
    /// Nonces the server sent on this stream, by type, in order; and what was answered.
    sent: Vec<(String, String)>,
    answered: Vec<String>,
}

impl World {
    fn new(mode: Mode) -> Self {
        let now = Instant::now();
        let config = MuxConfig { mode, ..MuxConfig::default() };
        Self {
            mode,
            mux: Mux::new(config, Rc::new(crate::observer::Unobserved), now),
            now,
            server: Snapshot::default(),
            stream: None,
            streams: 0,
            to_client: VecDeque::new(),
            subscriptions: Vec::new(),
            pauses: Vec::new(),
            open: Vec::new(),
            applied: BTreeMap::new(),
            sent: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(kind, contents) => {
                let contents: BTreeMap<_, _> = contents.into_iter().collect();
                let resources = contents.iter().map(|(name, content)| {
                    let name = NAMES[*name];
                    let field = [&[0x0a, 1], name.as_bytes(), &[0x10, *content]].concat();
                    Resource::new(name, "", field)
                });
                self.server.set(TYPES[kind], resources.collect());
                let snapshot = &self.server;
                let due: Vec<Message> = match &mut self.stream {
                    None => Vec::new(),
                    Some(Stream::Sotw(stream)) => stream.on_change(snapshot).into_iter().map(Message::Sotw).collect(),
                    Some(Stream::Delta(stream)) => stream.on_change(snapshot).into_iter().map(Message::Delta).collect(),
                };
                due.into_iter().for_each(|due| self.send(due));
            }
            Step::Subscribe(kind, name) => {
                let interest = match name {
                    None => Interest::wildcard(TYPES[kind]),
                    Some(name) => Interest::name(TYPES[kind], NAMES[name]),
                };
                let id = self.mux.subscribe(interest, self.now);
                self.subscriptions.push((id, kind, name));
            }
            Step::Unsubscribe(at) => {
                if at < self.subscriptions.len() {
                    let (id, ..) = self.subscriptions.remove(at);
                    self.mux.unsubscribe(id);
                    let wanted = self.wanted();
                    self.applied.retain(|(kind, name), _| wanted(*kind, name));
                }
            }
            Step::ToServer => {
                while let Some(request) = self.mux.poll_request(self.now) {
                    self.receive(request);
                }
            }
            Step::ToClient => {
                if let Some(message) = self.to_client.pop_front() {
                    self.mux.on_message(message, self.now);
                    while let Some(event) = self.mux.poll_event() {
                        match event {
                            Event::Update(update) => self.open.push(update),
                            Event::Rejected { detail, .. } => panic!("refused: {detail}"),
                            _ => {}
                        }
                    }
                }
            }
            Step::Answer(kind, good) => self.answer(kind, good),
            Step::Pause(kind) => {
                self.mux.pause(TYPES[kind]);
                self.pauses.push(kind);
            }
            Step::Resume(kind) => {
                if let Some(at) = self.pauses.iter().position(|paused| *paused == kind) {
                    self.pauses.remove(at);
                    self.mux.resume(TYPES[kind]);
                }
            }
            Step::Connect => {
                if self.stream.is_none() {
                    self.streams += 1;
                    self.stream = Some(match self.mode {
                        Mode::StateOfTheWorld => Stream::Sotw(SotwStream::new("")),
                        Mode::Delta => Stream::Delta(DeltaStream::new("")),
                    });
                    self.mux.connected();
                }
            }
            Step::Disconnect => {
                if self.stream.take().is_some() {
                    self.to_client.clear();
                    self.sent.clear();
                    self.answered.clear();
                    let _ = self.mux.disconnected("lost".to_owned());
                }
            }
        }
    }

    /// The nonces of different streams must differ here, so that a stray answer is noticed.
    fn prefix(&self) -> String {
        format!("stream{}-", self.streams)
    }

    fn send(&mut self, mut message: Message) {
        let prefix = self.prefix();
        let (type_url, nonce) = match &mut message {
            Message::Sotw(response) => (&response.type_url, &mut response.nonce),
            Message::Delta(response) => (&response.type_url, &mut response.nonce),
        };
        nonce.insert_str(0, &prefix);
        self.sent.push((type_url.clone(), nonce.clone()));
        self.to_client.push_back(message);
    }

    fn receive(&mut self, mut request: Request) {
        let prefix = self.prefix();
        let nonce = match &mut request {
            Request::Sotw(request) => &mut request.response_nonce,
            Request::Delta(request) => &mut request.response_nonce,
        };
        if !nonce.is_empty() {
            // In state of the world the last nonce is repeated by requests that answer nothing.
            let repeated = self.mode == Mode::StateOfTheWorld && self.answered.contains(nonce);
            if !repeated {
                self.answered.push(nonce.clone());
            }
            assert!(self.sent.iter().any(|(_, sent)| sent == nonce), "{nonce} was not sent on {prefix}");
            *nonce = nonce.strip_prefix(&prefix).expect("a nonce of this stream").to_owned();
        }
        let due = match (self.stream.as_mut().expect("connected"), &request) {
            (Stream::Sotw(stream), Request::Sotw(request)) => {
                stream.on_request(request, &self.server).map(Message::Sotw)
            }
            (Stream::Delta(stream), Request::Delta(request)) => {
                stream.on_request(request, &self.server).map(Message::Delta)
            }
            _ => panic!("the wrong variant"),
        };
        due.into_iter().for_each(|due| self.send(due));
    }

    fn answer(&mut self, kind: usize, good: bool) {
        let Some(at) = self.open.iter().position(|update| &*update.type_url == TYPES[kind]) else {
            return;
        };
        let update = self.open.remove(at);
        if !good {
            self.mux.reject(update.ticket, &Rejection::whole("no"));
            return;
        }
        let wanted = self.wanted();
        if update.full_state {
            self.applied.retain(|(other, _), _| *other != kind);
        }
        for name in update.removed {
            self.applied.remove(&(kind, name));
        }
        for resource in update.resources {
            if wanted(kind, &resource.name) {
                let body = resource.body.expect("no heartbeats here").to_vec();
                self.applied.insert((kind, resource.name), body);
            }
        }
        self.mux.accept(update.ticket, self.now);
    }

    fn wanted(&self) -> impl Fn(usize, &str) -> bool + use<> {
        let subscriptions: BTreeSet<_> = self.subscriptions.iter().map(|(_, kind, name)| (*kind, *name)).collect();
        move |kind, name| {
            let by_name = NAMES.iter().position(|known| *known == name);
            subscriptions.contains(&(kind, None)) || subscriptions.contains(&(kind, by_name))
        }
    }

    /// Lets everything in flight arrive and accepts it.
    fn settle(&mut self) {
        for kind in std::mem::take(&mut self.pauses) {
            self.mux.resume(TYPES[kind]);
        }
        for _ in 0..1000 {
            self.step(Step::ToServer);
            if self.to_client.is_empty() && self.open.is_empty() {
                return;
            }
            self.step(Step::ToClient);
            (0..TYPES.len()).for_each(|kind| self.answer(kind, true));
        }
        panic!("the conversation never ends");
    }

    fn check(&self) {
        let wanted = self.wanted();
        for (kind, type_url) in TYPES.iter().enumerate() {
            for resource in self.server.resources(type_url).filter(|resource| wanted(kind, &resource.name)) {
                let have = self.applied.get(&(kind, resource.name.clone()));
                assert_eq!(have.map(Vec::as_slice), resource.body.as_deref(), "{type_url} {}", resource.name);
            }
        }
        for (kind, name) in self.applied.keys() {
            assert!(wanted(*kind, name));
            let wildcard = self.subscriptions.iter().any(|(_, other, name)| other == kind && name.is_none());
            // By name, state of the world cannot tell that something is gone.
            if wildcard || self.mode == Mode::Delta {
                assert!(self.server.resource(TYPES[*kind], name).is_some(), "{name} is gone");
            }
        }
        for (at, (type_url, nonce)) in self.sent.iter().enumerate() {
            let count = |nonce: &String| self.answered.iter().filter(|answered| *answered == nonce).count();
            let newer_answered = || self.sent[at..].iter().any(|(other, nonce)| other == type_url && count(nonce) > 0);
            match self.mode {
                Mode::Delta => assert_eq!(count(nonce), 1, "{nonce}"),
                Mode::StateOfTheWorld => {
                    assert!(count(nonce) == 1 || (count(nonce) == 0 && newer_answered()), "{nonce}");
                }
            }
        }
    }
}

fn converges(mode: Mode, steps: Vec<Step>) {
    let rejects = steps.iter().any(|step| matches!(step, Step::Answer(_, false)));
    let mut world = World::new(mode);
    steps.into_iter().for_each(|step| world.step(step));
    world.step(Step::Connect);
    world.settle();
    if rejects {
        // What was refused comes again only on a new stream.
        world.step(Step::Disconnect);
        world.step(Step::Connect);
        world.settle();
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn sotw_converges(steps in proptest::collection::vec(step(), 0..80)) {
        converges(Mode::StateOfTheWorld, steps);
    }

    #[test]
    fn delta_converges(steps in proptest::collection::vec(step(), 0..80)) {
        converges(Mode::Delta, steps);
    }
}
