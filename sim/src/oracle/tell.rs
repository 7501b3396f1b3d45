//! What a history says in a violation.

use super::Violation;
use super::content::Value;
use super::history::{History, VolumeId};
use super::register::{NEVER, Source};

impl History {
    pub(super) fn tell_value(&self, value: Value) -> String {
        match value {
            Value::Zero => "zeros".into(),
            Value::Torn(number) => {
                let bytes = &self.torn[number as usize];
                format!("bytes of no write ({:02x?}…)", &bytes[..16])
            }
            Value::Written(write) => match self.writes.get((write - 1) as usize) {
                None => format!("write {write}, which there was not,"),
                Some(record) => format!(
                    "write {write} ({} {}+{} in epoch {}, called at {}, {})",
                    self.label(record.volume),
                    record.offset,
                    record.length,
                    record.epoch,
                    record.span.call,
                    match record.span.answer {
                        NEVER => "never answered".into(),
                        answer => format!("answered at {answer}"),
                    }
                ),
            },
        }
    }

    pub(super) fn tell_source(
        &mut self,
        volume: VolumeId,
        sector: u64,
        epoch: u32,
        source: Source,
    ) -> String {
        let state = self.state(volume, sector, epoch);
        match source {
            Source::Initial => match state.initial {
                Some(value) => format!("{} from before", self.tell_value(value)),
                None => "something from before".into(),
            },
            Source::Write(at) => {
                let write = state.register.writes()[at].write;
                self.tell_value(Value::Written(write))
            }
        }
    }

    pub(super) fn broken(&self, volume: VolumeId, sector: u64, what: std::fmt::Arguments<'_>) -> Violation {
        let epoch = self.epoch(self.site(volume));
        Violation::new(
            "history",
            format_args!("{} sector {sector}, epoch {epoch}: {what}", self.label(volume)),
        )
    }
}
