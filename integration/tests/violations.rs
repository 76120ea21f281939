// SPDX-License-Identifier: Apache-2.0
//! Violations counted exactly: `probe deny` makes so many denied calls, and the count says so; whatever becomes of the monitor,
//! calls fail, and pause, kill and delete go on.

#[path = "violations/common.rs"]
mod common;
#[path = "violations/counts.rs"]
mod counts;
#[path = "violations/life.rs"]
mod life;
#[path = "violations/monitor.rs"]
mod monitor;
