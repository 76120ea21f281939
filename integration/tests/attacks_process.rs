// SPDX-License-Identifier: Apache-2.0
//! Attacks by and on processes: descriptors, capabilities, terminals, keyrings, ids, system calls; through every door.

#[path = "attacks_process/binary.rs"]
mod binary;
#[path = "attacks_process/calls.rs"]
mod calls;
#[path = "attacks_process/capabilities.rs"]
mod capabilities;
#[path = "attacks_process/common.rs"]
mod common;
#[path = "attacks_process/descriptors.rs"]
mod descriptors;
#[path = "attacks_process/kernel.rs"]
mod kernel;
#[path = "attacks_process/terminal.rs"]
mod terminal;
