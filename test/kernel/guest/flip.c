/*
 * Writes 0 and 1 to a file in turns, as a container can do to its own memory.oom.group if it has its cgroup writable:
 *
 *   flip FILE TIMES-A-SECOND
 *
 * writes a thousandth of them every millisecond, and more of them after it was late.
 */
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec next;

	if (argc != 3)
		errx(2, "usage: flip FILE TIMES-A-SECOND");
	int file = open(argv[1], O_WRONLY), times = atoi(argv[2]) / 1000;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (unsigned n = 0;;) {
		for (int i = 0; i < times; i++)
			if (pwrite(file, n++ % 2 ? "1" : "0", 1, 0) != 1)
				err(1, "%s", argv[1]);
		next.tv_nsec += 1000000;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}
