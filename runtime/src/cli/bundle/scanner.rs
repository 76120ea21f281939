// SPDX-License-Identifier: Apache-2.0
//! Other people's scanners, on the root as the container will see it.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use wsbox_bundles::check::Scanner;

use crate::error::{Context, Error, Result};
use crate::launch::overlay;
use crate::sys::mount::attach;

/// What each of `scanners` says; `folders` are the root's, the uppermost first.
pub fn run(scanners: &[Scanner], folders: &[PathBuf]) -> Result<Vec<Value>> {
    if scanners.is_empty() {
        return Ok(Vec::new());
    }
    let all = |root: &Path| scanners.iter().map(|scanner| Ok(scanner.run(root)?)).collect::<Result<Vec<_>>>();
    match folders {
        [only] => all(only),
        _ => mounted(folders, all),
    }
}

/// `work` with an overlay of the layers, which only its own thread and its children see: it is gone with them.
fn mounted(folders: &[PathBuf], work: impl Fn(&Path) -> Result<Vec<Value>> + Sync) -> Result<Vec<Value>> {
    let place = std::env::temp_dir().join(format!("wsbox-scan-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&place).context(|| place.display().to_string())?;
    let thread = || {
        let hint = "as root, or make the bundle with --copy";
        unshare(CloneFlags::CLONE_NEWNS).context(|| "a mount namespace".into()).map_err(|error| error.hint(hint))?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .context(|| "a mount namespace".into())?;
        let image = overlay::image(folders)?;
        let to = File::open(&place).context(|| place.display().to_string())?;
        attach(&image, &to).context(|| format!("mount on {}", place.display()))?;
        work(&place)
    };
    let joined = std::thread::scope(|scope| scope.spawn(thread).join());
    let removed = fs::remove_dir(&place).context(|| place.display().to_string());
    let done = joined.map_err(|_| Error::invalid("--with", "its thread failed"))?;
    removed.and(done)
}
