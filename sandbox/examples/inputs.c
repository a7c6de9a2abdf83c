/* The bare calls of inputs: told by a byte, makes a process in new namespaces of users and mounts that mounts argv[1]
   read-only 1 + 1000 * byte times, as the sandbox does, and nothing else; tells when it ended. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int put(const char *file, const char *text)
{
	int to = open(file, O_WRONLY | O_CLOEXEC), failed = to < 0 || write(to, text, strlen(text)) < 0;
	close(to);
	return failed;
}

static int inputs(const char *source, int count)
{
	char map[64], name[16];
	struct mount_attr read_only = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
		.propagation = MS_PRIVATE,
	};
	struct stat identity;
	int uid = geteuid(), gid = getegid();

	/* Of root's sandboxes the launcher makes the trees, with root's own rights. */
	if (unshare(CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0)))
		return 1;
	if (uid) {
		snprintf(map, sizeof map, "0 %d 1", uid);
		if (put("/proc/self/setgroups", "deny") || put("/proc/self/uid_map", map))
			return 1;
		snprintf(map, sizeof map, "0 %d 1", gid);
		if (put("/proc/self/gid_map", map))
			return 1;
	}
	/* Opened in here, before the tmpfs may hide it: of another mount namespace's no tree could be made. */
	int from = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (mount(0, "/", 0, MS_PRIVATE | MS_REC, 0) || mount("tmpfs", "/tmp", "tmpfs", 0, "nr_inodes=4096"))
		return 1;
	int to = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (int number = 0; number < count; number++) {
		snprintf(name, sizeof name, "%d", number);
		int tree = syscall(SYS_open_tree, from, "bin",
				   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
		if (tree < 0 || fstat(tree, &identity) ||
		    syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only, sizeof read_only) ||
		    mkdirat(to, name, 0755) ||
		    syscall(SYS_move_mount, tree, "", to, name, MOVE_MOUNT_F_EMPTY_PATH))
			return 1;
		close(tree);
	}
	return 0;
}

int main(int argc, char **argv)
{
	unsigned char byte;
	while (read(0, &byte, 1) == 1) {
		int status = 1, pid = fork();
		if (pid == 0)
			_exit(inputs(argv[1], 1 + 1000 * byte));
		if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
			return 1;
		if (write(1, &byte, 1) != 1)
			return 1;
	}
	return 0;
}
