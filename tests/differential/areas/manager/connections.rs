//! How the manager's fields bear on connections: their codecs, limits, upgrades and ends.

use std::time::Duration;

use crate::manifest::{Case, Step, case, request, steps};
use crate::support::upstream::Act;

pub(super) fn connections() -> Vec<Case> {
    let websocket = request("GET", "/ws", &["connection: Upgrade", "upgrade: websocket", "sec-websocket-key: x"]);
    let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let tunnel = |head: &str| {
        vec![
            Act::Head,
            Act::Send(head.as_bytes().to_vec()),
            Act::Until(b"ping"),
            Act::Send(b"pong".to_vec()),
            Act::Hold,
        ]
    };
    vec![
        steps(
            "max_requests",
            "2.1 max_requests_per_connection",
            "two_requests",
            vec![
                Step::Send(request("GET", "/1", &[])),
                Step::Responses(1),
                Step::Send(request("GET", "/2", &[])),
                Step::Responses(2),
            ],
        )
        .status(200),
        steps(
            "continue_forwarded",
            "2.1 proxy_100_continue",
            "continue",
            vec![
                Step::Send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n".to_vec()),
                Step::Until("100 Continue"),
                Step::Send(b"abc".to_vec()),
                Step::Responses(1),
            ],
        )
        .acts(vec![
            Act::Head,
            Act::Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            Act::Until(b"abc"),
            Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ])
        .status(200),
        steps(
            "websocket",
            "2.1 upgrade_configs",
            "upgrade",
            vec![
                Step::Send(websocket.clone()),
                Step::Responses(0),
                Step::Until("101 "),
                Step::Send(b"ping".to_vec()),
                Step::Until("pong"),
            ],
        )
        .acts(tunnel(switching)),
        case("websocket_refused_by_upstream", "10 upgrade smuggling", "upgrade", websocket.clone())
            .reply("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno")
            .status(200),
        case("websocket_404", "10 upgrade smuggling", "upgrade", websocket)
            .reply("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            .status(404),
        case(
            "other_upgrade",
            "2.1 upgrade_configs",
            "upgrade",
            request("GET", "/", &["connection: upgrade", "upgrade: other"]),
        )
        .status(403),
        case(
            "upgrade_off_for_route",
            "2.6 upgrade_configs",
            "upgrade_route",
            request("GET", "/off", &["connection: upgrade", "upgrade: websocket"]),
        )
        .status(403),
        case(
            "upgrade_case",
            "2.1 upgrade_configs",
            "upgrade",
            request("GET", "/", &["connection: keep-alive, UPGRADE", "upgrade: WebSocket"]),
        )
        .reply("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        .status(400),
        steps(
            "connect_tunnel",
            "2.6 connect_matcher",
            "connect",
            vec![
                Step::Send(b"CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\n\r\n".to_vec()),
                Step::Until("200 OK"),
                Step::Send(b"ping".to_vec()),
                Step::Until("pong"),
            ],
        )
        .methods(&["CONNECT"])
        .acts(vec![Act::Until(b"ping"), Act::Send(b"pong".to_vec()), Act::Hold]),
        steps(
            "connection_kept",
            "2.1 keep-alive",
            "named",
            vec![
                Step::Send(request("GET", "/1", &[])),
                Step::Responses(1),
                Step::Pause(Duration::from_millis(5)),
                Step::Send(request("GET", "/2", &[])),
                Step::Responses(2),
            ],
        )
        .status(200),
    ]
}
