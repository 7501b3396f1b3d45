//! `nbdcopy`: whole devices in and out, over one connection and four.

use std::fs;

use libtest_mimic::Trial;

use crate::image::{content, same};
use crate::needs::Need::{Command, Program};
use crate::program::run;
use crate::server::{MIB, Server, Transport};
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let needs = [Program("nbdcopy"), Command];
    let mut trials = Vec::new();
    for transport in Transport::ALL {
        for connections in [1, 4] {
            let name = format!("nbdcopy::{}::connections_{connections}", transport.word());
            trials.push(trial(name, &needs, move || copies_are_equal(transport, connections)));
        }
    }
    trials
}

/// D1, D2, D3, D4: an image goes in and comes out the same; from a virtual device as it was; from device to device.
async fn copies_are_equal(transport: Transport, connections: u32) {
    // Not a whole number of tracks.
    const SIZE: u64 = 48 * MIB + 20 * 512;
    let mut server = Server::start(transport, &[("other", 64)]).await;
    server.array().device_create("db", SIZE, None).await.unwrap();
    let paths = ["first", "second", "out"].map(|name| server.beside(name));
    let [first, second, out] = paths.each_ref().map(|path| path.to_str().unwrap());
    fs::write(first, content(1, SIZE)).unwrap();
    fs::write(second, content(2, SIZE)).unwrap();
    let connections = format!("--connections={connections}");
    let copy = async |from: &str, to: &str| run("nbdcopy", [&connections, "--flush", from, to]).await;

    copy(first, &server.uri("db")).await;
    copy(&server.uri("db"), out).await;
    same(&paths[0], &paths[2]);
    crate::establish(&server, &["db=then", "db=own"]).await;
    copy(second, &server.uri("db")).await;
    copy(&server.uri("then"), out).await;
    same(&paths[0], &paths[2]);
    copy(&server.uri("db"), out).await;
    same(&paths[1], &paths[2]);
    // A virtual device takes writes of its own.
    copy(second, &server.uri("own")).await;
    copy(&server.uri("then"), &server.uri("other")).await;

    server = server.killed().await;
    for (device, expected) in [("db", &paths[1]), ("own", &paths[1]), ("then", &paths[0])] {
        copy(&server.uri(device), out).await;
        same(expected, &paths[2]);
    }
    copy(&server.uri("other"), out).await;
    fs::File::options().write(true).open(out).unwrap().set_len(SIZE).unwrap();
    same(&paths[0], &paths[2]);
}
