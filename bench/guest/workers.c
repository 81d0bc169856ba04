/*
 * A master that keeps its workers, as php-fpm, Gunicorn or PostgreSQL do.
 *
 *   workers COUNT SECONDS
 *
 * Again and again after this many seconds one of its workers, in turn, has a request that needs more memory
 * than there is. The master starts a new worker for each that has ended.
 */
#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEP = 1 << 20, MOST = 64 };

static void worker(void)
{
	sigset_t request;
	int signal;
	sigemptyset(&request);
	sigaddset(&request, SIGUSR1);
	sigwait(&request, &signal);
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
	pid_t workers[MOST] = { 0 };
	int count = argc == 3 ? atoi(argv[1]) : 0, seconds = argc == 3 ? atoi(argv[2]) : 0, next = 0;
	sigset_t signals;

	if (count < 1 || count > MOST || seconds < 1)
		errx(2, "usage: workers COUNT SECONDS");
	/* What arrives waits until somebody asks for it. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGALRM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	alarm(seconds);
	for (;;) {
		int signal;
		for (int i = 0; i < count; i++) {
			if (workers[i] == 0 && (workers[i] = fork()) == 0)
				worker();
			if (workers[i] < 0)
				err(1, "fork");
		}
		sigwait(&signals, &signal);
		if (signal == SIGALRM) {
			kill(workers[next++ % count], SIGUSR1);
			alarm(seconds);
		}
		for (pid_t ended; (ended = waitpid(-1, NULL, WNOHANG)) > 0;) {
			for (int i = 0; i < count; i++) {
				if (workers[i] == ended)
					workers[i] = 0;
			}
		}
	}
}
