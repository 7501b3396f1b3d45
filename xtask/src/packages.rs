//! Programs of others that tests use, and the Debian packages that have them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs by package. PostgreSQL's are outside of the usual folders.
const PROGRAMS: [(&str, &[&str]); 7] = [
    ("libnbd-bin", &["nbdinfo", "nbdcopy", "nbdfuse"]),
    ("qemu-utils", &["qemu-img", "qemu-io"]),
    ("fio", &["fio"]),
    ("e2fsprogs", &["mkfs.ext4", "e2fsck"]),
    ("mount", &["mount", "umount", "losetup"]),
    ("util-linux", &["setpriv"]),
    ("postgresql", &["postgres"]),
];

/// Looks for the programs; installs what is missing, if this is Debian and we are root, else says what to install.
/// Either way the tests run: each that lacks a program is left out, and says so.
pub fn provide() {
    let missing = missing();
    if missing.is_empty() {
        return;
    }
    let packages = missing.join(" ");
    if !is_root() || find("apt-get").is_none() {
        println!("Not installed, so that some tests are left out: {packages}");
        println!("On Debian: sudo apt-get install --no-install-recommends {packages}");
        return;
    }
    println!("Installing {packages}");
    // The lists may be old, or absent as in most containers.
    if !apt_get(&install(&missing)) {
        apt_get(&["update"]);
        apt_get(&install(&missing));
    }
    let missing = self::missing();
    if !missing.is_empty() {
        println!("Could not be installed, so that some tests are left out: {}", missing.join(" "));
    }
}

/// The packages of which a program is missing.
fn missing() -> Vec<&'static str> {
    let lacks = |programs: &[&str]| programs.iter().any(|program| find(program).is_none());
    PROGRAMS.iter().filter(|(_, programs)| lacks(programs)).map(|(package, _)| *package).collect()
}

fn install<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    [&["install", "--yes", "--no-install-recommends"], packages].concat()
}

fn apt_get(arguments: &[&str]) -> bool {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let versions = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for() {
        assert!(find("sh").is_some() && find("no-such-program").is_none());
        let line = install(&["fio", "qemu-utils"]).join(" ");
        assert_eq!(line, "install --yes --no-install-recommends fio qemu-utils");
    }
}
