/*
 * What containerd's shim does for one container: creates and starts it with a runtime, and waits for its end.
 *
 *   shim [-l LINK TARGET] BUNDLE ID RUNTIME [OPTION...]
 *
 * makes the kubelet's symbolic link to the log once the container has started, and prints one line at each end:
 * "started PID", "exited STATUS" or "killed SIGNAL".
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Microseconds from the one to the other, that containerd or CRI-O takes. A node with containerd 2.1 and runc has 31 ms
 * between the runtime's 1 and the program; a shell, and so the agent, is twenty times slower in the guest.
 */
enum { PAUSE = 620000 };

static char **runtime;

static void run(char *const *command)
{
	char *words[32] = { NULL };
	int count = 0, status;

	for (char **word = runtime; *word && count < 16; word++)
		words[count++] = *word;
	while (*command)
		words[count++] = *command++;
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		execvp(*words, words);
		err(127, "%s", *words);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "%s failed", *runtime);
}

int main(int argc, char **argv)
{
	const char *link = NULL, *target = NULL;
	int status;
	pid_t pid;

	if (argc > 3 && !strcmp(argv[1], "-l")) {
		link = argv[2];
		target = argv[3];
		argv += 3;
		argc -= 3;
	}
	if (argc < 4)
		errx(2, "usage: shim [-l LINK TARGET] BUNDLE ID RUNTIME [OPTION...]");
	char *id = argv[2];
	runtime = argv + 3;
	/* The runtime leaves the container to its caller. */
	if (chdir(argv[1]) || prctl(PR_SET_CHILD_SUBREAPER, 1))
		err(1, "%s", argv[1]);
	run((char *[]){ "create", "--pid-file", "pid", id, NULL });
	FILE *file = fopen("pid", "r");
	if (!file || fscanf(file, "%d", &pid) != 1)
		err(1, "pid");
	usleep(PAUSE);
	run((char *[]){ "start", id, NULL });
	dprintf(STDOUT_FILENO, "started %d\n", pid);
	if (link && symlink(target, link))
		err(1, "%s", link);
	while (waitpid(-1, &status, 0) != pid)
		;
	run((char *[]){ "delete", id, NULL });
	dprintf(STDOUT_FILENO, "%s %d\n", WIFSIGNALED(status) ? "killed" : "exited",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return 0;
}
