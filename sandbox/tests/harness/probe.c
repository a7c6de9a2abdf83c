/* The program that runs inside: `probe COMMAND [ARGUMENT...]`. It exits 0 if what the command tries is refused, or is
 * as it should be, and otherwise says what it could do and exits 1. Static, no shell, no library of the host's. */
#define _GNU_SOURCE
#include "attempt.h"
#include <dirent.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

static void masked(void)
{
	static const char *const empty[] = { "kcore", "keys", "key-users", "kallsyms", "timer_list", "cmdline",
		"interrupts", "config.gz", "modules" };
	char path[64], text[4096];
	for (unsigned i = 0; i < sizeof empty / sizeof *empty; i++) {
		snprintf(path, sizeof path, "/proc/%s", empty[i]);
		if (read_all(path, text, sizeof text) > 0) {
			printf("%s can be read\n", path);
			bad = 1;
		}
	}
	MUST(read_all("/proc/meminfo", text, sizeof text) > 0 && strstr(text, "MemTotal:        4194304 kB"));
	MUST(read_all("/proc/loadavg", text, sizeof text) > 0 && !strncmp(text, "0.00 0.00 0.00", 14));
	MUST(read_all("/proc/sys/kernel/random/boot_id", text, sizeof text) > 0 && !strncmp(text, "00000000-", 9));
	WORKS(read_all("/proc/self/status", text, sizeof text));
	WORKS(read_all("/proc/version", text, sizeof text));
	MUST(access("/sys", F_OK) < 0);
}

static int count_lines(const char *path, const char *prefix)
{
	static char text[1 << 20];
	int count = 0;
	if (read_all(path, text, sizeof text) < 0)
		return -1;
	for (char *at = text; (at = strstr(at, prefix)); at++)
		count += at == text || at[-1] == '\n';
	return count;
}

static void one_cpu(void)
{
	char text[64];
	MUST(count_lines("/proc/cpuinfo", "processor") == 1);
	MUST(count_lines("/proc/stat", "cpu") == 2);
	MUST(read_all("/sys/devices/system/cpu/online", text, sizeof text) == 2 && !strcmp(text, "0\n"));
	MUST(sysconf(_SC_NPROCESSORS_ONLN) == 1);
	REFUSED(open("/sys/x", O_CREAT | O_WRONLY, 0644), EROFS, EACCES);
}

/* One mount at /, and none that shows the host's root. */
static void mounts(void)
{
	char line[4096], point[4096];
	int roots = 0;
	FILE *file = fopen("/proc/self/mountinfo", "r");
	MUST(file != 0);
	while (file && fgets(line, sizeof line, file)) {
		MUST(sscanf(line, "%*d %*d %*s %*s %4095s", point) == 1);
		roots += !strcmp(point, "/");
		fputs(line, stdout);
	}
	MUST(roots == 1);
}

static void devices(void)
{
	char text[64];
	struct stat st;
	WORKS(stat("/dev", &st));
	MUST((st.st_mode & 07777) == 0755);
	WORKS(open("/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0666));
	WORKS(open("/dev/stdout", O_WRONLY));
	WORKS(open("/dev/stderr", O_WRONLY));
	MUST(read_all("/dev/zero", text, 5) == 4);
	MUST(read_all("/dev/urandom", text, 5) == 4);
	MUST(read_all("/dev/stdin", text, 5) == 0);
	REFUSED(open("/dev/tty", O_RDWR), ENXIO, 0);
	REFUSED(open("/dev/new", O_CREAT | O_WRONLY, 0644), EROFS, EACCES);
	REFUSED(open("/dev/kvm", O_RDWR), ENOENT, 0);
	REFUSED(open("/dev/fuse", O_RDWR), ENOENT, 0);
	int pty = open("/dev/ptmx", O_RDWR | O_NOCTTY);
	WORKS(pty);
	WORKS(grantpt(pty));
	WORKS(open("/dev/shm/x", O_CREAT | O_WRONLY, 0644));
	MUST(getsid(0) == getpid());
}

static void facts(void)
{
	struct utsname name;
	struct timespec boot;
	cpu_set_t cpus;
	int local;
	uname(&name);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	sched_getaffinity(0, sizeof cpus, &cpus);
	mode_t mask = umask(0);
	char cwd[256];
	printf("hostname %s\ndomain %s\nrelease %s\nuid %d\ngid %d\npid %d\numask %03o\ncwd %s\ncpus %d\npersonality %#x\n"
	       "boot %lld\ngroups %d\nstack %p\ncore %d\n", name.nodename, name.domainname, name.release, getuid(), getgid(), getpid(), mask,
	       getcwd(cwd, sizeof cwd), CPU_COUNT(&cpus), personality(0xffffffff), (long long)boot.tv_sec, getgroups(0, 0), (void *)&local,
	       ({ struct rlimit core; getrlimit(RLIMIT_CORE, &core); (int)core.rlim_cur; }));
}

static void fake_root(void)
{
	struct stat st;
	int fd = open("file", O_CREAT | O_RDWR, 0644);
	WORKS(fd);
	MUST(getuid() == 0 && getgid() == 0);
	WORKS(chown("file", 1, 2));
	WORKS(fchown(fd, 33, 33));
	WORKS(lchown("file", 5, 5));
	WORKS(mknod("device", S_IFCHR | 0666, makedev(1, 3)));
	REFUSED(stat("device", &st), ENOENT, 0);
	WORKS(chmod("file", 04755));
	WORKS(stat("file", &st));
	MUST(!(st.st_mode & 06000));
	MUST(st.st_uid == 0);
	WORKS(setgroups(0, 0));
	WORKS(syscall(SYS_setresuid, 33, 33, 33));
	MUST(getuid() == 0);
	WORKS(syscall(SYS_setxattr, "file", "security.capability", "x", 1, 0));
	/* A directory without rights is no obstacle to root. */
	WORKS(mkdir("closed", 0));
	WORKS(open("closed/inside", O_CREAT | O_WRONLY, 0600));
	WORKS(chmod("closed", 0755));
	/* The lock. */
	REFUSED(mount(0, "/nix/store/input", 0, MS_REMOUNT | MS_BIND, 0), EPERM, 0);
	REFUSED(umount2("/dev", 0), EPERM, EINVAL);
	REFUSED(unshare(CLONE_NEWUSER), EPERM, ENOSPC);
	REFUSED(open("/nix/store/input/file", O_WRONLY), EROFS, EACCES);
	REFUSED(open("/proc/sys/kernel/panic", O_WRONLY), EROFS, EACCES);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	const char *argument = argc > 2 ? argv[2] : "";
	setvbuf(stdout, 0, _IOLBF, 0);
#define IS(name) (!strcmp(command, name))
	if (IS("hello")) {
		if (!strcmp(argument, "signal"))
			abort();
		puts("to stdout");
		fputs("to stderr\n", stderr);
		return atoi(argument);
	}
	else if (IS("masked")) masked();
	else if (IS("one-cpu")) one_cpu();
	else if (IS("mounts")) mounts();
	else if (IS("devices")) devices();
	else if (IS("facts")) facts();
	else if (IS("fake-root")) fake_root();
	else if (IS("absent")) {
		for (int i = 2; i < argc; i++)
			if (access(argv[i], F_OK) == 0) {
				printf("%s exists\n", argv[i]);
				bad = 1;
			}
	} else if (IS("list")) {
		struct dirent **names;
		int count = scandir(argument, &names, 0, alphasort);
		for (int i = 2; i < count; i++)
			puts(names[i]->d_name);
	} else if (IS("cat")) {
		static char text[1 << 16];
		int count = read_all(argument, text, sizeof text);
		MUST(count >= 0);
		fputs(text, stdout);
	} else if (IS("sleep")) {
		puts("asleep");
		for (;;)
			pause();
	} else if (IS("on-term")) {
		sigset_t term;
		int number;
		sigemptyset(&term);
		sigaddset(&term, SIGTERM);
		sigprocmask(SIG_BLOCK, &term, 0);
		puts("asleep");
		sigwait(&term, &number);
		puts("told to end");
	} else if (IS("spin")) {
		for (;;)
			;
	} else if (IS("big-file")) {
		int fd = open("big", O_CREAT | O_WRONLY, 0644);
		static char block[65536];
		while (write(fd, block, sizeof block) > 0)
			;
	} else if (IS("touch")) {
		WORKS(open(argument, O_CREAT | O_WRONLY | O_EXCL, 0644));
	} else {
		printf("no such command: %s\n", command);
		return 2;
	}
	return bad;
}
