/*
 * Makes drift, and measures how long it lasts: writes the value that is not wanted to files, one after
 * the other, at random, and waits for somebody to write the wanted one.
 *
 *   drift VALUE COUNT PER-SECOND SECONDS SEED <FILES
 *
 * makes up to COUNT writes, PER-SECOND of them a second on average (the pauses are exponential), within
 * SECONDS, and no second one to a file that is still wrong. Prints a line for each write: the microseconds
 * from the beginning of the write until the wanted value was there, or "pending" with those it has been
 * wrong for. The same seed makes the same choices.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 4096 };

static struct file {
	char *path;
	int watch;
	/* When it was made wrong, or 0. */
	long long since;
} files[FILES];
static int count;
static char wanted;

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static void write_value(const char *path, char value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, &value, 1) != 1)
		err(1, "%s", path);
	close(fd);
}

static char read_value(const char *path)
{
	char value = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, &value, 1) != 1)
		err(1, "%s", path);
	close(fd);
	return value;
}

static void look(int watch)
{
	for (int i = 0; i < count; i++)
		if (files[i].watch == watch && files[i].since && read_value(files[i].path) == wanted) {
			printf("%lld\n", now() - files[i].since);
			files[i].since = 0;
		}
}

/* Hears of writes until then. */
static void listen_until(int inotify, long long then)
{
	char events[65536] __attribute__((aligned(8)));
	for (;;) {
		long long left = then - now();
		struct timespec timeout = { left / 1000000, left % 1000000 * 1000 };
		struct pollfd fd = { .fd = inotify, .events = POLLIN };
		if (left <= 0 || ppoll(&fd, 1, &timeout, NULL) <= 0)
			return;
		ssize_t length = read(inotify, events, sizeof events);
		for (char *at = events; at < events + length;) {
			struct inotify_event *event = (void *)at;
			look(event->wd);
			at += sizeof *event + event->len;
		}
	}
}

int main(int argc, char **argv)
{
	char line[PATH_MAX];
	int made = 0, inotify = inotify_init1(IN_CLOEXEC);

	if (argc != 6)
		errx(2, "usage: drift VALUE COUNT PER-SECOND SECONDS SEED <FILES");
	wanted = *argv[1];
	int most = atoi(argv[2]);
	double rate = atof(argv[3]);
	long long end = now() + atoi(argv[4]) * 1000000LL, next;
	srand48(atoi(argv[5]));
	while (count < FILES && fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		files[count].path = strdup(line);
		files[count].watch = inotify_add_watch(inotify, line, IN_MODIFY);
		if (files[count++].watch < 0)
			err(1, "%s", line);
	}
	if (!count)
		errx(2, "no files");
	while (made < most && now() < end) {
		/* From now: what was late is not made up for by writes without a pause. */
		next = now() - log(1 - drand48()) / rate * 1000000;
		int chosen = drand48() * count, tried = 0;
		listen_until(inotify, next < end ? next : end);
		while (files[chosen].since && tried++ < count)
			chosen = (chosen + 1) % count;
		if (files[chosen].since)
			continue;
		files[chosen].since = now();
		write_value(files[chosen].path, wanted ^ 1);
		made++;
	}
	/* Those of the last moments have a second, if there is no later one anyway. */
	listen_until(inotify, now() + 1000000LL);
	for (int i = 0; i < count; i++)
		if (files[i].since)
			printf("pending %lld\n", now() - files[i].since);
	return 0;
}
