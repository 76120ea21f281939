//! Images to hardened bundles: create, check, sign. Empty until the issue that fills it.
