//! Tables for people.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a campaign did, by scenario.
#[derive(Default)]
pub struct Totals {
    rows: BTreeMap<String, Row>,
}

#[derive(Default, Clone)]
struct Row {
    seeds: u64,
    simulated_ms: u64,
    operations: u64,
    crashes: u64,
    faults: u64,
    failures: u64,
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.simulated_ms += other.simulated_ms;
        self.operations += other.operations;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.failures += other.failures;
    }

    fn cells(&self, name: &str) -> [String; 7] {
        [
            name.into(),
            self.seeds.to_string(),
            time(self.simulated_ms),
            self.operations.to_string(),
            self.crashes.to_string(),
            self.faults.to_string(),
            self.failures.to_string(),
        ]
    }
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Value, passed: bool) {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let counts = &outcome["counts"];
        let row = Row {
            seeds: 1,
            simulated_ms: number(&outcome["simulated_ms"]),
            operations: ["done", "failed", "unknown"].iter().map(|key| number(&counts[key])).sum(),
            crashes: number(&outcome["crashes"]),
            faults: number(&outcome["faults"]),
            failures: u64::from(!passed),
        };
        self.rows.entry(outcome["scenario"].as_str().unwrap_or("?").into()).or_default().add(&row);
    }

    /// Simulated time in ms.
    pub fn simulated_ms(&self) -> u64 {
        self.sum().simulated_ms
    }

    /// Runs that failed.
    pub fn failures(&self) -> u64 {
        self.sum().failures
    }

    fn sum(&self) -> Row {
        let mut sum = Row::default();
        self.rows.values().for_each(|row| sum.add(row));
        sum
    }

    /// As a table.
    pub fn print(&self) {
        let head = ["scenario", "seeds", "simulated", "operations", "crashes", "faults", "failures"];
        let mut lines = vec![head.map(String::from)];
        lines.extend(self.rows.iter().map(|(name, row)| row.cells(name)));
        lines.push(self.sum().cells("total"));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for line in &lines {
            let mut text = format!("{:<w$}", line[0], w = widths[0]);
            for (cell, width) in line[1..].iter().zip(&widths[1..]) {
                text += &format!("  {cell:>width$}");
            }
            println!("{text}");
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "seeds": row.seeds, "simulated_ms": row.simulated_ms, "operations": row.operations,
                "crashes": row.crashes, "faults": row.faults, "failures": row.failures,
            })
        };
        let scenarios: BTreeMap<_, _> = self.rows.iter().map(|(name, r)| (name.clone(), row(r))).collect();
        json!({ "scenarios": scenarios, "total": row(&self.sum()) })
    }
}

/// Prints lines of cells, each column as wide as its widest cell.
pub fn print_columns(lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    for line in lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// A time for people.
pub fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!([time(1234), time(61_000), time(7_260_000)], ["1.2 s", "1 min 01 s", "2 h 01 min"]);
    }

    #[test]
    fn rows_add_up() {
        let mut totals = Totals::default();
        let outcome =
            json!({"scenario": "io", "simulated_ms": 5, "counts": {"done": 2, "unknown": 1}, "crashes": 1});
        totals.add(&outcome, true);
        totals.add(&outcome, false);
        assert_eq!(totals.json()["scenarios"]["io"]["operations"], 6);
        assert_eq!((totals.failures(), totals.simulated_ms()), (1, 10));
    }
}
