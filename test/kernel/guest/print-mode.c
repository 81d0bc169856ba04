/*
 * Prints a file from its very first instruction on: no C library, no start-up code.
 *
 *   print-mode FILE
 */
#include <fcntl.h>
#include <sys/syscall.h>

static long call(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

/* The stack at the start of a process: argc, argv[0], argv[1], ... */
__attribute__((used)) static void run(const long *stack)
{
	char mode[16];
	long fd = call(SYS_open, stack[2], O_RDONLY, 0);
	long size = call(SYS_read, fd, (long)mode, sizeof mode);
	if (size > 0)
		call(SYS_write, 1, (long)mode, size);
	call(SYS_exit, size > 0 ? 0 : 1, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
