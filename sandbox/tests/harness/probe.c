/* The program that runs inside: `probe COMMAND [ARGUMENT...]`. It exits 0 if what the command tries is refused, or is
 * as it should be, and otherwise says what it could do and exits 1. Static, no shell, no library of the host's. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int bad;

/* Says so if a call did not fail with one of the two errors (0 for "only the first"). */
static void refused(const char *what, long result, int first, int second)
{
	int error = errno;
	if (result >= 0) {
		printf("%s: possible\n", what);
		bad = 1;
	} else if (error != first && (!second || error != second)) {
		printf("%s: %s\n", what, strerror(error));
		bad = 1;
	}
}
#define REFUSED(call, first, second) (errno = 0, refused(#call, (long)(call), first, second))

static void works(const char *what, long result)
{
	if (result < 0) {
		printf("%s: %s\n", what, strerror(errno));
		bad = 1;
	}
}
#define WORKS(call) works(#call, (long)(call))

static void must(const char *what, int truth)
{
	if (!truth) {
		printf("not so: %s\n", what);
		bad = 1;
	}
}
#define MUST(condition) must(#condition, (condition))

static int connect_to(int family, const char *address, int port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(family, SOCK_STREAM, 0), result, error;
	if (fd < 0)
		return -1;
	if (family == AF_INET) {
		inet_pton(AF_INET, address, &v4.sin_addr);
		result = connect(fd, (void *)&v4, sizeof v4);
	} else {
		inet_pton(AF_INET6, address, &v6.sin6_addr);
		result = connect(fd, (void *)&v6, sizeof v6);
	}
	error = errno;
	close(fd);
	errno = error;
	return result;
}

static void network(int host_port)
{
	REFUSED(connect_to(AF_INET, "192.0.2.1", 80), ENETUNREACH, 0);
	REFUSED(connect_to(AF_INET6, "2001:db8::1", 80), ENETUNREACH, EADDRNOTAVAIL);
	REFUSED(connect_to(AF_INET, "127.0.0.1", host_port), ECONNREFUSED, 0);

	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof any;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	WORKS(bind(listener, (void *)&any, sizeof any));
	WORKS(listen(listener, 1));
	WORKS(getsockname(listener, (void *)&any, &size));
	WORKS(connect_to(AF_INET, "127.0.0.1", ntohs(any.sin_port)));
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	WORKS(bind(socket(AF_INET6, SOCK_STREAM, 0), (void *)&v6, sizeof v6));

	struct if_nameindex *list = if_nameindex();
	for (int i = 0; list && list[i].if_index; i++)
		MUST(!strcmp(list[i].if_name, "lo") || strstr("tunl0 sit0 ip6tnl0 gre0 erspan0", list[i].if_name));
}

static void sockets(void)
{
	REFUSED(socket(40 /* AF_VSOCK */, SOCK_STREAM, 0), EPERM, 0);
	REFUSED(socket(38 /* AF_ALG */, SOCK_SEQPACKET, 0), EPERM, 0);
	REFUSED(socket(AF_PACKET, SOCK_RAW, 0), EPERM, 0);
	REFUSED(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM, 0);
	REFUSED(socket(AF_KEY, SOCK_RAW, 2), EPERM, 0);
	REFUSED(socket(31 /* AF_BLUETOOTH */, SOCK_RAW, 0), EPERM, 0);
	WORKS(socket(AF_UNIX, SOCK_STREAM, 0));
	WORKS(socket(AF_NETLINK, SOCK_RAW, 0));
}

static void setuid_files(void)
{
	int fd;
	WORKS(fd = open("plain", O_CREAT | O_RDWR, 0755));
	REFUSED(chmod("plain", 04755), EPERM, 0);
	REFUSED(fchmod(fd, 02755), EPERM, 0);
	REFUSED(syscall(SYS_fchmodat, AT_FDCWD, "plain", 06755), EPERM, 0);
	REFUSED(syscall(452 /* fchmodat2 */, AT_FDCWD, "plain", 04755, 0), EPERM, ENOSYS);
	REFUSED(open("by-open", O_CREAT | O_RDWR, 04755), EPERM, 0);
	REFUSED(syscall(SYS_open, "by-open", O_CREAT | O_RDWR, 04755), EPERM, 0);
	REFUSED(syscall(SYS_creat, "by-creat", 02755), EPERM, 0);
	REFUSED(open(".", O_TMPFILE | O_RDWR, 04755), EPERM, 0);
	REFUSED(mknod("by-mknod", S_IFREG | 04755, 0), EPERM, 0);
	REFUSED(syscall(SYS_mknod, "by-mknod", S_IFREG | 04755, 0), EPERM, 0);
	struct { unsigned long long flags, mode, resolve; } how = { O_CREAT | O_RDWR, 04755, 0 };
	REFUSED(syscall(437 /* openat2 */, AT_FDCWD, "by-openat2", &how, sizeof how), ENOSYS, 0);
	/* Without O_CREAT the mode is not read, and musl passes whatever is in the register. */
	WORKS(syscall(SYS_open, "plain", O_RDONLY, 04755));
	WORKS(open(".", O_TMPFILE | O_RDWR, 0755));
	WORKS(chmod("plain", 0700));
	struct stat st;
	WORKS(stat("plain", &st));
	MUST((st.st_mode & 07777) == 0700);
	REFUSED(syscall(SYS_setxattr, "plain", "user.x", "y", 1, 0), ENOTSUP, 0);
	REFUSED(syscall(463 /* setxattrat */, AT_FDCWD, "plain", 0, "user.x", 0, 0), ENOTSUP, 0);
	REFUSED(mknod("null", S_IFCHR | 0666, makedev(1, 3)), EPERM, 0);
	REFUSED(mknod("loop", S_IFBLK | 0666, makedev(7, 0)), EPERM, 0);
	REFUSED(mknod("whiteout", S_IFCHR, 0), EPERM, 0);
}

static void kernel_surface(void)
{
	char buffer[256] = { 0 };
	REFUSED(unshare(CLONE_NEWUSER), EPERM, 0);
	REFUSED(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), EPERM, 0);
	REFUSED(syscall(SYS_clone3, buffer, 64), ENOSYS, 0);
	REFUSED(unshare(CLONE_NEWNS), EPERM, 0);
	REFUSED(syscall(SYS_setns, 0, 0), EPERM, 0);
	REFUSED(mount("none", "/tmp", "tmpfs", 0, 0), EPERM, 0);
	REFUSED(umount2("/tmp", MNT_DETACH), EPERM, 0);
	REFUSED(syscall(SYS_pivot_root, ".", "."), EPERM, 0);
	REFUSED(syscall(428 /* open_tree */, AT_FDCWD, "/", 1), EPERM, 0);
	REFUSED(syscall(430 /* fsopen */, "tmpfs", 0), EPERM, 0);
	REFUSED(syscall(457 /* statmount */, buffer, buffer, 256, 0), EPERM, 0);
	REFUSED(chroot("/tmp"), EPERM, 0);
	REFUSED(syscall(425 /* io_uring_setup */, 8, buffer), ENOSYS, 0);
	REFUSED(syscall(SYS_keyctl, 0, -3, 0), EPERM, 0);
	REFUSED(syscall(SYS_add_key, "user", "x", "y", 1, -3), EPERM, 0);
	REFUSED(syscall(SYS_bpf, 0, buffer, 64), EPERM, 0);
	REFUSED(syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0), EPERM, 0);
	REFUSED(syscall(SYS_userfaultfd, 1), EPERM, 0);
	REFUSED(syscall(SYS_name_to_handle_at, AT_FDCWD, "/", buffer, buffer, 0), EPERM, 0);
	REFUSED(sethostname("x", 1), EPERM, 0);
	REFUSED(personality(PER_LINUX32), EPERM, 0);
	REFUSED(syscall(999), ENOSYS, 0);
	int zero = 0;
	REFUSED(ioctl(0, TIOCSTI, &zero), EPERM, 0);
	MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	MUST(prctl(PR_CAPBSET_READ, 21, 0, 0, 0) == 0);
	WORKS(personality(0xffffffff));
}

/* Nothing of pid 1, which has our uid, may be reached. */
static void pid1(void)
{
	REFUSED(ptrace(PTRACE_ATTACH, 1, 0, 0), EPERM, 0);
	REFUSED(ptrace(PTRACE_SEIZE, 1, 0, 0), EPERM, 0);
	REFUSED(open("/proc/1/mem", O_RDWR), EACCES, EPERM);
	REFUSED(open("/proc/1/exe", O_RDONLY), EACCES, EPERM);
	REFUSED((long)opendir("/proc/1/fd") ?: -1, EACCES, EPERM);
	REFUSED(open("/proc/1/ns/mnt", O_RDONLY), EACCES, EPERM);
	REFUSED(syscall(438 /* pidfd_getfd */, syscall(434 /* pidfd_open */, 1, 0), 0, 0), EPERM, 0);
	/* As root the slot does not own it; a user does, but it runs, from a read-only mount. */
	MUST(open("/proc/self/exe", O_WRONLY) < 0 && (errno == EROFS || errno == EACCES || errno == ETXTBSY));
	kill(1, SIGKILL);
	MUST(getppid() == 1);
}

static void sysctls(void)
{
	static const char *const files[] = { "/proc/sys/kernel/panic", "/proc/sys/kernel/core_pattern",
		"/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/sys/user/max_user_namespaces",
		"/proc/sys/vm/drop_caches", "/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity" };
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
		errno = 0;
		int fd = open(files[i], O_WRONLY);
		if (fd >= 0 || (errno != EROFS && errno != EACCES && errno != ENOENT)) {
			printf("%s: %s\n", files[i], fd >= 0 ? "open" : strerror(errno));
			bad = 1;
		}
	}
	char line[256] = "";
	FILE *map = fopen("/proc/self/uid_map", "r");
	MUST(map && fgets(line, sizeof line, map));
	unsigned inside, outside, count;
	MUST(sscanf(line, "%u %u %u", &inside, &outside, &count) == 3 && count == 1);
	printf("uid_map %u\n", outside);
}

static int read_all(const char *path, char *buffer, int size)
{
	int fd = open(path, O_RDONLY), count = fd < 0 ? -1 : read(fd, buffer, size - 1);
	if (count >= 0)
		buffer[count] = 0;
	if (fd >= 0)
		close(fd);
	return count;
}

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

static void read_only(void)
{
	REFUSED(open("/nix/store/input/file", O_WRONLY), EROFS, EACCES);
	REFUSED(open("/nix/store/input/new", O_CREAT | O_WRONLY, 0644), EROFS, 0);
	REFUSED(chmod("/nix/store/input/file", 0777), EROFS, EPERM);
	REFUSED(unlink("/nix/store/input/file"), EROFS, 0);
	REFUSED(rename("/nix/store/input", "/nix/store/other"), EBUSY, 0);
	REFUSED(rmdir("/nix/store/input"), EBUSY, 0);
	REFUSED(rename("/nix/store", "/nix/away"), EROFS, EBUSY);
	REFUSED(link("/nix/store/input/file", "/nix/store/linked"), EXDEV, 0);
	REFUSED(truncate("/nix/store/input/file", 0), EROFS, EACCES);
	REFUSED(open("/nix/store/single", O_WRONLY), EROFS, EACCES);
	REFUSED(open("/new", O_CREAT | O_WRONLY, 0644), EROFS, 0);
	REFUSED(mkdir("/etc/new", 0755), EROFS, 0);
	REFUSED(open("/etc/passwd", O_WRONLY), EROFS, EACCES);
	char text[64] = "";
	MUST(read_all("/nix/store/input/file", text, sizeof text) == 7 && !strcmp(text, "pinned\n"));
	MUST(read_all("/nix/store/single", text, sizeof text) == 7);
	MUST(readlink("/nix/store/link", text, sizeof text) == 10 && !strncmp(text, "input/file", 10));
	int fd = open("/nix/store/out", O_CREAT | O_WRONLY, 0644);
	WORKS(fd);
	WORKS(write(fd, "made\n", 5));
	WORKS(open("/tmp/x", O_CREAT | O_WRONLY, 0644));
	WORKS(link("/nix/store/out", "/nix/store/out2"));
}

static void descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	char path[64], text[256];
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) > 2 && atoi(entry->d_name) != dirfd(dir)) {
			snprintf(path, sizeof path, "/proc/self/fd/%.8s", entry->d_name);
			ssize_t size = readlink(path, text, sizeof text - 1);
			text[size < 0 ? 0 : size] = 0;
			printf("open: %s %s\n", entry->d_name, text);
			bad = 1;
		}
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

static void daemon_left(void)
{
	if (fork() == 0) {
		setsid();
		if (fork() == 0) {
			signal(SIGTERM, SIG_IGN);
			signal(SIGHUP, SIG_IGN);
			for (;;)
				pause();
		}
		_exit(0);
	}
	wait(0);
}

static void fork_bomb(void)
{
	int made = 0;
	for (;;) {
		pid_t pid = fork();
		if (pid == 0)
			for (;;)
				pause();
		if (pid < 0)
			break;
		made++;
	}
	MUST(errno == EAGAIN);
	printf("made %d\n", made);
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
	pid1();
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
	} else if (IS("network")) network(atoi(argument));
	else if (IS("sockets")) sockets();
	else if (IS("setuid")) setuid_files();
	else if (IS("kernel")) kernel_surface();
	else if (IS("pid1")) pid1();
	else if (IS("sysctls")) sysctls();
	else if (IS("masked")) masked();
	else if (IS("one-cpu")) one_cpu();
	else if (IS("mounts")) mounts();
	else if (IS("devices")) devices();
	else if (IS("read-only")) read_only();
	else if (IS("descriptors")) descriptors();
	else if (IS("facts")) facts();
	else if (IS("daemon")) daemon_left();
	else if (IS("fork-bomb")) fork_bomb();
	else if (IS("fake-root")) fake_root();
	else if (IS("i386")) {
		long result;
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L));
		bad = 1;
	} else if (IS("x32")) {
		syscall(0x40000000 | SYS_getpid);
		bad = 1;
	} else if (IS("absent")) {
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
	} else if (IS("stubborn")) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_BLOCK, &all, 0);
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
	} else if (IS("flood")) {
		static char block[65536];
		memset(block, 'y', sizeof block);
		while (write(1, block, sizeof block) > 0)
			;
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
