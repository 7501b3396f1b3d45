//! The measurement of a link: a small message there and back, then as much data as was asked for.

use std::time::Duration;

use bytes::Bytes;
use twintrack_core::PeerId;
use twintrack_link::manage::{Answer, LINK_TEST_BYTES_MAX, LinkTestInfo, Refusal, RefusalCode};
use twintrack_link::remote::{Answer as PeerAnswer, PAYLOAD_BYTES_MAX, PeerError, Request};

use super::Firmware;
use super::event::{CallId, Effect};
use super::links::Asked;
use super::pairs::told_by_peer;

/// Messages of a test that are under way side by side.
const ECHOES_MAX: u32 = 16;

/// A measurement of a link.
#[derive(Debug)]
pub(super) struct LinkTest {
    peer: PeerId,
    began: Duration,
    round_trip: Option<Duration>,
    left_bytes: u64,
    under_way: u32,
    back_bytes: u64,
}

static ECHO: [u8; PAYLOAD_BYTES_MAX as usize] = [0x5a; PAYLOAD_BYTES_MAX as usize];

impl Firmware {
    pub(super) fn begin_test(
        &mut self,
        call: CallId,
        peer: PeerId,
        size_bytes: u64,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if size_bytes > LINK_TEST_BYTES_MAX {
            let reason = format!("{size_bytes} bytes are too many for a test: at most {LINK_TEST_BYTES_MAX}");
            return Err(Refusal { code: RefusalCode::BadRequest, reason });
        }
        let test = LinkTest {
            peer,
            began: self.now,
            round_trip: None,
            left_bytes: size_bytes,
            under_way: 1,
            back_bytes: 0,
        };
        self.tests.insert(call, test);
        self.ask(peer, Request::Echo { data: Bytes::from_static(&[0; 512]) }, Asked::Echo(call), fx);
        Ok(())
    }

    pub(super) fn echo_answered(
        &mut self,
        call: CallId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let Some(test) = self.tests.get_mut(&call) else { return };
        test.under_way -= 1;
        match result {
            Err(error) => {
                self.tests.remove(&call);
                self.answer(call, Err(told_by_peer(&error)), fx);
                return;
            }
            Ok(PeerAnswer::Data(data)) if test.round_trip.is_some() => test.back_bytes += data.len() as u64,
            Ok(_) => {
                test.round_trip = Some(now.saturating_sub(test.began));
                test.began = now;
            }
        }
        self.echo_more(call, fx);
        self.end_test(call, fx);
    }

    fn echo_more(&mut self, call: CallId, fx: &mut Vec<Effect>) {
        while let Some(test) = self.tests.get_mut(&call)
            && test.under_way < ECHOES_MAX
            && test.left_bytes > 0
        {
            let bytes = test.left_bytes.min(u64::from(PAYLOAD_BYTES_MAX)).next_multiple_of(512) as u32;
            test.left_bytes = test.left_bytes.saturating_sub(u64::from(bytes));
            test.under_way += 1;
            let (peer, data) = (test.peer, Bytes::from_static(&ECHO[..bytes as usize]));
            self.ask(peer, Request::Echo { data }, Asked::Echo(call), fx);
        }
    }

    fn end_test(&mut self, call: CallId, fx: &mut Vec<Effect>) {
        let now = self.now;
        if self.tests.get(&call).is_none_or(|test| test.under_way > 0) {
            return;
        }
        let Some(test) = self.tests.remove(&call) else { return };
        let tested = LinkTestInfo {
            name: self.tables.peer(test.peer).map(|peer| peer.name.clone()).unwrap_or_default(),
            round_trip_us: test.round_trip.unwrap_or_default().as_micros() as u64,
            size_bytes: test.back_bytes,
            took_us: now.saturating_sub(test.began).as_micros() as u64,
        };
        self.answer(call, Ok(Answer::LinkTest(tested)), fx);
    }
}
