//! Who may not enter over TLS: every client gets an error, and none gets data.

use libtest_mimic::Trial;

use crate::needs::Need::Program;
use crate::program::{Program as Child, run};
use crate::server::{DECEIVED, IMPOSTOR, STRANGER, Server, Transport};
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let needs = |program| [Program(program)];
    vec![
        trial("refused::nbdinfo", &needs("nbdinfo"), nbdinfo_is_refused),
        trial("refused::nbdcopy", &needs("nbdcopy"), nbdcopy_is_refused),
        trial("refused::qemu_img", &needs("qemu-img"), qemu_img_is_refused),
        trial("refused::qemu_io", &needs("qemu-io"), qemu_io_is_refused),
    ]
}

async fn nbdinfo_is_refused() {
    let server = start().await;
    let plain = format!("nbd://localhost:{}/db", server.port());
    for uri in uris(&server).into_iter().chain([plain]) {
        let said = Child::start("nbdinfo", ["--json", &uri]).end().await.badly();
        assert!(!said.contains("export-size"), "{uri}: {said}");
    }
    run("nbdinfo", [server.uri("db")]).await;
    the_daemon_says_so(&server);
}

async fn nbdcopy_is_refused() {
    let server = start().await;
    let image = server.beside("image");
    std::fs::write(&image, vec![7; 1 << 20]).unwrap();
    let image = image.to_str().unwrap();
    for connections in ["--connections=1", "--connections=4"] {
        for uri in uris(&server) {
            Child::start("nbdcopy", [connections, image, &uri]).end().await.badly();
        }
    }
    // Nothing of it has arrived.
    let out = server.beside("out");
    run("nbdcopy", [server.uri("db").as_str(), out.to_str().unwrap()]).await;
    assert!(std::fs::read(out).unwrap().iter().all(|byte| *byte == 0));
    the_daemon_says_so(&server);
}

async fn qemu_img_is_refused() {
    let server = start().await;
    for host in [STRANGER, IMPOSTOR, DECEIVED] {
        let mut words = vec!["info".to_owned(), "-f".to_owned(), "raw".to_owned()];
        words.extend(server.qemu_options_of_host(host));
        words.push(server.qemu("db"));
        let said = Child::start("qemu-img", words).end().await.badly();
        assert!(!said.contains("virtual size"), "{host}: {said}");
    }
    let plain = format!("nbd://localhost:{}/db", server.port());
    Child::start("qemu-img", ["info", "-f", "raw", &plain]).end().await.badly();
    the_daemon_says_so(&server);
}

async fn qemu_io_is_refused() {
    let server = start().await;
    for host in [STRANGER, IMPOSTOR, DECEIVED] {
        let mut words = server.qemu_options_of_host(host);
        words.extend(["-f", "raw", "-c", "write -P 1 0 4k"].map(str::to_owned));
        words.push(server.qemu("db"));
        let said = Child::start("qemu-io", words).end().await.badly();
        assert!(!said.contains("wrote"), "{host}: {said}");
    }
    let zeros = crate::qemu::qemu_io(&server, "db", ["read -P 0 0 1M".to_owned()]);
    run("qemu-io", zeros).await;
    the_daemon_says_so(&server);
}

async fn start() -> Server {
    Server::start(Transport::Tls, &[("db", 1)]).await
}

/// The device, for each host that is not to reach it: no certificate, one of another CA, and one that does not trust
/// the array.
fn uris(server: &Server) -> Vec<String> {
    [STRANGER, IMPOSTOR, DECEIVED].map(|host| server.uri_of_host(host, "db")).into()
}

fn the_daemon_says_so(server: &Server) {
    let log = server.log();
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("host refused")).collect();
    for reason in ["peer sent no certificates", "invalid peer certificate"] {
        assert!(refusals.iter().any(|line| line.contains(reason)), "{reason}: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}
