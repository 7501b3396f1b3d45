//! Completions and man pages.

use crate::array::{ended, twintrack};

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = ended(twintrack(&format!("completions {shell}")));
        assert_eq!(ended.code, Some(0), "{shell}");
        assert!(ended.stdout.contains("one-by-one"), "{shell}");
    }
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("new/man1");
    assert_eq!(ended(twintrack(&format!("man {}", man.display()))).code, Some(0));
    let read = |name: &str| std::fs::read_to_string(man.join(name)).unwrap();
    assert!(read("twintrack.1").contains("TWINTRACK_ARRAY"));
    let establish = read("twintrack-session-establish.1");
    assert!(establish.contains("=VIRTUAL") && establish.contains("TH twintrack-session-establish"));
    let pages = std::fs::read_dir(&man).unwrap().count();
    assert!(pages > 30, "{pages}");

    let ended = ended(twintrack("man /dev/null/man"));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("error: /dev/null/man cannot be written"), "{}", ended.stderr);
}

/// The command line as a whole, so that a change of it shows in review.
#[test]
fn usage_of_every_command() {
    let mut usages = String::new();
    for line in [
        "array show",
        "pool list",
        "device create",
        "device list",
        "device show",
        "device delete",
        "device rename",
        "device resize",
        "device online",
        "device offline",
        "session register",
        "session relate",
        "session activate",
        "session establish",
        "session deactivate",
        "session remove",
        "session list",
        "session changed",
        "session read",
        "group begin",
        "group process",
        "group list",
        "group cancel",
        "completions",
        "man",
    ] {
        let help = ended(twintrack(&format!("{line} -h")));
        assert_eq!(help.code, Some(0), "{line}");
        let usage = help.stdout.lines().skip_while(|line| !line.starts_with("Usage:"));
        for part in usage.take_while(|line| !line.is_empty()) {
            usages += part.trim_start_matches("Usage:").trim_start();
            usages.push('\n');
        }
    }
    insta::assert_snapshot!(usages, @r#"
    twintrack array show [OPTIONS]
    twintrack pool list [OPTIONS]
    twintrack device create NAME SIZE [--pool POOL]
    twintrack device create NAME --virtual
    twintrack device list [OPTIONS]
    twintrack device show [OPTIONS] <NAME>
    twintrack device delete [OPTIONS] <NAME>
    twintrack device rename [OPTIONS] <NAME> <TO>
    twintrack device resize [OPTIONS] <NAME> <SIZE>
    twintrack device online [OPTIONS] <NAME>
    twintrack device offline [OPTIONS] <NAME>
    twintrack session register [OPTIONS] <DEVICE[:C/H-C/H]>
    twintrack session relate [OPTIONS] <SESSION> <VIRTUAL>
    twintrack session activate [OPTIONS] <SESSION>...
    twintrack session establish [OPTIONS] <STANDARD[:C/H-C/H]=VIRTUAL>...
    twintrack session deactivate [OPTIONS] <SESSION>
    twintrack session remove [OPTIONS] <SESSION>
    twintrack session list [OPTIONS] [STANDARD]
    twintrack session changed [OPTIONS] <SESSION>
    twintrack session read [OPTIONS] <SESSION> <TRACK|FIRST-LAST>...
    twintrack group begin [OPTIONS]
    twintrack group process [OPTIONS] <GROUP>
    twintrack group list [OPTIONS]
    twintrack group cancel [OPTIONS] <GROUP>
    twintrack completions [OPTIONS] <SHELL>
    twintrack man [OPTIONS] <DIR>
    "#);
}
