//! The containerd shim of wsbox. Empty until the issue that fills it.
