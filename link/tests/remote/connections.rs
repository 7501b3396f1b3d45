//! The state machine of a link: hello, refusals, keep-alive, deadlines, windows, and what must not come.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use twintrack_core::{PairId, RegionNo, TrackNo};
use twintrack_link::remote::{
    Answer, COPY_BYTES_MAX, COPY_BYTES_MIN, Connection, EncodeError, Happening, Hello, LinkRefusal, MarkSet,
    Marks, Message, Note, PeerError, PeerErrorCode, REQUESTS_MAX, REQUESTS_RESERVED, Request, RequestNo,
    Reset, SendError, Timing, WINDOW_BYTES_MAX,
};

use crate::lines::{Line, Over, array};
use crate::messages::message;

const PAIR: PairId = PairId { serial: 1, number: 1 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn flush() -> Request {
    Request::Flush { pairs: Vec::new() }
}

fn fetch(length: u32) -> Request {
    Request::Fetch { pair: PAIR, track: TrackNo(1), within: 0, length }
}

/// An end that is up, without a line.
fn up() -> Connection {
    let (mut connection, _) = Connection::dialled(ms(0), Timing::default(), array(1), None);
    assert_eq!(connection.on_message(ms(0), Message::Hello(array(2))), [Happening::Up(array(2))]);
    connection
}

/// A link with nothing to do is pinged each second, a busy one, too, now and then. Who has the answer knows since when all that
/// is said was said after it.
#[test]
fn a_pong_tells_when_it_was_asked_for() {
    let mut connection = up();
    for n in 1..60u64 {
        let now = ms(n * 500);
        connection.request(now, flush()).unwrap();
        let pinged = connection.on_timer(now);
        assert_eq!(
            connection.on_message(now, Message::Answer { id: RequestNo(n), result: Ok(Answer::Done) }).len(),
            1
        );
        let is_due = n.is_multiple_of(10);
        assert_eq!(
            pinged,
            is_due.then(|| Happening::Send(Message::Ping { n: n / 10 })).into_iter().collect::<Vec<_>>()
        );
        if is_due {
            let pong = connection.on_message(now + ms(30), Message::Pong { n: n / 10 });
            assert_eq!(pong, [Happening::Pong { pinged: now }]);
            assert_eq!((connection.ponged(), connection.round_trip()), (Some(now), Some(ms(30))));
        }
    }
}

fn unexpected(happenings: &[Happening]) -> bool {
    matches!(happenings, [Happening::Reset(Reset::Unexpected { .. })])
}

#[test]
fn both_say_hello() {
    let mut line = Line::new(Timing::default(), [array(1), array(2)], Some(2));
    line.run(ms(10));
    assert_eq!(line.ends[0].happenings, [Happening::Up(array(2))]);
    assert_eq!(line.ends[1].happenings, [Happening::Up(array(1))]);
}

#[test]
fn refusals_are_told_to_the_other_side() {
    let refused = |arrays: [Hello; 2], expected, knows| {
        let mut line = Line::new(Timing::default(), arrays, expected);
        line.ends[1].knows = knows;
        line.run(ms(10));
        assert!(
            line.ends.iter().all(|end| end.happenings.iter().all(|h| !matches!(h, Happening::Asked(..))))
        );
        let [refuser, told] = if matches!(line.ends[1].over, Some(Over::Reset(_))) { [1, 0] } else { [0, 1] };
        let Some(Over::Reset(Reset::Refused(by))) = line.ends[refuser].over.clone() else {
            panic!("nobody refused: {:?}", line.ends[refuser].over);
        };
        assert_eq!(line.ends[told].over, Some(Over::Refused(by.clone())));
        assert!(!by.reason.is_empty());
        (refuser, by.serial, by.code)
    };
    let another_version = Hello { version: twintrack_link::remote::VERSION + 1, ..array(2) };
    assert_eq!(refused([array(1), another_version.clone()], None, None), (1, 2, LinkRefusal::Version));
    assert_eq!(refused([another_version, array(1)], None, None), (1, 1, LinkRefusal::Version));
    let other_tracks = Hello { track_bytes: 16384, ..array(2) };
    assert_eq!(refused([array(1), other_tracks], None, None), (1, 2, LinkRefusal::TrackSize));
    assert_eq!(refused([array(3), array(3)], None, None), (1, 3, LinkRefusal::SelfLink));
    // The serial number of who refuses is told, so that it can be kept.
    assert_eq!(refused([array(1), array(2)], None, Some(7)), (1, 2, LinkRefusal::UnknownArray));
    assert_eq!(refused([array(1), array(2)], Some(7), None), (0, 1, LinkRefusal::WrongSerial));
}

#[test]
fn a_link_is_refused_at_any_time_and_over_then() {
    let mut connection = up();
    let happenings = connection.refuse(LinkRefusal::Busy, "another one".to_owned());
    assert!(matches!(
        &happenings[..],
        [Happening::Send(Message::Refused(_)), Happening::Reset(Reset::Refused(_))]
    ));
    assert!(!connection.is_up() && connection.due().is_none());
    assert_eq!(connection.on_message(ms(1), Message::Ping { n: 1 }), []);
    assert_eq!(connection.on_timer(ms(100_000)), []);
    assert_eq!(connection.refuse(LinkRefusal::Busy, String::new()), []);
    assert_eq!(connection.request(ms(1), flush()), Err(SendError::NotUp));
    assert_eq!(connection.tell(ms(1), Message::Note(Note::Leaving)), None);
}

#[test]
fn who_says_no_hello_is_cut_off() {
    let mut line = Line::new(Timing::default(), [array(1), array(2)], None);
    line.held = [true; 2];
    line.run(ms(4_999));
    assert!(line.ends.iter().all(|end| end.over.is_none()));
    line.run(ms(1));
    for end in &line.ends {
        assert_eq!(end.over, Some(Over::Reset(Reset::Silent { silent_ms: 5000 })));
    }
}

#[test]
fn an_idle_link_stays_and_measures_itself() {
    let mut line = Line::up(Timing::default());
    line.delay = [ms(30), ms(40)];
    line.run(Duration::from_secs(3600));
    for end in &line.ends {
        assert_eq!((&end.over, end.connection.round_trip()), (&None, Some(ms(70))));
    }
    // A ping a second and side at most, and the answers.
    assert!(line.sent.iter().all(|bytes| *bytes < 2 * 3700 * 40), "{:?}", line.sent);
}

/// A copy over links of any speed: a slow one is not stuffed, so that what hosts send behind it waits for little more than
/// what is meant; a fast one is filled.
#[test]
fn a_copy_takes_what_the_link_has_and_leaves_room_for_hosts() {
    let unit = 64 << 10;
    for (bytes_per_ms, round_trip_ms) in
        [(2_000_000, 1), (1_000_000, 10), (100_000, 1), (100_000, 40), (10_000, 5), (1_000, 5)]
    {
        let mut connection = up();
        // When what is sent has gone through the narrowest place; answers that are on their way.
        let (mut line_free, mut answers) = (0, std::collections::VecDeque::new());
        let (mut copied, mut worst) = (0u64, 0);
        let (begin, end) = (8_000, 20_000);
        for now in 0..end {
            while answers.front().is_some_and(|(at, _, _)| *at <= now * 1000) {
                let Some((at, sent, id)) = answers.pop_front() else { break };
                let answer = Message::Answer { id, result: Ok(Answer::Zeros) };
                assert_eq!(connection.on_message(ms(now), answer).len(), 1);
                if now >= begin {
                    copied += u64::from(unit);
                    worst = worst.max(at / 1000 - sent);
                }
            }
            while connection.under_way().1 + unit <= connection.copy_bytes() && connection.may_send(unit) {
                let (id, _) = connection.request(ms(now), fetch(unit)).unwrap();
                line_free = line_free.max(now * 1000) + u64::from(unit) * 1000 / bytes_per_ms;
                answers.push_back((line_free + round_trip_ms * 1000, now, id));
            }
            let _ = connection.on_message(ms(now), Message::Ping { n: 1 });
        }
        // As fast as the line is, or as 16 MiB or 240 requests a round trip are.
        let window = u64::from(COPY_BYTES_MAX).min(240 * u64::from(unit));
        let possible = bytes_per_ms.min(window / (round_trip_ms + 1)) * (end - begin);
        assert!(copied >= possible / 10 * 8, "{copied} of {possible} at {bytes_per_ms}, {round_trip_ms}");
        // What is queued is as much as two or three times the least that a copy has under way.
        let least = u64::from(COPY_BYTES_MIN) / bytes_per_ms + round_trip_ms;
        assert!(worst <= 4 + 4 * least, "{worst} ms at {bytes_per_ms}, {round_trip_ms}");
    }
}

/// Silence one way is enough: the end that hears nothing gives up, whatever it can still say.
#[test]
fn a_line_that_holds_everything_is_given_up_in_bounded_time() {
    for held in [[true, false], [false, true], [true, true]] {
        let mut line = Line::up(Timing::default());
        line.held = held;
        line.run(ms(5_100));
        assert!(line.ends.iter().any(|end| matches!(end.over, Some(Over::Reset(Reset::Silent { .. })))));
        line.run(ms(10_000));
        for (end, held) in line.ends.iter().zip(held) {
            assert!(end.over.is_some() || held, "{held:?}");
        }
    }
}

#[test]
fn requests_that_nobody_answers_reset_the_link() {
    let mut line = Line::up(Timing::default());
    let start = line.now;
    let (id, message) = line.ends[0].connection.request(start, flush()).unwrap();
    line.send(0, message);
    line.run(ms(9_999));
    assert_eq!(line.ends[1].happenings, [Happening::Asked(id, flush())]);
    assert_eq!(line.ends[0].over, None);
    line.run(ms(1));
    assert_eq!(line.ends[0].over, Some(Over::Reset(Reset::Unanswered { waited_ms: 10_000 })));
}

/// A slow line with much under way is no broken one; a request that is passed over again and again is.
#[test]
fn answers_are_waited_for_while_others_come() {
    let mut connection = up();
    let oldest = connection.request(ms(0), flush()).unwrap().0;
    let mut now = ms(0);
    while now < ms(54_000) {
        let (id, _) = connection.request(now, flush()).unwrap();
        now += ms(4_000);
        let answer = Message::Answer { id, result: Ok(Answer::Done) };
        assert_eq!(connection.on_message(now, answer), [Happening::Told(id, Ok(Answer::Done))]);
    }
    assert_eq!(connection.under_way(), (1, 0));
    let _ = connection.on_message(ms(59_999), Message::Pong { n: 0 });
    assert!(!matches!(connection.on_timer(ms(59_999))[..], [Happening::Reset(_)]));
    assert_eq!(connection.due(), Some(ms(60_000)));
    assert_eq!(connection.on_timer(ms(60_000)), [Happening::Reset(Reset::Unanswered { waited_ms: 60_000 })]);
    assert_eq!(oldest, RequestNo(1));
}

#[test]
fn the_window_bounds_requests_and_leaves_room_for_commands() {
    let mut connection = up();
    for _ in 0..REQUESTS_MAX - REQUESTS_RESERVED {
        assert!(connection.may_send(0));
        connection.request(ms(0), flush()).unwrap();
    }
    assert!(!connection.may_send(0));
    for _ in 0..REQUESTS_RESERVED {
        connection.request(ms(0), flush()).unwrap();
    }
    assert_eq!(connection.request(ms(0), flush()), Err(SendError::Window));
    let done = Message::Answer { id: RequestNo(1), result: Ok(Answer::Done) };
    assert_eq!(connection.on_message(ms(1), done.clone()).len(), 1);
    connection.request(ms(1), flush()).unwrap();
    assert!(unexpected(&connection.on_message(ms(1), done)), "answered twice");
}

#[test]
fn the_window_bounds_payload_there_and_back() {
    let mut connection = up();
    let echo = || Request::Echo { data: Bytes::from(vec![0; 1 << 20]) };
    for n in 0..WINDOW_BYTES_MAX >> 20 {
        assert!(connection.may_send(1 << 20));
        connection.request(ms(0), if n % 2 == 0 { fetch(1 << 20) } else { echo() }).unwrap();
    }
    assert!(!connection.may_send(512) && connection.may_send(0));
    assert_eq!(connection.request(ms(0), fetch(512)), Err(SendError::Window));
    let failed = Err(PeerError { code: PeerErrorCode::Io, reason: "disk".to_owned() });
    let told = connection.on_message(ms(1), Message::Answer { id: RequestNo(2), result: failed.clone() });
    assert_eq!(told, [Happening::Told(RequestNo(2), failed)]);
    assert!(connection.may_send(1 << 20));
    assert_eq!(connection.under_way(), (31, 31 << 20));
}

/// The peer's window is the same, and who goes beyond it is cut off: so it bounds what a link can occupy.
#[test]
fn who_ignores_the_window_is_cut_off() {
    let mut connection = up();
    for n in 1..=REQUESTS_MAX as u64 {
        let asked = connection.on_message(ms(0), Message::Request { id: RequestNo(n), what: flush() });
        assert_eq!(asked, [Happening::Asked(RequestNo(n), flush())]);
    }
    assert!(connection.answer(ms(0), RequestNo(9), Ok(Answer::Done)).is_some());
    assert!(connection.answer(ms(0), RequestNo(9), Ok(Answer::Done)).is_none());
    let next = |n| Message::Request { id: RequestNo(n), what: flush() };
    assert_eq!(connection.on_message(ms(0), next(257)).len(), 1);
    assert!(unexpected(&connection.on_message(ms(0), next(258))));

    let mut connection = up();
    for n in 1..=32 {
        let what = fetch(1 << 20);
        assert_eq!(connection.on_message(ms(0), Message::Request { id: RequestNo(n), what }).len(), 1);
    }
    let one_more = Message::Request { id: RequestNo(33), what: fetch(512) };
    assert!(unexpected(&connection.on_message(ms(0), one_more)));
}

#[test]
fn what_does_not_fit_resets_the_link() {
    let resets = |messages: &[Message]| {
        let mut connection = up();
        let (last, before) = messages.split_last().unwrap();
        for message in before {
            let happenings = connection.on_message(ms(1), message.clone());
            assert!(!unexpected(&happenings), "{message:?} already");
        }
        assert!(unexpected(&connection.on_message(ms(1), last.clone())), "{last:?}");
        assert!(!connection.is_up());
    };
    let request = |n, what| Message::Request { id: RequestNo(n), what };
    let answer = |n| Message::Answer { id: RequestNo(n), result: Ok(Answer::Done) };
    let states = |last| Message::States { pairs: Vec::new(), last };
    let marks = |region: Option<u32>, last| {
        let regions = region.into_iter().map(|region| (RegionNo(region), 1)).collect();
        Message::Marks(Marks { pair: PAIR, set: MarkSet::Owed, from: None, regions, last })
    };
    let other = Marks { pair: PAIR, set: MarkSet::Dirty, from: None, regions: Vec::new(), last: true };
    resets(&[Message::Hello(array(2))]);
    resets(&[request(2, flush())]);
    resets(&[request(0, flush())]);
    resets(&[request(1, flush()), request(1, flush())]);
    resets(&[answer(1)]);
    resets(&[Message::Pong { n: 1 }]);
    resets(&[states(false), states(true), states(false)]);
    resets(&[states(false), Message::Agreed { pairs: Vec::new() }]);
    resets(&[marks(Some(3), false), marks(Some(3), true)]);
    resets(&[marks(Some(3), false), marks(None, false), marks(Some(2), true)]);
    resets(&[marks(Some(3), true), marks(Some(3), false), Message::Marks(other)]);
    resets(&[request(1, fetch(0))]);
    resets(&[request(1, fetch(513))]);
    resets(&[request(1, fetch((1 << 20) + 512))]);
}

#[test]
fn an_answer_has_to_fit_its_request() {
    let tell = |what: Request, answer: Answer| {
        let mut connection = up();
        let (id, _) = connection.request(ms(0), what).unwrap();
        let happenings = connection.on_message(ms(1), Message::Answer { id, result: Ok(answer) });
        !unexpected(&happenings)
    };
    let data = |length| Answer::Data(Bytes::from(vec![0; length]));
    let echo = || Request::Echo { data: Bytes::from(vec![0; 512]) };
    let release = |count| Request::Release { pairs: vec![PAIR; count] };
    assert!(tell(flush(), Answer::Done) && !tell(flush(), data(512)));
    assert!(tell(fetch(1024), data(1024)) && tell(fetch(1024), Answer::Zeros));
    assert!(!tell(fetch(1024), data(512)) && !tell(fetch(1024), Answer::Done));
    assert!(tell(echo(), data(512)) && !tell(echo(), Answer::Zeros));
    assert!(!tell(release(1), Answer::Released { pairs: Vec::new() }));
    assert!(tell(release(0), Answer::Released { pairs: Vec::new() }));
    let prepare = |pairs: usize| {
        let (request, name, online) = (1, "now".to_owned(), true);
        Request::Prepare { request, pairs: vec![PAIR; pairs], name, online }
    };
    assert!(!tell(prepare(0), Answer::Done));
    assert!(!tell(prepare(1), Answer::Prepared { points: Vec::new() }));
    assert!(tell(prepare(0), Answer::Prepared { points: Vec::new() }));
    assert!(tell(Request::Sums { pair: PAIR, track: TrackNo(0) }, Answer::Sums(vec![1])));
}

/// A request that cannot be sent changes nothing: neither the window nor the numbers.
#[test]
fn a_request_that_cannot_be_sent_costs_nothing() {
    let mut connection = up();
    assert_eq!(
        connection.request(ms(0), fetch(100)),
        Err(SendError::Message(EncodeError::Payload { bytes: 100 }))
    );
    let pairs = vec![PAIR; 5000];
    assert!(matches!(
        connection.request(ms(0), Request::Flush { pairs }),
        Err(SendError::Message(EncodeError::TooLong { length: 5000, .. }))
    ));
    let data = Bytes::from_static(b"odd");
    let write = Request::Write { pair: PAIR, track: TrackNo(0), within: 0, data };
    assert!(connection.request(ms(0), write).is_err());
    assert_eq!(connection.under_way(), (0, 0));
    assert_eq!(connection.request(ms(0), flush()).unwrap().0, RequestNo(1));
}

/// What happens on a line.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, u32),
    Fetch(usize, u32),
    Flush(usize),
    /// Answers the oldest questions of an end.
    Answer(usize, usize),
    Wait(u64),
    Hold(usize, bool),
    Delay(usize, u64),
    Damage(usize, u64),
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    let end = 0..2usize;
    prop_oneof![
        8 => (end.clone(), 1..64u32).prop_map(|(end, sectors)| Step::Write(end, sectors * 512)),
        4 => (end.clone(), 1..2048u32).prop_map(|(end, sectors)| Step::Fetch(end, sectors * 512)),
        2 => end.clone().prop_map(Step::Flush),
        8 => (end.clone(), 1..40usize).prop_map(|(end, count)| Step::Answer(end, count)),
        6 => (0..4000u64).prop_map(Step::Wait),
        2 => (end.clone(), any::<bool>()).prop_map(|(end, held)| Step::Hold(end, held)),
        2 => (end.clone(), 0..3000u64).prop_map(|(end, delay)| Step::Delay(end, delay)),
        1 => (end, 0..100_000u64).prop_map(|(end, at)| Step::Damage(end, at)),
        1 => Just(Step::Cut),
    ]
}

/// What one end knows of its requests.
#[derive(Default)]
struct Ledger {
    asked: BTreeSet<RequestNo>,
    told: BTreeSet<RequestNo>,
    /// What the other end has heard and not answered, with its bytes to fetch.
    open: Vec<(RequestNo, u32)>,
    heard: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the line does: requests arrive in order and once, answers belong to requests, neither end ever takes
    /// the other's right behaviour for a wrong one, and when an end hears nothing or is not answered it gives up in
    /// bounded time.
    #[test]
    fn two_ends_and_a_bad_line(steps in vec(step(), 1..80)) {
        let mut line = Line::up(Timing::default());
        let mut ledgers = [Ledger::default(), Ledger::default()];
        let mut broken = false;
        for step in steps {
            match step {
                Step::Write(end, bytes) => {
                    let data = Bytes::from(vec![end as u8; bytes as usize]);
                    let what = Request::Write { pair: PAIR, track: TrackNo(0), within: 0, data };
                    ask(&mut line, &mut ledgers, end, what);
                }
                Step::Fetch(end, bytes) => ask(&mut line, &mut ledgers, end, fetch(bytes)),
                Step::Flush(end) => ask(&mut line, &mut ledgers, end, flush()),
                Step::Answer(end, count) => {
                    let open = &mut ledgers[1 - end].open;
                    for (id, bytes) in open.drain(..count.min(open.len())).collect::<Vec<_>>() {
                        let answer = match bytes {
                            0 => Answer::Done,
                            bytes if bytes % 1024 == 0 => Answer::Zeros,
                            bytes => Answer::Data(Bytes::from(vec![0; bytes as usize])),
                        };
                        let now = line.now;
                        if line.ends[end].over.is_none()
                            && let Some(message) = line.ends[end].connection.answer(now, id, Ok(answer))
                        {
                            line.send(end, message);
                        }
                    }
                }
                Step::Wait(time) => line.run(ms(time)),
                Step::Hold(end, held) => line.held[end] = held,
                Step::Delay(end, delay) => line.delay[end] = ms(delay),
                Step::Damage(end, at) => line.damaged[end] = Some(line.sent[end] + at),
                Step::Cut => {
                    line.cut();
                    broken = true;
                }
            }
            look(&mut line, &mut ledgers);
        }
        line.held = [false; 2];
        line.run(ms(1));
        look(&mut line, &mut ledgers);
        // From here on nobody answers: who still waits gives up.
        line.run(ms(60_001));
        look(&mut line, &mut ledgers);
        for (end, ledger) in line.ends.iter().zip(&ledgers) {
            prop_assert!(end.over.is_some() || ledger.asked == ledger.told);
            let fits = !matches!(&end.over, Some(Over::Reset(Reset::Unexpected { .. } | Reset::Refused(_))));
            prop_assert!(fits, "{:?}", end.over);
        }
        prop_assert!(!broken || line.ends.iter().all(|end| end.over.is_some()));
    }

    /// Any messages in any order: no panic, no more is under way than the window allows, and what is over stays so.
    #[test]
    fn any_messages(messages in vec(message(), 1..40), dialled in any::<bool>()) {
        let mut connection = if dialled { up() } else { Connection::accepted(ms(0), Timing::default(), array(1)) };
        let mut over = false;
        for message in messages {
            let happenings = connection.on_message(ms(5), message);
            prop_assert!(!over || happenings.is_empty());
            for happening in happenings {
                prop_assert!(!over);
                match happening {
                    Happening::Introduced(_) => over = connection.welcome(ms(5)).len() != 2,
                    Happening::Reset(_) | Happening::Refused(_) => over = true,
                    _ => {}
                }
            }
            prop_assert_eq!(connection.due().is_none(), over);
        }
    }
}

fn ask(line: &mut Line, ledgers: &mut [Ledger; 2], end: usize, what: Request) {
    let now = line.now;
    if line.ends[end].over.is_some() {
        return;
    }
    let fits = line.ends[end].connection.may_send(what.payload_bytes());
    match line.ends[end].connection.request(now, what) {
        Ok((id, message)) => {
            assert!(ledgers[end].asked.insert(id), "a number twice");
            line.send(end, message);
        }
        Err(error) => assert!(!fits && error == SendError::Window, "{error}"),
    }
}

fn look(line: &mut Line, ledgers: &mut [Ledger; 2]) {
    for end in 0..2 {
        for happening in std::mem::take(&mut line.ends[end].happenings) {
            match happening {
                Happening::Asked(id, what) => {
                    let ledger = &mut ledgers[1 - end];
                    ledger.heard += 1;
                    assert_eq!(id.0, ledger.heard);
                    assert!(ledger.asked.contains(&id));
                    let bytes = if let Request::Fetch { length, .. } = what { length } else { 0 };
                    ledger.open.push((id, bytes));
                }
                Happening::Told(id, result) => {
                    assert!(ledgers[end].asked.contains(&id) && ledgers[end].told.insert(id));
                    assert!(result.is_ok());
                }
                other => panic!("{other:?}"),
            }
        }
        let (requests, bytes) = line.ends[end].connection.under_way();
        assert!(requests <= REQUESTS_MAX && bytes <= WINDOW_BYTES_MAX);
    }
}
