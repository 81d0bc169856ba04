/*
 * What inotify allows at best: keeps memory.oom.group of every container below one kubepods root at
 * one value, with nothing but inotify, read and write. No API server, no names, no log.
 *
 *   limit KUBEPODS VALUE
 *
 * The kubepods root is that of the systemd driver; every pod counts as opted in.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { WATCHES = 1 << 20 };

static int inotify;
static char wanted;
/* The paths behind the watches: a directory, or a container's file. */
static char *paths[WATCHES];

static void watch(const char *path, uint32_t mask)
{
	int number = inotify_add_watch(inotify, path, mask);
	if (number < 0)
		return;
	if (number >= WATCHES)
		errx(1, "too many watches");
	free(paths[number]);
	paths[number] = strdup(path);
}

static void enforce(const char *file)
{
	char value = 0;
	int fd = open(file, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	if (pread(fd, &value, 1, 0) == 1 && value != wanted && pwrite(fd, &wanted, 1, 0) != 1)
		warn("%s", file);
	close(fd);
}

static int is_container(const char *name)
{
	return !strncmp(name, "cri-containerd-", 15);
}

/* A container's directory leads to its file, any other to the directories in it. */
static void adopt(const char *directory, const char *name)
{
	char path[PATH_MAX];
	struct dirent *entry;

	if (is_container(name)) {
		snprintf(path, sizeof path, "%s/memory.oom.group", directory);
		watch(path, IN_MODIFY);
		enforce(path);
		return;
	}
	watch(directory, IN_CREATE | IN_ONLYDIR);
	DIR *stream = opendir(directory);
	if (!stream)
		return;
	while ((entry = readdir(stream)))
		if (entry->d_type == DT_DIR && strncmp(entry->d_name, ".", 1)) {
			snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
			adopt(path, entry->d_name);
		}
	closedir(stream);
}

int main(int argc, char **argv)
{
	char events[65536] __attribute__((aligned(8))), path[PATH_MAX];

	if (argc != 3)
		errx(2, "usage: limit KUBEPODS VALUE");
	wanted = *argv[2];
	inotify = inotify_init1(IN_CLOEXEC);
	if (inotify < 0)
		err(1, "inotify");
	adopt(argv[1], "");
	for (;;) {
		ssize_t length = read(inotify, events, sizeof events);
		if (length < 0)
			err(1, "read");
		for (char *at = events; at < events + length;) {
			struct inotify_event *event = (void *)at;
			at += sizeof *event + event->len;
			if (event->mask & IN_Q_OVERFLOW)
				errx(1, "events were lost");
			if (event->mask & IN_IGNORED) {
				free(paths[event->wd]);
				paths[event->wd] = NULL;
			} else if (event->mask & IN_MODIFY) {
				if (paths[event->wd])
					enforce(paths[event->wd]);
			} else if (event->mask & IN_ISDIR && paths[event->wd]) {
				snprintf(path, sizeof path, "%s/%s", paths[event->wd], event->name);
				adopt(path, event->name);
			}
		}
	}
}
