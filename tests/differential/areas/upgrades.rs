//! Reference 2.1 and 2.6, `upgrade_configs`: tunnels by CONNECT, and upgrades by `upgrade` and extended CONNECT.

use super::{clusters, routed};
use crate::manifest::{Area, Case, Step, case, frames, request, steps};
use crate::support::frames as h2;
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let host = |routes: &str| format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
    let connect = |cluster: &str, config: &str| {
        host(&format!(
            r#"{{name: c, match: {{connect_matcher: {{}}}}, route: {{cluster: {cluster}, upgrade_configs: [{config}]}}}},
               {{name: up, match: {{prefix: "/"}}, route: {{cluster: up}}}}"#
        ))
    };
    let terminated = "{upgrade_type: CONNECT, connect_config: {}}";
    let tunnels = "upgrade_configs: [{upgrade_type: CONNECT}], http2_protocol_options: {allow_connect: true}";
    let sockets = "upgrade_configs: [{upgrade_type: websocket}], http2_protocol_options: {allow_connect: true}";
    let proxied = |version: &str| {
        format!("{{upgrade_type: CONNECT, connect_config: {{proxy_protocol_config: {{version: {version}}}}}}}")
    };
    let posted = r#"{name: p, match: {prefix: "/"}, route: {cluster: up, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]}}"#;
    let to = |cluster: &str| host(&format!(r#"{{name: r, match: {{prefix: "/"}}, route: {{cluster: {cluster}}}}}"#));
    let by_route = host(
        r#"{name: granted, match: {prefix: "/on"}, route: {cluster: up, upgrade_configs: [{upgrade_type: websocket}]}},
           {name: refused, match: {prefix: "/off"}, route: {cluster: up, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}},
           {name: direct, match: {prefix: "/direct"}, direct_response: {status: 200}},
           {name: moved, match: {prefix: "/moved"}, redirect: {host_redirect: b.test}}"#,
    );
    let impatient = host(
        r#"{name: c, match: {connect_matcher: {}}, route: {cluster: up, idle_timeout: 0.06s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}},
           {name: w, match: {prefix: "/"}, route: {cluster: up, timeout: 0.06s}}"#,
    );
    let listeners = vec![
        routed("tunnel", tunnels, &connect("up", terminated)),
        routed("tunnel_dead", tunnels, &connect("dead", terminated)),
        routed("tunnel_empty", tunnels, &connect("empty", terminated)),
        routed("tunnel_v1", tunnels, &connect("up", &proxied("V1"))),
        routed("tunnel_v2", tunnels, &connect("up", &proxied("V2"))),
        routed("forwarded", tunnels, &connect("up", "")),
        routed("forwarded_h2", tunnels, &connect("h2", "")),
        routed("switched_off", tunnels, &connect("up", "{upgrade_type: CONNECT, enabled: false}")),
        routed("not_configured", "", &connect("up", "")),
        routed("by_route_only", "", &connect("up", terminated)),
        routed("no_matcher", tunnels, &to("up")),
        routed("posted", tunnels, &host(posted)),
        routed("socket", sockets, &to("up")),
        routed("socket_dead", sockets, &to("dead")),
        routed("socket_h2", sockets, &to("h2")),
        routed("socket_route", "", &by_route),
        routed("impatient", "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]", &impatient),
    ];
    let mut clusters = clusters();
    clusters.push("{name: empty, load_assignment: {cluster_name: empty}}".to_owned());
    let cases = [tunnels_by_http1(), tunnels_by_http2(), upgrades()].concat();
    Area { name: "upgrades", listeners, clusters, more: "", cases }
}

const CONNECT: &str = "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\nx-a: b\r\n\r\n";

fn ping_pong(end: Act) -> Vec<Act> {
    vec![Act::Until(b"ping"), Act::Send(b"pong".to_vec()), end]
}

fn tunnels_by_http1() -> Vec<Case> {
    let row = "2.6 connect_config";
    let opened = |name, listener, more: Vec<Step>| {
        let first = vec![Step::Send(CONNECT.as_bytes().to_vec()), Step::Until("200 OK")];
        steps(name, row, listener, [first, more].concat()).methods(&["CONNECT"])
    };
    let ping = || vec![Step::Send(b"ping".to_vec()), Step::Until("pong")];
    let refused = |name, listener| case(name, row, listener, CONNECT).methods(&["CONNECT"]);
    let post = "POST /x HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nping";
    vec![
        opened("talk", "tunnel", ping()).acts(ping_pong(Act::Hold)),
        opened("upstream_closes", "tunnel", [ping(), vec![Step::End]].concat()).acts(ping_pong(Act::Close)),
        opened(
            "upstream_half_closes",
            "tunnel",
            [ping(), vec![Step::Pause(std::time::Duration::from_millis(50)), Step::HalfClose, Step::End]].concat(),
        )
        .acts(vec![Act::Until(b"ping"), Act::Send(b"pong".to_vec()), Act::HalfClose, Act::Hold]),
        opened("upstream_resets", "tunnel", [ping(), vec![Step::End]].concat()).acts(ping_pong(Act::Reset)),
        opened(
            "client_half_closes",
            "tunnel",
            vec![Step::Send(b"ping".to_vec()), Step::HalfClose, Step::Until("pong"), Step::End],
        )
        .acts(ping_pong(Act::Hold)),
        opened("server_speaks_first", "tunnel", vec![Step::Until("hello")])
            .acts(vec![Act::Send(b"hello".to_vec()), Act::Hold]),
        steps(
            "early_data",
            row,
            "tunnel",
            vec![Step::Send(format!("{CONNECT}ping").into_bytes()), Step::Until("pong")],
        )
        .methods(&["CONNECT"])
        .acts(ping_pong(Act::Hold)),
        refused("dead", "tunnel_dead").status(503),
        refused("no_host", "tunnel_empty").status(503),
        opened("proxy_protocol_v1", "tunnel_v1", ping()).acts(ping_pong(Act::Hold)),
        opened("proxy_protocol_v2", "tunnel_v2", ping()).acts(ping_pong(Act::Hold)),
        opened("forwarded", "forwarded", ping())
            .acts([vec![Act::Head, Act::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())], ping_pong(Act::Hold)].concat()),
        refused("forwarded_refused", "forwarded")
            .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
            .status(403),
        refused("forwarded_redirected", "forwarded")
            .reply("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n")
            .status(302),
        refused("connect_off", "switched_off"),
        refused("connect_not_configured", "not_configured"),
        refused("connect_by_route_only", "by_route_only").acts(ping_pong(Act::Hold)),
        refused("connect_no_matcher", "no_matcher"),
        case("connect_no_port", row, "tunnel", "CONNECT a.test HTTP/1.1\r\nhost: a.test\r\n\r\n")
            .methods(&["CONNECT"])
            .acts(vec![Act::Hold]),
        case(
            "connect_with_length",
            row,
            "tunnel",
            "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\ncontent-length: 3\r\n\r\nabc",
        )
        .methods(&["CONNECT"])
        .acts(vec![Act::Hold]),
        case("get_beside", row, "tunnel", "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status(200),
        steps("post_tunnel", row, "posted", vec![Step::Send(post.as_bytes().to_vec()), Step::Until("pong"), Step::End])
            .acts(ping_pong(Act::Close)),
        case("get_not_a_tunnel", row, "posted", "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").status(200),
        opened("idle", "impatient", vec![Step::Send(b"ping".to_vec()), Step::End]).acts(vec![Act::Hold]),
    ]
}

fn tunnels_by_http2() -> Vec<Case> {
    let row = "2.6 connect_config";
    let connect = |name, listener, data: &str, end: u8| {
        let head = h2::fields(&[(":method", "CONNECT"), (":authority", "a.test:80"), ("x-a", "b")]);
        let mut all = vec![h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head)];
        if !data.is_empty() || end != 0 {
            all.push(h2::frame(h2::DATA, end, 1, data.as_bytes()));
        }
        frames(name, row, listener, &all)
    };
    let extended = |name, listener, protocol: &str, path: &str, data: &str| {
        let head = h2::fields(&[
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", path),
            ("sec-websocket-version", "13"),
        ]);
        frames(
            name,
            "2.1 allow_connect",
            listener,
            &[h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head), h2::frame(h2::DATA, 0, 1, data.as_bytes())],
        )
    };
    let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
    let granted = |end: Act| [vec![Act::Head, Act::Send(switching.as_bytes().to_vec())], ping_pong(end)].concat();
    vec![
        connect("h2_talk", "tunnel", "ping", 0).acts(ping_pong(Act::Close)),
        connect("h2_client_ends", "tunnel", "ping", h2::END_STREAM).acts(vec![
            Act::Until(b"ping"),
            Act::Send(b"pong".to_vec()),
            Act::Close,
        ]),
        connect("h2_upstream_resets", "tunnel", "ping", 0).acts(ping_pong(Act::Reset)),
        connect("h2_dead", "tunnel_dead", "ping", 0),
        connect("h2_not_configured", "not_configured", "", 0),
        connect("h2_no_matcher", "no_matcher", "", 0),
        connect("h2_proxy_protocol", "tunnel_v1", "ping", 0).acts(ping_pong(Act::Close)),
        extended("h2_websocket", "socket", "websocket", "/chat", "ping").acts(granted(Act::Close)),
        extended("h2_websocket_refused", "socket", "websocket", "/chat", "ping")
            .reply_and_close("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"),
        extended("h2_websocket_200", "socket", "websocket", "/chat", "ping")
            .reply_and_close("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno"),
        extended("h2_other", "socket", "other", "/chat", ""),
        extended("h2_websocket_dead", "socket_dead", "websocket", "/chat", ""),
        extended("h2_websocket_to_h2", "socket_h2", "websocket", "/chat", "ping"),
    ]
}

fn upgrades() -> Vec<Case> {
    let row = "2.1 upgrade_configs";
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-theirs: y\r\n\r\n";
    let ask = |path: &str, more: &[&str]| {
        request("GET", path, &[&["connection: Upgrade", "upgrade: websocket", "sec-websocket-key: x"], more].concat())
    };
    let granted = |end: Act| [vec![Act::Head, Act::Send(switching.as_bytes().to_vec())], ping_pong(end)].concat();
    let talk = |name, listener, first: Vec<u8>, end: Act, more: Vec<Step>| {
        let talk = vec![Step::Send(first), Step::Until("101 "), Step::Send(b"ping".to_vec()), Step::Until("pong")];
        steps(name, row, listener, [talk, more].concat()).acts(granted(end))
    };
    vec![
        talk("websocket", "socket", ask("/", &[]), Act::Hold, vec![]),
        talk("websocket_upstream_closes", "socket", ask("/", &[]), Act::Close, vec![Step::End]),
        talk("websocket_upstream_resets", "socket", ask("/", &[]), Act::Reset, vec![Step::End]),
        talk("websocket_client_half_closes", "socket", ask("/", &[]), Act::Hold, vec![Step::HalfClose, Step::End]),
        steps(
            "websocket_early_data",
            row,
            "socket",
            vec![Step::Send([ask("/", &[]), b"ping".to_vec()].concat()), Step::Until("pong")],
        )
        .acts(granted(Act::Hold)),
        talk("websocket_by_route", "socket_route", ask("/on", &[]), Act::Hold, vec![]),
        case("websocket_off", row, "socket_route", ask("/off", &[])).status(403),
        case("websocket_direct", row, "socket_route", ask("/direct", &[])),
        case("websocket_moved", row, "socket_route", ask("/moved", &[])),
        case("websocket_no_route", row, "socket_route", ask("/none", &[])),
        case("websocket_no_route_allowed", row, "tunnel", ask("/x", &[])),
        case("websocket_dead", row, "socket_dead", ask("/", &[])).status(503),
        case("websocket_200", row, "socket", ask("/", &[]))
            .reply("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno")
            .status(200),
        case("websocket_200_chunked", row, "socket", ask("/", &[]))
            .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")
            .status(200),
        case("websocket_403", row, "socket", ask("/", &[]))
            .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
            .status(403),
        case("websocket_closed", row, "socket", ask("/", &[])).acts(vec![Act::Head, Act::Close]).status(503),
        case("websocket_other_granted", row, "socket", ask("/", &[]))
            .reply("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n"),
        case("websocket_with_length", row, "socket", ask("/", &["content-length: 3"]))
            .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
        case("websocket_with_length_zero", row, "socket", ask("/", &["content-length: 0"]))
            .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
        case("websocket_post", row, "socket", request("POST", "/", &["connection: upgrade", "upgrade: websocket"]))
            .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
        case(
            "websocket_twice",
            row,
            "socket",
            request("GET", "/", &["connection: upgrade", "upgrade: websocket, other"]),
        ),
        case("websocket_to_h2", row, "socket_h2", ask("/", &[])),
        talk(
            "websocket_outlives_timeout",
            "impatient",
            ask("/", &[]),
            Act::Hold,
            vec![Step::Pause(std::time::Duration::from_millis(150))],
        ),
    ]
}
