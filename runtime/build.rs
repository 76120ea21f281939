//! Builds the embedded init.

fn main() {}
