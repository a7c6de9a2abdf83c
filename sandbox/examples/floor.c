/* The bare namespaces: told by a byte, makes a process in eight new ones, which becomes argv[1]; tells when it ended. */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char byte;
	while (read(0, &byte, 1) == 1) {
		struct clone_args args = {
			.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
				CLONE_NEWCGROUP | CLONE_NEWTIME,
			.exit_signal = SIGCHLD,
		};
		int status = 1;
		long pid = syscall(SYS_clone3, &args, sizeof args);
		if (pid == 0) {
			char *none[] = { 0 };
			execve(argv[1], argv + 1, none);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
			return 1;
		if (write(1, &byte, 1) != 1)
			return 1;
	}
	return 0;
}
