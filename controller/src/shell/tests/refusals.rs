//! Arrays that do not want a link with each other: each is told why, in its log once however often it is tried again, and
//! nothing else of it changes.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use twintrack_link::manage::{Answer, Command, LinkInfo, LinkInfoState};
use twintrack_link::remote::{LinkRefusal, Message, VERSION};

use super::links::{heard, hello, say};
use super::pairs::Site;
use super::*;
use crate::shell::Net;

/// Long enough for many attempts: there are ten seconds between two at most.
const LONG: Duration = Duration::from_secs(200);

thread_local! {
    /// What is logged by this thread, if a test wants that: an array under test is in one thread, with its test.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// What the arrays of this thread log. Everything is heard by one subscriber, for all threads: with one for each thread, what a
/// thread without one logs first would not be heard from any other any more.
struct Log;

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let log = tracing_subscriber::fmt().with_writer(|| Lines).without_time().with_ansi(false);
            let log = log.with_target(false).with_max_level(tracing::Level::DEBUG);
            tracing::subscriber::set_global_default(log.finish()).unwrap();
        });
        LINES.set(Some(Vec::new()));
        Self
    }

    /// What it says of links since it was asked last: what a person reads, and how many attempts failed besides.
    fn of_links(&self) -> (Vec<String>, usize) {
        let text = String::from_utf8(LINES.replace(Some(Vec::new())).unwrap()).unwrap();
        let (mut told, mut untold) = (Vec::new(), 0);
        for line in text.lines().map(str::trim_start).filter(|line| line.contains(" link")) {
            match line.split_once(' ') {
                Some(("DEBUG", said)) => untold += usize::from(said.starts_with("no link")),
                _ => told.push(line.to_owned()),
            }
        }
        (told, untold)
    }
}

fn add(name: &str, endpoint: Option<&str>, serial: Option<&str>) -> Command {
    let (endpoint, serial) = (endpoint.map(str::to_owned), serial.map(str::to_owned));
    Command::LinkAdd { name: name.into(), endpoint, serial }
}

async fn serial(site: &Site) -> String {
    match site.call(Command::ArrayShow {}).await {
        Answer::Array(info) => info.serial,
        other => panic!("{other:?}"),
    }
}

/// All that a person sees of an array but how its links stand.
async fn seen(site: &Site) -> String {
    let mut seen = Vec::new();
    for command in [
        Command::ArrayShow {},
        Command::DeviceList {},
        Command::SessionList { standard: None },
        Command::RemoteList {},
    ] {
        seen.push(format!("{:?}", site.call(command).await));
    }
    let Answer::Links(links) = site.call(Command::LinkList {}).await else { panic!("no links") };
    let fixed = |link: LinkInfo| (link.name, link.endpoint, link.serial, link.pairs);
    format!("{seen:?} {:?}", links.into_iter().map(fixed).collect::<Vec<_>>())
}

async fn two() -> [Site; 2] {
    let (net, env) = (Pipes::default(), Counter::default());
    let west = Site::start(&net, "west", shelf(), env.clone()).await;
    [west, Site::start(&net, "east", shelf(), env).await]
}

/// An array that is not known over there is told so once, and again when something else is the reason.
#[tokio::test(start_paused = true)]
async fn one_reason_is_one_line() {
    let log = Log::begin();
    let [west, east] = two().await;
    let [of_west, of_east] = [serial(&west).await, serial(&east).await];
    west.call(add("east", Some("unix:east-link"), Some(&of_east))).await;
    let before = [seen(&west).await, seen(&east).await];

    tokio::time::sleep(LONG).await;
    let why = format!(
        "array {of_east} does not know array {of_west}: add it there, `twintrack link add NAME --serial {of_west}`"
    );
    let (told, untold) = log.of_links();
    let no_link = |why: &str| format!("WARN no link peer=peer-1 why={why}");
    assert_eq!(
        told,
        [
            format!("INFO no link with who connected why=refused: {why}"),
            no_link(&format!("the other array refuses: {why}"))
        ]
    );
    assert!(untold > 30, "{untold} more attempts by both");
    let link = west.link().await;
    assert_eq!((link.state, link.why), (LinkInfoState::Refused, Some(why.clone())));
    assert_eq!([seen(&west).await, seen(&east).await], before);

    // Another reason, and the first one again.
    let (shelf, env) = (east.shelf.clone(), east.env.clone());
    let net = east.net.clone();
    east.stop().await;
    tokio::time::sleep(LONG).await;
    let gone = no_link("unix:east-link cannot be reached: connection refused");
    assert_eq!(log.of_links().0, std::slice::from_ref(&gone));
    let link = west.link().await;
    assert_eq!(link.state, LinkInfoState::Down);
    let east = Site::start(&net, "east", shelf, env).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(log.of_links().0.iter().filter(|line| line.starts_with("WARN")).count(), 1);

    // Once there was a link, any reason is a new one.
    east.call(add("west", None, Some(&of_west))).await;
    west.until_linked().await;
    tokio::time::sleep(LONG).await;
    let (told, untold) = log.of_links();
    assert!(told.iter().all(|line| line.starts_with("INFO link is up")), "{told:?}");
    assert_eq!((told.len(), untold), (2, 0));
    east.stop().await;
    tokio::time::sleep(LONG).await;
    let told = log.of_links().0;
    assert_eq!(told.iter().filter(|line| **line == gone).count(), 1, "{told:?}");
    west.stop().await;
}

/// Another array answers than the one that was named.
#[tokio::test(start_paused = true)]
async fn who_is_not_the_named_array_is_refused() {
    let log = Log::begin();
    let [west, east] = two().await;
    let [of_west, of_east] = [serial(&west).await, serial(&east).await];
    east.call(add("west", None, Some(&of_west))).await;
    west.call(add("east", Some("unix:east-link"), Some("77"))).await;
    let before = [seen(&west).await, seen(&east).await];

    tokio::time::sleep(LONG).await;
    let why = format!(
        "array 0000000000000077 was expected at this address and array {of_east} answers: check the address; if the array \
         was replaced on purpose, remove the link and add it again"
    );
    for site in [&west, &east] {
        let link = site.link().await;
        assert_eq!((link.state, link.why), (LinkInfoState::Refused, Some(why.clone())), "{}", site.name);
    }
    let (mut told, untold) = log.of_links();
    told.sort();
    assert_eq!(
        told,
        [
            format!("INFO no link with who connected why=the other array refuses: {why}"),
            format!("WARN no link peer=peer-1 why=refused: {why}")
        ]
    );
    assert!(untold > 30, "{untold} more attempts by both");
    assert_eq!([seen(&west).await, seen(&east).await], before);
    west.stop().await;
    east.stop().await;
}

/// An array of another version of the protocol, whoever dials.
#[tokio::test(start_paused = true)]
async fn another_version_is_refused() {
    let log = Log::begin();
    let [west, east] = two().await;
    let [of_west, of_east] = [serial(&west).await, serial(&east).await];
    let number = u64::from_str_radix(&of_east, 16).unwrap();
    let later = || match hello(number) {
        Message::Hello(hello) => {
            Message::Hello(twintrack_link::remote::Hello { version: VERSION + 1, ..hello })
        }
        other => other,
    };
    east.stop().await;
    west.call(add("east", Some("unix:later-link"), Some(&of_east))).await;
    let before = seen(&west).await;
    log.of_links();

    // It is dialled: it says hello, and is told.
    let mut listener = west.net.bind(&endpoint("later-link")).await.unwrap();
    let (net, words) = (west.net.clone(), later());
    let answering = tokio::spawn(async move {
        let mut answers = Vec::new();
        while answers.len() < 20 {
            let mut stream = net.accept(&mut listener).await.unwrap();
            say(&mut stream, std::slice::from_ref(&words)).await;
            answers.extend(heard(&mut stream).await.pop());
        }
        answers
    });
    let answers = tokio::time::timeout(LONG, answering).await.unwrap().unwrap();
    let why = format!(
        "array {of_west} speaks version {VERSION} of the link's protocol and array {of_east} version {}: both need the same \
         version of the software",
        VERSION + 1
    );
    let refuses = |message: &Message| {
        matches!(message, Message::Refused(refused)
            if refused.code == LinkRefusal::Version && refused.reason == why && format!("{:016x}", refused.serial) == of_west)
    };
    assert!(answers.iter().all(refuses), "{answers:?}");
    let link = west.link().await;
    assert_eq!((link.state, link.why), (LinkInfoState::Refused, Some(why.clone())));
    let (told, untold) = log.of_links();
    assert_eq!(told[0], format!("WARN no link peer=peer-1 why=refused: {why}"));
    // Since then nobody listens there.
    assert!(told.len() <= 2 && untold >= 18, "{told:?} {untold}");

    // It dials, again and again.
    for _ in 0..20 {
        let mut stream = west.net.connect(&endpoint("west-link"));
        say(&mut stream, &[later()]).await;
        let heard = heard(&mut stream).await;
        assert!(matches!(&heard[..], [message] if refuses(message)), "{heard:?}");
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    let told = log.of_links().0;
    let of_who_came: Vec<_> = told.iter().filter(|line| line.contains("who connected")).collect();
    assert_eq!(of_who_came, [&format!("INFO no link with who connected why=refused: {why}")]);
    assert_eq!(seen(&west).await, before);
    west.stop().await;
}
