//! Orders and verdicts as measured on Envoy 1.40.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use envoy_types::pb::google::protobuf::BoolValue;

use super::*;
use crate::config::Session;
use crate::stream_info::{Address, ConnectionInfo};

/// A format of one command: `%name%` is the request header of that name.
#[derive(Debug)]
struct OfHeader(HeaderName, String);

impl ValueFormat for OfHeader {
    fn append_to(&self, out: &mut Vec<u8>, context: &ValueContext<'_>, _empty_for_missing: bool) {
        let value = context.request.and_then(|head| head.headers.value(&self.0)).map_or(&[][..], |value| value);
        out.extend_from_slice(value);
        out.extend_from_slice(self.1.as_bytes());
    }
}

fn parse_format(text: &str) -> Result<Box<dyn ValueFormat>, String> {
    let (name, rest) = text.strip_prefix('%').and_then(|text| text.split_once('%')).ok_or("no command")?;
    let name = HeaderName::parse(name.as_bytes()).ok_or("no header")?;
    Ok(Box::new(OfHeader(name, rest.to_owned())))
}

fn info() -> StreamInfo {
    let unnamed = Address::Pipe("".into());
    let connection = ConnectionInfo::between(unnamed.clone(), unnamed);
    StreamInfo::new(Rc::new(connection), Instant::now(), SystemTime::now(), 1)
}

fn add(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), append_action: action.into(), ..HeaderValueOption::default() }
}

fn parse(adds: Vec<HeaderValueOption>, removes: &[&str]) -> Result<HeaderMutations, ConfigError> {
    let removes = removes.iter().map(|name| (*name).to_owned()).collect();
    HeaderMutations::parse(adds, removes, Session::default().root(), Fields::REQUEST, parse_format)
}

fn applied(headers: &[(&str, &str)], adds: Vec<HeaderValueOption>, removes: &[&str]) -> Vec<String> {
    let mut head = RequestHead::default();
    for (name, value) in headers {
        head.headers.append(HeaderName::parse(name.as_bytes()).expect("name"), (*value).to_owned());
    }
    parse(adds, removes).expect("valid").apply_to_request(&mut head, &info());
    head.headers.iter().map(|header| format!("{}: {}", header.name, String::from_utf8_lossy(&header.value))).collect()
}

#[test]
fn orders_by_table() {
    use HeaderAppendAction::{
        AddIfAbsent as Absent, AppendIfExistsOrAdd as Append, OverwriteIfExists as Replace,
        OverwriteIfExistsOrAdd as Set,
    };
    let keep = |mut option: HeaderValueOption| {
        option.keep_empty_value = true;
        option
    };
    let had = [("x-h", "old"), ("x-v", "val"), ("via", "a")];
    for (what, adds, removes, expected) in [
        ("removed, then added", vec![add("x-h", "n", Append)], vec!["x-h"], vec!["x-v: val", "via: a", "x-h: n"]),
        (
            "overwriting first, the last one counts",
            vec![add("x-1", "a", Append), add("x-2", "b", Set), add("x-1", "c", Append), add("x-2", "d", Set)],
            vec![],
            vec!["x-h: old", "x-v: val", "via: a", "x-2: d", "x-1: a", "x-1: c"],
        ),
        (
            "absent when looked at, twice",
            vec![add("x-1", "a", Absent), add("x-1", "b", Absent), add("x-h", "c", Absent)],
            vec![],
            vec!["x-h: old", "x-v: val", "via: a", "x-1: a", "x-1: b"],
        ),
        (
            "an overwritten header goes to the end",
            vec![add("x-h", "n", Replace), add("x-n", "n", Replace)],
            vec![],
            vec!["x-v: val", "via: a", "x-h: n"],
        ),
        (
            "empty values are dropped or kept",
            vec![
                add("x-1", "", Append),
                keep(add("x-2", "", Append)),
                add("x-3", "%nope%", Append),
                add("x-h", "", Set),
            ],
            vec![],
            vec!["x-h: old", "x-v: val", "via: a", "x-2: "],
        ),
        (
            "some names join",
            vec![add("via", "b", Append), add("x-h", "b", Append)],
            vec![],
            vec!["x-h: old", "x-v: val", "via: a,b", "x-h: b"],
        ),
        (
            "values see the headers before any of them is written",
            vec![add("x-h", "new", Set), add("x-see", "%x-h%!", Append)],
            vec!["x-v"],
            vec!["via: a", "x-h: new", "x-see: old!"],
        ),
    ] {
        assert_eq!(applied(&had, adds, &removes), expected, "{what}");
    }
}

#[test]
#[expect(deprecated, reason = "Envoy still accepts the field")]
fn refusals_by_table() {
    let append = HeaderAppendAction::AppendIfExistsOrAdd;
    let both =
        HeaderValueOption { append: Some(BoolValue { value: true }), ..add("a", "1", HeaderAppendAction::AddIfAbsent) };
    for (adds, removes, error) in [
        (vec![add("Host", "a", append)], vec![], "'Host': :-prefixed or host headers may not be modified"),
        (vec![add(":path", "a", append)], vec![], "':path': :-prefixed or host headers may not be modified"),
        (vec![add(":x", "a", append)], vec![], "':x': :-prefixed or host headers may not be modified"),
        (vec![], vec!["host"], "'host': :-prefixed or host headers may not be removed"),
        (vec![], vec![":status"], "':status': :-prefixed or host headers may not be removed"),
        (vec![add("a", "x%", append)], vec![], "no command"),
        (vec![both], vec![], "Both append and append_action are set and it's not allowed"),
    ] {
        assert_eq!(parse(adds, &removes).expect_err(error).message, error);
    }
}
