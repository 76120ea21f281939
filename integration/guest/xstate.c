// SPDX-License-Identifier: Apache-2.0
// For LD_PRELOAD into user-mode Linux 6.1 on processors whose XSAVE area is larger than the 2696 bytes that its kernel keeps
// (AMX: 11008): PTRACE_SETREGSET of NT_X86_XSTATE takes only the whole area (linux/arch/x86/kernel/fpu/regset.c, xstateregs_set), so
// it is completed with zeros, the initial state of what the guest can not use: AMX needs arch_prctl(ARCH_REQ_XCOMP_PERM).
#include <cpuid.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { AREA = 16384, AREAS = 64 };
static char areas[AREAS][AREA] __attribute__((aligned(64)));
static unsigned long busy; // one bit an area: an interrupt may switch to another of the guest's threads in the middle of a call

static unsigned long area_size(void)
{
	unsigned a, b, c, d;
	static unsigned long size;
	if (!size) {
		__cpuid_count(13, 0, a, b, c, d);
		size = b;
	}
	return size;
}

static int take(void)
{
	for (;;) {
		unsigned long seen = __atomic_load_n(&busy, __ATOMIC_RELAXED);
		if (~seen == 0)
			return -1;
		int free = __builtin_ctzl(~seen);
		if (__atomic_compare_exchange_n(&busy, &seen, seen | 1ul << free, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return free;
	}
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list args;
	va_start(args, request);
	long pid = va_arg(args, int);
	void *addr = va_arg(args, void *), *data = va_arg(args, void *);
	va_end(args);

	struct iovec *given = data;
	unsigned long size = area_size();
	int grows = request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE && given->iov_len < size && size <= AREA;
	int at = grows ? take() : -1;
	if (at < 0) {
		// The peeks return what they read; as glibc does it (ptrace(2), NOTES).
		long peeked, result;
		if (request > PTRACE_TRACEME && request < PTRACE_POKETEXT)
			data = &peeked;
		result = syscall(SYS_ptrace, request, pid, addr, data);
		return result >= 0 && data == &peeked ? peeked : result;
	}
	memcpy(areas[at], given->iov_base, given->iov_len);
	memset(areas[at] + given->iov_len, 0, size - given->iov_len);
	struct iovec whole = { areas[at], size };
	long result = syscall(SYS_ptrace, request, pid, addr, &whole);
	__atomic_fetch_and(&busy, ~(1ul << at), __ATOMIC_ACQ_REL);
	return result;
}
