//! `qemu-img` and `qemu-io`: images converted and compared; single requests of every kind.

use std::fs;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::image::{content, same};
use crate::needs::Need::{Command, Program};
use crate::program::{Program as Child, run};
use crate::server::{MIB, Server, Transport};
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for transport in Transport::ALL {
        let word = transport.word();
        let needs = [Program("qemu-img"), Command];
        trials.push(trial(format!("qemu_img::{word}"), &needs, move || images_are_equal(transport)));
        for clients in [1, 4] {
            let name = format!("qemu_io::{word}::connections_{clients}");
            trials.push(trial(name, &[Program("qemu-io")], move || {
                requests_do_what_they_say(transport, clients)
            }));
        }
    }
    trials
}

/// D1, D2, D3: a qcow2 image becomes a device, the device of a session becomes a qcow2 image, and nothing is lost.
async fn images_are_equal(transport: Transport) {
    const SIZE: u64 = 32 * MIB;
    let server = Server::start(transport, &[("db", SIZE / MIB)]).await;
    let paths = ["image", "image.qcow2", "out.qcow2", "out"].map(|name| server.beside(name));
    let [image, qcow2, out_qcow2, out] = paths.each_ref().map(|path| path.to_str().unwrap());
    let (db, then) = (server.qemu("db"), server.qemu("then"));
    fs::write(image, content(3, SIZE)).unwrap();
    let img = async |words: &[&str]| run("qemu-img", qemu_img(&server, words)).await;
    img(&["convert", "-f", "raw", "-O", "qcow2", image, qcow2]).await;
    img(&["convert", "-n", "-W", "-m", "4", "-f", "qcow2", "-O", "raw", qcow2, &db]).await;
    img(&["compare", "-f", "qcow2", "-F", "raw", qcow2, &db]).await;
    crate::establish(&server, &["db=then"]).await;
    let writes = ["write -z -u 0 16M", "write -P 1 16M 1M"].map(str::to_owned);
    run("qemu-io", qemu_io(&server, "db", writes)).await;
    let compare = qemu_img(&server, &["compare", "-f", "raw", "-F", "raw", image, &db]);
    let differ = Child::start("qemu-img", compare).end().await;
    assert_eq!(differ.status.code(), Some(1), "{differ}");
    img(&["compare", "-f", "raw", "-F", "raw", image, &then]).await;
    img(&["convert", "-f", "raw", "-O", "qcow2", &then, out_qcow2]).await;
    img(&["convert", "-f", "qcow2", "-O", "raw", out_qcow2, out]).await;
    same(&paths[0], &paths[3]);
    // The zeroed half takes no space any more.
    let map = img(&["map", "-f", "raw", "--output", "json", &db]).await;
    let map: Value = serde_json::from_str(&map).unwrap();
    assert_eq!(
        (&map[0]["start"], &map[0]["length"], &map[0]["data"]),
        (&0.into(), &(16 * MIB).into(), &false.into())
    );
}

/// D1, D4: writes of all sizes, by FUA, zeros and trims are read back by another connection, also after `kill -9`;
/// what goes past the end is refused.
async fn requests_do_what_they_say(transport: Transport, clients: u64) {
    let server = Server::start(transport, &[("db", 64)]).await;
    // Each client has its 16 MiB.
    let commands = |client: u64| {
        let base = client * 16 * MIB;
        let at = |offset: u64| base + offset;
        vec![
            format!("write -P 1 {} 3M", at(0)),
            format!("write -P 2 {} 512", at(512)),
            format!("write -f -P 3 {} 66048", at(MIB - 512)),
            format!("aio_write -P 4 {} 64k", at(4 * MIB)),
            format!("aio_write -P 5 {} 64k", at(5 * MIB)),
            "aio_flush".to_owned(),
            format!("write -z {} 1M", at(2 * MIB)),
            format!("write -z -u {} 68k", at(2 * MIB + 4096)),
            format!("writev -P 6 {} 4k 8k 512", at(6 * MIB)),
            format!("discard {} 512k", at(MIB + 128 * 1024)),
            "flush".to_owned(),
        ]
    };
    let checks = |client: u64| {
        let base = client * 16 * MIB;
        let expected = [
            (1, 0, 512),
            (2, 512, 512),
            (1, 1024, MIB - 512 - 1024),
            (3, MIB - 512, 66048),
            (1, MIB + 65536, 65536),
            (0, 2 * MIB, MIB),
            (0, 3 * MIB, MIB),
            (4, 4 * MIB, 65536),
            (5, 5 * MIB, 65536),
            (6, 6 * MIB, 12800),
            (0, 6 * MIB + 12800, MIB),
        ];
        expected.map(|(pattern, offset, length)| format!("read -P {pattern} {} {length}", base + offset))
    };
    let children: Vec<Child> = (0..clients)
        .map(|client| Child::start("qemu-io", qemu_io(&server, "db", commands(client))))
        .collect();
    for child in children {
        child.end().await.well();
    }
    let check = async |server: &Server| {
        for client in 0..clients {
            let text = run("qemu-io", qemu_io(server, "db", checks(client))).await;
            assert!(!text.contains("failed"), "{text}");
        }
    };
    check(&server).await;
    let server = server.killed().await;
    check(&server).await;
    let past = qemu_io(&server, "db", ["write 64M 4k".to_owned()]);
    let text = Child::start("qemu-io", past).end().await.badly();
    assert!(text.contains("write failed"), "{text}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// The arguments of `qemu-img` for a command and what follows it.
pub fn qemu_img(server: &Server, words: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    arguments.splice(1..1, server.qemu_options());
    arguments
}

/// The arguments of `qemu-io` for `commands` to a device.
pub fn qemu_io(server: &Server, device: &str, commands: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut arguments = server.qemu_options();
    arguments.extend(["-f".to_owned(), "raw".to_owned()]);
    for command in commands {
        arguments.extend(["-c".to_owned(), command]);
    }
    arguments.push(server.qemu(device));
    arguments
}
