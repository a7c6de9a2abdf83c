/* Tells all that a program can see of where and as whom it runs, and what every system call answers to bad arguments. */
#define _GNU_SOURCE
#include "attempt.h"
#include <dirent.h>
#include <locale.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

/* FNV-1a: long texts are compared, not read. */
static unsigned long long sum(const char *text, int size)
{
	unsigned long long value = 0xcbf29ce484222325;
	for (int i = 0; i < size; i++)
		value = (value ^ (unsigned char)text[i]) * 0x100000001b3;
	return value;
}

static void file(const char *path)
{
	static char text[1 << 20];
	int size = read_all(path, text, sizeof text);
	if (size < 0)
		printf("%s: %s\n", path, strerrorname_np(errno));
	else if (size < 200 && !memchr(text, '\n', size > 0 ? size - 1 : 0) && !memchr(text, 0, size))
		printf("%s: %.*s\n", path, size > 0 && text[size - 1] == '\n' ? size - 1 : size, text);
	else
		printf("%s: %d bytes %016llx\n", path, size, sum(text, size));
}

static void directory(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	printf("readdir %s:", path);
	while (dir && (entry = readdir(dir)))
		printf(" %s", entry->d_name);
	puts("");
}

static void inode(const char *path)
{
	struct stat st;
	struct statfs fs;
	if (stat(path, &st) || statfs(path, &fs)) {
		printf("stat %s: %s\n", path, strerrorname_np(errno));
		return;
	}
	printf("inode %s: %lu\ndevice %s: %lu\nmode %s: %o %u %u\nfs %s: %lx\n", path, st.st_ino, path, st.st_dev, path,
	       st.st_mode, st.st_uid, st.st_gid, path, (long)fs.f_type);
}

static void tell(void)
{
	struct utsname name;
	struct timespec at;
	struct sysinfo info;
	int on_stack;
	static int in_data;
	cpu_set_t cpus;
	char text[4096];
	uname(&name);
	printf("uname: %s|%s|%s|%s|%s|%s\n", name.sysname, name.nodename, name.release, name.version, name.machine, name.domainname);
	printf("ids: %d %d %d %d groups %d\n", getuid(), geteuid(), getgid(), getegid(), getgroups(0, 0));
	printf("pid: %d %d %d %d\n", getpid(), getppid(), getsid(0), getpgrp());
	for (char **each = environ; *each; each++)
		printf("env: %s\n", *each);
	printf("cwd: %s\n", getcwd(text, sizeof text));
	mode_t mask = umask(0);
	printf("umask: %o\n", mask);
	for (int resource = 0; resource < RLIMIT_NLIMITS; resource++) {
		struct rlimit limit;
		getrlimit(resource, &limit);
		printf("rlimit %d: %ld %ld\n", resource, (long)limit.rlim_cur, (long)limit.rlim_max);
	}
	printf("addresses: %p %p %p %p\n", (void *)&on_stack, (void *)&in_data, malloc(1), (void *)getauxval(AT_SYSINFO_EHDR));
	printf("random: %016llx\n", sum((char *)getauxval(AT_RANDOM), 16));
	printf("execfn: %s\n", (char *)getauxval(AT_EXECFN));
	printf("secure: %lu\n", getauxval(AT_SECURE));
	printf("personality: %x\n", personality(0xffffffff));
	sched_getaffinity(0, sizeof cpus, &cpus);
	printf("cpus: %d %ld %ld\n", CPU_COUNT(&cpus), sysconf(_SC_NPROCESSORS_ONLN), sysconf(_SC_NPROCESSORS_CONF));
	printf("priority: %d %d %d\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0), prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	clock_gettime(CLOCK_MONOTONIC, &at);
	printf("monotonic: %lld\n", (long long)at.tv_sec / 60);
	clock_gettime(CLOCK_BOOTTIME, &at);
	printf("boottime: %lld\n", (long long)at.tv_sec / 60);
	sysinfo(&info);
	printf("sysinfo uptime: %ld\n", info.uptime / 60);
	printf("sysinfo memory: %lu\n", info.totalram);
	printf("sysinfo load: %d\n", info.loads[0] > 0);
	printf("locale: %s\n", setlocale(LC_ALL, ""));
	time_t epoch = 0;
	struct tm *local = localtime(&epoch);
	printf("zone: %s %d\n", local->tm_zone, local->tm_hour);
	sigset_t blocked;
	sigprocmask(0, 0, &blocked);
	printf("blocked:");
	for (int signal = 1; signal < 65; signal++) {
		struct sigaction action;
		if (sigismember(&blocked, signal) == 1)
			printf(" %d", signal);
		if (!sigaction(signal, 0, &action) && action.sa_handler != SIG_DFL)
			printf(" action%d", signal);
	}
	puts("");
	static const char *const files[] = { "/proc/version", "/proc/cpuinfo", "/proc/meminfo", "/proc/uptime", "/proc/loadavg",
		"/proc/stat", "/proc/cmdline", "/proc/filesystems", "/proc/modules", "/proc/mounts", "/proc/self/mountinfo",
		"/proc/self/cgroup", "/proc/self/limits", "/proc/self/loginuid", "/proc/self/sessionid", "/proc/self/oom_score_adj",
		"/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/timens_offsets", "/proc/self/attr/current",
		"/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname", "/proc/sys/kernel/ostype", "/proc/net/dev",
		"/proc/net/route", "/proc/diskstats", "/proc/partitions", "/proc/swaps", "/proc/devices", "/proc/interrupts",
		"/proc/vmstat", "/proc/zoneinfo", "/proc/buddyinfo", "/proc/kallsyms", "/proc/keys", "/proc/locks", "/etc/passwd",
		"/etc/group", "/etc/hosts", "/etc/hostname", "/etc/localtime", "/etc/machine-id", "/proc/sysvipc/shm" };
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++)
		file(files[i]);
	static const char *const places[] = { "/", "/dev", "/proc/self/fd", "/etc", "/nix/store", "/build", "/tmp", "/dev/shm" };
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
		directory(places[i]);
		inode(places[i]);
	}
}

/* Calls that end, stop or double the caller by design, or that wait for the machine's disks. */
static int not_called(int number)
{
	return number == SYS_exit || number == SYS_exit_group || number == SYS_sync || number == SYS_pause ||
	       number == SYS_vfork || number == SYS_fork || number == SYS_rt_sigreturn;
}

static void calls(void)
{
	for (int number = 0; number <= 600; number++) {
		int pipe_ends[2], status;
		char answer[64] = "";
		if (not_called(number)) {
			printf("%d -\n", number);
			continue;
		}
		fflush(stdout);
		WORKS(pipe2(pipe_ends, O_CLOEXEC));
		int child = fork();
		if (child == 0) {
			struct itimerval soon = { { 0, 0 }, { 2, 0 } };
			setitimer(ITIMER_REAL, &soon, 0);
			long result = syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
			const char *name = result >= 0 || result < -4095 ? "ok" : strerrorname_np(errno);
			if (!name)
				name = "?";
			if (write(pipe_ends[1], name, strlen(name)) < 0)
				_exit(1);
			_exit(0);
		}
		WORKS(child);
		close(pipe_ends[1]);
		waitpid(child, &status, 0);
		int size = read(pipe_ends[0], answer, sizeof answer - 1);
		close(pipe_ends[0]);
		if (size > 0)
			printf("%d %s\n", number, answer);
		else
			printf("%d signal %d\n", number, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
		attempts++;
	}
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	setvbuf(stdout, 0, _IOLBF, 0);
	if (!strcmp(command, "tell")) tell();
	else if (!strcmp(command, "calls")) calls();
	else return 2;
	fflush(stdout);
	return bad;
}
