//! What may be written in the file, and what is refused.

use super::*;

fn error(text: &str) -> String {
    Settings::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_commented_out_is_the_default() {
    let first = first_settings(100 << 30);
    assert!(first.contains("size = \"100 GiB\""));
    let plain = Settings::parse(&first).unwrap();
    let store = Store { path: "store-0".to_owned(), size: Some(Size(100 << 30)) };
    let pool = Pool {
        name: "default".to_owned(),
        io: StoreIo::PageCache,
        when_full: WhenFull::FailSessions,
        warn_below: Free(Threshold::PerCent(10)),
        store: vec![store],
    };
    assert_eq!(plain, Settings { pool: vec![pool], ..Settings::default() });

    let spelled_out: String = first
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let spelled_out = Settings::parse(&spelled_out).unwrap();
    assert!(spelled_out.nbd.listen.is_some());
    assert_eq!((spelled_out.log, spelled_out.format), (plain.log, plain.format));
    let folder = Path::new("/array");
    assert_eq!(spelled_out.config(folder, None), plain.config(folder, None));
}

#[test]
fn errors_say_where_and_what() {
    let text = error("[nbd]\nlisten = [\"unix:a.sock\"]\nport = 10809\n");
    assert!(text.contains("line 3") && text.contains("unknown field `port`"), "{text}");
    let text = error("[nbd]\nlisten = [\"10809\"]\n");
    assert!(text.contains("line 2") && text.contains("unix:PATH or tcp:HOST:PORT"), "{text}");
    let text = error("[[pool]]\nname = \"a\"\n[[pool.store]]\npath = \"b\"\nsize = \"10 GB\"\n");
    assert!(text.contains("line 5") && text.contains("\"10 GB\" is no size"), "{text}");
    let text = error("[format]\ntrack = -1\n");
    assert!(text.contains("line 2"), "{text}");
    let text = error("[[pool]]\nname = \"a\"\nwhen-full = \"wait\"\n");
    assert!(text.contains("line 3") && text.contains("`refuse-writes`"), "{text}");
    for free in ["101%", "-1%", "x%", "%", "10 GB"] {
        let text = error(&format!("[[pool]]\nname = \"a\"\nwarn-below = \"{free}\"\n"));
        assert!(text.contains("line 3") && text.contains(&format!("\"{free}\" is no")), "{text}");
    }
}

#[test]
fn what_a_pool_does_when_it_is_full() {
    let text = "[[pool]]\nname = \"a\"\nwhen-full = \"refuse-writes\"\nwarn-below = \"5 GiB\"\n[[pool]]\nname = \"b\"\nwarn-below = \"25%\"\n";
    let config = Settings::parse(text).unwrap().config(Path::new("/array"), None);
    let policies: Vec<_> = config.pools.iter().map(|pool| pool.policy).collect();
    let (when_full, warn_below) = (WhenFull::RefuseWrites, Threshold::Bytes(5 << 30));
    let second = PoolPolicy { warn_below: Threshold::PerCent(25), ..PoolPolicy::default() };
    assert_eq!(policies, [PoolPolicy { when_full, warn_below }, second]);
}

#[test]
fn others_are_kept_out() {
    for table in ["nbd", "control", "link"] {
        for host in ["127.0.0.1", "localhost", "[::1]"] {
            assert!(Settings::parse(&format!("{table}.listen = [\"tcp:{host}:10809\"]")).is_ok());
        }
        for host in ["0.0.0.0", "[::]", "example.org", "localhost.example.org"] {
            let listen = format!("{table}.listen = [\"unix:a\", \"tcp:{host}:10809\"]\n");
            let text = error(&listen);
            assert!(text.contains(&format!("insecure = true in [{table}]")), "{text}");
            assert!(text.contains(&format!("[{table}.tls]")), "{text}");
            assert!(Settings::parse(&format!("{listen}{table}.insecure = true")).is_ok());
            let tls = format!("{listen}{table}.tls = {{ certificate = \"c\", key = \"k\" }}");
            assert_eq!(Settings::parse(&tls).is_ok(), table == "control", "who sends commands has a token");
        }
    }
    let listen = "nbd.listen = [\"tcp:0.0.0.0:10809\"]\n";
    let tls = "nbd.tls = { certificate = \"c\", key = \"k\", client-ca = \"a\" }";
    assert!(Settings::parse(&format!("{listen}{tls}")).is_ok());
    let text = error(&format!("{listen}{}", tls.replace(", client-ca = \"a\"", "")));
    assert!(text.contains("set client-ca in [nbd.tls]"), "{text}");
    let tls = "link.tls = { certificate = \"c\", key = \"k\", peer-ca = \"a\" }";
    assert!(Settings::parse(&format!("link.listen = [\"tcp:0.0.0.0:7747\"]\n{tls}")).is_ok());
    let twice = "nbd.listen = [\"tcp:localhost:1\"]\nlink.listen = [\"tcp:localhost:1\"]";
    assert!(error(twice).contains("tcp:localhost:1 is listened on twice"));
    let twice = "nbd.listen = [\"tcp:localhost:1\"]\ncontrol.listen = [\"tcp:localhost:1\"]";
    assert!(error(twice).contains("tcp:localhost:1 is listened on twice"));
}

#[test]
fn a_token_is_needed_over_tcp() {
    let token = |text: &str| Settings::parse(text).unwrap().token_file(Path::new("/array"));
    assert_eq!(token(""), None);
    assert_eq!(token("control.token-file = \"t\""), None, "nobody is asked for it");
    let listen = "control.listen = [\"tcp:localhost:1\"]\n";
    assert_eq!(token(listen), Some("/array/token".into()));
    assert_eq!(token(&format!("{listen}control.token-file = \"/etc/t\"")), Some("/etc/t".into()));
    assert_eq!(token(&format!("{listen}control.insecure = true")), None);
    let both = format!("{listen}control.insecure = true\ncontrol.token-file = \"t\"");
    assert_eq!(token(&both), Some("/array/t".into()));
}
