//! Answers to the admin thread, from the managers' views.

mod endpoints;

use std::net::SocketAddr;

use filters::stream_info::Address;

use super::{Control, now};
use crate::admin::backend::{
    AdminRequest, ClusterView, ConfigDump, ConfigDumpEntry, DrainRequest, DynamicListenerDump, ErrorState, HostView,
    ListenerView, OutlierView, RawResource, ThresholdsView, unready,
};
use crate::config::cluster::Discovery;
use crate::config::filter_chain::NetworkFilter;
use crate::config::hcm::RouteSource;
use crate::config::service::{ChainService, HttpChain};
use crate::control::clusters::Rates;
use crate::control::listeners::{Origin, StateView};
use crate::control::secrets::{SecretState, SecretView};
use crate::upstream::breaker::{Breakers, Priority, Resource};

impl Control {
    /// Answers a question of an admin page, or does what it asks.
    pub fn answer(&self, request: AdminRequest) {
        // A page that went away in the meantime needs no answer.
        match request {
            AdminRequest::Clusters(reply) => {
                let _ = reply.send(self.cluster_views());
            }
            AdminRequest::Certificates(reply) => {
                let _ = reply.send(self.secrets.certificates());
            }
            AdminRequest::Listeners(reply) => {
                let _ = reply.send(self.listener_views());
            }
            AdminRequest::ConfigDump { include_eds, reply } => {
                let _ = reply.send(self.config_dump(include_eds));
            }
            AdminRequest::InitDump(reply) => {
                let _ = reply.send(unready(self.unready_targets()));
            }
            AdminRequest::Drain(drain, reply) => {
                self.drain(drain);
                let _ = reply.send(());
            }
            AdminRequest::HealthcheckFail(failed, reply) => {
                self.set_draining(failed);
                let _ = reply.send(());
            }
            AdminRequest::ReopenLogs(reply) => {
                self.env.files.reopen();
                let _ = reply.send(());
            }
            AdminRequest::Quit(reply) => {
                let _ = reply.send(());
                self.quit();
            }
            AdminRequest::Runtime(reply) => {
                let _ = reply.send(self.runtime.borrow().view());
            }
            AdminRequest::RuntimeModify(changes, reply) => {
                let done = self.runtime.borrow_mut().modify(changes);
                self.publish_runtime();
                let _ = reply.send(done);
            }
        }
    }

    /// Asks connections to leave, and listeners to stop.
    pub fn drain(&self, request: DrainRequest) {
        let DrainRequest { graceful, inbound_only, skip_exit: _ } = request;
        self.listeners.borrow_mut().drain_listeners(graceful, inbound_only, now());
    }

    fn cluster_views(&self) -> Vec<ClusterView> {
        let clusters = self.clusters.borrow();
        clusters
            .views()
            .filter(|view| !view.warming)
            .map(|view| ClusterView {
                name: view.config.name.to_string(),
                observability_name: view.config.observability_name.to_string(),
                eds_service_name: match &view.config.discovery {
                    Discovery::Eds(eds) if eds.service_name != view.config.name => eds.service_name.to_string(),
                    _ => String::new(),
                },
                added_via_api: view.added_via_api,
                thresholds: thresholds(view.breakers),
                outlier: view.outlier_rates().map(|Rates { external, local }| OutlierView {
                    success_rate_average: external.map(|compared| compared.average),
                    success_rate_ejection_threshold: external.map(|compared| compared.threshold),
                    local_origin_success_rate_average: local.map(|compared| compared.average),
                    local_origin_success_rate_ejection_threshold: local.map(|compared| compared.threshold),
                }),
                hosts: view
                    .hosts
                    .hosts()
                    .map(|host| {
                        let attributes = host.attributes();
                        let [success_rate, local_origin_success_rate] = view.success_rates(host);
                        HostView {
                            address: (**host.address()).clone(),
                            hostname: host.hostname().to_string(),
                            stats: host.state().stats(),
                            health: host.state().flags(),
                            weight: host.weight(),
                            locality: (*attributes.locality).clone(),
                            canary: attributes.canary,
                            priority: host.priority(),
                            success_rate,
                            local_origin_success_rate,
                        }
                    })
                    .collect(),
            })
            .collect()
    }

    fn listener_views(&self) -> Vec<ListenerView> {
        let listeners = self.listeners.borrow();
        listeners
            .active()
            .map(|active| ListenerView { name: active.config.name.to_string(), addresses: active.addresses.clone() })
            .collect()
    }

    fn config_dump(&self, include_eds: bool) -> ConfigDump {
        let mut dump = ConfigDump { bootstrap: self.bootstrap.borrow().clone(), ..ConfigDump::default() };
        let clusters = self.clusters.borrow();
        dump.clusters_version = clusters.cds_version().to_string();
        for view in clusters.views() {
            let entry = ConfigDumpEntry {
                name: view.config.name.to_string(),
                version_info: view.version.to_string(),
                resource: Some(RawResource { type_url: xds_client::CLUSTER, bytes: view.raw.clone() }),
                last_updated: Some(view.last_updated),
                error_state: None,
            };
            match (view.added_via_api, view.warming) {
                (false, _) => dump.static_clusters.push(entry),
                (true, false) => dump.dynamic_active_clusters.push(entry),
                (true, true) => dump.dynamic_warming_clusters.push(entry),
            }
        }
        dump.listeners_version = self.lds_version().to_string();
        let listeners = self.listeners.borrow();
        for view in listeners.views() {
            let state = |state: &StateView<'_>| ConfigDumpEntry {
                name: view.name.to_owned(),
                version_info: origin_version(state.origin),
                resource: Some(RawResource { type_url: xds_client::LISTENER, bytes: state.raw.clone() }),
                last_updated: Some(state.last_updated),
                error_state: None,
            };
            if view.active.as_ref().or(view.warming.as_ref()).is_some_and(|state| *state.origin == Origin::Static) {
                dump.static_listeners.extend(view.active.as_ref().or(view.warming.as_ref()).map(state));
                continue;
            }
            dump.dynamic_listeners.push(DynamicListenerDump {
                name: view.name.to_owned(),
                active: view.active.as_ref().map(state),
                warming: view.warming.as_ref().map(state),
                draining: view.draining.first().map(state),
                error_state: view.error.as_ref().map(|error| ErrorState {
                    failed_configuration: Some(RawResource {
                        type_url: xds_client::LISTENER,
                        bytes: error.failed_configuration.clone(),
                    }),
                    last_update_attempt: Some(error.last_update_attempt),
                    details: error.details.clone(),
                    version_info: origin_version(&error.origin),
                }),
            });
        }
        self.dump_routes(&mut dump);
        for SecretView { name, state, version, updated, raw } in self.secrets.views() {
            let entry = ConfigDumpEntry {
                name: name.to_string(),
                version_info: version,
                resource: Some(RawResource { type_url: xds_client::SECRET, bytes: raw }),
                last_updated: (state != SecretState::Static).then_some(updated),
                error_state: None,
            };
            match state {
                SecretState::Static => dump.static_secrets.push(entry),
                SecretState::Active => dump.dynamic_active_secrets.push(entry),
                SecretState::Warming => dump.dynamic_warming_secrets.push(entry),
            }
        }
        if include_eds {
            for view in clusters.views().filter(|view| !view.warming) {
                let entry = endpoints::entry(&view, &self.env.node_locality);
                if view.added_via_api { &mut dump.dynamic_endpoints } else { &mut dump.static_endpoints }.push(entry);
            }
        }
        dump
    }

    fn dump_routes(&self, dump: &mut ConfigDump) {
        for active in self.listeners.borrow().active() {
            for chain in active.config.chains.iter() {
                let (NetworkFilter::Http(_), Some(ChainService::Http(HttpChain { config, .. }))) =
                    (&chain.network, chain.service.get())
                else {
                    continue;
                };
                dump.speaks_http = true;
                if let RouteSource::Inline(proto) = &config.routes {
                    dump.static_routes.push(ConfigDumpEntry {
                        name: proto.name.clone(),
                        resource: Some(RawResource {
                            type_url: xds_client::ROUTE,
                            bytes: prost::Message::encode_to_vec(&**proto).into(),
                        }),
                        ..ConfigDumpEntry::default()
                    });
                }
            }
        }
        for view in self.routes.views() {
            dump.speaks_http = true;
            if view.live.is_none() && view.failed.is_none() {
                continue;
            }
            let live = view.live.as_ref();
            dump.dynamic_routes.push(ConfigDumpEntry {
                name: view.name.to_string(),
                version_info: live.map(|live| live.version.clone()).unwrap_or_default(),
                resource: live.map(|live| RawResource { type_url: xds_client::ROUTE, bytes: live.raw.clone() }),
                last_updated: live.map(|live| live.updated),
                error_state: view.failed.map(|failed| ErrorState {
                    failed_configuration: Some(RawResource { type_url: xds_client::ROUTE, bytes: failed.raw }),
                    last_update_attempt: Some(failed.at),
                    details: failed.details,
                    version_info: failed.version,
                }),
            });
        }
    }

    /// What listeners wait for. Envoy shows nothing else of what start-up waits for.
    fn unready_targets(&self) -> Vec<(String, String)> {
        let mut targets = Vec::new();
        for (name, hash, ticket) in self.listeners.borrow().waiting() {
            for target in self.join.awaited(ticket) {
                targets.push((format!("init manager Listener-local-init-manager {name} {hash}"), target));
            }
        }
        targets
    }

    /// Where a configured cluster's hosts are now, for connections to control planes. `None`: no such cluster.
    #[must_use]
    pub fn addresses_of(&self, cluster: &str) -> Option<Vec<xds_client::Address>> {
        let clusters = self.clusters.borrow();
        let view = clusters.views().find(|view| &*view.config.name == cluster)?;
        let address = |address: &Address| match address {
            Address::Ip(ip) => Some(tcp(*ip)),
            Address::Pipe(path) => Some(xds_client::Address::Unix((**path).into())),
            Address::Internal(_) => None,
        };
        Some(view.hosts.hosts().filter_map(|host| address(host.address())).collect())
    }
}

fn tcp(ip: SocketAddr) -> xds_client::Address {
    xds_client::Address::Tcp { host: ip.ip().to_string(), port: ip.port() }
}

fn origin_version(origin: &Origin) -> String {
    match origin {
        Origin::Static => String::new(),
        Origin::Dynamic(version) => version.to_string(),
    }
}

/// The limits as they are now, whatever set them.
fn thresholds(breakers: &Breakers) -> [ThresholdsView; 2] {
    [Priority::Default, Priority::High].map(|priority| {
        let limit = |resource| breakers.view(priority, resource).limit.into();
        ThresholdsView {
            max_connections: limit(Resource::Connections),
            max_pending_requests: limit(Resource::PendingRequests),
            max_requests: limit(Resource::Requests),
            max_retries: limit(Resource::Retries),
        }
    })
}
