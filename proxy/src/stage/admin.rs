//! What the proxies say about themselves at their admin pages.

use std::collections::HashMap;

use super::http1::Http1;

/// The statistics of one proxy at one moment.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    values: HashMap<String, String>,
}

impl Statistics {
    /// Fetches them.
    pub(crate) async fn fetch(admin: &mut Http1) -> Result<Self, String> {
        let body = admin.fetch("/stats").await?;
        Ok(Self::parse(&String::from_utf8_lossy(&body)))
    }

    /// A counter or gauge; 0 if it does not exist (yet).
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.values.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// A text readout; a dash if it does not exist (yet).
    pub(crate) fn text(&self, name: &str) -> &str {
        self.values.get(name).map(|value| value.trim_matches('"')).filter(|value| !value.is_empty()).unwrap_or("-")
    }

    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        Self { values: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_statistics_are_read() {
        let text =
            "cluster_manager.cds.version_text: \"3\"\nhttp.egress.downstream_rq_total: 17\nh: P0(nan,1) P25(nan,2)\n";
        let statistics = Statistics::parse(text);
        assert_eq!(statistics.number("http.egress.downstream_rq_total"), 17);
        assert_eq!(statistics.text("cluster_manager.cds.version_text"), "3");
        assert_eq!((statistics.number("none"), statistics.text("none")), (0, "-"));
    }
}
