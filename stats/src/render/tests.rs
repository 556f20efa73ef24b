use std::sync::Arc;

use super::*;
use crate::store::StoreOptions;

fn store() -> (Arc<Store>, Vec<crate::TextReadout>, Vec<crate::SharedGauge>) {
    let store = Store::new(3, StoreOptions::default());
    let text = store.text("cluster.a.version_text");
    text.set("<v\"1\\2\n'&>\u{7f}\u{1}");
    let names = ["cluster.a-b.x", "cluster.a.x", "cluster.a|\"q\\\n.x", "cluster.a.b.x", "cluster.a_b.x"];
    let gauges = names.map(|name| store.gauge(name));
    (store, vec![text], gauges.into())
}

fn body(query: &str) -> Rendered {
    let (store, _texts, _gauges) = store();
    render(&store, &Query::parse(query).unwrap())
}

#[test]
fn hostile_names_are_escaped_for_prometheus() {
    let rendered = body("format=prometheus&text_readouts");
    assert_eq!(rendered.content_type, "text/plain; charset=UTF-8");
    assert_eq!(
        rendered.body,
        "# TYPE envoy_cluster_b_x gauge\n\
         envoy_cluster_b_x{envoy_cluster_name=\"a\"} 0\n\
         # TYPE envoy_cluster_x gauge\n\
         envoy_cluster_x{envoy_cluster_name=\"a\"} 0\n\
         envoy_cluster_x{envoy_cluster_name=\"a-b\"} 0\n\
         envoy_cluster_x{envoy_cluster_name=\"a_b\"} 0\n\
         envoy_cluster_x{envoy_cluster_name=\"a|\\\"q\\\\\\n\"} 0\n\
         # TYPE envoy_cluster_version_text gauge\n\
         envoy_cluster_version_text{envoy_cluster_name=\"a\",text_value=\"<v\\\"1\\\\2\\n'&>\u{7f}\u{1}\"} 0\n"
    );
}

#[test]
fn hostile_texts_are_escaped_for_json() {
    let rendered = body("format=json&type=TextReadouts");
    assert_eq!(rendered.content_type, "application/json");
    let expected = r#"{"stats":[{"name":"cluster.a.version_text","value":"<v\"1\\2\n'&>\u007f\u0001"}]}"#;
    assert_eq!(rendered.body, expected);
    assert_eq!(body("format=json&filter=none").body, r#"{"stats":[]}"#);
}

#[test]
fn hostile_texts_are_escaped_for_pages() {
    let rendered = body("format=active-html&filter=version|'%3E&type=TextReadouts");
    assert_eq!(rendered.content_type, "text/html; charset=UTF-8");
    assert!(rendered.body.contains("<meta http-equiv='refresh'"));
    assert!(rendered.body.contains("value='version|&#39;&gt;'"));
    assert!(rendered.body.contains("cluster.a.version_text: &quot;&lt;v&quot;1\\2\n&#39;&amp;&gt;"));
    assert!(rendered.body.contains("<option value='TextReadouts' selected>"));
}

#[test]
fn filters_find_a_part_of_the_name_and_can_be_inverted() {
    let names = |query| {
        body(query).body.lines().filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(names("type=Gauges&filter=a.b"), ["cluster.a-b.x", "cluster.a.b.x", "cluster.a_b.x"]);
    assert_eq!(names("type=Gauges&filter=a.b|q&invert_filter"), ["cluster.a.x"]);
    assert_eq!(names("hidden=only"), [""; 0]);
}
