//! What was measured, what it comes to, and how it is shown.

use serde_json::{Value, json};

use super::rows::{Kind, Row};
use super::servers::Server;
use crate::table::print_columns;

/// What one server did in a row, a value for each round.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Where the row compares two states: the first of them.
    pub before: Vec<f64>,
    pub values: Vec<f64>,
}

/// One row.
#[derive(Debug)]
pub struct Measured {
    pub row: Row,
    /// In the order of the columns.
    pub servers: Vec<(Server, Series)>,
}

/// The middle of some values, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// What a row comes to.
#[derive(Debug)]
pub struct Score {
    /// Of the rounds' ratios: twintrack to the better peer, or after to before.
    pub ratio: Spread,
    pub against: &'static str,
    /// The same ratio between two daemons of one build: nothing but chance.
    pub chance: Option<Spread>,
    pub floor: f64,
}

impl Score {
    pub fn is_met(&self) -> bool {
        self.ratio.median >= self.floor
    }
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }

    /// Of the ratios of values that stand at the same place.
    pub fn ratios(of: &[f64], to: &[f64]) -> Option<Self> {
        Self::of(&of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>())
    }

    pub fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }

    /// As a ratio.
    pub fn text(self) -> String {
        format!("{:.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

impl Series {
    /// After to before, round by round.
    fn change(&self) -> Option<Spread> {
        Spread::ratios(&self.values, &self.before)
    }
}

impl Measured {
    fn series(&self, server: Server) -> Option<&Series> {
        self.servers.iter().find(|(other, _)| *other == server).map(|(_, series)| series)
    }

    /// `None`: the row has no floor, or twintrack was not measured.
    pub fn score(&self) -> Option<Score> {
        let (ours, again) = (self.series(Server::Twintrack)?, self.series(Server::TwintrackAgain));
        match self.row.kind() {
            Kind::Rate { floor } => {
                let peers = self.servers.iter().filter(|(server, _)| server.is_peer());
                let median = |series: &Series| Spread::of(&series.values).map_or(0.0, |spread| spread.median);
                let (better, theirs) = peers.max_by(|(_, a), (_, b)| median(a).total_cmp(&median(b)))?;
                let ratio = Spread::ratios(&ours.values, &theirs.values)?;
                let chance = again.and_then(|again| Spread::ratios(&again.values, &ours.values));
                Some(Score { ratio, against: better.name(), chance, floor })
            }
            Kind::Change { floor } => {
                let of_rounds = |series: &Series| -> Vec<f64> {
                    series.values.iter().zip(&series.before).map(|(after, before)| after / before).collect()
                };
                let chance = again.and_then(|again| Spread::ratios(&of_rounds(again), &of_rounds(ours)));
                Some(Score { ratio: ours.change()?, against: "before", chance, floor })
            }
            Kind::Time => None,
        }
    }

    /// The cells of its line.
    pub fn cells(&self) -> Vec<String> {
        let kind = self.row.kind();
        let mut cells = vec![self.row.title().to_owned()];
        cells.extend(self.servers.iter().map(|(_, series)| cell(kind, series)));
        if let Some(score) = self.score() {
            if matches!(kind, Kind::Rate { .. }) {
                cells.push(format!("{} {}", score.ratio.text(), score.against));
            }
            cells.push(score.chance.map_or("-".into(), Spread::text));
            let word = if score.is_met() { "met" } else { "MISSED" };
            cells.push(format!("{:.2} {word}", score.floor));
        }
        cells
    }

    pub fn json(&self) -> Value {
        let servers = self.servers.iter().map(|(server, series)| {
            json!({
                "server": server.name(), "values": series.values, "before": series.before,
                "median": Spread::of(&series.values).map(|spread| spread.median),
                "change": series.change().map(Spread::json),
            })
        });
        let score = self.score().map(|score| {
            json!({
                "ratio": score.ratio.json(), "against": score.against,
                "chance": score.chance.map(Spread::json), "floor": score.floor, "met": score.is_met(),
            })
        });
        json!({
            "row": self.row.name(), "unit": self.row.kind().unit(self.row),
            "servers": servers.collect::<Vec<_>>(), "score": score,
        })
    }
}

fn cell(kind: Kind, series: &Series) -> String {
    let Some(spread) = Spread::of(&series.values) else { return "-".into() };
    let spreads = (spread.max - spread.min) / 2.0 / spread.median * 100.0;
    match kind {
        Kind::Rate { .. } => format!("{} ±{spreads:.0}%", short(spread.median)),
        Kind::Time => format!("{:.1} ms ±{spreads:.0}%", spread.median),
        Kind::Change { .. } => {
            let before = Spread::of(&series.before).map_or("?".into(), |before| short(before.median));
            let change = series.change().map_or("?".into(), Spread::text);
            format!("{before} → {}: {change}", short(spread.median))
        }
    }
}

/// A rate in few digits.
pub fn short(value: f64) -> String {
    match value {
        1e9.. => format!("{:.2} G", value / 1e9),
        1e6.. => format!("{:.0} M", value / 1e6),
        1e4.. => format!("{:.1} k", value / 1e3),
        1e3.. => format!("{:.2} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

/// Prints rows of one kind under their heads.
pub fn print<'a>(rows: impl Iterator<Item = &'a Measured> + Clone) {
    let Some(first) = rows.clone().next() else { return };
    let mut lines = vec![vec![first.row.kind().head().to_owned()]];
    lines[0].extend(first.servers.iter().map(|(server, _)| server.name().to_owned()));
    match first.row.kind() {
        Kind::Rate { .. } => lines[0].extend(["to the better peer", "to itself", "floor"].map(String::from)),
        Kind::Change { .. } => lines[0].extend(["to itself", "floor"].map(String::from)),
        Kind::Time => {}
    }
    lines.extend(rows.map(Measured::cells));
    println!();
    print_columns(&lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(before: &[f64], values: &[f64]) -> Series {
        Series { before: before.to_vec(), values: values.to_vec() }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_rate_is_held_against_the_better_peer_round_by_round() {
        let servers = vec![
            (Server::Twintrack, series(&[], &[8.0, 9.0, 20.0])),
            (Server::TwintrackAgain, series(&[], &[8.0, 18.0, 20.0])),
            (Server::Nbdkit, series(&[], &[10.0, 10.0, 10.0])),
            (Server::QemuRaw, series(&[], &[1.0, 1.0, 100.0])),
        ];
        let score = Measured { row: Row::RandomRead, servers }.score().unwrap();
        assert_eq!((score.against, score.ratio.median), ("nbdkit file", 0.9));
        assert_eq!(score.chance.unwrap(), Spread { median: 1.0, min: 1.0, max: 2.0 });
        assert!(score.is_met());
    }

    #[test]
    fn a_change_is_held_against_itself() {
        let servers = vec![(Server::Twintrack, series(&[10.0, 10.0, 20.0], &[5.0, 6.0, 10.0]))];
        let score = Measured { row: Row::FirstWrite, servers }.score().unwrap();
        assert_eq!(score.ratio.median, 0.5);
        assert!(!score.is_met());
    }

    #[test]
    fn rates_are_short() {
        assert_eq!(
            [short(2.5e9), short(12_345.0), short(1234.0), short(77.7)],
            ["2.50 G", "12.3 k", "1.23 k", "78"]
        );
    }
}
