//! Management calls: what they send, and what becomes of every kind of answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Act, array};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twintrack_host::manage::{Answer, ChangedTracks, Refusal, RefusalCode, Restore};
use twintrack_host::{ANSWER_BYTES_MAX, ArrayClient, ArrayError, Dial, Endpoint, GroupMode, TokioDial};

fn answer(answer: &Answer) -> Act {
    Act::Answer(200, serde_json::to_vec(answer).unwrap())
}

fn refusal(status: u16, code: RefusalCode) -> (Act, ArrayError) {
    let refusal = Refusal { code, reason: "device db: there is none".to_owned() };
    (Act::Answer(status, serde_json::to_vec(&refusal).unwrap()), ArrayError::Refused(refusal))
}

#[tokio::test]
async fn commands_are_sent_as_json() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let array = array({
        let seen = seen.clone();
        move |method, path, body| {
            seen.lock().unwrap().push(format!("{method} {path} {}", String::from_utf8_lossy(body)));
            match seen.lock().unwrap().len() {
                1 => answer(&Answer::Group(7)),
                2 => answer(&Answer::Done),
                3 => answer(&Answer::Changed(ChangedTracks { tracks: vec![3, 5], next: Some(6) })),
                _ => answer(&Answer::Sessions(vec![])),
            }
        }
    });
    assert_eq!(array.group_begin().await, Ok(7));
    assert_eq!(array.device_delete("db").await, Ok(()));
    let changed = array.session_changed(1, 2).await.unwrap();
    assert_eq!((changed.tracks, changed.next), (vec![3, 5], Some(6)));
    assert_eq!(array.group_process(7, GroupMode::OneByOne, vec![]).await, Ok(vec![]));
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen[..],
        [
            r#"POST /v1/command {"command":"group-begin"}"#,
            r#"POST /v1/command {"command":"device-delete","name":"db"}"#,
            r#"POST /v1/command {"command":"session-changed","session":1,"from_track":2}"#,
            r#"POST /v1/command {"command":"group-process","group":7,"mode":"one-by-one","options":[]}"#,
        ]
    );
}

/// D18, Fig. 26: *Restore* of many pairs is one call, so that they are restored at one instant.
#[tokio::test]
async fn a_restore_of_many_is_one_command() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let array = array({
        let seen = seen.clone();
        move |_, _, body| {
            seen.lock().unwrap().push(String::from_utf8_lossy(body).into_owned());
            answer(&Answer::Devices(vec![]))
        }
    });
    let restore = |session, to: Option<&str>| Restore {
        session,
        to: to.map(str::to_owned),
        keep: false,
        discard_before: false,
        name: None,
        offline: false,
        pace: None,
    };
    assert_eq!(array.session_restore(vec![restore(4, None), restore(5, Some("log"))]).await, Ok(vec![]));
    let seen = seen.lock().unwrap();
    let sent: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
    assert_eq!((seen.len(), &sent["command"]), (1, &"session-restore".into()));
    assert_eq!((&sent["restores"][0]["session"], &sent["restores"][1]["to"]), (&4.into(), &"log".into()));
}

#[tokio::test]
async fn a_track_comes_as_bytes_or_as_a_refusal() {
    let array = array(|method, path, _| match (method, path) {
        ("GET", "/v1/session/4/track/9") => Act::Answer(200, vec![7; 65536]),
        _ => refusal(409, RefusalCode::WrongState).0,
    });
    assert_eq!(array.session_track(4, 9).await.unwrap(), vec![7; 65536]);
    let expected = refusal(409, RefusalCode::WrongState).1;
    assert_eq!(array.session_track(4, 10).await, Err(expected));
}

#[tokio::test]
async fn tracks_come_in_pieces_or_as_a_refusal() {
    let all: Vec<u8> = (0..3 * 65536u32).map(|n| (n % 251) as u8).collect();
    let array = array({
        let all = all.clone();
        move |method, path, _| match (method, path) {
            ("GET", "/v1/session/4/track/9,1-2") => Act::Answer(200, all.clone()),
            _ => refusal(404, RefusalCode::NotFound).0,
        }
    });
    let mut reader = array.session_tracks(4, &"9,1-2".parse().unwrap()).await.unwrap();
    let mut read = Vec::new();
    while let Some(bytes) = reader.next().await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert!(read == all);
    let refused = array.session_tracks(4, &"9,1-3".parse().unwrap()).await.unwrap_err();
    assert_eq!(refused, refusal(404, RefusalCode::NotFound).1);
}

/// What came is right, and that there is more is told.
#[tokio::test]
async fn tracks_that_break_off() {
    #[derive(Clone)]
    struct Breaks(&'static str);
    impl Dial for Breaks {
        type Stream = tokio::io::DuplexStream;
        async fn dial(&self, _: &Endpoint) -> std::io::Result<Self::Stream> {
            let (here, mut there) = tokio::io::duplex(4096);
            let said = self.0;
            tokio::spawn(async move {
                // The request has begun to come.
                there.read_u8().await?;
                there.write_all(said.as_bytes()).await
            });
            Ok(here)
        }
    }
    for said in [
        "HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\ntrack",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ntrack\r\n",
    ] {
        let endpoint = Endpoint::Unix("/array".into());
        let array = ArrayClient::new(Breaks(said), endpoint.clone());
        let mut reader = array.session_tracks(4, &"9,1-2".parse().unwrap()).await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), "track");
        let broken = reader.next().await.unwrap_err();
        assert_eq!(broken, ArrayError::BrokenOff { endpoint, bytes: 5 });
        assert!(!broken.is_outcome_unknown());
    }
}

#[tokio::test]
async fn refusals_come_through() {
    for (status, code, unknown) in [
        (404, RefusalCode::NotFound, false),
        (507, RefusalCode::NoSpace, false),
        (503, RefusalCode::Unavailable, true),
    ] {
        let array = array(move |_, _, _| refusal(status, code).0);
        let error = array.device_show("db").await.unwrap_err();
        assert_eq!(error, refusal(status, code).1);
        assert_eq!(error.is_outcome_unknown(), unknown);
        assert_eq!(error.to_string(), "device db: there is none");
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let bodies = [
        (200, b"".to_vec()),
        (200, b"{\"answer\":\"soon\"}".to_vec()),
        (200, serde_json::to_vec(&Answer::Done).unwrap()),
        (500, b"<html>".to_vec()),
        (200, vec![b' '; ANSWER_BYTES_MAX + 1]),
    ];
    for (status, body) in bodies {
        let array = array(move |_, _, _| Act::Answer(status, body.clone()));
        let error = array.group_begin().await.unwrap_err();
        let endpoint = Endpoint::Unix("/array".into());
        assert_eq!(error, ArrayError::Protocol { endpoint, status });
        assert!(error.is_outcome_unknown());
    }
}

#[tokio::test]
async fn arrays_that_do_not_answer() {
    let silent = array(|_, _, _| Act::Silence).with_deadline(Duration::from_millis(50));
    let error = silent.group_begin().await.unwrap_err();
    assert!(matches!(error, ArrayError::Timeout { deadline_ms: 50, .. }), "{error}");
    assert!(error.is_outcome_unknown());

    let error = array(|_, _, _| Act::Cut).group_begin().await.unwrap_err();
    assert!(matches!(error, ArrayError::Cut { .. }), "{error}");
    assert!(error.is_outcome_unknown());

    #[derive(Clone)]
    struct Nobody;
    impl Dial for Nobody {
        type Stream = tokio::io::DuplexStream;
        async fn dial(&self, _: &Endpoint) -> std::io::Result<Self::Stream> {
            Err(std::io::ErrorKind::ConnectionRefused.into())
        }
    }
    let error = ArrayClient::new(Nobody, Endpoint::Tcp("a".to_owned(), 1)).group_begin().await.unwrap_err();
    let kind = std::io::ErrorKind::ConnectionRefused;
    assert_eq!(error, ArrayError::Unreachable { endpoint: Endpoint::Tcp("a".to_owned(), 1), kind });
    assert!(!error.is_outcome_unknown());

    let nowhere = Endpoint::Unix("/nonexistent/array.sock".into());
    let error = ArrayClient::new(TokioDial, nowhere).group_begin().await.unwrap_err();
    assert!(matches!(error, ArrayError::Unreachable { .. }), "{error}");
}
