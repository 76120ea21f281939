// SPDX-License-Identifier: Apache-2.0
//! From images to bundles, with real docker, skopeo and umoci on the other side.

#[path = "bundles/create.rs"]
mod create;
#[path = "bundles/examples.rs"]
mod examples;
#[path = "bundles/hostile.rs"]
mod hostile;
#[path = "bundles/registry.rs"]
mod registry;
#[path = "bundles/secrets.rs"]
mod secrets;
#[path = "bundles/signed.rs"]
mod signed;
#[path = "bundles/store.rs"]
mod store;
#[path = "bundles/world.rs"]
mod world;
