//! More clients than there are places.

use bytes::Bytes;
use twintrack_link::nbd::{Cookie, Request};

use super::devices::raw;
use super::*;
use crate::shell::testing::METADATA;

/// Connections of one kind over TCP, and as many over Unix sockets.
const HOSTS: usize = 1024;
const CALLERS: usize = 256;

const HALF_AN_OPTION: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x08\0\0";
const HALF_A_HEAD: &[u8] = b"GET /v1/health HTTP/1.1\r\nho";
/// Its head is there, its body is not.
const HALF_A_COMMAND: &[u8] =
    b"POST /v1/command HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";

/// So many that say something and then nothing more.
async fn crowd(array: &Running, at: &Endpoint, size: usize, says: &[&[u8]]) -> Vec<DuplexStream> {
    let mut crowd = Vec::new();
    for n in 0..size {
        let mut stream = array.net.connect(at);
        stream.write_all(says[n % says.len()]).await.unwrap();
        crowd.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    crowd
}

async fn is_closed(stream: &mut DuplexStream) -> bool {
    let mut all = Vec::new();
    tokio::time::timeout(Duration::from_millis(1), stream.read_to_end(&mut all)).await.is_ok()
}

/// Those who say nothing whole give way, the oldest first; attached hosts do not.
#[tokio::test(start_paused = true)]
async fn newcomers_get_in_whoever_waits() {
    let array = start(&shelf()).await;
    array.array().device_create("d", 1 << 20, None).await.unwrap();
    let attached = array.attach("d").await;
    let began = tokio::time::Instant::now();
    let mut hosts = crowd(&array, &endpoint("nbd"), HOSTS + 100, &[b"", HALF_AN_OPTION]).await;
    let mut callers =
        crowd(&array, &endpoint("control"), CALLERS + 30, &[b"", HALF_A_HEAD, HALF_A_COMMAND]).await;
    let late = array.attach("d").await;
    assert_eq!(array.ask(&get("/v1/health")).await.0, 200);
    late.write(0, vec![1; 4096].into(), true).await.unwrap();
    assert_eq!(attached.read(0, 4096).await.unwrap(), vec![1; 4096]);
    // The places of two of the hosts are those of `attached` and `late`, one of the callers' was free again.
    for (n, stream) in [(0, true), (101, true), (102, false), (HOSTS + 99, false)] {
        assert_eq!(is_closed(&mut hosts[n]).await, stream, "host {n}");
    }
    for (n, stream) in [(0, true), (30, true), (31, false), (CALLERS + 29, false)] {
        assert_eq!(is_closed(&mut callers[n]).await, stream, "caller {n}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "nobody's time was over");
    drop((hosts, callers));
    array.stop().await.unwrap();
}

/// Where all places are those of attached hosts, no more get in, and who is there stays.
#[tokio::test(start_paused = true)]
async fn attached_hosts_stay() {
    let array = start(&shelf()).await;
    array.array().device_create("d", 1 << 20, None).await.unwrap();
    let mut attached = Vec::new();
    for _ in 0..HOSTS {
        let stream = array.net.connect(&remote_nbd());
        attached.push(NbdClient::connect(stream, "d", &NbdOptions::default()).await.unwrap());
    }
    assert_eq!(read_to_end(array.net.connect(&remote_nbd())).await, 0);
    for host in &attached {
        host.read(0, 4096).await.unwrap();
    }
    // The owner has places of his own.
    array.attach("d").await.read(0, 4096).await.unwrap();
    // One that goes leaves its place.
    drop(attached.pop());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let stream = array.net.connect(&remote_nbd());
    NbdClient::connect(stream, "d", &NbdOptions::default()).await.unwrap();
    array.stop().await.unwrap();
}

/// Whatever comes over TCP takes no place of who comes over a Unix socket.
#[tokio::test(start_paused = true)]
async fn the_owner_gives_way_to_no_stranger() {
    let array = start(&shelf()).await;
    let mut own = array.net.connect(&endpoint("control"));
    own.write_all(HALF_A_HEAD).await.unwrap();
    let mut own_host = array.net.connect(&endpoint("nbd"));
    let _callers = crowd(&array, &remote(), 2 * CALLERS, &[HALF_A_COMMAND]).await;
    let _hosts = crowd(&array, &remote_nbd(), HOSTS + 100, &[HALF_AN_OPTION]).await;
    own.write_all(b"st: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    own.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(!is_closed(&mut own_host).await);
    array.stop().await.unwrap();
}

/// Who has been answered waits again, as the last: a client that goes on asking is not sent away.
#[tokio::test(start_paused = true)]
async fn who_asks_keeps_his_place() {
    let array = start(&shelf()).await;
    let mut asking = array.net.connect(&endpoint("control"));
    let mut crowds = Vec::new();
    for _ in 0..4 {
        crowds.push(crowd(&array, &endpoint("control"), CALLERS / 2, &[HALF_A_HEAD]).await);
        asking.write_all(b"GET /v1/health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 512];
        let length = asking.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    }
    array.stop().await.unwrap();
}

/// Who comes, writes, and goes keeps his place while a store holds up what he wrote: so no more can pile up than those
/// who stay could have under way.
#[tokio::test(start_paused = true)]
async fn who_goes_keeps_his_place_while_his_requests_are_under_way() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", 1 << 20, None).await.unwrap();
    let own = array.attach("db").await;
    own.write(0, vec![1; 4096].into(), true).await.unwrap();
    let flush = Request::Flush.header(Cookie(1)).encode();
    let data = Bytes::from(vec![2; 4096]);
    let header = Request::Write { offset: 0, data: data.clone(), fua: false }.header(Cookie(1)).encode();
    // What is no request ends a connection at once; who only closes it is waited for in any case.
    let write = [&header[..], &data, &[0xff; 64]].concat();
    // Those whose requests are over leave theirs.
    for _ in 0..HOSTS + 10 {
        raw(&array).await.write_all(&flush).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shelf.hang("a");
    // The first has the block, the others wait for it.
    for _ in 1..HOSTS {
        raw(&array).await.write_all(&write).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(read_to_end(array.net.connect(&endpoint("nbd"))).await, 0);
    assert_eq!(own.read(0, 4096).await.unwrap(), vec![1; 4096]);
    // Nor do they keep the array from ending.
    assert!(array.stop().await.is_err());
}

/// So with commands: those that wait for the metadata file go on when who sent them is gone, and are not too many.
#[tokio::test(start_paused = true)]
async fn commands_of_those_who_are_gone_are_limited() {
    const CALLS: usize = 1024;
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("d", 1 << 20, None).await.unwrap();
    shelf.hang(METADATA);
    let resize = post(r#"{"command":"device-online","name":"d","online":true}"#);
    for n in 0..CALLS {
        let asked = tokio::time::timeout(Duration::from_millis(1), array.ask(&resize)).await;
        assert!(asked.is_err(), "{n}: {asked:?}");
    }
    let (status, refusal) = array.refusal(&resize).await;
    assert_eq!((status, refusal.code), (503, RefusalCode::Unavailable), "{refusal}");
    assert!(refusal.reason.contains("1024 commands are under way"), "{refusal}");
    assert_eq!(array.ask(&get("/v1/health")).await.0, 200);
    assert!(array.stop().await.is_err());
}
