//! First bytes of a hostile connection: PROXY headers, client hellos and request lines, shown piece by piece.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;

use legate::config::listener::listener_filter::{
    ListenerFilterConfig, ListenerFilterKind, ProxyProtocolConfig, TlsInspectorConfig, TlvRule,
};
use legate::downstream::listener_filters::{FilterCounter, Inspection, Progress, Surroundings};
use libfuzzer_sys::fuzz_target;

struct Nowhere;

impl Surroundings for Nowhere {
    fn original_dst(&self) -> Option<SocketAddr> {
        None
    }

    fn is_elsewhere(&self, _: SocketAddr) -> bool {
        true
    }

    fn count(&self, _: usize, _: FilterCounter) {}

    fn tls_bytes_processed(&self, _: usize, _: usize) {}
}

fuzz_target!(|input: &[u8]| {
    let [switches, step, bytes @ ..] = input else { return };
    let filters = filters(*switches);
    let mut inspection = Inspection::new(&filters, Some(443));
    let mut shown = 0;
    while shown < bytes.len() {
        shown = (shown + usize::from(*step).max(1)).min(bytes.len());
        match inspection.advance(&bytes[..shown], &Nowhere) {
            Progress::NeedMore(wanted) => assert!(wanted > shown, "it waits for what it has"),
            Progress::Done | Progress::Reject => break,
        }
        assert!(inspection.consumed() <= shown);
    }
});

fn filters(switches: u8) -> Vec<ListenerFilterConfig> {
    let on = |bit: u8| switches & (1 << bit) != 0;
    let filter = |kind| ListenerFilterConfig { name: "".into(), kind, disabled: None };
    let mut filters = Vec::new();
    if on(0) {
        filters.push(filter(ListenerFilterKind::ProxyProtocol(Arc::new(ProxyProtocolConfig {
            allow_requests_without_proxy_protocol: on(1),
            allow_v1: on(2),
            allow_v2: true,
            stat_prefix: "".into(),
            rules: vec![TlvRule { tlv_type: 0xea, namespace: "n".into(), key: "k".into(), base64: on(3) }],
        }))));
    }
    if on(4) {
        filters.push(filter(ListenerFilterKind::TlsInspector(TlsInspectorConfig {
            max_client_hello_size: 16 * 1024,
            close_on_parsing_errors: on(5),
        })));
    }
    if on(6) {
        filters.push(filter(ListenerFilterKind::HttpInspector));
    }
    filters
}
