/*
 * A small master that keeps children which fill their memory until the kernel kills them.
 *
 *   hog [CHILDREN [MIB VALUE]]
 *
 * prints "master started" once and "child died N" for the Nth child that was killed. The master holds MIB mebibytes
 * itself, and each child raises its own oom_score_adj to VALUE.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEP = 1 << 20 };

static void *fill(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		err(1, "mmap");
	return memset(memory, 1, size);
}

static void raise_value(const char *value)
{
	FILE *file = fopen("/proc/self/oom_score_adj", "w");

	if (!file || fputs(value, file) < 0 || fclose(file))
		err(1, "oom_score_adj");
}

int main(int argc, char **argv)
{
	int children = argc > 1 ? atoi(argv[1]) : 2;
	int running = 0, died = 0, status;
	size_t size = argc > 3 ? (size_t)atoi(argv[2]) * STEP : 0;
	void *held = size ? fill(size) : NULL;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("master started");
	for (;;) {
		for (; running < children; running++) {
			pid_t pid = fork();
			if (pid < 0)
				err(1, "fork");
			if (pid == 0) {
				/* What the master holds would count for the child, too. */
				if (held && munmap(held, size))
					err(1, "munmap");
				if (held)
					raise_value(argv[3]);
				for (;;)
					fill(STEP);
			}
		}
		if (wait(&status) < 0)
			err(1, "wait");
		running--;
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			printf("child died %d\n", ++died);
	}
}
