/* Tries to use more than its share: processes, memory, disk, log. */
#define _GNU_SOURCE
#include "attempt.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static char block[1 << 20];

/* Forks whatever happens until its time is over; says how far it came. */
static void fork_bomb(int seconds)
{
	int made = 0, refused_forks = 0;
	time_t end = time(0) + seconds;
	while (time(0) < end) {
		pid_t pid = fork();
		if (pid == 0)
			for (;;)
				fork() == 0 ? pause() : usleep(1000);
		if (pid > 0 && ++made == 1)
			puts("burning");
		if (pid < 0) {
			MUST(errno == EAGAIN);
			refused_forks++;
			usleep(1000);
		}
	}
	printf("made %d\n", made);
	MUST(refused_forks > 0);
}

static void forks(int wanted)
{
	int made = 0;
	for (int i = 0; i < wanted; i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		WORKS(pid);
		made += pid > 0 && waitpid(pid, 0, 0) == pid;
	}
	MUST(made == wanted);
}

/* Touches pages until there are no more. */
static void touch(long bytes)
{
	long got = 0;
	for (; got < bytes; got += sizeof block) {
		char *page = mmap(0, sizeof block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			break;
		memset(page, 1, sizeof block);
	}
	MUST(got < bytes && errno == ENOMEM);
	printf("touched %ld\n", got);
}

static void fill(const char *path, int expected)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0644);
	long written = 0, count;
	WORKS(fd);
	while (written < 1L << 34 && (count = write(fd, block, sizeof block)) > 0)
		written += count;
	MUST(written < 1L << 34 && errno == expected);
	printf("filled %ld\n", written);
}

static void fill_memfd(void)
{
	int fd = syscall(SYS_memfd_create, "bomb", 0);
	WORKS(fd);
	puts("filling");
	while (write(fd, block, sizeof block) > 0)
		;
}

static void inodes(const char *directory, int limit)
{
	char path[512];
	int made = 0;
	for (; made <= limit; made++) {
		snprintf(path, sizeof path, "%s/%d", directory, made);
		int fd = open(path, O_CREAT | O_WRONLY, 0644);
		if (fd < 0)
			break;
		close(fd);
	}
	MUST(made <= limit && errno == ENOSPC);
	printf("inodes %d\n", made);
}

static void names(void)
{
	static char name[300];
	memset(name, 'n', 256);
	REFUSED(open(name, O_CREAT | O_WRONLY, 0644), ENAMETOOLONG, 0);
	name[255] = 0;
	WORKS(open(name, O_CREAT | O_WRONLY, 0644));
	int depth = 0;
	for (; depth < 5000 && mkdir("d", 0755) == 0 && chdir("d") == 0; depth++)
		;
	MUST(depth == 5000);
}

static void sparse(void)
{
	signal(SIGXFSZ, SIG_IGN);
	int fd = open("sparse", O_CREAT | O_RDWR, 0644);
	WORKS(fd);
	REFUSED(ftruncate(fd, 1L << 60), EFBIG, EINVAL);
	REFUSED(pwrite(fd, "x", 1, 1L << 60), EFBIG, EINVAL);
	REFUSED(fallocate(fd, 0, 0, 1L << 60), EFBIG, ENOSPC);
	WORKS(ftruncate(fd, 1 << 16));
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "", *first = argc > 2 ? argv[2] : "", *second = argc > 3 ? argv[3] : "";
	setvbuf(stdout, 0, _IOLBF, 0);
#define IS(name) (!strcmp(command, name))
	if (IS("fork-bomb")) fork_bomb(atoi(first));
	else if (IS("forks")) forks(atoi(first));
	else if (IS("touch")) touch(atol(first));
	else if (IS("fill")) fill(first, ENOSPC);
	else if (IS("memfd")) fill_memfd();
	else if (IS("inodes")) inodes(first, atoi(second));
	else if (IS("names")) names();
	else if (IS("sparse")) sparse();
	else if (IS("flood")) {
		setvbuf(stdout, 0, _IOFBF, 1 << 16);
		/* One line without an end. */
		memset(block, 'y', sizeof block);
		for (long left = atol(first); left > 0; left -= sizeof block)
			if (write(1, block, sizeof block) < 0)
				return 1;
		return 0;
	} else if (IS("raw")) {
		for (int byte = 0; byte < 256; byte++)
			if (write(1, (char[]){ byte }, 1) != 1)
				return 1;
		return write(1, "\033[2J\033]0;title\007\033[6n", 18) != 18;
	} else return 2;
	return judged();
}
