use proptest::prelude::*;

use super::*;
use crate::runtime::{Value, Values};

fn handle(default: Thresholds) -> BreakerHandle {
    BreakerHandle::new(Arc::new(Breakers::new(&CircuitBreakers { default, ..CircuitBreakers::default() })))
}

#[test]
fn the_limit_holds_and_a_dropped_permit_comes_back() {
    let breakers = handle(Thresholds { max_requests: 2, track_remaining: true, ..Thresholds::default() });
    let view = || breakers.breakers().view(Priority::Default, Resource::Requests);
    let first = breakers.try_acquire(Priority::Default, Resource::Requests).unwrap();
    let second = breakers.try_acquire(Priority::Default, Resource::Requests).unwrap();
    assert_eq!(view(), BreakerView { open: true, remaining: Some(0), limit: 2 });
    let overflow = breakers.try_acquire(Priority::Default, Resource::Requests).unwrap_err();
    assert_eq!(overflow.resource.overflow_stat(), "upstream_rq_active_overflow");
    assert_eq!(overflow.to_string(), "max_requests limit of 2 reached");
    drop(first);
    assert_eq!(view(), BreakerView { open: false, remaining: Some(1), limit: 2 });
    drop(second);
    assert_eq!(breakers.breakers().used(Priority::Default, Resource::Requests), 0);
}

#[test]
fn priorities_have_limits_of_their_own() {
    let breakers = handle(Thresholds { max_retries: 0, ..Thresholds::default() });
    assert!(breakers.try_acquire(Priority::Default, Resource::Retries).is_err());
    assert!(breakers.try_acquire(Priority::High, Resource::Retries).is_ok());
}

#[test]
fn an_empty_pool_may_go_beyond_the_limit() {
    let breakers = handle(Thresholds { max_connections: 0, ..Thresholds::default() });
    assert!(breakers.try_acquire(Priority::Default, Resource::Connections).is_err());
    let permit = breakers.acquire(Priority::Default, Resource::Connections);
    assert_eq!(breakers.breakers().used(Priority::Default, Resource::Connections), 1);
    drop(permit);
    assert_eq!(breakers.breakers().used(Priority::Default, Resource::Connections), 0);
}

#[test]
fn what_is_unlimited_is_not_counted_unless_somebody_reads_it() {
    let unlimited = Thresholds { max_requests: u32::MAX, max_pending_requests: u32::MAX, ..Thresholds::default() };
    let breakers = handle(unlimited.clone());
    let _permit = breakers.try_acquire(Priority::Default, Resource::Requests).unwrap();
    assert_eq!(breakers.breakers().used(Priority::Default, Resource::Requests), 0);

    let tracked = handle(Thresholds { track_remaining: true, ..unlimited.clone() });
    let _permit = tracked.try_acquire(Priority::Default, Resource::Requests).unwrap();
    let view = tracked.breakers().view(Priority::Default, Resource::Requests);
    assert_eq!(view.remaining, Some(u32::MAX - 1));

    let budget =
        RetryBudget { budget_percent: 20.0, min_retry_concurrency: 1, budget_interval: std::time::Duration::ZERO };
    let budgeted = handle(Thresholds { retry_budget: Some(budget), ..unlimited });
    let _active: Vec<_> =
        (0..15).map(|_| budgeted.try_acquire(Priority::Default, Resource::Requests).unwrap()).collect();
    let retries: Vec<_> = (0..5).map(|_| budgeted.try_acquire(Priority::Default, Resource::Retries)).collect();
    assert_eq!(retries.iter().filter(|retry| retry.is_ok()).count(), 3, "20 % of 15 requests");
}

#[derive(Debug, Clone)]
enum Step {
    Try(bool, usize),
    Force(bool, usize),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<bool>(), 0..5_usize).prop_map(|(high, kind)| Step::Try(high, kind)),
        (any::<bool>(), 0..5_usize).prop_map(|(high, kind)| Step::Force(high, kind)),
        (0..64_usize).prop_map(Step::Drop),
    ]
}

proptest! {
    /// Whatever is taken and dropped in whatever order on two handles: a total is what is held, a refusal means that
    /// the limit was reached, and at the end nothing is left.
    #[test]
    fn totals_are_what_is_held(steps in prop::collection::vec(step(), 0..200)) {
        let limits = Thresholds {
            max_connections: 3,
            max_pending_requests: 2,
            max_requests: 5,
            max_retries: 1,
            max_connection_pools: 4,
            ..Thresholds::default()
        };
        let config = CircuitBreakers { default: limits.clone(), high: limits, per_host_max_connections: [None; 2] };
        let shared = Arc::new(Breakers::new(&config));
        let handles = [BreakerHandle::new(shared.clone()), BreakerHandle::new(shared.clone())];
        let priority = |high| if high { Priority::High } else { Priority::Default };
        let mut held: Vec<(Priority, Permit)> = Vec::new();
        for (turn, step) in steps.into_iter().enumerate() {
            let handle = &handles[turn % 2];
            match step {
                Step::Try(high, kind) => {
                    let (priority, resource) = (priority(high), Resource::ALL[kind]);
                    let used = shared.used(priority, resource);
                    match handle.try_acquire(priority, resource) {
                        Ok(permit) => {
                            prop_assert!(used < shared.view(priority, resource).limit);
                            held.push((priority, permit));
                        }
                        Err(overflow) => prop_assert!(used >= overflow.limit),
                    }
                }
                Step::Force(high, kind) => {
                    held.push((priority(high), handle.acquire(priority(high), Resource::ALL[kind])));
                }
                Step::Drop(index) if !held.is_empty() => drop(held.swap_remove(index % held.len())),
                Step::Drop(_) => {}
            }
            for priority in [Priority::Default, Priority::High] {
                for resource in Resource::ALL {
                    let count = held.iter().filter(|(p, permit)| *p == priority && permit.resource() == resource).count();
                    prop_assert_eq!(shared.used(priority, resource) as usize, count);
                }
            }
        }
        held.clear();
        for resource in Resource::ALL {
            prop_assert_eq!(shared.used(Priority::Default, resource) + shared.used(Priority::High, resource), 0);
        }
    }
}

#[test]
fn gauges_show_what_is_open_and_what_is_left() {
    let default = Thresholds { max_requests: 1, max_connections: 0, track_remaining: true, ..Thresholds::default() };
    let breakers = Arc::new(Breakers::new(&CircuitBreakers { default, ..CircuitBreakers::default() }));
    let handle = BreakerHandle::new(Arc::clone(&breakers));
    let gauge = |name: &str| {
        let mut found = None;
        breakers.gauges(&mut |shown, value, used| {
            if shown.strip_prefix("circuit_breakers.") == Some(name) {
                found = Some((value, used));
            }
        });
        found
    };
    assert_eq!(gauge("default.rq_open"), Some((0, false)));
    assert_eq!(gauge("default.cx_open"), Some((0, false)), "as in Envoy, nothing was there yet");
    assert!(handle.try_acquire(Priority::Default, Resource::Connections).is_err());
    assert_eq!(gauge("default.cx_open"), Some((0, false)), "nor is there now");
    drop(handle.acquire(Priority::Default, Resource::Connections));
    assert_eq!(gauge("default.cx_open"), Some((1, true)), "and none may be, from here on");
    assert_eq!(gauge("default.remaining_cx_pools"), Some((u64::MAX, true)));
    assert_eq!(gauge("high.remaining_rq"), None);
    let one = handle.try_acquire(Priority::Default, Resource::Requests).unwrap();
    assert_eq!((gauge("default.rq_open"), gauge("default.remaining_rq")), (Some((1, true)), Some((0, true))));
    drop(one);
    assert_eq!((gauge("default.rq_open"), gauge("default.remaining_rq")), (Some((0, true)), Some((1, true))));
}

#[test]
fn the_runtime_changes_limits_and_gives_them_back() {
    let runtime = |entries: &[(&str, &str)]| {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), Value::parse((*value).to_owned())));
        Snapshot::from(Values::from_iter(entries))
    };
    let breakers = handle(Thresholds { max_requests: u32::MAX, max_retries: 2, ..Thresholds::default() });
    let shared = breakers.breakers();
    let limit = |resource| shared.view(Priority::Default, resource).limit;
    let uncounted = breakers.try_acquire(Priority::Default, Resource::Requests).unwrap();

    shared.tune(
        "a.b",
        &runtime(&[
            ("circuit_breakers.a.b.default.max_requests", "1"),
            ("circuit_breakers.c.default.max_retries", "0"),
        ]),
    );
    assert_eq!((limit(Resource::Requests), limit(Resource::Retries)), (1, 2));
    let counted = breakers.try_acquire(Priority::Default, Resource::Requests).unwrap();
    assert!(breakers.try_acquire(Priority::Default, Resource::Requests).is_err());
    assert!(breakers.try_acquire(Priority::High, Resource::Requests).is_ok());
    // What was let go while nobody counted is not counted when it ends.
    drop(uncounted);
    assert_eq!(shared.used(Priority::Default, Resource::Requests), 1);

    shared.tune("a.b", &runtime(&[("circuit_breakers.a.b.default.retry_budget.budget_percent", "0")]));
    assert_eq!((limit(Resource::Requests), limit(Resource::Retries)), (u32::MAX, 3), "the budget's least is 3");
    // Counted when it began, it is taken off though the limit is gone.
    drop(counted);
    shared.tune("a.b", &Snapshot::default());
    assert_eq!((limit(Resource::Requests), limit(Resource::Retries)), (u32::MAX, 2));
    shared.tune("a.b", &runtime(&[("circuit_breakers.a.b.default.max_requests", "1")]));
    assert_eq!(shared.used(Priority::Default, Resource::Requests), 0);
}
