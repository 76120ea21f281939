// SPDX-License-Identifier: Apache-2.0
//! A build without the feature `cgroup-compat` knows no D-Bus.

use super::{Property, unusable};
use crate::error::Result;

/// There is none.
#[derive(Debug)]
pub(in crate::cgroup) enum Manager {}

impl Manager {
    pub fn connect(_user: bool) -> Result<Self> {
        Err(unusable("this build of wsbox makes cgroups by itself only (feature cgroup-compat)"))
    }

    pub fn control_group(&self) -> Result<String> {
        match *self {}
    }

    pub fn start(&self, _unit: &str, _properties: &[Property]) -> Result<()> {
        match *self {}
    }

    pub fn set(&self, _unit: &str, _properties: &[Property]) -> Result<()> {
        match *self {}
    }

    pub fn attach(&self, _unit: &str, _pid: u32) -> Result<()> {
        match *self {}
    }

    pub fn stop(&self, _unit: &str) -> Result<()> {
        match *self {}
    }
}
