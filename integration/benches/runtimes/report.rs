// SPDX-License-Identifier: Apache-2.0
//! What was measured, as tables for people and as JSON.

use crate::engine::Engine;
use serde_json::{Value, json};

/// All results; rows in the order they first came.
pub struct Report {
    runtimes: Vec<String>,
    /// The first of them are runtimes, and have what is no time, too.
    engines: usize,
    cases: Vec<Row>,
    memory: Vec<Row>,
    /// How many containers of each runtime the crowded cases had.
    pub crowd: usize,
    /// What a runtime did not do.
    pub failures: Vec<String>,
    /// What could not be measured here.
    pub notes: Vec<String>,
}

struct Row {
    name: &'static str,
    unit: &'static str,
    /// One list for each runtime.
    values: Vec<Vec<f64>>,
}

#[derive(Clone, Copy)]
struct Summary {
    runs: usize,
    min: f64,
    median: f64,
}

impl Row {
    fn summary(&self, runtime: Option<usize>) -> Option<Summary> {
        let mut values = self.values.get(runtime?)?.clone();
        values.sort_by(f64::total_cmp);
        let (runs, middle) = (values.len(), values.len() / 2);
        let median = if runs.is_multiple_of(2) {
            values.get(middle.checked_sub(1)?)?.midpoint(values[middle])
        } else {
            values[middle]
        };
        Some(Summary { runs, min: *values.first()?, median })
    }
}

impl Report {
    /// An empty one.
    pub fn new(engines: &[Engine]) -> Self {
        let runtimes = engines.iter().map(|engine| engine.name.clone()).collect();
        Self {
            engines: engines.len(),
            runtimes,
            cases: vec![],
            memory: vec![],
            crowd: 0,
            failures: vec![],
            notes: vec![],
        }
    }

    /// Adds a program that is no runtime.
    pub fn other(&mut self, name: &str) {
        self.runtimes.push(name.into());
    }

    fn at(&self, runtime: &str) -> Option<usize> {
        self.runtimes.iter().position(|name| name == runtime)
    }

    /// Adds one time.
    pub fn sample(&mut self, case: &'static str, runtime: &str, took: f64) {
        let (place, count) = (self.at(runtime), self.runtimes.len());
        add(&mut self.cases, case, "ms", place, count, took);
    }

    /// Adds one number that is no time.
    pub fn measure(&mut self, name: &'static str, unit: &'static str, runtime: &str, value: f64) {
        let (place, count) = (self.at(runtime), self.runtimes.len());
        add(&mut self.memory, name, unit, place, count, value);
    }

    /// Prints everything.
    pub fn print(&self, json: bool) {
        if json { println!("{:#}", self.json()) } else { self.tables() }
    }

    fn json(&self) -> Value {
        json!({
            "containers_of_each_when_crowded": self.crowd,
            "timing": self.cases.iter().flat_map(|row| self.json_row(row)).collect::<Vec<_>>(),
            "memory": self.memory.iter().flat_map(|row| self.json_row(row)).collect::<Vec<_>>(),
            "failures": self.failures,
            "notes": self.notes,
        })
    }

    fn json_row(&self, row: &Row) -> Vec<Value> {
        let ratio = |own: Summary, to: &str| {
            let other = row.summary(self.at(to))?;
            Some(json!({ "min": own.min / other.min, "median": own.median / other.median }))
        };
        let value = |(place, runtime): (usize, &String)| {
            let own = row.summary(Some(place))?;
            Some(json!({
                "case": row.name, "runtime": runtime, "unit": row.unit, "runs": own.runs, "min": own.min, "median": own.median,
                "to_crun": ratio(own, "crun"), "to_floor": ratio(own, "floor"),
            }))
        };
        self.runtimes.iter().enumerate().filter_map(value).collect()
    }

    fn tables(&self) {
        println!(
            "{:<32}{:<8}{:>6}{:>9}{:>9}{:>16}{:>16}",
            "time, ms", "", "runs", "min", "median", "/ crun min med", "/ floor min med"
        );
        self.cases.iter().for_each(|row| self.time_rows(row));
        self.memory_table();
        if self.crowd > 0 {
            println!("\nlist and crowded: {} containers of each runtime alive", self.crowd);
        }
        self.notes.iter().for_each(|note| println!("note: {note}"));
        self.failures.iter().for_each(|failure| println!("FAILED: {failure}"));
    }

    fn time_rows(&self, row: &Row) {
        let (crun, floor) = (row.summary(self.at("crun")), row.summary(self.at("floor")));
        let mut name = row.name;
        for (place, runtime) in self.runtimes.iter().enumerate() {
            let Some(own) = row.summary(Some(place)) else { continue };
            let ratios = ratios(own, crun) + &ratios(own, floor);
            println!("{name:<32}{runtime:<8}{:>6}{:>9.2}{:>9.2}{ratios}", own.runs, own.min, own.median);
            name = "";
        }
    }

    fn memory_table(&self) {
        if !self.memory.is_empty() {
            let names: String = self.runtimes[..self.engines].iter().map(|name| format!("{name:>10}")).collect();
            println!("\n{:<38}{names}", "memory and calls");
        }
        self.memory.iter().for_each(|row| self.memory_row(row));
    }

    fn memory_row(&self, row: &Row) {
        let cell = |place| {
            row.summary(Some(place)).map_or_else(|| format!("{:>10}", "-"), |own| format!("{:>10.0}", own.median))
        };
        let cells: String = (0..self.engines).map(cell).collect();
        println!("{:<34}{:<4}{cells}", row.name, row.unit);
    }
}

fn ratios(own: Summary, other: Option<Summary>) -> String {
    other.map_or_else(
        || " ".repeat(16),
        |other| format!("{:>9.2}{:>7.2}", own.min / other.min, own.median / other.median),
    )
}

fn add(rows: &mut Vec<Row>, name: &'static str, unit: &'static str, place: Option<usize>, count: usize, value: f64) {
    let Some(place) = place else { return };
    let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
        rows.push(Row { name, unit, values: vec![Vec::new(); count] });
        rows.len() - 1
    });
    rows[at].values[place].push(value);
}
