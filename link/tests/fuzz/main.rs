//! The fuzz targets over their corpus, and over mutations of it that are the same every time: what a stable compiler
//! can do. `link/fuzz` goes on from there, for as long as one likes.

mod mutate;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::BytesMut;
use mutate::{Dice, mutate};
use twintrack_link::remote::{Decoder, Message, VERSION};

/// How many mutations are tried of all inputs of a target together.
const MUTATIONS: usize = 6000;

#[test]
fn nbd_server() {
    replay("nbd_server", targets::nbd_server);
}

#[test]
fn nbd_client() {
    replay("nbd_client", targets::nbd_client);
}

#[test]
fn remote() {
    replay("remote", targets::remote);
}

#[test]
fn manage() {
    replay("manage", targets::manage);
}

/// With another version of the protocol nothing would be heard behind the first message.
#[test]
fn the_corpus_of_links_is_of_the_present_version() {
    let corpus = corpus("remote");
    let heard = |(_, data): &&(String, Vec<u8>)| {
        let mut input = BytesMut::from(&data[..]);
        let mut decoder = Decoder::new();
        let first = decoder.next(&mut input).ok().flatten();
        matches!(first, Some(Message::Hello(hello)) if hello.version == VERSION)
            && decoder.next(&mut input).is_ok_and(|second| second.is_some())
    };
    let count = corpus.iter().filter(heard).count();
    assert!(count >= 40, "{count} of {}", corpus.len());
}

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    assert!(corpus.len() >= 20, "the corpus of {name} has {} inputs", corpus.len());
    for (file, data) in &corpus {
        attempt(target, data, file);
    }
    let mut dice = Dice::new(corpus.len() as u64);
    for n in 0..MUTATIONS {
        let (file, data) = &corpus[n % corpus.len()];
        let (_, other) = &corpus[dice.below(corpus.len())];
        let mut data = data.clone();
        mutate(&mut data, other, &mut dice);
        attempt(target, &data, &format!("mutation {n}, of {file}"));
    }
}

/// Names the input that breaks a promise.
fn attempt(target: fn(&[u8]), data: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(data))) {
        eprintln!("{what}: {}", data.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

/// The inputs by file name, in order.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = files
        .map(|file| file.unwrap().path())
        .map(|path| (path.file_name().unwrap().display().to_string(), fs::read(&path).unwrap()))
        .collect();
    inputs.sort();
    inputs
}
