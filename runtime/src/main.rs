// SPDX-License-Identifier: Apache-2.0
//! The `wsbox` command.

fn main() {}
