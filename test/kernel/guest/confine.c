/*
 * Executes a program with the privileges of the agent in production: user 0 without any
 * capability, and no way to gain one.
 *
 *   confine PROGRAM [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	if (argc < 2)
		errx(2, "usage: confine PROGRAM [ARGUMENT...]");
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
		if (prctl(PR_CAPBSET_DROP, capability))
			err(1, "capability %d", capability);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capset, &header, none))
		err(1, "no privileges");
	execvp(argv[1], argv + 1);
	err(127, "%s", argv[1]);
}
