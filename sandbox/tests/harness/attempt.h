/* Attempts: each is made, counted, and must end as said. A probe prints how many there were, so that one which stopped
 * early, or did nothing, is not taken for one that was refused. Exit code 1 if anything was not as said. */
#ifndef ATTEMPT_H
#define ATTEMPT_H
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int bad, attempts;

/* Says so if a call did not fail with one of the two errors (0 for "only the first"). */
__attribute__((unused)) static void refused(const char *what, long result, int first, int second)
{
	int error = errno;
	attempts++;
	if (result >= 0) {
		printf("%s: possible\n", what);
		bad = 1;
	} else if (error != first && (!second || error != second)) {
		printf("%s: %s\n", what, strerror(error));
		bad = 1;
	}
}
#define REFUSED(call, first, second) (errno = 0, refused(#call, (long)(call), first, second))

/* Says so if a call failed: the control beside the attempts. */
__attribute__((unused)) static void works(const char *what, long result)
{
	if (result < 0) {
		printf("%s: %s\n", what, strerror(errno));
		bad = 1;
	}
}
#define WORKS(call) works(#call, (long)(call))

__attribute__((unused)) static void must(const char *what, int truth)
{
	attempts++;
	if (!truth) {
		printf("not so: %s\n", what);
		bad = 1;
	}
}
#define MUST(condition) must(#condition, (condition))

__attribute__((unused)) static int read_all(const char *path, char *buffer, int size)
{
	int fd = open(path, O_RDONLY), count = fd < 0 ? -1 : read(fd, buffer, size - 1);
	if (count >= 0)
		buffer[count] = 0;
	if (fd >= 0)
		close(fd);
	return count;
}

/* The end of every probe. */
__attribute__((unused)) static int judged(void)
{
	printf("attempts %d\n", attempts);
	return bad;
}
#endif
