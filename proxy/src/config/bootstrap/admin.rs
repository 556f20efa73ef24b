//! `Admin`: where the admin pages are served, and what is logged of their visits.

use envoy_types::pb::envoy::config::accesslog::v3::AccessLog;
use envoy_types::pb::envoy::config::bootstrap::v3 as proto;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressProto;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::matcher::{RegexLimits, StringMatcher};
use filters::stream_info::Address;

use super::super::address::{SocketOption, resolved, socket_options};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.bootstrap.v3.Admin" {
    profile_path => Warn, "there is no built-in profiler";
    ignore_global_conn_limit => Warn, "admin connections never count towards the limit";
    socket_options => Warn, "the admin server's socket has the defaults";
    access_log_path => Warn, "the admin server's access log is configured with access_log";
} }

/// `admin`.
#[derive(Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub address: Address,
    /// Permissions of a Unix socket; 0 leaves the process's default.
    pub mode: u32,
    /// An IPv6 address takes IPv4 connections too.
    pub ipv4_compat: bool,
    /// Only these paths are served, when there are any.
    pub allow_paths: Vec<StringMatcher>,
    /// Its access logs, to be parsed like a listener's.
    pub access_log: Vec<AccessLog>,
    /// Options for its socket.
    pub socket_options: Vec<SocketOption>,
}

/// `None` without an address: then there is no admin server, as in Envoy.
pub(super) fn parse(at: At<'_>, proto: proto::Admin, limits: RegexLimits) -> Result<Option<AdminConfig>, ConfigError> {
    #[expect(deprecated, reason = "every field is accounted for")]
    let proto::Admin {
        access_log,
        access_log_path,
        profile_path,
        address,
        socket_options: options,
        ignore_global_conn_limit,
        allow_paths,
    } = proto;
    at.unsupported(&unsupported::profile_path, &profile_path)?;
    at.unsupported(&unsupported::ignore_global_conn_limit, &ignore_global_conn_limit)?;
    at.unsupported(&unsupported::access_log_path, &access_log_path)?;
    at.unsupported(&unsupported::socket_options, &options)?;
    let Some(address) = address else { return Ok(None) };
    let (mode, ipv4_compat) = match &address.address {
        Some(AddressProto::Pipe(pipe)) => (pipe.mode, false),
        Some(AddressProto::SocketAddress(socket)) => (0, socket.ipv4_compat),
        _ => (0, false),
    };
    let paths = at.field("allow_paths");
    let allow_paths = allow_paths
        .into_iter()
        .enumerate()
        .map(|(index, matcher)| StringMatcher::parse(matcher, paths.index(index), limits))
        .collect::<Result<_, _>>()?;
    Ok(Some(AdminConfig {
        address: resolved(at.field("address"), address)?,
        mode,
        ipv4_compat,
        allow_paths,
        access_log,
        socket_options: socket_options(at.field("socket_options"), options)?,
    }))
}
