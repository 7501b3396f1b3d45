//! Plain tables: columns of text, two spaces between them, no frame, so that they can be read by people and cut by programs.

use std::fmt;

const GAP: usize = 2;

/// On which side a column is even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading, or without one.
#[derive(Debug)]
pub struct Table<const N: usize> {
    sides: [Side; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// With a heading.
    pub fn new(columns: [(&str, Side); N]) -> Self {
        let heading = columns.map(|(name, _)| name.to_owned());
        Self { sides: columns.map(|(_, side)| side), rows: vec![heading] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)));
    }
}

impl Table<2> {
    /// Names and values, without a heading.
    pub fn facts() -> Self {
        Self { sides: [Side::Left; 2], rows: Vec::new() }
    }

    /// Adds one.
    pub fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.row([name.to_owned(), value.into()]);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, &side), &width) in row.iter().zip(&self.sides).zip(&widths) {
                match side {
                    Side::Left => line.push_str(&format!("{cell:<width$}")),
                    Side::Right => line.push_str(&format!("{cell:>width$}")),
                }
                line.extend([' '; GAP]);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Without what could move a terminal's cursor.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_even() {
        let mut table = Table::new([("NAME", Side::Left), ("SIZE", Side::Right), ("POOL", Side::Left)]);
        assert_eq!(table.to_string(), "NAME  SIZE  POOL\n");
        table.row(["db-monday".to_owned(), "10 GiB".to_owned(), String::new()]);
        table.row(["größe".to_owned(), "512 B".to_owned(), "a\n\u{1b}[1m".to_owned()]);
        let expected = "NAME         SIZE  POOL\n\
                        db-monday  10 GiB\n\
                        größe       512 B  a\u{fffd}\u{fffd}[1m\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn facts_have_no_heading() {
        let mut facts = Table::facts();
        facts.fact("name", "db");
        facts.fact("sessions", "2");
        assert_eq!(facts.to_string(), "name      db\nsessions  2\n");
    }
}
