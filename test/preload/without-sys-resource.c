/*
 * Test code only. Lets CRIU dump a process of another user where the machine itself lacks CAP_SYS_RESOURCE, as some virtual
 * machines and nested containers do: reading such a process's limits with prlimit is then refused, while /proc/PID/limits says
 * the same. A refused read is answered from there; everything else passes through unchanged.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#error "make a system call by hand on this architecture too"
#endif

static long raw_syscall(long number, const long *a) {
#if defined(__x86_64__)
	register long r10 asm("r10") = a[3];
	register long r8 asm("r8") = a[4];
	register long r9 asm("r9") = a[5];
	long result;
	asm volatile("syscall"
		     : "=a"(result)
		     : "0"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return result;
#else
	register long x8 asm("x8") = number;
	register long x0 asm("x0") = a[0];
	register long x1 asm("x1") = a[1];
	register long x2 asm("x2") = a[2];
	register long x3 asm("x3") = a[3];
	register long x4 asm("x4") = a[4];
	register long x5 asm("x5") = a[5];
	asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#endif
}

static long errno_syscall(long number, const long *arguments) {
	long result = raw_syscall(number, arguments);
	if (result < 0 && result > -4096) {
		errno = (int)-result;
		return -1;
	}
	return result;
}

/* The lines of /proc/PID/limits, by resource number. */
static const char *const NAMES[] = {
	[RLIMIT_CPU] = "Max cpu time",
	[RLIMIT_FSIZE] = "Max file size",
	[RLIMIT_DATA] = "Max data size",
	[RLIMIT_STACK] = "Max stack size",
	[RLIMIT_CORE] = "Max core file size",
	[RLIMIT_RSS] = "Max resident set",
	[RLIMIT_NPROC] = "Max processes",
	[RLIMIT_NOFILE] = "Max open files",
	[RLIMIT_MEMLOCK] = "Max locked memory",
	[RLIMIT_AS] = "Max address space",
	[RLIMIT_LOCKS] = "Max file locks",
	[RLIMIT_SIGPENDING] = "Max pending signals",
	[RLIMIT_MSGQUEUE] = "Max msgqueue size",
	[RLIMIT_NICE] = "Max nice priority",
	[RLIMIT_RTPRIO] = "Max realtime priority",
	[RLIMIT_RTTIME] = "Max realtime timeout",
};

static rlim_t limit_value(const char *text) {
	return strcmp(text, "unlimited") == 0 ? RLIM_INFINITY : strtoull(text, NULL, 10);
}

static int limit_from_proc(pid_t pid, unsigned resource, struct rlimit *old) {
	char path[64], line[256], soft[32], hard[32];
	int found = -1;
	if (resource >= sizeof NAMES / sizeof *NAMES) return -1;
	snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
	FILE *file = fopen(path, "r");
	if (!file) return -1;
	size_t length = strlen(NAMES[resource]);
	while (found != 0 && fgets(line, sizeof line, file))
		if (strncmp(line, NAMES[resource], length) == 0 && sscanf(line + length, "%31s %31s", soft, hard) == 2) {
			old->rlim_cur = limit_value(soft);
			old->rlim_max = limit_value(hard);
			found = 0;
		}
	fclose(file);
	return found;
}

static long prlimit_or_proc(const long *arguments) {
	long result = errno_syscall(SYS_prlimit64, arguments);
	struct rlimit *old = (struct rlimit *)arguments[3];
	if (result == 0 || errno != EPERM || arguments[2] != 0 || old == NULL) return result;
	if (limit_from_proc((pid_t)arguments[0], (unsigned)arguments[1], old) == 0) return 0;
	errno = EPERM;
	return -1;
}

int prlimit64(pid_t pid, enum __rlimit_resource resource, const struct rlimit64 *new, struct rlimit64 *old) {
	const long arguments[6] = { pid, (long)resource, (long)new, (long)old, 0, 0 };
	return (int)prlimit_or_proc(arguments);
}

/* The same function on 64-bit systems; programs link one name or the other. */
int prlimit(pid_t pid, enum __rlimit_resource resource, const struct rlimit *new, struct rlimit *old) {
	const long arguments[6] = { pid, (long)resource, (long)new, (long)old, 0, 0 };
	return (int)prlimit_or_proc(arguments);
}

long syscall(long number, ...) {
	long arguments[6];
	va_list list;
	va_start(list, number);
	for (int i = 0; i < 6; i++) arguments[i] = va_arg(list, long);
	va_end(list);
	return number == SYS_prlimit64 ? prlimit_or_proc(arguments) : errno_syscall(number, arguments);
}
