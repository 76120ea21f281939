// SPDX-License-Identifier: Apache-2.0
//! The one table of what is checked; bundles/CHECKS.md is made of it.

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// A way in or out that needs a second fault.
    Warning,
    /// A layer is missing, or a secret lies open.
    Error,
}

impl Severity {
    /// As SARIF and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is looked for.
#[derive(Debug, Serialize)]
pub struct Rule {
    /// `WSB` and a number: below 100 in config.json, above in the root file system.
    pub id: &'static str,
    /// How bad it is, unless the place says otherwise.
    pub severity: Severity,
    /// What it is called.
    pub title: &'static str,
    /// What can happen.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Whether [`fix`](super::fix) does it.
    pub mended: &'static str,
}

macro_rules! rules {
    ($($name:ident: $id:literal $severity:ident $title:literal, $why:literal, $fix:literal, $mended:literal;)*) => {
        $(
            #[doc = $title]
            pub static $name: Rule = Rule {
                id: $id,
                severity: Severity::$severity,
                title: $title,
                why: $why,
                fix: $fix,
                mended: $mended,
            };
        )*
        /// Every rule, by id.
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    NETWORK: "WSB001" Error "L1 network",
        "what listens on the host's loopback, and the networks around it, are in reach of the payload",
        "linux.namespaces: add {\"type\": \"network\"} without a path", "if missing";
    SECCOMP: "WSB002" Error "L2 seccomp",
        "every system call of the kernel is in reach, so every fault of it, too",
        "linux.seccomp: take deployment/seccomp/workspace-seccomp.json", "yes";
    READ_ONLY: "WSB003" Error "L3 read-only root",
        "who gets in can change programs that run later, and fill the disk",
        "root.readonly: true, with a tmpfs of a fixed size where the payload writes", "yes";
    CAPABILITIES: "WSB004" Error "L4 capabilities",
        "each is a part of root's rights",
        "process.capabilities: leave all five sets empty", "yes";
    PIDS: "WSB005" Error "L5 pids",
        "a fork bomb takes the processes of the whole host",
        "linux.resources.pids.limit: 256", "yes";
    MEMORY_CPU: "WSB006" Error "L6 memory and cpu",
        "one container takes the memory or the processors of the whole host",
        "linux.resources: memory.limit in bytes, and cpu.quota and cpu.period", "yes";
    USER_NAMESPACE: "WSB007" Error "L7 user namespace",
        "root of the container is root of the host, if it ever gets out",
        "linux.namespaces: add {\"type\": \"user\"}; without mappings wsbox allocates ids", "if missing";
    NO_NEW_PRIVS: "WSB008" Error "L8 no_new_privs",
        "a set-uid program or one with file capabilities gives rights that the payload was not started with",
        "process.noNewPrivileges: true", "yes";
    SECCOMP_OPEN: "WSB009" Error "seccomp filter is a deny-list",
        "calls that it does not name are allowed, those of newer kernels too",
        "linux.seccomp.defaultAction: SCMP_ACT_ERRNO, and name what is allowed", "";
    CAPABILITY_OF_ROOT: "WSB010" Error "capability that is as good as root",
        "it alone is a known way out of a container",
        "process.capabilities: remove it", "yes";
    SWAP: "WSB011" Warning "memory limit without a limit of swap",
        "what is over the limit goes to swap, and slows the whole host down",
        "linux.resources.memory.swap: the same number as memory.limit", "yes";
    RLIMITS: "WSB012" Note "resource limit not set",
        "core dumps hold secrets of the process; files without limit are inherited from who starts it",
        "process.rlimits: RLIMIT_CORE 0, and RLIMIT_NOFILE", "yes";
    NAMESPACES: "WSB013" Error "namespace shared",
        "processes, mounts, queues or names of the host or of another container are seen, and can be changed",
        "linux.namespaces: add it without a path", "if missing";
    ENGINE_SOCKET: "WSB014" Error "socket of a container engine mounted",
        "who can speak to it starts a privileged container: root on the host",
        "mounts: remove it", "";
    HOST_PATH: "WSB015" Error "sensitive path of the host mounted",
        "settings, keys, devices or files of all others on the host are in reach",
        "mounts: remove it, or mount only the one folder that is needed", "";
    HOST_WRITABLE: "WSB016" Warning "folder of the host that can be written",
        "what is written there stays, is read by the host, and has no limit of size",
        "mounts: add the option ro, or use a tmpfs with a size", "";
    TMPFS_SIZE: "WSB017" Warning "tmpfs without a size",
        "it may take half of the host's memory as far as the memory limit does not stop it",
        "mounts: add the option size=64m", "yes";
    MOUNT_OPTIONS: "WSB018" Warning "mount without nosuid and nodev",
        "set-uid programs and device nodes that lie there work",
        "mounts: add the options nosuid and nodev", "yes";
    DEVICES: "WSB019" Error "devices added",
        "a driver of the host's, often with a disk or memory behind it, is in reach",
        "linux.devices and linux.resources.devices: remove them", "";
    MASKS: "WSB020" Warning "/proc or /sys not masked",
        "they tell of the host, and some of them change it",
        "linux.maskedPaths and linux.readonlyPaths: as `wsbox spec` writes them", "yes";
    ROOT_USER: "WSB021" Warning "user is root",
        "files of the image are its own, and every fault of the kernel that needs a uid 0 is open",
        "wsbox bundle create --user 1001:1001, or USER in the Dockerfile", "";
    UNPINNED: "WSB022" Warning "image not pinned",
        "nobody can say what the bundle was made of, and if it is the same next time",
        "wsbox bundle create from an image, with --digest sha256:...", "";
    MOVING_TAG: "WSB023" Warning "tag of the image moves",
        "the same name is another image tomorrow",
        "name a version, or the digest", "";
    UNKNOWN_FIELD: "WSB024" Warning "field that nobody knows",
        "it is ignored, and a misspelt limit is no limit",
        "config.json: mend the name, or remove it", "";
    SECRET_IN_CONFIG: "WSB025" Error "secret in config.json",
        "the environment is seen in /proc, in `wsbox state` and in every copy of the bundle",
        "wsbox bundle create --secret id=NAME,src=FILE, which the payload reads from /run/secrets/NAME", "";
    HOOKS: "WSB026" Warning "program of the host runs as a hook",
        "it runs outside of the sandbox with all rights of who starts the container",
        "hooks: remove what is not needed", "";

    SETID: "WSB101" Warning "set-uid or set-gid program",
        "without L8 whoever runs it has the rights of its owner",
        "chmod a-s, or remove it", "";
    FILE_CAPABILITIES: "WSB102" Warning "file capabilities",
        "without L8 whoever runs it has them",
        "setcap -r, or remove it", "";
    WORLD_WRITABLE: "WSB103" Warning "everybody may write it",
        "any user of the container can change what others read or run",
        "chmod o-w, or for a folder chmod +t", "";
    DEVICE_NODE: "WSB104" Warning "device node in the root",
        "it opens a driver of the host's where the device rules allow it",
        "remove it: wsbox makes a /dev of its own", "";
    PRIVATE_KEY: "WSB105" Error "private key in a file",
        "everybody who has the image has the key",
        "remove it from the layer it came in, replace the key, and use --secret", "";
    TOKEN: "WSB106" Error "token or password in a file",
        "everybody who has the image has it",
        "remove it from the layer it came in, revoke it, and use --secret", "";
    PACKAGE_MANAGER: "WSB107" Note "package manager (a warning for profile production)",
        "who gets in has a tool to bring more",
        "build in one stage, and copy only what runs into the next", "";
    SHELL: "WSB108" Note "shell (a warning for profile production)",
        "most exploits end in a shell",
        "begin with an image that has none, such as distroless or scratch", "";
    NOT_LOOKED_AT: "WSB109" Warning "not looked at",
        "whatever is in there, it was not checked",
        "run the check as root, and unmount what is mounted there", "";
    UNCOVERED: "WSB110" Warning "writable folder that is no tmpfs",
        "with a read-only root the payload can not write what is meant to be written, else it can without a limit",
        "wsbox bundle create --tmpfs PATH:size=64m", "";
    PASSWORD: "WSB111" Warning "account with a password, or none needed",
        "hashes can be broken elsewhere, and an empty password is open to everybody",
        "passwd -l in the image", "";
}
