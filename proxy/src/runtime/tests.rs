use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value as Proto};
use stats::StoreOptions;

use super::*;

fn structure(fields: Vec<(&str, Kind)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, kind)| (key.to_owned(), Proto { kind: Some(kind) })).collect() }
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

fn loader(layers: Vec<LayerConfig>) -> (Loader, Arc<Store>) {
    let store = Store::new(3, StoreOptions::default());
    (Loader::new(layers, "cluster", &store), store)
}

fn layer(name: &str, source: LayerSource) -> LayerConfig {
    LayerConfig { name: name.to_owned(), source }
}

#[test]
fn values_are_what_they_can_be_read_as() {
    let fraction = structure(vec![("numerator", Kind::NumberValue(3.0)), ("denominator", text("TEN_THOUSAND"))]);
    let nested = structure(vec![("y", Kind::NumberValue(1.5)), ("f", Kind::StructValue(fraction))]);
    let values = flatten(&structure(vec![
        ("a.b", Kind::NumberValue(5.0)),
        ("on", Kind::BoolValue(true)),
        ("s", text("hello")),
        ("quoted", text("7")),
        ("x", Kind::StructValue(nested)),
        ("neg", Kind::NumberValue(-1.0)),
    ]))
    .unwrap();
    let snapshot = Snapshot { values };
    assert_eq!(snapshot.integer("a.b"), Some(5));
    assert_eq!(snapshot.text("a.b"), Some("5"));
    assert_eq!(snapshot.fraction("a.b"), Some(FractionalPercent { numerator: 5, denominator: 100 }));
    assert_eq!(snapshot.integer("quoted"), Some(7));
    assert_eq!(snapshot.fraction("x.f"), Some(FractionalPercent { numerator: 3, denominator: 10_000 }));
    assert_eq!(snapshot.number("x.y"), Some(1.5));
    assert_eq!((snapshot.integer("x.y"), snapshot.integer("neg"), snapshot.integer("s")), (None, None, None));
    assert!(snapshot.flag("on", false) && snapshot.flag("s", true) && !snapshot.flag("missing", false));
}

#[test]
fn lists_and_nulls_are_refused_by_key() {
    for kind in [Kind::ListValue(ListValue::default()), Kind::NullValue(0)] {
        let inner = structure(vec![("bad", kind)]);
        assert_eq!(flatten(&structure(vec![("a", Kind::StructValue(inner))])), Err("a.bad".to_owned()));
    }
}

#[test]
fn later_layers_win_and_admin_overrides_come_and_go() {
    let base = flatten(&structure(vec![("a", Kind::NumberValue(5.0))])).unwrap();
    let (mut loader, store) = loader(vec![
        layer("base", LayerSource::Static(base)),
        layer("remote", LayerSource::Rtds { resource: "r".into(), source: None }),
        layer("admin", LayerSource::Admin),
    ]);
    loader.set_rtds("remote", flatten(&structure(vec![("a", Kind::NumberValue(6.0))])).unwrap());
    assert_eq!(loader.snapshot().integer("a"), Some(6));
    loader.modify(vec![("a".into(), "7".into()), ("b".into(), "{numerator: 1, denominator: MILLION}".into())]).unwrap();
    assert_eq!(loader.snapshot().integer("a"), Some(7));
    assert_eq!(loader.snapshot().fraction("b"), Some(FractionalPercent { numerator: 1, denominator: 1_000_000 }));
    let view = loader.view();
    assert_eq!(view.layers, ["base", "remote", "admin"]);
    assert_eq!(view.entries["a"], (vec!["5".into(), "6".into(), "7".into()], "7".into()));
    loader.modify(vec![("a".into(), String::new()), ("b".into(), String::new())]).unwrap();
    assert_eq!(loader.snapshot().integer("a"), Some(6));
    let stats = stats::render_text(&store, &stats::Query::default());
    assert!(
        stats.contains("runtime.num_layers: 3\n") && stats.contains("runtime.admin_overrides_active: 0\n"),
        "{stats}"
    );
    // Only an RTDS layer of that name takes them, and nothing is a value too.
    loader.set_rtds("base", Values::new());
    assert_eq!(loader.view().entries["a"].0, ["5", "6", ""]);
    loader.set_rtds("remote", Values::new());
    assert_eq!(loader.snapshot().integer("a"), Some(5));
}

#[test]
fn without_an_admin_layer_nothing_can_be_modified() {
    let (mut loader, _store) = loader(Vec::new());
    assert_eq!(loader.modify(vec![("a".into(), "1".into())]), Err("No admin layer specified".to_owned()));
}

#[test]
fn a_disk_layer_follows_its_link() {
    let directory = tempfile::tempdir().unwrap();
    let version = |name: &str, value: &str| {
        let path = directory.path().join(name).join("sub/cluster/health");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("min"), format!("# a comment\n{value}\n")).unwrap();
        std::fs::write(path.join(".hidden"), "1").unwrap();
    };
    version("v1", "10");
    version("v2", "20");
    let root = directory.path().join("current");
    std::os::unix::fs::symlink("v1", &root).unwrap();
    let source =
        LayerSource::Disk { symlink_root: root.clone(), subdirectory: "sub".into(), append_service_cluster: true };
    let (mut loader, _store) = loader(vec![layer("disk", source)]);
    assert_eq!(loader.snapshot().integer("health.min"), Some(10));
    assert_eq!(loader.view().entries.len(), 1);
    assert!(!loader.reload_disk());
    let swap = directory.path().join("next");
    std::os::unix::fs::symlink("v2", &swap).unwrap();
    std::fs::rename(&swap, &root).unwrap();
    assert!(loader.reload_disk());
    assert_eq!(loader.snapshot().integer("health.min"), Some(20));
    std::fs::remove_file(&root).unwrap();
    assert!(loader.reload_disk());
    assert_eq!(loader.snapshot().integer("health.min"), None);
}
