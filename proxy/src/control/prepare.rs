//! Discovered resources from bytes to runtime types, on whatever thread.
//!
//! What is small is prepared at once. What is big goes to a helper thread, so that it delays nothing else control does:
//! lookups, pages, other sources. Either way the result is [`Prepared`]; what is to be counted or logged about it comes
//! along as [`Note`]s, because only control counts and logs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use filters::config::{Session, Warning};
use filters::matcher::RegexLimits;
use prost::Message;
use xds_client::proto::{CheckOptions, CheckReport, UnknownFields, check};
use xds_client::{Rejection, Resource, ResourceError};

use super::clusters::ClusterResource;
use crate::config::endpoint::{LoadAssignment, Use};
use crate::config::route::RouteEnv;
use crate::route::RouteTable;
use crate::runtime::{self, Values, flatten};

/// As many bytes of resources are prepared in about a millisecond; more go to the helper thread.
const BIG: usize = 64 << 10;

/// What preparing depends on.
#[derive(Clone, Debug)]
pub struct Preparer {
    /// `--allow-unsupported`
    pub allowed: Arc<[String]>,
    /// What happens to unknown fields.
    pub unknown_fields: UnknownFields,
    /// `re2.max_program_size.*`
    pub regex: RegexLimits,
}

/// An update's resources, ready to be applied.
#[derive(Debug)]
pub struct Prepared {
    /// The resources.
    pub content: Content,
    /// What there is to say about them.
    pub notes: Vec<Note>,
}

/// Resources of one type, each with what became of it.
#[derive(Debug)]
pub enum Content {
    /// A resource that breaks the protos' rules rejects the whole response, so there is either.
    Clusters(Result<Vec<ClusterResource>, Rejection>),
    /// Assignments by name.
    Endpoints(Vec<(String, Result<Arc<LoadAssignment>, String>)>),
    /// Route configurations.
    Routes(Vec<(Resource, Route)>),
    /// Listeners are only checked: what they mean depends on what else there is.
    Listeners(Result<Vec<Resource>, Rejection>),
    /// Layers of the runtime, by name.
    Runtime(Vec<(String, Result<Values, String>)>),
    /// Secrets. What they hold is read when they are applied, with the files they name.
    Secrets(Vec<(Resource, Result<Secret, String>)>),
    /// Nothing to apply: a type that is not handled, or a failure of our own.
    Refused(Rejection),
}

/// What became of a route configuration.
#[derive(Debug)]
pub enum Route {
    /// It is a table, or why not.
    Built(Result<Arc<RouteTable>, String>),
    /// It wants its clusters validated, and only control knows them.
    ForControl(Box<RouteConfiguration>),
}

/// Something to log or count, on control.
#[derive(Debug)]
pub enum Note {
    /// What the rules found that is no error, in a resource of this type.
    Report(Arc<str>, CheckReport),
    /// What the resource of this description asks for and does not get.
    Warnings(String, Vec<Warning>),
}

/// Whether an update is worth another thread.
#[must_use]
pub fn is_big(resources: &[Resource]) -> bool {
    resources.iter().filter_map(|resource| resource.body.as_ref()).map(Bytes::len).sum::<usize>() > BIG
}

impl Preparer {
    /// Checks and parses the resources of an update.
    #[must_use]
    pub fn prepare(&self, type_url: &Arc<str>, resources: Vec<Resource>) -> Prepared {
        let mut notes = Vec::new();
        let content = match &**type_url {
            xds_client::CLUSTER => Content::Clusters(self.clusters(type_url, resources, &mut notes)),
            xds_client::ENDPOINTS => Content::Endpoints(self.endpoints(type_url, resources, &mut notes)),
            xds_client::ROUTE => Content::Routes(self.routes(type_url, resources, &mut notes)),
            xds_client::LISTENER => Content::Listeners(self.listeners(type_url, resources, &mut notes)),
            xds_client::RUNTIME => Content::Runtime(self.runtime(type_url, resources, &mut notes)),
            xds_client::SECRET => Content::Secrets(self.secrets(type_url, resources, &mut notes)),
            other => Content::Refused(Rejection::whole(format!("{other} is not handled"))),
        };
        Prepared { content, notes }
    }

    fn clusters(
        &self,
        type_url: &Arc<str>,
        resources: Vec<Resource>,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<ClusterResource>, Rejection> {
        let mut errors = Vec::new();
        let mut parsed = Vec::with_capacity(resources.len());
        for resource in resources {
            let Some(raw) = resource.body else { continue };
            if let Err(message) = self.check(type_url, &raw, notes) {
                errors.push(ResourceError { name: resource.name, message });
                continue;
            }
            let session = self.session();
            let cluster = ClusterResource::parse(session.root(), raw);
            warn(notes, &session, || format!("cluster {:?}", cluster.name));
            parsed.push(cluster);
        }
        if errors.is_empty() { Ok(parsed) } else { Err(Rejection { errors }) }
    }

    fn endpoints(
        &self,
        type_url: &Arc<str>,
        resources: Vec<Resource>,
        notes: &mut Vec<Note>,
    ) -> Vec<(String, Result<Arc<LoadAssignment>, String>)> {
        let mut prepared = Vec::with_capacity(resources.len());
        for resource in resources {
            let Some(raw) = resource.body else { continue };
            let session = self.session();
            let parsed = self.decode::<ClusterLoadAssignment>(type_url, &raw, notes).and_then(|proto| {
                LoadAssignment::parse(session.root(), proto, Use::Eds).map_err(|error| error.to_string())
            });
            warn(notes, &session, || format!("cluster load assignment {:?}", resource.name));
            prepared.push((resource.name, parsed.map(Arc::new)));
        }
        prepared
    }

    fn routes(&self, type_url: &Arc<str>, resources: Vec<Resource>, notes: &mut Vec<Note>) -> Vec<(Resource, Route)> {
        let mut prepared = Vec::with_capacity(resources.len());
        for resource in resources {
            let Some(raw) = &resource.body else { continue };
            let route = match self.decode::<RouteConfiguration>(type_url, raw, notes) {
                Err(message) => Route::Built(Err(message)),
                Ok(proto) if proto.validate_clusters.is_some_and(|wanted| wanted.value) => {
                    Route::ForControl(Box::new(proto))
                }
                Ok(proto) => {
                    let session = self.session();
                    let env = RouteEnv {
                        cluster_exists: &|_| true,
                        validate_clusters: false,
                        regex: self.regex,
                        parse_format: filters::format::parse_header_value,
                    };
                    let table = RouteTable::parse(proto, session.root(), &env).map_err(|error| error.to_string());
                    warn(notes, &session, || format!("route configuration {:?}", resource.name));
                    Route::Built(table.map(Arc::new))
                }
            };
            prepared.push((resource, route));
        }
        prepared
    }

    fn secrets(
        &self,
        type_url: &Arc<str>,
        resources: Vec<Resource>,
        notes: &mut Vec<Note>,
    ) -> Vec<(Resource, Result<Secret, String>)> {
        let decode = |resource: Resource| {
            let secret = self.decode(type_url, resource.body.as_ref()?, notes);
            Some((resource, secret))
        };
        resources.into_iter().filter_map(decode).collect()
    }

    fn listeners(
        &self,
        type_url: &Arc<str>,
        resources: Vec<Resource>,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Resource>, Rejection> {
        let mut errors = Vec::new();
        for resource in &resources {
            let Some(raw) = &resource.body else { continue };
            if let Err(message) = self.check(type_url, raw, notes) {
                errors.push(ResourceError { name: resource.name.clone(), message });
            }
        }
        if errors.is_empty() { Ok(resources) } else { Err(Rejection { errors }) }
    }

    fn runtime(
        &self,
        type_url: &Arc<str>,
        resources: Vec<Resource>,
        notes: &mut Vec<Note>,
    ) -> Vec<(String, Result<Values, String>)> {
        let with_body = resources.into_iter().filter_map(|resource| Some((resource.name, resource.body?)));
        with_body
            .map(|(name, raw)| {
                let values = self.decode::<Runtime>(type_url, &raw, notes).and_then(|Runtime { name: _, layer }| {
                    flatten(&layer.unwrap_or_default()).map_err(runtime::invalid_entry)
                });
                (name, values)
            })
            .collect()
    }

    fn session(&self) -> Session {
        Session::new(self.allowed.iter().cloned())
    }

    /// Checks a resource's bytes and decodes them.
    fn decode<M: Message + Default>(
        &self,
        type_url: &Arc<str>,
        raw: &Bytes,
        notes: &mut Vec<Note>,
    ) -> Result<M, String> {
        self.check(type_url, raw, notes)?;
        M::decode(raw.clone()).map_err(|error| error.to_string())
    }

    /// Checks a resource's bytes against the protos' rules; unknown fields are an error if they are rejected.
    fn check(&self, type_url: &Arc<str>, raw: &Bytes, notes: &mut Vec<Note>) -> Result<(), String> {
        let options = CheckOptions { unknown_fields: self.unknown_fields, validate: true };
        let report = check(type_url, raw, &options).map_err(|error| error.to_string())?;
        if report.unknown_field_count > 0 || !report.deprecated.is_empty() {
            notes.push(Note::Report(Arc::clone(type_url), report));
        }
        Ok(())
    }
}

fn warn(notes: &mut Vec<Note>, session: &Session, what: impl FnOnce() -> String) {
    let warnings = session.take_warnings();
    if !warnings.is_empty() {
        notes.push(Note::Warnings(what(), warnings));
    }
}

/// Something the helper thread is to prepare, with the number under which its result comes back.
struct Job {
    number: u64,
    type_url: Arc<str>,
    resources: Vec<Resource>,
}

/// The helper thread; it starts with the first job and ends when this is dropped.
pub struct Helper {
    preparer: Preparer,
    done: tokio::sync::mpsc::UnboundedSender<(u64, Prepared)>,
    jobs: Option<mpsc::Sender<Job>>,
}

impl Helper {
    /// Results go to `done`.
    #[must_use]
    pub const fn new(preparer: Preparer, done: tokio::sync::mpsc::UnboundedSender<(u64, Prepared)>) -> Self {
        Self { preparer, done, jobs: None }
    }

    /// What is prepared here and now.
    #[must_use]
    pub const fn preparer(&self) -> &Preparer {
        &self.preparer
    }

    /// Prepares these resources on the helper thread; on this one if there can be no other.
    pub fn prepare(&mut self, number: u64, type_url: Arc<str>, resources: Vec<Resource>) {
        let mut job = Job { number, type_url, resources };
        if self.jobs.is_none() {
            self.jobs = self.start();
        }
        if let Some(jobs) = &self.jobs {
            match jobs.send(job) {
                Ok(()) => return,
                Err(mpsc::SendError(unsent)) => job = unsent,
            }
        }
        let Job { number, type_url, resources } = job;
        // Control lives while it calls this.
        let _ = self.done.send((number, self.preparer.prepare(&type_url, resources)));
    }

    fn start(&self) -> Option<mpsc::Sender<Job>> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (preparer, done) = (self.preparer.clone(), self.done.clone());
        let run = move || {
            for Job { number, type_url, resources } in inbox {
                let prepared = catch_unwind(AssertUnwindSafe(|| preparer.prepare(&type_url, resources)));
                // An update must be answered, whatever became of it.
                let prepared = prepared.unwrap_or_else(|_| Prepared {
                    content: Content::Refused(Rejection::whole("internal error while the update was read")),
                    notes: Vec::new(),
                });
                if done.send((number, prepared)).is_err() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("config".to_owned()).spawn(run);
        started.inspect_err(|error| tracing::warn!(target: "config", "no helper thread: {error}")).ok().map(|_| jobs)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::route::v3::VirtualHost;
    use envoy_types::pb::google::protobuf::BoolValue;

    use super::*;

    fn preparer() -> Preparer {
        let allowed = Arc::new([]);
        Preparer { allowed, unknown_fields: UnknownFields::Reject, regex: RegexLimits::default() }
    }

    fn resource(name: &str, message: &impl Message) -> Resource {
        Resource::new(name, "", message.encode_to_vec())
    }

    fn cluster(name: &str) -> Resource {
        resource(name, &Cluster { name: name.to_owned(), ..Default::default() })
    }

    fn routes(name: &str, validate: bool) -> Resource {
        let virtual_hosts =
            vec![VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], ..Default::default() }];
        let validate_clusters = validate.then_some(BoolValue { value: true });
        resource(
            name,
            &RouteConfiguration { name: name.to_owned(), virtual_hosts, validate_clusters, ..Default::default() },
        )
    }

    #[test]
    fn one_cluster_that_breaks_the_rules_rejects_them_all_and_is_named() {
        let url = Arc::from(xds_client::CLUSTER);
        let Content::Clusters(Ok(good)) = preparer().prepare(&url, vec![cluster("a"), cluster("b")]).content else {
            panic!("two good clusters")
        };
        assert_eq!(good.iter().map(|cluster| &*cluster.name).collect::<Vec<_>>(), ["a", "b"]);
        let nameless = Resource::new("nameless", "", Vec::new());
        let Content::Clusters(Err(rejection)) = preparer().prepare(&url, vec![cluster("a"), nameless]).content else {
            panic!("a cluster without a name")
        };
        assert_eq!(rejection.errors.iter().map(|error| &*error.name).collect::<Vec<_>>(), ["nameless"]);
    }

    #[test]
    fn routes_that_want_their_clusters_validated_are_left_to_control() {
        let url = Arc::from(xds_client::ROUTE);
        let resources = vec![routes("free", false), routes("strict", true), Resource::new("bad", "", vec![0xff])];
        let Content::Routes(prepared) = preparer().prepare(&url, resources).content else { panic!("routes") };
        let kinds: Vec<_> = prepared
            .iter()
            .map(|(resource, route)| match route {
                Route::Built(Ok(_)) => format!("{} built", resource.name),
                Route::Built(Err(_)) => format!("{} refused", resource.name),
                Route::ForControl(_) => format!("{} for control", resource.name),
            })
            .collect();
        assert_eq!(kinds, ["free built", "strict for control", "bad refused"]);
    }

    #[test]
    fn a_type_that_is_not_handled_is_refused() {
        let prepared = preparer().prepare(&Arc::from("type.googleapis.com/a.B"), Vec::new());
        assert!(matches!(prepared.content, Content::Refused(_)));
    }

    #[tokio::test]
    async fn the_helper_thread_prepares_in_order_and_under_its_numbers() {
        let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
        let mut helper = Helper::new(preparer(), done);
        for number in 1..=3 {
            let many = (0..200).map(|n| cluster(&format!("cluster-{number}-{n}"))).collect();
            helper.prepare(number, Arc::from(xds_client::CLUSTER), many);
        }
        for expected in 1..=3 {
            let (number, prepared) = results.recv().await.expect("a result");
            let Content::Clusters(Ok(clusters)) = prepared.content else { panic!("clusters") };
            assert_eq!((number, clusters.len()), (expected, 200));
            assert!(clusters[0].name.starts_with(&format!("cluster-{number}-")));
        }
    }

    #[test]
    fn big_is_a_matter_of_bytes() {
        let of =
            |bytes: usize| vec![Resource::new("a", "", vec![0; bytes / 2]), Resource::new("b", "", vec![0; bytes / 2])];
        assert!(!is_big(&of(BIG)));
        assert!(is_big(&of(BIG + 2)));
    }
}
