use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::{Any, Duration};
use prost::Message as _;

use super::super::reader::write;
use super::*;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ANY: &str = "type.googleapis.com/google.protobuf.Any";

fn cluster() -> Cluster {
    Cluster { name: "c".into(), connect_timeout: Some(Duration { seconds: 1, nanos: 0 }), ..Cluster::default() }
}

fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.into(), value }
}

#[test]
fn resources_are_checked_inside_a_response() {
    let bad = Cluster { name: String::new(), ..cluster() };
    let resources = vec![any(CLUSTER, cluster().encode_to_vec()), any(CLUSTER, bad.encode_to_vec())];
    let response = DiscoveryResponse { resources, ..DiscoveryResponse::default() };
    let name = "envoy.service.discovery.v3.DiscoveryResponse";
    let error = check(name, &response.encode_to_vec(), &CheckOptions::default()).expect_err("no name");
    assert_eq!(
        error,
        CheckError::Constraints(vec![Violation {
            path: "resources[1].name".into(),
            reason: "value length must be at least 1 characters".into(),
            chain: "ClusterValidationError.Name: value length must be at least 1 characters".into(),
        }])
    );
    let options = CheckOptions { validate: false, ..CheckOptions::default() };
    assert!(check(name, &response.encode_to_vec(), &options).is_ok());
}

#[test]
fn unknown_fields_are_found_at_any_depth() {
    let mut inner = cluster().encode_to_vec();
    write::bytes(12_345, b"new", &mut inner);
    let mut outer = any(CLUSTER, inner).encode_to_vec();
    write::key(99, 0, &mut outer);
    outer.push(1);
    let report = check(ANY, &outer, &CheckOptions::default()).expect("tolerated");
    assert_eq!(report.unknown_field_count, 2);
    let paths: Vec<_> =
        report.unknown_fields.iter().map(|field| (field.path.as_str(), field.message.as_str())).collect();
    assert_eq!(paths, [("99", "google.protobuf.Any"), ("12345", "envoy.config.cluster.v3.Cluster")]);

    let options = CheckOptions { unknown_fields: UnknownFields::Reject, ..CheckOptions::default() };
    let error = check(ANY, &outer, &options).expect_err("rejected").to_string();
    assert!(
        error.contains("(type envoy.config.cluster.v3.Cluster with unknown field set {12345}) has unknown fields"),
        "{error}"
    );
    let options = CheckOptions { unknown_fields: UnknownFields::Ignore, ..options };
    assert_eq!(check(ANY, &outer, &options).expect("ignored").unknown_field_count, 0);
}

#[test]
fn what_is_no_message_is_an_error_with_a_path() {
    for (bytes, path) in [
        (vec![0x0a, 5, b'a'], ""),
        // connect_timeout (4) as a varint
        (vec![0x20, 1], "connect_timeout"),
        // name (1) that is not UTF-8
        (vec![0x0a, 1, 0xff], "name"),
        // connect_timeout whose content is cut short
        (vec![0x22, 1, 0x08], "connect_timeout"),
    ] {
        match check(CLUSTER, &bytes, &CheckOptions::default()) {
            Err(CheckError::Malformed { path: found, .. }) => assert_eq!(found, path, "{bytes:?}"),
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    assert!(
        matches!(check("no.such", &[], &CheckOptions::default()), Err(CheckError::UnknownMessage(name)) if name == "no.such")
    );
}

#[test]
fn nesting_ends_in_an_error() {
    let mut nested = any("", Vec::new());
    for _ in 0..5000 {
        nested = any(ANY, nested.encode_to_vec());
    }
    let error = check(ANY, &nested.encode_to_vec(), &CheckOptions::default()).expect_err("too deep").to_string();
    assert!(error.contains("google.protobuf.Any is nested too deep"), "{error}");

    // Values in lists in values
    let mut value = vec![0x08, 0];
    for _ in 0..5000 {
        let mut list = Vec::new();
        write::bytes(1, &value, &mut list);
        value.clear();
        write::bytes(6, &list, &mut value);
    }
    let error = check("google.protobuf.Value", &value, &CheckOptions::default()).expect_err("too deep").to_string();
    assert!(error.contains("messages are nested too deep"), "{error}");
    assert!(super::super::to_json("google.protobuf.Value", &value, &Default::default()).is_err());
}

/// Packed messages that are themselves nested: the deepest that is allowed fits a small stack, what is deeper ends in an
/// error.
#[test]
fn the_deepest_message_fits_the_stack() {
    const MATCHER: &str = "xds.type.matcher.v3.Matcher";
    let wrap = |inner: &[u8]| {
        let mut bytes = Vec::new();
        write::nested(3, &mut bytes, |out| {
            write::nested(1, out, |out| {
                write::nested(3, out, |out| {
                    write::nested(1, out, |out| {
                        write::nested(3, out, |out| {
                            write::nested(2, out, |out| {
                                write::nested(2, out, |out| {
                                    write::bytes(1, MATCHER.as_bytes(), out);
                                    write::bytes(2, inner, out);
                                });
                            });
                        });
                    });
                });
            });
        });
        bytes
    };
    let outcome = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            bytes = wrap(&bytes);
        }
        let run = move || {
            let options = CheckOptions { validate: false, ..CheckOptions::default() };
            let checked = check(MATCHER, &bytes, &options).is_ok();
            let _ = super::super::to_json(MATCHER, &bytes, &Default::default());
            checked
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no overflow")
    };
    assert!(outcome(20));
    assert!(outcome(30));
    assert!(!outcome(40));
}

#[test]
fn parts_of_a_message_are_judged_together() {
    // As a merged document has them: an address in one part, its port in the other.
    let admin = |socket_address: &[u8]| {
        let mut bytes = Vec::new();
        write::nested(12, &mut bytes, |out| {
            write::nested(3, out, |out| write::nested(1, out, |out| out.extend_from_slice(socket_address)));
        });
        bytes
    };
    let (address, port) = (admin(&[0x12, 1, b'a']), admin(&[0x18, 1]));
    let faults = |bytes: &[u8]| match check("envoy.config.bootstrap.v3.Bootstrap", bytes, &CheckOptions::default()) {
        Err(CheckError::Constraints(violations)) => violations.into_iter().map(|violation| violation.path).collect(),
        Ok(_) => Vec::new(),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(faults(&address), ["admin.address.socket_address"]);
    assert_eq!(faults(&port), ["admin.address.socket_address.address"]);
    assert_eq!(faults(&[address, port].concat()), Vec::<String>::new());
}

#[test]
fn the_last_member_of_a_oneof_counts() {
    // DataSource: an empty filename would break its rule, but inline_string overrides it.
    let name = "envoy.config.core.v3.DataSource";
    assert!(check(name, &[0x0a, 0], &CheckOptions::default()).is_err());
    assert!(check(name, &[0x0a, 0, 0x1a, 1, b'x'], &CheckOptions::default()).is_ok());
    assert!(check(name, &[0x1a, 1, b'x', 0x0a, 0], &CheckOptions::default()).is_err());
}

#[test]
fn deprecated_features_are_named() {
    let name = "envoy.config.core.v3.Node";
    let listening = super::super::load(
        b"{listening_addresses: {pipe: {path: /a}}}",
        super::super::Format::Yaml,
        name,
        &Default::default(),
    );
    let report = check(name, listening.expect("valid").bytes(), &CheckOptions::default()).expect("valid");
    assert_eq!(
        report.deprecated,
        [Deprecated {
            name: "envoy.config.core.v3.Node.listening_addresses".into(),
            file: "envoy/config/core/v3/base.proto",
            path: "listening_addresses".into(),
            disallowed: false,
        }]
    );
}

#[test]
fn typed_structs_are_checked_as_what_they_stand_for() {
    let text = |value: &str| {
        format!("{{'@type': t/xds.type.v3.TypedStruct, type_url: t/envoy.config.cluster.v3.Cluster, value: {value}}}")
    };
    let load = |value: &str| {
        super::super::load(text(value).as_bytes(), super::super::Format::Yaml, ANY, &Default::default()).expect("valid")
    };
    let options = CheckOptions::default();
    assert!(check(ANY, load("{name: a, connect_timeout: 5s}").bytes(), &options).is_ok());
    let report = check(ANY, load("{name: a, foo: 1}").bytes(), &options).expect("tolerated");
    assert_eq!(report.unknown_fields[0].path, "foo");
    for (value, fault) in [
        ("{connect_timeout: 5s}", "ClusterValidationError.Name: value length must be at least 1"),
        ("{name: 5}", "expected a string, found a number"),
        ("{name: a, connect_timeout: x}", "duration must start with an integer"),
    ] {
        let error = check(ANY, load(value).bytes(), &options).expect_err(value).to_string();
        assert!(error.contains(fault), "{error}");
    }
    let any = Any::decode(load("{name: a}").bytes()).expect("an any");
    let (url, bytes) = super::super::unwrap_typed_struct(&any.type_url, &any.value).expect("known");
    assert_eq!((url.as_str(), bytes), ("t/envoy.config.cluster.v3.Cluster", vec![0x0a, 1, b'a']));
}

#[test]
fn numbers_lists_and_maps_have_rules() {
    let enumeration =
        Cluster { lb_policy: 77, cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(-1)), ..cluster() };
    match check(CLUSTER, &enumeration.encode_to_vec(), &CheckOptions::default()) {
        Err(CheckError::Constraints(violations)) => {
            let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
            assert_eq!(paths, ["type", "lb_policy"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_required_member_of_a_oneof_may_be_absent() {
    use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    let verdict = |matcher: StringMatcher| {
        check("envoy.type.matcher.v3.StringMatcher", &matcher.encode_to_vec(), &CheckOptions::default()).map(|_| ())
    };
    let prefix = StringMatcher { match_pattern: Some(MatchPattern::Prefix("a".into())), ignore_case: false };
    assert_eq!(verdict(prefix), Ok(()), "`safe_regex` is required only where it is the chosen member");
    assert!(matches!(verdict(StringMatcher::default()), Err(CheckError::Constraints(_))), "one of them must be set");
}
