//! Harness for the integration tests and benches: bundles, engines, canaries.
