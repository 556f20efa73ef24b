use proptest::prelude::*;
use serde_json::json;

use super::super::{CheckOptions, Format, LoadOptions, check, load};
use super::*;

const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
const TYPES: [&str; 7] = [
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.core.v3.HealthCheck",
    "google.protobuf.Any",
    "xds.type.v3.TypedStruct",
];

fn bytes(type_name: &str, yaml: &str) -> Vec<u8> {
    load(yaml.as_bytes(), Format::Yaml, type_name, &LoadOptions::default()).expect(yaml).bytes().to_vec()
}

fn print(type_name: &str, yaml: &str, options: &JsonOptions) -> Value {
    to_json(type_name, &bytes(type_name, yaml), options).expect("own bytes")
}

#[test]
fn secrets_are_redacted() {
    let yaml = "{name: a, tls_certificate: {certificate_chain: {filename: /c}, private_key: {inline_string: k}, \
                password: {inline_bytes: AQID}}}";
    assert_eq!(
        print(SECRET, yaml, &JsonOptions::default()),
        json!({"name": "a", "tls_certificate": {
            "certificate_chain": {"filename": "/c"},
            "private_key": {"inline_string": "[redacted]"},
            "password": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
        }})
    );
    let open = JsonOptions { redact: false, ..JsonOptions::default() };
    assert_eq!(print(SECRET, yaml, &open)["tls_certificate"]["private_key"]["inline_string"], "k");
}

#[test]
fn secrets_are_redacted_in_packed_messages() {
    let secret = format!("'@type': t/{SECRET}, name: a, tls_certificate: {{private_key: {{inline_string: k}}}}");
    let json = print("google.protobuf.Any", &format!("{{{secret}}}"), &JsonOptions::default());
    assert_eq!(json["tls_certificate"]["private_key"]["inline_string"], "[redacted]");
    let typed = format!(
        "{{'@type': t/xds.type.v3.TypedStruct, type_url: t/{SECRET}, value: {{tlsCertificate: {{private_key: {{inline_string: k}}}}}}}}"
    );
    let json = print("google.protobuf.Any", &typed, &JsonOptions::default());
    assert_eq!(json["value"], json!({"tls_certificate": {"private_key": {"inline_string": "[redacted]"}}}));
}

#[test]
fn names_numbers_and_defaults() {
    let endpoint = "envoy.config.endpoint.v3.ClusterStats";
    let yaml = "{cluster_name: c, total_dropped_requests: 5, load_report_interval: 1s}";
    assert_eq!(
        print(endpoint, yaml, &JsonOptions::default()),
        json!({"cluster_name": "c", "total_dropped_requests": "5", "load_report_interval": "1s"})
    );
    let camel = JsonOptions { snake_case: false, ..JsonOptions::default() };
    assert_eq!(print(endpoint, yaml, &camel)["totalDroppedRequests"], "5");
    let all = JsonOptions { always_print_fields: true, ..JsonOptions::default() };
    assert_eq!(
        print(endpoint, "{cluster_name: c}", &all),
        json!({"cluster_name": "c", "cluster_service_name": "", "upstream_locality_stats": [],
               "total_dropped_requests": "0", "dropped_requests": []})
    );
    let percent = "envoy.type.v3.Percent";
    assert_eq!(print(percent, "{value: 50}", &JsonOptions::default()), json!({"value": 50}));
    assert_eq!(print(percent, "{value: 0.1}", &JsonOptions::default()), json!({"value": 0.1}));
    assert_eq!(print(percent, "{value: NaN}", &JsonOptions::default()), json!({"value": "NaN"}));
}

#[test]
fn an_any_that_cannot_be_read_is_shown_as_bytes() {
    let mut broken = Vec::new();
    crate::proto::reader::write::bytes(1, b"t/envoy.config.cluster.v3.Cluster", &mut broken);
    crate::proto::reader::write::bytes(2, &[0xff], &mut broken);
    assert_eq!(
        to_json("google.protobuf.Any", &broken, &JsonOptions::default()),
        Ok(json!({"@type": "t/envoy.config.cluster.v3.Cluster", "value": "/w=="}))
    );
    assert!(to_json("envoy.config.cluster.v3.Cluster", &[0xff], &JsonOptions::default()).is_err());
    assert_eq!(to_json("a.b", &[], &JsonOptions::default()), Err(JsonError::UnknownMessage("a.b".into())));
}

/// A JSON object for a message: any of its fields, filled with values of their kind.
fn message(schema: &'static MessageSchema, depth: u32) -> BoxedStrategy<Value> {
    match schema.well_known {
        WellKnown::Duration => (0_u32..9999, 0_u32..1000).prop_map(|(s, ms)| json!(format!("{s}.{ms:03}s"))).boxed(),
        WellKnown::Timestamp => Just(json!("2024-01-02T03:04:05.006Z")).boxed(),
        WellKnown::FieldMask => Just(json!("a.bC,d")).boxed(),
        WellKnown::Wrapper => schema.field_by_number(1).map_or(Just(Value::Null).boxed(), scalar_value),
        WellKnown::Struct => prop::collection::hash_map("[a-z]{1,3}", loose(), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed(),
        WellKnown::Value => loose(),
        WellKnown::ListValue => prop::collection::vec(loose(), 0..3).prop_map(Value::Array).boxed(),
        WellKnown::Any => {
            let cluster = descriptors::message("envoy.config.core.v3.Address").expect("known");
            if depth == 0 {
                return Just(json!({"@type": "t/google.protobuf.BoolValue", "value": true})).boxed();
            }
            message(cluster, depth - 1)
                .prop_map(|mut json| {
                    if let Value::Object(object) = &mut json {
                        object.insert("@type".into(), json!("t/envoy.config.core.v3.Address"));
                    }
                    json
                })
                .boxed()
        }
        WellKnown::No | WellKnown::TypedStruct => {
            let fields: Vec<_> =
                schema.fields.iter().filter(|field| depth > 0 || field.kind != Kind::Message).collect();
            if fields.is_empty() {
                return Just(json!({})).boxed();
            }
            prop::collection::vec(prop::sample::select(fields), 0..5)
                .prop_flat_map(move |fields| {
                    let members: Vec<_> = fields
                        .into_iter()
                        .map(|field| field_value(field, depth).prop_map(move |json| (field, json)))
                        .collect();
                    members
                })
                .prop_map(|members| {
                    let mut object = Map::new();
                    let mut oneofs = Vec::new();
                    for (field, json) in members {
                        if field.oneof.is_none_or(|oneof| !oneofs.contains(&oneof))
                            && !object.contains_key(&*field.name)
                        {
                            oneofs.extend(field.oneof);
                            object.insert(field.name.to_string(), json);
                        }
                    }
                    Value::Object(object)
                })
                .boxed()
        }
    }
}

fn field_value(field: &'static FieldSchema, depth: u32) -> BoxedStrategy<Value> {
    let single = |field: &'static FieldSchema| match field.message() {
        Some(inner) => message(inner, depth.saturating_sub(1)),
        None => scalar_value(field),
    };
    if let Some(entry) = field.map_entry() {
        let (Some(key), Some(value)) = (entry.field_by_number(1), entry.field_by_number(2)) else {
            return Just(json!({})).boxed();
        };
        let keys = if key.kind == Kind::String { "[a-z]{0,3}" } else { "[1-9]" };
        return prop::collection::hash_map(keys, single(value), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed();
    }
    match field.presence {
        Presence::Repeated => prop::collection::vec(single(field), 0..3).prop_map(Value::Array).boxed(),
        _ => single(field),
    }
}

fn scalar_value(field: &'static FieldSchema) -> BoxedStrategy<Value> {
    match field.kind {
        Kind::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Kind::String => "[a-zA-Zé ]{0,5}".prop_map(Value::from).boxed(),
        Kind::Bytes => prop::collection::vec(any::<u8>(), 0..5).prop_map(|bytes| scalar::base64(&bytes).into()).boxed(),
        Kind::Double => any::<i32>().prop_map(|value| json!(f64::from(value) / 8.0)).boxed(),
        Kind::Float => any::<i16>().prop_map(|value| json!(f32::from(value) / 8.0)).boxed(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => any::<i32>().prop_map(Value::from).boxed(),
        Kind::Uint32 | Kind::Fixed32 => any::<u32>().prop_map(Value::from).boxed(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => any::<i64>().prop_map(|value| value.to_string().into()).boxed(),
        Kind::Uint64 | Kind::Fixed64 => any::<u64>().prop_map(|value| value.to_string().into()).boxed(),
        Kind::Enum => match field.enumeration() {
            Some(enumeration) => {
                prop::sample::select(enumeration.values.iter().map(|value| value.name.to_string()).collect::<Vec<_>>())
                    .prop_map(Value::from)
                    .boxed()
            }
            None => Just(json!(0)).boxed(),
        },
        Kind::Message => Just(json!({})).boxed(),
    }
}

fn loose() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::hash_map("[a-z]{1,3}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

fn generated() -> impl Strategy<Value = (&'static str, Value)> {
    prop::sample::select(&TYPES[..]).prop_flat_map(|name| {
        let schema = descriptors::message(name).expect("known");
        (Just(name), message(schema, 4))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What was written as JSON, read and written again reads the same; every generated message passes the wire checks
    /// that are not validation rules.
    #[test]
    fn json_and_bytes_agree((name, json) in generated()) {
        let options = JsonOptions { redact: false, ..JsonOptions::default() };
        let read = |json: &Value| {
            load(json.to_string().as_bytes(), Format::Json, name, &LoadOptions::default()).map(|document| document.bytes().to_vec())
        };
        let first = read(&json).map_err(|error| TestCaseError::fail(format!("{name} {json}: {error}")))?;
        let printed = to_json(name, &first, &options).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let second = read(&printed).map_err(|error| TestCaseError::fail(format!("{name} {printed}: {error}")))?;
        prop_assert_eq!(&first, &second, "{} {}", json, printed);
        let checks = CheckOptions { validate: false, unknown_fields: crate::proto::UnknownFields::Reject };
        prop_assert!(check(name, &first, &checks).is_ok());
        let camel = JsonOptions { snake_case: false, ..options };
        let camel = to_json(name, &first, &camel).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(read(&camel).ok(), Some(first));
    }

    /// Bytes that are no message, or nearly one, end in an error or a result, never in a panic.
    #[test]
    fn any_bytes_are_survived(
        (name, json) in generated(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        random in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let document = load(json.to_string().as_bytes(), Format::Json, name, &LoadOptions::default());
        let mut bytes = document.map_err(|error| TestCaseError::fail(error.to_string()))?.bytes().to_vec();
        for (at, byte) in noise {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        for bytes in [&bytes, &random] {
            let _ = check(name, bytes, &CheckOptions::default());
            let _ = to_json(name, bytes, &JsonOptions::default());
            let _ = load(bytes, Format::Yaml, name, &LoadOptions::default());
            let _ = load(bytes, Format::Json, name, &LoadOptions::default());
        }
    }
}
