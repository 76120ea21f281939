// SPDX-License-Identifier: Apache-2.0
//! Lists of CPUs and memory nodes: cpuset(7), "List format". Pure.

/// Every number of a list such as `0-2,5`.
pub fn list(text: &str) -> Vec<u64> {
    let part = |part: &str| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        Some(first.parse::<u64>().ok()?..=last.parse::<u64>().ok()?)
    };
    text.split(',').filter_map(part).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ids() {
        assert_eq!(list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(list(""), Vec::<u64>::new());
        assert_eq!(list("x,3"), [3]);
    }
}
