/*
 * The process tree of the image tests: random memory, zero pages, a forked child that shares most of it, a loopback pair.
 * argv: exchange directory, MiB of random memory, a port of 127.0.0.1 where something outside of the tree listens. At the start and on
 * SIGUSR1 each process writes to a file of its own: the hash of its memory, what came through the pair, what sending to the outside says.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define ZEROS (16 * MIB)
#define OWN (8 * MIB)

static const char *exchange;
static volatile sig_atomic_t asked;

static void ask(int sig) { (void)sig; asked = 1; }

static void must(int good, const char *what)
{
	if (!good) { perror(what); exit(1); }
}

static char *map(size_t size)
{
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(at != MAP_FAILED, "mmap");
	madvise(at, size, MADV_NOHUGEPAGE);
	return at;
}

static void randomise(char *at, size_t size)
{
	for (size_t done = 0; done < size; done += 256)
		must(getrandom(at + done, 256, 0) == 256, "getrandom");
}

static uint64_t mix(uint64_t hash, const char *at, size_t size)
{
	const uint64_t *word = (const uint64_t *)at;
	for (size_t i = 0; i < size / 8; i++) hash = (hash ^ word[i]) * 0x100000001b3ULL;
	return hash;
}

static void put(const char *role, int turn, const char *text)
{
	char name[256], temporary[300];
	snprintf(name, sizeof(name), "%s/hash-%s-%d", exchange, role, turn);
	snprintf(temporary, sizeof(temporary), "%s.tmp", name);
	FILE *out = fopen(temporary, "w");
	must(out != NULL, temporary);
	fputs(text, out);
	fclose(out);
	must(rename(temporary, name) == 0, name);
}

/* A filter that allows everything; `mark` makes one differ from the other. */
static void confine(uint32_t mark)
{
	struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_IMM, mark), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog program = {.len = 2, .filter = code};
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
}

int main(int argc, char **argv)
{
	must(argc == 4, "usage: criu-workload EXCHANGE MIB PORT");
	exchange = argv[1];
	size_t size = strtoul(argv[2], NULL, 10) * MIB;
	setsid();
	char *memory = map(size), *zeros = map(ZEROS), *own = map(OWN);
	randomise(memory, size);
	memset(zeros, 0, ZEROS);

	int listener = socket(AF_INET, SOCK_STREAM, 0), near = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	/* 127.0.0.2 plays the pod's own address: every address of 127/8 is there, so another can play the target's. */
	address.sin_addr.s_addr = htonl(0x7f000002);
	must(bind(listener, (void *)&address, sizeof(address)) == 0 && listen(listener, 4) == 0, "listen");
	getsockname(listener, (void *)&address, &length);
	must(connect(near, (void *)&address, sizeof(address)) == 0, "connect");
	int far = accept(listener, NULL, NULL);
	must(far >= 0, "accept");

	int outside = socket(AF_INET, SOCK_STREAM, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
	must(connect(outside, (void *)&address, sizeof(address)) == 0, "connect outside");

	signal(SIGUSR1, ask);
	int child = fork() == 0;
	const char *role = child ? "child" : "parent";
	/* The child has 8 MiB of the common memory for itself and two seccomp filters; both fill memory of their own. */
	if (child) {
		randomise(memory, 8 * MIB);
		must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
		confine(1);
		confine(2);
	}
	randomise(own, OWN);
	int turn = 0;
	for (asked = 1;; usleep(5000)) {
		char text[128], echo[16] = "";
		if (!asked) continue;
		asked = 0;
		uint64_t hash = mix(mix(mix(1469598103934665603ULL, memory, size), zeros, ZEROS), own, OWN);
		/* The child's word travels through the loopback pair to the parent, before and after a restore. */
		if (child) must(write(far, "hello", 5) == 5, "write");
		else must(read(near, echo, 5) == 5, "read");
		const char *sent = send(outside, "x", 1, MSG_NOSIGNAL) == 1 ? "open" : "closed";
		snprintf(text, sizeof(text), "%016lx %s %s", (unsigned long)hash, child ? "-" : echo, sent);
		put(role, turn++, text);
	}
}
