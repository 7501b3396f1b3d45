//! Incremental copies by tools that know nothing of sessions: `nbdinfo` tells what differs, `qemu-img` copies that and no
//! more (F7).

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::image::{content, same};
use crate::nbdinfo::parsed;
use crate::needs::Need::{Command, Program};
use crate::program::{Program as Child, run};
use crate::qemu::{qemu_img, qemu_io};
use crate::server::{MIB, Server, Transport};
use crate::trial;

/// Offset and length.
type Range = (u64, u64);

pub fn trials() -> Vec<Trial> {
    let needs = [Program("nbdinfo"), Program("qemu-img"), Program("qemu-io"), Command];
    let trials = Transport::ALL.map(|transport| {
        trial(format!("incremental::{}", transport.word()), &needs, move || {
            a_copy_follows_by_what_differs(transport)
        })
    });
    trials.into()
}

/// A full copy of one session, then only what differs to the next: the same as a full copy of that. Hosts write on.
async fn a_copy_follows_by_what_differs(transport: Transport) {
    // Not a whole number of tracks.
    const SIZE: u64 = 32 * MIB + 20 * 512;
    let server = Server::start(transport, &[]).await;
    server.array().device_create("db", SIZE, None).await.unwrap();
    let [image, copy] = ["image", "copy"].map(|name| server.beside(name));
    fs::write(&image, content(5, SIZE)).unwrap();
    let img = async |words: &[&str]| run("qemu-img", qemu_img(&server, words)).await;
    let write = async |commands: &[String]| {
        run("qemu-io", qemu_io(&server, "db", commands.iter().cloned())).await;
    };
    img(&["convert", "-n", "-f", "raw", "-O", "raw", image.to_str().unwrap(), &server.qemu("db")]).await;
    crate::establish(&server, &["db=mon"]).await;
    img(&["convert", "-f", "raw", "-O", "raw", &server.qemu("mon"), copy.to_str().unwrap()]).await;
    same(&image, &copy);

    let last = format!("write -P 6 {} 512", SIZE - 512);
    let changes = [
        "write -P 1 64k 4k",
        "write -P 2 1M 1M",
        "write -P 3 5000k 100k",
        "discard 8M 1M",
        "write -z 12M 68k",
    ];
    let changes: Vec<_> = changes.map(str::to_owned).into_iter().chain([last]).collect();
    write(&changes).await;
    crate::establish(&server, &["db=tue"]).await;
    // Neither of this nor of what is there already may anything be in the copy of that instant.
    write(&["write -P 4 64k 4k".to_owned(), "write -P 5 20M 2M".to_owned()]).await;

    let dirty = map(&server, "tue", "qemu:dirty-bitmap:mon").await;
    let expected = [
        (64 << 10, 4 << 10),
        (MIB, MIB),
        (5000 << 10, 100 << 10),
        (8 * MIB, MIB),
        (12 * MIB, 68 << 10),
        // To the end of the device, which is no block.
        (SIZE - SIZE % 4096, SIZE % 4096),
    ];
    tells(&dirty, &expected);
    tells(&map(&server, "db", "x-twintrack:diff/mon/tue").await, &expected);
    tells(&told_to_qemu(&server, "tue", "qemu:dirty-bitmap:mon").await, &expected);
    let mut since = expected.to_vec();
    since.push((20 * MIB, 2 * MIB));
    tells(&map(&server, "db", "qemu:dirty-bitmap:mon").await, &since);

    let target = json!({ "driver": "file", "filename": copy });
    for range in dirty {
        let (from, to) = (part(server.qemu_node("tue"), range), part(target.clone(), range));
        img(&["convert", "-n", "-f", "raw", "-O", "raw", &from, &to]).await;
    }
    img(&["compare", "-f", "raw", "-F", "raw", copy.to_str().unwrap(), &server.qemu("tue")]).await;
    let differ = ["compare", "-f", "raw", "-F", "raw", copy.to_str().unwrap(), &server.qemu("db")];
    let differ = Child::start("qemu-img", qemu_img(&server, &differ)).end().await;
    assert_eq!(differ.status.code(), Some(1), "{differ}");

    let unknown = ["--map=qemu:dirty-bitmap:wed", &server.uri("db")];
    let unknown = Child::start("nbdinfo", unknown).end().await.badly();
    assert!(unknown.contains("wed"), "{unknown}");
    let contexts = run("nbdinfo", ["--list", &server.uri("tue")]).await;
    assert!(contexts.contains("qemu:dirty-bitmap:mon"), "{contexts}");
}

/// A report has all that changed, and nothing beside the tracks of it: an array that has nothing to do completes a track that
/// was written in part, and then knows no more which part that was.
fn tells(dirty: &[Range], changed: &[Range]) {
    const TRACK: u64 = 64 << 10;
    for &(offset, length) in changed {
        let all = dirty.iter().any(|&(at, bytes)| at <= offset && offset + length <= at + bytes);
        assert!(all, "{offset}+{length} is missing in {dirty:?}");
    }
    for &(at, bytes) in dirty {
        let of_tracks = |&(offset, length): &Range| {
            offset / TRACK * TRACK <= at && at + bytes <= (offset + length).next_multiple_of(TRACK)
        };
        assert!(changed.iter().any(of_tracks), "nobody wrote {at}+{bytes}: {changed:?}");
    }
}

/// What `nbdinfo` reads as dirty.
async fn map(server: &Server, device: &str, context: &str) -> Vec<Range> {
    let map = parsed(run("nbdinfo", ["--json", &format!("--map={context}"), &server.uri(device)]).await);
    let dirty = map.as_array().unwrap().iter().filter(|extent| extent["type"] == 1);
    dirty.map(|extent| range(extent, "offset")).collect()
}

/// What qemu reads as dirty: it shows that as what has no data.
async fn told_to_qemu(server: &Server, device: &str, context: &str) -> Vec<Range> {
    let mut node = server.qemu_node(device);
    node["x-dirty-bitmap"] = context.into();
    let name = format!("json:{}", json!({ "file": node }));
    let map = run("qemu-img", qemu_img(server, &["map", "-f", "raw", "--output", "json", &name])).await;
    let map = parsed(map);
    let dirty = map.as_array().unwrap().iter().filter(|extent| extent["data"] == false);
    dirty.map(|extent| range(extent, "start")).collect()
}

fn range(extent: &Value, offset: &str) -> Range {
    (extent[offset].as_u64().unwrap(), extent["length"].as_u64().unwrap())
}

/// Some bytes of an image, as `qemu-img` names them.
fn part(node: Value, (offset, size): Range) -> String {
    format!("json:{}", json!({ "offset": offset, "size": size, "file": node }))
}
