// SPDX-License-Identifier: Apache-2.0
//! System calls that nix lacks: thin wrappers with owned descriptors in the signature and no policy. The only unsafe code of
//! the library lives here.

pub mod activation;
pub mod arena;
mod bare;
pub mod bpf;
pub mod clone;
pub mod join;
pub mod keyring;
pub mod mount;
pub mod net;
pub mod pidfd;
pub mod rlimit;
pub mod sched;
pub mod scm;
pub mod signals;
pub mod tty;
