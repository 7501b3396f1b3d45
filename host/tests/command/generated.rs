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

/// The command line as a whole, each command with its own options, so that a change of it shows in review.
#[test]
fn usage_of_every_command() {
    let mut usages = String::new();
    let everywhere: Vec<_> = options(&ended(twintrack("-h")).stdout).map(str::to_owned).collect();
    let mut left = vec![String::new()];
    while let Some(command) = left.pop() {
        let help = ended(twintrack(&format!("{command} -h")));
        assert_eq!(help.code, Some(0), "{command}");
        let subcommands: Vec<_> = section(&help.stdout, "Commands:").map(first_word).collect();
        if !subcommands.is_empty() {
            let further = subcommands.iter().rev().filter(|name| **name != "help");
            left.extend(further.map(|name| format!("{command} {name}")));
            continue;
        }
        let usage = help.stdout.lines().skip_while(|line| !line.starts_with("Usage:"));
        for part in usage.take_while(|line| !line.is_empty()) {
            usages += part.trim_start_matches("Usage:").trim_start();
            usages.push('\n');
        }
        for option in options(&help.stdout).filter(|option| !everywhere.iter().any(|other| other == option)) {
            usages += &format!("    {option}\n");
        }
    }
    insta::assert_snapshot!(usages);
}

/// The lines of a part of a help text.
fn section<'a>(help: &'a str, title: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = help.lines().skip_while(move |line| *line != title).skip(1);
    lines.take_while(|line| !line.is_empty())
}

/// The options of a help text, without what they do.
fn options(help: &str) -> impl Iterator<Item = &str> {
    let lines = section(help, "Options:").map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.map(|line| line.split("  ").next().unwrap_or(line))
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}
