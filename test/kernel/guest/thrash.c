/*
 * Keeps its cgroup at its limit without ever being killed, as a program does that reads files larger than
 * its memory: what it has written it gives back (MADV_FREE), so the kernel finds pages to reclaim, again
 * and again, and counts each time in memory.events. The guest has no disk, hence no page cache to do it
 * with.
 *
 *   thrash MEBIBYTES MICROSECONDS
 *
 * goes through this much memory in steps of 64 pages, with a pause between two of them.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STEP = 64 * 4096 };

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: thrash MEBIBYTES MICROSECONDS");
	size_t size = (size_t)atoi(argv[1]) << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE))
		err(1, "memory");
	for (;;) {
		for (size_t at = 0; at + STEP <= size; at += STEP) {
			memset(memory + at, 1, STEP);
			if (madvise(memory + at, STEP, MADV_FREE))
				err(1, "madvise");
			usleep(atoi(argv[2]));
		}
	}
}
