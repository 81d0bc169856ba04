/*
 * A small master that keeps children which fill their memory until the kernel kills them.
 *
 *   hog [CHILDREN]
 *
 * prints "master started" once and "child died N" for the Nth child that was killed.
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

static void fill_memory(void)
{
	for (;;) {
		void *memory = mmap(NULL, STEP, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			err(1, "mmap");
		memset(memory, 1, STEP);
	}
}

int main(int argc, char **argv)
{
	int children = argc > 1 ? atoi(argv[1]) : 2;
	int running = 0, died = 0, status;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("master started");
	for (;;) {
		for (; running < children; running++) {
			pid_t pid = fork();
			if (pid < 0)
				err(1, "fork");
			if (pid == 0)
				fill_memory();
		}
		if (wait(&status) < 0)
			err(1, "wait");
		running--;
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			printf("child died %d\n", ++died);
	}
}
