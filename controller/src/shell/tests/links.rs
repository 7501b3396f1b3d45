//! Connections of other arrays.

use bytes::Bytes;
use twintrack_link::remote::{Decoder, Encoder, Hello, LinkRefusal, Message, VERSION};

use super::*;

pub(super) fn hello(serial: u64) -> Message {
    Message::Hello(Hello { version: VERSION, serial, boot: 1, track_bytes: 1 << 16, name: "east".to_owned() })
}

pub(super) async fn say(stream: &mut DuplexStream, messages: &[Message]) {
    let (mut encoder, mut pieces) = (Encoder::new(), Vec::<Bytes>::new());
    for message in messages {
        encoder.encode(message, &mut pieces).unwrap();
    }
    stream.write_all(&pieces.concat()).await.unwrap();
}

/// All that is said until the array closes.
pub(super) async fn heard(stream: &mut DuplexStream) -> Vec<Message> {
    let mut input = BytesMut::new();
    while stream.read_buf(&mut input).await.unwrap() > 0 {}
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    while let Some(message) = decoder.next(&mut input).unwrap() {
        messages.push(message);
    }
    messages
}

/// Who is not known is told so, with the serial number that a person then can enter over there.
#[tokio::test(start_paused = true)]
async fn an_array_that_is_not_known_is_refused() {
    let array = start(&shelf()).await;
    for link in [endpoint("link"), remote_link()] {
        let mut stream = array.net.connect(&link);
        say(&mut stream, &[hello(1000)]).await;
        let heard = heard(&mut stream).await;
        let [Message::Refused(refused)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(refused.code, LinkRefusal::UnknownArray);
        assert_ne!(refused.serial, 0);
    }
    array.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_speaks_something_else_or_nothing_is_cut_off() {
    let array = start(&shelf()).await;
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"NBDMAGIC", b"twln", b""] {
        let mut stream = array.net.connect(&endpoint("link"));
        stream.write_all(words).await.unwrap();
        let cut = tokio::time::timeout(Duration::from_secs(10), heard(&mut stream)).await;
        assert_eq!(cut.unwrap(), [], "{}", words.escape_ascii());
    }
    // A first word that is none.
    let mut stream = array.net.connect(&endpoint("link"));
    say(&mut stream, &[Message::Ping { n: 1 }, hello(1000)]).await;
    assert_eq!(heard(&mut stream).await, []);
    array.stop().await.unwrap();
}

/// However many connect and say nothing, who says who he is gets his answer.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_gives_way() {
    let array = start(&shelf()).await;
    let mut silent: Vec<_> = (0..70).map(|_| array.net.connect(&remote_link())).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut stream = array.net.connect(&remote_link());
    say(&mut stream, &[hello(1000)]).await;
    let answer = tokio::time::timeout(Duration::from_secs(1), heard(&mut stream)).await;
    assert_eq!(answer.unwrap().len(), 1);
    assert_eq!(heard(&mut silent[0]).await, [], "it has lost its place");
    array.stop().await.unwrap();
}

/// The array ends though links are open.
#[tokio::test(start_paused = true)]
async fn links_do_not_hold_up_the_end() {
    let array = start(&shelf()).await;
    let mut stream = array.net.connect(&endpoint("link"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    array.stop().await.unwrap();
    assert_eq!(heard(&mut stream).await, []);
}
