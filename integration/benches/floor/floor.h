// SPDX-License-Identifier: Apache-2.0
// The floor: what a container's life costs when a program knows the bundle beforehand. ../README.md says how it is used.
#ifndef FLOOR_H
#define FLOOR_H

#include <linux/filter.h>
#include <stdbool.h>

/// What the command line asks; the bundle itself is compiled in.
struct job {
    const char *root;   // state directory, like the runtimes' --root
    const char *rootfs; // the container's root file system
    const char *cgroup; // directory that holds one cgroup per container
    bool userns;        // user namespace 0 -> 100000, root through an id-mapped mount
    bool serial;        // make the network namespace in clone3, not beside the mounts
    char **args;        // payload
    struct sock_fprog filter;
};

/// How the child talks with its parent while both work.
struct link {
    int go[2];     // parent to child: one int, the id-mapped root's fd (-1: none), once maps and network are ready
    int ready[2];  // child to parent: one byte when a created container waits for its start
    int fifo;      // a created container reads its start from here; -1 for run
    int parent;    // pidfd of the parent, whose network namespace the child joins
};

void die(const char *step);
int open_or_die(const char *path, int flags);
int pidfd_open_raw(int pid);
void lo_up(void);
int map_and_clone_root(const struct job *job, int pid);
_Noreturn void container_init(const struct job *job, struct link *link);
_Noreturn void payload(const struct job *job);

#endif
