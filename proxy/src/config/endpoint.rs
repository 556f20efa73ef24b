//! `ClusterLoadAssignment` to runtime types.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as proto;
use envoy_types::pb::google::protobuf as google;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::stream_info::{Address, Tlv};
use prost::Message as _;

use super::address::{self, EndpointAddress};
use super::cluster::EndpointCheck;
use super::tlv::Tlvs;
use crate::upstream::host::{DropOverload, HealthFlags, Locality, Metadata};

ledger! {
    /// What is not implemented.
    pub mod locality_unsupported for "envoy.config.endpoint.v3.LocalityLbEndpoints" {
    metadata => Warn, "nothing reads the metadata of a locality yet";
    proximity => Warn, "Envoy does not use it either";
    leds_cluster_locality_config => Refuse, "locality endpoint discovery (LEDS) is not implemented";
} }

ledger! {
    /// What is not implemented.
    pub mod endpoint_unsupported for "envoy.config.endpoint.v3.Endpoint" {
    observability_name => Warn, "hosts are reported by address";
} }

/// The endpoints of a cluster, as assigned.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadAssignment {
    /// Whose they are: the cluster's or its EDS service name.
    pub cluster_name: Arc<str>,
    /// By locality and priority, in order.
    pub localities: Vec<LocalityEndpoints>,
    /// Percent (140).
    pub overprovisioning_factor: u32,
    /// Compute the health of a priority from weights.
    pub weighted_priority_health: bool,
    /// How long the assignment may be used without an update; `None` for ever.
    pub endpoint_stale_after: Option<Duration>,
    /// Share of requests to drop on purpose.
    pub drop_overload: Option<DropOverload>,
}

/// The endpoints of one locality at one priority.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// Where.
    pub locality: Arc<Locality>,
    /// Weight among the localities of its priority; 0 when not given.
    pub weight: u32,
    /// 0 first.
    pub priority: u32,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Further addresses of the same host.
    pub additional_addresses: Arc<[SocketAddr]>,
    /// Its name; empty if none.
    pub hostname: Arc<str>,
    /// At least 1.
    pub weight: u32,
    /// The bits its `health_status` sets.
    pub health: HealthFlags,
    /// Its metadata.
    pub metadata: Option<Arc<Metadata>>,
    /// Facts that a PROXY header tells it.
    pub tlvs: Option<Arc<[Tlv]>>,
    /// Its metadata calls it a canary.
    pub canary: bool,
    /// What it says about its health checks; `None` nothing out of the ordinary.
    pub check: Option<Arc<EndpointCheck>>,
}

/// How an assignment is used decides which addresses it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// `STATIC`: addresses, no names.
    Static,
    /// EDS: addresses, no names.
    Eds,
    /// `STRICT_DNS`, `LOGICAL_DNS`: names or addresses.
    Dns,
}

impl Default for LoadAssignment {
    fn default() -> Self {
        Self {
            cluster_name: Arc::default(),
            localities: Vec::new(),
            overprovisioning_factor: 140,
            weighted_priority_health: false,
            endpoint_stale_after: None,
            drop_overload: None,
        }
    }
}

impl LoadAssignment {
    /// The assignment `proto` describes.
    ///
    /// # Errors
    /// On a missing or malformed address, or something unsupported.
    pub fn parse(at: At<'_>, proto: proto::ClusterLoadAssignment, r#use: Use) -> Result<Self, ConfigError> {
        // Envoy does not read `named_endpoints` either: an endpoint given by name has no address.
        let proto::ClusterLoadAssignment { cluster_name, endpoints, named_endpoints: _, policy } = proto;
        let proto::cluster_load_assignment::Policy {
            drop_overloads,
            overprovisioning_factor,
            endpoint_stale_after,
            weighted_priority_health,
        } = policy.unwrap_or_default();
        let policy_at = at.field("policy");
        let mut localities = Vec::with_capacity(endpoints.len());
        let mut shared = BTreeSet::new();
        for (index, proto) in endpoints.into_iter().enumerate() {
            let list = at.field("endpoints");
            localities.push(LocalityEndpoints::parse(list.index(index), proto, r#use, &cluster_name, &mut shared)?);
        }
        let overprovisioning_factor = overprovisioning_factor.map_or(140, |v| v.value);
        if overprovisioning_factor == 0 {
            return Err(policy_at.field("overprovisioning_factor").error("value must be greater than 0"));
        }
        Ok(Self {
            cluster_name: cluster_name.into(),
            localities,
            overprovisioning_factor,
            weighted_priority_health,
            endpoint_stale_after: super::cluster::duration(
                policy_at.field("endpoint_stale_after"),
                endpoint_stale_after,
            )?
            .filter(|after| !after.is_zero()),
            drop_overload: drop_overload(policy_at.field("drop_overloads"), drop_overloads)?,
        })
    }

    /// Whether weights can be summed up, which policies that hash do.
    ///
    /// # Errors
    /// When those of a locality's endpoints, or of a priority's localities, exceed 32 bits.
    pub fn check_weights(&self, at: At<'_>) -> Result<(), ConfigError> {
        let (mut hosts, mut localities) = (HashMap::new(), HashMap::new());
        for LocalityEndpoints { locality, weight, priority, endpoints } in &self.localities {
            let sum: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
            *hosts.entry((priority, locality)).or_insert(0) += sum;
            *localities.entry(priority).or_insert(0) += u64::from(*weight);
        }
        for (mut sums, whose) in [
            (hosts.into_values().collect::<Vec<u64>>().into_iter(), "upstream hosts in a locality"),
            (localities.into_values().collect::<Vec<u64>>().into_iter(), "localities at the same priority"),
        ] {
            if sums.any(|sum| sum > u32::MAX.into()) {
                return Err(at.error(format_args!("The sum of weights of all {whose} exceeds {}", u32::MAX)));
            }
        }
        Ok(())
    }

    /// Whether no locality holds an endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.localities.iter().all(|locality| locality.endpoints.is_empty())
    }
}

impl LocalityEndpoints {
    #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
    fn parse(
        at: At<'_>,
        proto: proto::LocalityLbEndpoints,
        r#use: Use,
        cluster: &str,
        shared: &mut BTreeSet<Arc<Locality>>,
    ) -> Result<Self, ConfigError> {
        let proto::LocalityLbEndpoints {
            locality,
            metadata,
            lb_endpoints,
            load_balancing_weight,
            priority,
            proximity,
            lb_config,
        } = proto;
        at.unsupported(&locality_unsupported::metadata, &metadata)?;
        at.unsupported(&locality_unsupported::proximity, &proximity)?;
        match lb_config {
            // Envoy reserves this field and does not read it.
            None | Some(proto::locality_lb_endpoints::LbConfig::LoadBalancerEndpoints(_)) => {}
            Some(proto::locality_lb_endpoints::LbConfig::LedsClusterLocalityConfig(_)) if r#use != Use::Eds => {
                return Err(at.error(format_args!(
                    "LEDS is only supported when EDS is used. Static cluster {cluster} cannot use LEDS."
                )));
            }
            Some(proto::locality_lb_endpoints::LbConfig::LedsClusterLocalityConfig(_)) => {
                at.field("leds_cluster_locality_config")
                    .refuse_or_warn(&locality_unsupported::leds_cluster_locality_config)?;
            }
        }
        if priority > 128 {
            return Err(at.field("priority").error("value must be less than or equal to 128"));
        }
        // A place without a name has no weight, whatever is said of it.
        let weight = load_balancing_weight.filter(|_| locality.is_some()).map_or(0, |weight| weight.value);
        let core::Locality { region, zone, sub_zone } = locality.unwrap_or_default();
        let locality = Locality { region, zone, sub_zone };
        // One allocation per place, however many endpoints name it.
        let locality = shared.get(&locality).cloned().unwrap_or_else(|| {
            let locality = Arc::new(locality);
            shared.insert(locality.clone());
            locality
        });
        let mut endpoints = Vec::with_capacity(lb_endpoints.len());
        for (index, proto) in lb_endpoints.into_iter().enumerate() {
            let list = at.field("lb_endpoints");
            endpoints.push(Endpoint::parse(list.index(index), proto, r#use)?);
        }
        Ok(Self { locality, weight, priority, endpoints })
    }
}

impl Endpoint {
    fn parse(at: At<'_>, proto: proto::LbEndpoint, r#use: Use) -> Result<Self, ConfigError> {
        let proto::LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = proto;
        let proto::Endpoint { address, health_check_config, hostname, additional_addresses, observability_name } =
            match host_identifier {
                Some(proto::lb_endpoint::HostIdentifier::Endpoint(endpoint)) => endpoint,
                // Envoy reads no endpoint by name: its address is missing.
                Some(proto::lb_endpoint::HostIdentifier::EndpointName(_)) | None => proto::Endpoint::default(),
            };
        let at = at.field("endpoint");
        at.unsupported(&endpoint_unsupported::observability_name, &observability_name)?;
        let address_at = at.field("address");
        let Some(address) = address else { return Err(address_at.error("Address must be set")) };
        let address = match r#use {
            Use::Dns => {
                strict_dns_resolver(address_at, &address)?;
                address::endpoint(address_at, address)?
            }
            Use::Static | Use::Eds => EndpointAddress::Resolved(address::resolved(address_at, address)?),
        };
        // What is looked up names the host, and be it an address.
        let hostname = match &address {
            EndpointAddress::Resolved(Address::Ip(ip)) if r#use == Use::Dns && hostname.is_empty() => {
                ip.ip().to_string()
            }
            _ => hostname,
        };
        let mut additional = Vec::with_capacity(additional_addresses.len());
        for (index, proto::endpoint::AdditionalAddress { address }) in additional_addresses.into_iter().enumerate() {
            let list = at.field("additional_addresses");
            let at = list.index(index);
            match address::resolved(at, at.required("address", address)?)? {
                Address::Ip(ip) => additional.push(ip),
                other => return Err(at.error(format_args!("additional_addresses must be IP addresses, not {other}"))),
            }
        }
        let weight = load_balancing_weight.map_or(1, |v| v.value);
        if weight == 0 {
            return Err(at.field("load_balancing_weight").error("value must be greater than or equal to 1"));
        }
        let tlvs = metadata.as_ref().map(|metadata| host_tlvs(at, metadata)).transpose()?.flatten();
        let metadata = metadata.map(metadata_from).filter(|map| !map.is_empty());
        Ok(Self {
            address,
            additional_addresses: additional.into(),
            hostname: hostname.into(),
            weight,
            health: health_flags(at, health_status)?,
            check: health_check_config
                .map(|config| endpoint_check(at.field("health_check_config"), config))
                .transpose()?
                .flatten(),
            tlvs,
            canary: metadata.as_ref().and_then(|m| m.get("envoy.lb")?.get("canary")?.as_bool()).unwrap_or(false),
            metadata: metadata.map(Arc::new),
        })
    }
}

/// `None` when it says nothing.
fn endpoint_check(
    at: At<'_>,
    proto: proto::endpoint::HealthCheckConfig,
) -> Result<Option<Arc<EndpointCheck>>, ConfigError> {
    let proto::endpoint::HealthCheckConfig { port_value, hostname, address, disable_active_health_check } = proto;
    let port = u16::try_from(port_value)
        .map_err(|_| at.field("port_value").error("value must be less than or equal to 65535"))?;
    let check = EndpointCheck {
        address: address.map(|address| address::resolved(at.field("address"), address)).transpose()?,
        port,
        hostname: hostname.into(),
        disabled: disable_active_health_check,
    };
    Ok((check != EndpointCheck::default()).then(|| Arc::new(check)))
}

fn strict_dns_resolver(at: At<'_>, address: &core::Address) -> Result<(), ConfigError> {
    match &address.address {
        Some(core::address::Address::SocketAddress(socket)) if !socket.resolver_name.is_empty() => {
            Err(at.error("STRICT_DNS clusters must NOT have a custom resolver name set"))
        }
        _ => Ok(()),
    }
}

/// The bits a `health_status` sets.
fn health_flags(at: At<'_>, status: i32) -> Result<HealthFlags, ConfigError> {
    Ok(match core::HealthStatus::try_from(status) {
        Ok(core::HealthStatus::Unknown | core::HealthStatus::Healthy) => HealthFlags::NONE,
        Ok(core::HealthStatus::Unhealthy | core::HealthStatus::Timeout) => HealthFlags::FAILED_EDS_HEALTH,
        Ok(core::HealthStatus::Draining) => HealthFlags::EDS_STATUS_DRAINING,
        Ok(core::HealthStatus::Degraded) => HealthFlags::DEGRADED_EDS_HEALTH,
        Err(_) => return Err(at.field("health_status").error("value must be one of the defined enum values")),
    })
}

fn drop_overload(
    at: At<'_>,
    protos: Vec<proto::cluster_load_assignment::policy::DropOverload>,
) -> Result<Option<DropOverload>, ConfigError> {
    if protos.len() > 1 {
        return Err(at.error(format_args!(
            "Cluster drop_overloads config has {} categories. Envoy only support one.",
            protos.len()
        )));
    }
    let Some(proto::cluster_load_assignment::policy::DropOverload { category, drop_percentage }) =
        protos.into_iter().next()
    else {
        return Ok(None);
    };
    let share = drop_percentage.unwrap_or_default();
    let denominator = match share.denominator {
        0 => 100.0,
        1 => 10_000.0,
        2 => 1_000_000.0,
        _ => return Err(at.field("drop_percentage").error("denominator must be one of the defined enum values")),
    };
    let ratio = f64::from(share.numerator) / denominator;
    if ratio > 1.0 {
        return Err(at.error("Cluster drop_overloads config is invalid. drop_ratio must be 0.0 to 1.0"));
    }
    Ok((ratio > 0.0).then(|| DropOverload { category: category.into(), ratio }))
}

/// The name space of what a PROXY header tells a host.
const TLVS_OF_HOST: &str = "envoy.transport_sockets.proxy_protocol";

/// What `typed_filter_metadata` says that PROXY headers are to tell the host. As in Envoy, what cannot be read is not told.
fn host_tlvs(at: At<'_>, metadata: &core::Metadata) -> Result<Option<Arc<[Tlv]>>, ConfigError> {
    let Some(any) = metadata.typed_filter_metadata.get(TLVS_OF_HOST) else { return Ok(None) };
    if any.type_url.rsplit('/').next() != Some("envoy.config.core.v3.PerHostConfig") {
        return Ok(None);
    }
    let Ok(core::PerHostConfig { added_tlvs }) = core::PerHostConfig::decode(&any.value[..]) else { return Ok(None) };
    Ok(Some(Tlvs::parse_fixed(at.field("added_tlvs"), added_tlvs)?.into()))
}

/// `filter_metadata` as JSON. `typed_filter_metadata` is read by PROXY headers, and by extensions that Legate does not have.
pub fn metadata_from(proto: core::Metadata) -> Metadata {
    let core::Metadata { filter_metadata, typed_filter_metadata: _ } = proto;
    let mut entries: Vec<_> = filter_metadata.into_iter().collect();
    // Protobuf maps have no order; ours do, so that equal metadata compares and prints equal.
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries.into_iter().map(|(name, fields)| (name, struct_json(fields))).collect()
}

/// The fields of a protobuf `Struct`.
#[must_use]
pub fn struct_fields(proto: google::Struct) -> filters::stream_info::Metadata {
    match struct_json(proto) {
        serde_json::Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

/// A protobuf `Struct` as a JSON object.
#[must_use]
pub fn struct_json(proto: google::Struct) -> serde_json::Value {
    let mut fields: Vec<_> = proto.fields.into_iter().collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    serde_json::Value::Object(fields.into_iter().map(|(name, value)| (name, value_json(value))).collect())
}

fn value_json(proto: google::Value) -> serde_json::Value {
    use google::value::Kind;
    match proto.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::StructValue(fields)) => struct_json(fields),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value_json).collect(),
    }
}

#[cfg(test)]
mod tests;
