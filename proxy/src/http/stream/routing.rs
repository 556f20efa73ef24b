//! Which route a request takes, and what becomes of those that need no upstream.

use std::sync::Arc;

use bytes::Bytes;
use filters::flags::{ResponseFlags, details};
use filters::format::{AccessLogType, FormatContext};
use filters::http::{Known, Method, RequestHead};

use super::{Downstream, End, Routed, Step, Stream};
use crate::http::hygiene::is_upgrade;
use crate::http::reply::LocalReply;
use crate::route::redirect::tls_redirect;
use crate::route::{ClusterName, ForwardAction, MatchInput, RouteAction, Selection, TlsFacts};

/// What a route table says about a request.
enum Found {
    Route(Routed),
    /// Where the same request would be answered.
    Tls(Bytes),
    Nothing,
}

impl<D: Downstream> Stream<'_, D> {
    /// Finds the route and acts on those that need no upstream.
    pub(super) async fn route(&mut self) -> Step<()> {
        let Some(moved) = self.find_route() else {
            self.no_route();
            return self.reply_end(LocalReply::new(404, ""), details::ROUTE_CONFIGURATION_NOT_FOUND).await;
        };
        let upgrade = self.request.as_ref().and_then(upgrade_protocol).map(Bytes::copy_from_slice);
        if self.manager.config.access_log_options.on_new_request {
            self.log(AccessLogType::DownstreamStart);
        }
        if let Some(protocol) = upgrade.as_ref().filter(|_| moved.is_none()) {
            self.admit_upgrade(protocol).await?;
        }
        let moved = self.filter(upgrade.as_deref(), moved).await?;
        if let Some(location) = moved {
            self.count_direct_response();
            let reply = LocalReply::new(301, "").with_header(Known::Location, location);
            return self.reply_end(reply, details::DIRECT_RESPONSE).await;
        }
        self.act().await
    }

    /// Looks the request's route up and takes it; where the request is to come by TLS instead, the way there. `None` when
    /// there are no routes at all.
    pub(super) fn find_route(&mut self) -> Option<Option<Bytes>> {
        let table = self.manager.routes.table()?;
        let runtime = self.manager.worker.runtime();
        let input = MatchInput {
            random: self.random,
            runtime: &*runtime,
            tls: TlsFacts::of(&self.connection.info),
            metadata: self.info.dynamic_metadata.as_deref(),
        };
        let head = self.request.as_ref()?;
        let found = match table.select(head, &input) {
            Selection::Matched { id, route, .. } => {
                if !route.name.is_empty() {
                    self.info.route_name = Some(Arc::clone(&route.name));
                }
                Found::Route(Routed { table, id, ordinal: None })
            }
            Selection::RequireTls(_) => Found::Tls(tls_redirect(head)),
            Selection::NoRoute(_) | Selection::NoVirtualHost => Found::Nothing,
        };
        match found {
            Found::Route(routed) => self.take_route(routed),
            Found::Tls(location) => return Some(Some(location)),
            Found::Nothing => {}
        }
        Some(None)
    }

    /// Does what the route says, short of forwarding.
    async fn act(&mut self) -> Step<()> {
        let Some(routed) = self.routed.clone() else {
            self.manager.stats.rq_total().inc();
            self.no_route();
            return self.reply_end(LocalReply::new(404, ""), details::ROUTE_NOT_FOUND).await;
        };
        let Some((_, route)) = routed.resolve() else { return Err(End::Done) };
        let keep_original = !self.manager.config.router().suppress_envoy_headers;
        match &route.action {
            RouteAction::Forward(_) => {
                self.manager.stats.rq_total().inc();
                Ok(())
            }
            RouteAction::NonForwarding => {
                self.manager.stats.rq_total().inc();
                self.no_cluster();
                self.reply_end(LocalReply::new(503, ""), details::CLUSTER_NOT_FOUND).await
            }
            RouteAction::DirectResponse(direct) => {
                self.count_direct_response();
                let mut reply = LocalReply::new(direct.status, direct.body.clone());
                if let Some(format) = &direct.format {
                    let request = self.request.as_ref();
                    let local_reply_body = &direct.body[..];
                    reply.body =
                        format.write(&FormatContext { request, local_reply_body, ..FormatContext::new(&self.info) });
                }
                if let Some(location) = self.request.as_ref().and_then(|head| direct.location(head)) {
                    reply = reply.with_header(Known::Location, location);
                }
                if let Some(format) = direct.format.as_ref().filter(|format| !format.content_type.is_empty()) {
                    reply = reply.with_header(Known::ContentType, format.content_type.clone());
                }
                self.reply_end(reply, details::DIRECT_RESPONSE).await
            }
            RouteAction::Redirect(redirect) => {
                self.count_direct_response();
                let Some(head) = &mut self.request else { return Err(End::Done) };
                redirect.rewrite_path(head, &route.matcher.path, &self.info, keep_original);
                let reply = LocalReply::new(redirect.status, "")
                    .with_header(Known::Location, redirect.location(head, &self.info));
                self.reply_end(reply, details::DIRECT_RESPONSE).await
            }
        }
    }

    /// Takes a route, and with it the cluster it chooses.
    fn take_route(&mut self, mut routed: Routed) {
        let worker = &self.manager.worker;
        if let Some((host, route)) = routed.resolve() {
            self.info.route_metadata.clone_from(&route.metadata);
            self.info.virtual_host_metadata.clone_from(&host.metadata);
        }
        if let (Some((_, route)), Some(head)) = (routed.resolve(), &self.request)
            && let RouteAction::Forward(forward) = &route.action
        {
            let selector = forward.selector(head, &self.info).unwrap_or(self.random);
            let choice = forward.cluster(head, selector, &*worker.runtime());
            let cluster = match &choice.name {
                ClusterName::None => None,
                name => name.as_str().and_then(|name| worker.cluster(name)),
            };
            let ordinal = choice.ordinal;
            if let Some(cluster) = &cluster {
                let upstream = self.info.upstream_mut();
                upstream.cluster = Some(Arc::clone(&cluster.config().observability_name));
                upstream.cluster_metadata.clone_from(&cluster.config().metadata);
            }
            self.cluster = cluster;
            routed.ordinal = ordinal;
        }
        self.routed = Some(routed);
    }

    fn count_direct_response(&self) {
        self.manager.stats.rq_total().inc();
        self.manager.stats.rq_direct_response().inc();
    }

    fn no_route(&mut self) {
        self.manager.stats.no_route().inc();
        self.info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
    }

    /// Counts that there is no cluster to send the request to.
    pub(super) fn no_cluster(&mut self) {
        self.manager.stats.no_cluster().inc();
        self.info.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
    }

    /// Lets an upgrade through, or refuses it. Without a route there is nothing that could refuse.
    async fn admit_upgrade(&mut self, protocol: &[u8]) -> Step<()> {
        let stats = &self.manager.stats;
        if self.upgrade_allowed(protocol) {
            stats.downstream_cx_upgrades_total().inc();
            stats.downstream_cx_upgrades_active().inc();
            self.upgrade = true;
            return Ok(());
        }
        if self.routed.is_none() {
            return Ok(());
        }
        stats.downstream_rq_ws_on_non_ws_route().inc();
        // What follows may be meant for the protocol that was refused: it must not be taken for another request.
        self.close_connection();
        self.reply_end(LocalReply::new(403, ""), details::UPGRADE_FAILED).await
    }

    /// The route's word about an upgrade, else the connection manager's.
    fn upgrade_allowed(&self, protocol: &[u8]) -> bool {
        let of_route = self.routed.as_ref().and_then(Routed::resolve).and_then(|(_, route)| match &route.action {
            RouteAction::Forward(forward) => ForwardAction::upgrade(forward, protocol).map(|upgrade| upgrade.enabled),
            _ => None,
        });
        of_route.unwrap_or_else(|| self.manager.config.upgrade_enabled(protocol))
    }
}

/// The protocol a request wants its connection or stream to become: an `upgrade`, or CONNECT itself.
pub(super) fn upgrade_protocol(head: &RequestHead) -> Option<&[u8]> {
    if head.method == Method::Connect {
        return Some(b"CONNECT");
    }
    if is_upgrade(&head.headers) {
        return head.headers.value(&Known::Upgrade).map(|value| &value[..]);
    }
    None
}
