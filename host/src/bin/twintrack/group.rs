//! `group`: sessions that are activated at one instant (D8).

use clap::Subcommand;
use twintrack_core::{GroupId, SessionId};
use twintrack_host::GroupMode;
use twintrack_host::manage::Activation;

use crate::Context;
use crate::advice::Advice;
use crate::args::{self, Rename};
use crate::failure::Failure;
use crate::output::Waiting;
use crate::session;

/// Commands on groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Begins a group and prints its number; then register sessions with --group
    Begin,
    /// Activates all sessions of a group, and closes it
    Process {
        /// The group
        #[arg(value_parser = args::group)]
        group: GroupId,
        /// Each session at an instant of its own
        #[arg(long)]
        one_by_one: bool,
        /// A new name for a session's virtual device; can be given several times
        #[arg(long = "name", value_name = "SESSION=NAME", value_parser = args::rename)]
        names: Vec<Rename>,
        /// Keeps hosts off a session's virtual device; can be given several times
        #[arg(long, value_name = "SESSION", value_parser = args::session)]
        offline: Vec<SessionId>,
    },
    /// Lists the open groups
    List,
    /// Closes a group and activates nothing; its sessions stay, in no group, and are listed
    Cancel {
        /// The group
        #[arg(value_parser = args::group)]
        group: GroupId,
    },
}

impl GroupCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        let command = match self {
            Self::Begin => "group begin",
            Self::Process { .. } => "group process",
            Self::List => "group list",
            Self::Cancel { .. } => "group cancel",
        };
        Advice::new(command, &["group list"], &["group list", "session list"])
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let array = &context.array;
        match self {
            Self::Begin => {
                let group = array.group_begin().await?;
                context.output.show(&group, || format!("{}\n", GroupId(group)))
            }
            Self::Process { group, one_by_one, names, offline } => {
                let options = options(names, offline)?;
                let waiting = Waiting::new(format!("processing {group}"));
                let active = array.group_process(group.0, mode(one_by_one), options).await?;
                drop(waiting);
                context.output.show(&active, || session::table(&active))
            }
            Self::List => {
                let groups = array.group_list().await?;
                let line = |&group: &u32| format!("{}\n", GroupId(group));
                context.output.show(&groups, || groups.iter().map(line).collect())
            }
            Self::Cancel { group } => {
                let left = array.group_cancel(group.0).await?;
                context.output.show(&left, || session::table(&left))
            }
        }
    }
}

/// At one instant, if not one by one.
pub fn mode(one_by_one: bool) -> GroupMode {
    if one_by_one { GroupMode::OneByOne } else { GroupMode::Synchronous }
}

/// One for each session that was named.
fn options(names: Vec<Rename>, offline: Vec<SessionId>) -> Result<Vec<Activation>, Failure> {
    let mut options: Vec<Activation> = Vec::new();
    for Rename { session, name } in names {
        if options.iter().any(|option| option.session == session.0) {
            return Err(Failure::Usage(format!("{session} is given two names")));
        }
        options.push(Activation { session: session.0, name: Some(name), offline: false });
    }
    for session in offline {
        match options.iter_mut().find(|option| option.session == session.0) {
            Some(option) => option.offline = true,
            None => options.push(Activation { session: session.0, name: None, offline: true }),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_one_session_are_one() {
        let name = |text| args::rename(text).unwrap();
        let found = options(vec![name("4=b"), name("ses-2=a")], vec![SessionId(7), SessionId(4)]).unwrap();
        let option = |session, name: Option<&str>, offline| Activation {
            session,
            name: name.map(str::to_owned),
            offline,
        };
        assert_eq!(found, [option(4, Some("b"), true), option(2, Some("a"), false), option(7, None, true)]);
        assert!(matches!(options(vec![name("4=a"), name("4=b")], vec![]), Err(Failure::Usage(_))));
    }
}
