//! Conversations, written down as scripts (the language is explained in [`talk`]).

mod property;
mod talk;

use self::talk::Talk;
use super::*;

fn sotw(script: &str) {
    Talk::new(Mode::StateOfTheWorld, None, true).play(script);
}

fn delta(script: &str) {
    Talk::new(Mode::Delta, None, true).play(script);
}

#[test]
fn sotw_wildcard_ack_and_nack() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x y
        ! update clusters v=1 full: x y
        accept
        > clusters [] v=1 n=a
        < clusters v=2 n=b: x
        ! update clusters v=2 full: x
        reject x is odd
        > clusters [] v=1 n=b NACK: Error adding/updating cluster(s) x: x is odd
        < clusters v=3 n=c:
        ! update clusters v=3 full:
        accept
        > clusters [] v=3 n=c
    ",
    );
}

#[test]
fn sotw_names_come_and_go() {
    sotw(
        "
        subscribe endpoints b
        subscribe endpoints a c
        connect
        ! connected
        > endpoints [a b c] v= n=
        < endpoints v=1 n=a: a b
        ! update endpoints v=1: a b
        accept
        > endpoints [a b c] v=1 n=a
        unsubscribe s1
        > endpoints [a c] v=1 n=a
        unsubscribe s2
        > endpoints [] v=1 n=a
        # nobody is interested: the client accepts by itself
        < endpoints v=2 n=b: a
        > endpoints [] v=2 n=b
        # a new subscriber has nothing, and must not claim a version
        subscribe endpoints z
        > endpoints [z] v= n=b
    ",
    );
}

#[test]
fn a_name_given_up_and_taken_again_is_sent_again() {
    sotw(
        "
        subscribe endpoints a
        subscribe endpoints b
        connect
        ! connected
        > endpoints [a b] v= n=
        < endpoints v=1 n=a: a b
        ! update endpoints v=1: a b
        accept
        > endpoints [a b] v=1 n=a
        pause endpoints
        unsubscribe s2
        subscribe endpoints b
        resume endpoints
        > endpoints [a b] v= n=a
    ",
    );
    delta(
        "
        subscribe endpoints a
        subscribe clusters *
        connect
        ! connected
        > endpoints +a
        > clusters
        pause endpoints
        pause clusters
        unsubscribe s1
        unsubscribe s2
        subscribe endpoints a
        subscribe clusters *
        resume endpoints
        > endpoints +a
        resume clusters
        > clusters -*
        > clusters +*
    ",
    );
}

#[test]
fn an_existing_name_is_asked_for_again_for_its_second_subscriber() {
    sotw(
        "
        subscribe endpoints a
        connect
        ! connected
        > endpoints [a] v= n=
        < endpoints v=1 n=a: a
        ! update endpoints v=1: a
        accept
        > endpoints [a] v=1 n=a
        subscribe endpoints a
        > endpoints [a] v=1 n=a
        unsubscribe s1
    ",
    );
    delta(
        "
        subscribe endpoints a
        connect
        ! connected
        > endpoints +a
        subscribe endpoints a
        > endpoints +a
        unsubscribe s1
        unsubscribe s2
        > endpoints -a
    ",
    );
}

#[test]
fn endpoints_are_asked_for_before_clusters_are_acknowledged() {
    for delta in [false, true] {
        let (first, endpoints, ack) = if delta {
            ("> clusters", "> endpoints +x +y", "> clusters n=a")
        } else {
            ("> clusters [] v= n=", "> endpoints [x y] v= n=", "> clusters [] v=1 n=a")
        };
        let full = if delta { "" } else { " full" };
        let mode = if delta { Mode::Delta } else { Mode::StateOfTheWorld };
        Talk::new(mode, None, true).play(&format!(
            "
            subscribe clusters *
            connect
            ! connected
            {first}
            < clusters v=1 n=a: x@1 y@1
            ! update clusters v=1{full}: {}
            hold
            subscribe endpoints x
            subscribe endpoints y
            accept
            release
            {endpoints}
            {ack}
        ",
            if delta { "x@1 y@1" } else { "x y" }
        ));
    }
}

#[test]
fn a_paused_type_is_held_and_merged() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        pause clusters
        pause clusters
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        < clusters v=2 n=b: x
        ! update clusters v=2 full: x
        accept
        accept
        resume clusters
        resume clusters
        > clusters [] v=2 n=b
        # a NACK is news and is never merged away
        pause clusters
        < clusters v=3 n=c: x
        ! update clusters v=3 full: x
        < clusters v=4 n=d: x
        ! update clusters v=4 full: x
        reject bad
        accept
        resume clusters
        > clusters [] v=4 n=c NACK: Error adding/updating cluster(s) x: bad
        > clusters [] v=4 n=d
    ",
    );
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        pause clusters
        < clusters v=1 n=a: x@1
        ! update clusters v=1: x@1
        < clusters v=2 n=b: x@2
        ! update clusters v=2: x@2
        accept
        accept
        resume clusters
        > clusters n=a
        > clusters n=b
    ",
    );
}

#[test]
fn answers_out_of_order() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        < clusters v=2 n=b: x
        ! update clusters v=2 full: x
        accept newest
        > clusters [] v=2 n=b
        # the server has moved on: an answer to the older response would be stale, and must not set the version back
        accept
    ",
    );
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1
        ! update clusters v=1: x@1
        < clusters v=2 n=b: y@1
        ! update clusters v=2: y@1
        accept newest
        > clusters n=b
        accept
        > clusters n=a
    ",
    );
}

#[test]
fn reconnecting_introduces_every_type_with_what_it_has() {
    sotw(
        "
        subscribe clusters *
        subscribe endpoints x
        connect
        ! connected
        > clusters [] v= n=
        > endpoints [x] v= n=
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        accept
        > clusters [] v=1 n=a
        < endpoints v=7 n=b: x
        ! update endpoints v=7: x
        disconnect
        ! disconnected
        # accepted after the stream was lost: nothing to answer, but it counts
        accept
        connect
        ! connected
        > clusters [] v=1 n=
        > endpoints [x] v=7 n=
    ",
    );
    delta(
        "
        subscribe clusters *
        subscribe endpoints x
        connect
        ! connected
        > clusters
        > endpoints +x
        < clusters v=1 n=a: x@1 y@1 z@1
        ! update clusters v=1: x@1 y@1 z@1
        accept
        > clusters n=a
        < clusters v=2 n=b: x@2 -z
        ! update clusters v=2: x@2 -z
        accept
        > clusters n=b
        # nothing of a refused response is remembered
        < clusters v=3 n=c: x@3 w@1 -y
        ! update clusters v=3: x@3 w@1 -y
        reject no
        > clusters n=c NACK: Error adding/updating cluster(s) x: no
        disconnect
        ! disconnected
        connect
        ! connected
        > clusters {x=2 y=1}
        > endpoints +x
    ",
    );
}

#[test]
fn wildcard_beside_names() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        subscribe clusters extra
        > clusters [* extra] v= n=
        unsubscribe s1
        > clusters [extra] v= n=
        unsubscribe s2
        > clusters [] v= n=
        subscribe clusters *
        > clusters [*] v= n=
    ",
    );
    delta(
        "
        subscribe clusters *
        subscribe clusters extra
        connect
        ! connected
        > clusters +* +extra
        unsubscribe s1
        > clusters -*
        unsubscribe s2
        > clusters -extra
        subscribe clusters *
        > clusters +*
    ",
    );
}

#[test]
fn a_legacy_wildcard_cannot_be_emptied() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        unsubscribe s1
        < clusters v=1 n=a: x
        > clusters [] v=1 n=a
    ",
    );
}

#[test]
fn unwanted_resources_are_left_out() {
    sotw(
        "
        subscribe routes r
        connect
        ! connected
        > routes [r] v= n=
        < routes v=1 n=a: other
        > routes [r] v=1 n=a
        < routes v=2 n=b:
        > routes [r] v=2 n=b
        < routes v=3 n=c: other r
        ! update routes v=3: r
        accept
        > routes [r] v=3 n=c
        # of several of one name the first counts
        < routes v=4 n=d: r r
        ! update routes v=4: r
        accept
        > routes [r] v=4 n=d
    ",
    );
    delta(
        "
        subscribe routes r
        connect
        ! connected
        > routes +r
        < routes v=1 n=a: other@1 -another
        > routes n=a
        < routes v=2 n=b: -r
        ! update routes v=2: -r
        accept
        > routes n=b
    ",
    );
}

#[test]
fn an_empty_delta_response_tells_a_wildcard_that_there_is_nothing() {
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a:
        ! update clusters v=1:
        accept
        > clusters n=a
    ",
    );
}

#[test]
fn broken_promises_are_refused_whole() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x y?
        ! rejected clusters: wrong does not match the message-wide type URL
        > clusters [] v= n=a NACK: wrong does not match the message-wide type URL
    ",
    );
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1 x@2
        ! rejected clusters: duplicate name x found among added/updated resources
        > clusters n=a NACK: duplicate name x found among added/updated resources
        < clusters v=1 n=b: x@1 -x
        ! rejected clusters: duplicate name x found in the union
        > clusters n=b NACK: duplicate name x found in the union
        < clusters v=1 n=c: x@1?
        ! rejected clusters: type URL wrong embedded in an individual Any does not match
        > clusters n=c NACK: type URL wrong embedded in an individual Any does not match
        < clusters v=1 n=d: x@1~
        ! rejected clusters: x: a heartbeat of version
        > clusters n=d NACK: x: a heartbeat of version
    ",
    );
}

#[test]
fn unsolicited_responses_are_not_answered() {
    for talk in [sotw as fn(&str), delta] {
        talk(
            "
            connect
            ! connected
            < clusters v=1 n=a: x
            pause clusters
            < clusters v=1 n=b: x
        ",
        );
    }
}

#[test]
fn a_dropped_ticket_is_a_nack() {
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x
        ! update clusters v=1 full: x
        drop
        > clusters [] v= n=a NACK: the update was dropped
        ! rejected clusters: the update was dropped
    ",
    );
}

#[test]
fn initial_fetch_timeouts() {
    delta(
        "
        subscribe endpoints a
        subscribe endpoints b
        connect
        ! connected
        > endpoints +a +b
        wait 14
        < endpoints v=1 n=a: a@1
        ! update endpoints v=1: a@1
        accept
        > endpoints n=a
        wait 1
        ! timeout endpoints: b
        wait 100
    ",
    );
}

#[test]
fn ttls_and_heartbeats() {
    delta(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1!5 y@1!5 z@1
        ! update clusters v=1: x@1!5 y@1!5 z@1
        accept
        > clusters n=a
        wait 4
        < clusters v=1 n=b: x@1!5~
        > clusters n=b
        wait 4
        ! expired clusters: y
        wait 2
        ! expired clusters: x
        disconnect
        ! disconnected
        connect
        ! connected
        > clusters {z=1}
    ",
    );
    // A heartbeat alone is no full state: nothing is deleted.
    sotw(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters [] v= n=
        < clusters v=1 n=a: x@1!5 y
        ! update clusters v=1 full: x@1!5 y
        accept
        > clusters [] v=1 n=a
        wait 4
        < clusters v=1 n=b: x@1!5~
        > clusters [] v=1 n=b
        wait 4
        < clusters v=2 n=c: x@1!5~ y
        ! update clusters v=2 full: x@1!5~ y
        accept
        > clusters [] v=2 n=c
        wait 4
        wait 1
        ! expired clusters: x
    ",
    );
}

#[test]
fn the_node_is_said_once_or_always() {
    for (once, second) in [(true, "> clusters n=a"), (false, "> node clusters n=a")] {
        let mut talk = Talk::new(Mode::Delta, None, once);
        talk.show_node = true;
        talk.play(&format!(
            "
            subscribe clusters *
            connect
            ! connected
            > node clusters
            < clusters v=1 n=a: x@1
            ! update clusters v=1: x@1
            accept
            {second}
            disconnect
            ! disconnected
            connect
            ! connected
            > node clusters {{x=1}}
        "
        ));
    }
}

#[test]
fn the_token_bucket_spaces_requests() {
    let limit = RateLimit { max_tokens: 2, fill_rate: 1.0 };
    Talk::new(Mode::StateOfTheWorld, Some(limit), true).play(
        "
        subscribe clusters *
        subscribe listeners *
        subscribe routes a
        connect
        ! connected
        > clusters [] v= n=
        > listeners [] v= n=
        subscribe routes b
        wait 1
        > routes [a b] v= n=
    ",
    );
}

#[test]
fn outcomes_are_counted_where_they_belong() {
    let mut talk = Talk::new(Mode::StateOfTheWorld, None, true);
    talk.play(
        "
        subscribe endpoints a
        subscribe endpoints b
        connect
        ! connected
        > endpoints [a b] v= n=
        < endpoints v=1 n=a: a
        ! update endpoints v=1: a
        accept
        > endpoints [a b] v=1 n=a
        < endpoints v=2 n=b: b
        ! update endpoints v=2: b
        reject bad
        > endpoints [a b] v=1 n=b NACK: b: bad
        disconnect
        ! disconnected
    ",
    );
    let counts: Vec<_> = talk.counts.iter().map(|counts| counts.borrow().clone()).collect();
    assert_eq!(counts[0], "attempt success=1 attempt rejected attempt failure attempt ");
    assert_eq!(counts[1], "attempt rejected attempt failure attempt ");
}

#[test]
fn backoff_grows_until_a_response_resets_it() {
    let mut talk = Talk::new(Mode::Delta, None, true);
    talk.play("subscribe clusters *");
    let longest = |talk: &mut Talk| {
        let delays = (0..20).map(|_| talk.mux.disconnected("down".to_owned()));
        let longest = delays.max().expect("some");
        while talk.mux.poll_event().is_some() {}
        longest
    };
    assert!(longest(&mut talk) > Duration::from_secs(2));
    talk.play(
        "
        connect
        ! connected
        > clusters
        < clusters v=1 n=a: x@1
        ! update clusters v=1: x@1
        accept
        > clusters n=a
    ",
    );
    assert!(talk.mux.disconnected("down".to_owned()) < Duration::from_millis(500));
}

#[test]
fn reading_stops_when_the_consumer_is_far_behind() {
    let mut talk = Talk::new(Mode::Delta, None, true);
    talk.play(
        "
        subscribe clusters *
        connect
        ! connected
        > clusters
    ",
    );
    for turn in 0..ack::MAX_OUTSTANDING {
        assert!(talk.mux.is_ready_to_read());
        talk.play(&format!("< clusters v={turn} n={turn}: x@{turn}\n! update clusters v={turn}: x@{turn}"));
    }
    assert!(!talk.mux.is_ready_to_read());
    talk.play(
        "
        accept
        > clusters n=0
    ",
    );
    assert!(talk.mux.is_ready_to_read());
}

#[test]
fn bytes_without_a_name_are_refused_and_not_left_out() {
    use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
    use envoy_types::pb::google::protobuf::Any;

    let garbage = Any { type_url: crate::ROUTE.to_owned(), value: vec![0xff; 20] };
    let response = DiscoveryResponse { nonce: "n".to_owned(), resources: vec![garbage], ..Default::default() };
    let (nonce, parsed) = sotw::parse(crate::ROUTE, response);
    let Err(detail) = parsed else { panic!("it was taken") };
    assert_eq!(nonce, "n");
    assert_eq!(detail, "Unable to unpack as envoy.config.route.v3.RouteConfiguration: it does not decode");
}
