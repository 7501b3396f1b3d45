//! Two rigs and what goes to and fro between them.

#![allow(dead_code)] // Each test uses a part of it.

use std::collections::VecDeque;
use std::time::Duration;

use twintrack_controller::firmware::{Effect, Event, HostError, HostOp, LinkId};
use twintrack_core::PeerId;
use twintrack_core::{Owner, Place, TrackNo};
use twintrack_link::manage::{
    Answer, Command, LinkInfo, NewDevice, PairHalf, PairMode, PairPolicy, PairStatusInfo, Refusal, RemoteInfo,
};
use twintrack_link::remote::Message;

use crate::rig::Rig;

pub const A: usize = 0;
pub const B: usize = 1;
pub const TRACK: u64 = 16 << 10;

/// Something on its way from one array to the other.
enum Parcel {
    Said(Message),
    Closed,
}

struct Line {
    ends: [LinkId; 2],
    /// On its way to each.
    to: [VecDeque<Parcel>; 2],
}

pub struct Two {
    pub rigs: [Rig; 2],
    lines: Vec<Line>,
    next_link: u64,
    is_cut: bool,
    stopped: [bool; 2],
    /// The writes to each array's stores that do not end, while that is held up.
    held: [Option<Vec<Effect>>; 2],
    turn: usize,
    calls: [u64; 2],
    /// What was sent: who said what, in one line.
    pub said: Vec<(usize, String)>,
}

impl Two {
    pub fn new() -> Self {
        Self::with_tracks(512)
    }

    /// With so many physical tracks each.
    pub fn with_tracks(tracks: u32) -> Self {
        let rigs = [0xa, 0xb].map(|serial| Rig::with_serial(serial, tracks));
        Self {
            rigs,
            lines: Vec::new(),
            next_link: 0,
            is_cut: false,
            stopped: [false; 2],
            held: [None, None],
            turn: 0,
            calls: [0; 2],
            said: Vec::new(),
        }
    }

    /// Each knows the other.
    pub fn linked() -> Self {
        Self::new().link_up()
    }

    pub fn link_up(mut self) -> Self {
        let two = &mut self;
        for (array, name) in [(A, "b"), (B, "a")] {
            let endpoint = Some("tcp:127.0.0.1:1".into());
            two.command(array, Command::LinkAdd { name: name.into(), endpoint, serial: None }).unwrap();
        }
        two.wait(Duration::from_secs(20));
        self
    }

    /// With a pair "d" – "e" of so many tracks, synchronized; connection 1 of A is attached.
    pub fn synchronized(tracks: u64) -> Self {
        let mut two = Self::linked();
        two.device(A, "d", tracks);
        two.create("d", "e", true).unwrap();
        two.settle();
        assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
        two.wait(Duration::from_secs(12));
        two
    }

    pub fn device(&mut self, array: usize, name: &str, tracks: u64) {
        let create = Command::DeviceCreate { name: name.into(), size_bytes: tracks * TRACK, pool: None };
        self.command(array, create).unwrap();
        self.rigs[array].attach(1, name);
    }

    pub fn detach(&mut self, array: usize, conn: u64) {
        self.rigs[array].step(Event::Detach { conn: twintrack_controller::firmware::ConnId(conn) });
    }

    pub fn begin_create(&mut self, device: &str, peer_device: &str, make: bool) {
        self.begin_create_from(device, peer_device, make, PairHalf::R1);
    }

    pub fn begin_create_from(&mut self, device: &str, peer_device: &str, make: bool, from: PairHalf) {
        let size_bytes = self.rigs[A].firmware.tables().device_named(device).unwrap().1.size_bytes;
        let command = Command::RemoteCreate {
            request: 77,
            device: device.into(),
            peer: "b".into(),
            peer_device: peer_device.into(),
            half: PairHalf::R1,
            from,
            create_local: None,
            create_peer: make.then_some(NewDevice { pool: None, size_bytes }),
            mode: PairMode::Synchronous,
            policy: PairPolicy::Continue,
            group: None,
        };
        self.calls[A] = self.rigs[A].manage(command);
    }

    pub fn create(&mut self, device: &str, peer_device: &str, make: bool) -> Result<String, Refusal> {
        self.begin_create(device, peer_device, make);
        self.answer(A).map(|answer| match answer {
            Answer::Remote(info) => info.pair,
            other => panic!("{other:?}"),
        })
    }

    pub fn create_from(
        &mut self,
        device: &str,
        peer_device: &str,
        from: PairHalf,
    ) -> Result<Answer, Refusal> {
        self.begin_create_from(device, peer_device, false, from);
        self.answer(A)
    }

    fn answer(&mut self, array: usize) -> Result<Answer, Refusal> {
        let call = self.calls[array];
        for _ in 0..10_000 {
            if let Some(answer) = self.rigs[array].answers.remove(&call) {
                return answer;
            }
            assert!(self.carry_out() || self.tick(), "a call is not answered");
        }
        panic!("a call is not answered");
    }

    pub fn command(&mut self, array: usize, command: Command) -> Result<Answer, Refusal> {
        self.calls[array] = self.rigs[array].manage(command);
        self.answer(array)
    }

    pub fn show(&mut self, array: usize, device: &str) -> RemoteInfo {
        match self.command(array, Command::RemoteShow { device: device.into() }).unwrap() {
            Answer::Remote(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    pub fn status(&mut self, array: usize, device: &str) -> PairStatusInfo {
        self.show(array, device).status
    }

    pub fn link(&mut self, array: usize) -> LinkInfo {
        match self.command(array, Command::LinkList {}).unwrap() {
            Answer::Links(mut links) => links.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub fn try_write(
        &mut self,
        array: usize,
        conn: u64,
        offset: u64,
        length: usize,
        fill: u8,
    ) -> Result<(), HostError> {
        let tag = self.rigs[array].write(conn, offset, length, fill);
        self.reply(array, tag).map(drop)
    }

    pub fn write(&mut self, array: usize, conn: u64, offset: u64, length: usize, fill: u8) {
        self.try_write(array, conn, offset, length, fill).unwrap();
    }

    pub fn flush(&mut self, array: usize, conn: u64) {
        let tag = self.rigs[array].host(conn, HostOp::Flush);
        self.reply(array, tag).unwrap();
    }

    pub fn read(&mut self, array: usize, conn: u64, offset: u64, length: u32) -> Result<Vec<u8>, HostError> {
        let tag = self.rigs[array].host(conn, HostOp::Read { offset, length });
        match self.reply(array, tag)? {
            twintrack_controller::firmware::Reply::Data(segments) => Ok(crate::rig::sectors(&segments)),
            other => panic!("{other:?}"),
        }
    }

    fn reply(&mut self, array: usize, tag: u64) -> Result<twintrack_controller::firmware::Reply, HostError> {
        for _ in 0..10_000 {
            if let Some(reply) = self.rigs[array].replies.remove(&tag) {
                return reply;
            }
            assert!(self.carry_out() || self.tick(), "a request is not answered");
        }
        panic!("a request is not answered");
    }

    /// Messages that are on their way to an array.
    pub fn on_the_way(&self, array: usize) -> usize {
        self.lines.iter().map(|line| line.to[array].len()).sum()
    }

    /// An array says something more on the link that there is.
    pub fn say(&mut self, array: usize, message: Message) {
        self.lines[0].to[1 - array].push_back(Parcel::Said(message));
    }

    /// Commits that an array has made.
    pub fn commits(&self, array: usize) -> usize {
        self.rigs[array].commits
    }

    /// What a device holds: the first byte of each sector, as it lies on the disk.
    pub fn content(&mut self, array: usize, device: &str) -> Vec<u8> {
        self.settle();
        let rig = &self.rigs[array];
        let tables = rig.firmware.tables();
        let (id, record) = tables.device_named(device).unwrap();
        let owner = match tables.session_shown_by(id) {
            Some(session) => Owner::Session(session),
            None => Owner::Device(id),
        };
        let tracks = tables.geometry().tracks(record.size_bytes);
        (0..tracks).flat_map(|track| rig.track(Place { owner, track: TrackNo(track) })).collect()
    }

    /// Changes a block of a track behind the array's back.
    pub fn spoil(&mut self, array: usize, device: &str, track: u32) {
        let tables = self.rigs[array].firmware.tables();
        let owner = Owner::Device(tables.device_named(device).unwrap().0);
        let entry = tables.entry(Place { owner, track: TrackNo(track) }).unwrap();
        let at = self.rigs[array].offset_of(entry.place_of(0).unwrap());
        self.rigs[array].disk[at] ^= 1;
    }

    /// What is on its way is lost, and nothing new comes through.
    pub fn cut(&mut self) {
        self.is_cut = true;
        for line in std::mem::take(&mut self.lines) {
            for array in [A, B] {
                self.rigs[array].step(Event::LinkClosed { link: line.ends[array], why: "cut".into() });
            }
        }
    }

    /// No write to an array's stores ends any more.
    pub fn hold_writes(&mut self, array: usize) {
        self.held[array] = Some(Vec::new());
    }

    /// They do again.
    pub fn let_writes_go(&mut self, array: usize) {
        self.rigs[array].pending.extend(self.held[array].take().into_iter().flatten());
    }

    pub fn heal(&mut self) {
        self.is_cut = false;
    }

    /// Power fails at one array; it stays off.
    pub fn stop(&mut self, array: usize) {
        self.stopped[array] = true;
        for line in std::mem::take(&mut self.lines) {
            let other = 1 - array;
            self.rigs[other]
                .step(Event::LinkClosed { link: line.ends[other], why: "the peer is gone".into() });
        }
        self.rigs[array].pending.clear();
        self.settle();
    }

    /// And comes back.
    pub fn start(&mut self, array: usize) {
        self.rigs[array].restart();
        self.stopped[array] = false;
    }

    pub fn restart(&mut self, array: usize) {
        self.stop_now(array);
        self.start(array);
    }

    fn stop_now(&mut self, array: usize) {
        for line in std::mem::take(&mut self.lines) {
            let other = 1 - array;
            self.rigs[other]
                .step(Event::LinkClosed { link: line.ends[other], why: "the peer is gone".into() });
        }
        self.rigs[array].pending.clear();
    }

    /// Carries out one thing; `false`: there is none.
    pub fn carry_out(&mut self) -> bool {
        for _ in 0..2 {
            self.turn = 1 - self.turn;
            let array = self.turn;
            if self.stopped[array] {
                continue;
            }
            if let Some(effect) = self.rigs[array].pending.pop_front() {
                self.carry_out_at(array, effect);
                return true;
            }
        }
        for at in 0..self.lines.len() {
            for array in [A, B] {
                let Some(parcel) = self.lines[at].to[array].pop_front() else { continue };
                let link = self.lines[at].ends[array];
                match parcel {
                    Parcel::Said(message) => self.rigs[array].step(Event::LinkMessage { link, message }),
                    Parcel::Closed => {
                        let ends = self.lines.remove(at).ends;
                        for array in [A, B] {
                            let why = "it was closed".into();
                            self.rigs[array].step(Event::LinkClosed { link: ends[array], why });
                        }
                    }
                }
                return true;
            }
        }
        false
    }

    /// Carries out one thing; if there is none, time passes to what is due next.
    pub fn step_on(&mut self) {
        if self.carry_out() {
            return;
        }
        let due = [A, B].into_iter().filter(|array| !self.stopped[*array]).filter_map(|array| {
            let at = self.rigs[array].firmware.next_deadline()?;
            Some((at, array))
        });
        if let Some((at, array)) = due.min() {
            self.pass(at, array);
        }
    }

    fn carry_out_at(&mut self, array: usize, effect: Effect) {
        match effect {
            Effect::Dial { peer, .. } => self.dial(array, peer),
            Effect::Send { link, message } => {
                self.said.push((array, message.to_string()));
                if let Some(line) = self.lines.iter_mut().find(|line| line.ends[array] == link) {
                    line.to[1 - array].push_back(Parcel::Said(message));
                }
            }
            Effect::CloseLink { link } => {
                if let Some(line) = self.lines.iter_mut().find(|line| line.ends[array] == link) {
                    line.to[1 - array].push_back(Parcel::Closed);
                }
            }
            other => match &mut self.held[array] {
                Some(held) if matches!(other, Effect::Write { .. }) => held.push(other),
                _ => self.rigs[array].carry_out_this(other),
            },
        }
    }

    fn dial(&mut self, array: usize, peer: PeerId) {
        let other = 1 - array;
        if self.is_cut || self.stopped[other] {
            self.rigs[array].step(Event::DialFailed { peer, why: "nobody answers".into() });
            return;
        }
        let mut ends = [LinkId(0); 2];
        for end in &mut ends {
            self.next_link += 1;
            *end = LinkId(self.next_link);
        }
        self.lines.push(Line { ends, to: [VecDeque::new(), VecDeque::new()] });
        self.rigs[other].step(Event::LinkOpened { link: ends[other], peer: None });
        self.rigs[array].step(Event::LinkOpened { link: ends[array], peer: Some(peer) });
    }

    /// Time passes to what is due next, if that is soon; `false`: nothing is.
    fn tick(&mut self) -> bool {
        let due = [A, B].into_iter().filter(|array| !self.stopped[*array]).filter_map(|array| {
            let at = self.rigs[array].firmware.next_deadline()?;
            Some((at, array))
        });
        let Some((at, array)) = due.min() else { return false };
        if at > self.rigs[array].now + Duration::from_millis(20) {
            return false;
        }
        self.pass(at, array);
        true
    }

    fn pass(&mut self, at: Duration, array: usize) {
        for rig in &mut self.rigs {
            rig.now = rig.now.max(at);
        }
        self.rigs[array].step(Event::Timer);
    }

    /// Everything that is to be done soon is done.
    pub fn settle(&mut self) {
        for _ in 0..200_000 {
            if !self.carry_out() && !self.tick() {
                return;
            }
        }
        panic!("it does not settle");
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) {
        let end = self.rigs[A].now.max(self.rigs[B].now) + time;
        for _ in 0..200_000 {
            if self.carry_out() {
                continue;
            }
            let due = [A, B].into_iter().filter(|array| !self.stopped[*array]).filter_map(|array| {
                let at = self.rigs[array].firmware.next_deadline()?;
                Some((at, array))
            });
            match due.min().filter(|(at, _)| *at <= end) {
                Some((at, array)) => self.pass(at, array),
                None => break,
            }
        }
        for rig in &mut self.rigs {
            rig.now = end;
        }
    }
}
