//! Arrays with which there is to be no link: whoever dials, each is told why, and with a pair that is there nothing happens.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::time::Duration;

use rig::{Rig, geometry};
use twintrack_controller::firmware::{Effect, Event, LinkId};
use twintrack_core::PeerId;
use twintrack_link::manage::{Answer, Command, LinkInfo, LinkInfoState, PairStatusInfo};
use twintrack_link::remote::{Hello, LinkRefusal, Message, Refused, VERSION};
use two::{A, B, TRACK, Two};

/// The array that is asked, its peer, and one that nobody knows.
const OWN: u64 = 0xa;
const PEER: u64 = 0xb;
const STRANGER: u64 = 0xc;

fn hello(serial: u64) -> Hello {
    Hello { version: VERSION, serial, boot: 9, track_bytes: geometry().track_bytes(), name: "x".into() }
}

/// What an array says on a link before it closes it.
fn said(rig: &mut Rig, link: LinkId) -> Vec<Message> {
    let mut said = Vec::new();
    let mut is_closed = false;
    for effect in std::mem::take(&mut rig.pending) {
        match effect {
            Effect::Send { link: on, message } if on == link => said.push(message),
            Effect::CloseLink { link: on } if on == link => is_closed = true,
            other => rig.pending.push_back(other),
        }
    }
    assert!(is_closed, "{said:?}");
    said
}

/// What is durable, how often something became so, and what a person is told of pairs and devices.
fn seen(two: &mut Two) -> String {
    let state = [(A, "d"), (B, "e")].map(|(array, device)| {
        let devices = two.command(array, Command::DeviceList {}).unwrap();
        let rig = &two.rigs[array];
        let records: Vec<_> = rig.firmware.tables().pairs().collect();
        let told = format!("{records:?} {devices:?} {:?} {}", rig.metadata, rig.commits);
        (told, two.show(array, device).status, two.link(array).state)
    });
    format!("{state:?}")
}

#[test]
fn whoever_dials_and_is_not_wanted_is_told_and_changes_nothing() {
    let mut two = Two::synchronized(4);
    two.write(A, 1, 0, 4096, 1);
    two.flush(A, 1);
    two.wait(Duration::from_secs(30));
    let before = seen(&mut two);
    let strangers = [
        (Hello { version: VERSION + 1, ..hello(PEER) }, LinkRefusal::Version, "version of the software"),
        (Hello { version: 0, ..hello(STRANGER) }, LinkRefusal::Version, "version of the software"),
        (hello(STRANGER), LinkRefusal::UnknownArray, "link add NAME --serial 000000000000000c"),
        (hello(OWN), LinkRefusal::SelfLink, "check the address"),
        (Hello { track_bytes: 512, ..hello(PEER) }, LinkRefusal::TrackSize, "both need the same"),
    ];
    for (n, (hello, code, advice)) in strangers.into_iter().enumerate() {
        let link = LinkId(9_000 + n as u64);
        let rig = &mut two.rigs[A];
        rig.step(Event::LinkOpened { link, peer: None });
        rig.step(Event::LinkMessage { link, message: Message::Hello(hello) });
        let said = said(rig, link);
        let [Message::Refused(Refused { serial: OWN, code: told, reason })] = &said[..] else {
            panic!("{said:?}")
        };
        assert_eq!(*told, code);
        assert!(reason.contains(advice), "{reason}");
        // What it says all the same is not heard.
        rig.step(Event::LinkMessage { link, message: Message::States { pairs: Vec::new(), last: true } });
        two.settle();
        assert_eq!(seen(&mut two), before, "{code:?}");
    }
}

fn link(rig: &mut Rig) -> LinkInfo {
    let call = rig.manage(Command::LinkList {});
    match rig.answers.remove(&call).expect("it is answered at once").unwrap() {
        Answer::Links(mut links) => links.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Who is dialled and is not who was meant is told, too; its serial number is not taken for the peer's.
#[test]
fn whoever_is_dialled_and_is_not_wanted_is_told() {
    let answers = [
        (Some(PEER), hello(STRANGER), LinkRefusal::WrongSerial, "was expected at this address"),
        (
            Some(PEER),
            Hello { version: VERSION + 1, ..hello(PEER) },
            LinkRefusal::Version,
            "version of the software",
        ),
        (
            None,
            Hello { version: VERSION + 1, ..hello(PEER) },
            LinkRefusal::Version,
            "version of the software",
        ),
        (None, hello(OWN), LinkRefusal::SelfLink, "check the address"),
        (None, Hello { track_bytes: 512, ..hello(PEER) }, LinkRefusal::TrackSize, "both need the same"),
    ];
    for (serial, hello, code, advice) in answers {
        let mut rig = Rig::with_serial(OWN, 64);
        let (name, endpoint) = ("b".to_owned(), Some("tcp:127.0.0.1:1".to_owned()));
        let add = Command::LinkAdd { name, endpoint, serial: serial.map(|serial| format!("{serial:x}")) };
        let call = rig.manage(add);
        while rig.answers.remove(&call).is_none() {
            rig.carry_out();
        }
        let (before, commits) = (link(&mut rig), rig.commits);
        rig.step(Event::Timer);
        let dialled = rig.pending.iter().find_map(|effect| match effect {
            Effect::Dial { peer, .. } => Some(*peer),
            _ => None,
        });
        let peer: PeerId = dialled.expect("it is dialled");
        rig.pending.clear();
        let id = LinkId(1);
        rig.step(Event::LinkOpened { link: id, peer: Some(peer) });
        rig.step(Event::LinkMessage { link: id, message: Message::Hello(hello) });
        let said = said(&mut rig, id);
        let [Message::Hello(_), Message::Refused(Refused { serial: OWN, code: told, reason })] = &said[..]
        else {
            panic!("{said:?}")
        };
        assert_eq!(*told, code);
        assert!(reason.contains(advice), "{reason}");
        let now = link(&mut rig);
        assert_eq!((now.state, now.why.as_ref()), (LinkInfoState::Refused, Some(reason)));
        assert_eq!((now.serial, now.pairs, rig.commits), (before.serial, 0, commits));
        assert_eq!(rig.firmware.tables().devices().count(), 0);
    }
}

/// Another array has come to the peer's address: its pair stays as it is, and waits for the right one.
#[test]
fn a_pair_waits_for_the_right_array() {
    let mut two = Two::synchronized(4);
    two.cut();
    let right = std::mem::replace(&mut two.rigs[B], Rig::with_serial(STRANGER, 64));
    let know = Command::LinkAdd { name: "a".into(), endpoint: None, serial: Some(format!("{OWN:x}")) };
    two.command(B, know).unwrap();
    two.write(A, 1, 0, TRACK as usize, 5);
    let record = |two: &Two| two.rigs[A].firmware.tables().pairs().next().map(|(id, it)| (id, it.clone()));
    let (before, wrong) = (record(&two), two.rigs[B].metadata.clone());
    two.rigs[B].now = two.rigs[A].now;
    two.heal();
    two.wait(Duration::from_secs(60));
    assert!(two.said.iter().filter(|(array, said)| *array == A && said.contains("WrongSerial")).count() > 3);
    for array in [A, B] {
        let link = two.link(array);
        assert_eq!(link.state, LinkInfoState::Refused, "{link:?}");
        assert!(link.why.is_some_and(|why| why.contains("was expected at this address")));
    }
    assert_eq!(record(&two), before);
    assert_eq!(two.status(A, "d"), PairStatusInfo::Partitioned);
    assert_eq!(two.rigs[B].metadata, wrong, "nothing became durable there");
    assert_eq!(two.rigs[B].firmware.tables().devices().count(), 0);

    two.cut();
    two.rigs[B] = right;
    two.rigs[B].now = two.rigs[A].now;
    two.restart(B);
    two.heal();
    two.wait(Duration::from_secs(60));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}
