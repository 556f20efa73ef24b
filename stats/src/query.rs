//! What a `GET /stats` or `/stats/prometheus` asks for.

use std::borrow::Cow;

use regex::Regex;

/// `type=`: which kinds of statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatsType {
    /// All of them.
    #[default]
    All,
    /// Counters.
    Counters,
    /// Gauges.
    Gauges,
    /// Histograms.
    Histograms,
    /// Text readouts.
    TextReadouts,
}

/// `format=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `name: value` lines.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// Prometheus text exposition.
    Prometheus,
    /// A page.
    Html,
    /// A page that refreshes itself.
    ActiveHtml,
}

/// `histogram_buckets=`: how histograms are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BucketMode {
    /// Not set: quantiles, for Prometheus buckets.
    #[default]
    Default,
    /// Buckets, each with those below.
    Cumulative,
    /// Buckets, each on its own.
    Disjoint,
    /// The bins themselves.
    Detailed,
    /// Quantiles.
    Summary,
    /// Prometheus's own exponential buckets, which exist only in its protobuf format.
    PrometheusNative,
}

/// `hidden=`: whether hidden statistics are shown. There are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hidden {
    /// They are not.
    #[default]
    Exclude,
    /// They are.
    Include,
    /// Only they are.
    Only,
}

/// The parameters of a request for statistics.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// `usedonly`: leave out what was never written to.
    pub used_only: bool,
    /// `filter`: only names in which this matches somewhere.
    pub filter: Option<Regex>,
    /// `invert_filter`: only names in which it does not.
    pub invert_filter: bool,
    /// `type`.
    pub kind: StatsType,
    /// `format`.
    pub format: Format,
    /// `histogram_buckets`.
    pub histogram_buckets: BucketMode,
    /// `text_readouts`: Prometheus shows text readouts too.
    pub text_readouts: bool,
    /// `hidden`.
    pub hidden: Hidden,
    /// `pretty`. Envoy accepts it and prints the same.
    pub pretty: bool,
}

/// A parameter is wrong: answer 400 with this as the body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// `filter`.
    #[error("Invalid re2 regex: {0}")]
    Filter(String),
    /// `type`.
    #[error("invalid &type= param")]
    Type,
    /// `format`.
    #[error("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n")]
    Format,
    /// `histogram_buckets`.
    #[error("usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n")]
    HistogramBuckets,
    /// `hidden`.
    #[error("usage: /stats?hidden=(include|only|exclude)\n\n")]
    Hidden,
    /// A way of showing histograms that Prometheus has no name for.
    #[error("unsupported prometheus histogram bucket mode")]
    PrometheusBuckets,
    /// Native histograms in text.
    #[error("unsupported prometheusnative histogram type when not using protobuf exposition format")]
    PrometheusNative,
}

impl Query {
    /// Parses the query string of `/stats`, without its `?`. Unknown parameters are ignored; of one given twice the first
    /// counts.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let parameters = Parameters::of(query);
        let filter = parameters.first("filter").filter(|pattern| !pattern.is_empty());
        let filter =
            filter.map(|pattern| Regex::new(pattern).map_err(|error| QueryError::Filter(as_re2(pattern, &error))));
        let parsed = Self {
            used_only: parameters.has("usedonly"),
            filter: filter.transpose()?,
            invert_filter: parameters.has("invert_filter"),
            histogram_buckets: match parameters.first("histogram_buckets") {
                None | Some("") => BucketMode::Default,
                Some("cumulative") => BucketMode::Cumulative,
                Some("disjoint") => BucketMode::Disjoint,
                Some("detailed") => BucketMode::Detailed,
                Some("summary") => BucketMode::Summary,
                Some("prometheusnative") => BucketMode::PrometheusNative,
                Some(_) => return Err(QueryError::HistogramBuckets),
            },
            kind: match parameters.first("type") {
                None | Some("All") => StatsType::All,
                Some("Counters") => StatsType::Counters,
                Some("Gauges") => StatsType::Gauges,
                Some("Histograms") => StatsType::Histograms,
                Some("TextReadouts") => StatsType::TextReadouts,
                Some(_) => return Err(QueryError::Type),
            },
            hidden: match parameters.first("hidden") {
                None | Some("exclude") => Hidden::Exclude,
                Some("include") => Hidden::Include,
                Some("only") => Hidden::Only,
                Some(_) => return Err(QueryError::Hidden),
            },
            format: match parameters.first("format") {
                None | Some("text") => Format::Text,
                Some("json") => Format::Json,
                Some("prometheus") => Format::Prometheus,
                Some("html") => Format::Html,
                Some("active-html") => Format::ActiveHtml,
                Some(_) => return Err(QueryError::Format),
            },
            text_readouts: parameters.has("text_readouts"),
            pretty: parameters.has("pretty"),
        };
        if parsed.format == Format::Prometheus { parsed.for_prometheus() } else { Ok(parsed) }
    }

    /// Parses the query string of `/stats/prometheus`, which prints that format whatever `format` says.
    pub fn parse_prometheus(query: &str) -> Result<Self, QueryError> {
        Self::parse(query).and_then(Self::for_prometheus)
    }

    fn for_prometheus(self) -> Result<Self, QueryError> {
        match self.histogram_buckets {
            BucketMode::Default | BucketMode::Cumulative | BucketMode::Summary => {
                Ok(Self { format: Format::Prometheus, ..self })
            }
            BucketMode::Disjoint | BucketMode::Detailed => Err(QueryError::PrometheusBuckets),
            BucketMode::PrometheusNative => Err(QueryError::PrometheusNative),
        }
    }
}

/// A query string, decoded.
struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    fn of(query: &'a str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (percent_decoded(name), percent_decoded(value))).collect())
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

/// Resolves `%xx`; what is not one stays, as does `+`.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.first_chunk::<2>().filter(|_| first == b'%');
        let code =
            code.and_then(|code| Some(char::from(code[0]).to_digit(16)? * 16 + char::from(code[1]).to_digit(16)?));
        bytes.push(code.map_or(first, |code| code as u8));
        rest = if code.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Says what is wrong with a regular expression in RE2's words where it has the same idea of it, else in our library's.
fn as_re2(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
    if reason.contains("unclosed group") {
        format!("missing ): {pattern}")
    } else if reason.contains("unopened group") {
        format!("unexpected ): {pattern}")
    } else if reason.contains("unclosed character class") {
        let class = pattern.rfind('[').and_then(|at| pattern.get(at..)).unwrap_or(pattern);
        format!("missing ]: {class}")
    } else if reason.contains("repetition operator missing expression") {
        let operator = pattern.find(['*', '+', '?']).and_then(|at| pattern.get(at..=at)).unwrap_or(pattern);
        format!("no argument for repetition operator: {operator}")
    } else if reason.contains("look-around") {
        let operator = pattern.find("(?").and_then(|at| pattern.get(at..at + 3)).unwrap_or(pattern);
        format!("invalid perl operator: {operator}")
    } else {
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_parameters_get_envoys_messages() {
        let cases = [
            ("filter=(", "Invalid re2 regex: missing ): ("),
            ("filter=%5Ba", "Invalid re2 regex: missing ]: [a"),
            ("filter=a)", "Invalid re2 regex: unexpected ): a)"),
            ("filter=*", "Invalid re2 regex: no argument for repetition operator: *"),
            ("filter=(?%3Da)", "Invalid re2 regex: invalid perl operator: (?="),
            ("type=gauges", "invalid &type= param"),
            ("type=x&format=y&filter=(", "Invalid re2 regex: missing ): ("),
            (
                "type=x&histogram_buckets=y",
                "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n",
            ),
            ("format=xml", "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
            ("hidden=yes&format=xml", "usage: /stats?hidden=(include|only|exclude)\n\n"),
        ];
        for (query, message) in cases {
            assert_eq!(Query::parse(query).unwrap_err().to_string(), message, "{query}");
        }
        let prometheus = |query| Query::parse_prometheus(query).unwrap_err().to_string();
        assert_eq!(prometheus("histogram_buckets=detailed"), "unsupported prometheus histogram bucket mode");
        assert!(prometheus("histogram_buckets=prometheusnative").starts_with("unsupported prometheusnative"));
    }

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        let query =
            Query::parse("usedonly&filter=server%2eliv+%65&type=Gauges&type=Counters&histogram_buckets=&unknown=1%")
                .unwrap();
        assert!(query.used_only && !query.invert_filter);
        assert_eq!(query.filter.unwrap().as_str(), "server.liv+e");
        assert_eq!(query.kind, StatsType::Gauges);
        assert_eq!(query.histogram_buckets, BucketMode::Default);
        assert_eq!(Query::parse_prometheus("format=json").unwrap().format, Format::Prometheus);
    }

    #[test]
    fn broken_percent_codes_stay() {
        for (text, decoded) in [("%", "%"), ("%2", "%2"), ("%zz%41", "%zzA"), ("a%2", "a%2"), ("%25", "%")] {
            assert_eq!(percent_decoded(text), decoded);
        }
    }
}
