//! What goes wrong: exit codes, and what is said about it.

use std::io::Read;
use std::process::Stdio;

use twintrack_host::manage::{Answer, ChangedTracks, RefusalCode};

use crate::array::{Act, Array, Asked, Ended, ended, twintrack};

/// Standard error of a command that fails, without the array's folder, which differs from run to run.
fn failed(array: &Array, line: &str, code: i32) -> String {
    let Ended { code: found, stdout, stderr } = array.run(line);
    assert_eq!((found, stdout.as_str()), (Some(code), ""), "{line}: {stderr}");
    stderr.replace(&array.folder().display().to_string(), "DIR")
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let mut said = String::new();
    for (line, code, reason) in [
        ("device show db", RefusalCode::NotFound, "there is no device db"),
        ("device create db 1G --pool p", RefusalCode::NotFound, "there is no pool named p"),
        ("device create db 1G", RefusalCode::Exists, "a device named db exists already: choose another name"),
        ("device create db 100", RefusalCode::BadRequest, "a device of 100 bytes is not possible"),
        ("device delete db", RefusalCode::WrongState, "device db has 2 sessions: remove them first"),
        ("session register db", RefusalCode::Limit, "device db has 1024 sessions already"),
        ("session activate 4", RefusalCode::WrongState, "ses-4 is registered, not related"),
        ("session read 4 9", RefusalCode::NotFound, "ses-4 has no changed track t9"),
        ("group process 2", RefusalCode::NotFound, "there is no open grp-2: begin a group first"),
        ("device create db 1G", RefusalCode::NoSpace, "pool main is full"),
        ("session remove 4", RefusalCode::Unavailable, "the metadata failed"),
        ("device list", RefusalCode::Unauthorized, "this request has no token"),
    ] {
        said += &failed(&Array::refuses(code, reason), line, 1);
    }
    insta::assert_snapshot!(said, @r#"
    error: there is no device db
      next: see `twintrack device list`
    error: there is no pool named p
      next: see `twintrack pool list`
    error: a device named db exists already: choose another name
      next: see `twintrack device list`
    error: a device of 100 bytes is not possible
      next: see `twintrack help device create`
    error: device db has 2 sessions: remove them first
      next: see `twintrack session list`
    error: device db has 1024 sessions already
      next: remove what is not needed any more: see `twintrack device list` and `twintrack session list`
    error: ses-4 is registered, not related
      next: see `twintrack session list`
    error: ses-4 has no changed track t9
      next: see `twintrack session list` and `twintrack session changed ses-4`
    error: there is no open grp-2: begin a group first
      next: see `twintrack group list`
    error: pool main is full
      next: see `twintrack pool list`; remove sessions or devices, or add a store to the pool
    error: the metadata failed
      next: see `twintrack array show`, and `twintrack session list` for whether it was done
    error: this request has no token
      next: copy the file that control.token-file of the array's settings names (by default `token` in its folder), and name the copy by --token-file or TWINTRACK_TOKEN_FILE
    "#);
}

#[test]
fn with_json_a_failure_is_json() {
    let array = Array::refuses(RefusalCode::NotFound, "there is no device db");
    let said = failed(&array, "device show db --json", 1);
    insta::assert_snapshot!(said, @r#"
    {"code":"not-found","reason":"there is no device db","next":"see `twintrack device list`"}
    "#);
}

/// What is to be typed next names the array as it was named; where the environment names it, not again.
#[test]
fn the_next_step_can_be_typed() {
    let array = Array::refuses(RefusalCode::NotFound, "there is no device db");
    let folder = array.folder().display();
    let ended = ended(twintrack(&format!("-a {folder} device show db")));
    let next = format!("  next: see `twintrack -a {folder} device list`\n");
    assert!(ended.stderr.ends_with(&next), "{}", ended.stderr);
}

#[test]
fn an_establish_that_fails_says_where_and_what_is_left() {
    let script = |is_gone: bool| {
        let mut has_failed = false;
        move |asked| {
            let Asked::Command(command) = asked else { return Act::Cut };
            use twintrack_host::manage::Command::*;
            match command {
                GroupBegin {} => Act::Answer(Answer::Group(1)),
                DeviceShow { .. } if !has_failed => Act::Refuse(RefusalCode::NotFound, "there is none"),
                DeviceCreateVirtual { name } => {
                    Act::Answer(Answer::Device(twintrack_host::manage::DeviceInfo {
                        id: 2,
                        name,
                        size_bytes: 0,
                        kind: twintrack_host::manage::DeviceInfoKind::Virtual { shows: Vec::new() },
                        online: true,
                        reserved: false,
                        copies: Vec::new(),
                    }))
                }
                SessionRegister { .. } => {
                    has_failed = true;
                    if is_gone {
                        return Act::Cut;
                    }
                    Act::Refuse(RefusalCode::NotFound, "there is no device db")
                }
                _ if is_gone => Act::Cut,
                SessionList { .. } | GroupCancel { .. } => Act::Answer(Answer::Sessions(vec![])),
                _ => Act::Answer(Answer::Done),
            }
        }
    };
    let said = failed(&Array::start(script(false)), "session establish db=v", 1);
    insta::assert_snapshot!(said, @r#"
    error: establish failed at register db=v: there is no device db
      next: all was undone; see `twintrack device list`
    "#);
    let said = failed(&Array::start(script(true)), "session establish db=v", 3);
    insta::assert_snapshot!(said, @r#"
    error: establish failed at register db=v: array at unix:DIR/control.sock went away before it answered; whether it did it is not known
      next: all was undone, perhaps not group 1, sessions of group 1 on db, virtual device v: see `twintrack session list` and `twintrack device list` and `twintrack group list`
    "#);
}

#[test]
fn an_array_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let run = |address: &str| {
        let Ended { code, stdout, stderr } = ended(twintrack(&format!("-a {address} device list")));
        assert_eq!((code, stdout.as_str()), (Some(3), ""), "{stderr}");
        stderr.replace(&folder.path().display().to_string(), "DIR")
    };
    let mut said = run(&folder.path().display().to_string());
    // A socket whose daemon was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    said += &run(&folder.path().display().to_string());
    said += &run(&socket.display().to_string());
    said += &run(&format!("unix:{}", socket.display()));
    said += &run(&format!("/{}", "long".repeat(30))).replace(&"long".repeat(30), "long…");
    // A port that is taken, so that nobody else comes to listen there, and does not listen.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = taken.local_addr().unwrap().port();
    said += &run(&format!("tcp:127.0.0.1:{port}")).replace(&port.to_string(), "PORT");
    insta::assert_snapshot!(said, @r#"
    error: array at unix:DIR/control.sock cannot be reached: entity not found
      next: start the daemon by `twintrackd DIR`, or name another array by `-a`
    error: array at unix:DIR/control.sock cannot be reached: connection refused
      next: start the daemon by `twintrackd DIR`, or name another array by `-a`
    error: array at unix:DIR/control.sock/control.sock cannot be reached: not a directory
      next: name the daemon's folder, or write unix:PATH for a socket
    error: array at unix:DIR/control.sock cannot be reached: connection refused
      next: start the daemon by `twintrackd DIR`, or name another array by `-a`
    error: array at unix:/long…/control.sock cannot be reached: invalid input parameter
      next: a socket's path has at most 107 bytes: use a shorter one, from the folder above perhaps
    error: array at tcp:127.0.0.1:PORT cannot be reached: connection refused
      next: check host and port, and that the daemon runs and listens there
    "#);
}

#[test]
fn an_array_that_does_not_answer() {
    let mut said = failed(&Array::start(|_| Act::Silence), "session remove 4 --timeout 1", 3);
    said += &failed(&Array::start(|_| Act::Cut), "session remove 4", 3);
    said += &failed(&Array::start(|_| Act::Bytes(b"<html>".to_vec())), "session remove 4", 3);
    let same = || Act::Answer(Answer::Changed(ChangedTracks { tracks: vec![], next: Some(7) }));
    said += &failed(&Array::start(move |_| same()), "session changed 4", 3);
    insta::assert_snapshot!(said, @r#"
    error: array at unix:DIR/control.sock did not answer within 1000 ms; whether it did it is not known
      next: see `twintrack session list` before you try again, or give it longer by --timeout
    error: array at unix:DIR/control.sock went away before it answered; whether it did it is not known
      next: see `twintrack session list` before you try again
    error: array at unix:DIR/control.sock answered 200 with what is no answer to that
      next: check that management listens there, and compare its version with `twintrack --version`
    error: array at unix:DIR/control.sock answers with pages that have no end
      next: compare its version with `twintrack --version`
    "#);
}

#[test]
fn a_line_that_makes_no_sense() {
    // None of these may reach an array.
    let array = Array::start(|_| Act::Cut);
    for line in [
        "",
        "device",
        "volume list",
        "device create db",
        "device create db 10GB",
        "device create db 1.5G",
        "device create db 1G --virtual",
        "device create db --virtual --pool main",
        "session activate",
        "session activate db",
        "session establish",
        "session establish db",
        "session establish =v",
        "session establish a=b=c",
        "session establish a=b c=d --name x",
        "session read 4",
        "session read 4 x",
        "session read 4 9 3-1",
        "session read 4 9 --json",
        "session deactivate 4294967296",
        "group process ses-2",
        "group process 2 --name 4",
        "group process 2 --name 4=a --name 4=b",
        "group begin --timeout 0",
        "completions tcsh",
    ] {
        let Ended { code, stdout, stderr } = array.run(line);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{line}");
        assert!(!stderr.is_empty() && !stderr.contains("panicked"), "{line}: {stderr}");
    }
    assert_eq!(array.asked(), [""; 0]);
    for line in ["-a http://host device list", "-a tcp:host device list", "device list"] {
        let Ended { code, stderr, .. } = ended(twintrack(line));
        assert_eq!(code, Some(2), "{line}: {stderr}");
    }
    let said = ended(twintrack("device list")).stderr + &array.run("device create db 10GB").stderr;
    insta::assert_snapshot!(said, @r#"
    error: no array is named: use `-a DIR`, or set TWINTRACK_ARRAY
      next: see `twintrack help device list`
    error: invalid value '10GB' for '[SIZE]': GB can mean a power of 1000 or of 1024: write G or GiB, which are powers of 1024

    For more information, try '--help'.
    "#);
}

/// A track on a terminal would only garble it. A terminal is at hand where pseudo-terminals are.
#[test]
fn a_track_is_not_written_to_a_terminal() {
    let Ok(terminal) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx") else { return };
    let array = Array::start(|_| Act::Bytes(vec![0; 512]));
    let mut process = twintrack("session read 4 9");
    process.env("TWINTRACK_ARRAY", array.folder()).stdout(terminal);
    let Ended { code, stderr, .. } = ended(process);
    assert_eq!(code, Some(2));
    insta::assert_snapshot!(stderr, @r#"
    error: tracks are bytes, and standard output is a terminal: use -o FILE, or send them on
      next: see `twintrack help session read`
    "#);
    assert_eq!(array.asked(), [""; 0]);
}

#[test]
fn a_file_that_cannot_be_written() {
    let array = Array::start(|_| Act::Bytes(vec![0; 512]));
    let said = failed(&array, "session read 4 9 -o /nonexistent/track", 1);
    insta::assert_snapshot!(said, @r#"
    error: /nonexistent/track cannot be written: No such file or directory (os error 2)
      next: name a place that can
    "#);
}

/// What is no changed track: the file stays what it is.
#[test]
fn no_track_is_written_if_one_is_refused() {
    let array =
        Array::refuses(RefusalCode::NotFound, "ses-4 has no changed tracks t8, t9: ask which tracks changed");
    let file = array.folder().join("tracks");
    std::fs::write(&file, "before").unwrap();
    let said = failed(&array, &format!("session read 4 1 8-9 -o {}", file.display()), 1);
    insta::assert_snapshot!(said, @r#"
    error: ses-4 has no changed tracks t8, t9: ask which tracks changed
      next: see `twintrack session list` and `twintrack session changed ses-4`
    "#);
    assert_eq!(std::fs::read(&file).unwrap(), b"before");
}

#[test]
fn more_tracks_than_one_command_reads() {
    let array = Array::start(|_| Act::Bytes(vec![0; 512]));
    let said = failed(&array, &format!("session read 4{}", " 7".repeat(1025)), 2);
    insta::assert_snapshot!(said, @r#"
    error: one request names 1024 tracks and ranges at most: ask for the rest by another
      next: see `twintrack help session read`
    "#);
    assert_eq!(array.asked(), [""; 0]);
}

/// `twintrack … | head` and the like: the reader leaves, and that is all right.
#[test]
fn a_closed_pipe_is_no_failure() {
    let mut from = 0;
    let array = Array::start(move |asked| match asked {
        Asked::Command(_) => {
            let tracks = (0..4096).map(|n| from + 2 * n).collect();
            from += 8192;
            let next = (from < 40 * 8192).then_some(from);
            Act::Answer(Answer::Changed(ChangedTracks { tracks, next }))
        }
        Asked::Track => Act::Bytes(vec![7; 1 << 20]),
    });
    for line in ["session changed 4", "session read 4 9", "completions bash", "--help"] {
        let mut process = twintrack(line);
        let mut child = process.env("TWINTRACK_ARRAY", array.folder()).spawn().unwrap();
        let mut first = [0];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{line}");
    }
    // Nor one that is closed from the beginning, standard error included.
    let mut process = twintrack("device list");
    process.stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(ended(process).code, Some(2));
}
