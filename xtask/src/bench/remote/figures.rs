//! What was measured of pairs, what it comes to, and how it is shown.

use serde_json::{Value, json};

use super::super::score::{Spread, short};
use crate::table::print_columns;

/// What the disk alone did, a value for each round.
#[derive(Debug, Default)]
pub struct Disk {
    /// Bytes a second.
    pub read: Vec<f64>,
    pub write: Vec<f64>,
    /// Seconds of a write with a sync: one at a time, and two at a time on two files.
    pub one_s: Vec<f64>,
    pub two_s: Vec<f64>,
}

/// What two arrays did, a value for each round.
#[derive(Debug, Default)]
pub struct Linked {
    /// Bytes a second.
    pub link: Vec<f64>,
    pub first_copy: Vec<f64>,
    pub second_copy: Vec<f64>,
    /// Seconds: of a round trip, and of a write with a flush.
    pub round_trip_s: Vec<f64>,
    pub plain_s: Vec<f64>,
    pub paired_s: Vec<f64>,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    name: &'static str,
    title: &'static str,
    unit: Unit,
    values: Vec<f64>,
    ratio: Option<Ratio>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    BytesPerS,
    Seconds,
}

#[derive(Debug)]
struct Ratio {
    of: Spread,
    to: String,
    goal: Option<Goal>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Row {
    fn new(name: &'static str, title: &'static str, unit: Unit, values: &[f64]) -> Self {
        Self { name, title, unit, values: values.to_vec(), ratio: None }
    }

    /// As a ratio to what stands at the same place.
    fn to(mut self, what: &str, others: &[f64], goal: Option<Goal>) -> Self {
        let ratio = Spread::ratios(&self.values, others);
        self.ratio = ratio.map(|of| Ratio { of, to: what.to_owned(), goal });
        self
    }

    /// `false`: it has a goal, and missed it.
    pub fn is_met(&self) -> bool {
        self.ratio.as_ref().is_none_or(Ratio::is_met)
    }

    pub fn json(&self) -> Value {
        let ratio = self.ratio.as_ref().map(|ratio| {
            let goal = match ratio.goal {
                None => Value::Null,
                Some(Goal::AtLeast(least)) => json!({ "at_least": least, "met": ratio.is_met() }),
                Some(Goal::AtMost(most)) => json!({ "at_most": most, "met": ratio.is_met() }),
            };
            json!({ "to": ratio.to, "ratio": ratio.of.json(), "goal": goal })
        });
        let unit = match self.unit {
            Unit::BytesPerS => "bytes/s",
            Unit::Seconds => "s",
        };
        let spread = Spread::of(&self.values).map(Spread::json);
        json!({ "row": self.name, "unit": unit, "values": self.values, "spread": spread, "ratio": ratio })
    }

    fn cells(&self) -> Vec<String> {
        let shown = |value: f64| match self.unit {
            Unit::BytesPerS => short(value),
            Unit::Seconds => format!("{:.0}", value * 1e6),
        };
        let value = Spread::of(&self.values).map_or("-".into(), |spread| {
            let [median, min, max] = [spread.median, spread.min, spread.max].map(shown);
            let unit = if self.unit == Unit::Seconds { " µs" } else { "" };
            format!("{median}{unit} ({min}–{max})")
        });
        let mut cells = vec![self.title.to_owned(), value];
        if let Some(ratio) = &self.ratio {
            cells.push(format!("{} of {}", ratio.of.text(), ratio.to));
            let word = if ratio.is_met() { "met" } else { "MISSED" };
            cells.extend(ratio.goal.map(|goal| match goal {
                Goal::AtLeast(least) => format!("≥ {least:.2} {word}"),
                Goal::AtMost(most) => format!("≤ {most:.2} {word}"),
            }));
        }
        cells
    }
}

impl Ratio {
    fn is_met(&self) -> bool {
        match self.goal {
            None => true,
            Some(Goal::AtLeast(least)) => self.of.median >= least,
            Some(Goal::AtMost(most)) => self.of.median <= most,
        }
    }
}

/// What all of it comes to. Ratios are between values of one round.
pub fn rows(disk: &Disk, linked: &Linked) -> Vec<Row> {
    use Unit::{BytesPerS, Seconds};
    let limits =
        [("reading the disk", &disk.read), ("writing the disk", &disk.write), ("the link", &linked.link)];
    let median = |values: &[f64]| Spread::of(values).map_or(f64::INFINITY, |spread| spread.median);
    let lowest = limits.iter().min_by(|(_, a), (_, b)| median(a).total_cmp(&median(b)));
    let (limit, limits) = lowest.map_or(("nothing", &[][..]), |(name, values)| (*name, &values[..]));
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
    let flushed_there = sum(&linked.plain_s, &linked.round_trip_s);
    // Two disks of one machine are one: what its syncs cost each other no array can help.
    let second: Vec<_> = disk.two_s.iter().zip(&disk.one_s).map(|(two, one)| (two - one).max(0.0)).collect();
    let shared = Row::new("write-flush-shared", "  as both share a disk", Seconds, &linked.paired_s);
    vec![
        Row::new("disk-read", "reading the disk", BytesPerS, &disk.read),
        Row::new("disk-write", "writing the disk, synced", BytesPerS, &disk.write),
        Row::new("link", "the link, each way", BytesPerS, &linked.link),
        Row::new("first-copy", "initial copy", BytesPerS, &linked.first_copy).to(
            limit,
            limits,
            Some(Goal::AtLeast(0.8)),
        ),
        Row::new("second-copy", "resync of a quarter", BytesPerS, &linked.second_copy).to(
            "the initial copy",
            &linked.first_copy,
            None,
        ),
        Row::new("round-trip", "round trip", Seconds, &linked.round_trip_s),
        Row::new("synced-write", "4 KiB write + sync, the disk", Seconds, &disk.one_s),
        Row::new("synced-writes", "  two at a time", Seconds, &disk.two_s),
        Row::new("write-flush-plain", "4 KiB write + flush, no pair", Seconds, &linked.plain_s),
        Row::new("write-flush", "4 KiB write + flush, paired", Seconds, &linked.paired_s).to(
            "no pair + round trip",
            &flushed_there,
            Some(Goal::AtMost(1.3)),
        ),
        shared.to("no pair + round trip + what two at a time add", &sum(&flushed_there, &second), None),
    ]
}

/// Prints rows under what they are of.
pub fn print(of: &str, rows: &[Row]) {
    println!();
    let heads = [of, "median (range)", "ratio", "goal"].map(String::from);
    let lines: Vec<_> = std::iter::once(heads.to_vec()).chain(rows.iter().map(Row::cells)).collect();
    print_columns(&lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> (Disk, Linked) {
        let disk = Disk {
            read: vec![900.0, 1000.0, 1000.0],
            write: vec![100.0, 200.0, 400.0],
            one_s: vec![1e-4; 3],
            two_s: vec![3e-4, 3e-4, 0.5e-4],
        };
        let linked = Linked {
            link: vec![300.0, 300.0, 300.0],
            first_copy: vec![90.0, 160.0, 200.0],
            second_copy: vec![45.0, 80.0, 100.0],
            round_trip_s: vec![1e-4; 3],
            plain_s: vec![3e-4; 3],
            paired_s: vec![6e-4; 3],
        };
        (disk, linked)
    }

    fn ratio<'a>(rows: &'a [Row], name: &str) -> &'a Ratio {
        rows.iter().find(|row| row.name == name).and_then(|row| row.ratio.as_ref()).expect("has one")
    }

    #[test]
    fn a_copy_is_held_against_the_lowest_limit_round_by_round() {
        let (disk, linked) = measured();
        let rows = rows(&disk, &linked);
        let copy = ratio(&rows, "first-copy");
        assert_eq!(copy.to, "writing the disk");
        assert_eq!(copy.of, Spread { median: 0.8, min: 0.5, max: 0.9 });
        assert!(copy.is_met());
        assert_eq!(ratio(&rows, "second-copy").of.median, 0.5);
    }

    #[test]
    fn a_mirrored_write_is_held_against_what_cannot_be_helped() {
        let (disk, linked) = measured();
        let rows = rows(&disk, &linked);
        let write = ratio(&rows, "write-flush");
        assert!((write.of.median - 1.5).abs() < 1e-9 && !write.is_met());
        assert!(rows.iter().any(|row| !row.is_met()));
        // A second writer that costs nothing takes nothing off.
        let shared = ratio(&rows, "write-flush-shared").of;
        assert!((shared.median - 1.0).abs() < 1e-9 && (shared.max - 1.5).abs() < 1e-9, "{shared:?}");
    }

    #[test]
    fn a_row_is_shown_with_its_goal() {
        let (disk, linked) = measured();
        let cells: Vec<_> = rows(&disk, &linked).iter().map(Row::cells).collect();
        assert_eq!(
            cells[3],
            ["initial copy", "160 (90–200)", "0.80 (0.50–0.90) of writing the disk", "≥ 0.80 met"]
        );
        assert_eq!(cells[5], ["round trip", "100 µs (100–100)"]);
        assert_eq!(cells[9][3], "≤ 1.30 MISSED");
    }
}
