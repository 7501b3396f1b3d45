//! What a person can do next when a command failed.

use twintrack_host::manage::{Refusal, RefusalCode};

/// Where a command's failures lead: the commands that show what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The command itself, as `help` takes it.
    pub command: &'static str,
    /// Show which things there are.
    pub things: Vec<String>,
    /// Show the state of the things.
    pub states: Vec<String>,
}

impl Advice {
    /// `things` and `states` are commands without `twintrack`.
    pub fn new(command: &'static str, things: &[&str], states: &[&str]) -> Self {
        let owned = |commands: &[&str]| commands.iter().map(|&command| command.to_owned()).collect();
        Self { command, things: owned(things), states: owned(states) }
    }

    /// To be typed with the options that name the array.
    pub fn of(self, options: &str) -> Steps {
        let program = format!("twintrack{options}");
        Steps { advice: self, program }
    }
}

/// Advice as whole sentences.
#[derive(Debug)]
pub struct Steps {
    advice: Advice,
    program: String,
}

impl Steps {
    /// After a refusal.
    pub fn after(&self, refusal: &Refusal) -> String {
        match refusal.code {
            RefusalCode::BadRequest => self.usage(),
            RefusalCode::Unauthorized => {
                "copy the file that control.token-file of the array's settings names (by default `token` in its \
                 folder), and name the copy by --token-file or TWINTRACK_TOKEN_FILE"
                    .to_owned()
            }
            RefusalCode::NotFound => format!("see {}", self.things()),
            RefusalCode::Exists | RefusalCode::WrongState => format!("see {}", self.states()),
            RefusalCode::Limit => format!("remove what is not needed any more: see {}", self.states()),
            RefusalCode::NoSpace => {
                let pools = self.typed("pool list");
                format!("see {pools}; remove sessions or devices, or add a store to the pool")
            }
            RefusalCode::Unavailable => {
                format!("see {}, and {} for whether it was done", self.typed("array show"), self.states())
            }
        }
    }

    /// When it is not known what became of the command.
    pub fn look(&self) -> String {
        format!("see {} before you try again", self.states())
    }

    /// What the command takes.
    pub fn usage(&self) -> String {
        format!("see `twintrack help {}`", self.advice.command)
    }

    /// The commands that show the state of the things.
    pub fn states(&self) -> String {
        self.all(&self.advice.states)
    }

    fn things(&self) -> String {
        self.all(&self.advice.things)
    }

    fn all(&self, commands: &[String]) -> String {
        let typed: Vec<_> = commands.iter().map(|command| self.typed(command)).collect();
        typed.join(" and ")
    }

    /// A command as it is typed.
    pub fn typed(&self, command: &str) -> String {
        format!("`{} {command}`", self.program)
    }
}
