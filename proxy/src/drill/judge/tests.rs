use super::*;

const fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// Short by any protocol.
const SHORT: RequestId = 1;

fn long() -> RequestId {
    (0..1000).find(|id| is_too_long(*id, Protocol::Http1)).unwrap()
}

fn sent(id: RequestId, left: u64, ended: u64, outcome: Outcome) -> Sent {
    Sent { id, scheduled: ms(left), left: ms(left), ended: ms(ended), outcome }
}

fn tried(id: RequestId, host: usize, at: u64, did: Did) -> Try {
    Try { request: id, host, at: ms(at), did }
}

/// Three hosts; the first has a fault from 10 s to 11 s, the second from 10 s on, the third is well and no endpoint after
/// 15 s.
fn hosts(fault: Fault) -> Vec<Biography> {
    let host = |last: u8, faults, left| {
        let assigned = [(ms(0), true)].into_iter().chain(left).collect();
        Biography { address: Some(([127, 0, 0, last], 80).into()), faults, assigned }
    };
    vec![
        host(10, vec![(ms(10_000), Some(fault)), (ms(11_000), None)], None),
        host(11, vec![(ms(10_000), Some(fault))], None),
        host(12, vec![], Some((ms(15_000), false))),
    ]
}

fn judge(fault: Fault, tries: Vec<Try>, log: &str, sent: Sent) -> Verdict {
    Case::new(Protocol::Http1, tries, hosts(fault), log, Rc::default()).judge(&[sent])
}

fn excuse(fault: Fault, tries: Vec<Try>, log: &str, sent: Sent) -> Result<Excuse, String> {
    let verdict = judge(fault, tries, log, sent);
    match (verdict.excused.keys().next(), verdict.wrongs.first()) {
        (Some(excuse), None) => Ok(*excuse),
        (None, Some(wrong)) => Err(wrong.clone()),
        other => panic!("one or the other: {other:?}"),
    }
}

#[track_caller]
fn lost(verdict: Result<Excuse, String>, why: &str) {
    let wrong = verdict.expect_err("not excused");
    assert!(wrong.contains(why), "{wrong}");
}

#[test]
fn what_is_answered_is_not_judged() {
    let tries = vec![tried(SHORT, 2, 100, Did::Answered)];
    let verdict = judge(Fault::Killed, tries, "", sent(SHORT, 99, 101, Outcome::Answered));
    assert!(verdict.excused.is_empty() && verdict.wrongs.is_empty());
    assert_eq!((verdict.tries, verdict.repeated), (1, 0));
}

#[test]
fn three_tries_at_hosts_that_are_not_well_are_all_there_is_to_do() {
    let fault = Fault::Overloaded;
    let did = Did::Failed(fault);
    let tries = || vec![tried(SHORT, 0, 10_100, did), tried(SHORT, 1, 10_110, did), tried(SHORT, 0, 10_150, did)];
    let log = "1 503 URX 3 60 127.0.0.1:1 via_upstream";
    let outcome = sent(SHORT, 10_099, 10_160, Outcome::Status(503));
    assert_eq!(excuse(fault, tries(), log, outcome.clone()), Ok(Excuse::Exhausted));
    assert_eq!(judge(fault, tries(), log, outcome.clone()).repeated, 1);
    // The last one was made at a host that was well.
    let mut tries = tries();
    tries[2].host = 2;
    lost(excuse(fault, tries, log, outcome), "at host 2, which was well");
}

#[test]
fn fewer_tries_than_allowed_lose_a_request() {
    let fault = Fault::Resetting;
    let tries = |id| vec![tried(id, 0, 10_100, Did::Failed(fault)), tried(id, 1, 10_110, Did::Failed(fault))];
    let outcome = |id| sent(id, 10_099, 10_160, Outcome::Status(503));
    lost(excuse(fault, tries(SHORT), "1 503 UR 2 60 - reset", outcome(SHORT)), "after 2 of 3 tries");
    lost(excuse(fault, tries(SHORT), "", outcome(SHORT)), "did not log");
    let log = format!("{} 503 UR 2 60 - reset", long());
    assert_eq!(excuse(fault, tries(long()), &log, outcome(long())), Ok(Excuse::TooLong));
}

#[test]
fn a_try_that_had_its_time_excuses_a_host_that_is_well() {
    let tries = vec![
        tried(SHORT, 2, 1_000, Did::Begun),
        tried(SHORT, 2, 1_510, Did::Begun),
        tried(SHORT, 2, 2_040, Did::Begun),
    ];
    let log = "1 504 UT 3 1550 - upstream_per_try_timeout";
    let outcome = |ended| sent(SHORT, 999, ended, Outcome::Status(504));
    assert_eq!(excuse(Fault::Killed, tries.clone(), log, outcome(2_545)), Ok(Excuse::Exhausted));
    lost(excuse(Fault::Killed, tries, log, outcome(2_200)), "which was well");
}

#[test]
fn a_busy_machine_excuses_a_host_that_is_well_and_no_missing_try() {
    let tries = vec![tried(SHORT, 2, 1_000, Did::Answered); 3];
    let judge = |log: &str, lost| {
        let watch = Rc::new(Watch::default());
        watch.saw(ms(1_050), ms(lost));
        let outcome = sent(SHORT, 999, 1_500, Outcome::Status(504));
        let verdict = Case::new(Protocol::Http1, tries.clone(), hosts(Fault::Killed), log, watch).judge(&[outcome]);
        (verdict.excused.contains_key(&Excuse::Busy), verdict.wrongs.len())
    };
    assert_eq!(judge("1 504 UT 3 500 - timeout", 90), (false, 1));
    assert_eq!(judge("1 504 UT 3 500 - timeout", 110), (true, 0));
    assert_eq!(judge("1 504 UT 2 500 - timeout", 110), (false, 1));
}

#[test]
fn a_request_whose_time_is_used_up_may_have_tries_left() {
    let outcome = sent(SHORT, 0, 4_001, Outcome::Status(504));
    let log = "1 504 UT 1 4000 - response_timeout";
    assert_eq!(excuse(Fault::Stalled, vec![], log, outcome), Ok(Excuse::TimeUp));
    // But it must be told.
    let hung = sent(SHORT, 0, 10_000, Outcome::None("no answer within 10s".to_owned()));
    lost(excuse(Fault::Stalled, vec![], "1 0 DC 1 10000 - downstream_remote_disconnect", hung), "not answered");
}

#[test]
fn tries_that_no_host_saw_need_a_host_that_turns_away() {
    let log = "1 503 UF,URX 3 80 - upstream_reset_before_response_started";
    let outcome = sent(SHORT, 10_100, 10_180, Outcome::Status(503));
    assert_eq!(excuse(Fault::Refusing, vec![], log, outcome.clone()), Ok(Excuse::Exhausted));
    lost(excuse(Fault::Overloaded, vec![], log, outcome), "reached no host");
    let early = sent(SHORT, 9_000, 9_080, Outcome::Status(503));
    lost(excuse(Fault::Refusing, vec![], log, early), "reached no host");
}

#[test]
fn the_log_names_the_host_of_the_last_try() {
    let outcome = sent(SHORT, 10_100, 10_180, Outcome::Status(503));
    let judge = |host| {
        let log = format!("1 503 UF,URX 3 80 127.0.0.{host}:80 upstream_reset_before_response_started");
        excuse(Fault::Refusing, vec![], &log, outcome.clone())
    };
    assert_eq!(judge(11), Ok(Excuse::Exhausted));
    lost(judge(12), "did not even reach host 2, which was well");
}

#[test]
fn an_answer_breaks_off_only_where_a_host_does() {
    let log = "1 200 UR 1 30 - upstream_reset_after_response_started";
    let broken = |host| {
        let outcome = sent(SHORT, 10_099, 10_130, Outcome::BrokenOff("reset".to_owned()));
        excuse(Fault::BreakingOff, vec![tried(SHORT, host, 10_100, Did::Begun)], log, outcome)
    };
    assert_eq!(broken(0), Ok(Excuse::Begun));
    lost(broken(2), "of a host that is well was broken off");
    // The client did not even see the head.
    let unseen = sent(SHORT, 10_099, 10_130, Outcome::None("reset".to_owned()));
    let tries = vec![tried(SHORT, 0, 10_100, Did::Begun)];
    assert_eq!(excuse(Fault::BreakingOff, tries, log, unseen), Ok(Excuse::Begun));
}

#[test]
fn going_away_in_order_excuses_nothing() {
    let tries = (0..3).map(|index| tried(SHORT, 1, 10_100 + index, Did::Begun)).collect();
    let outcome = sent(SHORT, 10_099, 10_160, Outcome::Status(503));
    lost(excuse(Fault::GoingAway, tries, "1 503 URX 3 60 - reset", outcome), "which was well");
}

#[test]
fn harm_is_wrong_even_if_the_request_succeeds() {
    let answered = |at| sent(SHORT, at, at + 1, Outcome::Answered);
    let mangled = judge(Fault::Killed, vec![tried(SHORT, 2, 100, Did::Mangled)], "", answered(99));
    assert!(mangled.wrongs[0].contains("another body"));
    let stray = judge(Fault::Killed, vec![tried(SHORT, 2, 18_000, Did::Answered)], "", answered(17_999));
    assert!(stray.wrongs[0].contains("no endpoint"));
    let late = judge(Fault::Killed, vec![tried(SHORT, 2, 16_000, Did::Answered)], "", answered(15_999));
    assert!(late.wrongs.is_empty());
    let crossed = judge(Fault::Killed, vec![], "", sent(SHORT, 0, 1, Outcome::Wrong("the answer to 2".to_owned())));
    assert!(crossed.wrongs[0].contains("the answer to 2"));
}
