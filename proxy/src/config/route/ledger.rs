//! What of routing Legate does not implement.

filters::ledger! {
    /// Rows of the table.
    pub mod table for "envoy.config.route.v3.RouteConfiguration" {
        vhds => Refuse, "virtual hosts on demand would be missing";
        cluster_specifier_plugins => Refuse, "plugins choose where requests go and none is built in";
        route_specifiers => Refuse, "specifiers change the route that was found";
    }
}

filters::ledger! {
    /// Rows of a virtual host.
    pub mod virtual_host for "envoy.config.route.v3.VirtualHost" {
        matcher => Refuse, "the generic match tree decides where requests go";
        rate_limits => Warn, "only the rate limit filter reads them, and it is refused by name where configured";
        retry_policy_typed_config => Warn, "Envoy does not implement it either; retry_policy is";
        route_specifiers => Refuse, "specifiers change the route that was found";
    }
}

filters::ledger! {
    /// Rows of a route.
    pub mod route for "envoy.config.route.v3.Route" {
        decorator => Warn, "it names trace spans";
        tracing => Warn, "it samples and tags traces";
        route_specifiers => Refuse, "specifiers change the route that was found";
        filter_action => Refuse, "another filter would have to act on it";
    }
}

filters::ledger! {
    /// Rows of a route's condition.
    pub mod route_match for "envoy.config.route.v3.RouteMatch" {
        filter_state => Refuse, "it decides where requests go";
    }
}

filters::ledger! {
    /// Rows of forwarding.
    pub mod route_action for "envoy.config.route.v3.RouteAction" {
        cluster_specifier_plugin => Refuse, "plugins choose where requests go and none is built in";
        inline_cluster_specifier_plugin => Refuse, "plugins choose where requests go and none is built in";
        early_data_policy => Warn, "there is no early data to be careful with";
        retry_policy_typed_config => Warn, "Envoy does not implement it either; retry_policy is";
        rate_limits => Warn, "only the rate limit filter reads them, and it is refused by name where configured";
        include_vh_rate_limits => Warn, "only the rate limit filter reads it";
        internal_redirect_action => Refuse, "internal_redirect_policy has taken its place";
        max_internal_redirects => Warn, "it bounds internal_redirect_action, which is refused";
    }
}

filters::ledger! {
    /// Rows of the PROXY header before a terminated CONNECT.
    pub mod proxy_protocol for "envoy.config.core.v3.ProxyProtocolConfig" {
        pass_through_tlvs => Warn, "Envoy does not read it here either: the header before the bytes of CONNECT has addresses alone";
        added_tlvs => Warn, "Envoy does not read it here either: the header before the bytes of CONNECT has addresses alone";
    }
}

filters::ledger! {
    /// Rows of mirroring.
    pub mod mirror for "envoy.config.route.v3.RouteAction.RequestMirrorPolicy" {
        trace_sampled => Warn, "there are no trace spans";
    }
}
