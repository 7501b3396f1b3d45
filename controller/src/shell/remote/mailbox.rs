//! What the firmware has for a link's task, in the order in which it was stepped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use twintrack_link::remote::Message;

/// Messages to send, and whether the link is to end. All of it is put in under the array's lock, by whoever steps; the
/// task of the link takes it out. Holds as much as both windows allow, and answers to what the task has read before.
#[derive(Debug, Default)]
pub(in crate::shell) struct Mailbox {
    letters: Mutex<Letters>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Letters {
    messages: VecDeque<Message>,
    closed: bool,
}

impl Mailbox {
    /// To be sent. `wake`: the caller is not the link's own task, which looks after its own steps: by waking itself
    /// while it runs it would be taken for one that another thread may well continue.
    pub(in crate::shell) fn put(&self, message: Message, wake: bool) {
        self.letters().messages.push_back(message);
        if wake {
            self.changed.notify_one();
        }
    }

    /// The link is to end, after what was put in before.
    pub(in crate::shell) fn close(&self, wake: bool) {
        self.letters().closed = true;
        if wake {
            self.changed.notify_one();
        }
    }

    /// The next message.
    pub(super) fn take(&self) -> Option<Message> {
        self.letters().messages.pop_front()
    }

    /// Whether the link is to end, and all before it was taken.
    pub(super) fn is_closed(&self) -> bool {
        let letters = self.letters();
        letters.closed && letters.messages.is_empty()
    }

    /// Waits until somebody else has put something in.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
