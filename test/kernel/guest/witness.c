/*
 * Records who opens files of a file system, with the kernel's own list (fanotify):
 *
 *   witness DIRECTORY
 *
 * prints "ACTION PATH" for each file that is opened or closed anywhere in the
 * file system of DIRECTORY, whatever mount it is reached by. ACTION is a list of "open",
 * "read" (closed, could not have been written) and "write" (closed, was open for writing):
 * the kernel may merge what one process did to one file.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <unistd.h>

static void print(const struct fanotify_event_metadata *event)
{
	char link[32], path[PATH_MAX];

	snprintf(link, sizeof link, "/proc/self/fd/%d", event->fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		err(1, "%s", link);
	path[length] = '\0';
	printf("%s%s%s%s\n", event->mask & FAN_OPEN ? "open " : "",
	       event->mask & FAN_CLOSE_NOWRITE ? "read " : "",
	       event->mask & FAN_CLOSE_WRITE ? "write " : "", path);
}

int main(int argc, char **argv)
{
	struct fanotify_event_metadata events[256], *event;

	if (argc != 2)
		errx(2, "usage: witness DIRECTORY");
	int fan = fanotify_init(FAN_CLASS_NOTIF | FAN_UNLIMITED_QUEUE, O_RDONLY | O_CLOEXEC);
	if (fan < 0 || fanotify_mark(fan, FAN_MARK_ADD | FAN_MARK_FILESYSTEM,
				     FAN_OPEN | FAN_CLOSE, AT_FDCWD, argv[1]))
		err(1, "fanotify");
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("watching");
	for (;;) {
		ssize_t length = read(fan, events, sizeof events);
		if (length < 0) {
			/* The file cannot be opened any more, or not for reading: tell the reason. */
			printf("lost: %s\n", strerrorname_np(errno));
			continue;
		}
		for (event = events; FAN_EVENT_OK(event, length); event = FAN_EVENT_NEXT(event, length)) {
			if (event->mask & FAN_Q_OVERFLOW)
				errx(1, "events were lost");
			print(event);
			close(event->fd);
		}
	}
}
