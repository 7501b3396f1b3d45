//! `link`: the other arrays that this one knows.

use clap::Subcommand;
use twintrack_host::manage::{LINK_TEST_BYTES_MAX, LinkInfo, LinkInfoState, LinkTestInfo};

use crate::Context;
use crate::advice::Advice;
use crate::failure::Failure;
use crate::output::Waiting;
use crate::table::{Side, Table};
use crate::time;
use twintrack_link::size;

/// Commands on links.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Makes another array known, under a name that is used here
    ///
    /// Both arrays have to know each other: add a link on the other one, too. One of the two has an ENDPOINT and dials.
    Add {
        /// Its name here: up to 64 letters, digits, '-', '_' and '.'
        name: String,
        /// Where it listens for links, tcp:HOST:PORT or unix:PATH; without it, it dials
        endpoint: Option<String>,
        /// Its serial number, as `array show` tells it there; without it, whoever answers at ENDPOINT first
        #[arg(long, required_unless_present = "endpoint")]
        serial: Option<String>,
    },
    /// Lists the links, and why those are not up that are not
    List,
    /// Measures round trip and throughput of a link
    Test {
        /// The link
        name: String,
        /// How much to send there and back; at most 1G
        #[arg(long, default_value = "64M", value_parser = size::parse)]
        size: u64,
    },
    /// Forgets an array with which there is no pair
    Remove {
        /// The link
        name: String,
    },
}

impl LinkCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        let command = match self {
            Self::Add { .. } => "link add",
            Self::List => "link list",
            Self::Test { .. } => "link test",
            Self::Remove { .. } => {
                return Advice::new("link remove", &["link list"], &["link list", "remote list"]);
            }
        };
        Advice::new(command, &["link list"], &["link list"])
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let array = &context.array;
        match self {
            Self::Add { name, endpoint, serial } => {
                let link = array.link_add(&name, endpoint.as_deref(), serial.as_deref()).await?;
                context.output.show(&link, || table(std::slice::from_ref(&link)).to_string())
            }
            Self::List => {
                let links = array.link_list().await?;
                context.output.show(&links, || table(&links).to_string())
            }
            Self::Test { name, size } => {
                if size > LINK_TEST_BYTES_MAX {
                    let most = size::show(LINK_TEST_BYTES_MAX);
                    return Err(Failure::Usage(format!("a test sends at most {most}")));
                }
                let waiting = Waiting::new(format!("testing {name}"));
                let tested = context.array.link_test(&name, size).await?;
                drop(waiting);
                context.output.show(&tested, || facts(&tested).to_string())
            }
            Self::Remove { name } => {
                array.link_remove(&name).await?;
                context.output.done()
            }
        }
    }
}

fn table(links: &[LinkInfo]) -> Table<7> {
    let left = Side::Left;
    let mut table = Table::new([
        ("NAME", left),
        ("ENDPOINT", left),
        ("SERIAL", left),
        ("STATE", left),
        ("ROUND TRIP", Side::Right),
        ("PAIRS", Side::Right),
        ("WHY", left),
    ]);
    let none = || "-".to_owned();
    for link in links {
        table.row([
            link.name.clone(),
            link.endpoint.clone().unwrap_or_else(|| "(it dials)".to_owned()),
            link.serial.clone().unwrap_or_else(none),
            state(link.state).to_owned(),
            link.round_trip_us.map_or_else(none, time::micros),
            link.pairs.to_string(),
            link.why.clone().unwrap_or_else(none),
        ]);
    }
    table
}

fn state(state: LinkInfoState) -> &'static str {
    match state {
        LinkInfoState::Down => "down",
        LinkInfoState::Connecting => "connecting",
        LinkInfoState::Up => "up",
        LinkInfoState::Refused => "refused",
    }
}

fn facts(tested: &LinkTestInfo) -> Table<2> {
    let mut facts = Table::facts();
    facts.fact("link", &tested.name);
    facts.fact("round trip", time::micros(tested.round_trip_us));
    facts.fact("there and back", size::show(tested.size_bytes));
    facts.fact("took", time::micros(tested.took_us));
    let per_s = u128::from(tested.size_bytes) * 1_000_000 / u128::from(tested.took_us.max(1));
    facts.fact("each way", format!("{}/s", size::show(u64::try_from(per_s).unwrap_or(u64::MAX))));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_shown_with_what_is_wrong() {
        let up = LinkInfo {
            name: "tokyo".to_owned(),
            endpoint: Some("tcp:10.0.0.2:7001".to_owned()),
            serial: Some("771feb95a8845ebd".to_owned()),
            state: LinkInfoState::Up,
            why: None,
            since_ms: 0,
            round_trip_us: Some(1234),
            pairs: 2,
        };
        let down = LinkInfo {
            name: "osaka".to_owned(),
            endpoint: None,
            state: LinkInfoState::Down,
            why: Some("it has not called yet".to_owned()),
            round_trip_us: None,
            pairs: 0,
            ..up.clone()
        };
        insta::assert_snapshot!(table(&[up, down]), @r#"
        NAME   ENDPOINT           SERIAL            STATE  ROUND TRIP  PAIRS  WHY
        tokyo  tcp:10.0.0.2:7001  771feb95a8845ebd  up         1.2 ms      2  -
        osaka  (it dials)         771feb95a8845ebd  down            -      0  it has not called yet
        "#);
        let tested = LinkTestInfo {
            name: "tokyo".to_owned(),
            round_trip_us: 87,
            size_bytes: 64 << 20,
            took_us: 250_000,
        };
        insta::assert_snapshot!(facts(&tested), @r#"
        link            tokyo
        round trip      87 µs
        there and back  64 MiB
        took            250.0 ms
        each way        256 MiB/s
        "#);
        // Whatever an array says, it is shown.
        facts(&LinkTestInfo { size_bytes: u64::MAX, took_us: 0, ..tested }).to_string();
    }
}
