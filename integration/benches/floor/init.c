// SPDX-License-Identifier: Apache-2.0
// The container's side: mounts, devices, masks, pivot, rights, exec; in the order a config like `runc spec`'s asks.
#define _GNU_SOURCE
#include "floor.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// musl's sys/mount.h and linux/mount.h define the same names, so only the call is declared.
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);

#define MUST(call, step) do { if ((call) < 0) die(step); } while (0)
#define NOSUID_NOEXEC (MS_NOSUID | MS_NOEXEC)
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

// kill, net_bind_service, audit_write: the three of `runc spec`.
#define KEPT_CAPS (1ULL << 5 | 1ULL << 10 | 1ULL << 29)
#define LAST_CAP 40

static const char *const NODES[] = {"null", "zero", "full", "random", "urandom", "tty"};
static const unsigned NODE_IDS[][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}};
static const char *const LINKS[][2] = {{"/proc/self/fd", "dev/fd"},
                                       {"/proc/self/fd/0", "dev/stdin"},
                                       {"/proc/self/fd/1", "dev/stdout"},
                                       {"/proc/self/fd/2", "dev/stderr"},
                                       {"pts/ptmx", "dev/ptmx"}};
static const char *const MASKED[] = {"proc/acpi",       "proc/asound",      "proc/kcore",       "proc/keys",    "proc/latency_stats",
                                     "proc/timer_list", "proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi"};
static const char *const READONLY[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};

void lo_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(fd, "lo socket");
    MUST(ioctl(fd, SIOCSIFFLAGS, &request), "lo up");
    close(fd);
}

/// A device the mapped root may not make is bound from the host.
static void bind_node(const char *name, const char *path) {
    char source[32];
    snprintf(source, sizeof source, "/dev/%s", name);
    close(open_or_die(path, O_CREAT | O_WRONLY | O_CLOEXEC));
    MUST(mount(source, path, NULL, MS_BIND, NULL), path);
}

static void devices(bool userns) {
    char path[32];
    for (size_t i = 0; i < COUNT(NODES); i++) {
        snprintf(path, sizeof path, "dev/%s", NODES[i]);
        if (userns) bind_node(NODES[i], path);
        else MUST(mknod(path, S_IFCHR | 0666, makedev(NODE_IDS[i][0], NODE_IDS[i][1])), path);
    }
    for (size_t i = 0; i < COUNT(LINKS); i++) MUST(symlink(LINKS[i][0], LINKS[i][1]), LINKS[i][1]);
}

/// The new root on its own path: a plain bind, or the id-mapped tree that the parent made.
static void attach_root(const struct job *job, int tree) {
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    if (tree >= 0) MUST(syscall(SYS_move_mount, tree, "", AT_FDCWD, job->rootfs, MOVE_MOUNT_F_EMPTY_PATH), "move root");
    else MUST(mount(job->rootfs, job->rootfs, NULL, MS_BIND | MS_REC, NULL), "bind root");
    MUST(chdir(job->rootfs), "chdir root");
}

static void mounts_without_network(bool userns) {
    MUST(mount("proc", "proc", "proc", 0, NULL), "proc");
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
    umask(0);
    MUST(mkdir("dev/pts", 0755), "mkdir pts");
    MUST(mkdir("dev/shm", 0755), "mkdir shm");
    MUST(mkdir("dev/mqueue", 0755), "mkdir mqueue");
    MUST(mount("devpts", "dev/pts", "devpts", NOSUID_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "devpts");
    MUST(mount("shm", "dev/shm", "tmpfs", NOSUID_NOEXEC | MS_NODEV, "mode=1777,size=65536k"), "shm");
    MUST(mount("mqueue", "dev/mqueue", "mqueue", NOSUID_NOEXEC | MS_NODEV, NULL), "mqueue");
    devices(userns);
    umask(022);
}

/// sysfs shows the network namespace it was mounted in, so these two come after it.
static void mounts_with_network(void) {
    MUST(mount("sysfs", "sys", "sysfs", NOSUID_NOEXEC | MS_NODEV | MS_RDONLY, NULL), "sysfs");
    MUST(mount("cgroup", "sys/fs/cgroup", "cgroup2", NOSUID_NOEXEC | MS_NODEV | MS_RELATIME | MS_RDONLY, NULL), "cgroup2");
}

static void pivot(void) {
    MUST(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    MUST(umount2(".", 2 /* MNT_DETACH */), "detach old root");
    MUST(chdir("/"), "chdir /");
}

/// Looks first: a failing mount would wait for an RCU grace period.
static void masks(void) {
    struct stat seen;
    for (size_t i = 0; i < COUNT(READONLY); i++) {
        if (stat(READONLY[i], &seen) < 0) continue;
        MUST(mount(READONLY[i], READONLY[i], NULL, MS_BIND | MS_REC, NULL), READONLY[i]);
        MUST(mount(NULL, READONLY[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), READONLY[i]);
    }
    for (size_t i = 0; i < COUNT(MASKED); i++) {
        if (stat(MASKED[i], &seen) < 0) continue;
        if (S_ISDIR(seen.st_mode)) MUST(mount("tmpfs", MASKED[i], "tmpfs", MS_RDONLY, NULL), MASKED[i]);
        else MUST(mount("/dev/null", MASKED[i], NULL, MS_BIND, NULL), MASKED[i]);
    }
    MUST(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), "read-only root");
}

static void drop_rights(const struct job *job) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2] = {{KEPT_CAPS & 0xffffffff, KEPT_CAPS & 0xffffffff, 0}, {KEPT_CAPS >> 32, KEPT_CAPS >> 32, 0}};
    for (int cap = 0; cap <= LAST_CAP; cap++)
        if (!(KEPT_CAPS >> cap & 1)) MUST(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "bounding set");
    MUST(syscall(SYS_capset, &header, caps), "capset");
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    if (job->filter.len) MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &job->filter), "seccomp");
}

_Noreturn void payload(const struct job *job) {
    char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};
    struct rlimit files = {1024, 1024};
    MUST(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &files, NULL), "rlimit");
    drop_rights(job);
    execve(job->args[0], job->args, env);
    die("exec");
    __builtin_unreachable();
}

static int wait_for_parent(struct link *link) {
    int tree = -1;
    if (read(link->go[0], &tree, sizeof tree) != sizeof tree) die("go");
    return tree;
}

/// With the parent making the network, the word comes late and the mounts run meanwhile.
static void file_systems(const struct job *job, struct link *link) {
    bool early = job->userns || job->serial;
    int tree = early ? wait_for_parent(link) : -1;
    if (job->userns) {
        MUST(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
        MUST(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
    }
    attach_root(job, tree);
    mounts_without_network(job->userns);
    if (early) lo_up();
    else {
        wait_for_parent(link);
        MUST(setns(link->parent, CLONE_NEWNET), "join network");
    }
    mounts_with_network();
}

static void wait_for_start(struct link *link) {
    char byte = 0;
    MUST(write(link->ready[1], &byte, 1), "ready");
    MUST(read(link->fifo, &byte, 1), "start");
}

_Noreturn void container_init(const struct job *job, struct link *link) {
    MUST(setsid(), "setsid");
    MUST(sethostname("bench", 5), "hostname");
    file_systems(job, link);
    pivot();
    masks();
    if (link->fifo >= 0) wait_for_start(link);
    payload(job);
}
