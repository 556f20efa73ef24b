//! What the demo shows: a picture redrawn in place on a terminal, lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use super::check::milliseconds;
use super::load::{Counts, Flow, Recent};
use super::mesh::{Mesh, Node};
use super::resources::{MESH_PORT, Ports, SERVICE_B, SERVICE_B_V2, Weights, egress_cluster, egress_routes};
use crate::stage::admin::Statistics;

/// Characters of the bar that shows a share.
const BAR: usize = 24;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[36m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// What there is to show at one moment.
pub(super) struct Moment<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) since_start: Duration,
    pub(super) weights: Weights,
    /// Until the weights change.
    pub(super) next_change: Duration,
    /// The last seconds, in the order of [`Flow::ALL`].
    pub(super) flows: [Counts; 3],
    /// The time `flows` cover.
    pub(super) span: Duration,
    /// Failed since the start.
    pub(super) failed: u64,
    /// Of sidecar and gateway; what could not be fetched says why.
    pub(super) statistics: [Result<Statistics, String>; 2],
    /// What happened lately, oldest first.
    pub(super) events: &'a [String],
}

/// Where it is shown.
pub(super) enum View {
    /// A terminal: everything, redrawn.
    Terminal,
    /// A file or a pipe: a line for each flow.
    Lines,
}

impl View {
    /// Looks at what standard output is.
    pub(super) fn new() -> Self {
        if !io::stdout().is_terminal() {
            return Self::Lines;
        }
        print_all("\x1b[?25l\x1b[2J");
        Self::Terminal
    }

    /// How often to show something new.
    pub(super) const fn interval(&self) -> Duration {
        match self {
            Self::Terminal => Duration::from_millis(500),
            Self::Lines => Duration::from_secs(2),
        }
    }

    /// Before the first moment.
    pub(super) fn begin(&self, mesh: &Mesh) {
        if matches!(self, Self::Lines) {
            print_all(&format!("{}\n", urls(mesh).join("\n")));
        }
    }

    /// Something happened.
    pub(super) fn event(&self, text: &str) {
        if matches!(self, Self::Lines) {
            print_all(&format!("{text}\n"));
        }
    }

    /// Shows a moment.
    pub(super) fn show(&self, moment: Moment<'_>) {
        match self {
            Self::Terminal => {
                let picture = picture(moment).replace('\n', "\x1b[K\n");
                // From the top left corner over the last picture; then whatever is left of that goes.
                print_all(&format!("\x1b[H{picture}\x1b[J"));
            }
            Self::Lines => print_all(&lines(moment)),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if matches!(self, Self::Terminal) {
            print_all("\x1b[?25h\n");
        }
    }
}

/// Where nobody reads any more there is nothing to do about it.
fn print_all(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn lines(moment: Moment<'_>) -> String {
    let mut text = String::new();
    let seconds = moment.since_start.as_secs();
    for (flow, mut counts) in Flow::ALL.into_iter().zip(moment.flows) {
        let rate = rate(&counts, moment.span);
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "{seconds:4} s  {:42} {SERVICE_B} {:5.1} %  {SERVICE_B_V2} {:5.1} %  {rate:5.0} rps  p50 {:>8}  p99 {:>8}  failed {}",
            flow.title(),
            percent(&counts).0,
            percent(&counts).1,
            milliseconds(counts.percentile(50)),
            milliseconds(counts.percentile(99)),
            counts.failed,
        );
    }
    for (node, statistics) in moment.mesh.nodes().into_iter().zip(&moment.statistics) {
        let _ = match statistics {
            Ok(statistics) => writeln!(text, "{seconds:4} s  {}", node_line(node, &moment.mesh.ports, statistics)),
            Err(error) => writeln!(text, "{seconds:4} s  {}: {error}", node.name),
        };
    }
    text
}

fn picture(moment: Moment<'_>) -> String {
    let mut text = String::new();
    let Moment { mesh, since_start, weights, next_change, flows, span, failed, statistics, events } = moment;
    let _ = writeln!(
        text,
        "{BOLD}legate demo{PLAIN}  the canary of the App Mesh guide, {}:{:02}\n",
        since_start.as_secs() / 60,
        since_start.as_secs() % 60
    );
    let _ = writeln!(
        text,
        "serviceA calls serviceb.apps.local, and the control plane says {BOLD}{weights}{PLAIN} {DIM}(for {} s more){PLAIN}\n",
        next_change.as_secs()
    );
    let _ = writeln!(
        text,
        "{DIM}{:44}{:BAR$}  {:>7} {:>7} {:>7} {:>9} {:>9}{PLAIN}",
        format!("where requests go, last {} s", Recent::SPAN.as_secs()),
        "",
        "B",
        "Bv2",
        "rps",
        "p50",
        "p99"
    );
    for (flow, mut counts) in Flow::ALL.into_iter().zip(flows) {
        let (v1, v2) = percent(&counts);
        let _ = writeln!(
            text,
            "{:44}{}  {v1:5.1} % {v2:5.1} % {:7.0} {:>9} {:>9}",
            flow.title(),
            bar(&counts),
            rate(&counts, span),
            milliseconds(counts.percentile(50)),
            milliseconds(counts.percentile(99)),
        );
        if let Some(failure) = &counts.failure {
            let _ = writeln!(text, "{RED}  {} failed: {failure}{PLAIN}", counts.failed);
        }
    }
    let colour = if failed == 0 { GREEN } else { RED };
    let _ =
        writeln!(text, "{CYAN}█{PLAIN} {SERVICE_B}  {GREEN}█{PLAIN} {SERVICE_B_V2}   {colour}{failed} failed{PLAIN}\n");

    let _ = writeln!(text, "{DIM}what the proxies say at their admin pages{PLAIN}");
    for (node, statistics) in mesh.nodes().into_iter().zip(&statistics) {
        let _ = match statistics {
            Ok(statistics) => write!(text, "{}", node_picture(node, &mesh.ports, statistics)),
            Err(error) => writeln!(text, "{RED}{}: {error}{PLAIN}", node.name),
        };
    }
    let _ = writeln!(text, "\n{DIM}what happened{PLAIN}");
    for event in events {
        let _ = writeln!(text, "{event}");
    }
    let _ = writeln!(text, "\n{DIM}try it{PLAIN}");
    for url in urls(mesh) {
        let _ = writeln!(text, "{url}");
    }
    let _ = writeln!(text, "\n{DIM}Ctrl-C ends it{PLAIN}");
    text
}

/// What to call from another terminal.
fn urls(mesh: &Mesh) -> Vec<String> {
    let Ports { gateway_ingress, sidecar_egress, .. } = mesh.ports;
    vec![
        format!("  curl http://127.0.0.1:{gateway_ingress}/serviceb/"),
        format!("  curl http://127.0.0.1:{gateway_ingress}/servicea/"),
        format!("  curl --http2-prior-knowledge -H 'host: serviceb.apps.local' http://127.0.0.1:{sidecar_egress}/"),
        format!("  admin pages: sidecar http://127.0.0.1:{}/", mesh.sidecar.admin_port),
        format!("               gateway http://127.0.0.1:{}/", mesh.gateway.admin_port),
    ]
}

/// Configuration versions of a proxy: listeners, clusters, endpoints of `serviceB`, routes to it.
fn versions(node: &Node, ports: &Ports, statistics: &Statistics) -> String {
    let port = if node.name == "gateway" { ports.gateway_egress } else { MESH_PORT };
    let routes = egress_routes(port);
    format!(
        "LDS {} CDS {} EDS {} RDS {}",
        statistics.text("listener_manager.lds.version_text"),
        statistics.text("cluster_manager.cds.version_text"),
        statistics.text(&format!("cluster.{}.version_text", egress_cluster(SERVICE_B))),
        statistics.text(&format!("http.egress.rds.{routes}.version_text")),
    )
}

fn memory(node: &Node) -> String {
    node.proxy.resident_memory().map_or_else(String::new, |kib| format!("{} MB", kib / 1024))
}

fn node_line(node: &Node, ports: &Ports, statistics: &Statistics) -> String {
    let number = |name: String| statistics.number(&name);
    let upstream = |service| {
        let cluster = egress_cluster(service);
        let requests = number(format!("cluster.{cluster}.upstream_rq_total"));
        format!("{service} {requests} rq {} cx", number(format!("cluster.{cluster}.upstream_cx_active")))
    };
    let downstream = |side| {
        let requests = number(format!("http.{side}.downstream_rq_total"));
        format!("{side} {requests} rq {} cx", number(format!("http.{side}.downstream_cx_active")))
    };
    format!(
        "{}: {}; downstream {}, {}; upstream {}, {}; {}",
        node.name,
        versions(node, ports, statistics),
        downstream("ingress"),
        downstream("egress"),
        upstream(SERVICE_B),
        upstream(SERVICE_B_V2),
        memory(node)
    )
}

fn node_picture(node: &Node, ports: &Ports, statistics: &Statistics) -> String {
    let mut text = String::new();
    let number = |name: String| statistics.number(&name);
    let _ = writeln!(
        text,
        "{BOLD}{}{PLAIN}  {}  pid {}  {}  {DIM}{}{PLAIN}",
        node.name,
        versions(node, ports, statistics),
        node.proxy.pid,
        memory(node),
        if statistics.number("control_plane.connected_state") == 1 { "connected" } else { "not connected" },
    );
    for side in ["ingress", "egress"] {
        let stat = |name: &str| number(format!("http.{side}.{name}"));
        let _ = writeln!(
            text,
            "  downstream {side:34} {:9} requests {:5} connections {:6} 5xx",
            stat("downstream_rq_total"),
            stat("downstream_cx_active"),
            stat("downstream_rq_5xx"),
        );
    }
    for service in [SERVICE_B, SERVICE_B_V2] {
        let cluster = egress_cluster(service);
        let stat = |name: &str| number(format!("cluster.{cluster}.{name}"));
        let _ = writeln!(
            text,
            "  upstream   {cluster:34} {:9} requests {:5} connections {:6} 5xx",
            stat("upstream_rq_total"),
            stat("upstream_cx_active"),
            stat("upstream_rq_5xx"),
        );
    }
    text
}

fn percent(counts: &Counts) -> (f64, f64) {
    counts.share_v1().map_or((0.0, 0.0), |share| (100.0 * share, 100.0 * (1.0 - share)))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a demonstration are far below 2^52")]
fn rate(counts: &Counts, span: Duration) -> f64 {
    counts.answered() as f64 / span.as_secs_f64().max(0.001)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a short bar"
)]
fn bar(counts: &Counts) -> String {
    let Some(share) = counts.share_v1() else { return " ".repeat(BAR) };
    let v1 = ((share * BAR as f64).round() as usize).min(BAR);
    format!("{CYAN}{}{GREEN}{}{PLAIN}", "█".repeat(v1), "█".repeat(BAR - v1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_whatever_the_share() {
        let length = |v1, v2| bar(&Counts { v1, v2, ..Counts::default() }).chars().filter(|c| *c == '█').count();
        for (v1, v2) in [(1, 0), (0, 1), (3, 1), (1, 1000)] {
            assert_eq!(length(v1, v2), BAR);
        }
        assert_eq!(bar(&Counts::default()).trim(), "");
    }
}
