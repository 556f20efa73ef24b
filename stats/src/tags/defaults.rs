//! Envoy's default tags: which part of which names they are. Measured on Envoy 1.40; `tests/data/envoy-1.40-tags.tsv` has what
//! it makes of some three hundred names.

use regex::Regex;

use super::Found;

/// How a tag's value is found in a name.
#[derive(Clone, Debug)]
pub(super) enum Find {
    /// By tokens, the parts between dots: `*` is any one, `**` any number (at the end: at least one), `$` the one that is the
    /// value. The value goes with the dot behind it, or the dot before it if it is the last.
    Tokens(&'static str),
    /// By a function.
    With(for<'a> fn(&'a str) -> Option<Found<'a>>),
    /// By a configured regular expression.
    Regex(Regex),
    /// Always the same.
    Fixed(String),
}

/// A default tag.
pub(super) struct Default {
    pub(super) tag: &'static str,
    /// The names' first token, if it must be a certain one.
    pub(super) first_token: &'static str,
    pub(super) find: Find,
}

/// In the order of the labels.
pub(super) const DEFAULTS: &[Default] = &[
    any("envoy.response_code", Find::With(response_code)),
    any("envoy.response_code_class", Find::With(response_code_class)),
    any("envoy.ssl_curve", Find::With(|name| ssl_leaf(name, ".ssl.curves", is_cipher))),
    any("envoy.ssl_sigalg", Find::With(|name| ssl_leaf(name, ".ssl.sigalgs", is_cipher))),
    any("envoy.ssl_version", Find::With(|name| ssl_leaf(name, ".ssl.versions", is_tls_version))),
    any("envoy.tls_certificate", Find::With(tls_certificate)),
    any("envoy.worker_id", Find::With(worker_id)),
    any("envoy.local_http_ratelimit_prefix", Find::Tokens("$.http_local_rate_limit.**")),
    any("envoy.rbac_prefix", Find::Tokens("$.rbac.**")),
    of("cluster", "cipher_suite", Find::With(cluster_cipher)),
    of("cluster", "envoy.health_check_name", Find::With(health_check_name)),
    of("cluster", "envoy.grpc_bridge_method", Find::Tokens("cluster.*.grpc.*.$.**")),
    of("cluster", "envoy.grpc_bridge_service", Find::Tokens("cluster.*.grpc.$.**")),
    of("cluster", "envoy.cluster_name", Find::Tokens("cluster.$.**")),
    of("cluster", "envoy.ext_authz_prefix", Find::Tokens("cluster.*.ext_authz.$.**")),
    of("http", "envoy.dynamo_partition_id", Find::With(dynamo_partition_id)),
    of("http", "envoy.dynamo_operation", Find::With(dynamo_operation)),
    of("http", "envoy.dynamo_table", Find::With(dynamo_table)),
    of("http", "envoy.rds_route_config", Find::With(|name| route_config(name, "rds"))),
    of("http", "envoy.scoped_rds_config", Find::With(|name| route_config(name, "scoped_rds"))),
    of("http", "envoy.rbac_http_prefix", Find::With(rbac_http_prefix)),
    of("http", "envoy.rbac_policy_name", Find::With(rbac_policy_name)),
    of("http", "envoy.http_user_agent", Find::Tokens("http.*.user_agent.$.**")),
    of("http", "envoy.fault_downstream_cluster", Find::Tokens("http.*.fault.$.**")),
    of("http", "envoy.ext_authz_prefix", Find::Tokens("http.*.ext_authz.$.**")),
    of("http", "envoy.http_conn_manager_prefix", Find::Tokens("http.$.**")),
    of("listener", "envoy.ssl_cipher", Find::With(|name| ssl_leaf(name, ".ssl.ciphers", is_cipher))),
    of("listener", "envoy.http_conn_manager_prefix", Find::With(listener_http)),
    of("listener", "envoy.listener_address", Find::With(listener_address)),
    of("vhost", "envoy.virtual_cluster", Find::Tokens("vhost.*.vcluster.$.**")),
    of("vhost", "envoy.virtual_host", Find::Tokens("vhost.$.**")),
    of("vhost", "envoy.route", Find::Tokens("vhost.*.route.$.**")),
    of("mongo", "envoy.mongo_callsite", Find::Tokens("mongo.*.collection.*.callsite.$.query.**")),
    of("mongo", "envoy.mongo_collection", Find::Tokens("mongo.*.collection.$.**.query.*")),
    of("mongo", "envoy.mongo_cmd", Find::Tokens("mongo.*.cmd.$.**")),
    of("mongo", "envoy.mongo_prefix", Find::Tokens("mongo.$.**")),
    of("proxy_proto", "envoy.proxy_protocol_prefix", Find::With(proxy_protocol_prefix)),
    of("proxy_proto", "envoy.proxy_protocol_version", Find::With(proxy_protocol_version)),
    of("tcp", "envoy.tcp_prefix", Find::Tokens("tcp.$.**")),
    of("udp", "envoy.udp_prefix", Find::Tokens("udp.$.**")),
    of("auth", "envoy.clientssl_prefix", Find::Tokens("auth.clientssl.$.**")),
    of("ratelimit", "envoy.ratelimit_prefix", Find::Tokens("ratelimit.$.**")),
    of("thrift", "envoy.thrift_prefix", Find::Tokens("thrift.$.**")),
    of("redis", "envoy.redis_prefix", Find::Tokens("redis.$.**")),
    of("grpc", "envoy.google_grpc_client_prefix", Find::Tokens("grpc.$.**")),
    of("local_rate_limit", "envoy.local_network_ratelimit_prefix", Find::Tokens("local_rate_limit.$.**")),
    of(
        "listener_local_ratelimit",
        "envoy.local_listener_ratelimit_prefix",
        Find::Tokens("listener_local_ratelimit.$.**"),
    ),
    of("dns_filter", "envoy.dns_filter_prefix", Find::Tokens("dns_filter.$.**")),
    of("connection_limit", "envoy.connection_limit_prefix", Find::Tokens("connection_limit.$.**")),
    of("sds", "envoy.xds_resource_name", Find::With(sds_resource)),
];

const fn any(tag: &'static str, find: Find) -> Default {
    Default { tag, first_token: "", find }
}

const fn of(first_token: &'static str, tag: &'static str, find: Find) -> Default {
    Default { tag, first_token, find }
}

impl Find {
    pub(super) fn find<'a>(&'a self, name: &'a str) -> Option<Found<'a>> {
        match self {
            Self::Tokens(pattern) => by_tokens(pattern, name),
            Self::With(find) => find(name),
            Self::Regex(regex) => {
                let captures = regex.captures(name)?;
                if captures.len() < 2 {
                    return None;
                }
                let removed = captures.get(1).map_or(0..0, |removed| removed.range());
                let value = captures.get(captures.len().min(3) - 1).map_or("", |value| value.as_str());
                Some(Found { removed, value })
            }
            Self::Fixed(value) => Some(Found { removed: 0..0, value }),
        }
    }
}

fn by_tokens<'a>(pattern: &str, name: &'a str) -> Option<Found<'a>> {
    /// Where the value begins and ends; none yet if the pattern has no `$` left.
    fn matches(
        mut pattern: std::str::Split<'_, char>,
        rest: Option<&str>,
        at: usize,
        value: Option<(usize, usize)>,
    ) -> Option<(usize, usize)> {
        let Some(expected) = pattern.next() else {
            return rest.is_none().then_some(value).flatten();
        };
        let next = |rest: &str| {
            rest.split_once('.').map_or((rest.len(), None), |(token, after)| (token.len(), Some(after.len())))
        };
        if expected == "**" {
            let (mut rest, mut at) = (rest, at);
            if pattern.clone().next().is_none() {
                return rest.and(value);
            }
            loop {
                if let Some(found) = matches(pattern.clone(), rest, at, value) {
                    return Some(found);
                }
                let text = rest?;
                let (length, after) = next(text);
                rest = after.and_then(|after| text.get(text.len() - after..));
                at += length + 1;
            }
        }
        let text = rest?;
        let (length, after) = next(text);
        let value = match expected {
            "*" => value,
            "$" => Some((at, at + length)),
            literal => (text.get(..length) == Some(literal)).then_some(value)?,
        };
        matches(pattern, after.and_then(|after| text.get(text.len() - after..)), at + length + 1, value)
    }
    let (start, end) = matches(pattern.split('.'), Some(name), 0, None)?;
    let removed = if end < name.len() { start..end + 1 } else { start.saturating_sub(1)..end };
    Some(Found { removed, value: name.get(start..end)? })
}

/// What is found at `start..end`, with the dot behind it.
fn with_dot(name: &str, start: usize, end: usize) -> Option<Found<'_>> {
    Some(Found { removed: start..end + 1, value: name.get(start..end)? })
}

/// What is found from `start` to the end, with the dot before it.
fn to_end(name: &str, start: usize) -> Option<Found<'_>> {
    Some(Found { removed: start.saturating_sub(1)..name.len(), value: name.get(start..)? })
}

/// A token that is not empty and has a dot behind it, at `start`.
fn token_at(name: &str, start: usize) -> Option<Found<'_>> {
    let length = name.get(start..)?.find('.').filter(|&length| length > 0)?;
    with_dot(name, start, start + length)
}

/// Whatever is behind `first.<one token>.`, and where.
fn below<'a>(name: &'a str, first: &str) -> Option<(usize, &'a str)> {
    let (_, rest) =
        name.strip_prefix(first)?.strip_prefix('.')?.split_once('.').filter(|(token, _)| !token.is_empty())?;
    Some((name.len() - rest.len(), rest))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_cipher(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn is_tls_version(text: &str) -> bool {
    matches!(text.as_bytes(), [b'T', b'L', b'S', b'v', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// `..._rq_200`, of which `_200` goes.
fn response_code(name: &str) -> Option<Found<'_>> {
    let start = name.len().checked_sub(3)?;
    let (before, code) = name.split_at_checked(start)?;
    (before.ends_with("_rq_") && code.bytes().all(|byte| byte.is_ascii_digit())).then(|| to_end(name, start))?
}

/// `..._rq_2xx`, of which `2` goes.
fn response_code_class(name: &str) -> Option<Found<'_>> {
    let before = name.strip_suffix("xx")?;
    let start = before.len().checked_sub(1)?;
    let (family, class) = before.split_at_checked(start)?;
    (family.ends_with("_rq_") && class.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(Found { removed: start..start + 1, value: class })
}

/// `listener.<any>.ssl.<family>.<value>`, and the same of a cluster. The value is the rest of the name.
fn ssl_leaf<'a>(name: &'a str, family: &str, fits: fn(&str) -> bool) -> Option<Found<'a>> {
    ssl_owner(name)?;
    let at = name.match_indices(family).map(|(at, _)| at + family.len() + 1);
    at.into_iter().find_map(|start| {
        let dotted = name.get(..start)?.ends_with('.');
        (dotted && fits(name.get(start..)?)).then(|| to_end(name, start))?
    })
}

fn ssl_owner(name: &str) -> Option<&str> {
    name.strip_prefix("listener.").or_else(|| name.strip_prefix("cluster."))
}

/// `cluster.<name>.ssl.ciphers.<cipher>`
fn cluster_cipher(name: &str) -> Option<Found<'_>> {
    let (start, rest) = below(name, "cluster")?;
    let cipher = rest.strip_prefix("ssl.ciphers.")?;
    is_cipher(cipher).then(|| to_end(name, start + "ssl.ciphers.".len()))?
}

/// `<listener or cluster>.<any>.ssl.certificate.<name>.<rest>`
fn tls_certificate(name: &str) -> Option<Found<'_>> {
    ssl_owner(name)?;
    let family = ".ssl.certificate.";
    name.match_indices(family).find_map(|(at, _)| token_at(name, at + family.len()))
}

/// The number in `worker_<n>.`, behind the name of whatever the worker is a part of.
fn worker_id(name: &str) -> Option<Found<'_>> {
    let start = match name.split_once('.')?.0 {
        owner @ ("server" | "listener_manager" | "thread_local_cluster_manager") => owner.len() + 1,
        "listener" => listener_address(name).map_or_else(|| token_at(name, "listener.".len()), Some)?.removed.end,
        _ => return None,
    };
    let found = token_at(name, start + name.get(start..)?.strip_prefix("worker_").map(|_| "worker_".len())?)?;
    found.value.bytes().all(|byte| byte.is_ascii_digit()).then_some(found)
}

/// `listener.<any>.http.<stat_prefix>.`
fn listener_http(name: &str) -> Option<Found<'_>> {
    let rest = name.strip_prefix("listener.")?;
    let offset = name.len() - rest.len();
    rest.match_indices(".http.").find_map(|(at, family)| token_at(name, offset + at + family.len()))
}

/// `listener.<address>_<port>.` with the dots of the address, or `listener.<stat_prefix>.`, but not `listener.admin.`.
fn listener_address(name: &str) -> Option<Found<'_>> {
    let start = "listener.".len();
    let rest = name.strip_prefix("listener.")?;
    if let Some(length) = address_length(rest) {
        return with_dot(name, start, start + length);
    }
    token_at(name, start).filter(|found| found.value != "admin")
}

/// The length of `1.2.3.4_80` or `[fe80__1]_80`, if that and a dot are what the text begins with.
fn address_length(text: &str) -> Option<usize> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut at = 0;
    if let Some(inside) = text.strip_prefix('[') {
        let length = inside.find(']').filter(|&length| length > 0)?;
        if !inside.get(..length)?.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'_') {
            return None;
        }
        at = length + 2;
    } else {
        for part in 0..4 {
            let length = digits(text.get(at..)?);
            if !(1..=3).contains(&length) {
                return None;
            }
            at += length;
            if part < 3 {
                text.get(at..)?.strip_prefix('.')?;
                at += 1;
            }
        }
    }
    text.get(at..)?.strip_prefix('_')?;
    let port = digits(text.get(at + 1..)?);
    at += 1 + port;
    (port > 0 && text.get(at..)?.starts_with('.')).then_some(at)
}

/// `cluster.<name>.health_check.name.<health check>.<rest>`, of which `.name.<health check>` goes.
fn health_check_name(name: &str) -> Option<Found<'_>> {
    let (start, rest) = below(name, "cluster")?;
    let (value, after) = rest.strip_prefix("health_check.name.")?.split_once('.')?;
    let start = start + "health_check.name.".len();
    (!value.is_empty() && !after.is_empty())
        .then_some(Found { removed: start - ".name.".len()..start + value.len(), value })
}

/// `http.<stat_prefix>.rds.<route configuration>.<statistic>`; the configuration's name may have dots.
fn route_config<'a>(name: &'a str, family: &str) -> Option<Found<'a>> {
    let (start, rest) = below(name, "http")?;
    let (value, statistic) = rest.strip_prefix(family)?.strip_prefix('.')?.rsplit_once('.')?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let start = start + family.len() + 1;
    (is_word(statistic) && !value.is_empty() && value.bytes().all(fits))
        .then(|| with_dot(name, start, start + value.len()))?
}

/// `http.<stat_prefix>.rbac.<rules_stat_prefix>.<rest>`
fn rbac_http_prefix(name: &str) -> Option<Found<'_>> {
    let (start, rest) = below(name, "http")?;
    rest.strip_prefix("rbac.")?;
    token_at(name, start + "rbac.".len()).filter(|found| found.value != "policy")
}

/// `http.<stat_prefix>.rbac.[<rules_stat_prefix>.]policy.<policy>.<verdict>`
fn rbac_policy_name(name: &str) -> Option<Found<'_>> {
    let (_, rest) = below(name, "http")?;
    let rest = rest.strip_prefix("rbac.")?;
    let tail = rest.strip_prefix("policy.").or_else(|| rest.split_once('.')?.1.strip_prefix("policy."))?;
    let (policy, verdict) = tail.split_once('.')?;
    let start = name.len() - tail.len();
    (!policy.is_empty() && matches!(verdict, "allowed" | "denied" | "shadow_allowed" | "shadow_denied"))
        .then(|| with_dot(name, start, start + policy.len()))?
}

/// `proxy_proto.[<stat_prefix>.]versions.v<n>.<statistic>`; all but the first and the last token go.
fn proxy_protocol_version(name: &str) -> Option<Found<'_>> {
    let start = "proxy_proto.".len();
    let rest = name.strip_prefix("proxy_proto.")?;
    let tail = rest.strip_prefix("versions.v").or_else(|| rest.split_once('.')?.1.strip_prefix("versions.v"))?;
    let (value, statistic) = tail.split_once('.')?;
    let digit = value.len() == 1 && value.bytes().all(|byte| byte.is_ascii_digit());
    (digit && is_word(statistic)).then_some(Found { removed: start..name.len() - statistic.len(), value })
}

/// `proxy_proto.<stat_prefix>.<rest>`
fn proxy_protocol_prefix(name: &str) -> Option<Found<'_>> {
    token_at(name, "proxy_proto.".len()).filter(|found| found.value != "versions" && found.removed.end < name.len())
}

/// `sds.<secret>.<rest>`
fn sds_resource(name: &str) -> Option<Found<'_>> {
    token_at(name, "sds.".len()).filter(|found| found.removed.end < name.len())
}

/// Whatever is behind `http.<stat_prefix>.dynamodb.`, and where.
fn dynamo(name: &str) -> Option<(usize, &str)> {
    let (start, rest) = below(name, "http")?;
    Some((start + "dynamodb.".len(), rest.strip_prefix("dynamodb.")?))
}

/// `table.<table>.capacity.<operation>.__partition_id=<7 characters>`
fn dynamo_partition_id(name: &str) -> Option<Found<'_>> {
    let mut tokens = dynamo(name)?.1.split('.');
    let (family, _, capacity, _) = (tokens.next()?, tokens.next()?, tokens.next()?, tokens.next()?);
    let value = tokens.next()?.strip_prefix("__partition_id=")?;
    let fits =
        family == "table" && capacity == "capacity" && value.len() == 7 && is_word(value) && tokens.next().is_none();
    let removed = name.len() - value.len() - ".__partition_id=".len()..name.len();
    fits.then_some(Found { removed, value })
}

/// `operation.<operation>` or `table.<table>.capacity.<operation>`, of which the dot before goes too.
fn dynamo_operation(name: &str) -> Option<Found<'_>> {
    let (_, rest) = dynamo(name)?;
    let tail = rest
        .strip_prefix("operation.")
        .or_else(|| rest.strip_prefix("table.")?.split_once('.')?.1.strip_prefix("capacity."))?;
    let value = tail.split('.').next().filter(|value| !value.is_empty())?;
    let start = name.len() - tail.len();
    Some(Found { removed: start - 1..start + value.len(), value })
}

/// `table.<table>.` or `error.<table>.`
fn dynamo_table(name: &str) -> Option<Found<'_>> {
    let (start, rest) = dynamo(name)?;
    let tail = rest.strip_prefix("table.").or_else(|| rest.strip_prefix("error."))?;
    token_at(name, start + (rest.len() - tail.len()))
}
