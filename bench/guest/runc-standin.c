/*
 * Stands in for systemd, runc and containerd's shim: starts one container the way they do.
 *
 *   runc-standin [-s] [-m BYTES] [-t ZERO,ZERO,ONE,EXEC] CGROUP PROGRAM [ARGUMENT...]
 *
 * creates the directory CGROUP and, this many milliseconds later (-t), writes 0 and again 0
 * to its memory.oom.group as systemd does, then memory.max (-m) and 1 as runc does, and
 * finally executes PROGRAM, which is in CGROUP all the time and process 1 of new pid, mount
 * and cgroup namespaces. The default times are those of Kubernetes 1.36 with the systemd
 * driver, ten times slower. They are those of the guest's own clock, which stands still when the host does. Like runc, it opens existing files only and closes each after the write.
 *
 * A pod's sandbox (-s) gets no 1: the kubelet sets no value for it.
 *
 * It stays outside the cgroup, removes it when the container has ended, and prints one line
 * at each end: "started PID", "exited STATUS" or "killed SIGNAL".
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *cgroup;
static struct timespec created;

static void write_file(const char *name, const char *value)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/%s", cgroup, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		err(1, "%s", path);
	close(fd);
}

/* Microseconds since the creation of the cgroup. */
static long long age(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - created.tv_sec) * 1000000LL + (now.tv_nsec - created.tv_nsec) / 1000;
}

/* Waits until this many milliseconds after the creation of the cgroup. */
static void wait_until(int ms)
{
	for (;;) {
		long long left = ms * 1000LL - age();
		struct timespec timeout = { left / 1000000, left % 1000000 * 1000 };
		if (left <= 0)
			return;
		nanosleep(&timeout, NULL);
	}
}

/* The container: enters the cgroup and waits for the word to execute the program. */
static int container(int start, char **argv)
{
	char byte;
	write_file("cgroup.procs", "0");
	if (unshare(CLONE_NEWCGROUP))
		err(1, "cgroup namespace");
	setsid();
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		err(1, "private mounts");
	if (read(start, &byte, 1) != 1)
		errx(1, "the runtime is gone");
	execvp(*argv, argv);
	err(127, "%s", *argv);
}

int main(int argc, char **argv)
{
	int zero = 26, zero_again = 348, one = 368, exec = 680;
	const char *max = "max";
	int option, status, start[2], sandbox = 0;

	while ((option = getopt(argc, argv, "+m:st:")) != -1) {
		if (option == 'm')
			max = optarg;
		else if (option == 's')
			sandbox = 1;
		else if (option != 't' ||
			 sscanf(optarg, "%d,%d,%d,%d", &zero, &zero_again, &one, &exec) != 4)
			errx(2, "usage: runc-standin [-s] [-m BYTES] [-t ZERO,ZERO,ONE,EXEC] CGROUP PROGRAM...");
	}
	if (argc - optind < 2)
		errx(2, "a cgroup and a program are needed");
	cgroup = argv[optind];

	if (mkdir(cgroup, 0755))
		err(1, "%s", cgroup);
	clock_gettime(CLOCK_MONOTONIC, &created);
	if (pipe2(start, O_CLOEXEC))
		err(1, "pipe");
	pid_t pid = syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		err(1, "clone");
	if (pid == 0) {
		close(start[1]);
		return container(start[0], argv + optind + 1);
	}

	wait_until(zero);
	write_file("memory.oom.group", "0");
	wait_until(zero_again);
	write_file("memory.oom.group", "0");
	wait_until(one);
	write_file("memory.max", max);
	if (!sandbox)
		write_file("memory.oom.group", "1");
	wait_until(exec);
	dprintf(STDOUT_FILENO, "started %d\n", pid);
	if (write(start[1], "", 1) != 1)
		err(1, "start");

	if (waitpid(pid, &status, 0) != pid)
		err(1, "wait");
	while (rmdir(cgroup) && errno == EBUSY)
		usleep(1000);
	if (WIFSIGNALED(status))
		dprintf(STDOUT_FILENO, "killed %d\n", WTERMSIG(status));
	else
		dprintf(STDOUT_FILENO, "exited %d\n", WEXITSTATUS(status));
	return 0;
}
