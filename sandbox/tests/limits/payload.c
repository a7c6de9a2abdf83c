/* What runs inside for tests/limits.rs: each command does one thing without measure. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void touch_memory(size_t bytes)
{
	char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		printf("mmap: %s\n", strerror(errno));
		exit(9);
	}
	for (size_t at = 0; at < bytes; at += 4096)
		memory[at] = 1;
}

static void nap(long milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	nanosleep(&time, 0);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	long number = argc > 2 ? atol(argv[2]) : 0;
	setvbuf(stdout, 0, _IOLBF, 0);
#define IS(name) (!strcmp(command, name))
	if (IS("exit"))
		return number;
	if (IS("leave-writers")) {
		/* Many, so that killing them takes its time. Their ends are told to nobody: exit signal 0, which a plain wait(2)
		 * does not see. */
		for (int i = 0; i < number; i++)
			if (syscall(SYS_clone, 0, 0, 0, 0, 0) == 0) {
				int file = open("/build/grows", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
				for (int fd = 0; fd < 3; fd++)
					close(fd);
				while (write(file, "x", 1) == 1)
					;
				_exit(1);
			}
		struct stat grows = { 0 };
		while (stat("/build/grows", &grows) || grows.st_size == 0)
			nap(1);
		return 0;
	}
	if (IS("kill")) {
		/* Fatal whatever the handler was; a stop is undone by nobody. */
		raise(number);
		printf("survived %ld\n", number);
		return 0;
	}
	if (IS("memory")) {
		touch_memory((size_t)number << 20);
		puts("had it");
		return 0;
	}
	if (IS("memory-of-children")) {
		/* Each is small, all together are not; and the parent shrugs. */
		for (int i = 0; i < number; i++)
			if (fork() == 0) {
				touch_memory(16 << 20);
				nap(2000);
				_exit(0);
			}
		int bad = 0, status;
		while (wait(&status) > 0)
			bad |= status;
		return bad != 0;
	}
	if (IS("memory-in-files")) {
		int fd = open("/tmp/file", O_CREAT | O_WRONLY, 0600);
		static char block[1 << 20];
		memset(block, 1, sizeof block);
		for (long i = 0; i < number; i++)
			if (write(fd, block, sizeof block) < 0) {
				printf("write: %s\n", strerror(errno));
				return 9;
			}
		return 0;
	}
	if (IS("fork-bomb")) {
		/* Everyone forks for ever; the first fork that fails is the payload's own failure in the end. */
		for (;;)
			if (fork() < 0) {
				if (getpid() == 2)
					return 11;
				for (;;)
					pause();
			}
	}
	if (IS("make-like")) {
		/* A refused fork is waited out: no failure. */
		int made = 0;
		for (long i = 0; i < number; i++) {
			pid_t pid = fork();
			if (pid == 0) {
				nap(50);
				_exit(0);
			}
			if (pid > 0)
				made++;
			else
				wait(0);
		}
		while (wait(0) > 0)
			;
		printf("made %d\n", made);
		return 0;
	}
	if (IS("spin-in-children")) {
		for (;;) {
			if (fork() == 0) {
				clock_t end = clock() + CLOCKS_PER_SEC / 5;
				while (clock() < end)
					;
				_exit(0);
			}
			wait(0);
		}
	}
	if (IS("fill")) {
		/* Many files, deep, each below any limit on one file. */
		static char block[1 << 20];
		memset(block, 1, sizeof block);
		for (int i = 0;; i++) {
			char name[32];
			sprintf(name, "d%d", i);
			if (mkdir(name, 0700) || chdir(name))
				return 9;
			int fd = open("file", O_CREAT | O_WRONLY, 0600);
			if (fd < 0 || write(fd, block, number) < 0)
				return 9;
			close(fd);
			nap(1);
		}
	}
	if (IS("hole")) {
		int fd = open("hole", O_CREAT | O_WRONLY, 0600);
		if (ftruncate(fd, 1L << 35))
			return 9;
		nap(700);
		return 0;
	}
	if (IS("open")) {
		long made = 0;
		while (open("/dev/null", O_RDONLY) >= 0)
			made++;
		printf("opened %ld: %s\n", made, strerror(errno));
		return 0;
	}
	if (IS("line")) {
		/* One line without end. */
		static char block[1 << 16];
		memset(block, 'x', sizeof block);
		while (write(1, block, sizeof block) > 0)
			;
		return 9;
	}
	if (IS("groups")) {
		char text[4096];
		int fd = open("/proc/self/cgroup", O_RDONLY);
		long used = read(fd, text, sizeof text);
		fwrite(text, 1, used > 0 ? used : 0, stdout);
		return 0;
	}
	if (IS("say-and-sleep")) {
		printf("asleep\n");
		if (fork() == 0)
			setsid();
		for (;;)
			pause();
	}
	if (IS("work")) {
		/* A build: some processes, some files, some memory, some log. */
		for (int i = 0; i < 4; i++)
			if (fork() == 0) {
				char name[32];
				sprintf(name, "file%d", i);
				int fd = open(name, O_CREAT | O_WRONLY, 0600);
				static char block[1 << 16];
				for (int j = 0; j < 16; j++)
					if (write(fd, block, sizeof block) < 0)
						_exit(1);
				touch_memory(1 << 20);
				_exit(0);
			}
		int bad = 0, status;
		while (wait(&status) > 0)
			bad |= status;
		printf("worked\n");
		return bad != 0;
	}
	if (IS("network") || IS("network-and-wait")) {
		char text[4096];
		int fd = open("/proc/self/net/dev", O_RDONLY);
		long used = read(fd, text, sizeof text);
		fwrite(text, 1, used > 0 ? used : 0, stdout);
		struct stat stat_;
		if (!stat("/proc/self/ns/net", &stat_))
			printf("net %lu\n", (unsigned long)stat_.st_ino);
		if (IS("network-and-wait")) {
			puts("ready");
			for (;;)
				pause();
		}
		return 0;
	}
	if (IS("ask")) {
		/* getppid is 1 here; a supervisor may say something else. */
		printf("parent %ld\n", syscall(SYS_getppid));
		long refused = syscall(SYS_mount, 0, 0, 0, 0, 0);
		printf("mount %ld %s\n", refused, strerror(errno));
		long faked = syscall(SYS_getpriority, 0, 0);
		printf("priority %ld %s\n", faked, faked < 0 ? strerror(errno) : "");
		return 0;
	}
	printf("no such command: %s\n", command);
	return 2;
}
