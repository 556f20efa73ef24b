//! Requests to the pools: patient ones and others.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use filters::http::RequestHead;
use filters::stream_info::ConnectionInfo;

use super::super::*;
use super::World;
use crate::upstream::cluster::Purpose;
use crate::upstream::exchange::Exchange;
use crate::worker::timer::Tick;

/// Longer than anything takes.
const PATIENT: Duration = Duration::from_millis(500);

/// Sends a request to any host, by any protocol; it may try again, and may give up at any moment.
pub(super) fn send(world: &Rc<World>, mut random: fastrand::Rng) {
    let hosts: Vec<_> = world.cluster.hosts().hosts().cloned().collect();
    let Some(host) = random.choice(hosts) else { return };
    let protocol =
        random.choice([PoolProtocol::Http1, PoolProtocol::Http2, PoolProtocol::Auto, PoolProtocol::Tcp]).unwrap();
    let priority = random.choice(super::PRIORITIES).unwrap();
    let patience = if random.bool() { PATIENT } else { Duration::from_millis(random.u64(..60)) };
    let client = random.u64(..3);
    let tries = random.u8(1..3);
    spawn(world, async move |world| {
        let mut retry = None;
        for number in 0..tries {
            if number > 0 {
                let breakers = &world.cluster.context().breakers;
                let Ok(permit) = breakers.try_acquire(priority, Resource::Retries) else { return false };
                retry = Some(permit);
            }
            if attempt(world, &host, protocol, priority, client, patience).await {
                drop(retry);
                return true;
            }
        }
        false
    });
}

/// Sends a patient request to this host.
pub(super) fn send_to(world: &Rc<World>, host: &Arc<Host>, protocol: PoolProtocol, priority: Priority) {
    let host = Arc::clone(host);
    spawn(world, async move |world| attempt(world, &host, protocol, priority, 0, PATIENT).await);
}

/// Runs a request that says whether it was answered.
fn spawn(world: &Rc<World>, request: impl AsyncFnOnce(&World) -> bool + 'static) {
    let world = Rc::clone(world);
    world.running.set(world.running.get() + 1);
    tokio::task::spawn_local(async move {
        let answered = request(&world).await;
        world.running.set(world.running.get() - 1);
        world.answered.set(world.answered.get() + usize::from(answered));
    });
}

async fn attempt(
    world: &World,
    host: &Arc<Host>,
    protocol: PoolProtocol,
    priority: Priority,
    client: u64,
    patience: Duration,
) -> bool {
    let address = filters::stream_info::Address::Pipe("".into());
    let client = ConnectionInfo { id: client, ..ConnectionInfo::between(address.clone(), address) };
    let Some(pool) =
        world.cluster.pool(host, priority, protocol, Purpose { client: Some(&client), ..Purpose::default() })
    else {
        return false;
    };
    world.saw(&pool);
    let timers = world.worker.timers();
    let deadline = timers.now().after(patience);
    let conversation = async {
        let Ok(lease) = pool.acquire().await else { return false };
        world.check();
        converse(world, lease, deadline).await
    };
    let mut conversation = std::pin::pin!(conversation);
    let alarm = timers.alarm();
    poll_fn(|cx| match conversation.as_mut().poll(cx) {
        Poll::Ready(answered) => Poll::Ready(answered),
        Poll::Pending => alarm.poll(deadline, cx).map(|()| false),
    })
    .await
}

/// A request and its response; whether that came whole.
async fn converse(world: &World, lease: Lease, deadline: Tick) -> bool {
    if let Lease::Tcp(lease) = lease {
        let timers = world.worker.timers();
        let (alarm, end) = (timers.alarm(), deadline.min(timers.now().after(Duration::from_millis(20))));
        return poll_fn(|cx| if lease.is_cut(cx) { Poll::Ready(false) } else { alarm.poll(end, cx).map(|()| true) })
            .await;
    }
    let head = RequestHead {
        scheme: filters::http::Scheme::Http,
        authority: Bytes::from_static(b"test"),
        path: Bytes::from_static(b"/"),
        ..RequestHead::default()
    };
    let Ok(mut exchange) = Exchange::start(lease, &head, true, false, None) else { return false };
    let answered = poll_fn(|cx| {
        let _ = exchange.poll_flush(cx);
        exchange.poll_head(cx)
    })
    .await
    .is_ok();
    while answered && !exchange.response_complete() {
        match poll_fn(|cx| exchange.poll_frame(cx)).await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    exchange.finish(true);
    answered
}
