// SPDX-License-Identifier: Apache-2.0
//! `checkpoint` and `restore` with the real criu, in the guest in qemu (criu 3.17 does not work on newer kernels); what is refused
//! before criu is started, anywhere.

#[path = "checkpoint/common.rs"]
mod common;
#[path = "checkpoint/confined.rs"]
mod confined;
#[path = "checkpoint/ended.rs"]
mod ended;
#[path = "checkpoint/failing.rs"]
mod failing;
#[path = "checkpoint/flags.rs"]
mod flags;
#[path = "checkpoint/folders.rs"]
mod folders;
#[path = "checkpoint/life.rs"]
mod life;
#[path = "checkpoint/memory.rs"]
mod memory;
#[path = "checkpoint/refused.rs"]
mod refused;
#[path = "checkpoint/sockets.rs"]
mod sockets;
