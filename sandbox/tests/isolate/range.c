/* A payload with many users: what it may do with them, and what it may not. */
#define _GNU_SOURCE
#include "attempt.h"
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int ended(pid_t pid)
{
	int status = 0;
	if (waitpid(pid, &status, 0) != pid)
		return 255;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void become(int id)
{
	gid_t group = id;
	WORKS(setgroups(1, &group));
	WORKS(setresgid(id, id, id));
	WORKS(setresuid(id, id, id));
}

/* Its own line of this file in /proc/self/status, as a number. */
static unsigned long status_of(const char *name)
{
	char text[8192];
	if (read_all("/proc/self/status", text, sizeof text) < 0)
		return ~0ul;
	char *line = strstr(text, name);
	return line ? strtoul(line + strlen(name), NULL, 16) : ~0ul;
}

static void make(const char *path, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
	works(path, fd);
	works(path, write(fd, "x", 1));
	close(fd);
	works(path, chmod(path, mode));
}

/* Two users and root: each owns its files, and can do nothing to the others'. */
static int users(void)
{
	struct stat s;
	MUST(getuid() == 0 && geteuid() == 0 && getgid() == 0 && getegid() == 0);
	WORKS(chmod(".", 0755));
	WORKS(mkdir("shared", 0777));
	WORKS(chmod("shared", 01777));
	make("secret", 0600);
	make("given", 0600);
	WORKS(chown("given", 65534, 65534));
	pid_t victim = fork();
	if (victim == 0) {
		pause();
		_exit(0);
	}
	for (int id = 33; id <= 1000; id += 967) {
		pid_t pid = fork();
		if (pid == 0) {
			char name[64];
			become(id);
			MUST(getuid() == id && getgid() == id && status_of("CapEff:\t") == 0 && status_of("CapPrm:\t") == 0);
			sprintf(name, "shared/of-%d", id);
			make(name, 0600);
			sprintf(name, "shared/closed-%d", id);
			WORKS(mkdir(name, 0700));
			sprintf(name, "shared/closed-%d/deep", id);
			make(name, 0);
			sprintf(name, "shared/closed-%d", id);
			WORKS(chmod(name, 0));
			REFUSED(open("secret", O_RDONLY), EACCES, 0);
			REFUSED(open("given", O_RDONLY), EACCES, 0);
			REFUSED(setresuid(0, 0, 0), EPERM, 0);
			REFUSED(setresgid(0, 0, 0), EPERM, 0);
			REFUSED(setgroups(0, NULL), EPERM, 0);
			REFUSED(kill(victim, SIGKILL), EPERM, 0);
			REFUSED(chown("secret", id, id), EPERM, 0);
			REFUSED(unlink(id == 33 ? "secret" : "shared/of-33"), EACCES, EPERM);
			fflush(stdout);
			_exit(bad);
		}
		MUST(ended(pid) == 0);
	}
	WORKS(lstat("shared/of-33", &s));
	MUST(s.st_uid == 33 && s.st_gid == 33);
	WORKS(lstat("shared/of-1000", &s));
	MUST(s.st_uid == 1000 && s.st_gid == 1000);
	WORKS(lstat("given", &s));
	MUST(s.st_uid == 65534 && s.st_gid == 65534);
	REFUSED(chown("given", 65536, 0), EINVAL, 0);
	WORKS(symlink("/nix/store/input/file", "shared/link"));
	WORKS(lchown("shared/link", 7, 7));
	WORKS(kill(victim, SIGKILL));
	return judged();
}

/* What root inside is not. */
static int rights(void)
{
	/* CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SYS_CHROOT */
	const unsigned long kept = 1ul << 0 | 1ul << 1 | 1ul << 3 | 1ul << 4 | 1ul << 5 | 1ul << 6 | 1ul << 7 | 1ul << 18;
	MUST(status_of("CapEff:\t") == kept && status_of("CapPrm:\t") == kept && status_of("CapBnd:\t") == kept);
	MUST(status_of("CapInh:\t") == 0 && status_of("CapAmb:\t") == 0);
	MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	REFUSED(unshare(CLONE_NEWUSER), EPERM, 0);
	REFUSED(unshare(CLONE_NEWNS), EPERM, 0);
	REFUSED(mount("none", "/tmp", "tmpfs", 0, NULL), EPERM, 0);
	REFUSED(mount(NULL, "/nix/store/input", NULL, MS_REMOUNT | MS_BIND, NULL), EPERM, 0);
	REFUSED(umount2("/nix/store/input", MNT_DETACH), EPERM, 0);
	REFUSED(open("/nix/store/input/file", O_WRONLY), EROFS, EACCES);
	REFUSED(chown("/nix/store/input/file", 5, 5), EROFS, EPERM);
	REFUSED(open("/undeclared", O_WRONLY | O_CREAT, 0644), EROFS, 0);
	make("plain", 0755);
	REFUSED(chmod("plain", 04755), EPERM, 0);
	REFUSED(mknod("device", S_IFCHR | 0666, 1 << 8 | 3), EPERM, 0);
	REFUSED(sethostname("x", 1), EPERM, 0);
	REFUSED(kill(1, SIGKILL) ? -1 : kill(1, 0) ? 0 : (errno = EPERM, -1), EPERM, 0);
	REFUSED(ptrace(PTRACE_ATTACH, 1, NULL, NULL), EPERM, 0);
	REFUSED(open("/proc/1/mem", O_RDWR), EACCES, EPERM);
	REFUSED(open("/proc/1/uid_map", O_WRONLY), EACCES, EPERM);
	REFUSED(open("/proc/sys/kernel/panic", O_WRONLY), EROFS, EACCES);
	REFUSED(open("/proc/sys/user/max_user_namespaces", O_WRONLY), EROFS, EACCES);
	REFUSED(open("/proc/sysrq-trigger", O_WRONLY), EROFS, ENOENT);
	/* Reading the pseudo file of another namespace's map would tell of ids that are none here. */
	char map[256];
	MUST(read_all("/proc/self/uid_map", map, sizeof map) > 0);
	printf("map %s", map);
	MUST(read_all("/proc/self/gid_map", map, sizeof map) > 0);
	printf("groups %s", map);
	return judged();
}

/* Processes of two users that end only when they are told to. */
static int several(void)
{
	for (int id = 5; id <= 6; id++)
		if (fork() == 0) {
			become(id);
			int received = 0;
			sigset_t set;
			sigemptyset(&set);
			sigaddset(&set, SIGTERM);
			sigprocmask(SIG_BLOCK, &set, NULL);
			printf("ready %d\n", id);
			fflush(stdout);
			sigwait(&set, &received);
			printf("told %d\n", id);
			fflush(stdout);
			_exit(0);
		}
	signal(SIGTERM, SIG_IGN);
	while (wait(NULL) > 0)
		;
	for (;;)
		pause();
}

/* How many processes all users together can have, at most `most`. */
static int bomb(int most)
{
	int count = 0;
	for (int id = 1; count < most; id++) {
		pid_t leader = 0;
		int before = count;
		int ends[2];
		WORKS(pipe(ends));
		leader = fork();
		if (leader < 0)
			break;
		if (leader == 0) {
			become(id);
			int made = 0;
			while (made < 60) {
				pid_t pid = fork();
				if (pid == 0) {
					for (;;)
						pause();
				}
				if (pid < 0)
					break;
				made++;
			}
			if (write(ends[1], &made, sizeof made) != sizeof made)
				_exit(1);
			for (;;)
				pause();
		}
		int made = 0;
		close(ends[1]);
		if (read(ends[0], &made, sizeof made) != sizeof made)
			break;
		close(ends[0]);
		count += made + 1;
		if (count == before + 1)
			break;
	}
	printf("processes %d\n", count);
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(command, "users"))
		return users();
	if (!strcmp(command, "rights"))
		return rights();
	if (!strcmp(command, "several"))
		return several();
	if (!strcmp(command, "bomb"))
		return bomb(argc > 2 ? atoi(argv[2]) : 0);
	return 99;
}
