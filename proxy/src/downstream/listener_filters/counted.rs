//! What listener filters count. Names stand in no listener's scope, so all listeners share them.

use std::sync::Arc;

use stats::{GroupHandle, Store};

use super::FilterCounter;
use crate::config::listener::listener_filter::ListenerFilterKind;
use crate::observe::catalogue::{HttpInspectorStats, ProxyProtocolErrors, ProxyProtocolStats, TlsInspectorStats};

/// The statistics of one listener filter on one worker.
pub enum FilterStats {
    /// `tls_inspector.`
    Tls(TlsInspectorStats, Arc<GroupHandle<TlsInspectorStats>>),
    /// `http_inspector.`
    Http(HttpInspectorStats, Arc<GroupHandle<HttpInspectorStats>>),
    /// `proxy_proto.`
    Proxy(
        ProxyProtocolStats,
        ProxyProtocolErrors,
        (Arc<GroupHandle<ProxyProtocolStats>>, Arc<GroupHandle<ProxyProtocolErrors>>),
    ),
    /// Nothing.
    None,
}

impl FilterStats {
    /// What a filter of this kind counts, by the thread with that shard.
    #[must_use]
    pub fn new(kind: &ListenerFilterKind, store: &Arc<Store>, shard: usize) -> Self {
        match kind {
            ListenerFilterKind::TlsInspector(_) => {
                let handle = store.group::<TlsInspectorStats>("tls_inspector.");
                Self::Tls(handle.shard(shard), handle)
            }
            ListenerFilterKind::HttpInspector => {
                let handle = store.group::<HttpInspectorStats>("http_inspector.");
                Self::Http(handle.shard(shard), handle)
            }
            ListenerFilterKind::ProxyProtocol(config) => {
                let prefix = match &*config.stat_prefix {
                    "" => "proxy_proto.".to_owned(),
                    name => format!("proxy_proto.{name}."),
                };
                let handles = (store.group::<ProxyProtocolStats>(&prefix), store.group::<ProxyProtocolErrors>(""));
                Self::Proxy(handles.0.shard(shard), handles.1.shard(shard), handles)
            }
            ListenerFilterKind::OriginalDst => Self::None,
        }
    }

    /// Counts.
    pub fn count(&self, counter: FilterCounter) {
        match self {
            Self::Tls(stats, _) => match counter {
                FilterCounter::TlsFound => stats.tls_found().inc(),
                FilterCounter::TlsNotFound => stats.tls_not_found().inc(),
                FilterCounter::SniFound => stats.sni_found().inc(),
                FilterCounter::SniNotFound => stats.sni_not_found().inc(),
                FilterCounter::AlpnFound => stats.alpn_found().inc(),
                FilterCounter::AlpnNotFound => stats.alpn_not_found().inc(),
                FilterCounter::ClientHelloTooLarge => stats.client_hello_too_large().inc(),
                _ => {}
            },
            Self::Http(stats, _) => match counter {
                FilterCounter::Http10Found => stats.http10_found().inc(),
                FilterCounter::Http11Found => stats.http11_found().inc(),
                FilterCounter::Http2Found => stats.http2_found().inc(),
                FilterCounter::HttpNotFound => stats.http_not_found().inc(),
                _ => {}
            },
            Self::Proxy(stats, errors, _) => match counter {
                FilterCounter::ProxyNotFoundAllowed => stats.not_found_allowed().inc(),
                FilterCounter::ProxyNotFoundDisallowed => stats.not_found_disallowed().inc(),
                FilterCounter::ProxyV1Found => stats.v1_found().inc(),
                FilterCounter::ProxyV1Disallowed => stats.v1_disallowed().inc(),
                FilterCounter::ProxyV1Error => stats.v1_error().inc(),
                FilterCounter::ProxyV2Found => stats.v2_found().inc(),
                FilterCounter::ProxyV2Disallowed => stats.v2_disallowed().inc(),
                FilterCounter::ProxyV2Error => stats.v2_error().inc(),
                FilterCounter::ProxyError => errors.downstream_cx_proxy_proto_error().inc(),
                _ => {}
            },
            Self::None => {}
        }
    }

    /// Records how much of a connection the TLS inspector looked at.
    pub fn bytes_processed(&self, bytes: usize) {
        if let Self::Tls(stats, _) = self {
            stats.bytes_processed().record(bytes as u64);
        }
    }
}
