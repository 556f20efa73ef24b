//! The handle of one source: a [`Mux`] shared between its driver and everybody who subscribes.
//!
//! A client lives on one thread. All its methods return at once; none waits for the network or for a consumer. They may be
//! called from within [`Consumer::on_event`]: events are delivered while the mux is not borrowed, one after the other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::mux::{Message, Mux, MuxConfig, Request, TypeStatus};
use crate::observer::SourceObserver;
use crate::subscription::{Interest, SubscriptionId};
use crate::types::{Event, Rejection, Ticket};

/// Receives what a source has to tell.
pub trait Consumer {
    /// Something happened. An [`Event::Update`] is answered through `client`, now or later.
    fn on_event(&self, client: &Client, event: Event);
}

impl<F: Fn(&Client, Event)> Consumer for F {
    fn on_event(&self, client: &Client, event: Event) {
        self(client, event);
    }
}

/// A handle of one source. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    shared: Rc<Shared>,
}

struct Shared {
    mux: RefCell<Mux>,
    consumer: Rc<dyn Consumer>,
    /// There may be a request to send, an event to deliver, or room to read.
    work: Notify,
    /// The next deadline may have moved.
    deadline: Notify,
    readable: Notify,
    delivering: Cell<bool>,
}

impl Client {
    /// A client whose mux starts out disconnected; a driver, started by
    /// [`Hub`](crate::Hub), makes it move.
    pub fn new(config: MuxConfig, observer: Rc<dyn SourceObserver>, consumer: Rc<dyn Consumer>) -> Self {
        let shared = Shared {
            mux: RefCell::new(Mux::new(config, observer, now())),
            consumer,
            work: Notify::new(),
            deadline: Notify::new(),
            readable: Notify::new(),
            delivering: Cell::new(false),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Subscribes until the returned guard is dropped.
    pub fn subscribe(&self, interest: Interest) -> Subscription {
        let id = self.change(|mux| mux.subscribe(interest, now()));
        Subscription { client: self.clone(), id, on_drop: None }
    }

    /// Holds back requests and answers of a type until the returned guard is dropped. Pauses of one type add up.
    pub fn pause(&self, type_url: &str) -> Pause {
        self.change(|mux| mux.pause(type_url));
        Pause { client: self.clone(), type_url: type_url.to_owned() }
    }

    /// The update was applied. See [`Mux::accept`].
    pub fn accept(&self, ticket: Ticket) {
        self.change(|mux| mux.accept(ticket, now()));
    }

    /// The update, or a part of it, was refused. See [`Mux::reject`].
    pub fn reject(&self, ticket: Ticket, rejection: &Rejection) {
        self.change(|mux| mux.reject(ticket, rejection));
    }

    /// Accepts or rejects by result.
    pub fn answer(&self, ticket: Ticket, result: Result<(), Rejection>) {
        match result {
            Ok(()) => self.accept(ticket),
            Err(rejection) => self.reject(ticket, &rejection),
        }
    }

    /// Where a type stands.
    pub fn status(&self, type_url: &str) -> TypeStatus {
        self.shared.mux.borrow().status(type_url)
    }

    /// Whether its responses are documents written for one subscription, all of which is the consumer's to judge.
    pub fn reads_documents(&self) -> bool {
        self.shared.mux.borrow().reads_documents()
    }

    /// Whether both are handles of the same source.
    pub fn same_source(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Mux) -> T) -> T {
        let result = change(&mut self.shared.mux.borrow_mut());
        self.shared.work.notify_one();
        self.shared.deadline.notify_one();
        self.shared.readable.notify_one();
        result
    }
}

/// What drivers do with a client.
impl Client {
    pub(crate) fn connected(&self) {
        self.change(Mux::connected);
        self.deliver();
    }

    pub(crate) fn disconnected(&self, reason: String) -> Duration {
        let delay = self.change(|mux| mux.disconnected(reason));
        self.deliver();
        delay
    }

    pub(crate) fn on_message(&self, message: Message) {
        self.change(|mux| mux.on_message(message, now()));
        self.deliver();
    }

    pub(crate) fn on_unreadable(&self, type_url: &str, detail: String) {
        self.change(|mux| mux.on_unreadable(type_url, detail));
        self.deliver();
    }

    pub(crate) fn on_missing(&self, type_url: &str, detail: String) {
        self.change(|mux| mux.on_missing(type_url, detail));
        self.deliver();
    }

    pub(crate) fn fetching(&self, type_url: &str) {
        self.change(|mux| mux.fetching(type_url));
    }

    pub(crate) fn refresh(&self, type_url: &str) {
        self.change(|mux| mux.refresh(type_url));
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        self.shared.mux.borrow().has_subscriptions()
    }

    /// The next request, if there is one now.
    pub(crate) fn try_next_request(&self) -> Option<Request> {
        let request = self.shared.mux.borrow_mut().poll_request(now());
        self.deliver();
        // A throttled request has set a deadline.
        self.shared.deadline.notify_one();
        request
    }

    /// The next request, when there is one.
    pub(crate) async fn next_request(&self) -> Request {
        loop {
            if let Some(request) = self.try_next_request() {
                return request;
            }
            self.shared.work.notified().await;
        }
    }

    /// Waits until the consumer can take another response.
    pub(crate) async fn ready_to_read(&self) {
        while !self.shared.mux.borrow().is_ready_to_read() {
            self.shared.readable.notified().await;
        }
    }

    /// Waits for the first subscription.
    pub(crate) async fn wanted(&self) {
        while !self.has_subscriptions() {
            self.shared.work.notified().await;
        }
    }

    /// Keeps the mux's time; never returns. To be polled beside the rest of a driver.
    pub(crate) async fn keep_time(&self) {
        loop {
            let deadline = self.shared.mux.borrow().next_deadline();
            let sleep = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.deadline.notified() => {}
                () = sleep => {
                    self.shared.mux.borrow_mut().on_deadline(now());
                    self.shared.work.notify_one();
                    self.deliver();
                }
            }
        }
    }

    fn deliver(&self) {
        // A driver's step within a consumer's callback leaves its events to the loop that is already running.
        if self.shared.delivering.replace(true) {
            return;
        }
        let _guard = Delivering(&self.shared.delivering);
        loop {
            let event = self.shared.mux.borrow_mut().poll_event();
            let Some(event) = event else {
                break;
            };
            self.shared.consumer.on_event(self, event);
        }
    }
}

/// Clears the flag even if a consumer panics.
struct Delivering<'a>(&'a Cell<bool>);

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A subscription; dropping it ends it.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    client: Client,
    id: SubscriptionId,
    /// The driver of a source that exists for this subscription alone.
    on_drop: Option<tokio::task::AbortHandle>,
}

impl Subscription {
    /// The id events speak of.
    pub fn id(&self) -> SubscriptionId {
        self.id
    }

    /// The client it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ties the life of a task to this subscription's.
    pub(crate) fn owning(mut self, task: tokio::task::AbortHandle) -> Self {
        self.on_drop = Some(task);
        self
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.change(|mux| mux.unsubscribe(self.id));
        if let Some(task) = self.on_drop.take() {
            task.abort();
        }
    }
}

/// A pause of a type; dropping it resumes the type.
#[must_use = "dropping a pause ends it"]
pub struct Pause {
    client: Client,
    type_url: String,
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.client.change(|mux| mux.resume(&self.type_url));
    }
}

/// The runtime's clock, so that a paused test clock counts.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
