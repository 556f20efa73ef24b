use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::config::cluster::{LbPolicy, SubsetSelector};
use crate::upstream::host::tests::host;
use crate::upstream::host::{HealthFlags, HostState, Locality};

/// Hosts 10.0.0.1 and on with this `envoy.lb` metadata.
fn hosts(metadata: &[Value]) -> Vec<Arc<Host>> {
    (1..).zip(metadata).map(|(n, fields)| with_metadata(n, fields)).collect()
}

fn with_metadata(n: u8, fields: &Value) -> Arc<Host> {
    let mut attributes = host(n, 1, 0, &Arc::default()).attributes().clone();
    let Value::Object(metadata) = json!({"envoy.lb": fields}) else { unreachable!() };
    attributes.metadata = Some(Arc::new(metadata));
    Arc::new(Host::new(attributes, Arc::new(HostState::new(2))))
}

fn selector(keys: &[&str], fallback: Option<SelectorFallback>) -> SubsetSelector {
    SubsetSelector { keys: keys.iter().map(|key| (*key).to_owned()).collect(), fallback, single_host: false }
}

fn config(selectors: Vec<SubsetSelector>, change: impl FnOnce(&mut SubsetConfig)) -> LbConfig {
    let mut config = SubsetConfig {
        selectors,
        fallback: Fallback::None,
        default_subset: MetadataMatch::default(),
        locality_weight_aware: false,
        scale_locality_weight: false,
        panic_mode_any: false,
        list_as_any: false,
        allow_redundant_keys: false,
        fallback_list: false,
    };
    change(&mut config);
    LbConfig { subset: Some(Arc::new(config)), ..LbConfig::default() }
}

fn of(value: Value) -> MetadataMatch {
    MetadataMatch::default().overridden(&value)
}

/// The last bytes of the hosts that requests with this metadata go to, and how the last pick ended.
fn chosen(scheduler: &mut Scheduler, wanted: Option<Value>) -> (Vec<u8>, SubsetNote) {
    let wanted = wanted.map(of);
    let context = PickContext { metadata: wanted.as_ref(), ..PickContext::default() };
    let mut counts = BTreeMap::new();
    for host in (0..60).filter_map(|_| scheduler.pick(&context)) {
        let Some(std::net::SocketAddr::V4(address)) = host.address().ip() else { panic!("{host:?}") };
        *counts.entry(address.ip().octets()[3]).or_insert(0) += 1;
    }
    (counts.into_keys().collect(), scheduler.subset_note().unwrap())
}

fn scheduler(config: LbConfig, hosts: Vec<Arc<Host>>) -> Scheduler {
    Scheduler::new(Arc::new(config), Arc::new(HostSet::single(hosts)), 1, fastrand::Rng::with_seed(1))
}

fn versions() -> Vec<Arc<Host>> {
    hosts(&[json!({"v": "1", "s": "a"}), json!({"v": "1", "s": "b"}), json!({"v": "2", "s": "a"}), json!({"x": "y"})])
}

const SELECTED: SubsetNote = SubsetNote { selected: true, fallback: false, panic: false };
const FELL_BACK: SubsetNote = SubsetNote { selected: false, fallback: true, panic: false };
const NOTHING: SubsetNote = SubsetNote { selected: false, fallback: false, panic: false };

#[test]
fn a_request_goes_to_the_subset_of_exactly_its_metadata() {
    let selectors = || vec![selector(&["v"], None), selector(&["s", "v"], None)];
    let mut scheduler = scheduler(config(selectors(), |_| {}), versions());
    for (wanted, expected, note) in [
        (Some(json!({"v": "1"})), &[1, 2][..], SELECTED),
        (Some(json!({"s": "a", "v": "1"})), &[1], SELECTED),
        (Some(json!({"s": "a"})), &[], NOTHING),
        (Some(json!({"v": "3"})), &[], NOTHING),
        (Some(json!({"v": "1", "x": "y"})), &[], NOTHING),
        (Some(json!({})), &[], NOTHING),
        (None, &[], NOTHING),
    ] {
        assert_eq!(chosen(&mut scheduler, wanted.clone()), (expected.to_vec(), note), "{wanted:?}");
    }
}

#[test]
fn fallbacks_are_any_host_or_the_default_subset() {
    for (fallback, default, expected, note) in [
        (Fallback::Any, json!({}), &[1, 2, 3, 4][..], FELL_BACK),
        (Fallback::Default, json!({"v": "2"}), &[3], FELL_BACK),
        (Fallback::Default, json!({"v": "9"}), &[], NOTHING),
        (Fallback::Default, json!({}), &[1, 2, 3, 4], FELL_BACK),
    ] {
        let config = config(vec![selector(&["v"], None)], |config| {
            config.fallback = fallback;
            config.default_subset = of(default.clone());
        });
        let mut scheduler = scheduler(config, versions());
        assert_eq!(chosen(&mut scheduler, Some(json!({"v": "3"}))), (expected.to_vec(), note), "{default}");
        assert_eq!(chosen(&mut scheduler, None).0, expected);
        assert_eq!(chosen(&mut scheduler, Some(json!({"v": "2"}))), (vec![3], SELECTED));
    }
}

#[test]
fn any_host_will_do_in_panic_mode_when_the_fallback_has_none() {
    let config = config(vec![selector(&["v"], None)], |config| {
        config.fallback = Fallback::Default;
        config.default_subset = of(json!({"v": "9"}));
        config.panic_mode_any = true;
    });
    let mut scheduler = scheduler(config, versions());
    let expected = SubsetNote { panic: true, ..NOTHING };
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "3"}))), (vec![1, 2, 3, 4], expected));
}

#[test]
fn a_selector_may_fall_back_its_own_way() {
    let keys = |keys: &[&str]| SelectorFallback::Keys(keys.iter().map(|key| (*key).to_owned()).collect());
    let config = config(
        vec![
            selector(&["s", "v"], Some(keys(&["v"]))),
            selector(&["v"], Some(SelectorFallback::Plain(Fallback::Any))),
            selector(&["x"], Some(SelectorFallback::Plain(Fallback::Default))),
            selector(&["y"], Some(SelectorFallback::Plain(Fallback::None))),
        ],
        |config| {
            config.fallback = Fallback::Any;
            config.default_subset = of(json!({"v": "2"}));
        },
    );
    let mut scheduler = scheduler(config, versions());
    for (wanted, expected, note) in [
        (json!({"s": "c", "v": "1"}), &[1, 2][..], SELECTED),
        (json!({"s": "c", "v": "9"}), &[1, 2, 3, 4], NOTHING),
        (json!({"v": "9"}), &[1, 2, 3, 4], NOTHING),
        (json!({"x": "9"}), &[3], NOTHING),
        (json!({"y": "9"}), &[], NOTHING),
        (json!({"z": "9"}), &[1, 2, 3, 4], FELL_BACK),
    ] {
        assert_eq!(chosen(&mut scheduler, Some(wanted.clone())), (expected.to_vec(), note), "{wanted}");
    }
}

#[test]
fn lists_are_any_of_their_values_where_configured() {
    let members = || hosts(&[json!({"v": ["1", "2"]}), json!({"v": "2"}), json!({"v": []})]);
    let with = |list_as_any| config(vec![selector(&["v"], None)], |config| config.list_as_any = list_as_any);
    let mut any = scheduler(with(true), members());
    assert_eq!(chosen(&mut any, Some(json!({"v": "1"}))).0, [1]);
    assert_eq!(chosen(&mut any, Some(json!({"v": "2"}))).0, [1, 2]);
    let mut whole = scheduler(with(false), members());
    assert_eq!(chosen(&mut whole, Some(json!({"v": "1"}))).0, [0_u8; 0]);
    assert_eq!(chosen(&mut whole, Some(json!({"v": ["1", "2"]}))).0, [1]);
}

#[test]
fn redundant_keys_are_left_out_where_allowed() {
    let mut selectors = vec![selector(&["s", "v"], None), selector(&["v"], None)];
    selectors.sort_by_key(|selector| std::cmp::Reverse(selector.keys.len()));
    let mut scheduler = scheduler(config(selectors, |config| config.allow_redundant_keys = true), versions());
    assert_eq!(chosen(&mut scheduler, Some(json!({"s": "b", "v": "1", "other": "x"}))).0, [2]);
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "1", "other": "x"}))).0, [1, 2]);
    assert_eq!(
        chosen(&mut scheduler, Some(json!({"s": "z", "v": "1"}))).0,
        [0_u8; 0],
        "the selector with most keys decides"
    );
}

#[test]
fn alternatives_of_the_metadata_are_tried_in_order() {
    let mut scheduler =
        scheduler(config(vec![selector(&["v"], None)], |config| config.fallback_list = true), versions());
    let wanted = json!({"v": "9", "fallback_list": [{"v": "8"}, {"v": "2"}, {"v": "1"}]});
    assert_eq!(chosen(&mut scheduler, Some(wanted)), (vec![3], SELECTED));
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "1", "fallback_list": []}))).0, [1, 2]);
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "1"}))).0, [1, 2]);
}

#[test]
fn a_single_host_subset_is_its_first_host_whatever_its_health() {
    let members = versions();
    members[0].state().change_flags(HealthFlags::FAILED_EDS_HEALTH, HealthFlags::NONE);
    let single = SubsetSelector { single_host: true, ..selector(&["v"], None) };
    let lb = config(vec![single], |_| {});
    let set = HostSet::single(members.clone());
    assert_eq!(set.subsets(&lb).duplicates(), 1);
    let mut scheduler = scheduler(lb, members);
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "1"}))), (vec![1], SELECTED));
}

#[test]
fn health_and_panic_count_within_a_subset() {
    let members = versions();
    members[0].state().change_flags(HealthFlags::FAILED_EDS_HEALTH, HealthFlags::NONE);
    let mut one = scheduler(config(vec![selector(&["v"], None)], |_| {}), members.clone());
    assert_eq!(chosen(&mut one, Some(json!({"v": "1"}))).0, [2], "half of it is well: that is no panic");
    assert!(!one.in_panic());
    members[1].state().change_flags(HealthFlags::FAILED_EDS_HEALTH, HealthFlags::NONE);
    assert_eq!(chosen(&mut one, Some(json!({"v": "1"}))).0, [1, 2]);
    assert!(one.in_panic());
}

#[test]
fn an_update_keeps_schedulers_of_subsets_that_stay() {
    let members = versions();
    let lb = config(vec![selector(&["v"], None)], |_| {});
    let mut scheduler = scheduler(lb, members.clone());
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "2"}))).0, [3]);
    let mut rest = members[..2].to_vec();
    rest.push(with_metadata(9, &json!({"v": "1"})));
    scheduler.refresh(Arc::new(HostSet::single(rest)));
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "2"}))).0, [0_u8; 0]);
    assert_eq!(chosen(&mut scheduler, Some(json!({"v": "1"}))).0, [1, 2, 9]);
}

#[test]
fn localities_keep_their_weights_or_are_scaled_where_configured() {
    let locality = |zone: &str| Arc::new(Locality { zone: zone.to_owned(), ..Locality::default() });
    let members = hosts(&[json!({"v": "1"}), json!({"v": "1"}), json!({"v": "1"}), json!({"v": "2"})]);
    let localities = vec![(locality("a"), 10, members[..1].to_vec()), (locality("b"), 9, members[1..].to_vec())];
    let set = HostSet { priorities: Box::new([PriorityHosts::new(localities)]), ..HostSet::empty() };
    for (aware, scale, expected) in [(false, true, [0, 0]), (true, false, [10, 9]), (true, true, [10, 6])] {
        let lb = config(vec![selector(&["v"], None)], |config| {
            (config.locality_weight_aware, config.scale_locality_weight) = (aware, scale);
        });
        let subsets = Subsets::build(&set, &lb);
        let name = of(json!({"v": "1"}));
        let Some(Subset::Hosts(hosts)) = subsets.by_name.get(name.subset_name()) else { panic!("{subsets:?}") };
        let weights: Vec<u32> = hosts.priorities[0].localities.iter().map(|locality| locality.weight).collect();
        assert_eq!(weights, expected, "aware {aware}, scaled {scale}");
        let weighted = LbConfig { locality_weighted: true, ..lb };
        assert_eq!(weighted.within_subset().locality_weighted, aware);
    }
}

#[test]
fn a_hashing_policy_hashes_within_the_subset() {
    let mut lb = config(vec![selector(&["v"], None)], |_| {});
    lb.policy = LbPolicy::RingHash(crate::config::cluster::RingHash::default());
    let mut scheduler = scheduler(lb, versions());
    let wanted = of(json!({"v": "1"}));
    let mut pick = |hash: u64| {
        let context = PickContext { metadata: Some(&wanted), hash: Some(hash), ..PickContext::default() };
        scheduler.pick(&context).unwrap().id()
    };
    let picked: Vec<u64> = (0..64).map(|n| pick(n << 58)).collect();
    assert_eq!(picked, (0..64).map(|n| pick(n << 58)).collect::<Vec<_>>());
    assert_eq!(picked.iter().collect::<BTreeSet<_>>().len(), 2);
}
