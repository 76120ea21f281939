// SPDX-License-Identifier: Apache-2.0
//! What a config may ask and this version does not do: an error, never silence.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};

fn refuse(field: &str) -> Error {
    Error::invalid(field, "this version of wsbox does not enforce it").hint("remove it, or run this bundle with runc")
}

/// Refuses the whole-config fields.
pub fn check(spec: &Spec) -> Result<()> {
    let top =
        [("solaris", spec.solaris().is_some()), ("windows", spec.windows().is_some()), ("vm", spec.vm().is_some())];
    refuse_first(&top)
}

fn refuse_first(fields: &[(&str, bool)]) -> Result<()> {
    fields.iter().find(|(_, asked)| *asked).map_or(Ok(()), |(field, _)| Err(refuse(field)))
}
