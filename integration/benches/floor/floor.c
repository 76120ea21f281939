// SPDX-License-Identifier: Apache-2.0
// The parent's side: run, create, start, exec, state, kill, delete, delete-force, list; and rusage, which measures another program.
#define _GNU_SOURCE
#include "floor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define P_PIDFD_ID 3
#define PATH_SIZE 256

/// What is kept of a created container: who it is, and the pidfd's inode that says it is still the same.
struct record {
    int pid;
    unsigned long long inode;
};

void die(const char *step) {
    dprintf(2, "floor: %s: %s\n", step, strerror(errno));
    _exit(126);
}

int open_or_die(const char *path, int flags) {
    int fd = open(path, flags, 0666);
    if (fd < 0) die(path);
    return fd;
}

int pidfd_open_raw(int pid) { return syscall(SYS_pidfd_open, pid, 0); }

static const char *path_in(const struct job *job, const char *id, const char *name) {
    static char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s%s%s", job->root, id, *name ? "/" : "", name);
    return path;
}

static const char *cgroup_of(const struct job *job, const char *id) {
    static char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", job->cgroup, id);
    return path;
}

static void write_file(const char *path, const char *text) {
    int fd = open_or_die(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    if (write(fd, text, strlen(text)) < 0) die(path);
    close(fd);
}

static void write_map(int pid, const char *name) {
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    write_file(path, "0 100000 65536\n");
}

/// Maps the child's ids and clones its root, id-mapped; the shared fd table carries it over.
int map_and_clone_root(const struct job *job, int pid) {
    char path[48];
    write_map(pid, "uid_map");
    write_map(pid, "gid_map");
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = open_or_die(path, O_RDONLY | O_CLOEXEC)};
    int tree = syscall(SYS_open_tree, AT_FDCWD, job->rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0) die("open_tree");
    if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0) die("id-mapped root");
    return tree;
}

static int clone_into(int cgroup, uint64_t flags, int *pidfd) {
    struct clone_args args = {
        .flags = flags | CLONE_INTO_CGROUP | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .cgroup = cgroup,
    };
    int pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    return pid;
}

static uint64_t namespaces(const struct job *job) {
    uint64_t flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP;
    if (job->userns) return flags | CLONE_NEWUSER | CLONE_NEWNET | CLONE_FILES;
    return job->serial ? flags | CLONE_NEWNET : flags;
}

/// The parent's share of the set-up, then the word that the child may go on.
static void help(const struct job *job, struct link *link, int pid) {
    int tree = -1;
    if (job->userns) tree = map_and_clone_root(job, pid);
    else if (!job->serial) {
        if (unshare(CLONE_NEWNET) < 0) die("network namespace");
        lo_up();
    }
    if (write(link->go[1], &tree, sizeof tree) != sizeof tree) die("go");
}

static int launch(const struct job *job, const char *id, struct link *link, int *pidfd) {
    if (mkdir(cgroup_of(job, id), 0755) < 0) die("cgroup");
    if (pipe2(link->go, O_CLOEXEC) < 0) die("pipe");
    if (!job->userns && !job->serial) link->parent = pidfd_open_raw(getpid());
    int cgroup = open_or_die(cgroup_of(job, id), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int pid = clone_into(cgroup, namespaces(job), pidfd);
    if (pid == 0) container_init(job, link);
    help(job, link, pid);
    return pid;
}

static int wait_code(int pidfd) {
    siginfo_t info = {0};
    if (waitid(P_PIDFD_ID, pidfd, &info, WEXITED | __WALL) < 0) die("wait");
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

static int run(const struct job *job, const char *id) {
    struct link link = {.fifo = -1};
    int pidfd = -1;
    launch(job, id, &link, &pidfd);
    int code = wait_code(pidfd);
    if (rmdir(cgroup_of(job, id)) < 0) die("rmdir cgroup");
    return code;
}

static void save(const struct job *job, const char *id, int pid, int pidfd) {
    char text[64];
    struct stat seen;
    if (fstat(pidfd, &seen) < 0) die("pidfd");
    snprintf(text, sizeof text, "%d %llu\n", pid, (unsigned long long)seen.st_ino);
    write_file(path_in(job, id, "state"), text);
}

static int create(const struct job *job, const char *id) {
    struct link link;
    int pidfd = -1;
    if (mkdir(path_in(job, id, ""), 0700) < 0 || mkfifo(path_in(job, id, "fifo"), 0600) < 0) die("state directory");
    link.fifo = open_or_die(path_in(job, id, "fifo"), O_RDWR | O_CLOEXEC);
    if (pipe2(link.ready, O_CLOEXEC) < 0) die("pipe");
    int pid = launch(job, id, &link, &pidfd);
    save(job, id, pid, pidfd);
    struct pollfd ends[2] = {{link.ready[0], POLLIN, 0}, {pidfd, POLLIN, 0}};
    if (poll(ends, 2, -1) < 0) die("poll");
    return ends[0].revents & POLLIN ? 0 : 1;
}

static int start(const struct job *job, const char *id) {
    int fd = open_or_die(path_in(job, id, "fifo"), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (write(fd, "", 1) != 1 || unlink(path_in(job, id, "fifo")) < 0) die("start");
    return 0;
}

static struct record load(const struct job *job, const char *id) {
    struct record record = {0};
    char text[64] = {0};
    int fd = open_or_die(path_in(job, id, "state"), O_RDONLY | O_CLOEXEC);
    if (read(fd, text, sizeof text - 1) < 0) die("state");
    close(fd);
    char *rest = text;
    record.pid = (int)strtol(rest, &rest, 10);
    record.inode = strtoull(rest, NULL, 10);
    return record;
}

/// A pidfd of the recorded process, or -1 if it is gone or a zombie.
static int alive(const struct record *record) {
    struct stat seen;
    int fd = pidfd_open_raw(record->pid);
    if (fd < 0) return -1;
    struct pollfd end = {fd, POLLIN, 0};
    if (fstat(fd, &seen) == 0 && seen.st_ino == record->inode && poll(&end, 1, 0) == 0) return fd;
    close(fd);
    return -1;
}

static int state(const struct job *job, const char *id) {
    struct record record = load(job, id);
    int fd = alive(&record);
    const char *status = fd < 0 ? "stopped" : access(path_in(job, id, "fifo"), F_OK) == 0 ? "created" : "running";
    char line[PATH_SIZE];
    int size = snprintf(line, sizeof line, "{\"ociVersion\":\"1.2.0\",\"id\":\"%s\",\"status\":\"%s\",\"pid\":%d}\n", id, status, record.pid);
    if (write(1, line, size) < 0) die("print");
    if (fd >= 0) close(fd);
    return 0;
}

static int list(const struct job *job) {
    DIR *dir = opendir(job->root);
    if (!dir) die(job->root);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.') state(job, entry->d_name);
    return 0;
}

static int kill_container(const struct job *job, const char *id, int signal) {
    struct record record = load(job, id);
    int fd = alive(&record);
    if (fd < 0 || syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0) < 0) die("kill");
    return 0;
}

static int delete(const struct job *job, const char *id, bool force) {
    struct record record = load(job, id);
    int fd = alive(&record);
    if (fd >= 0) {
        struct pollfd end = {fd, POLLIN, 0};
        if (!force || syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0 || poll(&end, 1, -1) < 0) die("delete");
    }
    if (rmdir(cgroup_of(job, id)) < 0) die("rmdir cgroup");
    unlink(path_in(job, id, "fifo"));
    unlink(path_in(job, id, "state"));
    return rmdir(path_in(job, id, "")) < 0;
}

/// The payload's process, inside the container's namespaces and cgroup.
_Noreturn static void exec_payload(const struct job *job) {
    if (job->userns && (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)) die("ids");
    payload(job);
}

static int exec(const struct job *job, const char *id) {
    int flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP;
    struct record record = load(job, id);
    int target = alive(&record), pidfd = -1;
    int cgroup = open_or_die(cgroup_of(job, id), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target < 0 || setns(target, job->userns ? flags | CLONE_NEWUSER : flags) < 0) die("join");
    if (clone_into(cgroup, 0, &pidfd) == 0) exec_payload(job);
    return wait_code(pidfd);
}

/// Peak RSS in KiB of a program and what it waited for, from a parent too small to blur it.
static int rusage(char **args) {
    struct rusage usage;
    int status, pid = vfork();
    if (pid == 0) {
        execv(args[0], args);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) < 0) die("wait4");
    dprintf(1, "%ld\n", usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static struct sock_fprog read_filter(const char *path) {
    static struct sock_filter code[BPF_MAXINSNS];
    int fd = open_or_die(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, code, sizeof code);
    if (size <= 0) die("filter");
    close(fd);
    return (struct sock_fprog){size / sizeof code[0], code};
}

static int usage(void) {
    dprintf(2, "usage: floor [-r STATE] [-b ROOTFS] [-c CGROUP] [-s FILTER] [-u] [-n] run|create|exec ID ARG... |\n"
               "       start|state|delete|delete-force ID | kill ID SIGNAL | list | rusage PROGRAM ARG...\n");
    return 2;
}

static int dispatch(struct job *job, const char *mode, char **rest) {
    const char *id = rest[0];
    if (!strcmp(mode, "list")) return list(job);
    if (!id) return usage();
    job->args = rest + 1;
    if (!strcmp(mode, "rusage")) return rusage(rest);
    if (!strcmp(mode, "run")) return run(job, id);
    if (!strcmp(mode, "create")) return create(job, id);
    if (!strcmp(mode, "start")) return start(job, id);
    if (!strcmp(mode, "exec")) return exec(job, id);
    if (!strcmp(mode, "state")) return state(job, id);
    if (!strcmp(mode, "kill") && rest[1]) return kill_container(job, id, atoi(rest[1]));
    if (!strcmp(mode, "delete")) return delete(job, id, false);
    if (!strcmp(mode, "delete-force")) return delete(job, id, true);
    return usage();
}

int main(int argc, char **argv) {
    struct job job = {.root = ".", .rootfs = ".", .cgroup = "."};
    for (int flag; (flag = getopt(argc, argv, "+r:b:c:s:un")) != -1;) {
        if (flag == 'r') job.root = optarg;
        else if (flag == 'b') job.rootfs = optarg;
        else if (flag == 'c') job.cgroup = optarg;
        else if (flag == 's') job.filter = read_filter(optarg);
        else if (flag == 'u') job.userns = true;
        else if (flag == 'n') job.serial = true;
        else return usage();
    }
    return optind < argc ? dispatch(&job, argv[optind], argv + optind + 1) : usage();
}
