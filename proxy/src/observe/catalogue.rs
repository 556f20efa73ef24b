//! Every group of statistics the proxy keeps, by the prefix it stands under. Names are Envoy's.
//!
//! A group is registered when configuration is built and each worker takes its shard of it then; nothing here is looked up on
//! the data path. Code counters (`upstream_rq_503`) are families of their own: see [`stats::Codes`].

stats::group! {
    /// `cluster.<name>.`: connections, requests, membership and load balancing of a cluster.
    pub struct ClusterStats {
        counters {
            assignment_stale,
            assignment_timeout_received,
            assignment_use_cached,
            bind_errors,
            default_total_match_count = "default.total_match_count",
            lb_healthy_panic,
            lb_local_cluster_not_ok,
            lb_recalculate_zone_structures,
            lb_subsets_created,
            lb_subsets_fallback,
            lb_subsets_fallback_panic,
            lb_subsets_removed,
            lb_subsets_selected,
            lb_zone_cluster_too_small,
            lb_zone_no_capacity_left,
            lb_zone_routing_all_directly,
            lb_zone_routing_cross_zone,
            lb_zone_routing_sampled,
            membership_change,
            original_dst_host_invalid,
            retry_or_shadow_abandoned,
            update_attempt,
            update_empty,
            update_failure,
            update_no_rebuild,
            update_success,
            upstream_cx_close_notify,
            upstream_cx_connect_attempts_exceeded,
            upstream_cx_connect_fail,
            upstream_cx_connect_timeout,
            upstream_cx_connect_with_0_rtt,
            upstream_cx_destroy,
            upstream_cx_destroy_local,
            upstream_cx_destroy_local_with_active_rq,
            upstream_cx_destroy_remote,
            upstream_cx_destroy_remote_with_active_rq,
            upstream_cx_destroy_with_active_rq,
            upstream_cx_http1_total,
            upstream_cx_http2_total,
            upstream_cx_http3_total,
            upstream_cx_idle_timeout,
            upstream_cx_max_duration_reached,
            upstream_cx_max_requests,
            upstream_cx_none_healthy,
            upstream_cx_overflow,
            upstream_cx_pool_overflow,
            upstream_cx_preconnect_skipped,
            upstream_cx_protocol_error,
            upstream_cx_rx_bytes_total,
            upstream_cx_total,
            upstream_cx_tx_bytes_total,
            upstream_flow_control_backed_up_total,
            upstream_flow_control_drained_total,
            upstream_flow_control_paused_reading_total,
            upstream_flow_control_resumed_reading_total,
            upstream_http3_broken,
            upstream_internal_redirect_failed_total,
            upstream_internal_redirect_succeeded_total,
            upstream_rq_0rtt,
            upstream_rq_active_overflow,
            upstream_rq_cancelled,
            upstream_rq_completed,
            upstream_rq_maintenance_mode,
            upstream_rq_max_duration_reached,
            upstream_rq_pending_failure_eject,
            upstream_rq_pending_overflow,
            upstream_rq_pending_total,
            upstream_rq_per_try_idle_timeout,
            upstream_rq_per_try_timeout,
            upstream_rq_retry,
            upstream_rq_retry_backoff_exponential,
            upstream_rq_retry_backoff_ratelimited,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
            upstream_rq_rx_reset,
            upstream_rq_rx_reset_no_error,
            upstream_rq_timeout,
            upstream_rq_total,
            upstream_rq_tx_reset,
        }
        gauges {
            lb_subsets_active,
            max_host_weight,
            membership_degraded,
            membership_excluded,
            membership_healthy,
            membership_total,
            upstream_cx_active,
            upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            upstream_queue_overloaded,
            upstream_rq_active,
            upstream_rq_pending_active,
            version,
            warming_state,
        }
        histograms {
            upstream_cx_connect_ms: Milliseconds,
            upstream_cx_length_ms: Milliseconds,
            upstream_rq_per_cx: Unspecified,
        }
    }
}

stats::group! {
    /// `cluster.<name>.` and its variants (`external.`, `zone.<from>.<to>.`), `vhost.<name>.vcluster.<name>.`: how long
    /// responses took.
    pub struct RequestTimeStats {
        histograms { upstream_rq_time: Milliseconds }
    }
}

stats::group! {
    /// `cluster.<name>.` of clusters with `track_cluster_stats.timeout_budgets`: which part of its timeouts a request takes.
    pub struct TimeoutBudgetStats {
        histograms {
            upstream_rq_timeout_budget_per_try_percent_used: Percent,
            upstream_rq_timeout_budget_percent_used: Percent,
        }
    }
}

stats::group! {
    /// `cluster.<name>.` of clusters with `track_cluster_stats.request_response_sizes`: how large messages are.
    pub struct RequestSizeStats {
        histograms {
            upstream_rq_body_size: Bytes,
            upstream_rq_headers_count: Unspecified,
            upstream_rq_headers_size: Bytes,
            upstream_rs_body_size: Bytes,
            upstream_rs_headers_count: Unspecified,
            upstream_rs_headers_size: Bytes,
        }
    }
}

stats::group! {
    /// `vhost.<name>.vcluster.<name>.` and `vhost.<name>.route.<stat_prefix>.`: requests that were sent upstream.
    pub struct RouteStats {
        counters {
            upstream_rq_retry,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
            upstream_rq_timeout,
            upstream_rq_total,
        }
    }
}

stats::group! {
    /// `cluster.<name>.ring_hash_lb.`: how evenly hosts are spread over the ring.
    pub struct RingHashStats {
        gauges {
            max_hashes_per_host,
            min_hashes_per_host,
            size,
        }
    }
}

stats::group! {
    /// `cluster.<name>.maglev_lb.`: how evenly hosts are spread over the table.
    pub struct MaglevStats {
        gauges {
            max_entries_per_host,
            min_entries_per_host,
        }
    }
}

stats::group! {
    /// `cluster.<name>.outlier_detection.`, of a cluster with outlier detection.
    pub struct OutlierStats {
        counters {
            ejections_consecutive_5xx,
            ejections_detected_consecutive_5xx,
            ejections_detected_consecutive_gateway_failure,
            ejections_detected_consecutive_local_origin_failure,
            ejections_detected_degradation,
            ejections_detected_failure_percentage,
            ejections_detected_local_origin_failure_percentage,
            ejections_detected_local_origin_success_rate,
            ejections_detected_success_rate,
            ejections_enforced_consecutive_5xx,
            ejections_enforced_consecutive_gateway_failure,
            ejections_enforced_consecutive_local_origin_failure,
            ejections_enforced_failure_percentage,
            ejections_enforced_local_origin_failure_percentage,
            ejections_enforced_local_origin_success_rate,
            ejections_enforced_success_rate,
            ejections_enforced_total,
            ejections_overflow,
            ejections_success_rate,
            ejections_total,
        }
        gauges { ejections_active }
    }
}

stats::group! {
    /// `cluster.<name>.health_check.`, of a cluster whose hosts' health is checked.
    pub struct HealthCheckStats {
        counters {
            attempt,
            failure,
            network_failure,
            passive_failure,
            success,
            verify_cluster,
        }
        gauges { degraded, healthy }
    }
}

stats::group! {
    /// `cluster.<name>.`, of a cluster with subsets.
    pub struct SubsetStats {
        gauges {
            lb_subsets_single_host_per_subset_duplicate,
        }
    }
}

/// A group of what every connection manager counts, the admin server's too, and of further `counters`.
macro_rules! connection_manager_group {
    ($(#[$meta:meta])* pub struct $name:ident { counters { $($counters:tt)* } }) => {
        stats::group! {
            $(#[$meta])*
            pub struct $name {
                counters {
                    downstream_cx_delayed_close_timeout,
                    downstream_cx_destroy,
                    downstream_cx_destroy_active_rq,
                    downstream_cx_destroy_local,
                    downstream_cx_destroy_local_active_rq,
                    downstream_cx_destroy_remote,
                    downstream_cx_destroy_remote_active_rq,
                    downstream_cx_drain_close,
                    downstream_cx_http1_total,
                    downstream_cx_http2_total,
                    downstream_cx_http3_total,
                    downstream_cx_idle_timeout,
                    downstream_cx_max_duration_reached,
                    downstream_cx_max_requests_reached,
                    downstream_cx_overload_disable_keepalive,
                    downstream_cx_protocol_error,
                    downstream_cx_rx_bytes_total,
                    downstream_cx_ssl_total,
                    downstream_cx_total,
                    downstream_cx_tx_bytes_total,
                    downstream_cx_upgrades_total,
                    downstream_flow_control_paused_reading_total,
                    downstream_flow_control_resumed_reading_total,
                    downstream_rq_1xx,
                    downstream_rq_2xx,
                    downstream_rq_3xx,
                    downstream_rq_4xx,
                    downstream_rq_5xx,
                    downstream_rq_completed,
                    downstream_rq_failed_path_normalization,
                    downstream_rq_header_timeout,
                    downstream_rq_http1_total,
                    downstream_rq_http2_total,
                    downstream_rq_http3_total,
                    downstream_rq_idle_timeout,
                    downstream_rq_max_duration_reached,
                    downstream_rq_non_relative_path,
                    downstream_rq_overload_close,
                    downstream_rq_redirected_with_normalized_path,
                    downstream_rq_rejected_via_ip_detection,
                    downstream_rq_response_before_rq_complete,
                    downstream_rq_rx_reset,
                    downstream_rq_timeout,
                    downstream_rq_too_large,
                    downstream_rq_too_many_premature_resets,
                    downstream_rq_total,
                    downstream_rq_tx_reset,
                    downstream_rq_ws_on_non_ws_route,
                    rs_too_large,
                    $($counters)*
                }
                gauges {
                    downstream_cx_active,
                    downstream_cx_http1_active,
                    downstream_cx_http1_soft_drain,
                    downstream_cx_http2_active,
                    downstream_cx_http3_active,
                    downstream_cx_rx_bytes_buffered,
                    downstream_cx_ssl_active,
                    downstream_cx_tx_bytes_buffered,
                    downstream_cx_upgrades_active,
                    downstream_rq_active,
                }
                histograms {
                    downstream_cx_length_ms: Milliseconds,
                    downstream_rq_time: Milliseconds,
                }
            }
        }
    };
}

connection_manager_group! {
    /// `http.<stat_prefix>.`: connections and requests of an HTTP connection manager, and its router's decisions.
    pub struct HttpStats {
        counters {
            no_cluster,
            no_route,
            passthrough_internal_redirect_bad_location,
            passthrough_internal_redirect_no_route,
            passthrough_internal_redirect_predicate,
            passthrough_internal_redirect_too_many_redirects,
            passthrough_internal_redirect_unsafe_scheme,
            rq_direct_response,
            rq_overload_local_reply,
            rq_redirect,
            rq_reset_after_downstream_response_started,
            rq_total,
            tracing_client_enabled = "tracing.client_enabled",
            tracing_health_check = "tracing.health_check",
            tracing_not_traceable = "tracing.not_traceable",
            tracing_random_sampling = "tracing.random_sampling",
            tracing_service_forced = "tracing.service_forced",
        }
    }
}

connection_manager_group! {
    /// `http.admin.`: connections and requests of the admin server, which routes nothing and traces nothing.
    pub struct AdminHttpStats {
        counters {}
    }
}

stats::group! {
    /// `listener.<address>.`: what arrives at a listener, before a network filter sees it.
    pub struct ListenerStats {
        counters {
            downstream_cx_destroy,
            downstream_cx_overflow,
            downstream_cx_overload_reject,
            downstream_cx_total,
            downstream_cx_transport_socket_connect_timeout,
            downstream_global_cx_overflow,
            downstream_listener_filter_error,
            downstream_listener_filter_remote_close,
            downstream_pre_cx_timeout,
            no_filter_chain_match,
        }
        gauges {
            downstream_cx_active,
            downstream_pre_cx_active,
        }
        histograms {
            connections_accepted_per_socket_event: Unspecified,
            downstream_cx_length_ms: Milliseconds,
        }
    }
}

stats::group! {
    /// `listener.<address>.`: what a listener's filters are configured by.
    pub struct ListenerFilterStats {
        counters {
            extension_config_missing,
            network_extension_config_missing,
        }
    }
}

stats::group! {
    /// `tls_inspector.`: client hellos, of all listeners.
    pub struct TlsInspectorStats {
        counters {
            alpn_found,
            alpn_not_found,
            client_hello_too_large,
            sni_found,
            sni_not_found,
            tls_found,
            tls_not_found,
        }
        histograms { bytes_processed: Bytes }
    }
}

stats::group! {
    /// `http_inspector.`: what first bytes are, of all listeners.
    pub struct HttpInspectorStats {
        counters {
            http10_found,
            http11_found,
            http2_found,
            http_not_found,
            read_error,
        }
    }
}

stats::group! {
    /// `proxy_proto.[<stat_prefix>.]`: PROXY headers.
    pub struct ProxyProtocolStats {
        counters {
            not_found_allowed,
            not_found_disallowed,
            v1_disallowed = "versions.v1.disallowed",
            v1_error = "versions.v1.error",
            v1_found = "versions.v1.found",
            v2_disallowed = "versions.v2.disallowed",
            v2_error = "versions.v2.error",
            v2_found = "versions.v2.found",
        }
    }
}

stats::group! {
    /// No prefix: what PROXY headers were refused for, whatever the filter's prefix. Envoy keeps it for older dashboards.
    pub struct ProxyProtocolErrors {
        counters { downstream_cx_proxy_proto_error }
    }
}

stats::group! {
    /// `listener.<address>.http.<stat_prefix>.`: response classes by listener.
    pub struct ListenerHttpStats {
        counters {
            downstream_rq_1xx,
            downstream_rq_2xx,
            downstream_rq_3xx,
            downstream_rq_4xx,
            downstream_rq_5xx,
            downstream_rq_completed,
        }
    }
}

stats::group! {
    /// `listener.<address>.worker_<n>.`: connections by worker; the admin server's is called `main_thread`.
    pub struct ListenerWorkerStats {
        counters { downstream_cx_total }
        gauges { downstream_cx_active }
    }
}

stats::group! {
    /// `http1.` (downstream, process wide) and `cluster.<name>.http1.`: the HTTP/1 codec.
    pub struct Http1Stats {
        counters {
            dropped_headers_with_underscores,
            metadata_not_supported_error,
            requests_rejected_with_underscores_in_headers,
            response_flood,
        }
    }
}

stats::group! {
    /// `http2.` (downstream, process wide) and `cluster.<name>.http2.`: the HTTP/2 codec. Envoy measures heads only if its
    /// runtime says so, and counts connections by the library that frames them: ours is neither of the two.
    pub struct Http2Stats {
        counters {
            cookies_total_bytes_too_large,
            dropped_headers_with_underscores,
            goaway_sent,
            header_list_size_too_large,
            header_overflow,
            headers_cb_no_stream,
            inbound_empty_frames_flood,
            inbound_priority_frames_flood,
            inbound_window_update_frames_flood,
            keepalive_timeout,
            metadata_empty_frames,
            nghttp2_downstream_connections,
            nghttp2_upstream_connections,
            oghttp2_downstream_connections,
            oghttp2_upstream_connections,
            outbound_control_flood,
            outbound_flood,
            requests_rejected_with_underscores_in_headers,
            rx_messaging_error,
            rx_reset,
            stream_refused_errors,
            trailers,
            tx_flush_timeout,
            tx_reset,
        }
        gauges {
            deferred_stream_close,
            outbound_control_frames_active,
            outbound_frames_active,
            pending_send_bytes,
            streams_active,
        }
        histograms {
            cookie_count: Unspecified,
            cookie_size: Unspecified,
            header_count: Unspecified,
            header_list_size: Unspecified,
        }
    }
}

stats::group! {
    /// `server.`: the process.
    pub struct ServerStats {
        counters {
            debug_assertion_failures,
            dropped_stat_flushes,
            dynamic_unknown_fields,
            envoy_bug_failures,
            envoy_notifications,
            static_unknown_fields,
            wip_protos,
        }
        gauges {
            compilation_settings_fips_mode = "compilation_settings.fips_mode",
            concurrency,
            days_until_first_cert_expiring,
            hot_restart_epoch,
            live,
            memory_allocated,
            memory_heap_size,
            memory_physical_size,
            parent_connections,
            seconds_until_first_ocsp_response_expiring,
            state,
            stats_recent_lookups,
            total_connections,
            uptime,
            version,
        }
        histograms {
            initialization_time_ms: Milliseconds,
        }
    }
}

stats::group! {
    /// `cluster_manager.`: changes to clusters.
    pub struct ClusterManagerStats {
        counters {
            cluster_added,
            cluster_modified,
            cluster_removed,
            cluster_updated,
            cluster_updated_via_merge,
            update_merge_cancelled,
            update_out_of_merge_window,
        }
        gauges {
            active_clusters,
            warming_clusters,
        }
    }
}

stats::group! {
    /// `listener_manager.`: changes to listeners.
    pub struct ListenerManagerStats {
        counters {
            listener_added,
            listener_create_failure,
            listener_create_success,
            listener_in_place_updated,
            listener_modified,
            listener_removed,
            listener_stopped,
        }
        gauges {
            total_filter_chains_draining,
            total_listeners_active,
            total_listeners_draining,
            total_listeners_warming,
            workers_pinned,
            workers_started,
        }
    }
}

stats::group! {
    /// `runtime.`: the layered runtime.
    pub struct RuntimeStats {
        counters {
            deprecated_feature_use,
            load_error,
            load_success,
            override_dir_exists,
            override_dir_not_exists,
        }
        gauges {
            admin_overrides_active,
            deprecated_feature_seen_since_process_start,
            num_keys,
            num_layers,
        }
    }
}

stats::group! {
    /// `dns.cares.`: the resolver. It is not c-ares, but dashboards look for its numbers there.
    pub struct DnsStats {
        counters {
            get_addr_failure,
            not_found,
            reinits,
            resolve_total,
            timeouts,
        }
        gauges {
            pending_resolutions,
        }
    }
}

stats::group! {
    /// `connection_limit.<stat_prefix>.`: the network filter.
    pub struct ConnectionLimitStats {
        counters { limited_connections }
        gauges { active_connections }
    }
}

stats::group! {
    /// `local_rate_limit.<stat_prefix>.`: the network filter.
    pub struct LocalRateLimitStats {
        counters { rate_limited }
    }
}

stats::group! {
    /// `cluster.<name>.upstream.proxyprotocol.`: PROXY headers to its hosts.
    pub struct UpstreamProxyProtocolStats {
        counters { v2_tlvs_exceed_max_length }
    }
}

stats::group! {
    /// `tcp.<stat_prefix>.`: a TCP proxy.
    pub struct TcpStats {
        counters {
            downstream_cx_drain_close,
            downstream_cx_no_route,
            downstream_cx_overload_close,
            downstream_cx_rx_bytes_total,
            downstream_cx_total,
            downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total,
            downstream_flow_control_resumed_reading_total,
            early_data_received_count_total,
            idle_timeout,
            max_downstream_connection_duration,
            route_delayed_total,
            upstream_flush_total,
        }
        gauges {
            downstream_cx_rx_bytes_buffered,
            downstream_cx_tx_bytes_buffered,
            upstream_flush_active,
        }
    }
}

stats::group! {
    /// `cluster_manager.cds.`, `listener_manager.lds.`, `http.<prefix>.rds.<name>.` …: one subscription.
    pub struct SubscriptionStats {
        counters {
            init_fetch_timeout,
            update_attempt,
            update_failure,
            update_rejected,
            update_success,
        }
        gauges {
            update_time,
            version,
        }
        histograms {
            update_duration: Milliseconds,
        }
    }
}

stats::group! {
    /// `cluster_manager.cds.`, `http.<prefix>.rds.<name>.`: updates that were taken into use.
    pub struct ReloadStats {
        counters { config_reload }
        gauges { config_reload_time_ms }
    }
}

stats::group! {
    /// `http.<prefix>.rds.<name>.`: updates without the route configuration.
    pub struct RouteUpdateStats {
        counters { update_empty }
    }
}

stats::group! {
    /// `http.async-client.`: the process's own calls, such as those to control planes.
    pub struct AsyncClientStats {
        counters {
            no_cluster,
            no_route,
            passthrough_internal_redirect_bad_location,
            passthrough_internal_redirect_no_route,
            passthrough_internal_redirect_predicate,
            passthrough_internal_redirect_too_many_redirects,
            passthrough_internal_redirect_unsafe_scheme,
            rq_direct_response,
            rq_overload_local_reply,
            rq_redirect,
            rq_reset_after_downstream_response_started,
            rq_total,
        }
    }
}

stats::group! {
    /// `overload.`: the overload manager itself; resources and actions have names of their own.
    pub struct OverloadStats {
        histograms { refresh_interval_delay: Milliseconds }
    }
}

stats::group! {
    /// `thread_local_cluster_manager.<thread>.`: clusters a thread knows.
    pub struct ThreadClusterStats {
        gauges { clusters_inflated }
    }
}

stats::group! {
    /// `control_plane.`: the aggregated stream.
    pub struct ControlPlaneStats {
        counters { rate_limit_enforced }
        gauges {
            connected_state,
            pending_requests,
        }
    }
}

stats::group! {
    /// `<listener>.server_ssl_socket_factory.`, `<cluster>.client_ssl_socket_factory.`: contexts and their secrets.
    pub struct SecretFactoryStats {
        counters {
            downstream_context_secrets_not_ready,
            ssl_context_update_by_sds,
            upstream_context_secrets_not_ready,
        }
    }
}
