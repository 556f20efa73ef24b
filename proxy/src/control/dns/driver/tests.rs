use std::net::UdpSocket;

use stats::StoreOptions;

use super::*;

/// A DNS server on loopback that answers every question by its name: `a.*` has an address, `none.*` does not exist,
/// `bare.*` exists without addresses, everything else fails.
fn server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let query = &buffer[..length];
            // The question: labels up to an empty one, then type and class.
            let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let label = &query[13..13 + usize::from(query[12])];
            let kind = query[end - 3];
            let (code, answer) = match (label, kind) {
                (b"a", 1) => (0, Some(vec![192, 0, 2, 7])),
                (b"a" | b"bare", _) => (0, None),
                (b"none", _) => (3, None),
                _ => (2, None),
            };
            let mut reply = query[..2].to_vec();
            reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(answer.is_some()), 0, 0, 0, 0]);
            reply.extend(&query[12..end]);
            if let Some(data) = answer {
                reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 30, 0, 4]);
                reply.extend(data);
            }
            if socket.send_to(&reply, peer).is_err() {
                break;
            }
        }
    });
    address
}

#[test]
fn addresses_an_empty_answer_and_no_answer_are_told_apart() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let config = Arc::new(ResolverConfig { servers: vec![server()], tries: Some(1), ..ResolverConfig::default() });
    let found = Outcome::Addresses { addresses: vec![IpAddr::from([192, 0, 2, 7])], ttl: Duration::from_secs(30) };
    local.block_on(&runtime, async {
        let (answers, mut received) = tokio::sync::mpsc::unbounded_channel();
        let store = Store::new(3, StoreOptions::default());
        let mut resolver = HickoryResolver::new(answers, &store);
        let mut ask = async |host: &str, family| {
            let question = Question { host: host.into(), family, resolver: config.clone() };
            resolver.resolve(LookupId(7), question);
            received.recv().await.unwrap().1
        };
        assert_eq!(ask("a.example.", LookupFamily::V4Only).await, found);
        assert_eq!(ask("a.example.", LookupFamily::Auto).await, found, "no IPv6 address: the IPv4 one");
        assert_eq!(ask("a.example.", LookupFamily::All).await, found);
        assert_eq!(ask("a.example.", LookupFamily::V6Only).await, Outcome::Empty);
        assert_eq!(ask("none.example.", LookupFamily::V4Preferred).await, Outcome::Empty);
        assert_eq!(ask("bare.example.", LookupFamily::Auto).await, Outcome::Empty);
        assert!(matches!(ask("broken.example.", LookupFamily::V4Only).await, Outcome::Failed(_)));
        let localhost = ask("localhost", LookupFamily::V4Only).await;
        assert!(
            matches!(&localhost, Outcome::Addresses { addresses, .. } if addresses == &[IpAddr::from([127, 0, 0, 1])]),
            "{localhost:?}"
        );
        let shard = |count: fn(&DnsStats) -> u64| store.group::<DnsStats>("dns.cares.").total(count);
        assert_eq!(shard(|stats| stats.resolve_total().value()), 8);
        assert_eq!(shard(|stats| stats.not_found().value()), 3);
        assert_eq!(shard(|stats| stats.get_addr_failure().value()), 1);
        assert_eq!(shard(|stats| stats.pending_resolutions().value()), 0);
    });
}

#[test]
fn one_family_does_not_hide_the_other() {
    let v4 = Outcome::Addresses { addresses: vec![IpAddr::from([1, 1, 1, 1])], ttl: Duration::from_secs(9) };
    let failed = Outcome::Failed("timeout".to_owned());
    assert_eq!(both((v4.clone(), failed.clone())), v4);
    assert_eq!(both((Outcome::Empty, v4.clone())), v4);
    assert_eq!(both((Outcome::Empty, failed.clone())), failed);
    assert_eq!(both((Outcome::Empty, Outcome::Empty)), Outcome::Empty);
}
