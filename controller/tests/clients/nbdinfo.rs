//! `nbdinfo`: what a device says of itself.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::needs::Need::{Command, Program};
use crate::program::run;
use crate::qemu::qemu_io;
use crate::server::{MIB, Server, Transport};
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let needs = [Program("nbdinfo"), Program("qemu-io"), Command];
    let trials = Transport::ALL.map(|transport| {
        trial(format!("nbdinfo::{}", transport.word()), &needs, move || {
            devices_describe_themselves(transport)
        })
    });
    trials.into()
}

/// D1, D2: devices are exports, a virtual device is one of its standard device's size; unwritten tracks are holes.
async fn devices_describe_themselves(transport: Transport) {
    let server = Server::start(transport, &[("db", 10), ("log", 1)]).await;
    let info: Value = parsed(run("nbdinfo", ["--json", &server.uri("db")]).await);
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 10 * MIB, "{info:#}");
    assert_eq!(info["structured"], true, "{info:#}");
    assert_eq!(info["TLS"], transport == Transport::Tls, "{info:#}");
    for can in ["can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_df"] {
        assert_eq!(export[can], true, "{can}: {info:#}");
    }
    assert_eq!(export["is_read_only"], false, "{info:#}");
    assert_eq!(export["block_size_minimum"], 512, "{info:#}");

    run("qemu-io", qemu_io(&server, "db", ["write -P 7 1M 64k".to_owned()])).await;
    crate::establish(&server, &["db=db-then"]).await;
    run("qemu-io", qemu_io(&server, "db", ["write -P 7 2M 64k".to_owned()])).await;
    assert_eq!(data(&server, "db").await, [(MIB, 65536), (2 * MIB, 65536)]);
    assert_eq!(data(&server, "db-then").await, [(MIB, 65536)]);

    let list: Value = parsed(run("nbdinfo", ["--list", "--json", &server.uri("")]).await);
    let mut names: Vec<_> = list["exports"].as_array().unwrap().iter().map(|e| &e["export-name"]).collect();
    names.sort_by_key(|name| name.as_str());
    assert_eq!(names, ["db", "db-then", "log"]);

    let nothing = crate::program::Program::start("nbdinfo", [&server.uri("nothing")]).end().await.badly();
    assert!(nothing.contains("nothing"), "{nothing}");
}

/// What takes space, as offsets and lengths.
async fn data(server: &Server, device: &str) -> Vec<(u64, u64)> {
    let map = parsed(run("nbdinfo", ["--map", "--json", &server.uri(device)]).await);
    let extents = map.as_array().unwrap().iter().filter(|extent| extent["type"] == 0);
    extents.map(|extent| (extent["offset"].as_u64().unwrap(), extent["length"].as_u64().unwrap())).collect()
}

pub fn parsed(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
