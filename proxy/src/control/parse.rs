//! What turning resources into runtime types needs to know of the process, in one place for every manager.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use filters::config::{At, ConfigError, Session, Warning};
use filters::format::FormatOptions;
use filters::matcher::RegexLimits;
use filters::stream_info::Metadata;
use xds_client::SourceConfig;
use xds_client::proto::{CheckReport, UnknownFields};

use super::prepare::{Note, Preparer};
use crate::config::access_log::LogContext;
use crate::config::any::struct_to_bytes;
use crate::config::bootstrap::NODE_REQUIRED;
use crate::config::hcm::HcmContext;
use crate::config::route::RouteEnv;
use crate::observe::access_log::LogFiles;
use crate::observe::catalogue::{RuntimeStats, ServerStats};
use crate::route::RouteTable;
use crate::upstream::host::Locality;

/// Facts of the process that parsing depends on.
pub struct ParseEnv {
    /// `--allow-unsupported`
    pub allowed: Vec<String>,
    /// What happens to unknown fields in discovered resources.
    pub unknown_fields: UnknownFields,
    /// `re2.max_program_size.*`
    pub regex: Cell<RegexLimits>,
    /// Facts format strings print.
    pub formats: FormatOptions,
    /// The process's log files.
    pub files: Arc<LogFiles>,
    /// `node.id`
    pub node_id: String,
    /// `node.cluster`
    pub node_cluster: String,
    /// `node.metadata`
    pub node_metadata: Metadata,
    /// `node.locality`
    pub node_locality: Locality,
    /// This node's own address.
    pub local_address: Option<IpAddr>,
    /// Runtime guard `http_reject_path_with_fragment` is false.
    pub strip_fragment: bool,
    /// `--skip-deprecated-logs`
    pub skip_deprecated_logs: bool,
    /// Control's shard of `server.` and `runtime.`.
    pub server_stats: ServerStats,
    /// Control's shard of `runtime.`.
    pub runtime_stats: RuntimeStats,
    /// Whether a cluster exists, once there is a cluster manager.
    pub cluster_exists: OnceLockLocal<dyn Fn(&str) -> bool>,
    /// Whether resources can be fetched through a cluster, once there is a cluster manager.
    pub backs_sources: OnceLockLocal<dyn Fn(&str) -> bool>,
    /// What was warned about.
    pub warned: RefCell<BTreeSet<String>>,
}

/// Something set once after its owner was made, on the same thread.
pub struct OnceLockLocal<T: ?Sized>(RefCell<Option<Rc<T>>>);

impl<T: ?Sized> OnceLockLocal<T> {
    /// Not set yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// Sets it.
    pub fn set(&self, value: Rc<T>) {
        *self.0.borrow_mut() = Some(value);
    }

    /// What was set.
    #[must_use]
    pub fn get(&self) -> Option<Rc<T>> {
        self.0.borrow().clone()
    }
}

impl<T: ?Sized> Default for OnceLockLocal<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl ParseEnv {
    /// Nothing was warned about yet.
    #[must_use]
    pub fn warned() -> RefCell<BTreeSet<String>> {
        RefCell::default()
    }

    /// A session for one resource. Give it to [`Self::say`] afterwards.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(self.allowed.iter().cloned())
    }

    /// What preparing discovered resources depends on.
    #[must_use]
    pub fn preparer(&self) -> Preparer {
        let Self { allowed, unknown_fields, regex, .. } = self;
        Preparer { allowed: allowed.as_slice().into(), unknown_fields: *unknown_fields, regex: regex.get() }
    }

    /// Logs and counts what was found in resources while they were prepared.
    pub fn take_notes(&self, notes: Vec<Note>) {
        for note in notes {
            match note {
                Note::Report(type_url, report) => self.report(&type_url, &report),
                Note::Warnings(resource, warnings) => self.warn(&resource, warnings),
            }
        }
    }

    fn report(&self, type_url: &str, report: &CheckReport) {
        if report.unknown_field_count > 0 {
            self.server_stats.dynamic_unknown_fields().add(report.unknown_field_count);
            for field in &report.unknown_fields {
                tracing::warn!(target: "misc", "unknown field in a discovered resource: {field:?}");
            }
        }
        if !report.deprecated.is_empty() {
            self.runtime_stats.deprecated_feature_use().add(report.deprecated.len() as u64);
        }
        for deprecated in report.deprecated.iter().filter(|_| !self.skip_deprecated_logs) {
            if self.warned.borrow_mut().insert(deprecated.name.clone()) {
                tracing::warn!(
                    target: "misc",
                    "Deprecated field: type {} Using deprecated option '{}' from file {}.",
                    type_url, deprecated.name, deprecated.file
                );
            }
        }
    }

    /// Says what a session let through, once per process and kind.
    pub fn say(&self, resource: &str, session: &Session) {
        self.warn(resource, session.take_warnings());
    }

    fn warn(&self, resource: &str, warnings: Vec<Warning>) {
        for Warning { path, key, reason } in warnings {
            self.runtime_stats.deprecated_feature_use().add(0);
            if self.warned.borrow_mut().insert(key.clone()) {
                tracing::warn!(target: "config", "{resource}: {path}: {key} is not supported and has no effect: {reason}");
            }
        }
    }

    /// What the connection manager's parser needs.
    #[must_use]
    pub fn hcm(&self) -> HcmContext<'_> {
        HcmContext {
            log: self.log(),
            node_id: &self.node_id,
            node_cluster: &self.node_cluster,
            node_metadata: &self.node_metadata,
            local_address: self.local_address,
            strip_fragment: self.strip_fragment,
        }
    }

    /// What the access-log parser needs.
    #[must_use]
    pub fn log(&self) -> LogContext<'_> {
        LogContext { convert: struct_to_bytes, formats: &self.formats, limits: self.regex.get(), files: &self.files }
    }

    /// Checks what a source of resources of this type needs of the rest of the configuration: a node that can be named,
    /// and a cluster to ask that is there before anything is discovered.
    ///
    /// # Errors
    /// Which of the two is missing.
    pub fn check_source(&self, at: &At<'_>, source: &SourceConfig, type_url: &str) -> Result<(), ConfigError> {
        if self.node_id.is_empty() || self.node_cluster.is_empty() {
            return Err(at.error(format_args!("{type_url}: {NODE_REQUIRED}")));
        }
        self.check_backing_cluster(at, source)
    }

    /// The second half of [`Self::check_source`].
    ///
    /// # Errors
    /// When the cluster to ask is not there.
    pub fn check_backing_cluster(&self, at: &At<'_>, source: &SourceConfig) -> Result<(), ConfigError> {
        let (Some(cluster), Some(backs_sources)) = (source.cluster(), self.backs_sources.get()) else { return Ok(()) };
        if backs_sources(cluster) {
            return Ok(());
        }
        let field = if matches!(source, SourceConfig::Rest(_)) { "cluster_names" } else { "cluster_name" };
        Err(at.field(field).error(format_args!(
            "envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: '{cluster}' does not \
             exist, was added via api, or is an EDS cluster"
        )))
    }

    /// A discovered route table: its clusters need not exist, unless it says so itself.
    ///
    /// # Errors
    /// What is wrong with it, with the field's path.
    pub fn routes(&self, proto: RouteConfiguration) -> Result<RouteTable, String> {
        let session = self.session();
        let name = proto.name.clone();
        let table = self.route_table(proto, session.root(), false).map_err(|error| error.to_string())?;
        self.say(&format!("route configuration {name:?}"), &session);
        Ok(table)
    }

    /// A route table at this position. The clusters of one that is part of a listener must exist.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn route_table(
        &self,
        proto: RouteConfiguration,
        at: At<'_>,
        validate_clusters: bool,
    ) -> Result<RouteTable, ConfigError> {
        let exists = self.cluster_exists.get();
        let cluster_exists = move |name: &str| exists.as_ref().is_none_or(|exists| exists(name));
        let env = RouteEnv {
            cluster_exists: &cluster_exists,
            validate_clusters,
            regex: self.regex.get(),
            parse_format: filters::format::parse_header_value,
        };
        RouteTable::parse(proto, at, &env)
    }
}

/// The machine's name.
#[must_use]
pub fn hostname() -> Arc<str> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "".into(), |name| name.trim().into())
}
