/*
 * Writes 0 and 1 to a file in turns, as a container can do to its own memory.oom.group if it has its cgroup writable:
 *
 *   flip FILE TIMES-A-SECOND
 *
 * a thousandth of them every millisecond. What it is too late for it leaves out.
 */
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: flip FILE TIMES-A-SECOND");
	int file = open(argv[1], O_WRONLY), times = atoi(argv[2]) / 1000;
	for (unsigned n = 0;; usleep(1000))
		for (int i = 0; i < times; i++)
			if (pwrite(file, n++ % 2 ? "1" : "0", 1, 0) != 1)
				err(1, "%s", argv[1]);
}
